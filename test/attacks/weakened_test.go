package attacks

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/harness"
)

// opening is one closing setting of design: closed-entry-points, how it is opened, and the
// attack that it closes: nil from the attack means that the gateway held.
type opening struct {
	setting string
	wirings []string // where the setting is; nil: both
	static  func(map[string]any)
	dynamic func(string) string
	attack  string
	try     func(*bed) error
	// slow ones wait for a timeout of the shipped length and run in the full form.
	slow bool
}

var bothWirings = []string{stack.Fast, stack.Classic}

// everyPoint changes each entry point.
func everyPoint(change func(map[string]any)) func(map[string]any) {
	return func(tree map[string]any) {
		for _, point := range tree["entryPoints"].(map[string]any) {
			change(point.(map[string]any))
		}
	}
}

// set writes a value at a path below an entry point; nil removes it.
func setAt(value any, path ...string) func(map[string]any) {
	return everyPoint(func(point map[string]any) {
		for _, key := range path[:len(path)-1] {
			next, ok := point[key].(map[string]any)
			if !ok {
				next = map[string]any{}
				point[key] = next
			}
			point = next
		}
		last := path[len(path)-1]
		if value == nil {
			delete(point, last)
		} else {
			point[last] = value
		}
	})
}

// replaced changes the dynamic file in every place where a text stands.
func replaced(old, with string) func(string) string {
	return func(file string) string {
		if !strings.Contains(file, old) {
			panic("the shipped file has no " + old)
		}
		return strings.ReplaceAll(file, old, with)
	}
}

// escaped is the attack that one of the seven switches closes.
func escaped(character string) func(*bed) error {
	return one(func(b *bed) message {
		return message{method: "GET", target: "/v1/products/a" + character + "b", host: echoHost, fields: []field{bearer(b.token)}}
	}, fronts, never)
}

