package test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"go.yaml.in/yaml/v3"

	"github.com/sluice-gateway/sluice/authsvc/config"
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
			// A name that is ours here is anybody's in a registry, where Compose looks
			// before it builds. What is never pulled and not there is built.
			if service.Build != nil && service.PullPolicy != types.PullPolicyNever {
				t.Errorf("%s: image %s may be pulled", name, service.Image)
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
	var environ []string
	for name, value := range project(t, "../compose.yaml").Services["authsvc"].Environment {
		environ = append(environ, name+"="+*value)
	}
	if options, err := config.Load(nil, environ); err != nil || options.AdminListen != ":9001" {
		t.Errorf("adminListen %q, want :9001; %v", options.AdminListen, err)
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
