package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// object is something with a name: a router, a middleware, a service.
type object struct {
	doc      *document
	line     int
	name     string // as its provider calls it
	provider string
	proto    string // http, tcp or udp
	node     *yaml.Node
}

func (o *object) key() string { return o.proto + "/" + o.name + "@" + o.provider }

// ref names another object.
type ref struct {
	from *object
	name string // with @provider
	line int
}

type router struct {
	object
	rule        *yaml.Node
	syntax      string
	points      []*yaml.Node
	middlewares []ref
	resolver    *yaml.Node
}

type middleware struct {
	object
	chain []ref
	gate  *gate // nil: not the plugin
	used  bool
}

// gate is a middleware of the plugin.
type gate struct {
	at     *document
	name   string
	config *yaml.Node
	good   bool // no error in it
}

// configuration is what all documents come to.
type configuration struct {
	report      *Report
	facts       *facts
	routers     []*router
	middlewares map[string]*middleware
	services    map[string]*object // transports and TLS options too, as proto http/transports
	refs        []serviceRef
	sections    map[string]bool // "file/http/middlewares": there is such a section
	containers  []string        // services of compose files
	outside     bool            // something is named that belongs to a provider not checked
}

// serviceRef is a name that has to be among the objects of a kind.
type serviceRef struct {
	ref
	proto, section, noun string
}

// Traefik's own services and middlewares.
var internal = map[string][]string{
	"services":    {"api", "dashboard", "ping", "prometheus", "rest", "noop", "acme-http"},
	"middlewares": {"dashboard_redirect", "dashboard_stripprefix"},
}

const fileProvider = "file"

// collect takes what a dynamic file holds, and labels made into one.
func (c *configuration) collect(d *document) { c.collectFrom(d, d.root, fileProvider) }

func (c *configuration) collectFrom(d *document, root *yaml.Node, provider string) {
	for _, proto := range []string{"http", "tcp", "udp"} {
		here := func(section string, do func(o object)) {
			node, _ := field(dig(root, proto), section)
			if node != nil {
				c.sections[provider+"/"+proto+"/"+section] = true
			}
			for key, v := range pairs(node) {
				do(object{doc: d, line: key.Line, name: key.Value, provider: provider, proto: proto, node: v})
			}
		}
		here("middlewares", func(o object) { c.addMiddleware(o) })
		here("services", func(o object) { c.addService(o) })
		here("serversTransports", func(o object) { o.proto += "/transports"; c.addObject(&o, "serversTransport") })
		here("routers", func(o object) { c.addRouter(o) })
	}
	for key, v := range pairs(dig(root, "tls", "options")) {
		c.sections[provider+"/tls/options"] = true
		c.addObject(&object{doc: d, line: key.Line, name: key.Value, provider: provider, proto: "tls/options", node: v}, "TLS options")
	}
}

// qualify is a reference's name with its provider, which is that of the one who
// names it where it says none.
func qualify(name string, from *object) string {
	if strings.Contains(name, "@") {
		return name
	}
	return name + "@" + from.provider
}

func (c *configuration) addRouter(o object) {
	r := &router{object: o, rule: dig(o.node, "rule"), syntax: value(dig(o.node, "ruleSyntax")), points: words(dig(o.node, "entryPoints"))}
	for _, name := range words(dig(o.node, "middlewares")) {
		r.middlewares = append(r.middlewares, ref{&r.object, qualify(name.Value, &r.object), name.Line})
	}
	r.resolver = dig(o.node, "tls", "certResolver")
	if service := dig(o.node, "service"); value(service) != "" {
		c.need(&r.object, service, o.proto, "services", "service")
	} else if o.provider == fileProvider && dig(o.node, "parentRefs") == nil && o.node.Kind == yaml.MappingNode {
		c.report.error(o.doc, o.line, "router %q: names no service, so Traefik does not install it", o.name)
	}
	c.need(&r.object, dig(o.node, "tls", "options"), "tls/options", "options", "TLS options")
	c.routers = append(c.routers, r)
}

// need notes that a name has to be there.
func (c *configuration) need(from *object, name *yaml.Node, proto, section, noun string) {
	if value(name) != "" {
		c.refs = append(c.refs, serviceRef{ref{from, qualify(name.Value, from), name.Line}, proto, section, noun})
	}
}

