package check

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-gateway/sluice/authsvc/config"
	gateway "github.com/sluice-gateway/sluice/plugin/config"
	"github.com/sluice-gateway/sluice/plugin/limit"
	"github.com/sluice-gateway/sluice/plugin/window"
)

// liveBudget is how long one server may take for all that it is asked.
const liveBudget = 10 * time.Second

// go-redis prints failed dials by itself; what is found is printed here.
func init() { redis.SetLogger(silent{}) }

type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// server is a Redis as one part of Sluice uses it.
type server struct {
	at     *document
	line   int
	who    string // whose configuration it is
	prefix string
	budget time.Duration // of a request for a reply
	redis  *redis.UniversalOptions
}

// Live tries what the configuration names: each Redis, with every command, key
// and channel that its user needs, and each auth address. Say is told what is
// good; what is not becomes a finding.
func (r *Report) Live(ctx context.Context, say func(string)) {
	gateways, addresses := r.gatewayServers()
	services := r.authsvcServers()
	for _, s := range gateways {
		r.tryServer(ctx, s, true, len(services) == 0, say)
	}
	for _, s := range services {
		r.tryServer(ctx, s, false, true, say)
	}
	if len(gateways)+len(services) == 0 {
		say("live: no Redis is configured by a middleware without errors, so none was tried")
	}
	tried := map[string]bool{}
	for _, a := range append(addresses, r.auths...) {
		if !tried[a.url] {
			tried[a.url] = true
			r.tryAuth(ctx, a, say)
		}
	}
}

// gatewayServers are the Redis servers and auth addresses of all gates, once each.
func (r *Report) gatewayServers() (servers []*server, addresses []authAddress) {
	seen := map[string]bool{}
	for _, g := range r.gates {
		if !g.good {
			continue
		}
		config, err := decoded(plain(g.config))
		if err != nil {
			continue
		}
		for _, c := range config.Redis {
			if identity := fmt.Sprint(c); !seen[identity] {
				seen[identity] = true
				line := locate(g.config, "redis.addresses")
				s, err := gatewayServer(c)
				if err != nil {
					r.error(g.at, line, "live: middleware %q: redis: %v", g.name, err)
					continue
				}
				s.at, s.line, s.who = g.at, line, fmt.Sprintf("middleware %q", g.name)
				servers = append(servers, s)
			}
		}
		for _, c := range config.Auth {
			secure, err := clientTLS(c.TLS, true)
			if err != nil {
				r.error(g.at, locate(g.config, "auth.tls"), "live: middleware %q: auth.tls: %v", g.name, err)
				continue
			}
			for _, address := range split(c.Addresses) {
				addresses = append(addresses, authAddress{g.at, locate(g.config, "auth.addresses"), g.name, address, secure, duration(c.Timeout, time.Second)})
			}
		}
	}
	return servers, addresses
}

func gatewayServer(c gateway.Redis) (*server, error) {
	password := c.Password
	if c.PasswordFile != "" {
		content, err := os.ReadFile(c.PasswordFile)
		if err != nil {
			return nil, fmt.Errorf("the password cannot be read here: %w", err)
		}
		password = strings.TrimRight(string(content), "\r\n")
	}
	secure, err := clientTLS(c.TLS, false)
	if err != nil {
		return nil, fmt.Errorf("tls: %w", err)
	}
	db, _ := strconv.Atoi(c.DB)
	cluster, _ := strconv.ParseBool(c.Cluster)
	s := &server{prefix: c.KeyPrefix, budget: duration(c.Timeout, 100*time.Millisecond), redis: &redis.UniversalOptions{
		Addrs: split(c.Addresses), Username: c.Username, Password: password, DB: db, MasterName: c.MasterName,
		SentinelUsername: c.SentinelUsername, SentinelPassword: c.SentinelPassword, IsClusterMode: cluster, TLSConfig: secure,
	}}
	if s.prefix == "" {
		s.prefix = "sluice"
	}
	return s, nil
}

