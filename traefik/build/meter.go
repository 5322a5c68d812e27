package build

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// meter reads what the go command says: the modules that it downloads, and with
// -v each package as it is compiled. It turns that into a line every few
// seconds. What is neither is a complaint of the compiler or of the module
// system and is kept for the error.
type meter struct {
	progress io.Writer
	begun    time.Time
	ticker   *time.Ticker
	done     chan struct{}
	ended    sync.WaitGroup

	mu       sync.Mutex // guards the fields below
	partial  []byte
	modules  int // downloaded
	packages int // compiled
	total    int // packages that there are; those of the Go build cache are not compiled again
	other    []string
}

const (
	meterInterval = 5 * time.Second
	meterKeeps    = 40 // lines of complaint
)

func newMeter(progress io.Writer, begun time.Time) *meter {
	m := &meter{progress: progress, begun: begun, ticker: time.NewTicker(meterInterval), done: make(chan struct{})}
	m.ended.Go(func() {
		for {
			select {
			case <-m.done:
				return
			case <-m.ticker.C:
				m.report()
			}
		}
	})
	return m
}

// Write takes the go command's standard error in pieces of any size.
func (m *meter) Write(p []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.partial = append(m.partial, p...)
	for {
		end := bytes.IndexByte(m.partial, '\n')
		if end < 0 {
			return len(p), nil
		}
		m.lineLocked(string(m.partial[:end]))
		m.partial = m.partial[end+1:]
	}
}

func (m *meter) lineLocked(line string) {
	switch {
	case line == "":
	case strings.HasPrefix(line, "go: downloading "):
		m.modules++
	case !strings.ContainsAny(line, " :#"): // an import path
		m.packages++
	case len(m.other) < meterKeeps:
		m.other = append(m.other, line)
	}
}

// expect is told how many packages there are.
func (m *meter) expect(total int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.total = total
}

func (m *meter) report() {
	m.mu.Lock()
	line := fmt.Sprintf("%d modules downloaded", m.modules)
	if m.total > 0 {
		line = fmt.Sprintf("%d of at most %d packages compiled", m.packages, m.total)
	}
	m.mu.Unlock()
	fmt.Fprintf(m.progress, "  %3.0fs  %s\n", time.Since(m.begun).Seconds(), line)
}

func (m *meter) stop() {
	m.ticker.Stop()
	close(m.done)
	m.ended.Wait()
}

func (m *meter) complaints() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.partial) > 0 {
		m.lineLocked(string(m.partial))
		m.partial = nil
	}
	return strings.Join(m.other, "\n")
}
