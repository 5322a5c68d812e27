package e2e

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/harness"
)

// TestListsReachThePlugin: what a list, a text with commas and the order of tiers
// become between a user's file and the plugin is Traefik's doing. So a real one
// reads them, from a file and from a key-value store; package forms shows labels.
// Of a list of texts in a store Traefik makes one text with commas.
func TestListsReachThePlugin(t *testing.T) {
	const bo = "cn=Bo Li,ou=people"
	auth := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, roles, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer "), "|")
		w.Header().Set("X-User-ID", user)
		w.Header().Set("X-User-Roles", roles)
		w.Header().Set("X-Tenant-ID", "tenant-of-"+user)
	}))
	defer auth.Close()
	for _, form := range forms {
		t.Run(form, func(t *testing.T) {
			redis := harness.StartRedis(t)
			_, echo := harness.StartUpstream(t)
			folder, address := traefikFolder(t, fmt.Sprintf(", redis: {endpoints: [%q]}", redis.Addr))
			write(t, filepath.Join(folder, "dynamic.yml"), fmt.Sprintf(`
http:
  routers: {file: {rule: "PathPrefix(§/file§)", middlewares: [gate], service: echo}}
  services: {echo: {loadBalancer: {servers: [{url: %q}]}}}
  middlewares:
    gate:
      plugin:
        sluice:
          redis: {addresses: [%q], timeout: 1s}
          auth: {addresses: [%q], responseHeaders: [X-User-ID, X-User-Roles, X-Tenant-ID]}
          exempt: {users: [%q, boss]}
          limits:
            - {name: file, key: "header:X-Tenant-ID", limit: 1, window: 1h, onMissingKey: deny, tierHeader: X-User-Roles, tiers: [{trial: 2}, {pro: 4, free: 3}]}
            - {name: host, key: "header:Host", limit: 12, window: 1h, onMissingKey: deny}
`, echo, redis.Addr, auth.URL, bo))
			const root = "traefik/http/"
			const plugin = root + "middlewares/gate/plugin/sluice/"
			for key, value := range map[string]string{
				root + "routers/store/rule":                       "PathPrefix(`/store`)",
				root + "routers/store/middlewares/0":              "gate",
				root + "routers/store/service":                    "echo",
				root + "services/echo/loadBalancer/servers/0/url": echo,
				plugin + "redis/addresses":                        redis.Addr,
				plugin + "redis/timeout":                          "1s",
				plugin + "auth/addresses":                         auth.URL,
				plugin + "auth/responseHeaders":                   "X-User-ID,X-User-Roles,X-Tenant-ID",
				plugin + "exempt/users/0":                         "root",
				plugin + "exempt/users/1":                         "boss",
				plugin + "limits/0/name":                          "store",
				plugin + "limits/0/key":                           "header:X-Tenant-ID",
				plugin + "limits/0/limit":                         "1",
				plugin + "limits/0/window":                        "1h",
				plugin + "limits/0/onMissingKey":                  "deny",
				plugin + "limits/0/tierHeader":                    "X-User-Roles",
				plugin + "limits/0/tiers/0/trial":                 "2",
				plugin + "limits/0/tiers/1/pro":                   "4",
				plugin + "limits/0/tiers/1/free":                  "3",
			} {
				if err := redis.Client.Set(t.Context(), key, value, 0).Err(); err != nil {
					t.Fatal(err)
				}
			}
			harness.StartTraefik(t, folder, append(os.Environ(), "SLUICE_PLUGIN="+form)...)
			redis.AwaitGateways(prefix, 1)
			client := harness.NewClient()
			defer client.CloseIdleConnections()
			send := func(path, host, token string) int {
				r, err := http.NewRequest("GET", "http://"+address+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Host = host
				r.Header.Set("Authorization", "Bearer "+token)
				r.Header.Set("X-Tenant-ID", "claimed")
				answer, err := client.Do(r)
				if err != nil {
					return 0
				}
				answer.Body.Close()
				return answer.StatusCode
			}
			for path, exempt := range map[string]string{"/file": bo, "/store": "root"} {
				harness.Eventually(t, 30*time.Second, path+" is served", func() error {
					if code := send(path, "probe.example", "boss"); code != 200 {
						return fmt.Errorf("%d", code)
					}
					return nil
				})
				redis.RoomIn(time.Hour, 30*time.Second)
				for _, step := range []struct {
					token string
					want  int // of six
				}{
					{"ann", 1},
					{exempt, 6},
					{"cn=Bo Li", 1},
					{"pat|offline_access free pro", 4},
					{"try|pro trial", 2},
				} {
					passed := 0
					for i := range 6 {
						// The exempt are no limit's, the others' hosts all differ.
						if send(path, fmt.Sprintf("h%d-%d.example", len(step.token), i), step.token) == 200 {
							passed++
						}
					}
					if passed != step.want {
						t.Errorf("%s: %d requests of %q passed, want %d", path, passed, step.token, step.want)
					}
				}
			}
			passed := 0
			for i := range 20 {
				host := []string{"shop.example", "Shop.Example", "shop.example:8443", "SHOP.example."}[i%4]
				if send("/file", host, fmt.Sprintf("visitor-%d", i)) == 200 {
					passed++
				}
			}
			if passed != 12 {
				t.Errorf("%d requests to one host passed a limit of 12", passed)
			}
		})
	}
}
