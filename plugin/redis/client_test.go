package redis

import (
	"testing"
	"time"
)

var increment = NewScript("return redis.call('INCRBY', KEYS[1], ARGV[1])")

func TestScriptIsLoadedWhenUnknown(t *testing.T) {
	s := startServer(t)
	c := open(t, Config{Addresses: []string{s.address()}, ClientName: "sluice", Timeout: time.Second})
	healthy(t, c)
	for i, before := range []func(){func() {}, func() {}, func() { s.cli("SCRIPT", "FLUSH") }} {
		before()
		o := do(t, c, &Call{Key: "n", Script: increment, Args: []string{"2"}})
		if n, err := o.reply.Int(); o.err != nil || err != nil || n != int64(2*(i+1)) {
			t.Fatalf("call %d: %v, %v, %v", i, n, o.err, err)
		}
	}
}
