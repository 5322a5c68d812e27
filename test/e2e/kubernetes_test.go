package e2e

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/test/harness"
)

// TestKubernetes runs the real Traefik with the static configuration of
// deploy/kubernetes, before an API server that holds what the manifests hold and
// allows what their Role allows. Parts that pods would be are processes.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	s := open(t, stack.Compiled, stack.Fast, 1)
	k := newCluster(t, s.lone().env)

	dir := t.TempDir()
	var static map[string]any
	content, err := os.ReadFile("../../deploy/kubernetes/traefik.yml")
	if err := errors.Join(err, yaml.Unmarshal(content, &static), sluice.WritePlugin(filepath.Join(dir, "plugins-local", "src", sluice.Module))); err != nil {
		t.Fatal(err)
	}
	at := map[string]string{}
	for name, point := range static["entryPoints"].(map[string]any) {
		at[name] = harness.FreeAddress(t)
		point.(map[string]any)["address"] = at[name]
	}
	provider := static["providers"].(map[string]any)["kubernetesCRD"].(map[string]any)
	provider["endpoint"], provider["token"] = k.url, k.token
	if content, err = yaml.Marshal(static); err == nil {
		err = os.WriteFile(filepath.Join(dir, "traefik.yml"), content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	harness.StartTraefik(t, dir)

	pod := s.on(t)
	pod.ready = s.ready
	pod.ready.HTTPS = "https://" + at["websecure"]
	pod.ready.HTTP = pod.ready.HTTPS
	for path, failing := range map[string]string{"/ping": "it lives", "/readyz": "its routes are served"} {
		harness.Eventually(t, 20*time.Second, failing, func() error {
			got, err := pod.try("GET", "http://"+at["ping"]+path, nil)
			if err == nil && got.Status != 200 {
				err = fmt.Errorf("%d; refused so far: %q", got.Status, k.refusals())
			}
			return err
		})
	}
	// Routes are served before the gates have Redis, and a share of a limit is too
	// little for the tour.
	s.redis.AwaitGateways(prefix, 2)
	tour(pod)
	if got := pod.get("http://" + at["web"] + "/v1/products"); got.Status != 301 || !strings.HasPrefix(got.Header.Get("Location"), "https://") {
		t.Errorf("HTTP: %s", got)
	}
	connection, err := tls.Dial("tcp", at["websecure"], &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	if serial := connection.ConnectionState().PeerCertificates[0].SerialNumber.String(); serial != k.serial {
		t.Errorf("the certificate has serial %s, that of the secret %s", serial, k.serial)
	}
	connection.Close()

	// A service without a pod is away: that is no reason for 404.
	who := pod.token("kube")
	k.change("endpointslices", "products", func(slice object) { slice["endpoints"] = []any{} })
	harness.Eventually(t, 20*time.Second, "a service without a pod is answered for with 503", func() error {
		if got := pod.get("/v1/products", bearer(who)); got.Status != 503 {
			return fmt.Errorf("%s", got)
		}
		return nil
	})

	if refused := k.refusals(); len(refused) > 0 {
		t.Errorf("the Role lacks %q", refused)
	}
	if unused := k.unused(); len(unused) > 0 {
		t.Errorf("the Role allows what nobody asks for: %q", unused)
	}
}

type object = map[string]any

// cluster is as much of an API server as Traefik asks: lists and watches of one
// namespace.
type cluster struct {
	url, token, serial string
	allowed            map[string]bool // "group/resource verb" of the Role

	mu      sync.Mutex // protects what follows
	held    map[string][]object
	watches map[string][]chan object
	refused []string
	asked   map[string]bool
}

const namespace = "sluice"

// newCluster holds the custom resources and the Role of deploy/kubernetes, with
// addresses of this machine in place of the cluster's names, and what the
// manifests ask to be there before: the services, which are those of env, and a
// certificate.
func newCluster(t *testing.T, env []string) *cluster {
	t.Helper()
	setting := func(name string) string {
		for _, entry := range env {
			if value, ok := strings.CutPrefix(entry, name+"="); ok {
				return value
			}
		}
		t.Fatalf("the gateway has no %s", name)
		return ""
	}
	k := &cluster{token: "a service account's", allowed: map[string]bool{}, held: map[string][]object{}, watches: map[string][]chan object{}, asked: map[string]bool{}}

	password := filepath.Join(t.TempDir(), "redis-gateway")
	if err := os.WriteFile(password, []byte("not asked for"), 0o600); err != nil {
		t.Fatal(err)
	}
	routes, err := os.ReadFile("../../deploy/kubernetes/routes.yaml")
	if err != nil {
		t.Fatal(err)
	}
	auth, _, _ := strings.Cut(setting("SLUICE_AUTHSVC"), ",")
	text := strings.NewReplacer("redis:6379", setting("SLUICE_REDIS"), "username: gateway", "username: default",
		"/run/secrets/sluice/redis-gateway", password, "http://authsvc-0.authsvc:9000", auth, "http://authsvc-1.authsvc:9000", auth).Replace(string(routes))
	for _, one := range parse(t, []byte(text)) {
		k.add(strings.ToLower(one["kind"].(string))+"s", one)
	}
	for _, name := range []string{"users", "products", "orders"} {
		to, err := url.Parse(setting("SLUICE_" + strings.ToUpper(name)))
		if err != nil {
			t.Fatal(err)
		}
		k.add("services", object{"metadata": object{"name": name}, "spec": object{"clusterIP": "10.0.0.1", "ports": []any{object{"name": "http", "port": 8000}}}})
		k.add("endpointslices", object{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": object{"name": name, "labels": object{"kubernetes.io/service-name": name}}, "addressType": "IPv4",
			"endpoints": []any{object{"addresses": []any{to.Hostname()}, "conditions": object{"ready": true}}},
			"ports":     []any{object{"name": "http", "port": json.Number(to.Port())}}})
	}
	serial, certificate, key := newCertificate(t)
	k.serial = serial.String()
	k.add("secrets", object{"metadata": object{"name": "certificate"}, "type": "kubernetes.io/tls", "data": object{
		"tls.crt": base64.StdEncoding.EncodeToString(certificate), "tls.key": base64.StdEncoding.EncodeToString(key)}})

	gateway, err := os.ReadFile("../../deploy/kubernetes/gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range parse(t, gateway) {
		if one["kind"] != "Role" {
			continue
		}
		for _, rule := range one["rules"].([]any) {
			for _, group := range rule.(object)["apiGroups"].([]any) {
				for _, resource := range rule.(object)["resources"].([]any) {
					for _, verb := range rule.(object)["verbs"].([]any) {
						k.allowed[fmt.Sprintf("%s/%s %s", group, resource, verb)] = true
					}
				}
			}
		}
	}
	server := httptest.NewServer(k)
	k.url = server.URL
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return k
}

func parse(t *testing.T, content []byte) (all []object) {
	t.Helper()
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	for {
		var one object
		if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, one)
	}
}

func (k *cluster) add(resource string, one object) {
	metadata := one["metadata"].(object)
	metadata["namespace"], metadata["uid"], metadata["resourceVersion"] = namespace, resource+"-"+metadata["name"].(string), "1"
	k.held[resource] = append(k.held[resource], one)
}

// change edits an object and tells whoever watches.
func (k *cluster) change(resource, name string, edit func(object)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, one := range k.held[resource] {
		if metadata := one["metadata"].(object); metadata["name"] == name {
			edit(one)
			metadata["resourceVersion"] = "2"
			for _, watch := range k.watches[resource] {
				watch <- object{"type": "MODIFIED", "object": one}
			}
		}
	}
}

func (k *cluster) refusals() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Clone(k.refused)
}

