package test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice/authsvc"
	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/test/forms"
	"github.com/sluice-gateway/sluice/test/harness"
)

// shippedRedis starts redis-server as deploy/redis/start.sh does, with the
// shipped users, in folders of the test's own and with this environment.
// The password of each user is its name.
func shippedRedis(t *testing.T, env ...string) (address string) {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed; on Debian: apt-get install redis-server")
	}
	dir := t.TempDir()
	address = harness.FreeAddress(t)
	_, port, _ := strings.Cut(address, ":")
	own := strings.NewReplacer("/etc/redis", dir+"/etc", "/run/redis", dir+"/run", "/run/secrets", dir+"/secrets",
		"dir /data", "dir "+dir, "bind * -::*", "bind 127.0.0.1\nport "+port)
	for _, folder := range []string{"etc", "run", "secrets"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"start.sh", "users.acl", "redis.conf"} {
		content, err := os.ReadFile("../deploy/redis/" + name)
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "etc", name), []byte(own.Replace(string(content))), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, user := range []string{"default", "gateway", "authsvc", "monitor"} {
		if err := os.WriteFile(filepath.Join(dir, "secrets/redis-"+user), []byte(user+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	process := exec.Command("/bin/sh", filepath.Join(dir, "etc/start.sh"))
	process.Env = append(os.Environ(), env...)
	var output strings.Builder
	process.Stdout, process.Stderr = &output, &output
	process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = process.Process.Kill()
		_ = process.Wait()
		if t.Failed() {
			t.Log(output.String())
		}
	})
	client := redisAs(t, address, "default")
	harness.Eventually(t, 10*time.Second, "redis-server answers", func() error { return client.Ping(t.Context()).Err() })
	return address
}

func redisAs(t *testing.T, address, user string) *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: address, Username: user, Password: user})
	t.Cleanup(func() { client.Close() })
	return client
}

// TestOneKeyPrefix: SLUICE_KEY_PREFIX is what gateways, authsvc and the users of
// Redis in compose.yaml all go by. With it the shipped users may do what the
// parts do, and nothing below another prefix.
func TestOneKeyPrefix(t *testing.T) {
	for _, prefix := range []string{"", "shop.eu-1_a"} {
		t.Run(prefix, func(t *testing.T) {
			services := project(t, "../compose.yaml", "SLUICE_KEY_PREFIX="+prefix).Services
			environ := func(service string) (all []string) {
				for name, value := range services[service].Environment {
					all = append(all, name+"="+*value)
				}
				return all
			}
			want := prefix
			if want == "" {
				want = "sluice"
			}
			gateways := services["gateway"].Environment["SLUICE_KEY_PREFIX"] // TestEnvironmentReachesTheConfiguration takes it further
			if gateways == nil || *gateways != want {
				t.Fatalf("gateways are not told %s", want)
			}
			address := shippedRedis(t, environ("redis")...)

			options, err := config.Load(nil, environ("authsvc"))
			if err != nil {
				t.Fatal(err)
			}
			options.Listen, options.AdminListen, options.Own.KeyDir = "127.0.0.1:0", "127.0.0.1:0", t.TempDir()
			options.Redis.Addresses = []string{address}
			options.Redis.PasswordFile, options.Redis.Password = "", "authsvc"
			options.AdminTokenFile, options.IssuerTokenFile = "", ""
			service := &authsvc.Service{Config: options, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
			if err := service.Open(context.Background()); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := service.Close(); err != nil {
					t.Error(err)
				}
			})
			gate := forms.Compiled{}.New(t, forms.FromFile(t, fmt.Sprintf(`
redis: {addresses: [%q], username: gateway, password: gateway, keyPrefix: %q, timeout: 2s}
auth: {addresses: ["http://%s/auth"]}
limits: [{name: all, key: ip, limit: 4, window: 1h}]`, address, *gateways, service.PublicAddr())), http.NotFoundHandler())

			operator := redisAs(t, address, "default")
			admin := func(method, path, body string) (int, string) {
				request, err := http.NewRequest(method, "http://"+service.AdminAddr().String()+path, strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				request.Header.Set("Authorization", "Bearer "+service.AdminToken())
				request.Header.Set("Content-Type", "application/json")
				response, err := http.DefaultClient.Do(request)
				if err != nil {
					t.Fatal(err)
				}
				defer response.Body.Close()
				text, _ := io.ReadAll(response.Body)
				return response.StatusCode, string(text)
			}
			harness.Eventually(t, 10*time.Second, "the gateway is listed, with its limit, and not alone", func() error {
				code, text := admin("GET", "/v1/gateways", "")
				if code != http.StatusOK || !strings.Contains(text, `"name":"all"`) || strings.Contains(text, `"alone"`) {
					return fmt.Errorf("%d %s", code, text)
				}
				return nil
			})
			if code, text := admin("POST", "/v1/tokens", `{"user_id":"u1"}`); code != http.StatusOK {
				t.Errorf("issuing: %d %s", code, text)
			}
			r := httptest.NewRequest("GET", "http://shop.example/", nil)
			gate.ServeHTTP(httptest.NewRecorder(), r)
			if code, text := admin("GET", "/v1/limits/all/ip:192.0.2.1", ""); code != http.StatusOK || !strings.Contains(text, `"used":`) || strings.Contains(text, `"used":0`) {
				t.Errorf("counted: %d %s", code, text)
			}
			keys, err := operator.Keys(t.Context(), "*").Result()
			if err != nil || len(keys) < 3 {
				t.Errorf("%q %v", keys, err)
			}
			for _, key := range keys {
				if !strings.HasPrefix(key, want+":") {
					t.Errorf("the key %q", key)
				}
			}
			for _, user := range []string{"gateway", "authsvc"} {
				if err := redisAs(t, address, user).Set(t.Context(), "other:lim:x", 1, 0).Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
					t.Errorf("%s below another prefix: %v", user, err)
				}
			}
			if err := redisAs(t, address, "gateway").Get(t.Context(), want+":usr:u1").Err(); err == nil || !strings.HasPrefix(err.Error(), "NOPERM") {
				t.Errorf("a gateway reads a user: %v", err)
			}
		})
	}
}

