// Package docs runs what the documents tell their readers to type.
//
// Blocks marked console are run, in order, each document in a bash of its own
// with one `sluice up` behind all of them. A line that begins with "$ " is a
// command; what is printed below it has to be in the command's output, line by
// line in that order, where ... stands for anything. A block with a further
// word is not run, and held to what can be told without:
//
//   - console long: the command takes minutes, or is what this suite has done by
//     itself. Its make targets, packages and flags exist.
//   - console docker: needs an engine and images. Its compose files load
//     together, and services, profiles and variables are theirs.
//   - console kubectl: needs a cluster. What is applied can be rendered, and the
//     resources that are named are in it.
//   - console helm: needs a cluster, too. Our chart can be rendered with the values
//     that are given, as with the blocks of values.
package docs

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"go.yaml.in/yaml/v3"
	"helm.sh/helm/v4/pkg/strvals"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
	"github.com/sluice-gateway/sluice/internal/docs"
	"github.com/sluice-gateway/sluice/test/harness"
	"github.com/sluice-gateway/sluice/test/rendering"
)

const root = "../.."

// command is one line to type, and what is shown below it.
type command struct {
	line  int
	text  string
	shown []string
}

// commands takes a block apart. A line that ends in a backslash goes on in the next.
func commands(b *docs.Block) (all []*command, err error) {
	more := false
	for i, line := range strings.Split(strings.TrimSuffix(b.Text, "\n"), "\n") {
		typed, isCommand := strings.CutPrefix(line, "$ ")
		switch {
		case more:
			all[len(all)-1].text += "\n" + line
			typed = line
		case isCommand:
			all = append(all, &command{line: b.Line + i, text: typed})
		case len(all) == 0:
			return nil, fmt.Errorf("%s: begins with no command", b)
		default:
			all[len(all)-1].shown = append(all[len(all)-1].shown, line)
			continue
		}
		more = strings.HasSuffix(typed, `\`)
	}
	return all, nil
}

// shows tells which of the shown lines an output lacks.
func shows(output string, shown []string) (missing string, ok bool) {
	lines := strings.Split(strings.ReplaceAll(output, "\r", ""), "\n")
	for _, want := range shown {
		if want == "..." || want == "" {
			continue
		}
		parts := strings.Split(want, "...")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		pattern := regexp.MustCompile(`^\s*` + strings.Join(parts, ".*") + `\s*$`)
		at := slices.IndexFunc(lines, func(line string) bool { return pattern.MatchString(line) })
		if at < 0 {
			return want, false
		}
		lines = lines[at+1:]
	}
	return "", true
}

// TestShows tries the comparison itself.
func TestShows(t *testing.T) {
	output := "HTTP/1.1 200 OK\r\nX-Request-Id: 17\r\n\r\nbody"
	for _, c := range []struct {
		shown string
		want  bool
	}{
		{"HTTP/1.1 200 OK\n...\nbody", true}, {"X-Request-Id: ...", true}, {"body\nHTTP/1.1 200 OK", false}, {"X-Request-Id: 18", false}, {"X-Request-Id", false},
	} {
		if _, got := shows(output, strings.Split(c.shown, "\n")); got != c.want {
			t.Errorf("%q: %t", c.shown, got)
		}
	}
}

// TestConsole runs the documents.
func TestConsole(t *testing.T) {
	documents, err := docs.Load(root)
	if err != nil {
		t.Fatal(err)
	}
	// The tour first: that is the order in which they are read.
	slices.SortStableFunc(documents, func(a, b *docs.Document) int {
		return cmp.Compare(a.Name, b.Name) + 100*(order(a)-order(b))
	})
	s := open(t)
	for _, d := range documents {
		var run []*command
		for _, b := range d.Blocks() {
			if d.ForUsers() && b.Kind() == "yaml helm" {
				if _, err := chart([]byte(b.Text)); err != nil {
					t.Errorf("%s: %v", b, err)
				}
			}
			if !d.ForUsers() || b.Kind() != "console" {
				continue
			}
			all, err := commands(b)
			if err != nil {
				t.Error(err)
			}
			for _, c := range all {
				var problem error
				switch b.Mark() {
				case "":
					run = append(run, c)
				case "long":
					problem = s.long(c)
				case "docker":
					problem = s.docker(c)
				case "kubectl":
					problem = kubectl(c)
				case "helm":
					problem = helm(c)
				default:
					problem = fmt.Errorf("the mark %q is not known here", b.Mark())
				}
				if problem != nil {
					t.Errorf("%s:%d: %s: %v", d.Name, c.line, c.text, problem)
				}
			}
		}
		if len(run) > 0 {
			t.Run(d.Name, func(t *testing.T) { s.run(t, d.Name, run) })
		}
	}
}

func order(d *docs.Document) int {
	if d.Name == "docs/quickstart.md" {
		return 0
	}
	return 1
}

// site is the running gateway, with a folder to type commands in.
type site struct {
	bin, work string
	ready     stack.Ready
	real      *strings.Replacer // the addresses that documents show, by those of this run
}

func open(t *testing.T) *site {
	s := &site{bin: t.TempDir(), work: t.TempDir()}
	build := exec.Command("go", "build", "-o", s.bin, "./cmd/sluice", "./cmd/authsvc")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	// The folder looks like the repository and takes what commands write.
	absolute, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(absolute)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if err := os.Symlink(filepath.Join(absolute, entry.Name()), filepath.Join(s.work, entry.Name())); err != nil {
			t.Fatal(err)
		}
	}

	s.ready = harness.StartUp(t, s.work, func(flags []string) *exec.Cmd {
		return exec.Command(filepath.Join(s.bin, "sluice"), append([]string{"up"}, flags...)...)
	}, "--redis="+harness.StartRedis(t).Addr, "--gateways=3").Ready
	s.real = strings.NewReplacer(
		"http://127.0.0.1:8080", s.ready.HTTP, "https://127.0.0.1:8443", s.ready.HTTPS,
		"http://127.0.0.1:9000", s.ready.AuthSvc, "http://127.0.0.1:9001", s.ready.Admin,
		"127.0.0.1:9100", harness.FreeAddress(t), "127.0.0.1:9101", harness.FreeAddress(t),
		"127.0.0.1:6379", s.ready.Redis, "~/.local/state/sluice", filepath.Join(s.work, "data"),
	)
	return s
}

// environment is that of a shell beside authsvc: its commands need no option.
// TOKEN is a user's.
func (s *site) environment(t *testing.T) []string {
	admin, err := url.Parse(s.ready.Admin)
	if err != nil {
		t.Fatal(err)
	}
	return append(os.Environ(),
		"PATH="+s.bin+string(os.PathListSeparator)+os.Getenv("PATH"), "HOME="+s.work,
		"AUTHSVC_ADMINLISTEN="+admin.Host, "AUTHSVC_ADMINTOKENFILE="+filepath.Join(s.work, "data", "keys", "admin.token"),
		"TOKEN="+s.login(t))
}

// login makes a user and returns his token.
func (s *site) login(t *testing.T) string {
	got, err := harness.Ask(http.DefaultClient, "POST", s.ready.HTTP+"/v1/users/register",
		map[string]string{"email": fmt.Sprintf("u%d@example.com", time.Now().UnixNano()), "password": "correct horse battery staple", "name": "U"})
	if err != nil {
		t.Fatal(err)
	}
	var registered struct {
		AccessToken string `json:"access_token"`
	}
	if got.Into(t, &registered); registered.AccessToken == "" {
		t.Fatal(got)
	}
	return registered.AccessToken
}

// forget gives the address of this machine its limits back: the documents are
// not read within one minute.
func (s *site) forget(t *testing.T) {
	for _, name := range []string{"register", "login", "login-failures", "refresh", "bad-token"} {
		if _, err := harness.Ask(http.DefaultClient, "DELETE", s.ready.Admin+"/v1/limits/"+name+"/ip:127.0.0.1", nil, harness.Bearer(s.ready.AdminToken)); err != nil {
			t.Fatal(err)
		}
	}
}

// run types the commands into one shell, which keeps variables and jobs, and
// looks at what each has printed.
func (s *site) run(t *testing.T, name string, run []*command) {
	s.forget(t)
	const mark = "\x01"
	var script strings.Builder
	fmt.Fprintf(&script, "exec 2>&1\nshopt -s expand_aliases\n")
	for _, c := range run {
		text := s.real.Replace(c.text)
		if strings.Contains(strings.Join(c.shown, "\n"), "429") {
			// What a limit of a second says depends on the moment: it is tried until
			// it refuses, and five times at most.
			fmt.Fprintf(&script, "for try in 1 2 3 4 5; do out=$({ %s\n} </dev/null); printf '%%s\\n%s%%d\\n' \"$out\" $?; case $out in *429*) break; esac; sleep 1; done\n", text, mark)
		} else {
			fmt.Fprintf(&script, "{ %s\n} </dev/null\nprintf '\\n%s%%d\\n' $?\n", text, mark)
		}
		fmt.Fprintf(&script, "printf '%s-\\n'\n", mark)
	}
	script.WriteString("kill $(jobs -p) 2>/dev/null; wait\n")
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "bash", "-s")
	shell.Dir, shell.Env, shell.Stdin = s.work, s.environment(t), strings.NewReader(script.String())
	shell.WaitDelay = time.Second
	output, err := shell.CombinedOutput()
	if err != nil && ctx.Err() != nil {
		t.Errorf("the shell has not ended: %v\n%s", err, output)
	}
	rest := string(output)
	for _, c := range run {
		printed, after, found := strings.Cut(rest, mark+"-\n")
		if !found {
			t.Fatalf("%s:%d: %s: the shell ended before it\n%s", name, c.line, c.text, rest)
		}
		rest = after
		shown := strings.Split(s.real.Replace(strings.Join(c.shown, "\n")), "\n")
		missing, good, last := "", false, ""
		for printed != "" && !good {
			var status string
			last, printed, _ = strings.Cut(printed, mark)
			status, printed, _ = strings.Cut(printed, "\n")
			if missing, good = shows(last, shown); good && status != "0" {
				missing, good = "exit status 0", false
				last += "\nexit status " + status
			}
		}
		if !good {
			t.Errorf("%s:%d: %s\nlacks %q in\n%s", name, c.line, c.text, missing, last)
		}
	}
}

var (
	makeTarget = regexp.MustCompile(`\bmake ([a-z0-9-]+)`)
	goPackage  = regexp.MustCompile(`\bgo (?:run|build|test|vet|install)\b[^;|&\n]*? (\./[\w./-]*)`)
	ourFlag    = regexp.MustCompile(`\b(sluice|authsvc)((?: [a-z]+)*)([^;|&\n]*)`)
	flagName   = regexp.MustCompile(`--([A-Za-z][\w.\[\]]*)`)
)

// long checks what can be checked of a command that is not run.
func (s *site) long(c *command) error {
	text := s.real.Replace(c.text)
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		return err
	}
	for _, match := range makeTarget.FindAllStringSubmatch(text, -1) {
		if !regexp.MustCompile(`(?m)^` + match[1] + `:`).Match(makefile) {
			return fmt.Errorf("make has no target %s", match[1])
		}
	}
	for _, match := range goPackage.FindAllStringSubmatch(text, -1) {
		folder := filepath.Join(root, strings.TrimSuffix(match[1], "..."))
		if _, err := os.Stat(folder); err != nil {
			return err
		}
	}
	if arguments, ok := strings.CutPrefix(text, "make up ARGS="); ok {
		text = "sluice up " + strings.Trim(arguments, `"'`)
	}
	for _, match := range ourFlag.FindAllStringSubmatch(text, -1) {
		arguments := append(strings.Fields(match[2]), "--help")
		help, err := exec.Command(filepath.Join(s.bin, match[1]), arguments...).CombinedOutput()
		for err != nil && len(arguments) > 1 { // the last words were no commands
			arguments = slices.Delete(arguments, len(arguments)-2, len(arguments)-1)
			help, err = exec.Command(filepath.Join(s.bin, match[1]), arguments...).CombinedOutput()
		}
		for _, flag := range flagName.FindAllStringSubmatch(match[3], -1) {
			if flag[1] != "help" && !bytes.Contains(bytes.ToLower(help), []byte("--"+strings.ToLower(flag[1]))) {
				return fmt.Errorf("%s %s knows no --%s", match[1], strings.Join(arguments, " "), flag[1])
			}
		}
	}
	return nil
}

// docker checks a line of `docker compose`: variables, files, profiles and
// services.
func (s *site) docker(c *command) error {
	words := strings.Fields(strings.ReplaceAll(c.text, "\\\n", " "))
	known, err := os.ReadFile(filepath.Join(root, "compose.yaml"))
	if err != nil {
		return err
	}
	acme, err := os.ReadFile(filepath.Join(root, "compose.acme.yaml"))
	if err != nil {
		return err
	}
	known = append(known, acme...)
	environment := []string{"SLUICE_DOMAIN=example.com", "SLUICE_ACME_EMAIL=a@example.com", "SLUICE_CERTIFICATES=./certificates"}
	if words[0] == "export" {
		words = words[1:]
	}
	for len(words) > 0 && strings.Contains(words[0], "=") {
		name, _, _ := strings.Cut(words[0], "=")
		if !bytes.Contains(known, []byte("${"+name+":")) && !bytes.Contains(known, []byte("${"+name+"}")) {
			return fmt.Errorf("no compose file reads %s", name)
		}
		environment, words = append(environment, words[0]), words[1:]
	}
	if len(words) == 0 {
		return nil
	}
	container := regexp.MustCompile(`^docker restart (?:-t \d+ )?sluice-([a-z-]+)-\d+$`).FindStringSubmatch(strings.Join(words, " "))
	if container == nil && (len(words) < 2 || words[0] != "docker" || words[1] != "compose") {
		return errors.New("is no line of docker compose")
	}
	if container != nil {
		words = []string{"docker", "compose", "restart", container[1]}
	}
	var files, profiles, rest []string
	for words = words[2:]; len(words) > 0; words = words[1:] {
		switch {
		case (words[0] == "-f" || words[0] == "--profile") && len(words) < 2:
			return fmt.Errorf("%s lacks its argument", words[0])
		case words[0] == "-f":
			files, words = append(files, filepath.Join(root, words[1])), words[1:]
		case words[0] == "--profile":
			profiles, words = append(profiles, words[1]), words[1:]
		case words[0] == "&&" || words[0] == "|":
			words = words[:1] // what comes behind is another program's
		case !strings.HasPrefix(words[0], "-"):
			rest = append(rest, words[0])
		}
	}
	if files == nil {
		files = []string{filepath.Join(root, "compose.yaml")}
	}
	options, err := cli.NewProjectOptions(files, cli.WithName("docs"), cli.WithEnv(environment), cli.WithProfiles([]string{"*"}))
	if err != nil {
		return err
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		return err
	}
	var all []string
	for _, service := range project.Services {
		all = append(all, service.Profiles...)
	}
	for _, profile := range profiles {
		if !slices.Contains(all, profile) {
			return fmt.Errorf("no service has the profile %s", profile)
		}
	}
	if len(rest) == 0 || !slices.Contains([]string{"up", "down", "ps", "logs", "exec", "run", "restart", "stop", "config", "build", "pull", "kill"}, rest[0]) {
		return fmt.Errorf("%q names no command of docker compose", rest)
	}
	named := rest[1:]
	if len(named) > 1 && (rest[0] == "exec" || rest[0] == "run") {
		named = named[:1] // then comes what is run in it
	}
	for _, name := range named {
		if _, err := project.GetService(name); err != nil {
			return err
		}
	}
	return nil
}

var resource = regexp.MustCompile(`\b(deployment|statefulset|service|configmap|middleware)/([a-z-]+)`)

// kubectl checks a line of kubectl: what is applied renders, and what is named
// is among it.
func kubectl(c *command) error {
	if !strings.Contains(c.text, "kubectl") && !strings.Contains(c.text, "openssl") {
		return errors.New("is no line of kubectl")
	}
	folder := "deploy/kubernetes"
	if match := regexp.MustCompile(`-k (\S+)`).FindStringSubmatch(c.text); match != nil {
		folder = match[1]
	}
	objects, err := rendering.Kustomization(filepath.Join(root, folder))
	if err != nil {
		return err
	}
	for _, match := range resource.FindAllStringSubmatch(c.text, -1) {
		name := regexp.MustCompile(`^` + match[2] + `(-[a-z0-9]{10})?$`)
		if !slices.ContainsFunc(objects, func(o rendering.Object) bool {
			return strings.EqualFold(o.Kind(), match[1]) && name.MatchString(o.Name())
		}) {
			return fmt.Errorf("the kustomization has no %s", match[0])
		}
	}
	return nil
}

const ourChart = "deploy/helm/sluice"

// published is the address of our chart; TestImages in test/ knows the registry.
var published = regexp.MustCompile(` oci://\S+/charts/sluice\b`)

// chart renders our chart with values.
func chart(values []byte) ([]rendering.Object, error) {
	var tree map[string]any
	if err := yaml.Unmarshal(values, &tree); err != nil {
		return nil, err
	}
	return rendering.Chart(filepath.Join(root, ourChart), "sluice", tree)
}

// helm checks a line of helm: its files of values are there, and our chart takes
// what is given to it. Somebody else's chart comes from a repository.
func helm(c *command) error {
	words := strings.Fields(c.text)
	if len(words) < 3 || words[0] != "helm" || !slices.Contains([]string{"install", "upgrade", "template"}, words[1]) {
		return errors.New("is no line of helm that is known here")
	}
	values, ours := map[string]any{}, slices.Contains(words, ourChart) || published.MatchString(c.text)
	for i, word := range words {
		switch word {
		case "-f":
			text, err := os.ReadFile(filepath.Join(root, words[i+1]))
			if err := errors.Join(err, yaml.Unmarshal(text, &values)); err != nil {
				return err
			}
		case "--set":
			if err := strvals.ParseInto(words[i+1], values); err != nil {
				return err
			}
		}
	}
	if !ours {
		if !slices.Contains(words, "--repo") {
			return fmt.Errorf("names neither %s nor a repository", ourChart)
		}
		return nil
	}
	text, err := yaml.Marshal(values)
	if err == nil {
		_, err = chart(text)
	}
	return err
}
