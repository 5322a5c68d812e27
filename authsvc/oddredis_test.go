package authsvc

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/authsvc/session"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

// oddReplies are what servers and proxies in front of them answer in place of
// a status: none of it says anything about a token.
var oddReplies = map[string]string{
	"no script":       "-NOSCRIPT No matching script. Please use EVAL.\r\n",
	"unknown command": "-ERR unknown command 'GET', with args beginning with:\r\n",
	"syntax error":    "-ERR syntax error\r\n",
	"protected mode":  "-DENIED Redis is running in protected mode\r\n",
	"envoy":           "-upstream failure\r\n",
	"twemproxy":       "-ERR Connection timed out\r\n",
	"wrong type":      "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n",
	"ok":              "+OK\r\n",
	"queued":          "+QUEUED\r\n",
	"empty text":      "$0\r\n\r\n",
	"text":            "$5\r\nhello\r\n",
	"number":          ":1\r\n",
	"large number":    ":9223372036854775807\r\n",
	"list":            "*1\r\n$7\r\nrevoked\r\n",
	"list of lists":   "*2\r\n*1\r\n:1\r\n*-1\r\n",
	"empty list":      "*0\r\n",
	"two replies":     "$-1\r\n$-1\r\n",
	"two and text":    "$-1\r\n$13\r\n9999999999999\r\n",
	"push":            ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nb\r\n",
	"map":             "%1\r\n$1\r\na\r\n:1\r\n",
	"true":            "#t\r\n",
	"no resp":         "HTTP/1.1 400 Bad Request\r\n\r\n",
	"line feed":       "\n",
	"closed":          "",
}

// Whatever Redis answers that is not a status is an outage: onRedisFailure
// decides, and nobody is told that his token is bad.
func TestOddRepliesAreNoRefusal(t *testing.T) {
	for policy, want := range map[string]int{"verify": http.StatusOK, "deny": http.StatusServiceUnavailable} {
		t.Run(policy, func(t *testing.T) {
			proxy := redistest.Interpose(t, redistest.Start(t).Addr)
			c := testConfig(t, proxy.Addr)
			c.OnRedisFailure = policy
			r := open(t, c)
			for name, reply := range oddReplies {
				for _, commands := range [][]string{{"set"}, {"get"}, {"hget"}, {"set", "get", "hget"}} {
					var p session.Pair
					redistest.Eventually(t, 10*time.Second, "tokens are issued", func() bool {
						a := r.call("POST", "/v1/tokens", `{"user_id":"u1"}`)
						if a.status == http.StatusOK {
							a.json(t, &p)
						}
						return a.status == http.StatusOK
					})
					proxy.ReplyTo(reply, commands...)
					a := r.ask(p.AccessToken)
					proxy.Pass()
					// Without SET a token's status can still be read.
					if a.status != want && !(commands[0] == "set" && len(commands) == 1 && a.status == http.StatusOK) {
						t.Errorf("%s to %v: %d %s, want %d", name, commands, a.status, a.body, want)
					}
					redistest.Eventually(t, 10*time.Second, name+": the token is good again", func() bool {
						return r.ask(p.AccessToken).status == http.StatusOK
					})
				}
			}
		})
	}
}

// goodAnswers are those of the odd replies that are answers to some command.
var goodAnswers = map[string]int{
	"ok to set /v1/tokens":                     http.StatusOK,
	"empty list to hgetall /v1/tokens/refresh": http.StatusBadRequest, // no such session
	"empty list to evalsha eval /v1/gateways":  http.StatusOK,
	"list to evalsha eval /v1/gateways":        http.StatusOK, // of a gateway that has no heartbeat
	"push to evalsha eval /v1/gateways":        http.StatusOK,
}

