package accuracy

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParseCLF(t *testing.T) {
	at := time.Date(2000, 10, 10, 20, 55, 36, 0, time.UTC)
	for _, c := range []struct {
		name, line, host string
	}{
		{"common", `198.51.100.7 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326`, "198.51.100.7"},
		{"combined", `198.51.100.7 - - [10/Oct/2000:20:55:36 +0000] "GET / HTTP/1.1" 200 1 "http://a/" "Mozilla/5.0 [en]"`, "198.51.100.7"},
		{"IPv6", `2001:db8::1 - - [10/Oct/2000:20:55:36 +0000] "GET / HTTP/1.1" 200 -`, "2001:db8::1"},
		{"a name with a space", `host.example - Frank N [10/Oct/2000:20:55:36 +0000] "GET / HTTP/1.1" 200 -`, "host.example"},
		{"garbage for a request", `198.51.100.7 - - [10/Oct/2000:20:55:36 +0000] "\x16\x03" 400 226`, "198.51.100.7"},
		{"empty", ``, ""},
		{"no host", ` - - [10/Oct/2000:20:55:36 +0000] "GET / HTTP/1.1" 200 -`, ""},
		{"no time", `198.51.100.7 - - "GET / HTTP/1.1" 200 -`, ""},
		{"another time", `198.51.100.7 - - [2000-10-10T20:55:36Z] "GET / HTTP/1.1" 200 -`, ""},
		{"no such day", `198.51.100.7 - - [31/Feb/2000:20:55:36 +0000] "GET / HTTP/1.1" 200 -`, ""},
		{"no user", `198.51.100.7 - [10/Oct/2000:20:55:36 +0000] "GET / HTTP/1.1" 200 -`, ""},
		{"cut off", `198.51.100.7 - - [10/Oct/2000:20:55:36 +0000] "GET /`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, ok := parseCLF(c.line)
			if ok != (c.host != "") || h.host != c.host || (ok && !h.at.Equal(at)) {
				t.Errorf("%+v %v", h, ok)
			}
		})
	}
}

// Whatever is taken for a line of a log says whom and when, and says it again
// when written out.
func FuzzParseCLF(f *testing.F) {
	f.Add(`198.51.100.7 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326`)
	f.Add(`a b c [01/Jan/0000:00:00:00 +0000] ""`)
	f.Add(`[ [ [] " "`)
	f.Fuzz(func(t *testing.T, line string) {
		h, ok := parseCLF(line)
		if !ok {
			return
		}
		if h.host == "" || strings.ContainsRune(h.host, ' ') || !strings.HasPrefix(line, h.host) {
			t.Fatalf("host %q of %q", h.host, line)
		}
		again, ok := parseCLF(h.host + ` - - [` + h.at.Format(clfTime) + `] "GET / HTTP/1.1" 200 -`)
		if !ok || again.host != h.host || !again.at.Equal(h.at) {
			t.Fatalf("%+v written and read is %+v, %v", h, again, ok)
		}
	})
}

func TestLogBecomesTraffic(t *testing.T) {
	const log = `203.0.113.9 - - [10/Oct/2000:00:00:31 +0000] "GET / HTTP/1.1" 200 -
203.0.113.1 - - [10/Oct/2000:00:00:30 +0000] "GET / HTTP/1.1" 200 -
not a line
203.0.113.9 - - [10/Oct/2000:00:00:30 +0000] "GET / HTTP/1.1" 200 -
203.0.113.1 - - [10/Oct/2000:00:02:00 +0000] "GET / HTTP/1.1" 200 -
`
	hits, skipped, err := readCLF(strings.NewReader(log))
	if err != nil || skipped != 1 || len(hits) != 4 {
		t.Fatalf("%d hits, %d skipped, %v", len(hits), skipped, err)
	}
	tr := fromLog("log", hits, quota{limit: 1, window: time.Minute}, 1)
	for i := range tr.arrivals {
		tr.arrivals[i].gate = 0 // drawn
	}
	want := []arrival{{at: 30 * time.Second, key: 0}, {at: 30*time.Second + 500*time.Millisecond, key: 1}, {at: 31 * time.Second, key: 1}, {at: 120 * time.Second, key: 0}}
	if !reflect.DeepEqual(tr.arrivals, want) || tr.span != 3*time.Minute {
		t.Errorf("%+v over %v", tr.arrivals, tr.span)
	}
}

func TestLogWithoutALineIsAnError(t *testing.T) {
	for _, log := range []string{"", "hello\nworld\n", strings.Repeat("x", 2<<20)} {
		if hits, _, err := readCLF(strings.NewReader(log)); err == nil {
			t.Errorf("read %d hits from %.20q", len(hits), log)
		}
	}
}
