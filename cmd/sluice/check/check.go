// Package check finds, before Traefik starts, what Traefik would drop in
// silence or only log.
//
// What is checked together is one configuration: files as the file provider
// takes them, Kubernetes resources, labels of a compose file, and the static
// configuration. In this order,
//
//	source.go      reads files, folders and standard input, tells what each is
//	render.go      executes a template as the file provider does, and knows
//	               which line came from which
//	schema.go      compares with the fields that Traefik 3.7.13 has
//	kubernetes.go, compose.go, routing.go
//	               collect routers, middlewares and services, and look for what
//	               is named and not there, or there and of no effect
//	rule.go        parses rules with Traefik's parser
//	plugin.go      decodes each middleware of the plugin as Traefik does and lets
//	               the plugin's own validation speak, so that `sluice check`,
//	               `sluice up` and a running gateway complain in the same words
//	               (design: closed-on-mistake)
//	static.go      compares with what design: closed-entry-points demands of every entry
//	               point
//	live.go        tries Redis and the auth addresses
package check

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"

	"go.yaml.in/yaml/v3"
)

// PluginName is what the shipped static configuration calls the plugin.
const PluginName = "sluice"

// module is how the plugin is known under any name.
const module = "github.com/sluice-gateway/sluice"

// ReadyPath is where a gateway tells, by a router of its dynamic file and on its
// inner entry point, that the routes of that file are served. Traefik's own /ping
// answers earlier.
const ReadyPath = "/readyz"

const readyPoint = "ping"

// Options say what to check.
type Options struct {
	Names  []string            // files and folders, and "-" for standard input
	Static string              // the static configuration; empty: what Names hold of it
	Stdin  io.Reader           // what "-" stands for
	Here   bool                // the gateway runs on this machine, so files that it names must be here
	Getenv func(string) string // answers a template's env; os.Getenv is the obvious choice
}

// Finding is a mistake, or, as a warning, what may be one.
type Finding struct {
	File    string
	Line    int // 0: of the file as a whole
	Warning bool
	Text    string // a complete sentence with its path
}

func (f Finding) String() string {
	where, what := f.File, "error"
	if f.Line > 0 {
		where = fmt.Sprintf("%s:%d", f.File, f.Line)
	}
	if f.Warning {
		what = "warning"
	}
	return fmt.Sprintf("%s: %s: %s", where, what, f.Text)
}

// Report is what was found out.
type Report struct {
	Findings    []Finding // by file and line
	Files       []string  // those that hold configuration of Traefik's, in the order they were read
	Skipped     []string  // those that do not, each with what it is
	Middlewares []string  // those that use the plugin, sorted
	Routers     int
	Unset       []string // environment variables that a template asks for and does not get
	Elsewhere   []string // files that the configuration names and this machine lacks
	Ready       bool     // a router serves ReadyPath
	Ours        bool     // entry points of the shipped static configuration are in use

	here    bool
	gates   []*gate
	authsvc []string      // configuration files of authsvc
	auths   []authAddress // of forwardAuth
}

// Errors are the findings that are no warnings.
func (r *Report) Errors() []string {
	var all []string
	for _, f := range r.Findings {
		if !f.Warning {
			all = append(all, f.String())
		}
	}
	return all
}

func (r *Report) error(d *document, line int, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{File: d.name, Line: line, Text: fmt.Sprintf(format, args...)})
}

func (r *Report) warn(d *document, line int, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{File: d.name, Line: line, Warning: true, Text: fmt.Sprintf(format, args...)})
}

// Check checks a configuration. The error is for what cannot be read at all.
func Check(o Options) (*Report, error) {
	report := &Report{here: o.Here}
	documents, err := report.read(o)
	if err != nil {
		return nil, err
	}
	facts := report.statics(documents)
	c := &configuration{report: report, facts: facts, middlewares: map[string]*middleware{}, services: map[string]*object{}, sections: map[string]bool{}}
	for _, d := range documents {
		switch d.kind {
		case dynamicKind:
			report.fields(d, d.root, d.schema, "")
			c.collect(d)
		case composeKind:
			c.labels(d)
		case kubernetesKind:
			c.resource(d)
		}
	}
	c.judge()
	slices.SortStableFunc(report.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(place(documents, a.File), place(documents, b.File)), cmp.Compare(a.Line, b.Line))
	})
	report.Findings = slices.Compact(report.Findings)
	return report, nil
}

func place(documents []*document, name string) int {
	return slices.IndexFunc(documents, func(d *document) bool { return d.name == name })
}

// facts are what the static configuration says of the dynamic one.
type facts struct {
	known     bool
	plugins   map[string]bool         // names under which the plugin is registered
	points    map[string][]*yaml.Node // entry points, with the middlewares of each
	believes  map[string]bool         // entry points that hand on somebody's X-Forwarded-For
	resolvers map[string]bool         // certificate resolvers
	syntax    string                  // of rules, where it is not v3
}

// statics checks what static configuration there is and keeps what it says.
func (r *Report) statics(documents []*document) *facts {
	f := &facts{plugins: map[string]bool{}, points: map[string][]*yaml.Node{}, believes: map[string]bool{}, resolvers: map[string]bool{}}
	gateways := map[*document]bool{}
	for _, d := range documents {
		if d.kind == staticKind {
			gateways[d] = f.learn(d.root)
		}
		if d.kind == composeKind {
			for _, flags := range d.flags {
				f.learn(flags)
			}
		}
	}
	for _, d := range documents {
		if d.kind != staticKind {
			continue
		}
		if !gateways[d] && d.found { // a balancer's, say
			r.Skipped = append(r.Skipped, d.name+": no gateway's static configuration, since it does not register the plugin")
			continue
		}
		r.Files = append(r.Files, d.name)
		r.fields(d, d.root, d.schema, "")
		tree, _ := plain(d.root).(map[string]any)
		open, weak := Openings(tree)
		for _, text := range open {
			r.error(d, locate(d.root, before(text, ":")), "%s", text)
		}
		for _, text := range weak {
			r.warn(d, locate(d.root, before(text, ":")), "%s", text)
		}
	}
	if len(f.plugins) == 0 {
		f.plugins[PluginName] = true
	}
	return f
}

// learn reads one static configuration; true where it registers the plugin.
func (f *facts) learn(root *yaml.Node) bool {
	registers := false
	for _, section := range []string{"plugins", "localPlugins"} {
		for name, v := range pairs(dig(root, "experimental", section)) {
			if value(dig(v, "moduleName")) == module {
				f.plugins[name.Value] = true
				registers = true
			}
		}
	}
	for name, point := range pairs(dig(root, "entryPoints")) {
		f.known = true
		f.points[name.Value] = append(f.points[name.Value], words(dig(point, "http", "middlewares"))...)
		forwarded := dig(point, "forwardedHeaders")
		f.believes[name.Value] = f.believes[name.Value] || truth(forwarded, "insecure") || len(words(dig(forwarded, "trustedIPs"))) > 0
	}
	for name := range pairs(dig(root, "certificatesResolvers")) {
		f.resolvers[name.Value] = true
	}
	if syntax := value(dig(root, "core", "defaultRuleSyntax")); syntax != "" {
		f.syntax = syntax
	}
	return registers
}

// point finds an entry point; its name's case matters to Traefik.
func (f *facts) point(name string) bool {
	_, there := f.points[name]
	return there || !f.known || name == "traefik" // which Traefik makes itself
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
