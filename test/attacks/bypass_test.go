package attacks

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A bypass is tried like this: an attacker who has used a limit up by plain
// requests asks as often again in another manner. Each request that passes then
// is one gained. Every variant has an attacker of its own.
type bypass struct {
	class  string // of design: closed-entry-points
	name   string
	limit  string // the route, by its limit
	who    int    // number of the attacker
	front  front
	change func(b *bed, attacker int, attempt int, m *message)
}

// address is the attacker's own on loopback, all of which is this machine.
func address(attacker int) string {
	return fmt.Sprintf("127.%d.%d.%d", 10+attacker/60000, attacker/250%240, 1+attacker%250)
}

// request is the attacker's plain one.
func (y bypass) request(b *bed, tokens []string) message {
	m := message{method: "GET", target: "/limited/" + y.limit, host: echoHost}
	switch y.limit {
	case "user", "tier", "exempt-user":
		m.fields = append(m.fields, bearer(tokens[0]))
	case "header", "small":
		m.fields = append(m.fields, field{"X-Client", fmt.Sprintf("attacker-%d", y.who)})
	}
	return m
}

func set(fields ...field) func(*bed, int, int, *message) {
	return func(_ *bed, _, attempt int, m *message) {
		for _, f := range fields {
			m.fields = append(m.fields, field{f.name, strings.ReplaceAll(f.value, "%n", fmt.Sprint(1+attempt))})
		}
	}
}

// trail sends a header as a trailer.
func trail(name, value string) func(*bed, int, int, *message) {
	return func(_ *bed, _, attempt int, m *message) {
		m.method = "POST"
		m.fields = append(m.fields, field{"Trailer", name})
		m.trailers = []field{{name, strings.ReplaceAll(value, "%n", fmt.Sprint(attempt))}}
	}
}

