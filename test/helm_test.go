package test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/plugin"
	"github.com/sluice-gateway/sluice/test/rendering"
	"github.com/sluice-gateway/sluice/traefik/build"
)

// TestChartValues: what the shipped values leave out.
func TestChartValues(t *testing.T) {
	objects, err := rendering.Chart("../deploy/helm/sluice", "shop", yamlTree(t, `
imagePullSecrets: [{name: registry}]
gateway:
  replicas: 5
  service: {type: ClusterIP, annotations: {a: b}}
  static: {log: {level: DEBUG}, entryPoints: {web: {address: ":8000"}}}
authsvc:
  replicas: 3
  config: {own: {userPrefix: "own:"}, issuers: [{name: a, issuer: "https://a.example", audiences: [b], algorithms: [RS256], jwksURL: "https://a.example/keys", userPrefix: "a:"}]}
redis: {enabled: false, options: {addresses: ["r1:6380", "r2:6380"], masterName: main, tls: {enabled: true}}}
routes: [{kind: Rule, match: 'Host("shop.example")', services: [{name: shop, port: 80}]}]
network: {login: [], upstreams: [shop]}
prometheus: {from: [], serviceMonitor: {enabled: true, labels: {release: a}}, prometheusRule: {enabled: true, labels: {release: b}}}
`))
	if err != nil {
		t.Fatal(err)
	}
	m := manifests(objects)
	if n := m.find(t, "Deployment", "gateway").At("spec", "replicas"); n != 5 {
		t.Errorf("%v gateways", n)
	}
	if policy := m.find(t, "Service", "gateway").At("spec", "externalTrafficPolicy"); policy != nil {
		t.Errorf("a ClusterIP has the policy %v, which Kubernetes refuses", policy)
	}
	static := rendering.Object(yamlTree(t, m.data(t, "traefik", "traefik.yml")))
	if got := []any{static.At("log", "level"), static.At("entryPoints", "web", "address"), static.At("entryPoints", "web", "http", "aliasHeadersStrategy"), static.At("providers", "kubernetesCRD", "namespaces")}; !reflect.DeepEqual(got, []any{"DEBUG", ":8000", "reject", []any{"shop"}}) {
		t.Errorf("static configuration: %v", got)
	}
	o := m.options(t)
	if !slices.Equal(o.Redis.Addresses, []string{"r1:6380", "r2:6380"}) || o.Redis.MasterName != "main" || !o.Redis.TLS.Enabled || o.Redis.Username != "authsvc" ||
		o.Own.UserPrefix != "own:" || len(o.Issuers) != 1 || o.AdminListen != ":9001" {
		t.Errorf("authsvc: %+v", o)
	}
	middlewares, monitoring := map[string]any{}, 0
	for _, object := range m {
		switch object.Kind() {
		case "Middleware":
			middlewares[object.Name()] = object["spec"]
		case "ServiceMonitor", "PrometheusRule":
			if want := map[string]any{"ServiceMonitor": "a", "PrometheusRule": "b"}[object.Kind()]; object.At("metadata", "labels", "release") != want {
				t.Errorf("%s %s: the labels %v", object.Kind(), object.Name(), object.At("metadata", "labels"))
			}
			monitoring++
		case "NetworkPolicy":
			if ports := m.allowed(t, object.Name(), "admin"); len(ports) > 0 {
				t.Errorf("%v may reach the admin listener", ports)
			}
		}
		if strings.Contains(object.Name(), "redis") {
			t.Errorf("it has %s %s", object.Kind(), object.Name())
		}
		if pod := object.At("spec", "template", "spec"); pod != nil && !reflect.DeepEqual(pod.(map[string]any)["imagePullSecrets"], []any{map[string]any{"name": "registry"}}) {
			t.Errorf("%s pulls without a secret", object.Name())
		}
	}
	if monitoring != 3 {
		t.Errorf("%d monitors and rules", monitoring)
	}
	checkMiddlewares(t, middlewares)
	gate := rendering.Object(middlewares["gate"].(map[string]any))
	if got := gate.At("plugin", "sluice", "auth", "addresses"); !reflect.DeepEqual(got, []any{"http://authsvc-0.authsvc:9000/auth", "http://authsvc-1.authsvc:9000/auth", "http://authsvc-2.authsvc:9000/auth"}) {
		t.Errorf("authsvc is asked at %v", got)
	}
	if got := []any{gate.At("plugin", "sluice", "minInstances"), gate.At("plugin", "sluice", "redis", "masterName"), gate.At("plugin", "sluice", "redis", "username")}; !reflect.DeepEqual(got, []any{"5", "main", "gateway"}) {
		t.Errorf("the gate: %v", got)
	}
	if register := rendering.Object(middlewares["register"].(map[string]any)); register.At("plugin", "sluice", "auth") != nil {
		t.Error("a gate without auth was given one")
	}
}

