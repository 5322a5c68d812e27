package compose

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/traefik/build"
)

// A stand-in carries what it is made of in this label, and so does every image
// that is built upon it.
const standInLabel = "sluice.standin"

// clientImage holds the program of ./client.
const clientImage = "sluice-standin/client"

// standIns make, by repository, an image that behaves as the official one as
// far as this stack goes: programs, folders, users, the form of the entry
// point. The program is another version where Debian has another.
var standIns = map[string]func(context.Context, *image) error{
	"traefik":                  traefikImage,
	"redis":                    redisImage,
	"golang":                   golangImage,
	"prom/prometheus":          prometheusImage,
	"oliver006/redis_exporter": exporterImage,
}

// Needed are the programs and files of this machine that the tests take, and
// Debian's package of each. The Makefile installs them by the same list.
var Needed = [][2]string{
	{"/bin/busybox", "busybox-static"},
	{"/etc/ssl/certs/ca-certificates.crt", "ca-certificates"},
	{"/usr/bin/redis-server", "redis-server"},
	{"/usr/bin/redis-cli", "redis-tools"},
	{"/usr/bin/prometheus", "prometheus"},
	{"/usr/bin/prometheus-redis-exporter", "prometheus-redis-exporter"},
	{"ip", "iproute2"},
	{"nsenter", "util-linux"},
}

// missing names all that is not there, before minutes are spent on the rest.
func missing(needed [][2]string) error {
	var files, packages []string
	for _, need := range needed {
		_, err := os.Stat(need[0])
		if !strings.Contains(need[0], "/") {
			_, err = exec.LookPath(need[0])
		}
		if err != nil {
			files, packages = append(files, need[0]), append(packages, need[1])
		}
	}
	if len(files) == 0 {
		return nil
	}
	return fmt.Errorf("this machine lacks %s; on Debian: apt-get install %s", strings.Join(files, ", "), strings.Join(packages, " "))
}

// makeStandIns gives the engine every base image that it lacks. One that is
// there and not ours is used as it is. Grafana has no package in Debian: its
// image is needed only where that service is asked for.
func (p *Project) makeStandIns(ctx context.Context, root string) error {
	names, err := baseImages(root)
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, "traefik:") {
			p.shellImage = name
		}
		make := standIns[strings.Split(name, ":")[0]]
		if make == nil {
			continue
		}
		label, err := docker(ctx, "image", "inspect", "--format", `{{index .Config.Labels "`+standInLabel+`"}}`, name)
		if official := err == nil && (label == "" || label == "<no value>"); official {
			continue
		}
		fmt.Fprintf(p.log, "making a stand-in for %s\n", name)
		if err := importImage(ctx, name, func(i *image) error { i.shifted = p.shifted; return make(ctx, i) }); err != nil {
			return fmt.Errorf("stand-in for %s: %w", name, err)
		}
		p.StandIns = append(p.StandIns, name)
	}
	return importImage(ctx, clientImage, func(i *image) error {
		binary := filepath.Join(p.Dir, "client")
		if err := buildClient(ctx, root, binary); err != nil {
			return err
		}
		i.what = "test/compose/client"
		i.change(`ENTRYPOINT ["/client"]`)
		i.file("/client", binary)
		return nil
	})
}

func buildClient(ctx context.Context, root, binary string) error {
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-o", binary, "./client")
	build.Dir = filepath.Join(root, "test", "compose")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	_, err := run(build)
	return err
}

// dropStandIns removes the names of stand-ins and what was built upon them, so
// that nobody takes one for the official image later. Go's stays under a name
// of ours, since it takes minutes to make.
func (p *Project) dropStandIns(ctx context.Context) error {
	out, err := docker(ctx, "image", "ls", "--filter", "label="+standInLabel, "--format", "{{.Repository}}:{{.Tag}}")
	for _, name := range strings.Fields(out) {
		if !strings.HasPrefix(name, golangName) && !strings.HasPrefix(name, "<none>") {
			_, dropped := docker(ctx, "image", "rm", name)
			err = errors.Join(err, dropped)
		}
	}
	if len(p.StandIns) > 0 { // programs of the services are built upon scratch
		for _, target := range []string{"secrets", "authsvc", "upstream"} {
			if _, built := docker(ctx, "image", "inspect", "sluice/"+target); built == nil {
				_, dropped := docker(ctx, "image", "rm", "sluice/"+target)
				err = errors.Join(err, dropped)
			}
		}
	}
	for _, label := range []string{standInLabel, "com.docker.compose.project=" + p.Name} {
		_, pruned := docker(ctx, "image", "prune", "--force", "--filter", "label="+label)
		err = errors.Join(err, pruned)
	}
	return err
}

// baseImages are the images that compose.yaml and the Dockerfile take from
// elsewhere.
func baseImages(root string) (names []string, err error) {
	for file, name := range map[string]string{
		"compose.yaml": `(?m)^    image: (\S+:\S+)$`,
		"Dockerfile":   `(?m)^FROM (\S+:\S+)`,
	} {
		content, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			return nil, err
		}
		for _, found := range regexp.MustCompile(name).FindAllStringSubmatch(string(content), -1) {
			if !slices.Contains(names, found[1]) {
				names = append(names, found[1])
			}
		}
	}
	slices.Sort(names)
	return names, nil
}

