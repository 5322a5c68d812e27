package check

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
	"go.yaml.in/yaml/v3"
)

// kind is what a file is for.
type kind int

const (
	otherKind kind = iota
	dynamicKind
	staticKind
	kubernetesKind
	composeKind
	authsvcKind
)

// document is one file, or one resource of a file of several.
type document struct {
	name   string // of the file, for people
	path   string
	kind   kind
	found  bool // in a folder, rather than named
	root   *yaml.Node
	schema any
	flags  []*yaml.Node // static configuration by flags, of compose services
	getenv func(string) string
}

const standardInput = "(standard input)"

// read reads everything that is named.
func (r *Report) read(o Options) ([]*document, error) {
	var documents []*document
	add := func(name string, content []byte, found bool, as kind) {
		documents = append(documents, r.parse(name, content, found, as, o.Getenv)...)
	}
	for _, name := range o.Names {
		if name == "-" {
			content, err := io.ReadAll(o.Stdin)
			if err != nil {
				return nil, err
			}
			add(standardInput, content, false, otherKind)
			continue
		}
		err := filepath.WalkDir(name, func(path string, entry fs.DirEntry, err error) error {
			switch found := path != name; {
			case err != nil:
				return err
			case entry.IsDir() && found && strings.HasPrefix(entry.Name(), "."):
				return fs.SkipDir
			case entry.IsDir() && found && entry.Name() == "templates" && isChart(filepath.Dir(path)):
				return fs.SkipDir // no YAML yet: `helm template CHART | sluice check -` tries what it makes
			case entry.IsDir() || found && !slices.Contains([]string{".yml", ".yaml", ".toml"}, filepath.Ext(path)):
				return nil
			default:
				content, err := os.ReadFile(path)
				if err == nil {
					add(path, content, found, otherKind)
				}
				return err
			}
		})
		if err != nil {
			return nil, err
		}
	}
	if o.Static != "" {
		content, err := os.ReadFile(o.Static)
		if err != nil {
			return nil, err
		}
		// What else static there was in the folders is somebody else's.
		documents = slices.DeleteFunc(documents, func(d *document) bool { return d.kind == staticKind && (d.found || d.path == o.Static) })
		add(o.Static, content, false, staticKind)
	}
	return documents, nil
}

// isChart tells whether the folder is a Helm chart.
func isChart(folder string) bool {
	_, err := os.Stat(filepath.Join(folder, "Chart.yaml"))
	return err == nil
}

// Keys at the top that tell what a file is.
var (
	dynamicKeys = []string{"http", "tcp", "udp", "tls"}
	staticKeys  = []string{"entryPoints", "providers", "global", "api", "log", "accessLog", "metrics", "ping", "tracing", "experimental",
		"certificatesResolvers", "serversTransport", "tcpServersTransport", "hostResolver", "core", "spiffe", "ocsp"}
	authsvcKeys = []string{"issuers", "own", "sessions", "adminListen", "tokens", "claims", "cache", "listen", "redis"}
	topLevel    = regexp.MustCompile(`(?m)^(?:["']?([A-Za-z]\w*)["']?\s*[:=]|\[+\s*["']?(\w+))`)
)

// sniff tells by its top level what a file is, before it is known whether it is a
// template: only a dynamic file is one.
func sniff(content []byte) (kind, []string) {
	var top []string
	has := func(names ...string) bool {
		return slices.ContainsFunc(top, func(t string) bool {
			return slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(t, n) })
		})
	}
	for _, match := range topLevel.FindAllSubmatch(content, -1) {
		top = append(top, string(match[1])+string(match[2]))
	}
	switch {
	case has("apiVersion") && has("kind"):
		return kubernetesKind, top
	case has(dynamicKeys...):
		return dynamicKind, top
	case has("services"):
		return composeKind, top
	case has("limits", "auth"): // the plugin's, without what belongs around them
		return otherKind, top
	case has(authsvcKeys...):
		return authsvcKind, top
	case has(staticKeys...):
		return staticKind, top
	default:
		return otherKind, top
	}
}