// bypasses are the variants of every class.
func bypasses() []bypass {
	var all []bypass
	add := func(class, limit, name string, change func(*bed, int, int, *message)) {
		for _, f := range fronts {
			all = append(all, bypass{class: class, limit: limit, name: name, front: f, who: len(all), change: change})
		}
	}
	// An address of one's choice.
	for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP", "X-Originating-IP", "X-Cluster-Client-IP", "X-Remote-Addr", "Via", "x-forwarded-for", "X-FORWARDED-FOR"} {
		for _, value := range []string{"203.0.113.%n", "203.0.113.%n, 192.0.2.1", "192.0.2.1, 203.0.113.%n", "for=203.0.113.%n;by=192.0.2.1", "::ffff:203.0.113.%n", "[2001:db8::%n]:80"} {
			add("address by a header", "ip", name+": "+value, set(field{name, value}))
		}
		add("address by a header", "proxied", name, set(field{name, "203.0.113.%n"}))
	}
	add("address by a header", "proxied", "two lines", set(field{"X-Forwarded-For", "203.0.113.%n"}, field{"X-Forwarded-For", "203.0.114.%n"}))
	add("address by a header", "ip", "listed in Connection", set(field{"X-Forwarded-For", "203.0.113.%n"}, field{"Connection", "X-Forwarded-For"}))
	// Another identity, or a better plan.
	for _, name := range []string{"X-User-ID", "x-user-id", "X-Token-ID", "X-Session-ID"} {
		add("another user by a header", "user", name, set(field{name, "another-%n"}))
		add("another user by a header", "user", name+" listed in Connection", set(field{name, "another-%n"}, field{"Connection", name}))
	}
	for _, name := range []string{"X-User-Plan", "x-user-plan", "X-User-PLAN", "X-User-Scopes", "X-User-Limit"} {
		add("another plan by a header", "tier", name, set(field{name, "pro"}))
		add("another plan by a header", "tier", name+" twice", set(field{name, "free"}, field{name, "pro"}))
	}
	// Somebody whom no limit holds for.
	for _, name := range []string{"X-User-ID", "x-user-id", "X-Forwarded-User", "X-Remote-User", "From"} {
		for _, limit := range []string{"exempt-ip", "exempt-user"} {
			add("an exempt user by a header", limit, name, set(field{name, "root"}))
			add("an exempt user by a header", limit, name+" listed in Connection", set(field{name, "root"}, field{"Connection", name}))
		}
	}
	for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "Forwarded", "True-Client-IP", "CF-Connecting-IP"} {
		for _, limit := range []string{"exempt-ip", "exempt-user"} {
			add("an exempt address by a header", limit, name, set(field{name, "203.0.113.%n"}))
			add("an exempt address by a header", limit, name+", mapped", set(field{name, "::ffff:203.0.113.%n"}))
		}
	}
	for _, name := range []string{"X-User-ID", "X-User-Plan", "Authorization"} {
		add("another user by a trailer", "user", name, trail(name, "another-%n"))
		add("another user by a trailer", "tier", name, trail(name, "pro"))
	}
	for _, first := range []bool{true, false} {
		add("two credentials", "user", fmt.Sprintf("the own one first: %t", first), func(b *bed, attacker, attempt int, m *message) {
			other := bearer(b.issue(fmt.Sprintf("attacker-%d-%d", attacker, attempt)))
			if first {
				m.fields = append(m.fields, other)
			} else {
				m.fields = append([]field{other}, m.fields...)
			}
		})
	}
	for _, limit := range []string{"ip", "user"} {
		add("another kind of request", limit, "h2c upgrade", set(field{"Connection", "Upgrade, HTTP2-Settings"}, field{"Upgrade", "h2c"}, field{"HTTP2-Settings", "AAMAAABkAARAAAAAAAIAAAAA"}))
		add("another kind of request", limit, "WebSocket", set(field{"Connection", "Upgrade"}, field{"Upgrade", "websocket"}, field{"Sec-WebSocket-Version", "13"}, field{"Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="}))
		add("another kind of request", limit, "preflight", func(_ *bed, _, _ int, m *message) {
			m.method = "OPTIONS"
			m.fields = append(m.fields, field{"Origin", "https://example.org"}, field{"Access-Control-Request-Method", "GET"})
		})
		add("another kind of request", limit, "CONNECT", func(_ *bed, _, _ int, m *message) { m.method = "CONNECT" })
		add("another kind of request", limit, "an opaque target", func(_ *bed, _, _ int, m *message) { m.target = "http:" + m.target })
		add("another kind of request", limit, "gRPC", set(field{"Content-Type", "application/grpc"}, field{"TE", "trailers"}))
		add("another kind of request", limit, "a range", set(field{"Range", "bytes=%n-"}))
		add("another kind of request", limit, "a condition", set(field{"If-None-Match", "\"%n\""}))
		add("another kind of request", limit, "expecting 100", set(field{"Expect", "100-continue"}))
	}
	// Another spelling of the same route.
	for _, target := range []string{"/limited/LIMIT?a=%n", "/limited/LIMIT/%n", "/limited/LIMIT/", "/limited//LIMIT", "/limited/./LIMIT", "/x/../limited/LIMIT", "/limited/%6c" /* replaced below */, "/limited/LIMIT;x=%n", "/LIMITED/LIMIT", "http://" + echoHost + "/limited/LIMIT?%n", "/limited/LIMIT#%n", "/limited/x/%2e%2e/LIMIT"} {
		for _, limit := range []string{"ip", "user"} {
			if strings.HasSuffix(target, "%6c") {
				target = "/limited/" + escape("LIMIT"[:1])
			}
			add("another path", limit, target, func(_ *bed, _, attempt int, m *message) {
				m.target = strings.NewReplacer("LIMIT", limit, "%n", fmt.Sprint(attempt)).Replace(target)
			})
		}
	}
	for _, method := range []string{"HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"} {
		for _, limit := range []string{"ip", "user"} {
			add("another method", limit, method, func(_ *bed, _, _ int, m *message) { m.method = method })
		}
	}
	for _, host := range []string{"ECHO.TEST", "echo.test:80", "echo.test.", "Echo.Test"} {
		add("another host", "ip", host, func(_ *bed, _, _ int, m *message) { m.host = host })
	}
	// Another token of the same user; the same one spelled otherwise.
	for _, name := range []string{"a new token", "a new token of another plan", "a new scope"} {
		add("many tokens of one user", "user", name, func(b *bed, attacker, attempt int, m *message) {
			claims := map[string]any{}
			if name != "a new token" {
				claims["scope"] = fmt.Sprintf("scope-%d", attempt)
			}
			m.fields = []field{bearer(b.issue(fmt.Sprintf("attacker-%d", attacker), "claims", claims))}
		})
	}
	for _, scheme := range []string{"bearer", "BEARER", "Bearer "} {
		add("many tokens of one user", "user", "scheme "+scheme, func(_ *bed, _, _ int, m *message) {
			m.fields[0].value = strings.Replace(m.fields[0].value, "Bearer", scheme, 1)
		})
	}
	// Keys that meet another's, or the grammar of Redis.
	for _, suffix := range []string{" ", "\t", ""} {
		add("keys that look alike", "header", fmt.Sprintf("white space %q", suffix), func(_ *bed, _, _ int, m *message) {
			m.fields[0].value = suffix + m.fields[0].value + suffix
		})
	}
	add("keys that look alike", "header", "name in lower case", func(_ *bed, _, _ int, m *message) { m.fields[0].name = "x-client" })
	add("keys that look alike", "header", "name in upper case", func(_ *bed, _, _ int, m *message) { m.fields[0].name = "X-CLIENT" })
	add("keys that look alike", "header", "none", func(_ *bed, _, _ int, m *message) { m.fields = m.fields[:0] })
	add("keys that look alike", "header", "empty", func(_ *bed, _, _ int, m *message) { m.fields[0].value = "" })
	add("keys that look alike", "header", "listed in Connection", func(_ *bed, _, _ int, m *message) {
		m.fields = append(m.fields, field{"Connection", "X-Client"})
	})
	// New connections and other protocols.
	add("another connection", "ip", "close each time", set(field{"Connection", "close"}))
	add("another connection", "user", "close each time", set(field{"Connection", "close"}))
	for _, limit := range []string{"ip", "user", "global"} {
		add("another protocol", limit, "plain", set())
	}
	return all
}

