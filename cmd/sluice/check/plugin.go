package check

import (
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/traefik/paerser/file"
	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice/internal/dynconf"
	"github.com/sluice-gateway/sluice/plugin"
)

// plugin checks a middleware that may be ours.
func (c *configuration) plugin(m *middleware) {
	uses := dig(m.node, "plugin")
	if uses == nil {
		return
	}
	count := 0
	for name, config := range pairs(uses) {
		count++
		switch {
		case c.facts.plugins[name.Value]:
		case m.gate == nil && looksOurs(config):
			c.report.warn(m.doc, name.Line, "middleware %q: taken for this plugin by its keys; under the name %q it works only if the static configuration registers %s so: name that file with --static", m.name, name.Value, module)
		default:
			if len(c.facts.plugins) == 1 {
				if near := suggest(name.Value, keys(c.facts.plugins)); near != "" {
					c.report.error(m.doc, name.Line, "middleware %q: the plugin %q is not registered%s", m.name, name.Value, near)
				}
			}
			continue
		}
		m.gate = &gate{at: m.doc, name: m.name, config: config}
	}
	if count > 1 {
		c.report.error(m.doc, m.line, "middleware %q: names %d plugins; Traefik takes one a middleware", m.name, count)
		return
	}
	if m.gate != nil {
		c.report.gates = append(c.report.gates, m.gate)
		c.report.Middlewares = append(c.report.Middlewares, m.name)
		m.gate.good = c.report.judgeGate(m, m.gate.config)
	}
}

// looksOurs recognizes the plugin under another name.
func looksOurs(config *yaml.Node) bool {
	return dig(config, "redis") != nil && (dig(config, "limits") != nil || dig(config, "auth") != nil)
}

// judgeGate says what is wrong with the configuration of one middleware.
func (r *Report) judgeGate(m *middleware, config *yaml.Node) bool {
	good := true
	say := func(line int, problem string) {
		good = false
		r.error(m.doc, line, "middleware %q: %s", m.name, problem)
	}
	misshapen := shapes(config, reflect.TypeFor[plugin.Config](), "", say)
	for _, problem := range decode(plain(config)) {
		path := before(problem, ": ")
		if slices.ContainsFunc(misshapen, func(p string) bool { return strings.HasPrefix(path, p) }) ||
			len(misshapen) > 0 && strings.Contains(problem, "cannot decode") {
			continue // said already, and plainer
		}
		if file := elsewhere(problem); file != "" && !r.here {
			if !slices.Contains(r.Elsewhere, file) {
				r.Elsewhere = append(r.Elsewhere, file)
			}
			continue
		}
		if _, known, unknown := strings.Cut(problem, ": unknown key; known here: "); unknown {
			problem += suggest(path[strings.LastIndex(path, ".")+1:], strings.Split(known, ", "))
		}
		say(locate(config, path), problem)
	}
	auth, _ := field(config, "auth")
	if auth != nil || truth(config, "trustUserHeader") {
		return good
	}
	for i, limit := range words(dig(config, "limits")) {
		if key := dig(limit, "key"); value(key) == "user" {
			say(key.Line, fmt.Sprintf("limits[%d].key: user, but nothing tells this middleware who the user is, so every request counts as one without: write auth, or trustUserHeader: true behind forwardAuth", i))
		}
	}
	return good
}

var absent = regexp.MustCompile(`open (\S+): no such file or directory`)

// elsewhere is the file that a problem is about, where it is only that this
// machine, which need not be the gateway's, lacks it.
func elsewhere(problem string) string {
	if match := absent.FindStringSubmatch(problem); match != nil {
		return match[1]
	}
	return ""
}

var titles = map[string]string{
	"Redis": "redis: {addresses: [\"redis:6379\"]}",
	"Auth":  "auth: {addresses: [\"http://authsvc:9000/auth\"]}",
	"Limit": "limits: [{name: per-user, key: user, limit: 100, window: 60s}]",
	"TLS":   "tls: {enabled: true}",
}

