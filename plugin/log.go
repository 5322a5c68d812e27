package plugin

import (
	"encoding/json"
	"fmt"
	"log"
	"os"
	"strings"
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