// Neither refreshing nor revoking takes an odd reply for an answer, and none is
// our own mistake (500).
func TestOddRepliesElsewhere(t *testing.T) {
	proxy := redistest.Interpose(t, redistest.Start(t).Addr)
	r := open(t, testConfig(t, proxy.Addr))
	for name, reply := range oddReplies {
		for _, test := range []struct{ commands, method, path, body string }{
			{"evalsha eval", "POST", "/v1/tokens", `{"user_id":"u1"}`},
			{"exec", "POST", "/v1/tokens", `{"user_id":"u1"}`},
			{"multi", "POST", "/v1/tokens", `{"user_id":"u1"}`},
			{"set", "POST", "/v1/tokens", `{"user_id":"u1"}`},
			{"hgetall", "POST", "/v1/tokens/refresh", `{"refresh_token":%q}`},
			{"evalsha eval", "POST", "/v1/tokens/refresh", `{"refresh_token":%q}`},
			{"evalsha eval", "POST", "/v1/users/u1/revoke", ``},
			{"exec", "POST", "/v1/tokens/revoke", `{"token":%q}`},
			{"evalsha eval", "GET", "/v1/gateways", ``},
		} {
			var p session.Pair
			redistest.Eventually(t, 10*time.Second, "tokens are issued", func() bool {
				a := r.call("POST", "/v1/tokens", `{"user_id":"u1"}`)
				if a.status == http.StatusOK {
					a.json(t, &p)
				}
				return a.status == http.StatusOK
			})
			body := test.body
			if strings.Contains(body, "%q") {
				body = fmt.Sprintf(body, p.RefreshToken)
			}
			proxy.ReplyTo(reply, strings.Fields(test.commands)...)
			a := r.call(test.method, test.path, body)
			proxy.Pass()
			if goodAnswers[name+" to "+test.commands+" "+test.path] == a.status {
				continue
			}
			if a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
				t.Errorf("%s to %s, %s %s: %d %s", name, test.commands, test.method, test.path, a.status, a.body)
			}
		}
	}
}

// A proxy may know passwords by AUTH alone and answer HELLO as a server does
// that wants one first.
func TestHelloBeforeAuth(t *testing.T) {
	redis := redistest.Start(t)
	redis.Do("CONFIG", "SET", "requirepass", "the-password")
	for name, hello := range map[string]string{
		"noauth":  "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n",
		"unknown": "-ERR unknown command 'HELLO'\r\n",
		"noproto": "-NOPROTO unsupported protocol version\r\n",
		"syntax":  "-ERR Syntax error in HELLO option 'auth'\r\n",
	} {
		for _, user := range []string{"", "default"} {
			proxy := redistest.Interpose(t, redis.Addr)
			proxy.ReplyTo(hello, "hello")
			c := testConfig(t, proxy.Addr)
			c.Redis.Username, c.Redis.Password = user, "the-password"
			r := open(t, c)
			r.awaitStream()
			r.wantStatus(r.login("u1").AccessToken, 200)
			if strings.Contains(r.logged(), "away") {
				t.Errorf("%s as %q: %s", name, user, r.logged())
			}
		}
	}
}

