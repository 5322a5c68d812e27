package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/cmd/sluice/check"
	"github.com/sluice-gateway/sluice/traefik/build"
)

// project loads compose.yaml as `docker compose` does, schema check included.
// Arguments with = are its environment, the others files of it.
func project(t *testing.T, arguments ...string) *types.Project {
	t.Helper()
	env := []string{"SLUICE_DOMAIN=api.example.com", "SLUICE_ACME_EMAIL=ops@example.com", "SLUICE_CERTIFICATES=./certificates"}
	var files []string
	for _, argument := range arguments {
		if strings.Contains(argument, "=") {
			env = append(env, argument)
		} else {
			files = append(files, argument)
		}
	}
	options, err := cli.NewProjectOptions(files, cli.WithWorkingDirectory(".."), cli.WithProfiles([]string{"*"}), cli.WithDefaultProfiles("*"), cli.WithEnv(env))
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// TestCompose holds compose.yaml to what a container of the stack may do.
func TestCompose(t *testing.T) {
	for _, files := range [][]string{{"../compose.yaml"}, {"../compose.yaml", "../compose.compiled.yaml"}, {"../compose.yaml", "../compose.acme.yaml"}} {
		loaded := project(t, files...)
		for name, service := range loaded.Services {
			if !service.ReadOnly || service.Privileged || !slices.Equal(service.CapDrop, []string{"ALL"}) || len(service.CapAdd) > 0 ||
				!slices.Equal(service.SecurityOpt, []string{"no-new-privileges:true"}) {
				t.Errorf("%s: not closed", name)
			}
			if service.Build == nil && (!strings.Contains(service.Image, ":") || strings.HasSuffix(service.Image, ":latest")) {
				t.Errorf("%s: image %q has no pinned tag", name, service.Image)
			}
			for _, port := range service.Ports {
				if name != "lb" && port.HostIP != "127.0.0.1" {
					t.Errorf("%s: port %s is published", name, port.Published)
				}
			}
			for network := range service.Networks {
				if outside := !loaded.Networks[network].Internal; outside && !slices.Contains([]string{"lb", "grafana", "acme"}, name) {
					t.Errorf("%s: on %s, which has a way out", name, network)
				}
			}
		}
	}
}

// Where authsvc runs apart from those who use its admin listener, its
// environment opens that: by itself it is for authsvc's own machine.
func TestAdminListenerIsOpened(t *testing.T) {
	var composed, pod []string
	for name, value := range project(t, "../compose.yaml").Services["authsvc"].Environment {
		composed = append(composed, name+"="+*value)
	}
	for _, document := range documents(t, "../deploy/kubernetes/authsvc.yaml") {
		var set struct {
			Kind string
			Spec struct {
				Template struct {
					Spec struct {
						Containers []struct {
							Env []struct{ Name, Value string }
						}
					}
				}
			}
		}
		if err := yaml.Unmarshal(document, &set); err != nil {
			t.Fatal(err)
		}
		for _, container := range set.Spec.Template.Spec.Containers {
			for _, variable := range container.Env {
				if variable.Value != "" { // else it is the setting of the kustomization
					pod = append(pod, variable.Name+"="+variable.Value)
				}
			}
		}
	}
	for where, environ := range map[string][]string{"compose.yaml": composed, "kubernetes": pod} {
		options, err := config.Load(nil, environ)
		if err != nil || options.AdminListen != ":9001" {
			t.Errorf("%s: adminListen %q, want :9001; %v", where, options.AdminListen, err)
		}
	}
}

// TestBalancerIsBelieved compares the address that compose.yaml fixes for the
// balancer with the one whose PROXY lines the gateways believe.
func TestBalancerIsBelieved(t *testing.T) {
	loaded := project(t, "../compose.yaml")
	front := loaded.Networks["front"].Ipam.Config[0]
	address := loaded.Services["lb"].Networks["front"].Ipv4Address
	static := mapping(t, "../traefik/traefik.yml")
	for _, point := range []string{"balancedweb", "balancedwebsecure"} {
		believed := static["entryPoints"].(map[string]any)[point].(map[string]any)["proxyProtocol"].(map[string]any)["trustedIPs"]
		if want := []any{address + "/32"}; !reflect.DeepEqual(believed, want) {
			t.Errorf("%s believes %v, the balancer is %s", point, believed, address)
		}
	}
	if front.IPRange == "" || front.IPRange == front.Subnet {
		t.Errorf("network front gives out %q, the balancer's address among them", front.IPRange)
	}
}

// TestKubernetesIsAsClosed compares the static configuration with the
// containers': the same, less the entry points of our own balancer and the
// source of routes.
func TestKubernetesIsAsClosed(t *testing.T) {
	report, err := check.Check(check.Options{Static: "../deploy/kubernetes/traefik.yml", Getenv: os.Getenv})
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("%v %v", err, report.Findings)
	}
	got, want := mapping(t, "../deploy/kubernetes/traefik.yml"), mapping(t, "../traefik/traefik.yml")
	for _, point := range []string{"balancedweb", "balancedwebsecure"} {
		delete(want["entryPoints"].(map[string]any), point)
	}
	delete(want, "providers")
	delete(got, "providers")
	if !reflect.DeepEqual(got, want) {
		t.Errorf("static configurations differ:\n%v\n%v", got, want)
	}
}

