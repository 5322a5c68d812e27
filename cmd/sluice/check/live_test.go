package check

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/redistest"
)

// live checks one file with --live and returns findings and what was good.
func live(t *testing.T, names []string) (findings, good []string) {
	t.Helper()
	report, err := Check(Options{Names: names, Getenv: os.Getenv})
	if err != nil {
		t.Fatal(err)
	}
	if errors := report.Errors(); len(errors) > 0 {
		t.Fatalf("before anything is tried: %q", errors)
	}
	report.Live(t.Context(), func(line string) { good = append(good, line) })
	for _, f := range report.Findings {
		findings = append(findings, f.String())
	}
	return findings, good
}

func gateFile(t *testing.T, redis, more string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "gate.yml")
	content := fmt.Sprintf("http:\n  middlewares:\n    gate:\n      plugin:\n        sluice:\n          redis: %s\n%s", redis, more)
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// gatewayRights are those of deploy/redis/users.acl.
const gatewayRights = "~sluice:lim:* ~sluice:gw:* &sluice:events +ping +client|setname +eval +evalsha +time +get +set +setrange +pexpire +zadd +zscore +zrange +zremrangebyscore +subscribe +unsubscribe"

// authsvcRights too.
const authsvcRights = "~sluice:* &sluice:events +@connection +@read +@write +@transaction +eval +evalsha +time +publish +subscribe +unsubscribe -@dangerous"

func TestLiveRedis(t *testing.T) {
	tests := []struct {
		name      string
		server    []string // of redis-server
		setup     []string // a command
		rights    string   // of the user app; none: the default user is used
		redis     string   // more of the section
		want, not []string // parts of the findings, in order of severity
	}{
		{name: "a plain server", not: []string{"error", "warning"}},
		{name: "the shipped gateway's rights", rights: gatewayRights, not: []string{"error"},
			want: []string{"warning: live: middleware \"gate\": Redis %s as user app: its settings cannot be read (NOPERM", "that is right if authsvc has a user of its own"}},
		{name: "another prefix than the rights have", rights: "~sluice:* &* +@all", redis: ", keyPrefix: shop",
			want: []string{"error: live: middleware \"gate\": Redis %s as user app: the user lacks rights: ACL SETUSER app ~shop:lim:* ~shop:gw:*; each gateway then counts alone"}},
		{name: "no channel", rights: "~* resetchannels +@all", want: []string{"ACL SETUSER app &sluice:events"}},
		{name: "scripts are forbidden", rights: gatewayRights + " -evalsha -eval", want: []string{"ACL SETUSER app +eval +evalsha"}},
		{name: "no script by its name alone", rights: "~* &* +@all -evalsha", want: []string{"ACL SETUSER app +evalsha"}, not: []string{"+eval;"}},
		{name: "a command that only the scripts use", rights: "~* &* +@all -zremrangebyscore", want: []string{"ACL SETUSER app +zremrangebyscore"}},
		{name: "a command that only authsvc uses", rights: "~* &* +@all -hincrby", want: []string{"warning: live", "this user may not do all that authsvc needs: missing are +hincrby"}, not: []string{"error"}},
		{name: "keys that may be evicted", server: []string{"--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru"},
			want: []string{"error: live", "maxmemory-policy is allkeys-lru with maxmemory 104857600: under pressure Redis drops counters"}},
		{name: "eviction that never happens", server: []string{"--maxmemory-policy", "allkeys-lru"}, not: []string{"error", "warning"}},
		{name: "memory is full", server: []string{"--maxmemory", "1", "--maxmemory-policy", "noeviction"},
			want: []string{"OOM command not allowed", "maxmemory is reached, so no write is taken"}},
		{name: "too few replicas", server: []string{"--min-replicas-to-write", "1"},
			want: []string{"min-replicas-to-write is 1 and connected replicas are 0: Redis refuses every write", "NOREPLICAS"}},
		{name: "a replica", server: []string{"--replicaof", "127.0.0.1 1"}, want: []string{"is a replica, which takes no writes"}},
		{name: "a wrong password", redis: ", password: wrong, username: nobody", want: []string{"refuses user or password: WRONGPASS"}},
		{name: "a password is wanted", setup: []string{"CONFIG", "SET", "requirepass", "pw"}, want: []string{"wants a password: NOAUTH"}},
		{name: "a command is renamed", server: []string{"--rename-command", "EVALSHA", ""}, want: []string{"ERR unknown command", "renamed, or forbidden by the provider?"}},
		{name: "a Cluster", server: []string{"--cluster-enabled", "yes"}, want: []string{"is a Redis Cluster; write cluster: true"}},
		{name: "TLS where there is none", redis: ", tls: {enabled: true}", want: []string{"is that the port on which it speaks TLS?"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := redistest.Start(t, test.server...)
			if test.setup != nil {
				server.Do(test.setup...)
			}
			redis := fmt.Sprintf("{addresses: [%q]%s}", server.Addr, test.redis)
			if test.rights != "" {
				server.Do(append([]string{"ACL", "SETUSER", "app", "reset", "on", ">pw"}, strings.Fields(test.rights)...)...)
				redis = fmt.Sprintf("{addresses: [%q], username: app, password: pw%s}", server.Addr, test.redis)
			}
			findings, good := live(t, []string{gateFile(t, redis, "")})
			all := strings.Join(findings, "\n")
			for _, part := range test.want {
				part = strings.ReplaceAll(part, "%s", server.Addr)
				if !strings.Contains(all, part) {
					t.Errorf("nothing says %q: %q %q", part, findings, good)
				}
			}
			for _, part := range test.not {
				if strings.Contains(all, part) {
					t.Errorf("%q is said: %q", part, findings)
				}
			}
			if (len(findings) == 0) != strings.Contains(strings.Join(good, ""), "every command, key and channel is allowed") {
				t.Errorf("findings %q, good %q", findings, good)
			}
			if len(test.server)+len(test.setup) == 0 {
				redistest.Eventually(t, 10*time.Second, "what was tried to be gone", func() bool { return server.Do("DBSIZE") == "0" })
			}
		})
	}
}

