package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime/schema"
	serializer "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/cmd/sluice/check"
	"github.com/sluice-gateway/sluice/test/rendering"
	"github.com/sluice-gateway/sluice/traefik/build"
)

// manifests are what a cluster is given, by the kustomization or by the chart.
type manifests []rendering.Object

// settings are what both of them can be told, in the words of each.
type settings struct {
	edits  []string       // of kustomization.yaml: old text, new text
	values map[string]any // of the chart
}

var (
	shipped   settings
	monitored = settings{
		edits:  []string{"resources:\n", "components: [monitoring]\nresources:\n"},
		values: map[string]any{"prometheus": map[string]any{"serviceMonitor": map[string]any{"enabled": true}, "prometheusRule": map[string]any{"enabled": true}}},
	}
	prefixed = settings{edits: []string{"key-prefix=sluice", "key-prefix=shop"}, values: map[string]any{"keyPrefix": "shop"}}
)

func kustomization(t *testing.T, s settings) manifests {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "kubernetes/kustomization.yaml")
	if err := errors.Join(os.CopyFS(filepath.Join(dir, "kubernetes"), os.DirFS("../deploy/kubernetes")), os.CopyFS(filepath.Join(dir, "redis"), os.DirFS("../deploy/redis"))); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.NewReplacer(s.edits...).Replace(string(content))
	if edited == string(content) != (s.edits == nil) {
		t.Fatalf("the kustomization has nothing of %q", s.edits)
	}
	if err := os.WriteFile(file, []byte(edited), 0o600); err != nil {
		t.Fatal(err)
	}
	objects, err := rendering.Kustomization(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func fromChart(t *testing.T, values map[string]any) manifests {
	t.Helper()
	objects, err := rendering.Chart("../deploy/helm/sluice", "sluice", values)
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

// both runs a check on what the kustomization and the chart make of settings.
func both(t *testing.T, s settings, check func(t *testing.T, m manifests)) {
	t.Run("kustomization", func(t *testing.T) { check(t, kustomization(t, s)) })
	t.Run("chart", func(t *testing.T) { check(t, fromChart(t, s.values)) })
}

// find is the object of a kind and name. A kustomization puts a sum behind the
// names of its ConfigMaps.
func (m manifests) find(t *testing.T, kind, name string) rendering.Object {
	t.Helper()
	for _, object := range m {
		if object.Kind() == kind && plainName(object.Name()) == name {
			return object
		}
	}
	t.Fatalf("there is no %s %s", kind, name)
	return nil
}

var nameSum = regexp.MustCompile(`^(traefik|redis|settings)-[a-z0-9]{10}$`)

func plainName(name string) string { return nameSum.ReplaceAllString(name, "$1") }

// data is an entry of a ConfigMap.
func (m manifests) data(t *testing.T, name, key string) string {
	t.Helper()
	text, _ := m.find(t, "ConfigMap", name).At("data", key).(string)
	if text == "" {
		t.Fatalf("ConfigMap %s has no %s", name, key)
	}
	return text
}

// workloads are the objects that make pods, by name.
func (m manifests) workloads() map[string]rendering.Object {
	all := map[string]rendering.Object{}
	for _, object := range m {
		if object.At("spec", "template", "spec") != nil {
			all[object.Name()] = object
		}
	}
	return all
}

// into decodes a part of an object into a type that names what is looked at.
func into[T any](t *testing.T, part any) (typed T) {
	t.Helper()
	content, err := yaml.Marshal(part)
	if err = errors.Join(err, yaml.Unmarshal(content, &typed)); err != nil {
		t.Fatal(err)
	}
	return typed
}

// pod is what the checks look at of a pod's template.
type pod struct {
	AutomountServiceAccountToken *bool  `yaml:"automountServiceAccountToken"`
	ServiceAccountName           string `yaml:"serviceAccountName"`
	SecurityContext              struct {
		RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
		SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	Containers []struct {
		Image string
		Env   []struct {
			Name, Value string
			ValueFrom   struct {
				ConfigMapKeyRef struct{ Name, Key string } `yaml:"configMapKeyRef"`
			} `yaml:"valueFrom"`
		}
		Ports []struct {
			Name          string
			ContainerPort int `yaml:"containerPort"`
		}
		SecurityContext struct {
			AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
			Capabilities             struct{ Drop, Add []string }
		} `yaml:"securityContext"`
		VolumeMounts []struct {
			Name     string
			ReadOnly bool `yaml:"readOnly"`
		} `yaml:"volumeMounts"`
	}
	Volumes []struct {
		Name      string
		ConfigMap *struct{ Name string } `yaml:"configMap"`
		Secret    *struct {
			SecretName string `yaml:"secretName"`
		}
		PersistentVolumeClaim any `yaml:"persistentVolumeClaim"`
	}
}

// environ is a container's environment, with the entries of ConfigMaps.
func (m manifests) environ(t *testing.T, workload string) (all []string) {
	t.Helper()
	for _, container := range into[pod](t, m.workloads()[workload].At("spec", "template", "spec")).Containers {
		for _, variable := range container.Env {
			if from := variable.ValueFrom.ConfigMapKeyRef; from.Name != "" {
				variable.Value = m.data(t, plainName(from.Name), from.Key)
			}
			all = append(all, variable.Name+"="+variable.Value)
		}
	}
	return all
}

// options are what authsvc makes of its environment, and of its file where there
// is one.
func (m manifests) options(t *testing.T) *config.Config {
	t.Helper()
	var arguments []string
	if slices.ContainsFunc(m, func(o rendering.Object) bool { return o.Kind() == "ConfigMap" && o.Name() == "authsvc" }) {
		file := filepath.Join(t.TempDir(), "authsvc.yml")
		if err := os.WriteFile(file, []byte(m.data(t, "authsvc", "authsvc.yml")), 0o600); err != nil {
			t.Fatal(err)
		}
		arguments = append(arguments, "--configFile="+file)
	}
	options, err := config.Load(arguments, m.environ(t, "authsvc"))
	if err != nil {
		t.Fatal(err)
	}
	options.ConfigFile = ""
	return options
}

// TestChartIsTheKustomization: whoever installs by one has what the other would
// have made. They may differ in where authsvc's options stand, in the names of
// ConfigMaps and in the namespace.
func TestChartIsTheKustomization(t *testing.T) {
	for name, s := range map[string]settings{"shipped": shipped, "monitored": monitored, "prefixed": prefixed} {
		t.Run(name, func(t *testing.T) {
			one, other := kustomization(t, s), fromChart(t, s.values)
			if got, want := other.options(t), one.options(t); !reflect.DeepEqual(got, want) {
				t.Errorf("authsvc's options differ:\n%+v\n%+v", got, want)
			}
			got, want := other.essence(t), one.essence(t)
			for _, name := range slices.Sorted(maps.Keys(want)) {
				if !reflect.DeepEqual(got[name], want[name]) {
					t.Errorf("%s differs:\nchart %v\nkustomization %v", name, got[name], want[name])
				}
			}
			for name := range got {
				if want[name] == nil {
					t.Errorf("only the chart has %s", name)
				}
			}
		})
	}
}

// essence is what the two have to agree in, by kind and name.
func (m manifests) essence(t *testing.T) map[string]any {
	t.Helper()
	all := map[string]any{}
	for _, object := range m {
		name := plainName(object.Name())
		id := object.Kind() + " " + name
		switch id {
		case "Namespace sluice", "ConfigMap settings", "ConfigMap authsvc":
			continue
		case "ConfigMap traefik": // as a tree: one of them has comments
			all[id] = into[map[string]any](t, yamlTree(t, m.data(t, "traefik", "traefik.yml")))
			continue
		}
		metadata := object["metadata"].(map[string]any)
		metadata["name"] = name
		delete(metadata, "namespace")
		if labels, ok := metadata["labels"].(map[string]any); ok && len(labels) == 0 {
			delete(metadata, "labels")
		}
		if template, ok := object.At("spec", "template").(map[string]any); ok {
			if name != "authsvc" { // whose options are compared as such
				all[id+", environment"] = m.environ(t, name)
			}
			delete(template["metadata"].(map[string]any), "annotations") // sums of the configuration
			spec := template["spec"].(map[string]any)
			for _, container := range spec["containers"].([]any) {
				container := container.(map[string]any)
				delete(container, "env")
				container["volumeMounts"] = named(container["volumeMounts"], id)
			}
			spec["volumes"] = named(spec["volumes"], id)
		}
		all[id] = object
	}
	return all
}

// named are volumes or mounts with plain names, less that of authsvc's file.
func named(list any, id string) (all []any) {
	for _, one := range list.([]any) {
		one := one.(map[string]any)
		if one["name"] == "configuration" && id == "StatefulSet authsvc" {
			continue
		}
		if from, ok := one["configMap"].(map[string]any); ok {
			from["name"] = plainName(from["name"].(string))
		}
		all = append(all, one)
	}
	return all
}

func yamlTree(t *testing.T, text string) (tree map[string]any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &tree); err != nil {
		t.Fatal(err)
	}
	return tree
}

// TestKubernetesPods holds pods to what TestCompose holds containers to, and the
// volumes to what every cluster has: none that several nodes must mount.
func TestKubernetesPods(t *testing.T) {
	both(t, shipped, func(t *testing.T, m manifests) {
		secrets := map[string]bool{}
		for name, workload := range m.workloads() {
			p := into[pod](t, workload.At("spec", "template", "spec"))
			token := p.AutomountServiceAccountToken == nil || *p.AutomountServiceAccountToken
			if !p.SecurityContext.RunAsNonRoot || p.SecurityContext.SeccompProfile.Type != "RuntimeDefault" || token != (name == "gateway") {
				t.Errorf("%s: not closed", name)
			}
			writable := map[string]bool{}
			for _, c := range p.Containers {
				may := c.SecurityContext
				if !may.ReadOnlyRootFilesystem || may.AllowPrivilegeEscalation == nil || *may.AllowPrivilegeEscalation ||
					!slices.Equal(may.Capabilities.Drop, []string{"ALL"}) || len(may.Capabilities.Add) > 0 {
					t.Errorf("%s: not closed", name)
				}
				if _, tag, _ := strings.Cut(c.Image, ":"); tag == "" || tag == "latest" {
					t.Errorf("%s: image %q has no pinned tag", name, c.Image)
				}
				for _, mount := range c.VolumeMounts {
					writable[mount.Name] = !mount.ReadOnly
				}
			}
			for _, volume := range p.Volumes {
				if volume.PersistentVolumeClaim != nil {
					t.Errorf("%s: all pods share the volume %s", name, volume.Name)
				}
				if volume.Secret != nil {
					secrets[volume.Secret.SecretName] = true
				}
				if writable[volume.Name] && (volume.Secret != nil || volume.ConfigMap != nil) {
					t.Errorf("%s: %s looks as if it could be written", name, volume.Name)
				}
			}
		}
		if got, want := slices.Sorted(maps.Keys(secrets)), []string{"signing-keys", "sluice"}; !slices.Equal(got, want) {
			t.Errorf("secrets %q, the document makes %q", got, want)
		}
	})
}

// TestAuthsvcOnKubernetes: its admin listener is open to the other pods, as in
// TestAdminListenerIsOpened, and a new key is known on every node before it signs.
func TestAuthsvcOnKubernetes(t *testing.T) {
	both(t, shipped, func(t *testing.T, m manifests) {
		o := m.options(t)
		if o.AdminListen != ":9001" || o.Own.PublishAhead.Minutes() < 3 {
			t.Errorf("adminListen %q, own.publishAhead %v", o.AdminListen, o.Own.PublishAhead)
		}
	})
}

// TestKubernetesIsAsClosed compares the static configuration with the
// containers': the same, less the entry points of our own balancer and the
// source of routes.
func TestKubernetesIsAsClosed(t *testing.T) {
	both(t, shipped, func(t *testing.T, m manifests) {
		text := m.data(t, "traefik", "traefik.yml")
		file := filepath.Join(t.TempDir(), "traefik.yml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		report, err := check.Check(check.Options{Static: file, Getenv: os.Getenv})
		if err != nil || len(report.Findings) > 0 {
			t.Errorf("%v %v", err, report.Findings)
		}
		got, want := yamlTree(t, text), mapping(t, "../traefik/traefik.yml")
		for _, point := range []string{"balancedweb", "balancedwebsecure"} {
			delete(want["entryPoints"].(map[string]any), point)
		}
		delete(want, "providers")
		if namespaces := rendering.Object(got).At("providers", "kubernetesCRD", "namespaces"); !reflect.DeepEqual(namespaces, []any{"sluice"}) {
			t.Errorf("routes are read of %v", namespaces)
		}
		delete(got, "providers")
		if !reflect.DeepEqual(got, want) {
			t.Errorf("static configurations differ:\n%v\n%v", got, want)
		}
	})
}

// action is one of the file provider's templates.
var action = regexp.MustCompile(`\{\{.*?\}\}`)

// TestKubernetesRoutes compares routes, limits and middlewares with fast.yml.
func TestKubernetesRoutes(t *testing.T) {
	both(t, shipped, func(t *testing.T, m manifests) { m.checkRoutes(t) })
}

func (m manifests) checkRoutes(t *testing.T) {
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
	for _, resource := range m {
		if !strings.HasPrefix(resource["apiVersion"].(string), "traefik.io/") {
			continue
		}
		object := into[struct {
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
		}](t, resource)
		switch {
		case object.Kind == "Middleware":
			middlewares[object.Metadata.Name] = resource["spec"]
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
		var got, want any = middlewares[name], middleware
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

	checkMiddlewares(t, middlewares)
}

// checkMiddlewares asks what sluice check says of them.
func checkMiddlewares(t *testing.T, middlewares map[string]any) {
	t.Helper()
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
// would bring Traefik's replace directives into this module. The Prometheus
// operator's are held to its definitions, Kubernetes's own kinds to its types. As
// an API server that is told to be strict, the test refuses fields that are not
// defined.
func TestKubernetesResources(t *testing.T) {
	definitions := customResources(t, "github.com/traefik/traefik/v3@v"+build.Version, "docs/content/reference/dynamic-configuration/kubernetes-crd-definition-v1.yml")
	for _, kind := range []string{"servicemonitors", "prometheusrules"} {
		maps.Copy(definitions, customResources(t, "github.com/prometheus-operator/prometheus-operator@v0.85.0", "example/prometheus-operator-crd/monitoring.coreos.com_"+kind+".yaml"))
	}
	builtin := serializer.NewSerializerWithOptions(serializer.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, serializer.SerializerOptions{Strict: true})
	checked := map[string]int{}
	validate := func(object rendering.Object) error {
		version, _ := object["apiVersion"].(string)
		if scheme.Scheme.IsVersionRegistered(groupVersion(version)) {
			content, err := json.Marshal(object)
			if err == nil {
				_, _, err = builtin.Decode(content, nil, nil)
			}
			checked[object.Kind()]++
			return err
		}
		definition := definitions[version+" "+object.Kind()]
		if definition == nil {
			return fmt.Errorf("no %s of %s is defined", object.Kind(), version)
		}
		checked[object.Kind()]++
		return definition.Validate(plain(t, object))
	}
	both(t, monitored, func(t *testing.T, m manifests) {
		clear(checked)
		for _, object := range m {
			if err := validate(object); err != nil {
				t.Errorf("%v in\n%v", err, object)
			}
		}
		for _, kind := range []string{"Middleware", "IngressRoute", "ServersTransport", "TLSOption", "TLSStore", "ServiceMonitor", "PrometheusRule", "Deployment", "StatefulSet", "NetworkPolicy", "PodDisruptionBudget", "Role"} {
			if checked[kind] == 0 {
				t.Errorf("no %s was checked", kind)
			}
		}
	})
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
		"{apiVersion: monitoring.coreos.com/v1, kind: ServiceMonitor, metadata: {name: a}, spec: {selector: {}, endpoints: [{ports: a}]}}",
		"{apiVersion: monitoring.coreos.com/v1, kind: PrometheusRule, metadata: {name: a}, spec: {groups: [{name: a, rules: [{alert: a, expr: up, annotation: {}}]}]}}",
		"{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: http}]}}",
		"{apiVersion: apps/v1, kind: Deployment, metadata: {name: a}, spec: {replica: 3}}",
		"{apiVersion: apps/v2, kind: Deployment, metadata: {name: a}}",
	} {
		if validate(yamlTree(t, wrong)) == nil {
			t.Errorf("accepted: %s", wrong)
		}
	}
}

// customResources are the schemas of a file of definitions that comes with a
// module, by version and kind.
func customResources(t *testing.T, from, file string) map[string]*jsonschema.Schema {
	t.Helper()
	download := exec.Command("go", "mod", "download", "-json", from)
	download.Dir = t.TempDir()
	download.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
	out, err := download.Output()
	var module struct{ Dir, Error string }
	if err := errors.Join(err, json.Unmarshal(out, &module)); err != nil {
		t.Fatalf("%v: %s", err, module.Error)
	}
	schemas := map[string]*jsonschema.Schema{}
	for _, document := range documents(t, filepath.Join(module.Dir, file)) {
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

func groupVersion(text string) schema.GroupVersion {
	version, err := schema.ParseGroupVersion(text)
	if err != nil {
		return schema.GroupVersion{Group: text}
	}
	return version
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

// TestKubernetesFiles: the kustomization names every file beside it.
func TestKubernetesFiles(t *testing.T) {
	text, err := os.ReadFile("../deploy/kubernetes/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir("../deploy/kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if file.Name() != "kustomization.yaml" && !bytes.Contains(text, []byte(file.Name())) {
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

// peer is who may, by a network policy.
type peer struct {
	NamespaceSelector *labelSelector `yaml:"namespaceSelector"`
	PodSelector       *labelSelector `yaml:"podSelector"`
}

type labelSelector struct {
	MatchLabels map[string]string `yaml:"matchLabels"`
}

// TestPrometheusReaches follows each ServiceMonitor to its service, to the pods
// behind it and to the policy before them, and compares what it writes down with
// deploy/prometheus, whose names the alerts go by.
func TestPrometheusReaches(t *testing.T) {
	both(t, monitored, func(t *testing.T, m manifests) {
		scraped := map[string]any{}
		for _, object := range m {
			if object.Kind() != "ServiceMonitor" {
				continue
			}
			monitor := into[struct {
				Spec struct {
					Selector  labelSelector
					Endpoints []struct {
						Port              string
						Relabelings       any
						MetricRelabelings any `yaml:"metricRelabelings"`
					}
				}
			}](t, object)
			for _, endpoint := range monitor.Spec.Endpoints {
				port, app := m.behind(t, monitor.Spec.Selector.MatchLabels, endpoint.Port)
				if peers := m.allowed(t, app, port); !slices.ContainsFunc(peers, isPrometheus) {
					t.Errorf("%s: no policy lets Prometheus reach port %s of %s", object.Name(), port, app)
				} else if slices.ContainsFunc(peers, func(p peer) bool { return p.NamespaceSelector != nil && !isPrometheus(p) }) {
					t.Errorf("%s: others beyond the namespace reach port %s of %s: %v", object.Name(), port, app, peers)
				}
				scraped[app] = []any{endpoint.Relabelings, endpoint.MetricRelabelings}
			}
		}
		jobs := map[string]any{}
		for _, job := range into[struct {
			Jobs []struct {
				Name    string           `yaml:"job_name"`
				Metrics []map[string]any `yaml:"metric_relabel_configs"`
			} `yaml:"scrape_configs"`
		}](t, mapping(t, "../deploy/prometheus/prometheus.yml")).Jobs {
			var relabelings any
			for _, one := range job.Metrics {
				list, _ := relabelings.([]any)
				relabelings = append(list, camel(one))
			}
			jobs[job.Name] = relabelings
		}
		// An operator names a job by its service, unless it is told otherwise.
		want := map[string]any{
			"authsvc": []any{nil, jobs["authsvc"]},
			"gateway": []any{[]any{map[string]any{"targetLabel": "job", "replacement": "traefik"}}, jobs["traefik"]},
		}
		if _, there := jobs["traefik"]; !there || !reflect.DeepEqual(scraped, want) {
			t.Errorf("scraped %v\nwant %v", scraped, want)
		}
	})
}

// TestPrometheusRule: a cluster is alerted by the rules of deploy/prometheus, whose
// file the chart includes and the kustomization has a copy of; and by none where
// nobody asked, since a cluster without the operator would refuse them.
func TestPrometheusRule(t *testing.T) {
	rules := mapping(t, "../deploy/prometheus/alerts.yml")
	both(t, monitored, func(t *testing.T, m manifests) {
		if got := m.find(t, "PrometheusRule", "sluice")["spec"]; !reflect.DeepEqual(got, any(rules)) {
			t.Errorf("alerts\n%v\nwant those of deploy/prometheus\n%v", got, rules)
		}
	})
	both(t, shipped, func(t *testing.T, m manifests) {
		for _, object := range m {
			if version, _ := object["apiVersion"].(string); strings.HasPrefix(version, "monitoring.coreos.com/") {
				t.Errorf("it has %s %s", object.Kind(), object.Name())
			}
		}
	})
}

func isPrometheus(p peer) bool {
	return p.NamespaceSelector != nil && p.NamespaceSelector.MatchLabels["kubernetes.io/metadata.name"] == "monitoring" &&
		p.PodSelector != nil && p.PodSelector.MatchLabels["app.kubernetes.io/name"] == "prometheus"
}

// camel is a relabeling of Prometheus's own as the operator spells it.
func camel(one map[string]any) map[string]any {
	all := map[string]any{}
	for name, value := range one {
		head, tail, found := strings.Cut(name, "_")
		if found {
			name = head + strings.ToUpper(tail[:1]) + tail[1:]
		}
		all[name] = value
	}
	return all
}

// behind is the pods' port behind a port of the service with these labels, and
// their label app.
func (m manifests) behind(t *testing.T, labels map[string]string, name string) (port, app string) {
	t.Helper()
	for _, object := range m {
		if object.Kind() != "Service" {
			continue
		}
		service := into[struct {
			Metadata struct{ Labels map[string]string }
			Spec     struct {
				Selector map[string]string
				Ports    []struct {
					Name       string
					TargetPort string `yaml:"targetPort"`
				}
			}
		}](t, object)
		if len(labels) == 0 || !maps.Equal(service.Metadata.Labels, labels) {
			continue
		}
		for _, p := range service.Spec.Ports {
			if p.Name == name {
				port, app = p.TargetPort, service.Spec.Selector["app"]
			}
		}
	}
	containers := into[pod](t, m.workloads()[app].At("spec", "template", "spec")).Containers
	for _, c := range containers {
		for _, p := range c.Ports {
			if p.Name == port {
				return port, app
			}
		}
	}
	t.Fatalf("nothing listens behind port %s of the service with %v", name, labels)
	return "", ""
}

// allowed are the peers that may reach a port of an app.
func (m manifests) allowed(t *testing.T, app, port string) (all []peer) {
	t.Helper()
	for _, object := range m {
		if object.Kind() != "NetworkPolicy" {
			continue
		}
		policy := into[struct {
			Spec struct {
				PodSelector labelSelector `yaml:"podSelector"`
				Ingress     []struct {
					From  []peer
					Ports []struct{ Port string }
				}
			}
		}](t, object)
		if policy.Spec.PodSelector.MatchLabels["app"] != app {
			continue
		}
		for _, rule := range policy.Spec.Ingress {
			if !slices.ContainsFunc(rule.Ports, func(p struct{ Port string }) bool { return p.Port == port }) {
				continue
			}
			if rule.From == nil { // everybody
				all = append(all, peer{NamespaceSelector: &labelSelector{}})
			}
			all = append(all, rule.From...)
		}
	}
	return all
}