// action is one of the file provider's templates.
var action = regexp.MustCompile(`\{\{.*?\}\}`)

// TestKubernetesRoutes compares routes, limits and middlewares with fast.yml.
func TestKubernetesRoutes(t *testing.T) {
	content, err := os.ReadFile("../traefik/fast.yml")
	if err != nil {
		t.Fatal(err)
	}
	var shipped struct {
		HTTP struct {
			Routers map[string]struct {
				Rule        string
				Priority    int
				Middlewares []string
				Service     string
			}
			Middlewares map[string]map[string]any
		}
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		if !strings.HasPrefix(line, "{{-") {
			lines = append(lines, action.ReplaceAllString(line, "x"))
		}
	}
	if err := yaml.Unmarshal([]byte(strings.Join(lines, "")), &shipped); err != nil {
		t.Fatal(err)
	}

	type route struct {
		Rule        string
		Priority    int
		Middlewares string
		Service     string
	}
	readiness := ""
	var want, got []route
	for name, r := range shipped.HTTP.Routers {
		if name != "redirect" && name != "acme" && name != "ready" { // a cluster has its own client of ACME
			want = append(want, route{r.Rule, r.Priority, strings.Join(r.Middlewares, " "), r.Service})
		}
	}
	middlewares := map[string]any{}
	for _, document := range documents(t, "../deploy/kubernetes/routes.yaml") {
		var object struct {
			Kind     string
			Metadata struct{ Name string }
			Spec     struct {
				EntryPoints []string `yaml:"entryPoints"`
				Routes      []struct {
					Match                 string
					Priority              int
					Middlewares, Services []struct{ Name string }
				}
			}
		}
		var spec struct{ Spec map[string]any }
		if err := errors.Join(yaml.Unmarshal(document, &object), yaml.Unmarshal(document, &spec)); err != nil {
			t.Fatal(err)
		}
		switch {
		case object.Kind == "Middleware":
			middlewares[object.Metadata.Name] = spec.Spec
		case object.Kind == "IngressRoute" && object.Metadata.Name == "ready":
			readiness = fmt.Sprint(object.Spec.EntryPoints, object.Spec.Routes)
		case object.Kind == "IngressRoute" && object.Metadata.Name == "api":
			for _, r := range object.Spec.Routes {
				var names []string
				for _, middleware := range r.Middlewares {
					names = append(names, middleware.Name)
				}
				got = append(got, route{r.Match, r.Priority, strings.Join(names, " "), r.Services[0].Name})
			}
		}
	}
	byRule := func(a, b route) int { return strings.Compare(a.Rule, b.Rule) }
	slices.SortFunc(want, byRule)
	slices.SortFunc(got, byRule)
	if !slices.Equal(got, want) {
		t.Errorf("routes differ:\n%v\n%v", got, want)
	}
	if want := "[ping] [{Path(`/readyz`) 0 [] [{ping@internal}]}]"; readiness != want {
		t.Errorf("readiness is %s, want %s", readiness, want)
	}

	for name, middleware := range shipped.HTTP.Middlewares {
		got, want := any(middlewares[name]), any(middleware)
		if _, ours := middleware["plugin"]; ours {
			got, want = limits(got), limits(want)
		}
		if name == "redirect" { // the port is the cluster's Service's own
			delete(middleware["redirectScheme"].(map[string]any), "port")
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("middleware %s differs:\n%v\n%v", name, got, want)
		}
	}

	dynamic, err := yaml.Marshal(map[string]any{"http": map[string]any{"middlewares": middlewares}})
	if err != nil {
		t.Fatal(err)
	}
	password := filepath.Join(t.TempDir(), "password") // check reads it, as the plugin will
	file := filepath.Join(t.TempDir(), "dynamic.yml")
	dynamic = bytes.ReplaceAll(dynamic, []byte("/run/secrets/sluice/redis-gateway"), []byte(password))
	if err := errors.Join(os.WriteFile(password, []byte("secret"), 0o600), os.WriteFile(file, dynamic, 0o600)); err != nil {
		t.Fatal(err)
	}
	report, err := check.Check(check.Options{Names: []string{file}, Here: true, Getenv: os.Getenv})
	if err != nil || len(report.Findings) > 0 {
		t.Errorf("%v %v", err, report.Findings)
	}
}