// parse makes documents of one file.
func (r *Report) parse(name string, content []byte, found bool, as kind, getenv func(string) string) []*document {
	d := &document{name: name, path: name, kind: as, found: found, getenv: getenv}
	if !found && len(bytes.TrimSpace(content)) == 0 {
		r.error(d, 0, "is empty, so there is nothing to check; did the command that writes it fail?")
		return []*document{d.empty()}
	}
	top := []string(nil)
	if as == otherKind {
		d.kind, top = sniff(content)
	}
	if d.kind == otherKind {
		// A slip of the pen in http would make Traefik ignore everything below.
		slip := slices.ContainsFunc(top, func(t string) bool { return suggest(t, dynamicKeys) != "" })
		if found && !slip {
			r.Skipped = append(r.Skipped, name+": nothing of Traefik's")
			return nil
		}
		d.kind = dynamicKind
	}
	isTOML := filepath.Ext(name) == ".toml" || name == standardInput && regexp.MustCompile(`(?m)^\s*\[`).Match(content)
	if ext := filepath.Ext(name); name != standardInput && !slices.Contains([]string{".yml", ".yaml", ".toml"}, ext) {
		r.error(d, 0, "Traefik does not read it: the extension %q is neither .yml, .yaml nor .toml", ext)
		return []*document{d.empty()}
	}
	source := func(line int) int { return line }
	if d.kind == dynamicKind {
		rendered, lines, unset, err := render(content, getenv)
		for _, name := range unset {
			if !slices.Contains(r.Unset, name) {
				r.Unset = append(r.Unset, name)
			}
		}
		if err != nil {
			r.error(d, lineIn(err, `template: :(\d+)`), "the template fails, so Traefik drops the whole file: %v", err)
			return []*document{d.empty()}
		}
		content = rendered
		source = func(line int) int {
			if 0 < line && line <= len(lines) {
				return lines[line-1]
			}
			return line
		}
	}
	var documents []*document
	var err error
	if isTOML {
		documents, err = d.parseTOML(content)
	} else {
		documents, err = d.parseYAML(content)
	}
	if err != nil {
		r.unreadable(d, content, source, err)
		return []*document{d.empty()}
	}
	var kept []*document
	for i, d := range documents {
		renumber(d.root, source)
		switch {
		case i > 0 && (d.kind == dynamicKind || d.kind == staticKind):
			r.error(d, d.root.Line, "Traefik reads a file up to the first ---; this and all below is ignored: write it into a file of its own, or remove the ---")
			continue
		case d.root.Kind != yaml.MappingNode && d.kind != kubernetesKind:
			r.error(d, d.root.Line, "holds %s, where a map is needed that begins with http:", kindOf(d.root))
			d.empty()
		}
		d.schema = schemas[map[kind]string{dynamicKind: "dynamic", staticKind: "static"}[d.kind]]
		if d.kind == composeKind {
			d.flags = flagsOf(d.root)
		}
		kept = append(kept, d)
	}
	switch d.kind {
	case dynamicKind, composeKind, kubernetesKind:
		r.Files = append(r.Files, name)
	case authsvcKind:
		r.Skipped = append(r.Skipped, name+": of authsvc, which checks it itself at its start")
		r.authsvc = append(r.authsvc, name)
	}
	return kept
}

func (d *document) empty() *document {
	d.root = mapping(0)
	d.schema = schemas["dynamic"]
	return d
}

func (d *document) parseYAML(content []byte) ([]*document, error) {
	var documents []*document
	for decoder := yaml.NewDecoder(bytes.NewReader(content)); ; {
		var node yaml.Node
		err := decoder.Decode(&node)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		var tree any // this, not the node, finds keys that are there twice, and bombs of aliases
		if err := node.Decode(&tree); err != nil {
			return nil, err
		}
		if tree == nil {
			continue
		}
		one := *d
		one.root = expand(&node)
		documents = append(documents, &one)
	}
	if len(documents) == 0 && d.kind != kubernetesKind {
		documents = []*document{d.empty()}
	}
	return documents, nil
}

func (d *document) parseTOML(content []byte) ([]*document, error) {
	tree := map[string]any{}
	if err := toml.Unmarshal(content, &tree); err != nil {
		return nil, err
	}
	d.root = &yaml.Node{}
	if err := d.root.Encode(tree); err != nil {
		return nil, err
	}
	d.root = expand(d.root)
	number(d.root, content)
	return []*document{d}, nil
}