// TestKeyPrefixIsRefused: what would mean something else in a file of users, or
// that authsvc would not take, does not start Redis.
func TestKeyPrefixIsRefused(t *testing.T) {
	for _, prefix := range []string{"*", "a b", "a\nuser x on nopass ~* +@all", "a/b", "é", strings.Repeat("a", 33)} {
		command := exec.Command("/bin/sh", "../deploy/redis/start.sh")
		command.Env = append(os.Environ(), "SLUICE_KEY_PREFIX="+prefix)
		if out, err := command.CombinedOutput(); err == nil || !strings.Contains(string(out), "SLUICE_KEY_PREFIX") || !strings.Contains(string(out), "1 to 32") {
			t.Errorf("%q: %v %s", prefix, err, out)
		}
	}
}

// TestKubernetesKeyPrefix: one line of the kustomization is what gateways,
// authsvc and the users of Redis all go by.
func TestKubernetesKeyPrefix(t *testing.T) {
	if _, err := exec.LookPath("kubectl"); err != nil {
		t.Skip("kubectl, which knows kustomizations, is not installed")
	}
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("../deploy")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "kubernetes/kustomization.yaml")
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(content), "key-prefix=sluice", "key-prefix=shop", 1)
	if changed == string(content) {
		t.Fatal("the kustomization has no key-prefix")
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("kubectl", "kustomize", filepath.Dir(file)).Output()
	if err != nil {
		t.Fatal(err)
	}
	settings := regexp.MustCompile(`(?m)^  key-prefix: shop\nkind: ConfigMap\nmetadata:\n  name: (settings-\S+)$`).FindSubmatch(out)
	if settings == nil {
		t.Fatalf("no settings in\n%s", out)
	}
	for variable, count := range map[string]int{"AUTHSVC_REDIS_KEYPREFIX": 1, "SLUICE_KEY_PREFIX": 1} {
		from := fmt.Sprintf("name: %s\n          valueFrom:\n            configMapKeyRef:\n              key: key-prefix\n              name: %s\n", variable, settings[1])
		if n := strings.Count(string(out), from); n != count {
			t.Errorf("%s is told %d times", variable, n)
		}
	}
	gates := 0
	for document := range strings.SplitSeq(string(out), "\n---\n") {
		var object struct {
			Kind string
			Spec struct {
				Plugin *struct {
					Sluice struct {
						Redis struct {
							KeyPrefix string `yaml:"keyPrefix"`
						}
					}
				}
			}
		}
		if err := yaml.Unmarshal([]byte(document), &object); err != nil || object.Kind != "Middleware" || object.Spec.Plugin == nil {
			continue
		}
		gates++
		if got := object.Spec.Plugin.Sluice.Redis.KeyPrefix; got != "shop" {
			t.Errorf("keyPrefix %q in\n%s", got, document)
		}
	}
	if gates != 4 {
		t.Errorf("%d gates", gates)
	}
}