// authsvcServers are those that the named configurations of authsvc lead to.
func (r *Report) authsvcServers() (servers []*server) {
	for _, name := range r.authsvc {
		d := &document{name: name}
		loaded, err := config.Load([]string{"--configFile=" + name}, os.Environ())
		if err != nil {
			r.error(d, 0, "live: authsvc would not start: %v", err)
			continue
		}
		c := loaded.Redis
		password := c.Password
		if c.PasswordFile != "" {
			content, err := os.ReadFile(c.PasswordFile)
			if err != nil {
				r.error(d, 0, "live: redis: the password cannot be read here: %v", err)
				continue
			}
			password = strings.TrimSpace(string(content))
		}
		secure, err := clientTLS([]gateway.TLS{{
			Enabled: strconv.FormatBool(c.TLS.Enabled), CA: c.TLS.CA, Cert: c.TLS.Cert, Key: c.TLS.Key,
			ServerName: c.TLS.ServerName, InsecureSkipVerify: strconv.FormatBool(c.TLS.InsecureSkipVerify),
		}}, false)
		if err != nil {
			r.error(d, 0, "live: redis.tls: %v", err)
			continue
		}
		servers = append(servers, &server{at: d, who: "authsvc", prefix: c.KeyPrefix, budget: c.Timeout, redis: &redis.UniversalOptions{
			Addrs: c.Addresses, Username: c.Username, Password: password, DB: c.DB, MasterName: c.MasterName,
			SentinelUsername: c.SentinelUsername, SentinelPassword: c.SentinelPassword, IsClusterMode: c.Cluster, TLSConfig: secure,
		}})
	}
	return servers
}

// try is one command that somebody needs, on keys that nothing else uses.
type try []any

// trial collects what a server refuses.
type trial struct {
	s        *server
	client   redis.UniversalClient
	commands []string // to be granted
	patterns []string
	others   []string // any other refusal, in Redis's words
}

// need runs a command. In a transaction that is discarded Redis judges it as well,
// and it has no effect.
func (t *trial) need(ctx context.Context, do func(context.Context, ...any) *redis.Cmd, pattern string, command try) {
	t.judge(command, pattern, do(ctx, command...).Err())
}

func (t *trial) judge(command try, pattern string, err error) {
	name := strings.ToLower(fmt.Sprint(command[0]))
	var reply redis.Error
	switch {
	case err == nil || errors.Is(err, redis.Nil):
	case !errors.As(err, &reply):
		t.note(&t.others, fmt.Sprintf("%s: %v", strings.ToUpper(name), err))
	case strings.Contains(err.Error(), "NOPERM") && strings.Contains(err.Error(), " key"), strings.Contains(err.Error(), "NOPERM") && strings.Contains(err.Error(), "channel"):
		t.note(&t.patterns, pattern)
	case strings.Contains(err.Error(), "NOPERM"):
		if match := inner.FindStringSubmatch(err.Error()); match != nil {
			name = strings.ToLower(match[1])
		}
		t.note(&t.commands, "+"+name)
	case strings.HasPrefix(err.Error(), "EXECABORT"):
	case strings.Contains(err.Error(), "unknown command") || strings.Contains(err.Error(), "unknown subcommand"):
		t.note(&t.others, err.Error()+" (renamed, or forbidden by the provider?)")
	default:
		t.note(&t.others, err.Error())
	}
}

var inner = regexp.MustCompile(`run the '([^']+)' command`)

func (t *trial) note(list *[]string, item string) {
	if item != "" && !slices.Contains(*list, item) {
		*list = append(*list, item)
	}
}

