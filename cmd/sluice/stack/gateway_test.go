package stack

import (
	"os"
	"path/filepath"
	"testing"
)

// TestFormIsProvenByTheLog: the ready file says what was seen to run.
func TestFormIsProvenByTheLog(t *testing.T) {
	const mark = "INF up\nsluice: compiled plugin, source abc\n"
	tests := []struct {
		name, asked, log string
		shipped, fails   bool
	}{
		{"compiled", Compiled, mark, true, false},
		{"interpreted", Interpreted, "INF up\n", true, false},
		{"compiled was asked for", Compiled, "INF up\n", true, true},
		{"interpreted was asked for", Interpreted, mark, true, true},
		{"own routes without the plugin", Compiled, "INF up\n", false, false},
		{"own routes, interpreted was asked for", Interpreted, mark, false, true},
	}
	for _, test := range tests {
		log := filepath.Join(t.TempDir(), "gateway-1.log")
		if err := os.WriteFile(log, []byte(test.log), 0o600); err != nil {
			t.Fatal(err)
		}
		s := &Stack{options: Options{Plugin: test.asked}, shipped: test.shipped}
		if err := s.proveForm([]*process{{log: log}}); (err != nil) != test.fails || s.ready.Plugin != test.asked {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
