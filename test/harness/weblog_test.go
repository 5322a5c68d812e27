package harness

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

func TestWebLog(t *testing.T) {
	start := time.Date(2026, 3, 2, 9, 0, 0, 0, time.FixedZone("", 3600))
	write := func(seed uint64) string {
		var file bytes.Buffer
		if err := WriteWebLog(&file, seed, start, time.Minute, 50, 400); err != nil {
			t.Fatal(err)
		}
		return file.String()
	}
	if first, again, other := write(1), write(1), write(2); first != again || first == other {
		t.Error("the seed does not decide what is written")
	}
	hits, err := ReadWebLog(strings.NewReader(write(1)))
	if err != nil || len(hits) != 400 {
		t.Fatalf("%d hits, %v", len(hits), err)
	}
	clients := map[string]int{}
	for i, hit := range hits {
		if i > 0 && hit.At.Before(hits[i-1].At) {
			t.Fatalf("line %d goes back in time", i+1)
		}
		if hit.At.Before(start) || hit.At.After(start.Add(time.Minute)) || hit.Method != "GET" || hit.Status != 200 || hit.Size == 0 {
			t.Fatalf("hit %+v", hit)
		}
		clients[hit.Client.String()]++
	}
	if len(clients) < 10 {
		t.Errorf("only %d clients", len(clients))
	}
}

func TestReadWebLog(t *testing.T) {
	const good = `203.0.113.9 - ann [10/Oct/2026:13:55:36 -0700] "GET /a?b=c HTTP/1.0" 200 2326`
	hits, err := ReadWebLog(strings.NewReader(good + "\n" + strings.Replace(good, "200 2326", "304 -", 1)))
	if err != nil || len(hits) != 2 {
		t.Fatalf("%v, %v", hits, err)
	}
	if h := hits[0]; h.Client.String() != "203.0.113.9" || h.At.Unix() != 1791665736 || h.Path != "/a?b=c" || h.Status != 200 || h.Size != 2326 {
		t.Errorf("%+v", h)
	}
	if h := hits[1]; h.Status != 304 || h.Size != 0 {
		t.Errorf("%+v", h)
	}
	for name, line := range map[string]string{
		"empty":        "",
		"no request":   `203.0.113.9 - - [10/Oct/2026:13:55:36 -0700] "-" 400 0`,
		"a name":       strings.Replace(good, "203.0.113.9", "example.org", 1),
		"another date": strings.Replace(good, "10/Oct/2026", "2026-10-10", 1),
		"more columns": good + ` "agent"`,
	} {
		if hits, err := ReadWebLog(strings.NewReader(good + "\n" + line + "\n" + good)); err == nil || !strings.Contains(err.Error(), "line 2") {
			t.Errorf("%s: %v, %v", name, hits, err)
		}
	}
}