func (c *configuration) addMiddleware(o object) {
	m := &middleware{object: o}
	var types []string
	for key := range pairs(o.node) {
		types = append(types, key.Value)
	}
	switch {
	case o.node.Kind == yaml.MappingNode && len(types) == 0 || o.node.Tag == "!!null":
		c.report.error(o.doc, o.line, "middleware %q: is empty, so the routers that use it are not installed", o.name)
	case len(types) > 1:
		c.report.error(o.doc, o.line, "middleware %q: is %s at once; Traefik takes one kind a middleware, so the routers that use it are not installed", o.name, strings.Join(types, " and "))
	}
	for _, name := range words(dig(o.node, "chain", "middlewares")) {
		m.chain = append(m.chain, ref{&m.object, qualify(name.Value, &m.object), name.Line})
	}
	c.need(&m.object, dig(o.node, "errors", "service"), o.proto, "services", "service")
	c.plugin(m)
	c.keep(m)
}

// keep adds a middleware unless its name is taken.
func (c *configuration) keep(m *middleware) {
	if before, there := c.middlewares[m.key()]; there {
		c.twice(&m.object, &before.object, "middleware")
		return
	}
	c.middlewares[m.key()] = m
	if address := dig(m.node, "forwardAuth", "address"); value(address) != "" {
		c.report.auths = append(c.report.auths, authAddress{at: m.doc, line: address.Line, name: m.name, url: address.Value})
	}
}

func (c *configuration) addService(o object) {
	for _, kind := range []string{"weighted", "highestRandomWeight"} {
		for _, s := range words(dig(o.node, kind, "services")) {
			c.need(&o, dig(s, "name"), o.proto, "services", "service")
		}
	}
	c.need(&o, dig(o.node, "mirroring", "service"), o.proto, "services", "service")
	for _, s := range words(dig(o.node, "mirroring", "mirrors")) {
		c.need(&o, dig(s, "name"), o.proto, "services", "service")
	}
	c.need(&o, dig(o.node, "failover", "service"), o.proto, "services", "service")
	c.need(&o, dig(o.node, "failover", "fallback"), o.proto, "services", "service")
	c.need(&o, dig(o.node, "loadBalancer", "serversTransport"), o.proto+"/transports", "serversTransports", "serversTransport")
	c.addObject(&o, "service")
}

func (c *configuration) addObject(o *object, noun string) {
	if before, there := c.services[o.key()]; there {
		c.twice(o, before, noun)
		return
	}
	c.services[o.key()] = o
}

// twice warns once for two files, since whole files are alike when one is an
// alternative to the other.
func (c *configuration) twice(o, before *object, noun string) {
	text := fmt.Sprintf("%s %q: is in %s too; of files checked together Traefik keeps the first, so what is here has no effect (more may be alike)", noun, o.name, before.doc.name)
	seen := slices.ContainsFunc(c.report.Findings, func(f Finding) bool {
		return f.File == o.doc.name && strings.Contains(f.Text, "is in "+before.doc.name+" too")
	})
	if !seen {
		c.report.warn(o.doc, o.line, "%s", text)
	}
}

// judge looks at all of it together.
func (c *configuration) judge() {
	c.report.Routers = len(c.routers)
	for _, r := range c.routers {
		c.judgeRule(r)
		for _, point := range r.points {
			c.judgePoint(r, point)
		}
		if resolver := value(r.resolver); resolver != "" && c.facts.known && !c.facts.resolvers[resolver] {
			c.report.error(r.doc, r.resolver.Line, "router %q: the certificate resolver %q does not exist%s", r.name, resolver, suggest(resolver, keys(c.facts.resolvers)))
		}
		c.judgeChain(r)
		c.report.Ready = c.report.Ready || c.ready(r)
	}
	for _, m := range c.middlewares {
		for _, to := range m.chain {
			c.resolve(to, m.proto)
		}
	}
	for name, chain := range c.facts.points {
		for _, m := range chain {
			at := &object{provider: fileProvider, proto: "http", name: name}
			c.use(qualify(m.Value, at), at.proto, map[string]bool{})
		}
	}
	for _, need := range c.refs {
		c.judgeRef(need)
	}
	c.judgeGates()
	slices.Sort(c.report.Middlewares)
}

func (c *configuration) judgeRule(r *router) {
	parse := Rule
	if r.proto == "tcp" {
		parse = TCPRule
	}
	switch {
	case r.proto == "udp" || r.node.Kind != yaml.MappingNode && r.rule == nil:
		return
	case r.rule == nil && r.provider != fileProvider:
		return // the provider has a rule for those without
	case r.syntax == "v2" || r.syntax == "" && c.facts.syntax == "v2":
		c.report.warn(r.doc, r.line, "router %q: has a rule of Traefik's version 2, which is not checked; Traefik will drop that syntax", r.name)
	case r.rule != nil && templated.MatchString(r.rule.Value):
		return // a variable that is not known here
	case r.rule == nil:
		c.report.error(r.doc, r.line, "router %q: has no rule, so Traefik does not install it", r.name)
	default:
		if err := parse(value(r.rule)); err != nil {
			c.report.error(r.doc, r.rule.Line, "router %q: rule %q, so Traefik does not install it: %s", r.name, r.rule.Value, strings.ReplaceAll(err.Error(), "\n", "; "))
		}
	}
}

