package authsvc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// authsvcCommand runs the command and returns what it printed.
func authsvcCommand(t *testing.T, environ []string, stdin string, args ...string) (status int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	p := &program{environ: environ, in: strings.NewReader(stdin), out: &stdout, err: &stderr}
	status = p.main(context.Background(), args)
	return status, stdout.String(), stderr.String()
}

func TestOperatorCommands(t *testing.T) {
	r, redis := start(t)
	client := redis.Client()
	defer client.Close()
	beat(t, client, "gateway-1")
	// What the service finds, the commands find: the port and the key folder.
	environ := []string{
		"AUTHSVC_ADMINLISTEN=" + r.AdminAddr().String(),
		"AUTHSVC_OWN_KEYDIR=" + r.Config.Own.KeyDir,
	}
	command := func(stdin string, args ...string) string {
		t.Helper()
		status, out, errs := authsvcCommand(t, environ, stdin, args...)
		if status != 0 || errs != "" {
			t.Fatalf("%v: %d %s%s", args, status, out, errs)
		}
		return out
	}
	var p pair
	issued := command("", "token", "issue", "--claims.plan=pro", "u 1", "--ttl", "10m", "--output=json")
	if err := json.Unmarshal([]byte(issued), &p); err != nil || p.ExpiresIn != 600 {
		t.Fatalf("%s: %v", issued, err)
	}
	if got := r.wantStatus(p.AccessToken, 200).header.Get("X-User-Plan"); got != "pro" {
		t.Errorf("plan: %q", got)
	}
	inspected := command("", "token", "inspect", p.AccessToken)
	for _, line := range []string{"active      true\n", "sub         u 1\n", "iss         sluice\n"} {
		if !strings.Contains(inspected, line) {
			t.Errorf("inspect lacks %q:\n%s", line, inspected)
		}
	}
	if out := command(p.RefreshToken+"\n", "token", "inspect", "-", "--output=json"); !strings.Contains(out, `"active":true`) {
		t.Errorf("inspect of a refresh token: %s", out)
	}
	if out := command(p.AccessToken, "token", "revoke", "-"); out != "done\n" {
		t.Errorf("revoke: %q", out)
	}
	r.wantStatus(p.AccessToken, 401)
	if out := command("", "token", "inspect", p.AccessToken); out != "active  false\n" {
		t.Errorf("inspect of a revoked token: %q", out)
	}
	other := r.login("a/b")
	if out := command("", "user", "revoke", "a/b"); !strings.Contains(out, "user_id  a/b\n") {
		t.Errorf("user revoke: %q", out)
	}
	r.wantStatus(other.AccessToken, 401)
	if out := command("", "limit", "show", "per-user", "user:a/b", "--output=json"); !strings.Contains(out, `"remaining":100`) {
		t.Errorf("limit show: %s", out)
	}
	if out := command("", "limit", "reset", "per-user", "ip:2001:db8::1"); out != "done\n" {
		t.Errorf("limit reset: %q", out)
	}
	if out := command("", "keys", "rotate"); !strings.Contains(out, "activates") {
		t.Errorf("keys rotate: %q", out)
	}
	if out := command("", "healthcheck"); out != "status  ready\n" {
		t.Errorf("healthcheck: %q", out)
	}
	if out := command("", "version"); !strings.HasPrefix(out, "authsvc ") {
		t.Errorf("version: %q", out)
	}
}