// TestKubernetesResources holds the custom resources to Traefik's own definitions
// of them: those that the module of the very Traefik that is deployed comes with
// and a cluster is given. Traefik's types in Go, which they are generated from,
// would bring Traefik's replace directives into this module. As an API server
// that is told to be strict, the test refuses fields that are not defined.
func TestKubernetesResources(t *testing.T) {
	definitions := customResources(t)
	checked := map[string]int{}
	validate := func(document []byte) error {
		var object struct {
			APIVersion string `yaml:"apiVersion"`
			Kind       string
		}
		var tree any
		if err := errors.Join(yaml.Unmarshal(document, &object), yaml.Unmarshal(document, &tree)); err != nil {
			return err
		}
		if !strings.HasPrefix(object.APIVersion, "traefik.io/") {
			return nil
		}
		schema := definitions[object.APIVersion+" "+object.Kind]
		if schema == nil {
			return fmt.Errorf("no %s of %s is defined by Traefik", object.Kind, object.APIVersion)
		}
		checked[object.Kind]++
		return schema.Validate(plain(t, tree))
	}
	for _, document := range documents(t, "../deploy/kubernetes/routes.yaml") {
		if err := validate(document); err != nil {
			t.Errorf("%v in\n%s", err, document)
		}
	}
	for _, kind := range []string{"Middleware", "IngressRoute", "ServersTransport", "TLSOption", "TLSStore"} {
		if checked[kind] == 0 {
			t.Errorf("no %s was checked", kind)
		}
	}
	// What must not pass.
	for _, wrong := range []string{
		"{apiVersion: traefik.io/v1alpha1, kind: IngressRoute, metadata: {name: a}, spec: {entryPoints: web, routes: []}}",
		"{apiVersion: traefik.io/v1alpha1, kind: IngressRoute, metadata: {name: a}, spec: {routes: [{kind: Rule, match: x, priority: high}]}}",
		"{apiVersion: traefik.io/v1alpha1, kind: IngressRoute, metadata: {name: a}, spec: {routes: [{kind: Rule}]}}",
		"{apiVersion: traefik.io/v1alpha1, kind: IngressRoute, metadata: {name: a}, spec: {routes: [{kind: Regel, match: x}]}}",
		"{apiVersion: traefik.io/v1alpha1, kind: IngressRoute, metadata: {name: a}, spec: {routes: [], middleware: []}}",
		"{apiVersion: traefik.io/v1alpha1, kind: Middleware, metadata: {name: a}, spec: {buffering: {maxRequestBytes: 1}}}",
		"{apiVersion: traefik.io/v1alpha1, kind: Middlewares, metadata: {name: a}, spec: {}}",
		"{apiVersion: traefik.io/v1, kind: Middleware, metadata: {name: a}, spec: {}}",
	} {
		if validate([]byte(wrong)) == nil {
			t.Errorf("accepted: %s", wrong)
		}
	}
}

