package plugin

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice/internal/dynconf"
	"github.com/sluice-gateway/sluice/plugin/config"
)

// decode reads YAML onto a Config as Traefik does.
func decode(t testing.TB, text []byte) *Config {
	t.Helper()
	var raw map[string]interface{}
	if err := yaml.Unmarshal(text, &raw); err != nil {
		t.Fatal(err)
	}
	c := CreateConfig()
	if err := dynconf.Decode(raw, c); err != nil {
		t.Fatal(err)
	}
	return c
}

// The reference in docs/configuration.md names every key, and the default it
// states is the one that leaving the key out gives.
func TestReferenceNamesEveryKey(t *testing.T) {
	reference, err := os.ReadFile("../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml plugin\n(.*?)```").FindSubmatch(reference)
	if block == nil {
		t.Fatal("docs/configuration.md has no block marked `yaml plugin`")
	}
	full := decode(t, block[1])
	minimal := decode(t, []byte(`
redis: {addresses: ["redis:6379"]}
auth: {addresses: ["http://authsvc:9000/auth"]}
limits: [{name: per-user, key: user, limit: 100, window: 60s}]
`))
	for _, c := range []*Config{full, minimal} {
		if problems := c.Problems(); len(problems) > 0 {
			t.Fatal(strings.Join(problems, "\n"))
		}
	}
	written, _ := full.Read()
	defaults, _ := minimal.Read()
	// Passwords are functions and so cannot be compared; what they give can.
	for _, s := range []*config.Settings{written, defaults} {
		if password, err := s.Redis.Client.Password(); password != "" || err != nil {
			t.Fatal(password, err)
		}
		s.Redis.Client.Password = nil
		s.Redis.Identity, s.Auth.Identity = "", "" // as written, so false and absent differ
	}
	if written.Auth.TLS == nil { // an empty section still means TLS's own defaults
		t.Log("auth.tls is empty")
	}
	written.Auth.TLS, defaults.Auth.TLS = nil, nil
	if !reflect.DeepEqual(written, defaults) {
		t.Errorf("the reference's defaults are not those of leaving keys out:\n%+v\n%+v", written, defaults)
	}

	var documented map[string]interface{}
	if err := yaml.Unmarshal(block[1], &documented); err != nil {
		t.Fatal(err)
	}
	compareKeys(t, "", reflect.TypeOf(Config{}), documented)
}

// compareKeys reports the fields of a struct that a section lacks; those it has
// too many are unknown keys, which Problems reports.
func compareKeys(t *testing.T, path string, of reflect.Type, section map[string]interface{}) {
	for i := 0; i < of.NumField(); i++ {
		name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		value, ok := section[name]
		if !ok {
			if path+name != "auth.tls.enabled" { // the scheme of the address says it
				t.Errorf("the reference does not name %s%s", path, name)
			}
			continue
		}
		field := of.Field(i).Type
		if field.Kind() == reflect.Pointer || field.Kind() == reflect.Slice {
			field = field.Elem()
		}
		if field.Kind() != reflect.Struct {
			continue
		}
		if list, ok := value.([]interface{}); ok {
			value = list[0]
		}
		compareKeys(t, path+name+".", field, value.(map[string]interface{}))
	}
}

// The manifest's testData is a configuration that loads (the catalog tries).
func TestManifestLoads(t *testing.T) {
	manifest, err := os.ReadFile("../.traefik.yml")
	if err != nil {
		t.Fatal(err)
	}
	var parsed struct {
		TestData map[string]interface{} `yaml:"testData"`
	}
	if err := yaml.Unmarshal(manifest, &parsed); err != nil {
		t.Fatal(err)
	}
	text, err := yaml.Marshal(parsed.TestData)
	if err != nil {
		t.Fatal(err)
	}
	if problems := decode(t, text).Problems(); len(problems) > 0 {
		t.Fatal(strings.Join(problems, "\n"))
	}
}