// unused are allowed lists that nobody has asked for.
func (k *cluster) unused() (all []string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for what := range k.allowed {
		if strings.HasSuffix(what, " list") && !k.asked[what] {
			all = append(all, what)
		}
	}
	return all
}

// ServeHTTP answers /api/v1/namespaces/<ns>/<resource> and
// /apis/<group>/<version>/namespaces/<ns>/<resource>.
func (k *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fail := func(code int, reason string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(object{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code, "message": reason}) // the client may have left
	}
	group, path := "", strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if path[0] == "apis" && len(path) == 6 {
		group, path = path[1], path[1:]
	}
	if r.Header.Get("Authorization") != "Bearer "+k.token || r.Method != http.MethodGet || len(path) != 5 || path[2] != "namespaces" || path[3] != namespace {
		k.mu.Lock()
		k.refused = append(k.refused, r.Method+" "+r.URL.Path)
		k.mu.Unlock()
		fail(http.StatusForbidden, "Forbidden")
		return
	}
	resource, verb, query := path[4], "list", r.URL.Query()
	if query.Get("watch") != "" {
		verb = "watch"
	}
	k.mu.Lock()
	what := fmt.Sprintf("%s/%s %s", group, resource, verb)
	k.asked[what] = true
	if !k.allowed[what] {
		if !slices.Contains(k.refused, what) {
			k.refused = append(k.refused, what)
		}
		k.mu.Unlock()
		fail(http.StatusForbidden, "Forbidden")
		return
	}
	if verb == "list" {
		items := append([]object{}, k.held[resource]...)
		content, err := json.Marshal(object{"metadata": object{"resourceVersion": "1"}, "items": items})
		k.mu.Unlock()
		if err != nil {
			panic(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(content) // the client may have left
		return
	}
	if query.Get("sendInitialEvents") == "true" { // a list by way of a watch, which the client can do without
		k.mu.Unlock()
		fail(http.StatusUnprocessableEntity, "Invalid")
		return
	}
	events := make(chan object, 8)
	k.watches[resource] = append(k.watches[resource], events)
	k.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	flush := http.NewResponseController(w)
	_ = flush.Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case event := <-events:
			k.mu.Lock()
			content, err := json.Marshal(event)
			k.mu.Unlock()
			if err != nil {
				panic(err)
			}
			_, _ = w.Write(append(content, '\n'))
			_ = flush.Flush()
		}
	}
}