// customResources are the schemas of Traefik's definitions, by version and kind.
func customResources(t *testing.T) map[string]*jsonschema.Schema {
	t.Helper()
	download := exec.Command("go", "mod", "download", "-json", "github.com/traefik/traefik/v3@v"+build.Version)
	download.Dir = t.TempDir()
	download.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	out, err := download.Output()
	var module struct{ Dir, Error string }
	if err := errors.Join(err, json.Unmarshal(out, &module)); err != nil {
		t.Fatalf("%v: %s", err, module.Error)
	}
	schemas := map[string]*jsonschema.Schema{}
	for _, document := range documents(t, filepath.Join(module.Dir, "docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml")) {
		var definition struct {
			Spec struct {
				Group    string
				Names    struct{ Kind string }
				Versions []struct {
					Name   string
					Schema struct {
						OpenAPI any `yaml:"openAPIV3Schema"`
					}
				}
			}
		}
		if err := yaml.Unmarshal(document, &definition); err != nil {
			t.Fatal(err)
		}
		for _, version := range definition.Spec.Versions {
			name := definition.Spec.Group + "/" + version.Name + " " + definition.Spec.Names.Kind
			compiler := jsonschema.NewCompiler()
			if err := compiler.AddResource("definition.json", plain(t, strict(version.Schema.OpenAPI, true))); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if schemas[name], err = compiler.Compile("definition.json"); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
	}
	return schemas
}

// strict forbids what a definition does not name, except for metadata, whose
// fields are Kubernetes's own, and where a definition keeps what it does not
// know.
func strict(schema any, top bool) any {
	node, ok := schema.(map[string]any)
	if !ok {
		return schema
	}
	properties, described := node["properties"].(map[string]any)
	for name, property := range properties {
		if !top || name != "metadata" {
			properties[name] = strict(property, false)
		}
	}
	if _, free := node["additionalProperties"]; described && !free && node["x-kubernetes-preserve-unknown-fields"] != true {
		node["additionalProperties"] = false
	}
	for _, name := range []string{"items", "additionalProperties"} {
		if node[name] != nil {
			node[name] = strict(node[name], false)
		}
	}
	return node
}

// plain is a tree as JSON has it, without YAML's types of numbers.
func plain(t *testing.T, tree any) any {
	t.Helper()
	content, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	return value
}

// TestKubernetesFiles finds every file that the kustomization names, and every
// file named.
func TestKubernetesFiles(t *testing.T) {
	var kustomization struct {
		Resources          []string
		ConfigMapGenerator []struct{ Files []string } `yaml:"configMapGenerator"`
	}
	content, err := os.ReadFile("../deploy/kubernetes/kustomization.yaml")
	if err == nil {
		err = yaml.Unmarshal(content, &kustomization)
	}
	if err != nil {
		t.Fatal(err)
	}
	named := append([]string{"kustomization.yaml"}, kustomization.Resources...)
	for _, generator := range kustomization.ConfigMapGenerator {
		named = append(named, generator.Files...)
	}
	for _, name := range named {
		if _, err := os.Stat(filepath.Join("../deploy/kubernetes", name)); err != nil {
			t.Error(err)
		}
	}
	files, err := os.ReadDir("../deploy/kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !slices.Contains(named, file.Name()) {
			t.Errorf("%s is named nowhere", file.Name())
		}
	}
}

// limits are those of a middleware with the plugin.
func limits(middleware any) any {
	m, _ := middleware.(map[string]any)
	plugin, _ := m["plugin"].(map[string]any)
	sluice, _ := plugin["sluice"].(map[string]any)
	return sluice["limits"]
}

func mapping(t *testing.T, file string) (tree map[string]any) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(content, &tree)
	}
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// documents splits a file of several.
func documents(t *testing.T, file string) (all [][]byte) {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var tree any
		if err := decoder.Decode(&tree); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		document, err := yaml.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, document)
	}
}

// What the Dockerfile compiles is in the context that .dockerignore leaves, down
// to the last package: else the image fails to build, in front of a user.
func TestBuildContextIsWhole(t *testing.T) {
	ignore, err := os.ReadFile("../.dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	var kept []string
	for _, line := range strings.Split(string(ignore), "\n") {
		if part, ok := strings.CutPrefix(line, "!"); ok {
			kept = append(kept, part)
		}
	}
	list := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", "./cmd/...", "./services/cmd/upstream", "./deploy/secrets")
	list.Dir = ".."
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	ours := 0
	for _, path := range strings.Fields(string(out)) {
		folder, ok := strings.CutPrefix(path, "github.com/sluice-gateway/sluice/")
		if !ok {
			continue
		}
		ours++
		if !slices.ContainsFunc(kept, func(part string) bool { return folder == part || strings.HasPrefix(folder, part+"/") }) {
			t.Errorf("%s is compiled, but .dockerignore leaves it out", folder)
		}
	}
	if ours == 0 {
		t.Error("none of our packages is compiled")
	}
}
