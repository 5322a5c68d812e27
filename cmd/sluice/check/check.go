// Package check finds, before Traefik starts, what Traefik would drop in
// silence or only log.
//
// A dynamic file goes the way that Traefik's file provider sends it: Go
// template with sprig, YAML or TOML, every scalar to a string, and each plugin
// middleware through mapstructure onto the plugin's Config. Then the plugin's
// own validation speaks, so that `sluice check`, `sluice up` and a running
// gateway complain in the same words (RULES 6). A static file is compared with
// what DESIGN section 9 demands of every entry point.
package check

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/template"
	"unicode"

	"github.com/BurntSushi/toml"
	"github.com/Masterminds/sprig/v3"
	"github.com/mitchellh/mapstructure"
	"github.com/traefik/paerser/file"
	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice/plugin"
)

// PluginName is what the shipped static configuration calls the plugin.
const PluginName = "sluice"

// A gateway tells by a router of its dynamic file, on its inner entry point, that
// the routes of that file are served. Traefik's own /ping answers earlier.
const (
	ReadyPath  = "/readyz"
	readyPoint = "ping"
)

// Report is what was found out about one dynamic file.
type Report struct {
	Middlewares []string // those that use the plugin, sorted
	Problems    []string // complete sentences with their path; none: the file is good
	Unset       []string // environment variables that the file asks for and does not get
	Ready       bool     // a router serves ReadyPath
}

// Dynamic checks a dynamic configuration file. Getenv answers the template's
// env; os.Getenv is the obvious choice. The error is for a file that cannot be
// read at all.
func Dynamic(name string, getenv func(string) string) (Report, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return Report{}, err
	}
	var report Report
	rendered, unset, err := render(content, getenv)
	report.Unset = unset
	if err != nil {
		report.Problems = []string{fmt.Sprintf("the template fails, so Traefik drops the whole file: %v", err)}
		return report, nil
	}
	tree, err := parse(filepath.Ext(name), rendered)
	if err != nil {
		report.Problems = []string{fmt.Sprintf("Traefik drops the whole file: %v", err)}
		return report, nil
	}
	report.Ready = ready(tree)
	configs, problems := plugins(tree)
	report.Problems = problems
	report.Middlewares = slices.Sorted(maps.Keys(configs))
	for _, name := range report.Middlewares {
		for _, problem := range decode(configs[name]) {
			report.Problems = append(report.Problems, fmt.Sprintf("middleware %q: %s", name, problem))
		}
	}
	if len(report.Middlewares) == 0 && len(report.Problems) == 0 {
		report.Problems = []string{fmt.Sprintf("no middleware uses the plugin %q, so nothing is protected or limited", PluginName)}
	}
	return report, nil
}

// render executes the file as a template with the functions that Traefik gives
// it, and notes which environment variables came out empty.
func render(content []byte, getenv func(string) string) (rendered []byte, unset []string, err error) {
	missing := map[string]bool{}
	functions := sprig.TxtFuncMap()
	functions["normalize"] = normalize
	functions["split"] = strings.Split
	functions["env"] = func(name string) string {
		value := getenv(name)
		missing[name] = value == ""
		return value
	}
	parsed, err := template.New("").Funcs(functions).Parse(string(content))
	if err != nil {
		return nil, nil, err
	}
	var out bytes.Buffer
	err = parsed.Execute(&out, false)
	maps.DeleteFunc(missing, func(_ string, empty bool) bool { return !empty })
	return out.Bytes(), slices.Sorted(maps.Keys(missing)), err
}

// normalize is Traefik's function of that name.
func normalize(name string) string {
	words := strings.FieldsFunc(name, func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsNumber(c) })
	return strings.Join(words, "-")
}

func parse(extension string, content []byte) (map[string]any, error) {
	tree := map[string]any{}
	switch strings.ToLower(extension) {
	case ".yml", ".yaml":
		return tree, yaml.Unmarshal(content, &tree)
	case ".toml":
		return tree, toml.Unmarshal(content, &tree)
	default:
		return nil, fmt.Errorf("the extension %q is neither .yml, .yaml nor .toml", extension)
	}
}

// ready looks for the router that the shipped files call ready.
func ready(tree map[string]any) bool {
	routers, _ := at(tree, "http", "routers").(map[string]any)
	for _, router := range routers {
		if at(router, "service") == "ping@internal" && strings.Contains(fmt.Sprint(at(router, "rule")), ReadyPath) &&
			slices.Contains(list(at(router, "entryPoints")), readyPoint) {
			return true
		}
	}
	return false
}

// plugins returns the raw configuration of every middleware that is ours.
func plugins(tree map[string]any) (configs map[string]any, problems []string) {
	configs = map[string]any{}
	middlewares, _ := at(tree, "http", "middlewares").(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(middlewares)) {
		uses, isPlugin := at(middlewares[name], "plugin").(map[string]any)
		config, ours := uses[PluginName]
		switch {
		case !isPlugin || !ours:
		case len(uses) > 1:
			problems = append(problems, fmt.Sprintf("middleware %q: names %d plugins; Traefik takes one a middleware", name, len(uses)))
		default:
			configs[name] = config
		}
	}
	return configs, problems
}

// at walks down nested maps by key, whose case Traefik ignores.
func at(tree any, path ...string) any {
	for _, key := range path {
		branch, ok := tree.(map[string]any)
		if !ok {
			return nil
		}
		tree = nil
		for name, value := range branch {
			if strings.EqualFold(name, key) {
				tree = value
			}
		}
	}
	return tree
}

// decode takes one middleware's configuration through both decoders of Traefik
// and returns what the plugin says of the result.
func decode(raw any) []string {
	config := plugin.CreateConfig()
	flat, err := flatten(raw)
	if err != nil {
		return []string{err.Error()}
	}
	decoder, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		DecodeHook:       mapstructure.StringToSliceHookFunc(","),
		WeaklyTypedInput: true,
		Result:           config,
	})
	if err != nil {
		return []string{err.Error()}
	}
	if err := decoder.Decode(flat); err != nil {
		return []string{fmt.Sprintf("Traefik cannot decode it, so the routes that use it are not installed: %v", err)}
	}
	return config.Problems()
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