// shapes finds maps where lists are needed and the like, which decoding with weak
// types turns into something else, and returns their paths.
func shapes(n *yaml.Node, t reflect.Type, path string, say func(int, string)) (misshapen []string) {
	for key, v := range pairs(n) {
		f, known := t.FieldByNameFunc(func(name string) bool { return strings.EqualFold(name, key.Value) })
		at := path + key.Value
		if !known && v.Tag == "!!null" {
			// `limit: 100,000` in braces is a limit of 100 and this; the plugin sees the 100 alone.
			say(key.Line, at+": unknown key without a value, which Traefik leaves out in silence"+comma(key.Value))
		}
		if !known || f.Type.Kind() == reflect.Map || v.Tag == "!!null" {
			continue
		}
		wrong := func(format string, args ...any) {
			misshapen = append(misshapen, at)
			say(key.Line, at+": "+fmt.Sprintf(format, args...))
		}
		switch element := f.Type; {
		case element.Kind() == reflect.String:
			if v.Kind != yaml.ScalarNode {
				wrong("is %s, where one value is needed", kindOf(v))
			}
		case element.Elem().Kind() == reflect.String:
			if v.Kind == yaml.MappingNode {
				wrong("is a map, where a list is needed: begin each item with - ")
			}
		case element.Elem().Kind() == reflect.Struct && key.Value != "limits":
			name := element.Elem().Name()
			switch {
			case v.Kind == yaml.ScalarNode && v.Value != "":
				wrong("is %s, where a map is needed, such as %s", kindOf(v), titles[name])
			case v.Kind == yaml.MappingNode:
				misshapen = append(misshapen, shapes(v, element.Elem(), at+".", say)...)
			}
		case element.Elem().Kind() == reflect.Struct:
			switch {
			case v.Kind == yaml.MappingNode && len(v.Content) > 0:
				wrong("is a map, where a list is needed: begin each limit with - , such as %s", titles["Limit"])
			case v.Kind == yaml.ScalarNode && v.Value != "":
				wrong("is %s, where a list is needed, such as %s", kindOf(v), titles["Limit"])
			}
			for i, item := range v.Content {
				if v.Kind == yaml.SequenceNode {
					misshapen = append(misshapen, shapes(item, element.Elem(), fmt.Sprintf("%s[%d].", at, i), say)...)
				}
			}
		}
	}
	return misshapen
}

var digits = regexp.MustCompile(`^[0-9]+$`)

// comma says why digits are a key.
func comma(key string) string {
	if digits.MatchString(key) {
		return "; a number is written without commas"
	}
	return ""
}

var goName = regexp.MustCompile(`(?s)^.*error\(s\) decoding:\s*`)

// decode takes one middleware's configuration through both decoders of Traefik
// and returns what the plugin says of the result.
func decode(raw any) []string {
	config, err := decoded(raw)
	if err != nil {
		return []string{fmt.Sprintf("Traefik cannot decode it, so the routes that use it are not installed: %s", goName.ReplaceAllString(err.Error(), ""))}
	}
	return config.Problems()
}

func decoded(raw any) (*plugin.Config, error) {
	config := plugin.CreateConfig()
	flat, err := flatten(raw)
	if err != nil {
		return nil, err
	}
	return config, dynconf.Decode(flat, config)
}

// flatten gives the configuration the shape that the file provider gives it:
// scalars become strings, and `[]` and `{}` become "". The provider's own
// decoder does it, on a file that holds nothing else, since it refuses fields
// that its target lacks.
func flatten(raw any) (map[string]any, error) {
	content, err := yaml.Marshal(map[string]any{"plugin": map[string]any{PluginName: raw}})
	if err != nil {
		return nil, err
	}
	var holder struct {
		Plugin map[string]map[string]any `yaml:"plugin" file:"allowEmpty"`
	}
	if err := file.DecodeContent(string(content), ".yaml", &holder); err != nil {
		return nil, err
	}
	return holder.Plugin[PluginName], nil
}
