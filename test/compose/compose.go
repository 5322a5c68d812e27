// Package compose brings the shipped compose.yaml up on a real Docker engine,
// unchanged, for tests that ask from outside and take parts away.
//
// Open works in this order:
//
//  1. names what this machine lacks, then finds Docker Compose 2, or builds it;
//  2. copies what the stack is made of into a folder of its own, where a test
//     may edit routes without touching the source tree;
//  3. makes a stand-in of every base image that the engine does not have, since
//     it may have no registry to ask: standin.go;
//  4. builds our images by the Dockerfile, and waits until all is healthy.
//
// Close takes it all away again: containers, networks, volumes, and the names
// of the stand-ins. The containers run under a project name of their own, and
// the engine has to be on this machine: tests reach containers by address.
package compose

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Available says why there is no engine to use; nil if there is one.
func Available(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	if _, err := docker(ctx, "version", "--format", "{{.Server.Version}}"); err != nil {
		return fmt.Errorf("no Docker engine: %w", err)
	}
	return nil
}

// Options say what to bring up.
type Options struct {
	Clocks bool      // make a Traefik whose clock can be set: SetClock
	Log    io.Writer // what is being done
}

// Project is the stack on the engine.
type Project struct {
	Name string
	Dir  string // the copy of the tree; traefik/fast.yml in it is what the gateways watch

	HTTP, HTTPS string // the published front door

	Compose  string   // version of Docker Compose
	StandIns []string // images that are not the official ones

	command  []string
	files    []string
	profiles []string
	env      map[string]string
	log      io.Writer

	shellImage string // Traefik's, which has a shell
	shifted    string // a Traefik whose clock can be off, on this machine; empty: none
}

// Open brings the stack up. The context bounds it; whatever went wrong, Close
// has been called.
func Open(ctx context.Context, o Options) (_ *Project, err error) {
	p := &Project{Name: "sluicetest", log: o.Log, files: []string{"compose.yaml"}, env: map[string]string{}}
	if err := missing(Needed); err != nil {
		return nil, err
	}
	if p.command, p.Compose, err = findCompose(ctx, p.log); err != nil {
		return nil, err
	}
	root, err := Root()
	if err != nil {
		return nil, err
	}
	if p.Dir, err = os.MkdirTemp("", "sluice-compose-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
			defer cancel()
			err = errors.Join(err, p.Close(bounded))
		}
	}()
	if err := copyTree(root, p.Dir); err != nil {
		return nil, err
	}
	ports, err := freePorts(2)
	if err != nil {
		return nil, err
	}
	p.SetGateways(3)
	// The port of HTTP can be bound to loopback alone; that of HTTPS cannot,
	// because the redirect names it.
	p.env["SLUICE_HTTP_PORT"] = "127.0.0.1:" + ports[0]
	p.env["SLUICE_HTTPS_PORT"] = ports[1]
	p.HTTP, p.HTTPS = "http://127.0.0.1:"+ports[0], "https://127.0.0.1:"+ports[1]

	if o.Clocks {
		if p.shifted, err = shiftedTraefik(ctx, p.log); err != nil {
			return nil, err
		}
	}
	if err := p.makeStandIns(ctx, root); err != nil {
		return nil, err
	}
	return p, p.Up(ctx)
}

// SetGateways is the one setting that scales; the next Up heeds it.
func (p *Project) SetGateways(n int) { p.env["SLUICE_GATEWAYS"] = strconv.Itoa(n) }

// SetCompiled chooses the form of the plugin; the next Up heeds it.
func (p *Project) SetCompiled(compiled bool) {
	p.files = p.files[:1]
	if compiled {
		p.files = append(p.files, "compose.compiled.yaml")
	}
}

// SetProfile adds a profile to every later command.
func (p *Project) SetProfile(name string) { p.profiles = append(p.profiles, name) }

