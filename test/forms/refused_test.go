package forms_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/forms"
	"github.com/sluice-gateway/sluice/test/harness"
)

// bothForms skips a test whose gates are one of each form where Yaegi cannot run.
func bothForms(t *testing.T) logged {
	t.Helper()
	if harness.Race {
		t.Skip("Yaegi itself does not pass the race detector")
	}
	said := logging(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(said.text())
		}
	})
	return said
}

// ownProcess is set for a test that runs in a process of its own.
const ownProcess = "SLUICE_TEST_ALONE"

// runAlone starts one test in a process of its own, and returns what waits for its
// end and tells what it printed.
func runAlone(t *testing.T, name string) func() (string, error) {
	t.Helper()
	var said bytes.Buffer
	command := exec.Command(os.Args[0], "-test.run="+name, "-test.v", "-test.timeout=5m")
	command.Env = append(os.Environ(), ownProcess+"=yes")
	command.Stdout, command.Stderr = &said, &said
	command.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	t.Cleanup(func() { _ = command.Process.Kill() }) // which has ended, unless the test gave up
	return func() (string, error) {
		err := <-ended
		return said.String(), err
	}
}

// refusals are ways in which a Redis that answers keeps gateways from counting
// together.
var refusals = []struct {
	name        string
	spoil, mend string // commands, separated by ';'
	words       string // of Redis, in the log
	beats       bool   // the heartbeats get through all the same
}{
	{name: "no right to the limits' keys", words: "NOPERM.*key", beats: true,
		spoil: "ACL SETUSER app resetkeys ~PREFIX:gw:*", mend: "ACL SETUSER app ~PREFIX:*"},
	{name: "no right to any key", words: "NOPERM.*key",
		spoil: "ACL SETUSER app resetkeys ~sluice:*", mend: "ACL SETUSER app ~PREFIX:*"},
	{name: "EVALSHA is forbidden", words: "NOPERM.*evalsha",
		spoil: "ACL SETUSER app -evalsha", mend: "ACL SETUSER app +evalsha"},
	{name: "memory is full", words: "OOM command not allowed",
		spoil: "CONFIG SET maxmemory-policy noeviction maxmemory 1", mend: "CONFIG SET maxmemory 0"},
	{name: "too few replicas", words: "NOREPLICAS",
		spoil: "CONFIG SET min-replicas-to-write 1", mend: "CONFIG SET min-replicas-to-write 0"},
	{name: "the last dump failed", words: "MISCONF",
		spoil: "CONFIG SET save 3600\\ 1; GONE; BGSAVE", mend: "CONFIG SET stop-writes-on-bgsave-error no"},
	{name: "demoted", words: "READONLY|no usable connection",
		spoil: "REPLICAOF 127.0.0.1 1", mend: "REPLICAOF NO ONE"},
	{name: "the counter's key holds something else", words: "WRONGTYPE", beats: true,
		spoil: "DEL PREFIX:lim:1:all:3600000:{g}; LPUSH PREFIX:lim:1:all:3600000:{g} x", mend: "DEL PREFIX:lim:1:all:3600000:{g}"},
	{name: "gone", words: "no usable connection", spoil: "KILL", mend: "START"},
}

