package plugin

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
	"github.com/sluice-gateway/sluice/plugin/config"
)

// TestMain lets what nobody uses close soon, rather than after a minute.
func TestMain(m *testing.M) {
	idleFor = 10 * time.Millisecond
	os.Exit(m.Run())
}

// Traefik calls New again at every reload and cancels the context of the
// configuration before. A thousand reloads under traffic, of an unchanged
// configuration and of one whose redis section changes each time, end with the
// connections and goroutines they began with; the count of a limit lives
// through all of them (design: reload).
func TestReloadsLeakNothing(t *testing.T) {
	const limit = 50
	for _, c := range []struct {
		name    string
		reloads int
		edit    func(c *Config, n int)
	}{
		{"unchanged", 1000, func(*Config, int) {}},
		{"redis edited", 200, func(c *Config, n int) {
			c.Redis[0].Timeout = (time.Second + time.Duration(n)*time.Microsecond).String()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := redistest.Start(t)
			links := func() int { return strings.Count(server.Do("CLIENT", "LIST"), "\n") }
			before, linksBefore := runtime.NumGoroutine(), links()

			var current atomic.Value // *gate
			open := func(n int) context.CancelFunc {
				edited := CreateConfig()
				edited.Redis = []config.Redis{{Addresses: []string{server.Addr}, Timeout: "1s"}}
				edited.Limits = []config.Limit{{Name: "all", Key: config.KeyGlobal, Limit: "50", Window: "240h"}}
				c.edit(edited, n)
				ctx, cancel := context.WithCancel(context.Background())
				handler, err := New(ctx, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), edited, "gate")
				if err != nil {
					t.Fatal(err)
				}
				current.Store(handler.(*gate))
				return cancel
			}
			cancel := open(0)
			engine := current.Load().(*gate).engine
			await(t, "the first connection", func() bool { return current.Load().(*gate).backend.client.Healthy() })

			var admitted, failed atomic.Int64
			stop := make(chan struct{})
			var clients sync.WaitGroup
			for range 4 {
				clients.Add(1)
				go func() {
					defer clients.Done()
					for {
						select {
						case <-stop:
							return
						case <-time.After(time.Millisecond):
						}
						w := httptest.NewRecorder()
						current.Load().(*gate).ServeHTTP(w, httptest.NewRequest("GET", "/", nil))
						switch w.Code {
						case http.StatusOK:
							admitted.Add(1)
						case http.StatusTooManyRequests:
						default:
							failed.Add(1)
						}
					}
				}()
			}
			for n := 1; n <= c.reloads; n++ {
				next := open(n)
				cancel()
				cancel = next
			}
			await(t, "the limit to be used up", func() bool { return admitted.Load() >= limit })
			if c.name == "unchanged" && current.Load().(*gate).engine != engine {
				t.Error("an unchanged configuration got a new engine")
			}
			close(stop)
			clients.Wait()
			if failed.Load() > 0 {
				t.Errorf("%d requests failed", failed.Load())
			}
			if c.name == "unchanged" && admitted.Load() != limit {
				t.Errorf("%d admitted, the limit is %d", admitted.Load(), limit)
			}
			cancel()
			await(t, "goroutines and connections of old configurations to end", func() bool {
				return runtime.NumGoroutine() <= before+2 && links() <= linksBefore
			})
		})
	}
}

func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// What a limit or a cache of decisions has counted stays in the heartbeat when
// a new configuration does without it: the counters only grow.
func TestCountersOutliveTheirConfiguration(t *testing.T) {
	server := redistest.Start(t)
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
	defer auth.Close()
	beat := func(limitName, address string) (*backend, context.CancelFunc) {
		opened := CreateConfig()
		opened.Redis = []config.Redis{{Addresses: []string{server.Addr}}}
		opened.Auth = []config.Auth{{Addresses: []string{address}}}
		opened.Limits = []config.Limit{{Name: limitName, Key: config.KeyGlobal, Limit: "1", Window: "240h"}}
		ctx, cancel := context.WithCancel(context.Background())
		handler, err := New(ctx, http.NotFoundHandler(), opened, "gate")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("Authorization", "Bearer x")
			handler.ServeHTTP(httptest.NewRecorder(), r)
		}
		return handler.(*gate).backend, cancel
	}
	b, before := beat("old", auth.URL)
	_, after := beat("new", auth.URL+"/other")
	defer after()
	counts := func() (c heartbeat) {
		if err := json.Unmarshal([]byte(b.account.report()), &c); err != nil {
			t.Fatal(err)
		}
		return c
	}
	denied, misses := counts().Counters.Denied["old"], counts().Counters.DecisionMisses
	if denied == 0 || misses < 2 {
		t.Fatalf("%d denied, %d misses", denied, misses)
	}
	before()
	await(t, "the old limit and cache to close", func() bool { return len(counts().Limits) == 1 })
	if c := counts().Counters; c.Denied["old"] != denied || c.DecisionMisses != misses {
		t.Errorf("%d denied of %d, %d misses of %d", c.Denied["old"], denied, c.DecisionMisses, misses)
	}
}