var (
	tomlTable = regexp.MustCompile(`^\s*\[+([^\]]+)\]`)
	tomlKey   = regexp.MustCompile(`^\s*([\w.\-"']+)\s*=`)
)

// number looks up the lines of a TOML file, whose parser keeps them to itself. A
// list of tables counts on at each [[name]].
func number(root *yaml.Node, content []byte) {
	items := map[string]int{}
	prefix := ""
	for i, text := range strings.Split(string(content), "\n") {
		path := ""
		if match := tomlTable.FindStringSubmatch(text); match != nil {
			prefix = strings.TrimSpace(match[1])
			if strings.HasPrefix(strings.TrimSpace(text), "[[") {
				items[prefix]++
				prefix = fmt.Sprintf("%s[%d]", prefix, items[prefix]-1)
			} else {
				for list, n := range items { // a table of the list's last item
					if rest, below := strings.CutPrefix(prefix, list+"."); below {
						prefix = fmt.Sprintf("%s[%d].%s", list, n-1, rest)
					}
				}
			}
			path = prefix
		} else if match := tomlKey.FindStringSubmatch(text); match != nil {
			path = strings.TrimPrefix(prefix+"."+match[1], ".")
		}
		if path != "" {
			numberPath(root, strings.NewReplacer(`"`, "", `'`, "").Replace(path), i+1)
		}
	}
	inherit(root, 1)
}

// inherit gives what has no line that of what it belongs to.
func inherit(n *yaml.Node, line int) {
	if n.Line == 0 {
		n.Line = line
	}
	for i, c := range n.Content {
		above := n.Line
		if n.Kind == yaml.MappingNode && i%2 == 1 {
			above = n.Content[i-1].Line
		}
		inherit(c, above)
	}
}

func numberPath(n *yaml.Node, path string, line int) {
	for _, word := range step.FindAllString(path, -1) {
		if index, isItem := strings.CutPrefix(word, "["); isItem {
			i, _ := strconv.Atoi(strings.TrimSuffix(index, "]"))
			if n.Kind != yaml.SequenceNode || i >= len(n.Content) {
				return
			}
			n = n.Content[i]
		} else {
			next, key := field(n, word)
			if key == nil {
				return
			}
			if key.Line == 0 {
				key.Line = line
			}
			n = next
		}
		if n.Line == 0 {
			n.Line = line
		}
	}
}

// unreadable says what a parser's words mean.
func (r *Report) unreadable(d *document, content []byte, source func(int) int, err error) {
	line := source(lineIn(err, `line (\d+)`))
	drops := "Traefik drops the whole file"
	if d.kind == kubernetesKind || d.kind == composeKind {
		drops = "it cannot be read"
	}
	for i, text := range strings.Split(string(content), "\n") {
		if strings.HasPrefix(strings.TrimLeft(text, " "), "\t") && strings.TrimSpace(text) != "" && filepath.Ext(d.name) != ".toml" {
			r.error(d, source(i+1), "%s: the line is indented by a tab; YAML takes blanks alone", drops)
			return
		}
	}
	message := strings.TrimPrefix(err.Error(), "yaml: ")
	message = regexp.MustCompile(`^(unmarshal errors:\s*)?(toml: )?(line \d+:?\s*)?`).ReplaceAllString(message, "")
	message = regexp.MustCompile(`at line (\d+)`).ReplaceAllStringFunc(message, func(at string) string {
		n, _ := strconv.Atoi(strings.TrimPrefix(at, "at line "))
		return fmt.Sprintf("at line %d", source(n))
	})
	if strings.Contains(message, "mapping values are not allowed") {
		message += "; a value that holds `: ` needs quotes, and a key more blanks than the one it belongs to"
	}
	r.error(d, line, "%s: %s", drops, message)
}

func lineIn(err error, pattern string) int {
	if match := regexp.MustCompile(pattern).FindStringSubmatch(err.Error()); match != nil {
		n, _ := strconv.Atoi(match[1])
		return n
	}
	return 0
}

func before(s, sep string) string {
	s, _, _ = strings.Cut(s, sep)
	return s
}
