package plugin

import (
	"errors"
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestIdentityNamesTheHost: an operator finds a gateway by its host's name, two
// on one host differ, and nothing in it is more than a name.
func TestIdentityNamesTheHost(t *testing.T) {
	for _, test := range []struct {
		host string
		err  error
		want string
	}{
		{"edge-1.example.com", nil, `edge-1\.example\.com`},
		{"", nil, "gateway"},
		{"", errors.New("no name"), "gateway"},
		{"a:b {c}\n", nil, "a-b--c--"},
		{strings.Repeat("x", 200), nil, "x{63}"},
	} {
		first, second := newIdentity(test.host, test.err), newIdentity(test.host, test.err)
		if !regexp.MustCompile("^"+test.want+"-[0-9a-f]{12}$").MatchString(first) || first == second {
			t.Errorf("%q is called %q and %q", test.host, first, second)
		}
	}
	if host, err := os.Hostname(); err == nil && !strings.HasPrefix(process, strings.ToLower(host)) && !strings.HasPrefix(process, host) {
		t.Errorf("this process is called %q on %q", process, host)
	}
}