// tryServer asks one Redis for all that the gateway needs, authsvc, or both.
func (r *Report) tryServer(ctx context.Context, s *server, gateway, service bool, say func(string)) {
	ctx, cancel := context.WithTimeout(ctx, liveBudget)
	defer cancel()
	o := s.redis
	o.MaxRetries, o.DialerRetries, o.DialTimeout, o.ContextTimeoutEnabled, o.DisableIdentity = -1, 1, 2*time.Second, true, true
	o.ReadTimeout, o.WriteTimeout = 2*time.Second, 2*time.Second
	client := redis.NewUniversalClient(o)
	defer client.Close()
	where := fmt.Sprintf("live: %s: Redis %s", s.who, strings.Join(o.Addrs, ", "))
	if o.Username != "" {
		where += " as user " + o.Username
	}
	wrong := func(format string, args ...any) { r.error(s.at, s.line, "%s: %s", where, fmt.Sprintf(format, args...)) }
	doubt := func(format string, args ...any) { r.warn(s.at, s.line, "%s: %s", where, fmt.Sprintf(format, args...)) }

	if err := client.Ping(ctx).Err(); err != nil {
		wrong("%s", unreachable(err, o.TLSConfig != nil))
		return
	}
	before := len(r.Findings)
	r.tryPace(ctx, client, s, doubt)
	version := tryFacts(ctx, client, o, wrong, doubt)
	if gateway {
		t := &trial{s: s, client: client}
		t.gateway(ctx)
		t.report(wrong, "each gateway then counts alone, by its share of the limit")
	}
	if service {
		t := &trial{s: s, client: client}
		t.authsvc(ctx)
		if gateway && len(t.commands)+len(t.patterns) > 0 {
			doubt("this user may not do all that authsvc needs: missing are %s; that is right if authsvc has a user of its own: name its authsvc.yml too, to have that one tried",
				strings.Join(append(t.commands, t.patterns...), " "))
		} else if !gateway {
			t.report(wrong, "authsvc then cannot issue or revoke, or judges tokens without Redis")
		}
	}
	if len(r.Findings) == before {
		say(fmt.Sprintf("%s: version %s, every command, key and channel is allowed", where, version))
	}
}

// unreachable says what to do about a Redis that does not answer PING.
func unreachable(err error, secure bool) string {
	text := err.Error()
	switch {
	case strings.HasPrefix(text, "NOAUTH"):
		return "wants a password: " + text
	case strings.HasPrefix(text, "WRONGPASS"):
		return "refuses user or password: " + text
	case strings.HasPrefix(text, "DENIED"):
		return "is in protected mode: set a password, or bind it: " + before(text, ".")
	case secure && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.EOF) || strings.Contains(text, "TLS handshake")):
		return "does not answer: " + text + "; is that the port on which it speaks TLS? Without TLS leave out redis.tls"
	case !secure && (errors.Is(err, io.EOF) || strings.Contains(text, "reset by peer")):
		return "does not answer: " + text + "; does it speak TLS on that port? Then write redis.tls.enabled: true"
	}
	return "does not answer: " + text
}