func (c *configuration) judgePoint(r *router, point *yaml.Node) {
	name := value(point)
	c.report.Ours = c.report.Ours || slices.Contains([]string{readyPoint, "balancedweb", "balancedwebsecure"}, name)
	if c.facts.point(name) {
		return
	}
	c.report.error(r.doc, point.Line, "router %q: the entry point %q does not exist in the static configuration; there are %s%s",
		r.name, name, strings.Join(keys(c.facts.points), ", "), suggest(name, keys(c.facts.points)))
}

// ready looks for the router that the shipped files call ready.
func (c *configuration) ready(r *router) bool {
	return value(dig(r.node, "service")) == "ping@internal" && strings.Contains(value(r.rule), ReadyPath) &&
		slices.ContainsFunc(r.points, func(p *yaml.Node) bool { return p.Value == readyPoint })
}

// judgeChain goes through a router's middlewares in order.
func (c *configuration) judgeChain(r *router) {
	told := false // somebody before may have said who the user is
	for _, point := range r.points {
		told = told || len(c.facts.points[point.Value]) > 0
	}
	if len(r.points) == 0 {
		for _, chain := range c.facts.points {
			told = told || len(chain) > 0
		}
	}
	var walk func(refs []ref, depth int)
	walk = func(refs []ref, depth int) {
		for _, to := range refs {
			m := c.resolve(to, r.proto)
			switch {
			case m == nil:
				told = true // who knows
			case depth < 10 && len(m.chain) > 0:
				walk(m.chain, depth+1)
			case m.gate != nil:
				c.judgeForwarded(r, to, m)
				if truth(m.gate.config, "trustUserHeader") && !told {
					c.report.error(r.doc, to.line, "router %q: %q has trustUserHeader: true, but nothing before it on this router says who the user is, so every client could; put forwardAuth before it, or write auth instead", r.name, m.name)
				}
				told = told || dig(m.gate.config, "auth") != nil
			default:
				for key := range pairs(m.node) {
					told = told || slices.ContainsFunc([]string{"forwardAuth", "basicAuth", "digestAuth", "plugin", "headers"}, func(k string) bool { return strings.EqualFold(k, key.Value) })
				}
			}
		}
	}
	walk(r.middlewares, 0)
	for _, to := range r.middlewares {
		c.use(to.name, r.proto, map[string]bool{})
	}
}

// judgeForwarded finds a gate that goes by a header that never reaches it.
func (c *configuration) judgeForwarded(r *router, to ref, m *middleware) {
	strategy := dig(m.gate.config, "ipStrategy")
	depth, _ := field(strategy, "depth")
	excluded, _ := field(strategy, "excludedIPs")
	if !c.facts.known || (value(depth) == "" || value(depth) == "0") && len(words(excluded)) == 0 {
		return
	}
	points := keys(c.facts.points)
	if len(r.points) > 0 {
		points = nil
		for _, point := range r.points {
			points = append(points, value(point))
		}
	}
	if !slices.ContainsFunc(points, func(name string) bool { return c.facts.believes[name] }) {
		c.report.error(r.doc, to.line, "router %q: %q has ipStrategy, which reads X-Forwarded-For, but Traefik removes that header on %s: all clients behind a proxy would be one. Write the networks of trustedProxies into forwardedHeaders.trustedIPs of the entry point too",
			r.name, m.name, strings.Join(points, ", "))
	}
}

// use marks a middleware, and those in its chain, as used by a router.
func (c *configuration) use(name, proto string, seen map[string]bool) {
	m := c.find(name, proto)
	if m == nil || seen[m.key()] {
		return
	}
	seen[m.key()] = true
	m.used = true
	for _, to := range m.chain {
		c.use(to.name, proto, seen)
	}
}

// find looks a middleware up. One of Kubernetes may be named with a namespace that
// its own file leaves to kustomize.
func (c *configuration) find(name, proto string) *middleware {
	if m := c.middlewares[proto+"/"+name]; m != nil {
		return m
	}
	if plain, ok := strings.CutSuffix(name, "@kubernetescrd"); ok {
		for key, m := range c.middlewares {
			own := strings.TrimSuffix(strings.TrimPrefix(key, proto+"/"), "@kubernetescrd")
			if m.provider == "kubernetescrd" && strings.HasPrefix(own, "-") && strings.HasSuffix(plain, own) {
				return m
			}
		}
	}
	return nil
}