func TestCommandMistakes(t *testing.T) {
	r, _ := start(t)
	environ := []string{"AUTHSVC_ADMINLISTEN=" + r.AdminAddr().String(), "AUTHSVC_OWN_KEYDIR=" + r.Config.Own.KeyDir}
	for _, test := range []struct {
		args string
		want string // part of the one line on standard error
	}{
		{"nonsense", `no command "nonsense"`},
		{"token", "needs a command"},
		{"token nonsense", `authsvc token has no command "nonsense"`},
		{"token issue", "0 arguments given, 1 needed"},
		{"token issue a b", "2 arguments given, 1 needed"},
		{"token inspect x --colour=red", "colour"},
		{"token inspect x --output=xml", "write text or json"},
		{"token inspect x --timeout=soon", "soon"},
		{"token inspect x --adminToken=wrong", "401"},
		{"token inspect x --adminTokenFile=/nowhere", "--adminToken=TOKEN"},
		{"token inspect x --server=http://127.0.0.1:1", "is authsvc running?"},
		{"limit show none user:u1", "No living gateway"},
		{"limit show", "2 needed"},
		{"healthcheck --server=http://127.0.0.1:1", "refused"},
		{"--listen=nowhere", "listen"},
		{"--configFile=/nowhere.yml", "no such file"},
	} {
		status, _, errs := authsvcCommand(t, environ, "", strings.Fields(test.args)...)
		if status != 1 || !strings.Contains(errs, test.want) || !strings.HasPrefix(errs, "authsvc: ") {
			t.Errorf("%s: %d %q, want %q", test.args, status, errs, test.want)
		}
	}
}

// --help names every field of Config with its description, and no secret.
func TestHelpIsComplete(t *testing.T) {
	status, out, _ := authsvcCommand(t, []string{"AUTHSVC_ADMINTOKEN=0123456789abcdefsecret"}, "", "--help")
	if status != 0 || strings.Contains(out, "secret0") || strings.Contains(out, "abcdefsecret") {
		t.Errorf("help: %d", status)
	}
	var walk func(t reflect.Type, path string) []string
	walk = func(kind reflect.Type, path string) (names []string) {
		for i := range kind.NumField() {
			field := kind.Field(i)
			name := path + strings.ToLower(field.Name)
			if field.Tag.Get("description") == "" {
				t.Errorf("%s has no description", name)
			}
			switch {
			case field.Type.Kind() == reflect.Struct:
				names = append(names, walk(field.Type, name+".")...)
			case field.Type.Kind() == reflect.Slice && field.Type.Elem().Kind() == reflect.Struct:
				names = append(names, walk(field.Type.Elem(), name+"[n].")...)
			case field.Type.Kind() == reflect.Map:
				names = append(names, name+".<name>")
			default:
				names = append(names, name)
			}
		}
		return names
	}
	names := walk(reflect.TypeFor[Config](), "")
	for _, name := range names {
		if !strings.Contains(out, "--"+name+"  (Default") {
			t.Errorf("--help lacks %s", name)
		}
	}
	if len(names) < 55 {
		t.Errorf("only %d options found", len(names))
	}
	for _, args := range [][]string{{"token", "--help"}, {"token", "issue", "--help"}, {"limit", "show", "-h"}, {"keys", "rotate", "--help"}} {
		if status, out, errs := authsvcCommand(t, []string{"AUTHSVC_ADMINTOKEN=0123456789abcdefsecret"}, "", args...); status != 0 || out == "" || strings.Contains(out+errs, "abcdefsecret") {
			t.Errorf("%v: %d %q", args, status, errs)
		}
	}
}