// Up builds what has to be built and brings the named services up, or all, and
// returns when they are healthy.
func (p *Project) Up(ctx context.Context, services ...string) error {
	begun := time.Now()
	if _, err := p.compose(ctx, append([]string{"build", "--quiet"}, services...)...); err != nil {
		return err
	}
	fmt.Fprintf(p.log, "images built in %v\n", time.Since(begun).Round(time.Second))
	begun = time.Now()
	if _, err := p.compose(ctx, append([]string{"up", "--detach", "--wait", "--wait-timeout", "180", "--quiet-pull"}, services...)...); err != nil {
		logs, _ := p.compose(context.WithoutCancel(ctx), "logs", "--no-color", "--tail", "15") // for the message only
		return fmt.Errorf("%w\n%s", err, logs)
	}
	fmt.Fprintf(p.log, "up and healthy in %v\n", time.Since(begun).Round(time.Second))
	return nil
}

// Close removes containers, networks and volumes, and what images the run made
// upon stand-ins. It may be called for a project that is half up.
func (p *Project) Close(ctx context.Context) error {
	p.profiles = []string{"*"}
	_, err := p.compose(ctx, "down", "--volumes", "--remove-orphans", "--timeout", "5")
	return errors.Join(err, p.dropStandIns(ctx), os.RemoveAll(p.Dir))
}

// compose runs Docker Compose on this project.
func (p *Project) compose(ctx context.Context, args ...string) (string, error) {
	line := append(slices.Clone(p.command), "--project-name", p.Name, "--project-directory", p.Dir, "--progress", "quiet")
	for _, file := range p.files {
		line = append(line, "--file", filepath.Join(p.Dir, file))
	}
	for _, profile := range p.profiles {
		line = append(line, "--profile", profile)
	}
	cmd := exec.CommandContext(ctx, line[0], append(line[1:], args...)...)
	for _, known := range os.Environ() {
		if !strings.HasPrefix(known, "SLUICE_") && !strings.HasPrefix(known, "COMPOSE_") {
			cmd.Env = append(cmd.Env, known)
		}
	}
	for name, value := range p.env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return run(cmd)
}

// Container is one of the project's.
type Container struct {
	ID, Name, Service string
	Number            int
	Running           bool
	Health            string            // empty where nothing checks
	PID               int               // of its first process, on this machine
	Address           map[string]string // by network, as compose.yaml names it
	Inspected         Inspected
}

// Inspected is what `docker inspect` says, as far as tests ask.
type Inspected struct {
	ID     string `json:"Id"`
	Name   string
	Image  string
	Config struct {
		Hostname string
		User     string
		Labels   map[string]string
	}
	HostConfig struct {
		Privileged, ReadonlyRootfs bool
		CapAdd, CapDrop            []string
		SecurityOpt                []string
		PidsLimit                  *int64
		NetworkMode                string
		PortBindings               map[string][]struct{ HostIP, HostPort string }
		Memory                     int64
	}
	State struct {
		Running, Paused bool
		ExitCode, Pid   int
		Health          *struct{ Status string }
	}
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress, Gateway string }
	}
}

// Containers lists those of the named services, or all, by service and number.
func (p *Project) Containers(ctx context.Context, services ...string) ([]Container, error) {
	out, err := docker(ctx, "ps", "--all", "--quiet", "--no-trunc", "--filter", "label=com.docker.compose.project="+p.Name)
	if err != nil || out == "" {
		return nil, err
	}
	described, err := docker(ctx, append([]string{"inspect"}, strings.Fields(out)...)...)
	if err != nil {
		return nil, err
	}
	var all []Inspected
	if err := json.Unmarshal([]byte(described), &all); err != nil {
		return nil, fmt.Errorf("docker inspect: %w", err)
	}
	var found []Container
	for _, one := range all {
		c := Container{ID: one.ID, Name: strings.TrimPrefix(one.Name, "/"), Service: one.Config.Labels["com.docker.compose.service"],
			Running: one.State.Running, PID: one.State.Pid, Address: map[string]string{}, Inspected: one}
		c.Number, _ = strconv.Atoi(one.Config.Labels["com.docker.compose.container-number"]) // 0 for none
		if one.State.Health != nil {
			c.Health = one.State.Health.Status
		}
		for network, at := range one.NetworkSettings.Networks {
			c.Address[strings.TrimPrefix(network, p.Name+"_")] = at.IPAddress
		}
		if len(services) == 0 || slices.Contains(services, c.Service) {
			found = append(found, c)
		}
	}
	slices.SortFunc(found, func(a, b Container) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), cmp.Compare(a.Number, b.Number))
	})
	return found, nil
}

