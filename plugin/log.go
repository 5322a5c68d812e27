package plugin

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
	"sync"
	"time"
)

// Traefik's words for the levels in a log of text.
var levels = map[string]string{"error": "ERR", "warn": "WRN", "info": "INF"}

// Log writes one line as Traefik writes its own, to standard error: for the package
// that compiles the plugin into Traefik. The level is info, warn or error.
func Log(level, message string) { logLine(level, message) }

// logLine writes one line, as Traefik writes its own. It goes to standard error and
// not through Traefik: that takes whatever a plugin prints for an error, or for
// debugging, and leaves out the latter.
func logLine(level, message string) {
	at := time.Now().Format(time.RFC3339)
	message = "sluice: " + strings.ReplaceAll(message, "\n", " | ")
	if traefikWritesJSON(log.Writer()) {
		line, _ := json.Marshal(map[string]string{"level": level, "time": at, "message": message}) // strings always marshal
		fmt.Fprintln(os.Stderr, string(line))
		return
	}
	fmt.Fprintln(os.Stderr, at, levels[level], message)
}

// traefikWritesJSON tells how Traefik's log is written, given what Traefik has
// the log package write to (in either form of the plugin): its logger, which for
// a log of text has a ConsoleWriter inside. Nothing else tells a plugin.
func traefikWritesJSON(writer interface{}) bool {
	inside := fmt.Sprintf("%T %#v", writer, writer)
	return strings.HasPrefix(inside, "zerolog.Logger ") && !strings.Contains(inside, "ConsoleWriter")
}

// told remembers of which mistakes the log has been told.
type told struct {
	mu   sync.Mutex
	said map[string]<-chan struct{} // by middleware: what ends when the configuration does
}

// tell writes a middleware's mistakes once a configuration: Traefik makes a
// middleware for each router and entry point, all under one context.
func (t *told) tell(ctx context.Context, name string, problems []string) {
	id := name + "\n" + strings.Join(problems, "\n")
	t.mu.Lock()
	defer t.mu.Unlock()
	if now, before := ctx.Done(), t.said[id]; now != nil {
		if now == before {
			return
		}
		t.said[id] = now
		context.AfterFunc(ctx, func() { t.forget(id, now) })
	}
	for _, problem := range problems {
		logLine("error", "the middleware "+name+" is misconfigured and answers 503: "+problem)
	}
}

func (t *told) forget(id string, configuration <-chan struct{}) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.said[id] == configuration {
		delete(t.said, id)
	}
}