// Two redis sections with one key prefix write one heartbeat: each tells what
// both have counted, and what one has counted stays when an edit replaces it.
func TestSectionsOfOnePrefixShareTheHeartbeat(t *testing.T) {
	server := redistest.Start(t)
	prefix := "shared-" + strings.ReplaceAll(server.Addr, ":", "-") // what a prefix has counted outlives the test
	open := func(timeout string) (http.Handler, context.CancelFunc) {
		opened := CreateConfig()
		opened.Redis = []config.Redis{{Addresses: []string{server.Addr}, Timeout: timeout, KeyPrefix: prefix}}
		opened.Limits = []config.Limit{{Name: "all", Key: "header:X-Key", Limit: "1", Window: "240h"}}
		ctx, cancel := context.WithCancel(context.Background())
		handler, err := New(ctx, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), opened, "gate")
		if err != nil {
			t.Fatal(err)
		}
		await(t, "the connection", func() bool { return handler.(*gate).backend.client.Healthy() })
		return handler, cancel
	}
	beat := func(gate http.Handler, key string, requests int) {
		for range requests {
			r := httptest.NewRequest("GET", "/", nil)
			r.Header.Set("X-Key", key)
			gate.ServeHTTP(httptest.NewRecorder(), r)
		}
	}
	old, end := open("1s")
	edited, endEdited := open("2s")
	defer endEdited()
	beat(old, "a", 3)
	beat(edited, "b", 2)
	told := func() (h heartbeat) {
		instance := server.Do("ZRANGE", prefix+":gw:live", "0", "-1")
		_ = json.Unmarshal([]byte(server.Do("GET", prefix+":gw:"+instance)), &h) // before the first beat there is none
		return h
	}
	await(t, "a heartbeat that tells of all five requests", func() bool {
		h := told()
		return h.Counters.Allowed == 2 && h.Counters.Denied["all"] == 3 && h.Counters.Keys == 2
	})
	calls := told().Counters.RedisCalls
	end()
	await(t, "the replaced section to close", func() bool { return !old.(*gate).backend.client.Healthy() })
	beat(edited, "c", 2)
	await(t, "a heartbeat that tells of two more", func() bool { return told().Counters.Allowed == 3 })
	if h := told(); h.Counters.Denied["all"] != 4 || h.Counters.RedisCalls <= calls || h.Counters.Keys != 2 || len(h.Limits) != 1 {
		t.Errorf("after the edit: %+v", h)
	}
}

// What a reload has replaced says nothing more, though it closes a minute later.
func TestReplacedIsSilent(t *testing.T) {
	r := &registry{entries: map[string]*entry{}}
	said := 0
	say := r.whileHeld("old", func(string, string) { said++ })
	ctx, reload := context.WithCancel(t.Context())
	r.hold(ctx, "old", func() (interface{}, func()) { return nil, func() {} })
	say("error", "while it is configured")
	reload()
	for end := time.Now().Add(10 * time.Second); r.inUse("old"); {
		if time.Now().After(end) {
			t.Fatal("a cancelled context holds on")
		}
		time.Sleep(time.Millisecond)
	}
	say("error", "after it was replaced")
	if said != 1 {
		t.Errorf("%d lines, want the one before the reload", said)
	}
}

// A limit that is configured again in the moment in which it is dropped is opened
// after that: an engine knows it by its name, and would hand out the one it drops.
func TestClosedBeforeItIsOpenedAgain(t *testing.T) {
	r := &registry{entries: map[string]*entry{}}
	closing, reopened, early := make(chan struct{}), make(chan struct{}), make(chan bool, 1)
	ctx, reload := context.WithCancel(t.Context())
	r.hold(ctx, "limit", func() (interface{}, func()) {
		return nil, func() {
			close(closing)
			select {
			case <-reopened:
				early <- true
			case <-time.After(100 * time.Millisecond):
				early <- false
			}
		}
	})
	reload()
	<-closing
	r.hold(t.Context(), "limit", func() (interface{}, func()) {
		close(reopened)
		return nil, func() {}
	})
	if <-early {
		t.Error("opened while the one before was being closed")
	}
}
