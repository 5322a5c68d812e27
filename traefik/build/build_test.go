package build

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// fakeGo is a go command that "builds" a shell script, so that everything
// around the real build, which takes minutes, is tested in milliseconds. The
// real one is used by the end-to-end tests.
const fakeGo = `#!/bin/sh
echo "$@" "for $GOOS/$GOARCH" >> "$CALLS"
case "$1" in
mod)
	case "$4" in
	*lego*) echo '{"Dir":"'$LEGO'","Sum":"'$LEGO_SUM'"}' ;;
	*@v1.0.0) echo '{"Dir":"'$PLUGINS/${4%@*}'","Sum":"h1:of"}' ;;
	*) echo '{"Error":"'$4': invalid version: unknown revision"}'; exit 1 ;;
	esac ;;
list)
	echo "go: downloading example.com/a v1.0.0" >&2
	if [ -n "$NO_MODULE" ]; then echo "go: example.com/a@v1.0.0: no such host" >&2; exit 1; fi
	printf 'unsafe\nexample.com/a\n' ;;
build)
	echo "go: downloading example.com/a v1.0.0" >&2
	echo "example.com/a" >&2
	if [ -n "$FAIL" ]; then echo "# example.com/a" >&2; echo "a.go:1:1: syntax error" >&2; exit 1; fi
	case "$*" in *" -o "*) ;; *) exit 0 ;; esac
	while [ "$1" != "-o" ]; do shift; done
	printf '#!/bin/sh\necho "Version:      %s"\n' "$TRAEFIK_VERSION" > "$2"
	chmod +x "$2" ;;
esac
`

// workshop prepares a cache and the fake go command.
func workshop(t *testing.T) (options Options, calls func() string) {
	t.Helper()
	dir := t.TempDir()
	lego := filepath.Join(dir, "lego")
	for name, content := range map[string]string{
		"go":                            fakeGo,
		"lego/lego/client.go":           "package lego",
		"lego/providers/dns/aws/aws.go": "package aws",
		"lego/providers/dns/zz_gen_dns_providers.go": "package dns",
	} {
		if err := write(filepath.Join(dir, name), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, "go"), 0o755); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(dir, "calls")
	for name, value := range map[string]string{"CALLS": log, "LEGO": lego, "LEGO_SUM": legoSum, "TRAEFIK_VERSION": Version, "FAIL": "", "NO_MODULE": "", "PLUGINS": filepath.Join(dir, "plugins")} {
		t.Setenv(name, value)
	}
	return Options{Cache: filepath.Join(dir, "cache"), Go: filepath.Join(dir, "go")}, func() string {
		content, err := os.ReadFile(log)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		return string(content)
	}
}

func TestBuildOnceThenFromTheCache(t *testing.T) {
	options, calls := workshop(t)
	var progress bytes.Buffer
	options.Progress = &progress
	first, err := Build(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(first, Source()[:16]) || !strings.Contains(progress.String(), "Building Traefik "+Version) {
		t.Errorf("path %s, progress %q", first, progress.String())
	}
	for name, want := range map[string]string{
		"go.mod":                   "github.com/traefik/traefik/v3 v" + Version,
		"go.sum":                   "github.com/traefik/traefik/v3 v" + Version + " h1:",
		"ext/ext.go":               "stdlib.Symbols",
		"ext/go.mod":               "module github.com/traefik/traefik/dynamic/ext",
		"sluice/go.mod":            "module github.com/sluice-gateway/sluice",
		"sluice/plugin/sluice.go":  "package plugin",
		"sluice/.traefik.yml":      "import: github.com/sluice-gateway/sluice/plugin",
		"ext/dashboard/index.html": "built without its dashboard",
		"lego/lego/client.go":      "package lego",
		"lego/providers/dns/zz_gen_dns_providers.go": "NewDNSChallengeProviderByName",
	} {
		content, err := os.ReadFile(filepath.Join(options.Cache, "module", name))
		if err != nil || !strings.Contains(string(content), want) {
			t.Errorf("%s lacks %q (%v)", name, want, err)
		}
	}
	if _, err := os.Stat(filepath.Join(options.Cache, "module/lego/providers/dns/aws")); !os.IsNotExist(err) {
		t.Error("a DNS provider was copied")
	}
	for _, flag := range []string{".Version=" + Version, ".Codename=langres", ".BuildDate=20", ".dashboard=false"} {
		if !strings.Contains(calls(), flag) {
			t.Errorf("the linker is not told %s: %s", flag, calls())
		}
	}
	before := calls()
	second, err := Build(t.Context(), options)
	if err != nil || second != first {
		t.Fatalf("second build: %s, %v", second, err)
	}
	if calls() != before {
		t.Errorf("the go command ran again: %s", calls())
	}
}

func TestParallelBuildsWaitForOne(t *testing.T) {
	options, calls := workshop(t)
	var builds sync.WaitGroup
	for range 8 {
		builds.Go(func() {
			if _, err := Build(t.Context(), options); err != nil {
				t.Error(err)
			}
		})
	}
	builds.Wait()
	if n := strings.Count(calls(), "build "); n != 1 {
		t.Errorf("%d builds, want 1", n)
	}
}

func TestBuildFailures(t *testing.T) {
	tests := []struct {
		name, variable, value, want string
	}{
		{"no module", "NO_MODULE", "1", "go: example.com/a@v1.0.0: no such host"},
		{"compiler", "FAIL", "1", "a.go:1:1: syntax error"},
		{"wrong version", "TRAEFIK_VERSION", "3.0.0", `calls itself "3.0.0"`},
		{"another lego", "LEGO_SUM", "h1:forged", "its hash is h1:forged"},
		{"lego that is gone", "LEGO", "/nonexistent", "copy github.com/go-acme/lego"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			options, _ := workshop(t)
			t.Setenv(test.variable, test.value)
			_, err := Build(t.Context(), options)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Fatalf("error %v, want %q", err, test.want)
			}
			left, _ := filepath.Glob(filepath.Join(options.Cache, "traefik-*"))
			if len(left) > 0 {
				t.Errorf("left behind: %q", left)
			}
		})
	}
}

