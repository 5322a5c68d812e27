package check

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice/plugin"
)

// traefik.json holds every field that Traefik's configuration has: a struct by its
// keys, a map by the key "*", a list by its element, a scalar by its kind. It is
// written, and compared, by test/traefik_test.go from Traefik's own types.
//
//go:embed traefik.json
var traefikJSON []byte

var schemas = readSchemas()

func readSchemas() map[string]any {
	var all map[string]any
	if err := json.Unmarshal(traefikJSON, &all); err != nil {
		panic(err) // embedded
	}
	return all
}

var templated = regexp.MustCompile(`\{\{|\$\{`)

// fields compares a tree with the fields that Traefik has. One that it does not
// know, or of the wrong shape, makes it drop the whole file.
func (r *Report) fields(d *document, n *yaml.Node, schema any, path string) {
	at := strings.TrimPrefix(path, ".")
	wrong := func(n *yaml.Node, format string, args ...any) {
		r.error(d, n.Line, "%s: %s", at, fmt.Sprintf(format, args...))
	}
	if n.Tag == "!!null" {
		return
	}
	switch schema := schema.(type) {
	case map[string]any:
		if n.Kind == yaml.ScalarNode && (n.Value == "" || n.Value == "true" || n.Value == "false") && path != "" {
			return // Traefik's way to write an empty section in a label
		}
		if n.Kind != yaml.MappingNode {
			wrong(n, "is %s, where a map is needed", kindOf(n))
			return
		}
		each, isMap := schema["*"]
		for key, v := range pairs(n) {
			below, known := each, isMap
			if !isMap {
				for name, s := range schema {
					if strings.EqualFold(name, key.Value) {
						below, known = s, true
					}
				}
			}
			switch {
			case known:
				r.fields(d, v, below, path+"."+key.Value)
			case path == "" && d.kind == dynamicKind:
				r.error(d, key.Line, "%s: unknown section, which Traefik ignores in silence with all below it%s", key.Value, rightPlace(key.Value))
			default:
				r.error(d, key.Line, "%s: unknown key, so %s; known here: %s%s", strings.TrimPrefix(path+"."+key.Value, "."),
					d.consequence(), strings.Join(slices.Sorted(maps.Keys(schema)), ", "), suggest(key.Value, keys(schema)))
			}
		}
	case []any:
		switch {
		case n.Kind == yaml.SequenceNode:
			for i, item := range n.Content {
				r.fields(d, item, schema[0], fmt.Sprintf("%s[%d]", path, i))
			}
		case n.Kind == yaml.MappingNode:
			wrong(n, "is a map, where a list is needed: begin each item with - ")
		case d.kind == kubernetesKind:
			wrong(n, "is %s, where a list is needed: [%s]", kindOf(n), n.Value)
		default:
			if _, scalars := schema[0].(string); !scalars && n.Value != "" {
				wrong(n, "is %s, where a list of maps is needed: begin each item with - ", kindOf(n))
			}
		}
	case string:
		if schema == "any" {
			return
		}
		if n.Kind != yaml.ScalarNode {
			wrong(n, "is %s, where one value is needed", kindOf(n))
			return
		}
		if accepted := misread(schema, n.Value); accepted != "" && n.Value != "" && !templated.MatchString(n.Value) {
			wrong(n, "%q: %s", n.Value, accepted)
		}
	}
}

// rightPlace says where a key belongs that stands at the top of a file.
func rightPlace(key string) string {
	if near := suggest(key, dynamicKeys); near != "" {
		return near
	}
	if strings.EqualFold(key, "labels") {
		return "; labels stand under services.<name>.labels of a compose file"
	}
	if _, ours := reflect.TypeFor[plugin.Config]().FieldByNameFunc(func(name string) bool { return strings.EqualFold(name, key) }); ours {
		return "; keys of the plugin stand under http.middlewares.<name>.plugin." + PluginName
	}
	return ""
}

func (d *document) consequence() string {
	switch d.kind {
	case staticKind:
		return "Traefik does not start"
	case kubernetesKind:
		return "Kubernetes refuses or drops it"
	case composeKind:
		return "Traefik drops all labels of the container"
	default:
		return "Traefik drops the whole file"
	}
}

// misread says what to write instead of a value that is not of its kind.
func misread(kind, text string) string {
	var err error
	switch kind {
	case "bool":
		if _, err = strconv.ParseBool(text); err != nil {
			return "write true or false"
		}
	case "int":
		if _, err = strconv.ParseInt(text, 10, 64); err != nil {
			return "write a whole number"
		}
	case "float":
		if _, err = strconv.ParseFloat(text, 64); err != nil {
			return "write a number"
		}
	case "duration":
		if _, err = strconv.ParseInt(text, 10, 64); err == nil {
			return ""
		}
		if _, err = time.ParseDuration(text); err != nil {
			return "write a duration such as 500ms, 60s or 1h30m"
		}
	}
	return ""
}
