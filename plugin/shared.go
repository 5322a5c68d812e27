package plugin

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/plugin/config"
	"github.com/sluice-gateway/sluice/plugin/limit"
	"github.com/sluice-gateway/sluice/plugin/redis"
)

// Traefik calls New for every router that uses the middleware and again at
// every configuration reload, and closes nothing. So all that must outlive a
// reload, or must exist once for many routers, lives here, in the plugin's only
// package variables but for request ids (requestid.go) and those who attend to
// requests (attend.go):
//
//	process    who we are                     one a Traefik process
//	backends   Redis client, limits, events   one a `redis` section
//	accounts   what the heartbeat tells       one a key prefix
//	decisions  answers of authsvc             one an `auth` section and backend
//	limiters   leases and denials             one a limit's name and window, and backend
//	mistakes   of which the log has been told one a middleware and configuration
//
// A handler holds what it uses for as long as the context that New was given:
// Traefik cancels it when the next configuration takes over. What nobody holds
// for idleFor is closed, so a thousand edits of the configuration leave one
// set of connections and goroutines, and a reload that changes nothing finds
// every count where it was (design: reload).
var (
	process  = newIdentity(os.Hostname())
	backends = &registry{entries: map[string]*entry{}}
	deciders = &registry{entries: map[string]*entry{}}
	limiters = &registry{entries: map[string]*entry{}}
	opened   atomic.Int64 // backends, caches of decisions and limits so far
	idleFor  = 60 * time.Second
	mistakes = &told{said: map[string]<-chan struct{}{}}

	accountsMu sync.Mutex // protects accounts
	accounts   = map[string]*account{}
)

// newIdentity is this process's name among the gateways: that of its host, by
// which an operator knows it, and 12 random hex digits, since a host may run
// several. It becomes part of a Redis key and a label of metrics, so only what a
// host name may consist of is taken over.
func newIdentity(host string, err error) string {
	name := []byte("gateway")
	if err == nil && host != "" {
		name = []byte(host)
	}
	if len(name) > 63 {
		name = name[:63]
	}
	for i, c := range name {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (c < '0' || c > '9') && c != '-' && c != '.' {
			name[i] = '-'
		}
	}
	var b [6]byte
	rand.Read(b[:])
	return string(name) + "-" + hex.EncodeToString(b[:])
}

// registry shares what equal configuration needs once.
type registry struct {
	mu      sync.Mutex
	entries map[string]*entry
	used    sync.Map // the ids of those that somebody holds: read without mu, see inUse
}

type entry struct {
	value   interface{}
	close   func()
	holders int
	held    int // how often it was taken up: an idle timer of an earlier time is void
}

// hold returns what id names, opened if it is not there, and keeps it until
// ctx is done.
func (r *registry) hold(ctx context.Context, id string, open func() (value interface{}, close func())) interface{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used.Store(id, true)
	e := r.entries[id]
	if e == nil {
		e = &entry{}
		e.value, e.close = open()
		r.entries[id] = e
	}
	e.holders++
	e.held++
	context.AfterFunc(ctx, func() { r.release(id, e) })
	return e.value
}

// whileHeld is log for as long as somebody holds what id names: a configuration that
// was replaced has nothing to say until it closes.
func (r *registry) whileHeld(id string, log func(level, message string)) func(level, message string) {
	return func(level, message string) {
		if r.inUse(id) {
			log(level, message)
		}
	}
}

// inUse tells whether somebody holds what id names. Whoever has something to say must
// not wait for mu: it is held while a backend enters its account, whose heartbeat asks
// an engine, which may have something to say.
func (r *registry) inUse(id string) bool {
	_, used := r.used.Load(id)
	return used
}

func (r *registry) release(id string, e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.holders--
	if e.holders > 0 {
		return
	}
	r.used.Delete(id)
	held := e.held
	time.AfterFunc(idleFor, func() { r.expire(id, e, held) })
}

func (r *registry) expire(id string, e *entry, held int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.holders == 0 && e.held == held {
		delete(r.entries, id)
		e.close() // under mu: an engine would hand a limit that is being dropped to who opens it anew
	}
}

// backend is a Redis and what is kept there.
type backend struct {
	identity string
	client   *redis.Client
	engine   *limit.Engine
	stream   *eventStream
	account  *account
	log      func(level, message string)
	allowed  atomic.Int64 // requests that passed every limit, but for decisions.passed
	memory   *memory      // of gates that ask for no credential

	mu        sync.Mutex
	decisions []*decisions // for their counters
	forgotten counters     // of caches that are closed
}

func holdBackend(ctx context.Context, s *config.RedisSettings) *backend {
	return backends.hold(ctx, s.Identity, func() (interface{}, func()) {
		b := openBackend(s)
		leave := b.account.enter(&source{counters: func() counters { return b.counters() }, trouble: func() *limit.Trouble { return b.engine.Trouble() }})
		return b, func() {
			b.close()
			leave()
		}
	}).(*backend)
}