// TestChartRestarts: pods are made anew by a change of the files that they read, and
// by no other.
func TestChartRestarts(t *testing.T) {
	before := fromChart(t, nil).workloads()
	for file, want := range map[string][]string{"traefik.yml": {"gateway"}, "redis.conf": {"redis"}, "users.acl": {"redis"}, "start.sh": {"redis"}, "alerts.yml": nil} {
		folder := filepath.Join(t.TempDir(), "sluice")
		if out, err := exec.Command("cp", "-RL", "../deploy/helm/sluice", folder).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		name := filepath.Join(folder, "files", file)
		text, err := os.ReadFile(name)
		if err := errors.Join(err, os.WriteFile(name, append(text, "\nchanged: true\n"...), 0o600)); err != nil {
			t.Fatal(err)
		}
		objects, err := rendering.Chart(folder, "sluice", nil)
		if err != nil {
			t.Fatal(err)
		}
		var anew []string
		for name, workload := range manifests(objects).workloads() {
			if !reflect.DeepEqual(workload.At("spec", "template"), before[name].At("spec", "template")) {
				anew = append(anew, name)
			}
		}
		if !slices.Equal(anew, want) {
			t.Errorf("%s changes %q, want %q", file, anew, want)
		}
	}
}

// TestChartArchive: the archive of a release makes what the folder makes, with the
// images of its tag, and the same bytes whoever makes it.
func TestChartArchive(t *testing.T) {
	const version = "7.8.9-rc.1"
	commit := time.Unix(1767225600, 0)
	var archives [2][]byte
	var name string
	for i := range archives {
		var err error
		if name, err = rendering.Package("../deploy/helm/sluice", version, commit, t.TempDir()); err != nil {
			t.Fatal(err)
		}
		if archives[i], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	if filepath.Base(name) != "sluice-"+version+".tgz" { // what the workflow asks the release for
		t.Errorf("it is called %s", name)
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two archives differ")
	}
	unzipped, err := gzip.NewReader(bytes.NewReader(archives[0]))
	if err != nil {
		t.Fatal(err)
	}
	var metadata map[string]any
	for files := tar.NewReader(unzipped); ; {
		file, err := files.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if file.Typeflag != tar.TypeReg || !file.ModTime.Equal(commit) {
			t.Errorf("%s is of type %c, as old as %v", file.Name, file.Typeflag, file.ModTime)
		}
		if file.Name == "sluice/Chart.yaml" {
			text, err := io.ReadAll(files)
			if err != nil {
				t.Fatal(err)
			}
			metadata = yamlTree(t, string(text))
		}
	}
	if metadata["version"] != version || metadata["appVersion"] != "v"+version {
		t.Errorf("Chart.yaml: %v", metadata)
	}

	objects, err := rendering.Chart(name, "sluice", monitored.values)
	if err != nil {
		t.Fatal(err)
	}
	got, want := manifests(objects), fromChart(t, monitored.values)
	for _, ours := range []string{"gateway", "authsvc"} {
		container := want.workloads()[ours].At("spec", "template", "spec").(map[string]any)["containers"].([]any)[0].(map[string]any)
		container["image"] = strings.Replace(container["image"].(string), ":v"+plugin.Version, ":v"+version, 1)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the archive makes\n%v\nthe folder\n%v", got, want)
	}
	if name, err := rendering.Package("../deploy/helm/sluice", "next", commit, t.TempDir()); err == nil {
		t.Errorf("a version that Helm refuses made %s", name)
	}
}

// TestChartRefuses: a value that cannot be meant stops helm, which names it.
func TestChartRefuses(t *testing.T) {
	for values, want := range map[string]string{
		"{gateways: {replicas: 3}}":                             "'gateways' not allowed",
		"{gateway: {replica: 3}}":                               "'replica' not allowed",
		"{gateway: {replicas: \"3\"}}":                          "at '/gateway/replicas': got string, want integer",
		"{gateway: {replicas: 0}}":                              "at '/gateway/replicas': minimum: got 0, want 1",
		"{gateway: {image: \"gateway:v1\"}}":                    "at '/gateway/image': got string, want object",
		"{gateway: {memoryLimit: 800M}}":                        "at '/gateway/memoryLimit': '800M' does not match pattern",
		"{gateway: {service: {type: Loadbalancer}}}":            "at '/gateway/service/type': value must be one of 'LoadBalancer', 'NodePort', 'ClusterIP'",
		"{keyPrefix: a b}":                                      "at '/keyPrefix': 'a b' does not match pattern",
		"{authsvc: {replicas: 2.5}}":                            "at '/authsvc/replicas': got number, want integer",
		"{redis: {enabled: false}}":                             "at '/redis/options': missing property 'addresses'",
		"{redis: {enabled: false, options: {addresses: [r1]}}}": "at '/redis/options/addresses/0': 'r1' does not match pattern",
		"{gates: {Gate: {}}}":                                   "'Gate'",
		"{gates: {gate: {limits: [{name: a, key: ip}]}}}":       "at '/gates/gate/limits/0': missing property 'window'",
		"{middlewares: {cors: null, a: {}}}":                    "at '/middlewares/a': minProperties: got 0, want 1",
		"{routes: [{kind: Rule, services: []}]}":                "at '/routes/0': missing property 'match'",
		"{routes: []}":                                          "at '/routes': minItems: got 0, want 1",
		"{network: {login: users}}":                             "at '/network/login': got string, want array",
		"{prometheus: {serviceMonitor: true}}":                  "at '/prometheus/serviceMonitor': got boolean, want object",
		"{prometheus: {prometheusRule: {enable: true}}}":        "'enable' not allowed",
		"{secrets: {passwords: \"\"}}":                          "at '/secrets/passwords'",
	} {
		if _, err := rendering.Chart("../deploy/helm/sluice", "sluice", yamlTree(t, values)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v\nwant %s", values, err, want)
		}
	}
}

// TestImages: whatever somebody installs by names the images that the workflow of
// a release pushes, of this version, and no document names another, nor another
// place of the chart.
func TestImages(t *testing.T) {
	workflow, err := os.ReadFile("../.github/workflows/release.yml")
	if err != nil {
		t.Fatal(err)
	}
	registry := into[struct {
		Env struct {
			Images string `yaml:"IMAGES"`
		}
	}](t, yamlTree(t, string(workflow))).Env.Images
	pushed := []string{"authsvc", "gateway"}
	loops := regexp.MustCompile(`for target in (.*); do`).FindAllStringSubmatch(string(workflow), -1)
	for _, loop := range loops {
		if targets := slices.Sorted(slices.Values(strings.Fields(loop[1]))); !slices.Equal(targets, pushed) {
			t.Errorf("the workflow pushes %q, want %q", targets, pushed)
		}
	}
	if registry == "" || len(loops) == 0 {
		t.Fatalf("the workflow pushes nothing to %q", registry)
	}
	both(t, shipped, func(t *testing.T, m manifests) {
		for _, name := range pushed {
			want := registry + "/" + name + ":v" + plugin.Version
			if image := into[pod](t, m.workloads()[name].At("spec", "template", "spec")).Containers[0].Image; image != want {
				t.Errorf("%s is %s, want %s", name, image, want)
			}
		}
	})

	if !strings.Contains(string(workflow), ` "oci://$IMAGES/charts"`) {
		t.Error("the workflow pushes no chart")
	}
	known := []string{registry, registry + "/charts/sluice"}
	for _, name := range pushed {
		known = append(known, registry+"/"+name)
	}
	for _, folder := range []string{"../docs", "../deploy", "../README.md", "../CONTRIBUTING.md"} {
		err := filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				return err
			}
			text, err := os.ReadFile(name)
			for _, mention := range regexp.MustCompile(`ghcr\.io/[\w./-]*\w`).FindAllString(string(text), -1) {
				if !slices.Contains(known, mention) {
					t.Errorf("%s names %s, a release makes %q", name, mention, known)
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// TestTraefikChart holds the values for Traefik's own chart to that chart's
// schema, and to what our gateways are configured with. testdata/traefik-chart
// has the schema of version 41.3.0.
func TestTraefikChart(t *testing.T) {
	text, err := os.ReadFile("testdata/traefik-chart/values.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	validate := func(values map[string]any) error {
		_, err := util.ToRenderValues(&chart.Chart{Metadata: &chart.Metadata{Name: "traefik"}, Schema: text}, values, common.ReleaseOptions{}, nil)
		return err
	}
	values := mapping(t, "../deploy/helm/traefik-values.yaml")
	if err := validate(values); err != nil {
		t.Error(err)
	}
	for name := range values {
		wrong := maps.Clone(values)
		wrong[name+"s"] = wrong[name]
		if validate(wrong) == nil {
			t.Errorf("the schema knows %ss as well: it shows nothing", name)
		}
	}
	v := rendering.Object(values)
	image := v.At("image", "registry").(string) + "/" + v.At("image", "repository").(string) + ":" + v.At("image", "tag").(string)
	if want := into[pod](t, kustomization(t, shipped).workloads()["gateway"].At("spec", "template", "spec")).Containers[0].Image; image != want {
		t.Errorf("image %s, the gateways are %s", image, want)
	}
	if v["versionOverride"] != "v"+build.Version {
		t.Errorf("versionOverride %v, the image has Traefik %s", v["versionOverride"], build.Version)
	}
	if want := []any{"--experimental.localPlugins.sluice.moduleName=" + sluice.Module}; !reflect.DeepEqual(v["additionalArguments"], want) || v.At("experimental", "abortOnPluginFailure") != true {
		t.Errorf("%v, want the plugin as in traefik.yml", values)
	}
}