// bypassing tries every variant, and the classes that need a crowd.
func bypassing(b *bed, c class) (o outcome) {
	b.redis.RoomIn(time.Hour, 2*time.Minute)
	const workers = 8
	all := sample(bypasses(), c.sample)
	var mu sync.Mutex
	var wait sync.WaitGroup
	jobs := make(chan bypass)
	find := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		o.findings = append(o.findings, fmt.Sprintf(format, args...))
	}
	for range workers {
		wait.Go(func() {
			for y := range jobs {
				gained, err := y.try(b)
				if err != nil {
					find("%s, %s, %s on %s: %v", y.class, y.front.name, y.name, y.limit, err)
				}
				mu.Lock()
				o.count(y.class, 1, gained)
				mu.Unlock()
			}
		})
	}
	for _, y := range all {
		jobs <- y
	}
	close(jobs)
	wait.Wait()
	for _, crowd := range []struct {
		name string
		try  func(*bed) (int, error)
	}{
		{"flood of distinct keys resets a bucket", distinctKeys},
		{"many at once on the last permit", lastPermit},
		{"delimiters and hash tags in a key", injectedKeys},
		{"long keys that share a beginning", longKeys},
		{"users whose names look alike", injectedUsers},
		{"a flood of distinct users", distinctUsers},
	} {
		gained, err := crowd.try(b)
		o.count(crowd.name, 1, gained)
		if err != nil || gained > 0 {
			find("%s: %d gained, %v", crowd.name, gained, err)
		}
	}
	return o
}

// try uses the limit up and counts what is gained beyond it.
func (y bypass) try(b *bed) (gained int, err error) {
	user := fmt.Sprintf("attacker-%d", y.who)
	var tokens []string
	if y.limit == "user" || y.limit == "tier" || y.limit == "exempt-user" {
		tokens = []string{b.issue(user)}
	}
	plain := &client{address: b.door.http, front: plain1, from: address(y.who)}
	defer plain.close()
	passed := 0
	for range allowance + 1 {
		got, err := plain.send(y.request(b, tokens))
		if err != nil {
			return 0, err
		}
		if got.status == http.StatusOK {
			passed++
		}
	}
	if y.limit != "global" && passed != allowance { // global is everybody's
		return max(0, passed-allowance), fmt.Errorf("%d of %d passed before anything was tried", passed, allowance)
	}
	other := &client{address: b.door.address(y.front), front: y.front, from: address(y.who)}
	defer other.close()
	for attempt := range allowance {
		m := y.request(b, tokens)
		y.change(b, y.who, attempt, &m)
		id := fmt.Sprintf("bypass-%d", caseNumber.Add(1))
		m.fields = append(m.fields, caseField(id))
		got, err := other.send(m)
		if err != nil {
			return gained, err
		}
		if len(b.echo.take(id)) > 0 {
			gained++
			return gained, fmt.Errorf("request %d passed (%d)", attempt+1, got.status)
		}
	}
	b.echo.take("")
	return gained, nil
}