// TestRedisRefuses: two gateways, one of each form, share a limit until Redis
// refuses. Each says so at once and once, in Redis's own words and with what it
// means, and that the limits are exact again when they are.
//
// The cases wait, mostly, and are told apart by nothing but whose log it is. So
// each runs in a process of its own, all at the same time.
func TestRedisRefuses(t *testing.T) {
	ended := map[string]func() (string, error){}
	if os.Getenv(ownProcess) == "" {
		for _, r := range refusals {
			ended[r.name] = runAlone(t, "^TestRedisRefuses$/^"+strings.ReplaceAll(r.name, " ", "_")+"$")
		}
	}
	for _, r := range refusals {
		t.Run(r.name, func(t *testing.T) {
			if await := ended[r.name]; await != nil {
				switch said, err := await(); {
				case err == nil && strings.Contains(said, "--- SKIP: "+t.Name()):
					t.Skip(said)
				case err != nil || !strings.Contains(said, "--- PASS: "+t.Name()):
					t.Errorf("%v\n%s", err, said)
				}
				return
			}
			said := bothForms(t)
			b := newBed(t, forms.Compiled{})
			ctx := context.Background()
			run := func(commands string) {
				t.Helper()
				for _, command := range strings.Split(strings.ReplaceAll(commands, "PREFIX", b.prefix), ";") {
					switch command = strings.TrimSpace(command); command {
					case "KILL":
						b.redis.Kill()
						continue
					case "START":
						b.redis.Start()
						b.redis.Client.Do(ctx, "ACL", "SETUSER", "app", "on", ">secret", "~*", "&*", "+@all")
						continue
					case "GONE":
						dir, err := b.redis.Client.ConfigGet(ctx, "dir").Result()
						if err := errors.Join(err, os.RemoveAll(dir["dir"])); err != nil {
							t.Fatal(err)
						}
						continue
					}
					var words []any
					for _, word := range strings.Fields(strings.ReplaceAll(command, "\\ ", "\x00")) {
						words = append(words, strings.ReplaceAll(word, "\x00", " "))
					}
					if err := b.redis.Client.Do(ctx, words...).Err(); err != nil {
						t.Fatalf("%s: %v", command, err)
					}
				}
			}
			run("ACL SETUSER app reset on >secret ~PREFIX:* &* +@all")
			config := forms.FromFile(t, fmt.Sprintf(`
redis: {addresses: [%q], keyPrefix: %s, username: app, password: secret, timeout: 2s}
limits: [{name: all, key: global, limit: 4, window: 1h}]`, b.redis.Addr, b.prefix))
			gates := []http.Handler{forms.Compiled{}.New(t, config, b.up), forms.Interpreted{}.New(t, config, b.up)}
			b.redis.AwaitGateways(b.prefix, 2)
			b.redis.Gateways(b.prefix) // each has heard of the other
			b.redis.RoomIn(hour, time.Minute)
			admitted := func() int {
				return strings.Count(statuses(gates[0], 4)+" "+statuses(gates[1], 4), "200")
			}
			if n := admitted(); n != 4 {
				t.Fatalf("%d admitted while all is well", n)
			}

			run(r.spoil)
			refused := `ERR sluice: Redis does not count the limits: .*(` + r.words + `).* Since \S+Z this gateway decides alone by its share, 1/2 of each limit$`
			harness.Eventually(t, 15*time.Second, "both gateways say that they are refused", func() error {
				for _, gate := range gates { // who asks learns of it
					ask(gate, from(fmt.Sprintf("198.51.100.%d:1", time.Now().UnixNano()%200)))
				}
				if n := len(said.matching(refused)); n != 2 {
					return fmt.Errorf("%d lines of %s", n, refused)
				}
				return nil
			})
			if r.beats {
				for _, gateway := range b.redis.Gateways(b.prefix) {
					if gateway.Alone == nil || !regexp.MustCompile(r.words).MatchString(gateway.Alone.Reply) {
						t.Errorf("the heartbeat says %+v", gateway.Alone)
					}
				}
			}
			time.Sleep(4 * time.Second) // not a state, but the time in which nothing may be said again
			if n := len(said.matching(refused)); n != 2 {
				t.Errorf("it was said %d times", n)
			}
			if again := said.matching("exact again"); len(again) > 0 {
				t.Errorf("exact again, it says: %s", again)
			}

			run(r.mend)
			harness.Eventually(t, 20*time.Second, "both gateways say that it is over", func() error {
				for _, gate := range gates {
					ask(gate)
				}
				if n := len(said.matching(`INF sluice: Redis counts again: the limits are exact again`)); n != 2 {
					return fmt.Errorf("%d lines", n)
				}
				return nil
			})
			for _, gateway := range b.redis.Gateways(b.prefix) {
				if gateway.Alone != nil {
					t.Errorf("the heartbeat still says %+v", gateway.Alone)
				}
			}
			if lines := said.lines("{g}"); len(lines) > 0 {
				t.Errorf("a key in the log: %s", lines)
			}
		})
	}
}

