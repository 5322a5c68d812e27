//go:build ignore

// This program drives Traefik's own rateLimit middleware, unchanged, on virtual
// time. It is no part of this module, which must not require Traefik: traefik.go
// in the folder above compiles it inside the module that package traefik/build
// lays out, hence the constraint.
//
// It reads jobs (gob) from its standard input and writes what became of each to
// its standard output. The types have twins in traefik.go.
package main

import (
	"context"
	"encoding/gob"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	zerologger "github.com/rs/zerolog/log"
	ptypes "github.com/traefik/paerser/types"
	"github.com/traefik/traefik/v3/pkg/config/dynamic"
	"github.com/traefik/traefik/v3/pkg/middlewares/ratelimiter"
)

type Job struct {
	Average, Burst int64
	Period         time.Duration
	Redis          string        // a socket; empty: in memory
	Gates          int           // gateways: middlewares that share the Redis, or share nothing
	Skew           time.Duration // each gateway's clock is ahead of the one before it by this

	At   []time.Duration
	Key  []int
	Gate []int
}

type Result struct {
	Error    string
	Admitted []bool
	At       []time.Duration // when it was let through, or refused
}

// shim stands before Traefik's script. Keys expire on the virtual clock, which
// the script is told in ARGV[4], instead of the real one; and that argument is
// moved by the gateway's skew, as a gateway whose clock is wrong would send it.
const shim = `
local real, clock = redis, tonumber(ARGV[4])
ARGV[4] = clock + %d
local redis = {call = function(command, key, ...)
  if command == 'hgetall' then
    local dies = real.call('get', 'dies:' .. key)
    if dies and tonumber(dies) <= clock then return {} end
  elseif command == 'expire' then
    return real.call('set', 'dies:' .. key, string.format('%%.0f', clock + tonumber((...)) * 1000000))
  end
  return real.call(command, key, ...)
end}
`

func main() {
	zerologger.Logger = zerolog.Nop()
	os.Args = os.Args[:1]
	// A bubble of virtual time needs a *testing.T; testing.Main makes one in a
	// program too. The process ends inside the bubble, which go-redis's own
	// goroutines would otherwise outlive.
	testing.Main(func(string, string) (bool, error) { return true, nil }, []testing.InternalTest{{Name: "jobs", F: func(t *testing.T) {
		synctest.Test(t, func(*testing.T) {
			if err := serve(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			os.Exit(0)
		})
	}}}, nil, nil)
}

func serve() error {
	var jobs []Job
	if err := gob.NewDecoder(os.Stdin).Decode(&jobs); err != nil {
		return fmt.Errorf("read the jobs: %w", err)
	}
	out := gob.NewEncoder(os.Stdout)
	for i, job := range jobs {
		if err := out.Encode(run(fmt.Sprintf("job-%d", i), job)); err != nil {
			return fmt.Errorf("write a result: %w", err)
		}
	}
	return nil
}

type arrived struct{}

func run(name string, job Job) Result {
	result := Result{Admitted: make([]bool, len(job.At)), At: make([]time.Duration, len(job.At))}
	// Whole minutes, and past whatever the job before left in motion.
	start := time.Now().Truncate(time.Minute).Add(2 * time.Minute)
	upstream := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		i := r.Context().Value(arrived{}).(int)
		result.Admitted[i], result.At[i] = true, time.Since(start)
	})
	gates, err := open(name, job, upstream)
	if err != nil {
		result.Error = err.Error()
		return result
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i, at := range job.At {
		time.Sleep(time.Until(start.Add(at)))
		all.Go(func() {
			r := httptest.NewRequest("GET", "/", nil).WithContext(context.WithValue(context.Background(), arrived{}, i))
			r.Header.Set("X-User", strconv.Itoa(job.Key[i]))
			w := httptest.NewRecorder()
			result.At[i] = at
			gates[job.Gate[i]%len(gates)].ServeHTTP(w, r)
			if !result.Admitted[i] && w.Code != http.StatusTooManyRequests {
				mu.Lock()
				result.Error = fmt.Sprintf("request %d was answered %d: %s", i, w.Code, w.Body)
				mu.Unlock()
			}
		})
	}
	all.Wait()
	return result
}

func open(name string, job Job, upstream http.Handler) ([]http.Handler, error) {
	config := dynamic.RateLimit{
		Average: job.Average, Period: ptypes.Duration(job.Period), Burst: job.Burst,
		SourceCriterion: &dynamic.SourceCriterion{RequestHeaderName: "X-User"},
	}
	if job.Redis != "" {
		config.Redis = &dynamic.Redis{Endpoints: []string{job.Redis}}
	}
	var gates []http.Handler
	for i := range job.Gates {
		script := redis.NewScript(fmt.Sprintf(shim, (time.Duration(i)*job.Skew).Microseconds()) + ratelimiter.AllowTokenBucketRaw)
		ratelimiter.LoadTokenBucketScript = func() (*redis.Script, error) { return script, nil }
		gate, err := ratelimiter.New(context.Background(), upstream, config, name)
		if err != nil {
			return nil, err
		}
		gates = append(gates, gate)
	}
	return gates, nil
}