func openBackend(s *config.RedisSettings) *backend {
	b := &backend{identity: unique(s.Identity), account: accountOf(s.KeyPrefix), stream: newEventStream(clock, s.KeyPrefix+":events"), memory: newMemory()}
	b.log = backends.whileHeld(s.Identity, logLine)
	to := s.Client
	to.Log = b.log
	to.Epoch = startedAt
	b.client = redis.New(to)
	calls := make(chan *redis.Call, mostCalls)
	go redis.Serve(b.client, calls)
	b.engine = limit.NewEngine(limit.Options{
		Calls: calls, Healthy: func() bool { return b.client.Healthy() }, Timeout: s.Timeout, MaxWait: s.Client.MaxWait, Instance: process, Prefix: s.KeyPrefix, Where: s.Where(),
		Report: b.account.report, Clock: clock, Log: b.log,
	})
	b.engine.Start()
	b.client.OnReady(b.engine.Ready)
	return b
}

// accountOf finds the account of a prefix, made at first use.
func accountOf(prefix string) *account {
	accountsMu.Lock()
	defer accountsMu.Unlock()
	a := accounts[prefix]
	if a == nil {
		for other, old := range accounts {
			if len(accounts) >= mostForgotten && old.idle() {
				delete(accounts, other)
			}
		}
		a = &account{instance: process, closed: newCounters(), limits: map[string]definition{}, users: map[string]int{}}
		accounts[prefix] = a
	}
	return a
}

// mostCalls is how many calls may wait to be routed. What comes beyond is decided
// as without Redis.
const mostCalls = 1 << 12

func (b *backend) close() {
	b.stream.close()
	b.engine.Close()
	b.client.Close()
}

// holdDecisions is the cache of one auth section. Its events come from the
// backend, which therefore is part of what it is known by.
func holdDecisions(ctx context.Context, s *config.Settings, b *backend) *decisions {
	id := b.identity + "\n" + s.Auth.Identity
	return deciders.hold(ctx, id, func() (interface{}, func()) {
		client := newAuthClient(s.Auth, s.UserHeader, deciders.whileHeld(id, logLine))
		for _, address := range client.addresses {
			go greet(client, s.Auth, address)
		}
		d := newDecisions(s.Auth, client, b.stream)
		d.identity = unique(b.identity)
		b.stream.follow(b.client, b.log)
		b.mu.Lock()
		b.decisions = append(b.decisions, d)
		b.mu.Unlock()
		return d, func() {
			b.forget(d)
			d.close()
		}
	}).(*decisions)
}

// limitState is what a limit has over all its routers.
type limitState struct {
	identity string // among all there have been
	limiter  *limit.Limiter
	oddities oddities
}

// holdLimiter gives a limit its state.
func holdLimiter(ctx context.Context, b *backend, rule *limitRule, maxKeys, subnet int, policy limit.Policy) {
	state := limiters.hold(ctx, b.identity+"\n"+rule.Name+"\n"+rule.Window.String(), func() (interface{}, func()) {
		l := b.engine.Limiter(rule.Name, rule.Window, maxKeys)
		end := b.account.use(rule)
		return &limitState{identity: unique(rule.Name), limiter: l}, func() {
			b.engine.Drop(l)
			end()
		}
	}).(*limitState)
	rule.limiter, rule.oddities, rule.state = state.limiter, &state.oddities, state.identity
	b.engine.Allow(rule.limiter, maxKeys)
	rule.limiter.Use(policy)
	b.account.define(rule, subnet)
}

// unique is the identity of what is opened by a configuration now. What another
// time is opened by the same one is another thing, and nothing that belongs to the
// first may be found under it.
func unique(configuration string) string {
	return configuration + "\n" + strconv.FormatInt(opened.Add(1), 10)
}

// counters are those of this backend alone.
func (b *backend) counters() counters {
	stats := b.client.Stats()
	c := counters{
		Allowed:         b.allowed.Load(),
		Denied:          b.engine.Denials(),
		Degraded:        b.engine.Degraded.Load(),
		RedisCalls:      stats.Calls,
		RedisErrors:     stats.Errors,
		BreakerOpened:   stats.BreakerOpened,
		RevocationsLost: b.stream.losses.Load(),
		Keys:            b.engine.Keys(),
	}
	if stats.BreakerOpen {
		c.BreakerOpen = 1
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	c.Allowed += b.forgotten.Allowed
	c.DecisionHits = b.forgotten.DecisionHits
	c.DecisionMisses = b.forgotten.DecisionMisses
	c.AuthErrors = b.forgotten.AuthErrors
	for _, d := range b.decisions {
		passed := d.passed.Load()
		c.Allowed += passed
		c.DecisionHits += d.hits.Load() + passed
		c.DecisionMisses += d.misses.Load()
		c.AuthErrors += d.errors.Load()
	}
	return c
}

// forget drops a closed cache; what it has counted stays in the sum.
func (b *backend) forget(d *decisions) {
	b.mu.Lock()
	defer b.mu.Unlock()
	passed := d.passed.Load()
	b.forgotten.Allowed += passed
	b.forgotten.DecisionHits += d.hits.Load() + passed
	b.forgotten.DecisionMisses += d.misses.Load()
	b.forgotten.AuthErrors += d.errors.Load()
	for i := range b.decisions {
		if b.decisions[i] == d {
			b.decisions = append(b.decisions[:i], b.decisions[i+1:]...)
			break
		}
	}
}