// A user of Redis that may do what authsvc needs, and nothing else: no CLIENT,
// no HELLO, no PING.
func TestLeastOfRedisUsers(t *testing.T) {
	redis := redistest.Start(t)
	redis.Do("ACL", "SETUSER", "least", "reset", "on", ">the-password", "~sluice:*", "&sluice:events",
		"+get", "+set", "+getrange", "+hget", "+hset", "+hmget", "+hgetall", "+hdel", "+hincrby", "+del", "+pexpire", "+pexpireat",
		"+zremrangebyscore", "+zrangebyscore", "+zrevrangebyscore", "+multi", "+exec", "+eval", "+evalsha", "+time", "+publish", "+subscribe", "+auth")
	c := testConfig(t, redis.Addr)
	c.Redis.Username, c.Redis.Password = "least", "the-password"
	r := open(t, c)
	r.awaitStream()
	p := r.login("u1")
	r.wantStatus(p.AccessToken, 200)
	next, a := r.refreshWith(p.RefreshToken)
	if a.status != 200 {
		t.Errorf("refresh: %d %s", a.status, a.body)
	}
	for path, status := range map[string]int{"/v1/gateways": 200, "/v1/limits/none/global": 404} {
		if a := r.call("GET", path, ""); a.status != status {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := r.revoke(next.AccessToken); a.status != 200 {
		t.Errorf("revoke: %d %s", a.status, a.body)
	}
	r.wantStatus(next.AccessToken, 401)
	if a := r.call("POST", "/v1/users/u1/revoke", ""); a.status != 200 {
		t.Errorf("revoke user: %d %s", a.status, a.body)
	}
	if log := r.logged(); strings.Contains(log, "NOPERM") || strings.Contains(log, "away") {
		t.Error(log)
	}
}

// Redis 6.2 has neither NX together with GET, 6.0 has no point in time for SET,
// 5.0 no ACL and no HELLO. None of it is needed.
func TestOldRedis(t *testing.T) {
	proxy := redistest.Interpose(t, redistest.Start(t).Addr)
	proxy.Reply(func(words []string) (string, bool) {
		options := strings.ToLower(strings.Join(words[1:], " "))
		switch words[0] {
		case "hello", "getex", "getdel", "copy", "evalsha_ro", "eval_ro", "function", "acl", "expiretime", "pexpiretime":
			return "-ERR unknown command `" + words[0] + "`, with args beginning with: \r\n", true
		case "set":
			for _, option := range []string{"get", "exat", "pxat", "keepttl"} {
				if strings.Contains(" "+options+" ", " "+option+" ") {
					return "-ERR syntax error\r\n", true
				}
			}
		case "expire", "pexpire", "pexpireat":
			if len(words) > 3 {
				return "-ERR wrong number of arguments for '" + words[0] + "' command\r\n", true
			}
		}
		return "", false
	})
	r := open(t, testConfig(t, proxy.Addr))
	r.awaitStream()
	p := r.login("u1")
	r.wantStatus(p.AccessToken, 200)
	next, a := r.refreshWith(p.RefreshToken)
	if a.status != 200 {
		t.Errorf("refresh: %d %s", a.status, a.body)
	}
	if a := r.revoke(next.AccessToken); a.status != 200 {
		t.Errorf("revoke: %d %s", a.status, a.body)
	}
	r.wantStatus(next.AccessToken, 401)
	if a := r.call("POST", "/v1/users/u2/revoke", ""); a.status != 200 {
		t.Errorf("revoke user: %d %s", a.status, a.body)
	}
	if strings.Contains(r.logged(), "redis") {
		t.Error(r.logged())
	}
}

// Redis serves checks and refuses what issuing needs: /readyz tells both apart,
// the log has Redis's own words, and nobody is kept from passing.
func TestReadyToIssue(t *testing.T) {
	proxy := redistest.Interpose(t, redistest.Start(t).Addr)
	r := open(t, testConfig(t, proxy.Addr))
	p := r.login("u1")
	get := func(url string) answer {
		request, err := http.NewRequest(http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		return r.do(request)
	}
	issuing := func(want int) {
		t.Helper()
		redistest.Eventually(t, 10*time.Second, fmt.Sprint("/readyz/issuing is ", want), func() bool {
			return get(r.inner+"/readyz/issuing").status == want
		})
	}
	issuing(http.StatusOK)
	proxy.ReplyTo("-NOPERM User app has no permissions to run the 'evalsha' command\r\n", "evalsha", "eval")
	issuing(http.StatusServiceUnavailable)
	if a := get(r.inner + "/readyz/issuing"); !strings.Contains(a.body, "NOPERM User app") {
		t.Errorf("the reason is missing: %s", a.body)
	}
	for _, url := range []string{r.public, r.inner} {
		if a := get(url + "/readyz"); a.status != http.StatusOK || !strings.Contains(a.body, "none can be issued") {
			t.Errorf("/readyz: %d %s", a.status, a.body)
		}
	}
	r.wantStatus(p.AccessToken, http.StatusOK)
	if a := r.call("POST", "/v1/tokens", `{"user_id":"u1"}`); a.status != http.StatusServiceUnavailable {
		t.Errorf("issue: %d %s", a.status, a.body)
	}
	if n := strings.Count(r.logged(), "redis does not do what it is asked"); n != 1 || strings.Contains(r.logged(), `"msg":"redis is away"`) {
		t.Errorf("%d lines: %s", n, r.logged())
	}
	proxy.Pass()
	issuing(http.StatusOK)
	r.login("u1")
}
