package sluice_test

import (
	"bytes"
	"errors"
	"io"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/cmd/sluice/check"
	"github.com/sluice-gateway/sluice/internal/docs"
)

func documents(t *testing.T) []*docs.Document {
	t.Helper()
	all, err := docs.Load(".")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func document(t *testing.T, name string) *docs.Document {
	t.Helper()
	d := docs.Find(documents(t), name)
	if d == nil {
		t.Fatalf("there is no %s", name)
	}
	return d
}

// block is a document's first of a kind.
func block(t *testing.T, name, kind string) string {
	t.Helper()
	for _, b := range document(t, name).Blocks() {
		if b.Kind() == kind {
			return b.Text
		}
	}
	t.Fatalf("%s has no block marked %q", name, kind)
	return ""
}

// TestDocsSnippets tries every block of the users' documents that can be tried
// without running it. What a block is stands behind its fence. Those marked
// console are run by test/docs; text is output and shows nothing else.
func TestDocsSnippets(t *testing.T) {
	tries := map[string]func(t *testing.T, text string) error{
		"yaml plugin":     tryPlugin,
		"yaml dynamic":    func(t *testing.T, text string) error { return tryFile(t, "dynamic.yml", text) },
		"yaml kubernetes": func(t *testing.T, text string) error { return tryFile(t, "resources.yml", text) },
		"yaml compose":    tryCompose,
		"yaml static":     tryStatic,
		"yaml authsvc":    tryAuthsvc,
		"yaml helm":       nil, // test/docs has Helm
		"yaml foreign":    func(_ *testing.T, text string) error { return tryYAML(text) },
		"console":         nil,
		"text":            nil,
		"mermaid":         nil,
	}
	for _, d := range documents(t) {
		if !d.ForUsers() {
			continue
		}
		for _, b := range d.Blocks() {
			try, known := tries[b.Kind()]
			if !known {
				t.Errorf("%s: %q says nothing that is known here of what the block is", b, b.Info)
			}
			if try == nil {
				continue
			}
			if err := try(t, b.Text); err != nil {
				t.Errorf("%s: %v\n%s", b, err, b.Text)
			}
		}
	}
}

// tryPlugin is for the configuration of one middleware. What a block leaves out
// of redis and auth, which stand in the reference, is filled in.
func tryPlugin(t *testing.T, text string) error {
	config := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	if config["redis"] == nil {
		config["redis"] = map[string]any{"addresses": []string{"redis:6379"}}
	}
	if config["auth"] == nil && config["trustUserHeader"] == nil {
		config["auth"] = map[string]any{"addresses": []string{"http://authsvc:9000/auth"}}
	}
	return tryTree(t, "dynamic.yml", map[string]any{"http": map[string]any{"middlewares": map[string]any{
		"gate": map[string]any{"plugin": map[string]any{check.PluginName: config}},
	}}})
}

// tryCompose is for a compose file, or for the labels of one service.
func tryCompose(t *testing.T, text string) error {
	config := map[string]any{}
	if err := yaml.Unmarshal([]byte(text), &config); err != nil {
		return err
	}
	if config["services"] == nil {
		config["image"] = "example"
		config = map[string]any{"services": map[string]any{"example": config}}
	}
	return tryTree(t, "compose.yaml", config)
}

// tryStatic is for sections of Traefik's static configuration; the others are
// those of the shipped file.
func tryStatic(t *testing.T, text string) error {
	shipped, err := os.ReadFile("traefik/traefik.yml")
	if err != nil {
		return err
	}
	config := map[string]any{}
	if err := errors.Join(yaml.Unmarshal(shipped, &config), yaml.Unmarshal([]byte(text), &config)); err != nil {
		return err
	}
	return tryTree(t, "static.yml", config)
}

func tryTree(t *testing.T, name string, tree map[string]any) error {
	text, err := yaml.Marshal(tree)
	if err != nil {
		return err
	}
	return tryFile(t, name, string(text))
}

// tryFile asks what `sluice check` says of a file.
func tryFile(t *testing.T, name, text string) error {
	options := check.Options{Getenv: environment}
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	if name == "static.yml" {
		options.Static = file
	} else {
		options.Names = []string{file}
	}
	report, err := check.Check(options)
	if err != nil {
		return err
	}
	var found []string
	for _, f := range report.Findings {
		found = append(found, f.String())
	}
	if len(found) > 0 {
		return errors.New(strings.Join(found, "\n"))
	}
	if len(report.Files) == 0 {
		return errors.New("nothing of Traefik's")
	}
	return nil
}

// environment is what templates of the shipped files ask for.
func environment(name string) string {
	return map[string]string{
		"SLUICE_REDIS": "redis:6379", "SLUICE_AUTHSVC": "http://authsvc:9000", "SLUICE_USERS": "http://users:8000",
		"SLUICE_PRODUCTS": "http://products:8000", "SLUICE_ORDERS": "http://orders:8000",
	}[name]
}

// tryAuthsvc loads a file as authsvc does, all but what only a start can tell.
func tryAuthsvc(t *testing.T, text string) error {
	file := filepath.Join(t.TempDir(), "authsvc.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return err
	}
	_, err := config.Load([]string{"--configFile=" + file}, nil)
	return err
}

func tryYAML(text string) error {
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for n := 0; ; n++ {
		var node yaml.Node
		switch err := decoder.Decode(&node); {
		case errors.Is(err, io.EOF) && n > 0:
			return nil
		case err != nil:
			return err
		}
	}
}

// TestDocsLinks follows every link that stays in the repository, anchors
// included.
func TestDocsLinks(t *testing.T) {
	all := documents(t)
	for _, d := range all {
		for _, link := range d.Links() {
			target, err := url.Parse(link.Target)
			if err != nil {
				t.Errorf("%s:%d: %v", d.Name, link.Line, err)
				continue
			}
			if target.Host != "" || target.Scheme != "" {
				continue
			}
			name := d.Name
			if target.Path != "" {
				name = path.Join(path.Dir(d.Name), target.Path)
			}
			if _, err := os.Stat(name); err != nil || strings.HasPrefix(name, "..") {
				t.Errorf("%s:%d: %s leads nowhere", d.Name, link.Line, link.Target)
				continue
			}
			if to := docs.Find(all, name); target.Fragment != "" && (to == nil || !slices.Contains(to.Anchors(), target.Fragment)) {
				t.Errorf("%s:%d: %s has no heading #%s", d.Name, link.Line, name, target.Fragment)
			}
		}
	}
}

// TestDocsExplainEveryAlert: whoever is called at night finds what to do.
func TestDocsExplainEveryAlert(t *testing.T) {
	rules, err := os.ReadFile("deploy/prometheus/alerts.yml")
	if err != nil {
		t.Fatal(err)
	}
	var alerts []string
	for _, match := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllSubmatch(rules, -1) {
		alerts = append(alerts, string(match[1]))
	}
	var explained []string
	for _, title := range document(t, "docs/operations.md").Headings() {
		if regexp.MustCompile(`^[A-Z][a-z]+[A-Z]\w+$`).MatchString(title) {
			explained = append(explained, title)
		}
	}
	if !slices.Equal(alerts, explained) {
		t.Errorf("docs/operations.md explains\n%q, the alerts are\n%q", explained, alerts)
	}
}

// source is the text of Go files, tests left out.
func source(t *testing.T, patterns ...string) []byte {
	t.Helper()
	var all bytes.Buffer
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(text)
		}
	}
	return all.Bytes()
}