// limitedBy sends one request of a client's key and says whether it passed.
func limitedBy(b *bed, c *client, limit, key string) (bool, error) {
	got, err := c.send(message{method: "GET", target: "/limited/" + limit, host: echoHost, fields: []field{{"X-Client", key}, caseField("crowd")}})
	b.echo.take("crowd")
	if err == nil && got.status != http.StatusOK && got.status != http.StatusTooManyRequests && got.status != http.StatusBadRequest {
		err = fmt.Errorf("%d", got.status)
	}
	return got.status == http.StatusOK, err
}

// spend uses a key up.
func spend(b *bed, c *client, limit, key string) error {
	passed := 0
	for range allowance + 1 {
		ok, err := limitedBy(b, c, limit, key)
		if err != nil {
			return err
		}
		if ok {
			passed++
		}
	}
	if passed != allowance {
		return fmt.Errorf("%.40q: %d of %d passed", key, passed, allowance)
	}
	return nil
}

// distinctKeys overflows a table of 100 keys twenty times and asks for a key that
// was used up before.
func distinctKeys(b *bed) (gained int, err error) {
	c := &client{address: b.door.http, front: plain1}
	defer c.close()
	if err := spend(b, c, "small", "victim"); err != nil {
		return 0, err
	}
	for i := range 2000 {
		if _, err := limitedBy(b, c, "small", fmt.Sprintf("flood-%d", i)); err != nil {
			return gained, err
		}
		if i%100 == 99 {
			if ok, err := limitedBy(b, c, "small", "victim"); err != nil {
				return gained, err
			} else if ok {
				gained++
			}
		}
	}
	return gained, nil
}

// lastPermit: of 64 at once, over all fronts, the allowance passes.
func lastPermit(b *bed) (gained int, err error) {
	for round := range 5 {
		key := fmt.Sprintf("crowd-%d", round)
		results := make(chan bool, 64)
		failed := make(chan error, 64)
		start := make(chan struct{})
		var wait sync.WaitGroup
		for i := range 64 {
			wait.Go(func() {
				f := fronts[i%len(fronts)]
				c := &client{address: b.door.address(f), front: f}
				defer c.close()
				<-start
				ok, err := limitedBy(b, c, "header", key)
				results <- ok
				if err != nil {
					failed <- err
				}
			})
		}
		close(start)
		wait.Wait()
		close(results)
		close(failed)
		passed := 0
		for ok := range results {
			if ok {
				passed++
			}
		}
		gained += max(0, passed-allowance)
		if passed != allowance {
			err = errors.Join(err, fmt.Errorf("%d of %d passed", passed, allowance))
		}
		err = errors.Join(err, <-failed)
	}
	return gained, err
}

// injectedKeys are keys of different clients that would be one, or another's, if
// a key were pasted together: none may use up another's limit, and the same one
// must stay the same.
func injectedKeys(b *bed) (gained int, err error) {
	keys := []string{"a:b", "a", "b", "{a}", "{}", "{a", "a}", "a{b}c", "}{", "a%3Ab", "a%3ab", "%61", "*", "?", "[a]", "a b", "a  b", "sluice:lim:1:limited-header:3600000:{ha}", "ha", "{ha}", "\xe9", "\xc3\xa9", "a,b", "a;b", "a\\b", "a'b", "a\"b", "~", "~" + strings.Repeat("0", 32), "-", "--", ".", "..", "a/b", "EVAL", "$5", "*3", "nil", "0", "-1", "a%0d%0ab", "a\\r\\nb"}
	c := &client{address: b.door.http, front: plain1}
	defer c.close()
	return spendAll(b, c, keys)
}

// spendAll uses each key up, where a used-up limit of another's would deny, and
// then asks once more by each.
func spendAll(b *bed, c *client, keys []string) (gained int, err error) {
	for _, key := range keys {
		if err := spend(b, c, "header", key); err != nil {
			return gained, err
		}
	}
	for _, key := range keys {
		if ok, err := limitedBy(b, c, "header", key); err != nil {
			return gained, err
		} else if ok {
			gained++
		}
	}
	return gained, nil
}