// openings are all of them. The timeouts are the ones that have to be waited for.
var openings = []opening{
	{setting: "aliasHeadersStrategy: reject", static: setAt("keep", "http", "aliasHeadersStrategy"), attack: "X_User_ID reaches the service",
		try: one(withFields(field{"X_User_ID", lie}, field{"X.User.Plan", lie}), fronts, intactIfAny)},
	{setting: "forwardedHeaders.insecure: false", static: setAt(true, "forwardedHeaders", "insecure"), attack: "a client's X-Forwarded-For reaches the service",
		try: one(withFields(field{"X-Forwarded-For", "203.0.113.9"}, field{"X-Forwarded-Prefix", lie}), fronts, intactIfAny)},
	{setting: "proxyProtocol from the balancer alone", static: setAt(true, "proxyProtocol", "insecure"), attack: "a PROXY line chooses the limiter's key",
		try: proxyLine},
	{setting: "forwardedHeaders.trustedIPs: nobody's", static: setAt([]any{"127.0.0.0/8"}, "forwardedHeaders", "trustedIPs"), attack: "a client's X-Forwarded-For reaches the service",
		try: one(withFields(field{"X-Forwarded-For", "203.0.113.9"}, field{"X-Forwarded-Prefix", lie}), fronts, intactIfAny)},
	{setting: "proxyProtocol.trustedIPs: nobody's where clients connect", static: setAt([]any{"127.0.0.0/8"}, "proxyProtocol", "trustedIPs"), attack: "a PROXY line chooses the limiter's key",
		try: proxyLine},
	{setting: "sanitizePath: true", static: setAt(false, "http", "sanitizePath"), attack: "dot segments reach the service behind a path that the router took",
		try: one(func(b *bed) message {
			return message{method: "GET", target: "/limited/header/../../v1/users/ann", host: echoHost, fields: []field{{"X-Client", "weak"}}}
		}, fronts, never)},
	{setting: "encodedCharacters.allowEncodedSlash: false", static: setAt(true, "http", "encodedCharacters", "allowEncodedSlash"), attack: "%2f reaches the service", try: escaped("%2f")},
	{setting: "encodedCharacters.allowEncodedBackSlash: false", static: setAt(true, "http", "encodedCharacters", "allowEncodedBackSlash"), attack: "%5c reaches the service", try: escaped("%5c")},
	{setting: "encodedCharacters.allowEncodedNullCharacter: false", static: setAt(true, "http", "encodedCharacters", "allowEncodedNullCharacter"), attack: "%00 reaches the service", try: escaped("%00")},
	{setting: "encodedCharacters.allowEncodedSemicolon: false", static: setAt(true, "http", "encodedCharacters", "allowEncodedSemicolon"), attack: "%3b reaches the service", try: escaped("%3b")},
	{setting: "encodedCharacters.allowEncodedPercent: false", static: setAt(true, "http", "encodedCharacters", "allowEncodedPercent"), attack: "%25 reaches the service", try: escaped("%252f")},
	{setting: "encodedCharacters.allowEncodedQuestionMark: false", static: setAt(true, "http", "encodedCharacters", "allowEncodedQuestionMark"), attack: "%3f reaches the service", try: escaped("%3f")},
	{setting: "encodedCharacters.allowEncodedHash: false", static: setAt(true, "http", "encodedCharacters", "allowEncodedHash"), attack: "%23 reaches the service", try: escaped("%23")},
	{setting: "maxHeaderBytes: 32768", static: setAt(nil, "http", "maxHeaderBytes"), attack: "200 KiB of headers reach the service",
		try: one(withFields(field{"X-Filler", strings.Repeat("a", 200<<10)}), http1, never)},
	{setting: "http2.maxConcurrentStreams: 100", static: setAt(1000, "http2", "maxConcurrentStreams"), attack: "a connection is granted more than 100 streams (CVE-2023-44487)", try: streams},
	{setting: "HTTP/3 off", static: func(tree map[string]any) {
		tree["entryPoints"].(map[string]any)["websecure"].(map[string]any)["http3"] = map[string]any{}
	}, attack: "QUIC is offered, past the balancer", try: one(withFields(), []front{tls1, tls2}, noQUIC)},
	{setting: "abortOnPluginFailure: true", static: func(tree map[string]any) {
		tree["experimental"].(map[string]any)["abortOnPluginFailure"] = false
	}, attack: "a gateway without its plugin serves", try: nil}, // brokenPlugin starts gateways of its own
	{setting: "respondingTimeouts.readTimeout: 60s", static: setAt("0s", "transport", "respondingTimeouts", "readTimeout"), attack: "headers that never end hold a connection (CWE-400, slowloris)", try: slowHeaders, slow: true},
	{setting: "respondingTimeouts.idleTimeout: 180s", static: setAt("600s", "transport", "respondingTimeouts", "idleTimeout"), attack: "a connection is held between two requests (CWE-400)", try: idleConnection, slow: true},
	{setting: "the API and the dashboard off", static: func(tree map[string]any) { tree["api"] = map[string]any{"dashboard": true} },
		dynamic: replaced("\n  routers:\n", "\n  routers:\n    api:\n      rule: PathPrefix(`/api`) || PathPrefix(`/dashboard`)\n      service: api@internal\n"), attack: "strangers read the configuration",
		try: nothingAt("/api/rawdata", "/api/http/routers", "/dashboard/")},
	{setting: "ping on an inner entry point", static: func(tree map[string]any) { tree["ping"].(map[string]any)["entryPoint"] = "web" }, attack: "strangers learn when the gateway drains", try: nothingAt("/ping")},
	{setting: "metrics on an inner entry point", static: func(tree map[string]any) {
		tree["metrics"].(map[string]any)["prometheus"].(map[string]any)["entryPoint"] = "web"
	}, attack: "strangers read routes and traffic", try: nothingAt("/metrics")},
	{setting: "authsvc reachable from inside alone", dynamic: authsvcRouted, attack: "strangers ask authsvc itself, past bad-token",
		try: nothingAt("/auth", "/readyz", "/.well-known/jwks.json")},
	{setting: "cors: Forwarded, Proxy, X-Original-URL and X-Rewrite-URL removed", dynamic: replaced(`customRequestHeaders: {Forwarded: "", Proxy: "", X-Original-URL: "", X-Rewrite-URL: ""}`, `customRequestHeaders: {X-Nothing: ""}`), attack: "they reach a service that believes them (CVE-2016-5385, CVE-2018-14773)",
		try: one(withFields(field{"Forwarded", "for=" + lie}, field{"Proxy", lie}, field{"X-Original-URL", lie}, field{"X-Rewrite-URL", lie}), fronts, without("Forwarded", "Proxy", "X-Original-Url", "X-Rewrite-Url"))},
	{setting: "maxRequestBodyBytes: 1048576", dynamic: replaced("maxRequestBodyBytes: 1048576", "maxRequestBodyBytes: 0"), attack: "a body of 2 MiB reaches the service (CWE-770)",
		try: one(func(b *bed) message {
			return message{method: "POST", target: "/v1/orders", host: echoHost, body: strings.Repeat("a", 2<<20), fields: []field{bearer(b.token)}}
		}, http1, refusedWith(http.StatusRequestEntityTooLarge))},
	{setting: "Upgrade removed on public routes", dynamic: replaced(`          Upgrade: ""`+"\n", ""), attack: "nobody has a connection of his own to a service (CWE-441)",
		try: one(bare("POST", "/v1/users/login", field{"Connection", "Upgrade"}, field{"Upgrade", "websocket"}), http1, noTunnel)},
	{setting: "minVersion: VersionTLS12", dynamic: replaced("minVersion: VersionTLS12", "minVersion: VersionTLS10"), attack: "TLS 1.1 is spoken (RFC 8996)", try: oldTLS},
	{setting: "no-credential on public routes", dynamic: replaced(", no-credential", ""), attack: "Authorization reaches a public service",
		try: one(func(b *bed) message { return public(bearer(b.token)) }, fronts, nobodyIfAny)},
	{setting: "the plugin on public routes", dynamic: replaced("[cors, login, no-credential", "[cors, no-credential"), attack: "X-User-ID reaches a public service",
		try: one(func(*bed) message { return public(field{"X-User-ID", lie}) }, fronts, nobodyIfAny)},
	{setting: "the plugin on protected routes", wirings: []string{stack.Fast}, dynamic: replaced("[cors, gate", "[cors"), attack: "no token is needed",
		try: one(bare("GET", "/v1/products"), fronts, never)},
	{setting: "sluice-id before forwardAuth", wirings: []string{stack.Classic}, dynamic: replaced("[cors, sluice-id, auth", "[cors, auth"), attack: "a refusal by forwardAuth has no X-Request-ID",
		try: one(bare("GET", "/v1/products"), fronts, func(got answer, _ []seen) error {
			if got.header.Get("X-Request-ID") == "" {
				return errors.New("a refusal without X-Request-ID")
			}
			return nil
		})},
	{setting: "forwardAuth", wirings: []string{stack.Classic}, dynamic: replaced("sluice-id, auth, gate", "sluice-id, gate"), attack: "no token is needed",
		try: one(bare("GET", "/v1/products"), fronts, never)},
	{setting: "authResponseHeaders with Authorization", wirings: []string{stack.Classic}, dynamic: replaced("X-Token-ID, Authorization]", "X-Token-ID]"), attack: "Authorization reaches a service",
		try: one(withFields(), fronts, intactIfAny)},
	{setting: "authResponseHeaders with X-User-Plan", wirings: []string{stack.Classic}, dynamic: replaced("X-User-Plan, X-User-Scopes, X-Token-ID, Authorization]", "X-User-Scopes, X-Token-ID, Authorization]"), attack: "the plan that authsvc found is not the one that arrives",
		try: one(withFields(), fronts, intactIfAny)},
	{setting: "authResponseHeaders with X-User-ID", wirings: []string{stack.Classic}, dynamic: replaced("authResponseHeaders: [X-User-ID, ", "authResponseHeaders: ["), attack: "a request arrives for nobody",
		try: one(withFields(), fronts, intactIfAny)},
	{setting: "authResponseHeaders with X-User-Scopes", wirings: []string{stack.Classic}, dynamic: replaced("X-User-Scopes, X-Token-ID, Authorization]", "X-Token-ID, Authorization]"), attack: "the scopes that authsvc found are not those that arrive",
		try: one(withFields(), fronts, intactIfAny)},
	{setting: "trustForwardHeader: false", wirings: []string{stack.Classic}, dynamic: replaced("trustForwardHeader: false", "trustForwardHeader: true"), static: setAt(true, "forwardedHeaders", "insecure"),
		attack: "authsvc is told the client's X-Forwarded-Uri (only with forwardedHeaders opened too)", try: authIsTold},
	{setting: "authRequestHeaders: [Authorization, X-Request-ID]", wirings: []string{stack.Classic}, dynamic: replaced("        authRequestHeaders: [Authorization, X-Request-ID]\n", ""), attack: "authsvc is sent the client's cookies", try: authIsSentCookies},
	{setting: "maxResponseBodySize: 4096", wirings: []string{stack.Classic}, dynamic: replaced("maxResponseBodySize: 4096", "maxResponseBodySize: 100000000"), attack: "a megabyte from the auth server passes", try: authIsLong},
}