// TestDocsNameMetrics: every figure that a document for users names is one.
func TestDocsNameMetrics(t *testing.T) {
	source := source(t, "authsvc/*.go", "authsvc/*/*.go")
	for _, name := range []string{"README.md", "SECURITY.md", "docs/*.md"} {
		files, err := filepath.Glob(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, match := range regexp.MustCompile("`(?:[a-z]+\\()?(authsvc|sluice_gateway)_([a-z_]+[a-z])\\b").FindAllStringSubmatch(string(text), -1) {
				whole, figure := `"`+match[1]+"_"+match[2]+`"`, `{"`+match[2]+`",`
				if !bytes.Contains(source, []byte(whole)) && (match[1] == "authsvc" || !bytes.Contains(source, []byte(figure))) {
					t.Errorf("%s: there is no figure %s", file, whole)
				}
			}
		}
	}
}

var tableCell = regexp.MustCompile("(?m)^\\| `+ ?(.+?) ?`+ \\|")

// TestDocsQuoteTheLog: what the tables of log lines quote is what is written;
// ... stands for what differs.
func TestDocsQuoteTheLog(t *testing.T) {
	source := source(t, "plugin/*.go", "plugin/*/*.go", "authsvc/*.go", "authsvc/*/*.go")
	d := document(t, "docs/troubleshooting.md")
	for _, title := range []string{"Of a gateway", "Of authsvc"} {
		lines := tableCell.FindAllStringSubmatch(strings.Join(d.Section(title), "\n"), -1)
		if len(lines) < 5 {
			t.Errorf("%q has %d lines of a log", title, len(lines))
		}
		for _, line := range lines {
			for _, part := range strings.Split(line[1], "...") {
				if part = strings.TrimSpace(part); !bytes.Contains(source, []byte(part)) {
					t.Errorf("%q: nothing writes %q", title, part)
				}
			}
		}
	}
}