// TestDashboard: pages that are brought are built in, under a name of their own.
func TestDashboard(t *testing.T) {
	options, calls := workshop(t)
	without, err := Build(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	options.WebUI = t.TempDir()
	if _, err := Build(t.Context(), options); err == nil || !strings.Contains(err.Error(), "there is no index.html in it; name webui/static of an unpacked traefik-v3.7.13.src.tar.gz") {
		t.Errorf("error %v", err)
	}
	for name, content := range map[string]string{"index.html": "<p>{{.APIUrl}}", "assets/_plugin.js": "1"} {
		if err := write(filepath.Join(options.WebUI, name), []byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	var progress bytes.Buffer
	options.Progress = &progress
	with, err := Build(t.Context(), options)
	if err != nil || with == without {
		t.Fatalf("%s with pages, %s without, %v", with, without, err)
	}
	for name, want := range map[string]string{"index.html": "<p>{{.APIUrl}}", "assets/_plugin.js": "1"} {
		content, err := os.ReadFile(filepath.Join(options.Cache, "module/ext/dashboard", name))
		if err != nil || string(content) != want {
			t.Errorf("%s is %q (%v)", name, content, err)
		}
	}
	if !strings.Contains(calls(), ".dashboard=true") || strings.Contains(progress.String(), "left out") {
		t.Errorf("calls %s, progress %s", calls(), progress.String())
	}
}

func TestBuildWithoutGo(t *testing.T) {
	options, _ := workshop(t)
	options.Go = ""
	t.Setenv("PATH", t.TempDir())
	if _, err := Build(t.Context(), options); !errors.Is(err, ErrNoGo) {
		t.Fatalf("error %v", err)
	}
}

func TestLockGivesUpWithTheContext(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	unlock, err := lock(t.Context(), name, &bytes.Buffer{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	var progress bytes.Buffer
	if _, err := lock(ctx, name, &progress); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("error %v", err)
	}
	if !strings.Contains(progress.String(), "waiting") {
		t.Errorf("progress %q", progress.String())
	}
	unlock()
	unlock, err = lock(t.Context(), name, &progress)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}

func TestPruneKeepsTheNewestAndWhatIsUsed(t *testing.T) {
	cache := t.TempDir()
	now := time.Now()
	for name, age := range map[string]time.Duration{
		"traefik-oldest": 9 * time.Hour, "traefik-older.new": 8 * time.Hour, "traefik-used": time.Minute,
		"traefik-newer": time.Second, "traefik-newest": 0, "build.lock": 9 * time.Hour,
	} {
		path := filepath.Join(cache, name)
		if err := write(path, nil); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := prune(cache, 2, time.Hour); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(cache)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range left {
		names = append(names, entry.Name())
	}
	if want := []string{"build.lock", "traefik-newer", "traefik-newest", "traefik-used"}; !slices.Equal(names, want) {
		t.Errorf("left %q, want %q", names, want)
	}
}

func TestCacheDir(t *testing.T) {
	home := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", home)
	t.Setenv("SLUICE_CACHE", "")
	if dir, err := CacheDir(); err != nil || filepath.Base(dir) != "sluice" {
		t.Errorf("%s, %v", dir, err)
	}
	t.Chdir(home)
	t.Setenv("SLUICE_CACHE", "here")
	if dir, err := CacheDir(); err != nil || dir != filepath.Join(home, "here") {
		t.Errorf("%s, %v", dir, err)
	}
}

func TestMeterTellsPackagesFromComplaints(t *testing.T) {
	m := newMeter(&bytes.Buffer{}, time.Now())
	defer m.stop()
	for _, piece := range []string{"go: downloading a v1\nexample.com/", "a\nunicode/utf8\n# example.com/b\n", "b.go:1: bad"} {
		if _, err := m.Write([]byte(piece)); err != nil {
			t.Fatal(err)
		}
	}
	if got := m.complaints(); got != "# example.com/b\nb.go:1: bad" || m.packages != 2 {
		t.Errorf("%d packages, complaints %q", m.packages, got)
	}
}

func TestMeterReportsOfHowMany(t *testing.T) {
	var progress bytes.Buffer
	m := newMeter(&progress, time.Now())
	defer m.stop()
	for _, step := range []struct {
		said  string
		total int
		want  string
	}{
		{"go: downloading a v1\ngo: downloading b v1\n", 0, "2 modules downloaded\n"},
		{"example.com/a\n", 1702, "1 of at most 1702 packages compiled\n"},
	} {
		if _, err := m.Write([]byte(step.said)); err != nil {
			t.Fatal(err)
		}
		m.expect(step.total)
		m.report()
		if !strings.HasSuffix(progress.String(), step.want) {
			t.Errorf("%q after %q, want %q", progress.String(), step.said, step.want)
		}
	}
}

func TestVersionOfRefusesOtherPrograms(t *testing.T) {
	if _, err := VersionOf(t.Context(), "/bin/echo"); err == nil || !strings.Contains(err.Error(), "is this a Traefik") {
		t.Fatalf("error %v", err)
	}
}