func nobodyIfAny(_ answer, arrived []seen) error {
	for _, s := range arrived {
		if err := intact(s, who{}); err != nil {
			return err
		}
	}
	return nil
}

func noQUIC(got answer, _ []seen) error {
	if offer := got.header.Values("Alt-Svc"); offer != nil || got.status != http.StatusOK {
		return fmt.Errorf("%d, Alt-Svc: %q", got.status, offer)
	}
	return nil
}

// proxyLine sends PROXY protocol, both versions, before requests to a route that
// is limited per address.
func proxyLine(b *bed) error {
	lines := []string{"PROXY TCP4 203.0.113.7 192.0.2.1 1234 80\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x07\xc0\x00\x02\x01\x04\xd2\x00\x50"}
	for _, line := range lines {
		connection, err := net.Dial("tcp", b.door.http)
		if err != nil {
			return err
		}
		defer connection.Close()
		_ = connection.SetDeadline(time.Now().Add(2 * time.Second))
		id := fmt.Sprintf("proxied-%d", caseNumber.Add(1))
		m := b.protected(caseField(id))
		if _, err := io.WriteString(connection, line+string(m.http1())); err != nil {
			continue
		}
		_, _ = io.ReadAll(io.LimitReader(connection, 1))
		for _, s := range b.echo.take(id) {
			return fmt.Errorf("arrived from %q", s.header.Values("X-Forwarded-For"))
		}
	}
	return nil
}