// injectedUsers are users whose names would be one another's, or an address, in a
// Redis key that was pasted together: each has an allowance of his own, and no
// more (design: redis-keys). Names of users reach authsvc's keys too.
func injectedUsers(b *bed) (gained int, err error) {
	names := []string{"look:a", "look", "look:", "{look}", "look}", "{look", "look%3Aa", "look%3aa", "LOOK", "look a", "look  a", "look,a", "look;a", "look*", "l?ok", "look/a", "look\\a", "look'a", "look\"a", "127.0.0.1", "::1", "i127.0.0.1", "u127.0.0.1", "~" + strings.Repeat("0", 32), strings.Repeat("look", 16), strings.Repeat("look", 16) + "a", strings.Repeat("look", 60), "sluice:usr:look", "-", "0", "null"}
	c := &client{address: b.door.http, front: plain1}
	defer c.close()
	tokens := make([]string, len(names))
	ask := func(i int) (bool, error) {
		got, err := c.send(message{method: "GET", target: "/limited/user", host: echoHost, fields: []field{bearer(tokens[i]), caseField("user")}})
		for _, s := range b.echo.take("user") {
			if id := s.header.Values("X-User-Id"); len(id) != 1 || id[0] != names[i] {
				err = errors.Join(err, fmt.Errorf("%.40q arrived as %.40q", names[i], id))
			}
		}
		if err == nil && got.status != http.StatusOK && got.status != http.StatusTooManyRequests {
			err = fmt.Errorf("%.40q: %d", names[i], got.status)
		}
		return got.status == http.StatusOK, err
	}
	for i, name := range names {
		tokens[i] = b.issue(name)
		for n := range allowance + 1 {
			ok, err := ask(i)
			if err != nil {
				return gained, err
			}
			if ok != (n < allowance) {
				return gained, fmt.Errorf("request %d of %.40q passed: %t", n+1, name, ok)
			}
		}
	}
	// Revoking one of them revokes nobody else.
	var done struct{}
	b.ask("POST", b.ready.Admin+"/v1/users/look/revoke", b.ready.AdminToken, nil, &done)
	for i, name := range names {
		got, err := c.send(message{method: "GET", target: "/v1/products", host: echoHost, fields: []field{bearer(tokens[i]), caseField("user")}})
		b.echo.take("user")
		for deadline := time.Now().Add(2 * time.Second); err == nil && name == "look" && got.status == http.StatusOK && time.Now().Before(deadline); {
			got, err = c.send(message{method: "GET", target: "/v1/products", host: echoHost, fields: []field{bearer(tokens[i]), caseField("user")}})
			b.echo.take("user")
		}
		if err != nil || (got.status == http.StatusOK) == (name == "look") {
			return gained, fmt.Errorf("%.40q after look was revoked: %d, %v", name, got.status, err)
		}
	}
	return gained, nil
}

// distinctUsers: more users than the gateway keeps decisions and counters of.
// Each passes, none twice as often, and who was used up before stays so.
func distinctUsers(b *bed) (gained int, err error) {
	c := &client{address: b.door.http, front: plain1}
	defer c.close()
	ask := func(token string) (bool, error) {
		got, err := c.send(message{method: "GET", target: "/limited/few", host: echoHost, fields: []field{bearer(token), caseField("few")}})
		b.echo.take("few")
		if err == nil && got.status != http.StatusOK && got.status != http.StatusTooManyRequests {
			err = fmt.Errorf("%d", got.status)
		}
		return got.status == http.StatusOK, err
	}
	victim := b.issue("few-victim")
	for n := range allowance + 1 {
		if ok, err := ask(victim); err != nil || ok != (n < allowance) {
			return gained, fmt.Errorf("request %d passed: %t, %v", n+1, ok, err)
		}
	}
	for i := range 300 {
		if ok, err := ask(b.issue(fmt.Sprintf("few-%d", i))); err != nil || !ok {
			return gained, fmt.Errorf("user %d passed: %t, %v", i, ok, err)
		}
		if i%25 == 24 {
			if ok, err := ask(victim); err != nil {
				return gained, err
			} else if ok {
				gained++
			}
		}
	}
	return gained, nil
}

// longKeys: what is too long for a Redis key is counted by its hash, so that
// neither two clients share one nor one client gets two.
func longKeys(b *bed) (gained int, err error) {
	c := &client{address: b.door.http, front: plain1}
	defer c.close()
	var keys []string
	for _, length := range []int{63, 64, 65, 66, 128, 1000, 8000} {
		keys = append(keys, strings.Repeat("k", length), strings.Repeat("k", length-1)+"l")
	}
	return spendAll(b, c, keys)
}
