package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"sync"
	"time"
)

// zipfLimit is the most that may pass of one user in a run shorter than a
// minute: the limit of 100, once before and once after a window's edge.
const zipfLimit = 2 * 100

// judge holds what wrk and the upstream counted of one run against what the
// chain promises. wrk stops with requests under way, which the upstream may
// have counted.
func (c chain) judge(o outcome, s seen) error {
	passed := o.Requests - o.Refused
	var wrong []error
	demand := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	demand(o.Requests > 0 && o.Broken == 0 && o.Late == 0, "%d requests, %d broken connections, %d answers late", o.Requests, o.Broken, o.Late)
	demand(s.Total >= passed && s.Total <= passed+connections, "%d passed and %d reached the upstream", passed, s.Total)
	switch c.answers {
	case allPass:
		demand(o.Refused == 0, "%d of %d were refused", o.Refused, o.Requests)
	case allDeny:
		demand(o.Refused == o.Requests && s.Total == 0, "%d of %d were refused, %d reached the upstream", o.Refused, o.Requests, s.Total)
	case mixed:
		demand(o.Refused > 0 && passed > 0, "%d of %d were refused", o.Refused, o.Requests)
		demand(s.BusiestUser <= zipfLimit, "%d requests of one user passed", s.BusiestUser)
	}
	if c.identity {
		demand(s.RightUser == s.Total && s.Credentials == 0, "of %d that reached the upstream %d named the right user and %d carried a credential", s.Total, s.RightUser, s.Credentials)
	}
	if c.ours {
		demand(s.RequestIDs == s.Total, "of %d that reached the upstream %d had an X-Request-ID", s.Total, s.RequestIDs)
	}
	if err := errors.Join(wrong...); err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}
	return nil
}

var (
	policyHeader = regexp.MustCompile(`^"[a-z0-9-]+";q=\d+;w=\d+(, "[a-z0-9-]+";q=\d+;w=\d+)*$`)
	stateHeader  = regexp.MustCompile(`^"[a-z0-9-]+";r=\d+;t=\d+(, "[a-z0-9-]+";r=\d+;t=\d+)*$`)
	uuid         = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
)

// examine reads one answer whole.
func (c chain) examine(response *http.Response) error {
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	h := response.Header
	allowed := response.StatusCode == http.StatusOK && c.answers != allDeny
	denied := response.StatusCode == http.StatusTooManyRequests && c.answers != allPass
	switch {
	case !allowed && !denied:
		return fmt.Errorf("status %d: %s", response.StatusCode, body)
	case allowed && string(body) != upstreamBody:
		return fmt.Errorf("body %q", body)
	case denied && (h.Get("Retry-After") == "" || h.Get("Content-Type") != "application/problem+json"):
		return fmt.Errorf("a 429 with headers %v", h)
	case c.limited && (!policyHeader.MatchString(h.Get("RateLimit-Policy")) || !stateHeader.MatchString(h.Get("RateLimit"))):
		return fmt.Errorf("RateLimit-Policy %q, RateLimit %q", h.Get("RateLimit-Policy"), h.Get("RateLimit"))
	case c.legacy && (h.Get("X-RateLimit-Limit") == "" || h.Get("X-RateLimit-Remaining") == "" || h.Get("X-RateLimit-Reset") == ""):
		return fmt.Errorf("X-RateLimit headers are missing: %v", h)
	case c.ours && !uuid.MatchString(h.Get("X-Request-ID")):
		return fmt.Errorf("X-Request-ID %q", h.Get("X-Request-ID"))
	}
	return nil
}

// each sends every line once, over a few connections, and hands on the answers.
func (b *bed) each(ctx context.Context, c chain, lines []line, examine func(*http.Response) error) (o outcome, err error) {
	work := make(chan line)
	var sending sync.WaitGroup
	var mu sync.Mutex // protects o and err
	for range 16 {
		sending.Go(func() {
			for l := range work {
				response, failed := b.ask(ctx, c, l)
				status := 0
				if failed == nil {
					status = response.StatusCode
					failed = examine(response)
					io.Copy(io.Discard, response.Body)
					response.Body.Close()
				}
				mu.Lock()
				o.Requests++
				if status >= 400 {
					o.Refused++
				}
				if err == nil && failed != nil {
					err = fmt.Errorf("%s: %w", c.name, failed)
				}
				mu.Unlock()
			}
		})
	}
	for _, l := range lines {
		work <- l
	}
	close(work)
	sending.Wait()
	return o, err
}

// verify sends a few hundred requests through a chain and examines every
// answer, and what reached the upstream.
func (b *bed) verify(ctx context.Context, c chain) error {
	lines, err := b.crowd.requests(c.load, 200)
	if err != nil {
		return err
	}
	if c.load == hot {
		for len(lines) < 200 {
			lines = append(lines, lines...)
		}
	}
	if c.answers == mixed { // one user above the limit, so that both answers occur
		for range 3 * zipfLimit / 2 {
			lines = append(lines, line{person: b.crowd.zipf[0], key: "z0"})
		}
	}
	if err := b.prepare(ctx, c, false); err != nil {
		return err
	}
	before, err := b.counters()
	if err != nil {
		return err
	}
	o, err := b.each(ctx, c, lines, c.examine)
	if err != nil {
		return err
	}
	after, err := b.counters()
	if err != nil {
		return err
	}
	return c.judge(o, after[c.name].minus(before[c.name]))
}

// prepare brings a chain into the state that is measured; full is for load that
// takes ten thousand requests to get there.
func (b *bed) prepare(ctx context.Context, c chain, full bool) error {
	lines := []line{}
	for range 4 {
		for _, p := range b.crowd.hot {
			lines = append(lines, line{person: p, key: p.user})
		}
	}
	if c.load == zipf && full {
		lines = b.crowd.everyone()
	}
	_, err := b.each(ctx, c, lines, func(*http.Response) error { return nil })
	return err
}

// heartbeats waits until the plugin of every gateway has reached Redis.
func (b *bed) heartbeats(ctx context.Context) error {
	limited := map[string]bool{}
	for _, c := range b.chains {
		if c.limited {
			limited[c.gateway] = true
		}
	}
	return b.await(ctx, "the plugin's heartbeat", func() error {
		n, err := b.redis.client.ZCard(ctx, "sluice:gw:live").Result()
		if err == nil && int(n) < len(limited) {
			err = fmt.Errorf("%d of %d", n, len(limited))
		}
		return err
	})
}

// ready verifies every chain, and takes Redis from those that have to do
// without.
func (b *bed) ready(ctx context.Context) error {
	if err := b.heartbeats(ctx); err != nil {
		return err
	}
	for _, c := range b.chains {
		if err := b.verify(ctx, c); err != nil {
			return err
		}
	}
	if err := b.doomed.process.Process.Kill(); err != nil {
		return err
	}
	time.Sleep(100 * time.Millisecond) // the connections break; nothing is waited for
	for _, c := range b.chains {
		if c.down() {
			if err := b.verify(ctx, c); err != nil {
				return fmt.Errorf("without Redis: %w", err)
			}
		}
	}
	return nil
}