// streams reads what the server's SETTINGS allow.
func streams(b *bed) error {
	for _, f := range http2s {
		c := &client{address: b.door.address(f), front: f}
		if err := c.dial(); err != nil {
			return err
		}
		granted := c.h2.streams
		c.close()
		if granted == 0 || granted > 100 {
			return fmt.Errorf("%s: %d streams", f.name, granted)
		}
	}
	return nil
}

// nothingAt: these paths are nobody's, over every front.
func nothingAt(paths ...string) func(*bed) error {
	return func(b *bed) error {
		for _, path := range paths {
			err := one(func(*bed) message { return message{method: "GET", target: path, host: realHost} }, fronts, refusedWith(http.StatusNotFound))(b)
			if err != nil {
				return err
			}
		}
		return nil
	}
}

// authsvcRouted leads what no route takes to authsvc.
func authsvcRouted(file string) string {
	file = replaced("\n  routers:\n", "\n  routers:\n    authsvc:\n      rule: PathPrefix(`/`)\n      priority: 1\n      service: authsvc\n")(file)
	return replaced("\n  services:\n", "\n  services:\n    authsvc:\n      loadBalancer:\n        servers:\n          - url: {{ env \"SLUICE_AUTHSVC\" }}\n")(file)
}

// oldTLS: no version before 1.2 comes to a handshake.
func oldTLS(b *bed) error {
	connection, err := tls.Dial("tcp", b.door.https, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11})
	if err != nil {
		return nil
	}
	defer connection.Close()
	return fmt.Errorf("%s is spoken", tls.VersionName(connection.ConnectionState().Version))
}

