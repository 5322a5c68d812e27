package main

import (
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// TestBurstNoticesBrokenPromises gives the demonstration gateways that break
// one promise each: a demo that cannot fail proves nothing.
func TestBurstNoticesBrokenPromises(t *testing.T) {
	refuse := func(w http.ResponseWriter, retry, body string) {
		if retry != "" {
			w.Header().Set("Retry-After", retry)
		}
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = w.Write([]byte(body))
	}
	const body = `{"limit":"burst"}`
	tests := []struct {
		name   string
		answer func(w http.ResponseWriter, n int)
		broken string
	}{
		{"kept", func(w http.ResponseWriter, n int) {
			if n > burstLimit {
				refuse(w, "1", body)
			}
		}, ""},
		{"no limit", func(http.ResponseWriter, int) {}, "a refusal was promised"},
		{"too many", func(w http.ResponseWriter, n int) {
			if n > burstSent-1 {
				refuse(w, "1", body)
			}
		}, "at most"},
		{"no Retry-After", func(w http.ResponseWriter, n int) {
			if n > burstLimit {
				refuse(w, "", body)
			}
		}, "Retry-After was promised"},
		{"another limit", func(w http.ResponseWriter, n int) {
			if n > burstLimit {
				refuse(w, "1", `{"limit":"other"}`)
			}
		}, "the limit's name"},
		{"errors", func(w http.ResponseWriter, n int) {
			if n > burstLimit {
				w.WriteHeader(http.StatusInternalServerError)
			}
		}, "only 200 and 429"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n := 0
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				n++
				test.answer(w, n)
			}))
			defer server.Close()
			d := &demonstration{ctx: t.Context(), out: t.Output(), base: server.URL, client: server.Client()}
			if err := d.burst(person{ID: "u" + strconv.Itoa(n), token: "t"}); err != nil {
				t.Fatal(err)
			}
			broken := strings.Join(d.broken, "; ")
			if (broken == "") != (test.broken == "") || !strings.Contains(broken, test.broken) {
				t.Errorf("broken: %q, want %q", broken, test.broken)
			}
		})
	}
}