// TestRefusedFromTheStart: nobody has asked yet, and the log says already that
// the user of Redis may not touch the keys.
func TestRefusedFromTheStart(t *testing.T) {
	said := bothForms(t)
	b := newBed(t, forms.Compiled{})
	if err := b.redis.Client.Do(context.Background(), "ACL", "SETUSER", "app", "reset", "on", ">secret", "~sluice:*", "&*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	config := forms.FromFile(t, fmt.Sprintf(`
redis: {addresses: [%q], keyPrefix: shop, username: app, password: secret}
limits: [{name: all, key: global, limit: 4, window: 1h}]`, b.redis.Addr))
	forms.Compiled{}.New(t, config, b.up)
	forms.Interpreted{}.New(t, config, b.up)
	for _, want := range []string{
		`ERR sluice: Redis does not count the limits: redis: not permitted: NOPERM .* \(` + b.redis.Addr + ` as user app, keyPrefix shop; .*the whole of each limit, for it has heard of no other gateway`,
		`ERR sluice: Redis does not take this gateway's heartbeat: redis: not permitted: NOPERM`,
	} {
		harness.Eventually(t, 10*time.Second, want, func() error {
			if n := len(said.matching(want)); n != 2 {
				return fmt.Errorf("%d lines", n)
			}
			return nil
		})
	}
}

// TestMayNotListen: a user of Redis without the channel is told so once, and in
// vain only where somebody needs it.
func TestMayNotListen(t *testing.T) {
	said := bothForms(t)
	b := newBed(t, forms.Compiled{})
	if err := b.redis.Client.Do(context.Background(), "ACL", "SETUSER", "app", "reset", "on", ">secret", "~*", "+@all").Err(); err != nil {
		t.Fatal(err)
	}
	open := func(auth string) {
		forms.Compiled{}.New(t, forms.FromFile(t, b.fill(fmt.Sprintf(`
redis: {addresses: [%q], keyPrefix: %s, username: app, password: secret}
limits: [{name: all, key: global, limit: 4, window: 1h}]
%s`, b.redis.Addr, b.prefix, auth))), b.up)
	}
	open("")
	b.connected()
	b.redis.Gateways(b.prefix)
	const refused = `ERR sluice: cannot listen to \S+:events: redis: not permitted: NOPERM`
	if told := said.matching("events|NOPERM"); len(told) > 0 {
		t.Errorf("a limiter needs no events: %s", told)
	}
	open("auth: {addresses: [AUTH]}")
	harness.Eventually(t, 10*time.Second, refused, func() error {
		if len(said.matching(refused)) != 1 {
			return errors.New("not said")
		}
		return nil
	})
	b.redis.Gateways(b.prefix) // two seconds and more
	if told := said.matching(refused); len(told) != 1 {
		t.Errorf("said %d times", len(told))
	}
}

// TestLinesOfTheLog: each has time and level, and stands alone.
func TestLinesOfTheLog(t *testing.T) {
	said := bothForms(t)
	for _, form := range forms.All {
		form.New(t, map[string]any{"limits": []any{map[string]any{"name": "Bad Name", "key": "who", "limit": "0"}}}, http.NotFoundHandler())
	}
	told := said.lines()
	if len(told) < 8 {
		t.Errorf("few lines: %q", told)
	}
	for _, line := range told {
		if !regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S+ ERR sluice: the middleware \S+ is misconfigured and answers 503: `).MatchString(line) {
			t.Errorf("%q", line)
		}
	}
}