// resolve finds a middleware that is named, or says that there is none.
func (c *configuration) resolve(to ref, proto string) *middleware {
	if m := c.find(to.name, proto); m != nil {
		return m
	}
	var known []string
	for _, key := range slices.Sorted(maps.Keys(c.middlewares)) {
		if m := c.middlewares[key]; m.proto == proto {
			known = append(known, m.name)
		}
	}
	c.missing(serviceRef{to, proto, "middlewares", "middleware"}, known)
	return nil
}

func (c *configuration) judgeRef(need serviceRef) {
	if _, there := c.services[need.proto+"/"+need.name]; there {
		return
	}
	plainName := before(need.name, "@")
	if need.proto == "tls/options" && plainName == "default" {
		return
	}
	var known []string
	for _, key := range slices.Sorted(maps.Keys(c.services)) {
		if o := c.services[key]; o.proto == need.proto {
			known = append(known, o.name)
		}
	}
	c.missing(need, known)
}

// missing says that a name is not there: an error where it has to be in what is
// checked, a warning where it may be in a file that is not.
func (c *configuration) missing(need serviceRef, known []string) {
	name, provider, _ := strings.Cut(need.name, "@")
	from := need.from
	noun := need.noun
	if provider == "internal" {
		if !slices.Contains(internal[need.section], name) {
			c.report.error(from.doc, need.line, "%s: Traefik has no %s %q of its own%s", from.called(), noun, need.name, suggest(name, internal[need.section]))
		}
		return
	}
	for _, service := range c.containers { // Traefik names a container's service after it
		if need.section == "services" && provider == from.provider && strings.HasPrefix(name, service+"-") {
			return
		}
	}
	prefix := provider + "/"
	there := slices.ContainsFunc(keys(c.sections), func(s string) bool { return strings.HasPrefix(s, prefix) })
	if !there || provider == "docker" || provider == "swarm" {
		if provider != from.provider {
			c.outside = true
			return // of a provider that is not checked
		}
	}
	routersAlone := true
	for section := range c.sections {
		if strings.HasPrefix(section, prefix) && !strings.HasSuffix(section, "/routers") {
			routersAlone = false
		}
	}
	shown := name
	if provider != from.provider {
		shown = need.name
	}
	hint := suggest(name, known)
	text := fmt.Sprintf("%s: the %s %q does not exist", from.called(), noun, shown)
	switch {
	case routersAlone:
		c.outside = true
		c.report.warn(from.doc, need.line, "%s in what was checked, which holds routers alone; name the files that hold the rest too%s", text, hint)
	case from.noun() == "router":
		c.report.error(from.doc, need.line, "%s, so Traefik does not install the router%s", text, hint)
	default:
		c.report.error(from.doc, need.line, "%s, so Traefik does not install the routers that use it%s", text, hint)
	}
}

func (o *object) noun() string {
	switch {
	case dig(o.node, "rule") != nil || dig(o.node, "match") != nil || dig(o.node, "routes") != nil || dig(o.node, "service") != nil:
		return "router"
	case dig(o.node, "loadBalancer") != nil || dig(o.node, "weighted") != nil || dig(o.node, "mirroring") != nil || dig(o.node, "failover") != nil:
		return "service"
	default:
		return "middleware"
	}
}

func (o *object) called() string { return fmt.Sprintf("%s %q", o.noun(), o.name) }

// judgeGates asks whether the plugin has any effect.
func (c *configuration) judgeGates() {
	gates := 0
	for _, key := range slices.Sorted(maps.Keys(c.middlewares)) {
		m := c.middlewares[key]
		if m.gate == nil {
			continue
		}
		gates++
		if !m.used && len(c.routers) > 0 {
			c.report.error(m.doc, m.line, "middleware %q: no router uses it, so it protects and limits nothing; write its name under a router's middlewares (or, if routers elsewhere use it, name their files too)", m.name)
		}
	}
	if gates > 0 || c.outside || len(c.report.Errors()) > 0 {
		return
	}
	if len(c.routers) > 0 {
		c.report.error(c.routers[0].doc, 0, "no middleware uses the plugin %q, so nothing is protected or limited", strings.Join(keys(c.facts.plugins), " or "))
	}
}

func truth(n *yaml.Node, key string) bool {
	v := strings.ToLower(value(dig(n, key)))
	return v == "true" || v == "1"
}