// tryPace compares the way there and back with the time that a request has.
func (r *Report) tryPace(ctx context.Context, client redis.UniversalClient, s *server, doubt func(string, ...any)) {
	var took []time.Duration
	for range 5 {
		begun := time.Now()
		if client.Ping(ctx).Err() != nil {
			return
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	if median := took[len(took)/2]; median > s.budget {
		doubt("PING takes %s from here, more than redis.timeout (%s): from such a distance every request would be decided without Redis", median.Round(100*time.Microsecond), s.budget)
	}
}

// tryFacts reads the server's settings where the user may, and returns its version.
func tryFacts(ctx context.Context, client redis.UniversalClient, o *redis.UniversalOptions, wrong, doubt func(string, ...any)) string {
	facts := map[string]string{}
	text, err := client.Info(ctx).Result()
	for line := range strings.Lines(text) {
		if name, v, ok := strings.Cut(strings.TrimSpace(line), ":"); ok {
			facts[name] = v
		}
	}
	if err != nil {
		if hello, failed := client.Do(ctx, "HELLO").Result(); failed == nil {
			facts["redis_version"] = greeting(hello, "version")
			facts["role"] = greeting(hello, "role")
			if greeting(hello, "mode") == "cluster" {
				facts["cluster_enabled"] = "1"
			}
		}
		doubt("its settings cannot be read (%v): see yourself that maxmemory-policy is noeviction and that min-replicas-to-write is met, or grant +info +config|get", err)
	}
	version := facts["redis_version"]
	if major, err := strconv.Atoi(before(version, ".")); err == nil && major < 5 {
		wrong("is version %s; before 5.0 a script may not write once it has read the time, and every counter does", version)
	}
	if facts["role"] == "slave" || facts["role"] == "replica" {
		wrong("is a replica, which takes no writes; name the master, or the Sentinels and masterName")
	}
	if isCluster := facts["cluster_enabled"] == "1"; isCluster && !o.IsClusterMode {
		wrong("is a Redis Cluster; write cluster: true")
	}
	policy := facts["maxmemory_policy"]
	if maxmemory := facts["maxmemory"]; maxmemory != "" && maxmemory != "0" && policy != "" && policy != "noeviction" {
		wrong("maxmemory-policy is %s with maxmemory %s: under pressure Redis drops counters (a limit starts anew) and revocations (a logout is undone); set maxmemory-policy noeviction", policy, maxmemory)
	}
	used, _ := strconv.ParseFloat(facts["used_memory"], 64)
	if most, _ := strconv.ParseFloat(facts["maxmemory"], 64); most > 0 && used > 0.9*most {
		doubt("%.0f %% of maxmemory are in use; when it is full Redis refuses to count", 100*used/most)
	}
	if settings, err := client.ConfigGet(ctx, "min-replicas-to-write").Result(); err == nil {
		need, _ := strconv.Atoi(settings["min-replicas-to-write"])
		have, _ := strconv.Atoi(facts["connected_slaves"])
		if need > have {
			wrong("min-replicas-to-write is %d and connected replicas are %d: Redis refuses every write", need, have)
		}
	}
	return version
}

// greeting finds a word in the reply to HELLO, a list or a map.
func greeting(reply any, name string) string {
	switch reply := reply.(type) {
	case map[any]any:
		return fmt.Sprint(reply[name])
	case []any:
		for i := 0; i+1 < len(reply); i += 2 {
			if reply[i] == name {
				return fmt.Sprint(reply[i+1])
			}
		}
	}
	return ""
}

// gateway does what a gateway does, on a counter, a set and a heartbeat of its own
// that end after a second.
func (t *trial) gateway(ctx context.Context) {
	p := t.s.prefix
	counter := p + ":lim:1:check:1000:{" + limit.Key(limit.GlobalKey, "check") + "}"
	heart, live := p+":gw:check", p+":gw:check-live"
	limits, gateways := "~"+p+":lim:*", "~"+p+":gw:*"
	for _, n := range []struct {
		pattern string
		command try
	}{
		{"", try{"PING"}},
		{"", try{"TIME"}},
		{limits, try{"SET", counter, "0 0 0 0 0 0", "PX", 1000}},
		{limits, try{"SETRANGE", counter, 0, ""}},
		{limits, try{"GET", counter}},
		{gateways, try{"SET", heart, "{}", "PX", 1000}},
		{gateways, try{"ZADD", live, 1, "check"}},
		{gateways, try{"PEXPIRE", live, 1000}},
		{gateways, try{"ZSCORE", live, "check"}},
		{gateways, try{"ZRANGE", live, 0, -1}},
		{gateways, try{"ZREMRANGEBYSCORE", live, "-inf", "+inf"}},
	} {
		t.need(ctx, t.client.Do, n.pattern, n.command)
	}
	script := redis.NewScript(window.Script)
	ask := (&window.Ask{Window: 1e6, Limit: 1, Cost: 1, Need: 1, Instances: 1}).Word()
	t.judge(try{"EVAL"}, limits, script.Eval(ctx, t.client, []string{counter}, ask).Err())
	if err := script.EvalSha(ctx, t.client, []string{counter}, ask).Err(); err != nil && !redis.HasErrorPrefix(err, "NOSCRIPT") {
		t.judge(try{"EVALSHA"}, limits, err)
	}
	t.subscribe(ctx)
}

func (t *trial) subscribe(ctx context.Context) {
	channel := t.s.prefix + ":events"
	subscription := t.client.Subscribe(ctx, channel)
	defer subscription.Close()
	_, err := subscription.ReceiveTimeout(ctx, 2*time.Second)
	t.judge(try{"SUBSCRIBE"}, "&"+channel, err)
}

// authsvc puts what authsvc does into transactions that are discarded.
func (t *trial) authsvc(ctx context.Context) {
	p := t.s.prefix
	tokens, users, sessions, keys, events, gateways, limits := p+":tok:check", p+":usr:check", p+":ref:check", p+":key:check", p+":evt", p+":gw:live", p+":lim:1:check:1000:{gcheck}"
	channel := p + ":events"
	for _, n := range []struct {
		key      string
		pattern  string
		commands []try
	}{
		{tokens, "~" + p + ":tok:*", []try{{"SET", tokens, "x", "NX", "PX", 1}, {"GET", tokens}}},
		{users, "~" + p + ":usr:*", []try{{"SET", users, "1", "PX", 1}, {"GET", users}}},
		{sessions, "~" + p + ":ref:*", []try{{"HSET", sessions, "a", "b"}, {"HGETALL", sessions}, {"HGET", sessions, "a"}, {"HMGET", sessions, "a"}, {"HDEL", sessions, "a"}, {"DEL", sessions}, {"PEXPIRE", sessions, 1}, {"PEXPIREAT", sessions, 1}}},
		{keys, "~" + p + ":key:*", []try{{"SET", keys, "x", "EX", 60}}},
		{events, "~" + p + ":evt", []try{{"HGET", events, "epoch"}, {"HSET", events, "seq", 0}, {"HINCRBY", events, "seq", 1}}},
		{events, "&" + channel, []try{{"PUBLISH", channel, ""}}},
		{gateways, "~" + p + ":gw:*", []try{{"ZREMRANGEBYSCORE", gateways, "-inf", "0"}, {"ZRANGEBYSCORE", gateways, 0, "+inf"}, {"GET", gateways}, {"GETRANGE", gateways, 0, 1}}},
		{limits, "~" + p + ":lim:*", []try{{"TIME"}, {"GET", limits}, {"SET", limits, "0", "PX", 1}, {"EVAL", "return 1", 1, limits}, {"EVALSHA", strings.Repeat("0", 40), 1, limits}}},
	} {
		t.discarded(ctx, n.key, n.pattern, n.commands)
	}
	t.subscribe(ctx)
}

func (t *trial) discarded(ctx context.Context, key, pattern string, commands []try) {
	var conn *redis.Conn
	switch client := t.client.(type) {
	case *redis.ClusterClient:
		node, err := client.MasterForKey(ctx, key)
		if err != nil {
			t.note(&t.others, err.Error())
			return
		}
		conn = node.Conn()
	case *redis.Client:
		conn = client.Conn()
	default:
		return
	}
	defer conn.Close()
	if err := conn.Do(ctx, "MULTI").Err(); err != nil {
		t.judge(try{"MULTI"}, "", err)
		return
	}
	for _, command := range commands {
		t.need(ctx, conn.Do, pattern, command)
	}
	t.judge(try{"DISCARD"}, "", conn.Do(ctx, "DISCARD").Err())
}

// report says what is missing, and what follows.
func (t *trial) report(wrong func(string, ...any), consequence string) {
	grant := append(t.patterns, t.commands...)
	if len(grant) > 0 {
		user := t.s.redis.Username
		if user == "" {
			user = "default"
		}
		wrong("the user lacks rights: ACL SETUSER %s %s; %s", user, strings.Join(grant, " "), consequence)
	}
	for _, other := range t.others {
		wrong("answers %q%s; %s", other, meaning(other), consequence)
	}
}

// meaning says what an error of Redis is about.
func meaning(text string) string {
	for prefix, means := range map[string]string{
		"OOM":        ": maxmemory is reached, so no write is taken; raise it or find what fills it",
		"NOREPLICAS": ": fewer replicas than min-replicas-to-write are connected",
		"READONLY":   ": it is a replica; name the master, or the Sentinels and masterName",
		"MISCONF":    ": its last snapshot failed, so it takes no writes; see its log and disk",
		"LOADING":    ": it reads its data at the moment; try again",
		"MOVED":      ": it is a Redis Cluster; write cluster: true",
		"CROSSSLOT":  ": it is a Redis Cluster; write cluster: true",
	} {
		if strings.HasPrefix(text, prefix) || strings.Contains(text, "-"+prefix) {
			return means
		}
	}
	return ""
}

// authAddress is a service that is asked who a token belongs to.
type authAddress struct {
	at        *document
	line      int
	name, url string
	tls       *tls.Config
	timeout   time.Duration
}

// tryAuth asks with a token that nobody has issued.
func (r *Report) tryAuth(ctx context.Context, a authAddress, say func(string)) {
	where := fmt.Sprintf("live: middleware %q: auth address %s", a.name, a.url)
	wrong := func(format string, args ...any) { r.error(a.at, a.line, "%s: %s", where, fmt.Sprintf(format, args...)) }
	ctx, cancel := context.WithTimeout(ctx, liveBudget)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url, nil)
	if err != nil {
		wrong("%v", err)
		return
	}
	request.Header.Set("Authorization", "Bearer sluice-check")
	request.Header.Set("User-Agent", "sluice")
	for name, v := range map[string]string{"Method": "GET", "Host": "sluice.invalid", "Uri": "/", "Proto": "https", "For": "192.0.2.1"} {
		request.Header.Set("X-Forwarded-"+name, v)
	}
	client := &http.Client{
		Transport:     &http.Transport{TLSClientConfig: a.tls, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	begun := time.Now()
	response, err := client.Do(request)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err
		}
		hint := ""
		if strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") {
			hint = "; it speaks plain HTTP there: write http://"
		}
		wrong("does not answer: %v%s; while no address answers, every request with a token that is not known yet is 503", err, hint)
		return
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(io.LimitReader(response.Body, 512))
	took := time.Since(begun)
	switch status := response.StatusCode; {
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		if a.timeout > 0 && took > a.timeout {
			r.warn(a.at, a.line, "%s: took %s, more than auth.timeout (%s)", where, took.Round(time.Millisecond), a.timeout)
			return
		}
		say(fmt.Sprintf("%s: answers, and refuses a token that nobody issued (%d)", where, status))
	case status < 300:
		wrong("answers %d to a token that nobody issued: it lets everybody in", status)
	case status < 400:
		wrong("answers %d, a redirect to %s, which is not followed; name where it leads, or the address that answers 401", status, response.Header.Get("Location"))
	case status == http.StatusNotFound || status == http.StatusMethodNotAllowed:
		wrong("answers %d: nothing there judges tokens; authsvc does at /auth, on the port of `listen`, not of `adminListen`", status)
	case status == http.StatusBadRequest && strings.Contains(string(body), "HTTPS"):
		wrong("answers 400: it wants HTTPS; write https://")
	default:
		wrong("answers %d, which decides nothing: such requests are 503; its words: %.200q", status, body)
	}
}

// clientTLS is the client's side of a section tls, nil where nobody asked for it.
func clientTLS(written []gateway.TLS, byScheme bool) (*tls.Config, error) {
	if len(written) == 0 {
		return nil, nil
	}
	c := written[0]
	if enabled, _ := strconv.ParseBool(c.Enabled); !enabled && !byScheme {
		return nil, nil
	}
	insecure, _ := strconv.ParseBool(c.InsecureSkipVerify)
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName, InsecureSkipVerify: insecure}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: no certificate", c.CA)
		}
	}
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func split(values []string) []string {
	return strings.FieldsFunc(strings.Join(values, ","), func(c rune) bool { return c == ',' || c == ' ' })
}

func duration(text string, byDefault time.Duration) time.Duration {
	if d, err := time.ParseDuration(text); err == nil {
		return d
	}
	return byDefault
}
