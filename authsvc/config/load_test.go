package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// design: authsvc-configuration: defaults < file < environment < flags.
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
			"AUTHSVC_CLAIMS=team=X-Team", "AUTHSVC_ISSUERS_0_NAME=env", "AUTHSVC_ISSUERS_0_ISSUER=https://env.example",
			"AUTHSVC_ISSUERS_0_AUDIENCES=a,b", "AUTHSVC_ISSUERS_0_ALGORITHMS=EdDSA", "AUTHSVC_ISSUERS_0_JWKSFILE=/x",
			"AUTHSVC_ISSUERS_0_USERPREFIX=e:", "OTHER=1", "AUTHSVC_PORT=tcp://10.0.0.1:9000", "AUTHSVC_SERVICE_PORT=1"})
	if err != nil {
		t.Fatal(err)
	}
	want := New()
	want.ConfigFile, want.Listen, want.AdminListen = path, ":9", ":6"
	want.Redis.Addresses, want.Redis.MasterName = []string{"a:1", "b:2"}, "m"
	want.Redis.Timeout, want.Redis.KeyPrefix = 10_000_000, "env"
	want.Sessions.Required = true
	want.Tokens.IssuerClaims = []string{"plan", "team"}
	want.Claims = map[string]string{"plan": "", "scope": "X-User-Scopes", "https://example.com/role": "X-Role", "team": "X-Team"}
	// A list in a later source replaces the whole list of an earlier one.
	want.Issuers = []Issuer{{
		Name: "env", Issuer: "https://env.example", Audiences: []string{"a", "b"}, Algorithms: []string{"EdDSA"}, JWKSFile: "/x", UserPrefix: "e:",
	}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
}

// A variable's name has neither capitals nor dots to tell claims apart by, so
// the claims stand in the value.
func TestClaimsFromTheEnvironment(t *testing.T) {
	want := map[string]string{"companyId": "X-Company-Id", "realm_access.roles": "X-User-Roles", "plan": "", "scope": "X-User-Scopes"}
	for source, load := range map[string]func() (*Config, error){
		"variable": func() (*Config, error) {
			return Load(nil, []string{"AUTHSVC_CLAIMS=companyId=X-Company-Id, realm_access.roles=X-User-Roles,https://example.com/a=b=X-A,plan="})
		},
		"flags": func() (*Config, error) {
			return Load([]string{"--claims.companyId=X-Company-Id", "--claims.realm_access.roles=X-User-Roles", "--claims.plan="}, nil)
		},
	} {
		c, err := load()
		if err != nil {
			t.Errorf("%s: %v", source, err)
			continue
		}
		if source == "variable" && c.Claims["https://example.com/a=b"] == "X-A" {
			delete(c.Claims, "https://example.com/a=b")
		}
		if !reflect.DeepEqual(c.Claims, want) {
			t.Errorf("%s: %v, want %v", source, c.Claims, want)
		}
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
		[]string{"AUTHSVC_CLOCKLEEWAY=never", "AUTHSVC_ADMINTOKEN=short-secret",
			"AUTHSVC_CLAIMS_COMPANYID=X-Company-Id", "AUTHSVC_CLAIMS_REALM_ACCESS_ROLES=X-Roles", "AUTHSVC_CLAIMS=team,=X-Y"})
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
		`AUTHSVC_CLAIMS_COMPANYID: "X-Company-Id": a variable's name cannot spell a claim's; write AUTHSVC_CLAIMS=companyid=X-Company-Id`,
		`AUTHSVC_CLAIMS_REALM_ACCESS_ROLES: "X-Roles": a variable's name cannot`, `AUTHSVC_CLAIMS: "team": write claim=Header`, `AUTHSVC_CLAIMS: "=X-Y": write claim=Header`,
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

// The sample file names every option and says its default.
func TestSampleFileIsComplete(t *testing.T) {
	text, err := os.ReadFile("../authsvc.yml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load([]string{"--configFile=../authsvc.yml"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := New()
	want.ConfigFile = "../authsvc.yml"
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