// Container is the one of a service with a number, counted from 1.
func (p *Project) Container(ctx context.Context, service string, number int) (Container, error) {
	all, err := p.Containers(ctx, service)
	for _, c := range all {
		if c.Number == number {
			return c, nil
		}
	}
	return Container{}, errors.Join(err, fmt.Errorf("no container %s-%s-%d", p.Name, service, number))
}

// Kill ends a container without notice; Docker does not start it again.
func (p *Project) Kill(ctx context.Context, c Container) error { return act(ctx, "kill", c) }

// Stop tells a container to end, and waits for it.
func (p *Project) Stop(ctx context.Context, c Container) error { return act(ctx, "stop", c) }

// Start starts a container that has ended.
func (p *Project) Start(ctx context.Context, c Container) error { return act(ctx, "start", c) }

// Pause freezes every process of a container: connections stay, nothing answers.
// On a busy machine the kernel's freezer gives up now and then, and is asked again.
func (p *Project) Pause(ctx context.Context, c Container) (err error) {
	for range 5 {
		if err = act(ctx, "pause", c); err == nil || !strings.Contains(err.Error(), "unable to freeze") {
			break
		}
	}
	return err
}

// Unpause ends Pause.
func (p *Project) Unpause(ctx context.Context, c Container) error { return act(ctx, "unpause", c) }

func act(ctx context.Context, what string, c Container) error {
	_, err := docker(ctx, what, c.ID)
	return err
}

// Cut takes a container off a network, as named by compose.yaml.
func (p *Project) Cut(ctx context.Context, c Container, network string) error {
	_, err := docker(ctx, "network", "disconnect", p.network(network), c.ID)
	return err
}

// Join ends Cut: the container has its address and its service's name again.
func (p *Project) Join(ctx context.Context, c Container, network string) error {
	args := []string{"network", "connect", "--alias", c.Service}
	if fixed := c.Address[network]; fixed != "" && c.Service == "lb" && network == "front" {
		args = append(args, "--ip", fixed) // Docker allows it only where compose.yaml gives the subnet
	}
	_, err := docker(ctx, append(args, p.network(network), c.ID)...)
	return err
}

func (p *Project) network(name string) string { return p.Name + "_" + name }

// Host is this machine's own address in one of the project's networks, internal
// ones included: the bridge's.
func (p *Project) Host(ctx context.Context, network string) (string, error) {
	out, err := docker(ctx, "network", "inspect", "--format", "{{range .IPAM.Config}}{{.Subnet}}{{end}}", p.network(network))
	if err != nil {
		return "", err
	}
	_, subnet, err := net.ParseCIDR(out)
	if err != nil {
		return "", fmt.Errorf("network %s: %w", network, err)
	}
	addresses, err := net.InterfaceAddrs()
	for _, a := range addresses {
		if own, ok := a.(*net.IPNet); ok && subnet.Contains(own.IP) {
			return own.IP.String(), nil
		}
	}
	return "", errors.Join(err, fmt.Errorf("no address of this machine in %s: is the engine elsewhere?", subnet))
}

// Networks maps the project's networks to whether they are internal.
func (p *Project) Networks(ctx context.Context) (map[string]bool, error) {
	out, err := docker(ctx, "network", "ls", "--filter", "label=com.docker.compose.project="+p.Name, "--format", "{{.Name}} {{.Internal}}")
	networks := map[string]bool{}
	for line := range strings.Lines(out) {
		var name string
		var internal bool
		if _, err := fmt.Sscan(line, &name, &internal); err != nil {
			return nil, err
		}
		networks[strings.TrimPrefix(name, p.Name+"_")] = internal
	}
	return networks, err
}

// Logs is what a container has written, both streams.
func (p *Project) Logs(ctx context.Context, c Container) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", "logs", c.ID)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// ReadFile reads a file of a container, volumes included. The container needs
// no shell for it.
func (p *Project) ReadFile(ctx context.Context, c Container, name string) ([]byte, error) {
	out, err := docker(ctx, "cp", c.ID+":"+name, "-")
	if err != nil {
		return nil, err
	}
	archive := tar.NewReader(strings.NewReader(out))
	if _, err := archive.Next(); err != nil {
		return nil, err
	}
	return io.ReadAll(archive)
}

