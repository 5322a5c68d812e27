package accuracy

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// server is a redis-server process on a Unix socket in a folder of its own.
type server struct {
	socket  string
	dir     string
	process *exec.Cmd
}

func startServer() (*server, error) {
	dir, err := os.MkdirTemp("", "sluice-accuracy-")
	if err != nil {
		return nil, fmt.Errorf("start redis-server: %w", err)
	}
	s := &server{socket: filepath.Join(dir, "redis.sock"), dir: dir}
	s.process = exec.Command("redis-server", "--port", "0", "--unixsocket", s.socket, "--save", "", "--appendonly", "no", "--dir", dir)
	s.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := s.process.Start(); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("start redis-server (on Debian: apt-get install redis-server): %w", err)
	}
	return s, nil
}

func (s *server) stop() {
	s.process.Process.Kill()
	s.process.Wait()
	os.RemoveAll(s.dir)
}

// dial waits until the server answers.
func (s *server) dial() (*wire, error) {
	deadline := time.Now().Add(10 * time.Second)
	for {
		conn, err := net.Dial("unix", s.socket)
		if err == nil {
			w := &wire{conn: conn, reader: bufio.NewReader(conn)}
			if _, err = w.do("PING"); err == nil {
				return w, nil
			}
			conn.Close()
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("redis-server does not answer: %w", err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// wire is a connection that waits for each reply and knows neither deadline
// nor goroutine. Inside a bubble of virtual time that is the point: a read of a
// socket does not count as idleness, so no time passes until Redis has
// answered.
type wire struct {
	mu     sync.Mutex
	conn   net.Conn
	reader *bufio.Reader
}

// do sends a command and returns its reply as it stands on the wire: a line,
// a bulk string, or an array of integers.
func (w *wire) do(words ...string) (string, error) {
	command := fmt.Appendf(nil, "*%d\r\n", len(words))
	for _, word := range words {
		command = fmt.Appendf(command, "$%d\r\n%s\r\n", len(word), word)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.conn.Write(command); err != nil {
		return "", err
	}
	reply, err := w.reader.ReadString('\n')
	if err != nil {
		return "", err
	}
	more := 0
	switch reply[0] {
	case '-':
		return "", errors.New(strings.TrimSpace(reply[1:]))
	case '*':
		more, err = strconv.Atoi(strings.TrimSpace(reply[1:]))
	case '$':
		return w.bulk(strings.TrimSpace(reply[1:]))
	}
	for ; more > 0 && err == nil; more-- {
		var line string
		line, err = w.reader.ReadString('\n')
		reply += line
	}
	return reply, err
}

func (w *wire) bulk(length string) (string, error) {
	n, err := strconv.Atoi(length)
	if err != nil || n < 0 {
		return "", err
	}
	text := make([]byte, n+2)
	for read := 0; read < len(text); {
		m, err := w.reader.Read(text[read:])
		if err != nil {
			return "", err
		}
		read += m
	}
	return string(text[:n]), nil
}

var (
	versionLine = regexp.MustCompile(`(?m)^redis_version:(\S+)`)
	callsLine   = regexp.MustCompile(`(?m)^cmdstat_(?:eval|evalsha):calls=(\d+)`)
)

func (w *wire) version() (string, error) {
	info, err := w.do("INFO", "server")
	if found := versionLine.FindStringSubmatch(info); err == nil && found != nil {
		return found[1], nil
	}
	return "", fmt.Errorf("no redis_version in INFO: %w", err)
}

// scriptCalls is how many times scripts were called on this server so far.
func (w *wire) scriptCalls() (int, error) {
	info, err := w.do("INFO", "commandstats")
	if err != nil {
		return 0, err
	}
	total := 0
	for _, found := range callsLine.FindAllStringSubmatch(info, -1) {
		calls, err := strconv.Atoi(found[1])
		if err != nil {
			return 0, err
		}
		total += calls
	}
	return total, nil
}