// idleConnection sends one request, and then nothing for a little longer than the
// gateway may wait.
func idleConnection(b *bed) error {
	c := &client{address: b.door.http, front: plain1}
	defer c.close()
	if got, err := c.send(b.protected(caseField("idle"))); err != nil || got.status != http.StatusOK {
		return fmt.Errorf("%d, %v", got.status, err)
	}
	b.echo.take("idle")
	const shipped = 180 * time.Second
	_ = c.connection.SetReadDeadline(time.Now().Add(shipped + 10*time.Second))
	_, err := c.reader.ReadByte()
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("open after 190 s")
	}
	return nil
}

// slowHeaders sends a head that does not end and waits for a little longer than
// the gateway may.
func slowHeaders(b *bed) error {
	connection, err := net.Dial("tcp", b.door.http)
	if err != nil {
		return err
	}
	defer connection.Close()
	if _, err := io.WriteString(connection, "GET /v1/products HTTP/1.1\r\nHost: "+echoHost+"\r\n"); err != nil {
		return err
	}
	_ = connection.SetReadDeadline(time.Now().Add(70 * time.Second))
	_, err = io.Copy(io.Discard, connection)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return errors.New("open after 70 s")
	}
	return nil
}

// recorder stands where authsvc does, keeps what it is asked and hands it on.
type recorder struct {
	url   string
	mu    sync.Mutex // protects asked
	asked []http.Header
}

func startRecorder(t *testing.T, authsvc string) *recorder {
	t.Helper()
	at, err := url.Parse(authsvc)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{}
	proxy := httputil.NewSingleHostReverseProxy(at)
	proxy.ErrorLog = log.New(io.Discard, "", 0) // clients that hang up
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, request *http.Request) {
		r.mu.Lock()
		r.asked = append(r.asked, request.Header.Clone())
		r.mu.Unlock()
		if strings.HasSuffix(request.Header.Get("Authorization"), "long") {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, strings.Repeat(lie, 1<<18)) // the gateway may hang up
			return
		}
		proxy.ServeHTTP(w, request)
	}))
	t.Cleanup(server.Close)
	r.url = server.URL
	return r
}

func (r *recorder) take() []http.Header {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.asked
	r.asked = nil
	return all
}

func authIsTold(b *bed) error {
	b.auth.take()
	err := one(withFields(field{"X-Forwarded-Uri", "/" + lie}, field{"X-Forwarded-Method", lie}), fronts, func(answer, []seen) error { return nil })(b)
	for _, asked := range b.auth.take() {
		if value := asked.Get("X-Forwarded-Uri") + asked.Get("X-Forwarded-Method"); strings.Contains(value, lie) {
			return fmt.Errorf("authsvc was told %q", value)
		}
	}
	return err
}

func authIsSentCookies(b *bed) error {
	b.auth.take()
	err := one(withFields(field{"Cookie", "a=" + lie}), fronts, intactIfAnyCookie)(b)
	for _, asked := range b.auth.take() {
		if asked.Get("Cookie") != "" {
			return fmt.Errorf("authsvc was sent %q", asked.Get("Cookie"))
		}
	}
	return err
}

func intactIfAnyCookie(answer, []seen) error { return nil } // a cookie is the client's own

func authIsLong(b *bed) error {
	return one(bare("GET", "/v1/products", field{"Authorization", "Bearer long"}), fronts, func(got answer, arrived []seen) error {
		if len(arrived) > 0 || len(got.body) > 8192 {
			return fmt.Errorf("%d bytes came back, arrived %d times", len(got.body), len(arrived))
		}
		return nil
	})(b)
}

// bitten is a line of the table.
type bitten struct {
	setting, attack string
	closed, opened  string // what the attack found; closed must be empty
}