// InVolume runs a shell script as the stack's user on one of the project's
// volumes, at /volume, with the given standard input. It needs no container
// that may write there.
func (p *Project) InVolume(ctx context.Context, volume, script string, input []byte) (string, error) {
	return p.InVolumeAs(ctx, "65532:65532", volume, script, input)
}

// InVolumeAs is InVolume for a volume that belongs to another user.
func (p *Project) InVolumeAs(ctx context.Context, user, volume, script string, input []byte) (string, error) {
	cmd := exec.CommandContext(ctx, "docker", "run", "--rm", "--interactive", "--network=none", "--user="+user,
		"--volume="+p.Name+"_"+volume+":/volume", "--entrypoint=/bin/sh", p.shellImage, "-euc", script)
	cmd.Stdin = bytes.NewReader(input)
	return run(cmd)
}

// Client runs the client of ./client in a container of its own on one network
// of the project, or, without a name, on Docker's default network, and returns
// what it prints: see ./client for its words.
func (p *Project) Client(ctx context.Context, network string, words ...string) (string, error) {
	args := []string{"run", "--rm", "--read-only", "--cap-drop=ALL", "--user=65532:65532", "--label=com.docker.compose.project=" + p.Name}
	if network != "" {
		args = append(args, "--network="+p.network(network))
	}
	return docker(ctx, append(append(args, clientImage), words...)...)
}

// Root is the source tree that the test runs in.
func Root() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, missing := os.Stat(filepath.Join(dir, "compose.yaml")); missing == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no compose.yaml in this folder or above it")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// copyTree copies what images are built from, which .dockerignore lists, and
// what compose.yaml mounts.
func copyTree(from, to string) error {
	ignore, err := os.ReadFile(filepath.Join(from, ".dockerignore"))
	if err != nil {
		return err
	}
	parts := []string{".dockerignore", "Dockerfile", "compose.yaml", "compose.compiled.yaml", "deploy"}
	for _, kept := range regexp.MustCompile(`(?m)^!(.+)$`).FindAllStringSubmatch(string(ignore), -1) {
		parts = append(parts, kept[1])
	}
	for _, part := range parts {
		err := filepath.WalkDir(filepath.Join(from, part), func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			relative, err := filepath.Rel(from, path)
			if err != nil {
				return err
			}
			target := filepath.Join(to, relative)
			if entry.IsDir() {
				return os.MkdirAll(target, 0o755)
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			return errors.Join(os.MkdirAll(filepath.Dir(target), 0o755), os.WriteFile(target, content, 0o644))
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// freePorts are TCP ports that nobody listens on at the moment.
func freePorts(n int) (ports []string, err error) {
	for range n {
		listener, err := net.Listen("tcp", ":0")
		if err != nil {
			return nil, err
		}
		defer listener.Close()
		_, port, err := net.SplitHostPort(listener.Addr().String())
		if err != nil {
			return nil, err
		}
		ports = append(ports, port)
	}
	return ports, nil
}

// docker runs the docker command.
func docker(ctx context.Context, args ...string) (string, error) {
	return run(exec.CommandContext(ctx, "docker", args...))
}

// run returns what a command wrote to standard output; an error carries what it
// wrote to the other.
func run(cmd *exec.Cmd) (string, error) {
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %w\n%s", strings.Join(cmd.Args, " "), err, tail(complaints.String()))
	}
	return strings.TrimRight(out.String(), "\n"), nil
}

// tail is the end of a long complaint.
func tail(text string) string {
	const most = 4000 // bytes
	if len(text) > most {
		text = text[len(text)-most:]
	}
	return strings.TrimSpace(text)
}

// Versions are of the engine, of Compose and of every official or stood-in
// image, for the record.
func (p *Project) Versions(ctx context.Context) (map[string]string, error) {
	engine, err := docker(ctx, "version", "--format", "{{.Server.Version}}")
	if err != nil {
		return nil, err
	}
	versions := map[string]string{"Docker engine": engine, "Docker Compose": p.Compose}
	stood := map[string]string{}
	for _, image := range p.StandIns {
		label, err := docker(ctx, "image", "inspect", "--format", `{{index .Config.Labels "`+standInLabel+`"}}`, image)
		if err != nil {
			return nil, err
		}
		stood[image] = "stand-in: " + label
	}
	maps.Copy(versions, stood)
	return versions, nil
}
