package check

import (
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"
)

const resourceProvider = "kubernetescrd"

// protos tells what a resource of each kind is about.
var protos = map[string]string{
	"Middleware": "http", "MiddlewareTCP": "tcp",
	"IngressRoute": "http", "IngressRouteTCP": "tcp", "IngressRouteUDP": "udp",
	"ServersTransport": "http/transports", "ServersTransportTCP": "tcp/transports",
	"TraefikService": "http", "TLSOption": "tls/options",
}

// resource takes one Kubernetes resource. Kinds that are not Traefik's pass, but an
// Ingress may use a middleware.
func (c *configuration) resource(d *document) {
	kind := value(dig(d.root, "kind"))
	if kind == "List" {
		for _, item := range words(dig(d.root, "items")) {
			one := *d
			one.root = item
			c.resource(&one)
		}
		return
	}
	o := object{doc: d, line: lineOf(dig(d.root, "metadata", "name")), provider: resourceProvider, node: dig(d.root, "spec")}
	namespace, name := value(dig(d.root, "metadata", "namespace")), value(dig(d.root, "metadata", "name"))
	o.name = namespace + "-" + name
	switch version := value(dig(d.root, "apiVersion")); {
	case kind == "Ingress":
		c.ingress(o)
		return
	case !strings.HasPrefix(version, "traefik."):
		return
	case version != "traefik.io/v1alpha1":
		c.report.error(d, lineOf(dig(d.root, "apiVersion")), "%s %q: apiVersion %q is none that Traefik 3 reads; write traefik.io/v1alpha1", kind, name, version)
		return
	case o.node == nil:
		c.report.error(d, lineOf(d.root), "%s %q: has no spec", kind, name)
		return
	}
	schema, known := schemas[kind]
	if !known {
		if near := suggest(kind, keys(protos)); near != "" {
			c.report.error(d, lineOf(dig(d.root, "kind")), "%s: Traefik has no resource of that kind%s", kind, near)
		}
		return
	}
	c.report.fields(d, o.node, schema, ".spec")
	o.proto = protos[kind]
	switch kind {
	case "Middleware", "MiddlewareTCP":
		c.sections[resourceProvider+"/"+o.proto+"/middlewares"] = true
		m := &middleware{object: o}
		for _, to := range words(dig(o.node, "chain", "middlewares")) {
			m.chain = append(m.chain, c.resourceRef(&m.object, to, namespace))
		}
		c.plugin(m)
		c.keep(m)
	case "IngressRoute", "IngressRouteTCP", "IngressRouteUDP":
		c.routes(o, namespace)
	case "TraefikService":
		c.sections[resourceProvider+"/http/services"] = true
		c.addObject(&o, "service")
	case "ServersTransport", "ServersTransportTCP", "TLSOption":
		c.sections[resourceProvider+"/"+o.proto+"/"] = true
		c.addObject(&o, kind)
	}
}

// resourceRef is a reference of {name, namespace}, whose name may say a provider.
func (c *configuration) resourceRef(from *object, to *yaml.Node, namespace string) ref {
	name := value(dig(to, "name"))
	if own := value(dig(to, "namespace")); own != "" {
		namespace = own
	}
	if !strings.Contains(name, "@") {
		name = namespace + "-" + name + "@" + resourceProvider
	}
	return ref{from, name, to.Line}
}

// routes makes a router of each of an IngressRoute's.
func (c *configuration) routes(o object, namespace string) {
	c.sections[resourceProvider+"/"+o.proto+"/routers"] = true
	for i, route := range words(dig(o.node, "routes")) {
		r := &router{object: o, rule: dig(route, "match"), syntax: value(dig(route, "syntax")), points: words(dig(o.node, "entryPoints"))}
		r.name = fmt.Sprintf("%s, routes[%d]", o.name, i)
		r.line, r.node = route.Line, route
		r.resolver = dig(o.node, "tls", "certResolver")
		for _, to := range words(dig(route, "middlewares")) {
			r.middlewares = append(r.middlewares, c.resourceRef(&r.object, to, namespace))
		}
		services := words(dig(route, "services"))
		if len(services) == 0 && dig(o.node, "parentRefs") == nil {
			c.report.error(o.doc, route.Line, "router %q: names no service, so Traefik does not install it", r.name)
		}
		for _, service := range services {
			to := c.resourceRef(&r.object, service, namespace)
			if value(dig(service, "kind")) == "TraefikService" {
				c.refs = append(c.refs, serviceRef{to, o.proto, "services", "TraefikService"})
			}
			if transport := dig(service, "serversTransport"); value(transport) != "" {
				transport = scalar(namespace+"-"+transport.Value, transport.Line)
				c.need(&r.object, transport, o.proto+"/transports", "serversTransports", "ServersTransport")
			}
		}
		if options := dig(o.node, "tls", "options"); options != nil {
			c.refs = append(c.refs, serviceRef{c.resourceRef(&r.object, options, namespace), "tls/options", "options", "TLSOption"})
		}
		c.report.Ready = c.report.Ready || len(services) > 0 && value(dig(services[0], "name")) == "ping@internal" &&
			strings.Contains(value(r.rule), ReadyPath) && len(r.points) > 0 && r.points[0].Value == readyPoint
		c.routers = append(c.routers, r)
	}
}

// ingress takes what the annotations of an Ingress, or of a Service, say.
func (c *configuration) ingress(o object) {
	o.proto, o.provider = "http", "kubernetes"
	r := &router{object: o}
	annotations := dig(o.doc.root, "metadata", "annotations")
	for _, name := range words(dig(annotations, "traefik.ingress.kubernetes.io/router.middlewares")) {
		r.middlewares = append(r.middlewares, ref{&r.object, qualify(name.Value, &r.object), name.Line})
	}
	r.points = words(dig(annotations, "traefik.ingress.kubernetes.io/router.entrypoints"))
	if len(r.middlewares)+len(r.points) > 0 {
		c.routers = append(c.routers, r)
	}
}