// The official image is Alpine with Traefik on PATH. The stand-in's program is
// ours, told to interpret the plugin: by a script in its place and not by the
// image's environment, since an image built upon this one, with the program
// replaced by the compiled form, must not inherit that.
func traefikImage(ctx context.Context, i *image) error {
	binary, err := build.Build(ctx, build.Options{})
	if err != nil {
		return err
	}
	i.what = "Traefik " + build.Version + " built from its module, interpreting the plugin; busybox of Debian"
	i.change(`CMD ["traefik"]`)
	i.shell("sh", "cat", "wget")
	i.file("/usr/local/lib/traefik", binary)
	script := "SLUICE_PLUGIN=interpreted exec /usr/local/lib/traefik \"$@\"\n"
	if i.shifted != "" {
		i.what += "; beside it one whose clock can be off"
		i.file("/usr/local/lib/traefik-shifted", i.shifted)
		script = shiftedScript + script
	}
	i.text("/usr/local/bin/traefik", "#!/bin/sh\n"+script, 0o755)
	return nil
}

// The official image runs as user redis, 999, whose home is /data.
func redisImage(ctx context.Context, i *image) error {
	version, err := run(exec.CommandContext(ctx, "redis-server", "--version"))
	if err != nil {
		return err
	}
	i.what = "Debian's " + strings.Join(strings.Fields(version)[:3], " ") + " and busybox"
	i.change("WORKDIR /data", "VOLUME /data", `CMD ["redis-server"]`)
	i.shell("sh", "cat", "cut", "grep", "sed", "sha256sum", "tr")
	i.dir("/data", 999, 0o755)
	i.program(ctx, "/usr/local/bin/redis-server", "/usr/bin/redis-server")
	i.program(ctx, "/usr/local/bin/redis-cli", "/usr/bin/redis-cli")
	return nil
}

// The official image runs as nobody, 65534, and keeps its data in /prometheus.
func prometheusImage(ctx context.Context, i *image) error {
	version, err := exec.CommandContext(ctx, "prometheus", "--version").CombinedOutput()
	if err != nil {
		return err
	}
	i.what = "Debian's " + strings.Join(strings.Fields(string(version))[:3], " ")
	i.change("USER nobody", "WORKDIR /prometheus", "VOLUME /prometheus", `ENTRYPOINT ["/bin/prometheus"]`,
		`CMD ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]`)
	i.dir("/prometheus", 65534, 0o755)
	i.program(ctx, "/bin/prometheus", "/usr/bin/prometheus")
	return nil
}

func exporterImage(ctx context.Context, i *image) error {
	version, err := exec.CommandContext(ctx, "dpkg-query", "--show", "prometheus-redis-exporter").Output()
	if err != nil {
		return err
	}
	i.what = "Debian's " + strings.Join(strings.Fields(string(version)), " ")
	i.change("USER 59000:59000", `ENTRYPOINT ["/redis_exporter"]`)
	i.program(ctx, "/redis_exporter", "/usr/bin/prometheus-redis-exporter")
	return nil
}

// golangName is where stand-ins for Go stay between runs.
const golangName = "sluice-standin/golang"

// golangImage is this machine's Go, a shell, and every module that the
// Dockerfile compiles, so that its build asks no proxy. What Traefik compiles
// to is in the build cache, or each change of the plugin would cost minutes.
// Both are made once, in a cache of their own, by the very commands of the
// Dockerfile.
func golangImage(ctx context.Context, i *image) error {
	root, err := Root()
	if err != nil {
		return err
	}
	cache, err := cacheDir()
	if err != nil {
		return err
	}
	goroot, err := run(exec.CommandContext(ctx, "go", "env", "GOROOT", "GOMODCACHE", "GOPROXY", "GOVERSION"))
	if err != nil {
		return err
	}
	known := strings.Split(goroot, "\n")
	i.what = known[3] + " of this machine, modules, build cache"

	key := sha256.New()
	fmt.Fprintln(key, known[3], known[0])
	for _, file := range []string{"go.sum", "traefik/build/recipe/traefik.mod", "traefik/build/recipe/traefik.sum"} {
		content, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			return err
		}
		key.Write(content)
	}
	i.kept = golangName + ":" + hex.EncodeToString(key.Sum(nil))[:12]
	if _, err := docker(ctx, "image", "inspect", i.kept); err == nil {
		return nil
	}

	mod, objects := filepath.Join(cache, "mod"), filepath.Join(cache, "gocache")
	for _, line := range [][]string{
		{"go", "mod", "download"},
		{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", os.DevNull, "./cmd/authsvc"},
		{"go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", os.DevNull, "./services/cmd/upstream"},
		{"go", "run", "./cmd/sluice", "traefik", "build"},
	} {
		cmd := exec.CommandContext(ctx, line[0], line[1:]...)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=0", "GOMODCACHE="+mod, "GOCACHE="+objects, "SLUICE_CACHE="+filepath.Join(cache, "traefik"),
			"GOPROXY=file://"+filepath.Join(known[1], "cache", "download")+","+known[2])
		if _, err := run(cmd); err != nil {
			return err
		}
	}
	i.change("ENV PATH=/usr/local/go/bin:/bin GOPATH=/go GOCACHE=/go/cache GOPROXY=off GOSUMDB=off GOTOOLCHAIN=local CGO_ENABLED=0 HOME=/tmp", "WORKDIR /go")
	i.shell("sh", "cp", "ls", "mkdir")
	i.dir("/tmp", 0, 0o777)
	i.file("/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt")
	i.tree("/usr/local/go", known[0], "api", "doc", "misc", "test")
	i.tree("/go/pkg/mod", mod)
	i.tree("/go/cache", objects)
	return nil
}

