package stack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// stopTime is how long a child may take to end once asked: longer than the
// shipped requestAcceptGraceTimeout and graceTimeOut together.
const stopTime = 15 * time.Second

// logPoll is how often a child's log is read for errors.
const logPoll = 200 * time.Millisecond

// longestNotice is how much of an error line is shown; the log has it whole.
const longestNotice = 400

// process is one child with its folder, its log and its end.
type process struct {
	name    string // "gateway-1", "balancer"
	command *exec.Cmd
	log     string
	ended   chan struct{} // closed when the child has ended and its log is read
	err     error         // how it ended; read after ended
}

// startProcess runs a Traefik in dir with the configuration traefik.yml there.
// Notice receives the errors that it logs.
func startProcess(name, binary, dir string, env []string, notice func(line string)) (*process, error) {
	log := filepath.Join(dir, name+".log")
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	p := &process{name: name, log: log, ended: make(chan struct{})}
	p.command = exec.Command(binary, "--configFile=traefik.yml")
	p.command.Dir = dir
	p.command.Env = env
	p.command.Stdout, p.command.Stderr = file, file
	p.command.SysProcAttr = ownGroup()

	started := make(chan error)
	go func() {
		// The kernel ties "kill the child when its parent dies" to the thread
		// that forked it. Unlocked, that thread may end at any time.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.command.Start()
		file.Close()
		started <- err
		if err != nil {
			return
		}
		exited := make(chan struct{})
		read := make(chan struct{})
		go func() { follow(log, exited, notice); close(read) }()
		p.err = p.command.Wait()
		close(exited)
		<-read
		close(p.ended)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// pid is the child's process id, which is its group's too.
func (p *process) pid() int { return p.command.Process.Pid }

// running says whether the child has not ended yet.
func (p *process) running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// terminate asks the child to end; stop waits for it, and kills its group if
// it takes too long.
func (p *process) terminate() {
	if p.running() {
		_ = syscall.Kill(-p.pid(), syscall.SIGTERM) // it may end at this very moment
	}
}

func (p *process) stop() error {
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopTime):
		_ = syscall.Kill(-p.pid(), syscall.SIGKILL)
		<-p.ended
		return fmt.Errorf("%s did not end within %s and was killed; its log is %s", p.name, stopTime, p.log)
	}
}

// lastWords is the tail of the child's log without access log lines, for the
// error of a child that ended unasked.
func (p *process) lastWords() string {
	content, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	var lines []string
	for line := range strings.Lines(string(content)) {
		if !strings.HasPrefix(line, "{") {
			lines = append(lines, strings.TrimRight(line, "\n"))
		}
	}
	return strings.Join(lines[max(0, len(lines)-5):], "\n")
}

// follow hands the errors that a log gains to notice until the child has
// exited and all is read. Reading the file, instead of standing between the
// child and it with a pipe, keeps this process out of the way of requests.
func follow(name string, exited <-chan struct{}, notice func(string)) {
	file, err := os.Open(name)
	if err != nil {
		notice(err.Error())
		return
	}
	defer file.Close()
	ticker := time.NewTicker(logPoll)
	defer ticker.Stop()
	var partial []byte
	buffer := make([]byte, 64<<10)
	drain := func() {
		for {
			n, err := file.Read(buffer)
			partial = append(partial, buffer[:n]...)
			for {
				end := bytes.IndexByte(partial, '\n')
				if end < 0 {
					break
				}
				if line := partial[:end]; isNews(line) {
					notice(string(line[:min(len(line), longestNotice)]))
				}
				partial = partial[end+1:]
			}
			if errors.Is(err, io.EOF) || n == 0 {
				return
			}
		}
	}
	for {
		select {
		case <-exited:
			drain()
			return
		case <-ticker.C:
			drain()
		}
	}
}

// isNews tells Traefik's and the plugin's error lines, a crash, and the end of the limits' errors,
// from the rest. Access log lines begin with a brace.
func isNews(line []byte) bool {
	if bytes.HasPrefix(line, []byte("{")) {
		return false
	}
	for _, mark := range []string{" ERR ", " FTL ", "panic: ", "fatal error: ", " INF sluice: Redis counts again"} {
		if bytes.Contains(line, []byte(mark)) {
			return true
		}
	}
	return false
}