// TestTheSuiteBites opens each setting on a gateway of its own. The attack has to
// fail on the closed gateway and to succeed on the opened one: an attack that
// cannot tell them apart proves nothing.
func TestTheSuiteBites(t *testing.T) {
	if *full {
		t.Parallel()
	}
	for _, wiring := range bothWirings {
		t.Run(wiring, func(t *testing.T) {
			b := open(t, setup{wiring: wiring, form: stack.Compiled, gateways: 1})
			b.auth = startRecorder(t, b.ready.AuthSvc)
			closed := b.weaken(nil, nil)
			waited := b.waitFor(closed)
			for _, o := range openings {
				if o.wirings != nil && o.wirings[0] != wiring || o.wirings == nil && wiring == stack.Classic && !*full {
					continue
				}
				t.Run(o.setting, func(t *testing.T) {
					if line, waiting := waited[o.setting]; waiting {
						bite(t, wiring, <-line)
						return
					}
					if o.slow {
						t.Skip("waits for minutes: only with -full")
					}
					b := b.on(t)
					line := bitten{setting: o.setting, attack: o.attack}
					if o.try == nil {
						line.closed, line.opened = brokenPlugin(b, nil), brokenPlugin(b, o.static)
					} else {
						line.closed = verdict(closed.on(t), o.try)
						line.opened = verdict(b.weaken(o.static, o.dynamic), o.try)
					}
					bite(t, wiring, line)
				})
			}
		})
	}
}

// bite judges a line and keeps it.
func bite(t *testing.T, wiring string, line bitten) {
	t.Helper()
	if line.closed != "" {
		t.Errorf("the closed gateway: %s", line.closed)
	}
	if line.opened == "" {
		t.Errorf("opened, and no attack noticed: %s", line.attack)
	}
	remember(wiring, line)
}

// waitFor begins the attacks that have to wait for a timeout, so that they wait
// while the others run.
func (b *bed) waitFor(closed *bed) map[string]<-chan bitten {
	all := map[string]<-chan bitten{}
	for _, o := range openings {
		if !o.slow || !*full {
			continue
		}
		line := make(chan bitten, 1)
		opened := b.weaken(o.static, o.dynamic)
		go func() {
			var both sync.WaitGroup
			result := bitten{setting: o.setting, attack: o.attack}
			both.Go(func() { result.closed = verdict(closed, o.try) })
			both.Go(func() { result.opened = verdict(opened, o.try) })
			both.Wait()
			line <- result
		}()
		all[o.setting] = line
	}
	return all
}

// TestEverySettingIsOpened: whatever closes something in the shipped files has a
// row in the table, in each wiring.
func TestEverySettingIsOpened(t *testing.T) {
	for _, wiring := range bothWirings {
		settings := leaves(t, "traefik.yml", "entryPoints", "web")
		settings = append(settings, "abortOnPluginFailure", "HTTP/3", "proxyProtocol")
		if wiring == stack.Classic {
			settings = append(settings, leaves(t, wiring+".yml", "http", "middlewares", "auth", "forwardAuth")...)
		}
		for _, setting := range settings {
			switch setting {
			case "asDefault", "address": // open nothing
			case "writeTimeout", "requestAcceptGraceTimeout", "graceTimeOut": // close nothing: answers may stream
			default:
				if !slices.ContainsFunc(openings, func(o opening) bool {
					return strings.Contains(o.setting, setting) && (o.wirings == nil || slices.Contains(o.wirings, wiring))
				}) {
					t.Errorf("%s: nothing opens %s", wiring, setting)
				}
			}
		}
	}
}

// leaves are the names of the settings below a path of a shipped file.
func leaves(t *testing.T, file string, path ...string) (names []string) {
	t.Helper()
	content, err := sluice.TraefikFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var plain []string // the dynamic file is a template
	for line := range strings.Lines(string(content)) {
		if strings.HasPrefix(line, "{{") {
			continue
		}
		if before, _, found := strings.Cut(line, "{{"); found {
			line = before + "x\n"
		}
		plain = append(plain, line)
	}
	var tree any
	if err := yaml.Unmarshal([]byte(strings.Join(plain, "")), &tree); err != nil {
		t.Fatal(err)
	}
	for _, key := range path {
		if tree = tree.(map[string]any)[key]; tree == nil {
			t.Fatalf("%s has no %s", file, key)
		}
	}
	var walk func(name string, node any)
	walk = func(name string, node any) {
		inner, ok := node.(map[string]any)
		if !ok {
			names = append(names, name)
		}
		for key, value := range inner {
			walk(key, value)
		}
	}
	walk("", tree)
	if len(names) < 3 {
		t.Fatalf("%s: only %q", file, names)
	}
	return names
}