// image is one in the making: a flat archive that the engine imports.
type image struct {
	what    string // for the label
	shifted string // a Traefik whose clock can be off
	kept    string // the name of one that is there already, or is to be kept under it
	changes []string
	parts   []func(*tar.Writer) error
	made    map[string]bool
}

// importImage makes an image. Its parts are written while the engine reads.
func importImage(ctx context.Context, name string, describe func(*image) error) error {
	i := &image{made: map[string]bool{}}
	if err := describe(i); err != nil {
		return err
	}
	target := name
	if i.kept != "" {
		target = i.kept
	}
	if len(i.parts) > 0 {
		args := []string{"import", "--change", fmt.Sprintf("LABEL %s=%q", standInLabel, i.what)}
		for _, change := range i.changes {
			args = append(args, "--change", change)
		}
		cmd := exec.CommandContext(ctx, "docker", append(args, "-", target)...)
		reader, writer := io.Pipe()
		cmd.Stdin = reader
		go func() { writer.CloseWithError(i.write(writer)) }()
		if _, err := run(cmd); err != nil {
			return err
		}
	}
	if target == name {
		return nil
	}
	_, err := docker(ctx, "tag", target, name)
	return err
}

func (i *image) write(to io.Writer) error {
	w := tar.NewWriter(to)
	for _, part := range i.parts {
		if err := part(w); err != nil {
			return err
		}
	}
	return w.Close()
}

func (i *image) change(lines ...string) { i.changes = append(i.changes, lines...) }

func (i *image) dir(name string, owner int, mode fs.FileMode) {
	i.parts = append(i.parts, func(w *tar.Writer) error {
		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimPrefix(name, "/") + "/", Mode: int64(mode), Uid: owner, Gid: owner})
	})
}

func (i *image) text(name, content string, mode fs.FileMode) {
	i.parts = append(i.parts, func(w *tar.Writer) error {
		err := w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(name, "/"), Mode: int64(mode), Size: int64(len(content))})
		if err == nil {
			_, err = io.WriteString(w, content)
		}
		return err
	})
}

// file copies one of this machine, unless it is in the image already.
func (i *image) file(name, from string) {
	if i.made[name] {
		return
	}
	i.made[name] = true
	i.parts = append(i.parts, func(w *tar.Writer) error { return copyFile(w, name, from) })
}

func copyFile(w *tar.Writer, name, from string) error {
	file, err := os.Open(from) // a link is followed
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	err = w.WriteHeader(&tar.Header{Name: strings.TrimPrefix(name, "/"), Mode: int64(info.Mode().Perm()), Size: info.Size(), ModTime: info.ModTime()})
	if err == nil {
		_, err = io.Copy(w, file)
	}
	return err
}

// tree copies a folder, without those of its first level that are named.
func (i *image) tree(name, from string, without ...string) {
	i.parts = append(i.parts, func(w *tar.Writer) error {
		return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			switch {
			case entry.IsDir() && slices.Contains(without, relative):
				return filepath.SkipDir
			case entry.Type().IsRegular():
				return copyFile(w, filepath.Join(name, relative), path)
			}
			return nil
		})
	})
}

// shell gives the image busybox under these names.
func (i *image) shell(names ...string) {
	i.file("/bin/busybox", "/bin/busybox")
	for _, name := range names {
		i.parts = append(i.parts, func(w *tar.Writer) error {
			return w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: "bin/" + name, Linkname: "busybox"})
		})
	}
}

// library is a line of ldd's: a name, and where it is.
var library = regexp.MustCompile(`(?m)^\s*(?:\S+ => )?(/\S+) \(0x`)

// program copies one and the libraries it is linked with.
func (i *image) program(ctx context.Context, name, from string) {
	i.file(name, from)
	out, err := run(exec.CommandContext(ctx, "ldd", from))
	if err != nil {
		i.parts = append(i.parts, func(*tar.Writer) error { return err })
		return
	}
	for _, found := range library.FindAllStringSubmatch(out, -1) {
		i.file(found[1], found[1])
	}
}