// RULES 25: defaults < file < environment < flags.
func TestLoadLayers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authsvc.yml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(`
listen: ":1"
adminListen: ":2"
redis:
  addresses: ["a:1", "b:2"]
  masterName: m
  timeout: 10ms
claims:
  plan: ""
  https://example.com/role: X-Role
issuers:
  - name: one
    issuer: https://one.example
    audiences: [api]
    algorithms: [RS256, ES256]
    jwksURL: https://one.example/jwks
    userPrefix: "one:"
`)
	c, err := Load([]string{"--configFile=" + path, "--listen=:9", "--tokens.issuerClaims=plan,team"},
		[]string{"AUTHSVC_LISTEN=:5", "AUTHSVC_ADMINLISTEN=:6", "AUTHSVC_REDIS_KEYPREFIX=env", "AUTHSVC_SESSIONS_REQUIRED=true",
			"AUTHSVC_CLAIMS_TEAM=X-Team", "AUTHSVC_ISSUERS_0_NAME=env", "AUTHSVC_ISSUERS_0_ISSUER=https://env.example",
			"AUTHSVC_ISSUERS_0_AUDIENCES=a,b", "AUTHSVC_ISSUERS_0_ALGORITHMS=EdDSA", "AUTHSVC_ISSUERS_0_JWKSFILE=/x",
			"AUTHSVC_ISSUERS_0_USERPREFIX=e:", "OTHER=1", "AUTHSVC_PORT=tcp://10.0.0.1:9000", "AUTHSVC_SERVICE_PORT=1"})
	if err != nil {
		t.Fatal(err)
	}
	want := NewConfig()
	want.ConfigFile, want.Listen, want.AdminListen = path, ":9", ":6"
	want.Redis.Addresses, want.Redis.MasterName = []string{"a:1", "b:2"}, "m"
	want.Redis.Timeout, want.Redis.KeyPrefix = 10_000_000, "env"
	want.Sessions.Required = true
	want.Tokens.IssuerClaims = []string{"plan", "team"}
	want.Claims = map[string]string{"plan": "", "scope": "X-User-Scopes", "https://example.com/role": "X-Role", "team": "X-Team"}
	// A list in a later source replaces the whole list of an earlier one.
	want.Issuers = []IssuerConfig{{
		Name: "env", Issuer: "https://env.example", Audiences: []string{"a", "b"}, Algorithms: []string{"EdDSA"}, JWKSFile: "/x", UserPrefix: "e:",
	}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// Every mistake at once, with where it stands and what would be accepted.
func TestLoadReportsEveryMistake(t *testing.T) {
	path := filepath.Join(t.TempDir(), "authsvc.yml")
	text := `
listen: 7
unknown: 1
redis: {db: x, tiemout: 1s, timeout: 60, addresses: ["a:1", "b:2"]}
cache: 5
own: {ttl: 48h, algorithm: none}
issuers:
  - {name: A, algorithms: [RS256, HS256, none], jwksURL: "http://example.com/jwks", pemFile: x, nmae: y}
  - {name: b, issuer: sluice, audiences: [x], algorithms: [HS256], jwksURL: "https://example.com"}
claims: {plan: Authorization, role: X-User-ID}
tokens: {maxLifetime: 24h, issuerClaims: [sub]}
`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Load([]string{"--configFile=" + path, "--log.level=loud", "--nonsense=1", "--redis.password=secret-password", "--redis.passwordFile=/p"},
		[]string{"AUTHSVC_CLOCKLEEWAY=never", "AUTHSVC_ADMINTOKEN=short-secret"})
	if err == nil {
		t.Fatal("accepted")
	}
	message := err.Error()
	for _, want := range []string{
		`listen: "7": write host:port`,
		"unknown: unknown option",
		`redis.db: "x": write a whole number`,
		"redis.tiemout: unknown option",
		`redis.timeout: "60": write a duration with its unit`,
		"redis.addresses: \"a:1,b:2\": several addresses need",
		"cache: 5: is a section",
		`own.algorithm: "none": write one of RS256`,
		"own.ttl: 48h0m0s: at most tokens.maxLifetime",
		`issuers[0].name: "A"`,
		"issuers[0].nmae: unknown option",
		`issuers[0].issuer: ""`,
		"issuers[0].audiences",
		`issuers[0].algorithms[2]: "none"`,
		"issuers[0].algorithms: \"RS256,HS256,none\": HS* and public-key",
		`issuers[0].jwksURL: "jwksURL,pemFile": set exactly one`,
		`issuers[0].jwksURL: "http://example.com/jwks": plain HTTP`,
		`issuers[0].userPrefix: "": same as own.userPrefix`,
		`issuers[1].issuer: "sluice": is own.issuer`,
		`issuers[1].jwksURL: "https://example.com": secrets are not fetched`,
		"issuers[1].userPrefix: \"\": same as issuers[0].userPrefix",
		`claims.plan: "Authorization"`,
		`claims.role: "X-User-ID": is written by authsvc itself already`,
		`tokens.issuerClaims[0]: "sub"`,
		`log.level: "loud": write one of debug info warn error`, `--nonsense: unknown option`,
		`AUTHSVC_CLOCKLEEWAY: "never": write a duration`,
		"adminToken: \"(not shown)\"",
		"redis.passwordFile",
	} {
		if !strings.Contains(message, want) {
			t.Errorf("not reported: %s", want)
		}
	}
	for _, secret := range []string{"secret-password", "short-secret"} {
		if strings.Contains(message, secret) {
			t.Errorf("the message shows %q", secret)
		}
	}
	if t.Failed() {
		t.Log(message)
	}
}

func TestLoadFiles(t *testing.T) {
	dir := t.TempDir()
	for name, test := range map[string]struct {
		text string
		want string // in the error; empty: fine
	}{
		"empty.yml":     {"", ""},
		"comment.yml":   {"# nothing\n", ""},
		"nothing.yml":   {"issuers: []\nclaims: {}\nredis:\n", ""},
		"json.json":     {`{"listen": ":7"}`, ""},
		"twice.yml":     {"listen: ':1'\nlisten: ':2'\n", "already defined"},
		"broken.yml":    {"listen: [", "yaml"},
		"list.yml":      {"- listen", "yaml"},
		"listmap.yml":   {"issuers: {name: a}", "is a list"},
		"mapscalar.yml": {"claims: x", "is a map"},
		"deep.yml":      {"listen: {a: b}", "takes one value"},
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(test.text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Load([]string{"--configFile", path}, nil)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func FuzzLoadFile(f *testing.F) {
	f.Add("listen: ':1'\nredis: {db: 1}\nissuers: [{name: a}]\n")
	f.Add("claims: {a: X-B}\ncache: {size: 1}\n")
	f.Add("redis: {addresses: 'a:1,b:2', tls: {enabled: yes}}")
	path := filepath.Join(f.TempDir(), "authsvc.yml")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load([]string{"--configFile=" + path}, nil)
		if err == nil && c.Validate() != nil {
			t.Fatalf("loaded what is not valid: %q", text)
		}
	})
}

func beatJSON(instance string) string {
	return fmt.Sprintf(`{"instance":%q,"version":"1.2","started":1,"counters":{"allowed":7,"denied":{"per-user":3},"degraded":1,`+
		`"redis_calls":5,"redis_errors":{"timeout":2},"breaker_open":0,"decision_hits":4,"decision_misses":6,"auth_errors":8,"events_lost":9,"keys":10},`+
		`"limits":[{"name":"per-user","key":"user","window_ms":60000,"limit":100,"cost":1,"tiers":{"pro":1000},"ipv6_subnet":64}]}`, instance)
}

// The sample file names every option and says its default.
func TestSampleFileIsComplete(t *testing.T) {
	text, err := os.ReadFile("authsvc.yml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load([]string{"--configFile=authsvc.yml"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := NewConfig()
	want.ConfigFile = "authsvc.yml"
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	var walk func(kind reflect.Type)
	walk = func(kind reflect.Type) {
		for i := range kind.NumField() {
			field := kind.Field(i)
			if field.Name != "ConfigFile" && !strings.Contains(strings.ToLower(string(text)), strings.ToLower(field.Name)+":") &&
				!strings.Contains(strings.ToLower(string(text)), "or "+strings.ToLower(field.Name)) &&
				!strings.Contains(strings.ToLower(string(text)), ", "+strings.ToLower(field.Name)) {
				t.Errorf("authsvc.yml does not name %s", field.Name)
			}
			if kind := field.Type; kind.Kind() == reflect.Struct {
				walk(kind)
			} else if kind.Kind() == reflect.Slice && kind.Elem().Kind() == reflect.Struct {
				walk(kind.Elem())
			}
		}
	}
	walk(reflect.TypeFor[Config]())
}