func verdict(b *bed, try func(*bed) error) string {
	if err := try(b); err != nil {
		return err.Error()
	}
	return ""
}

// weaken starts one more gateway beside the stack's, with its configuration but
// for what is opened, and returns the bed as seen through it.
func (b *bed) weaken(static func(map[string]any), dynamic func(string) string) *bed {
	b.t.Helper()
	d, ended := b.start(static, dynamic, false)
	for range 3 { // somebody else may have taken a port that was free
		if listens(d, ended) {
			break
		}
		d, ended = b.start(static, dynamic, false)
	}
	there := *b
	there.door = d
	there.await(d)
	return &there
}

// listens waits until a gateway accepts connections, or has ended.
func listens(d door, ended <-chan error) bool {
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		select {
		case <-ended:
			return false
		case <-time.After(20 * time.Millisecond):
		}
		open := 0
		for _, address := range []string{d.http, d.https} {
			if connection, err := net.Dial("tcp", address); err == nil {
				connection.Close()
				open++
			}
		}
		if open == 2 {
			return true
		}
	}
	return false
}

// start runs a gateway from the stack's own static file. Its routes lead to the
// echoing service alone, its authsvc is asked through the recorder.
func (b *bed) start(static func(map[string]any), dynamic func(string) string, broken bool) (door, <-chan error) {
	t := b.t
	t.Helper()
	content, err := os.ReadFile(filepath.Join(b.stack.Work(), "gateway-1", "traefik.yml"))
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := yaml.Unmarshal(content, &tree); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := b.shared
	if dynamic != nil {
		file = dynamic(file)
	}
	if static != nil {
		static(tree)
	}
	addresses := map[string]string{}
	for name, point := range tree["entryPoints"].(map[string]any) {
		addresses[name] = harness.FreeAddress(t)
		point.(map[string]any)["address"] = addresses[name]
	}
	tree["providers"].(map[string]any)["file"].(map[string]any)["filename"] = filepath.Join(dir, "dynamic.yml")
	rewritten, err := yaml.Marshal(tree)
	if err == nil {
		err = errors.Join(os.WriteFile(filepath.Join(dir, "traefik.yml"), rewritten, 0o600), os.WriteFile(filepath.Join(dir, "dynamic.yml"), []byte(file), 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
	if !broken {
		if err := os.CopyFS(filepath.Join(dir, "plugins-local"), os.DirFS(filepath.Join(b.stack.Work(), "gateway-1", "plugins-local"))); err != nil {
			t.Fatal(err)
		}
	}
	auth := b.ready.AuthSvc
	if b.auth != nil {
		auth = b.auth.url
	}
	ended := harness.StartTraefik(t, dir, "PATH="+os.Getenv("PATH"), "HOME="+dir, "SLUICE_PLUGIN=compiled", "SLUICE_MIN_INSTANCES=1", "SLUICE_REDIS="+b.redis.Addr, "SLUICE_AUTHSVC="+auth,
		"SLUICE_USERS="+b.echo.url, "SLUICE_PRODUCTS="+b.echo.url, "SLUICE_ORDERS="+b.echo.url)
	return door{addresses["web"], addresses["websecure"]}, ended
}

// brokenPlugin starts a gateway that cannot load its plugin: it has to end. An
// opened one may have lost its port to somebody, and gets another.
func brokenPlugin(b *bed, static func(map[string]any)) string {
	attempts := 1
	if static != nil {
		attempts = 3
	}
	for range attempts {
		_, ended := b.start(static, nil, true)
		select {
		case <-ended:
		case <-time.After(3 * time.Second):
			return "it runs on"
		}
	}
	return ""
}