// TestLiveAuthsvcsUser tries the users of both, as deploy/redis gives them rights.
func TestLiveAuthsvcsUser(t *testing.T) {
	server := redistest.Start(t)
	server.Do(append([]string{"ACL", "SETUSER", "gateway", "reset", "on", ">pw"}, strings.Fields(gatewayRights+" +info +config|get")...)...)
	server.Do(append([]string{"ACL", "SETUSER", "authsvc", "reset", "on", ">pw"}, strings.Fields(authsvcRights+" +info +config|get")...)...)
	gate := gateFile(t, fmt.Sprintf("{addresses: [%q], username: gateway, password: pw}", server.Addr), "")
	service := filepath.Join(t.TempDir(), "authsvc.yml")
	content := fmt.Sprintf("redis: {addresses: [%q], username: authsvc, password: pw}\nown: {keyDir: %q}\n", server.Addr, t.TempDir())
	if err := os.WriteFile(service, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if findings, good := live(t, []string{gate, service}); len(findings) > 0 || len(good) != 2 {
		t.Fatalf("findings %q, good %q", findings, good)
	}
	server.Do("ACL", "SETUSER", "authsvc", "resetkeys", "~sluice:tok:*", "-publish", "-multi")
	findings, _ := live(t, []string{gate, service})
	if all := strings.Join(findings, "\n"); len(findings) != 1 || !strings.Contains(all, "authsvc.yml: error: live: authsvc: Redis "+server.Addr+" as user authsvc: the user lacks rights: ACL SETUSER authsvc +multi") {
		t.Errorf("findings %q", findings)
	}
	server.Do("ACL", "SETUSER", "authsvc", "+multi")
	findings, _ = live(t, []string{gate, service})
	if all := strings.Join(findings, "\n"); len(findings) != 1 || !strings.Contains(all, "~sluice:usr:* ~sluice:ref:* ~sluice:key:* ~sluice:evt") || !strings.Contains(all, "+publish") {
		t.Errorf("findings %q", findings)
	}
	if n := server.Do("EXISTS", "sluice:evt"); n != "0" {
		t.Error("a trial had an effect")
	}
}

// TestLiveTopologies tries a Cluster and a master behind Sentinels.
func TestLiveTopologies(t *testing.T) {
	cluster := redistest.StartCluster(t)
	if findings, good := live(t, []string{gateFile(t, fmt.Sprintf("{addresses: [%q], cluster: true}", cluster.Addr), "")}); len(findings) > 0 || len(good) != 1 {
		t.Errorf("a Cluster: %q, %q", findings, good)
	}
	_, _, sentinel := redistest.StartSentinel(t, "main")
	if findings, good := live(t, []string{gateFile(t, fmt.Sprintf("{addresses: [%q], masterName: main}", sentinel), "")}); len(findings) > 0 || len(good) != 1 {
		t.Errorf("Sentinels: %q, %q", findings, good)
	}
	if findings, _ := live(t, []string{gateFile(t, `{addresses: ["127.0.0.1:1"]}`, "")}); len(findings) != 1 || !strings.Contains(findings[0], "gate.yml:6: error: live: middleware \"gate\": Redis 127.0.0.1:1: does not answer: ") {
		t.Errorf("nobody: %q", findings)
	}
}

func TestLiveAuth(t *testing.T) {
	server := redistest.Start(t)
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/auth":
			w.WriteHeader(http.StatusUnauthorized)
		case "/open":
		case "/moved":
			http.Redirect(w, r, "/login", http.StatusFound)
		case "/broken":
			http.Error(w, "no", http.StatusServiceUnavailable)
		default:
			http.NotFound(w, r)
		}
	}))
	defer plain.Close()
	secure := httptest.NewTLSServer(plain.Config.Handler)
	defer secure.Close()
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	for address, want := range map[string]string{
		plain.URL + "/auth":                               "",
		plain.URL:                                         "answers 404: nothing there judges tokens; authsvc does at /auth",
		plain.URL + "/open":                               "it lets everybody in",
		plain.URL + "/moved":                              "a redirect to /login, which is not followed",
		plain.URL + "/broken":                             "answers 503, which decides nothing",
		"http://" + dead.Addr().String() + "/auth":        "does not answer: dial tcp " + dead.Addr().String() + ": connect: connection refused",
		strings.Replace(plain.URL, "http:", "https:", 1):  "it speaks plain HTTP there: write http://",
		strings.Replace(secure.URL, "https:", "http:", 1): "it wants HTTPS; write https://",
		secure.URL + "/auth":                              "certificate",
		"http://auth.invalid/auth":                        "does not answer: ",
	} {
		redis := fmt.Sprintf("{addresses: [%q]}", server.Addr)
		findings, good := live(t, []string{gateFile(t, redis, fmt.Sprintf("          auth:\n            addresses: [%q]\n", address))})
		switch {
		case want == "" && (len(findings) > 0 || len(good) != 2):
			t.Errorf("%s: %q %q", address, findings, good)
		case want != "" && (len(findings) != 1 || !strings.Contains(findings[0], want) || !strings.Contains(findings[0], "gate.yml:8: error: live: middleware \"gate\": auth address "+address)):
			t.Errorf("%s: %q, want %q", address, findings, want)
		}
	}
}
