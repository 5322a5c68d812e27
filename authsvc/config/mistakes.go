package config

import (
	"fmt"
	"strings"
)

// Error is every mistake of a configuration at once.
type Error struct{ Mistakes []string }

func (e *Error) Error() string {
	if len(e.Mistakes) == 1 {
		return "configuration: " + e.Mistakes[0]
	}
	return fmt.Sprintf("configuration: %d mistakes\n  %s", len(e.Mistakes), strings.Join(e.Mistakes, "\n  "))
}

// Mistakes collects lines of the form `path: "value": what is accepted`.
type Mistakes []string

// Add notes one mistake.
func (m *Mistakes) Add(path string, value any, accepted string) {
	if text, ok := value.(string); ok {
		value = fmt.Sprintf("%q", text)
	}
	*m = append(*m, fmt.Sprintf("%s: %v: %s", path, value, accepted))
}

// unknown does not show the value: behind a misspelt `pasword` stands a secret.
func (m *Mistakes) unknown(path, accepted string) { *m = append(*m, path+": "+accepted) }

// Err is every mistake that was added as one error, or nil.
func (m Mistakes) Err() error {
	if len(m) == 0 {
		return nil
	}
	return &Error{Mistakes: m}
}
