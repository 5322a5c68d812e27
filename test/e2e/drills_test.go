package e2e

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/test/compose"
	"github.com/sluice-gateway/sluice/test/harness"
)

var (
	drillRounds = flag.Int("rounds", 1, "how often TestDrills goes through its drills")
	drillNamed  = flag.String("drill", "", "only drills with this in their name")
)

// drillSeed fixes the order of the drills.
const drillSeed = 6

// drill is one way to hurt the stack of compose.yaml.
type drill struct {
	name string
	hurt func(*drilled) // returns when it is done
	heal func(*drilled) // begins to undo it; what is left is waited for
	away time.Duration  // between the two

	lost      int  // requests without an answer, at most
	service   bool // a service is away: its own path may answer 502 or 504
	authAway  bool // a token nobody knows may be answered with 503
	clock     bool // only where a gateway's clock can be set
	redisAway bool // limits are held by shares meanwhile: limit by Redis, limit by shares (design: fallback-share)
}

// drills. A gateway that ends or hangs takes what is under way through it, and
// what the balancer gives it before its check notices (a second, and a timeout
// of two): with the drills' traffic at most 60 requests. Whatever else happens,
// no request is lost.
var drills = []drill{
	{name: "gateway killed", hurt: on("gateway", 1, (*compose.Project).Kill), heal: on("gateway", 1, (*compose.Project).Start), away: 3 * time.Second, lost: 60},
	{name: "gateway stopped", hurt: on("gateway", 1, (*compose.Project).Stop), heal: on("gateway", 1, (*compose.Project).Start), away: 3 * time.Second},
	{name: "gateway paused", hurt: on("gateway", 1, (*compose.Project).Pause), heal: on("gateway", 1, (*compose.Project).Unpause), away: 5 * time.Second, lost: 60},
	{name: "gateway cut off the balancer", hurt: offline("gateway", "front"), heal: online("gateway", "front"), away: 5 * time.Second, lost: 60},
	// That network carries its questions to authsvc, too: each is asked anew by
	// way of the other network once it has timed out.
	{name: "gateway cut off Redis", hurt: offline("gateway", "data"), heal: online("gateway", "data"), away: 3 * time.Second, redisAway: true, authAway: true},
	{name: "every gateway restarted in turn", hurt: (*drilled).rolling, heal: nothing},
	{name: "one authsvc killed", hurt: on("authsvc", 1, (*compose.Project).Kill), heal: on("authsvc", 1, (*compose.Project).Start), away: 3 * time.Second},
	{name: "one authsvc paused", hurt: on("authsvc", 1, (*compose.Project).Pause), heal: on("authsvc", 1, (*compose.Project).Unpause), away: 3 * time.Second},
	{name: "one authsvc cut off the gateways", hurt: offline("authsvc", "identity"), heal: online("authsvc", "identity"), away: 3 * time.Second},
	{name: "every authsvc killed", hurt: on("authsvc", 0, (*compose.Project).Kill), heal: on("authsvc", 0, (*compose.Project).Start), away: 3 * time.Second, authAway: true},
	{name: "every authsvc paused", hurt: on("authsvc", 0, (*compose.Project).Pause), heal: on("authsvc", 0, (*compose.Project).Unpause), away: 3 * time.Second, authAway: true},
	{name: "Redis killed", hurt: on("redis", 1, (*compose.Project).Kill), heal: on("redis", 1, (*compose.Project).Start), away: 3 * time.Second, redisAway: true},
	{name: "Redis stopped", hurt: on("redis", 1, (*compose.Project).Stop), heal: on("redis", 1, (*compose.Project).Start), away: 3 * time.Second, redisAway: true},
	{name: "Redis paused", hurt: on("redis", 1, (*compose.Project).Pause), heal: on("redis", 1, (*compose.Project).Unpause), away: 3 * time.Second, redisAway: true},
	{name: "Redis cut off", hurt: offline("redis", "data"), heal: online("redis", "data"), away: 3 * time.Second, redisAway: true},
	{name: "Redis slow: CLIENT PAUSE", hurt: (*drilled).pauseClients, heal: nothing, away: 3 * time.Second, redisAway: true},
	{name: "Redis slow: its line, by tc", hurt: (*drilled).narrow, heal: (*drilled).widen, away: 5 * time.Second, redisAway: true},
	{name: "Redis slow: runs a third of the time", hurt: (*drilled).stutter, heal: (*drilled).smooth, away: 3 * time.Second, redisAway: true},
	{name: "Redis restarted empty", hurt: (*drilled).emptied, heal: on("redis", 1, (*compose.Project).Start), away: 2 * time.Second, redisAway: true},
	{name: "a service killed", hurt: on("products", 1, (*compose.Project).Kill), heal: on("products", 1, (*compose.Project).Start), away: 3 * time.Second, service: true},
	{name: "a service paused", hurt: on("products", 1, (*compose.Project).Pause), heal: on("products", 1, (*compose.Project).Unpause), away: 3 * time.Second, service: true},
	{name: "routes edited", hurt: (*drilled).edit, heal: nothing},
	{name: "certificate replaced", hurt: (*drilled).certificate, heal: nothing},
	{name: "one gateway's clock 10 minutes off", hurt: (*drilled).shift, heal: (*drilled).unshift, away: 5 * time.Second, clock: true},
}

func nothing(*drilled) {}

// on does something to a service's container, chosen by lot where it has
// several, or to all of them.
func on(service string, number int, what func(*compose.Project, context.Context, compose.Container) error) func(*drilled) {
	return func(d *drilled) {
		for _, part := range d.victims(service, number) {
			if err := what(d.project, d.ctx, part); err != nil {
				d.t.Fatal(err)
			}
		}
	}
}

func offline(service, network string) func(*drilled) {
	return on(service, 1, func(p *compose.Project, ctx context.Context, c compose.Container) error {
		return p.Cut(ctx, c, network)
	})
}

func online(service, network string) func(*drilled) {
	return on(service, 1, func(p *compose.Project, ctx context.Context, c compose.Container) error {
		return p.Join(ctx, c, network)
	})
}

// drilled is the stack in one cycle.
type drilled struct {
	*composed
	lot    *rand.Rand
	chosen []compose.Container
	routes string // as they were
	edits  int

	stuttering func() // ends stutter
	line       string // how narrow does it

	loads []float64 // of the machine, a cycle each
}

// victims are the containers of this cycle, the same for hurt and heal.
func (d *drilled) victims(service string, number int) []compose.Container {
	if d.chosen == nil {
		d.chosen = d.containers(service)
		if number == 1 {
			one := d.lot.IntN(len(d.chosen))
			d.chosen = d.chosen[one : one+1]
		}
	}
	return d.chosen
}

// rolling restarts the gateways one after the other, as an upgrade does.
func (d *drilled) rolling() {
	for _, gateway := range d.containers("gateway") {
		if err := errors.Join(d.project.Stop(d.ctx, gateway), d.project.Start(d.ctx, gateway)); err != nil {
			d.t.Fatal(err)
		}
		d.recovered(d.t)
	}
}

func (d *drilled) pauseClients() {
	if err := d.redis.Client.Do(d.ctx, "CLIENT", "PAUSE", 3000, "ALL").Err(); err != nil {
		d.t.Fatal(err)
	}
}

// stutter lets Redis run 50 ms of every 150, so that most replies are late: a
// machine that is overcommitted, and the kernel needs no module for it.
func (d *drilled) stutter() {
	pid := d.container("redis", 1).PID
	stop, stopped := make(chan struct{}), make(chan struct{})
	d.stuttering = func() { close(stop); <-stopped }
	go func() {
		defer close(stopped)
		for {
			for _, phase := range []struct {
				signal syscall.Signal
				lasts  time.Duration
			}{{syscall.SIGSTOP, 100 * time.Millisecond}, {syscall.SIGCONT, 50 * time.Millisecond}} {
				_ = syscall.Kill(pid, phase.signal) // it is ours, and runs
				time.Sleep(phase.lasts)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
}

func (d *drilled) smooth() { d.stuttering() }

// narrow puts Redis behind a slow line: late packets where the kernel has
// netem, and else a queue that drains slower than it is filled.
func (d *drilled) narrow() {
	for _, discipline := range []string{"netem delay 60ms 40ms", "tbf rate 32kbit burst 2kb latency 1s"} {
		if out, err := d.traffic("add", discipline); err == nil {
			d.line = strings.Replace("`tc qdisc "+discipline+"`", "latency 1s`", "latency 1s`, since this kernel has no netem", 1)
			return
		} else if strings.HasPrefix(discipline, "tbf") {
			d.t.Fatalf("%v: %s", err, out)
		}
	}
}

func (d *drilled) widen() {
	if out, err := d.traffic("del", ""); err != nil {
		d.t.Fatalf("%v: %s", err, out)
	}
}

// traffic controls what Redis sends: what is on its line to the others.
func (d *drilled) traffic(verb, discipline string) ([]byte, error) {
	redis := d.container("redis", 1)
	within := []string{fmt.Sprintf("--net=/proc/%d/ns/net", redis.PID)}
	links, err := exec.CommandContext(d.ctx, "nsenter", append(within, "ip", "-oneline", "-4", "address")...).CombinedOutput()
	if err != nil {
		return links, err
	}
	for line := range strings.Lines(string(links)) { // 12: eth0    inet 172.20.0.3/16 ...
		if words := strings.Fields(line); len(words) > 3 && strings.HasPrefix(words[3], redis.Address["data"]+"/") {
			command := append(within, "tc", "qdisc", verb, "dev", words[1], "root")
			return exec.CommandContext(d.ctx, "nsenter", append(command, strings.Fields(discipline)...)...).CombinedOutput()
		}
	}
	return links, fmt.Errorf("no interface has %s", redis.Address["data"])
}

// shift restarts a gateway with a clock that is ten minutes fast or slow, and
// unshift with a right one.
func (d *drilled) shift() {
	d.clock([]time.Duration{10 * time.Minute, -10 * time.Minute}[d.lot.IntN(2)])
}

func (d *drilled) unshift() { d.clock(0) }

func (d *drilled) clock(off time.Duration) {
	gateway := d.victims("gateway", 1)[0]
	if err := errors.Join(d.project.SetClock(d.ctx, gateway, off), d.project.Stop(d.ctx, gateway), d.project.Start(d.ctx, gateway)); err != nil {
		d.t.Fatal(err)
	}
	d.recovered(d.t)
	// An answer of its own bears its date.
	address := d.container("gateway", gateway.Number).Address["front"]
	got := d.get("https://" + net.JoinHostPort(address, "443") + "/nowhere")
	date, err := http.ParseTime(got.Header.Get("Date"))
	if shown := time.Until(date); err != nil || got.Status != http.StatusNotFound || (shown-off).Abs() > 30*time.Second {
		d.t.Errorf("the clock of %s is off by %v, want %v: %s, %v", gateway.Name, shown, off, got, err)
	}
}

// emptied kills Redis and takes its files away.
func (d *drilled) emptied() {
	on("redis", 1, (*compose.Project).Kill)(d)
	if _, err := d.project.InVolumeAs(d.ctx, "999:999", "redis-data", "rm -rf /volume/*", nil); err != nil {
		d.t.Fatal(err)
	}
}

// edit writes another route file and waits until every gateway serves it.
func (d *drilled) edit() {
	d.edits++
	path := fmt.Sprintf("/edited-%d-%d", d.edits, time.Now().UnixNano())
	route := fmt.Sprintf("\n  routers:\n    edited:\n      rule: Path(`%s`)\n      priority: 2000\n      middlewares: [open]\n      service: echo\n", path)
	d.rewrite(strings.Replace(d.routes, "\n  routers:\n", route, 1))
	d.awaitPath(path)
}

func (d *drilled) awaitPath(path string) {
	for _, gateway := range d.ready.Gateways {
		harness.Eventually(d.t, 20*time.Second, "the new file is served", func() error {
			got, err := d.try("GET", gateway.HTTP+path, nil)
			if err == nil && got.Status != http.StatusOK {
				err = fmt.Errorf("%d", got.Status)
			}
			return err
		})
	}
}

// certificate puts another one in place and waits until every gateway shows it.
func (d *drilled) certificate() {
	serial, certificate, key := newCertificate(d.t)
	d.put("certificates", "key.pem", key)
	d.put("certificates", "cert.pem", certificate)
	d.edit() // Traefik reads certificates when it reads routes
	d.awaitCertificate(serial)
}

// What requests ask for.
const (
	knownToken = "known"   // a user with a kept connection and a token used before, at an upstream that tells whom it saw
	newToken   = "new"     // a connection and a token of its own
	product    = "service" // a known token at the products service
	limited    = "limited" // a connection of its own each, at one user's limit
)

// sight is one answer.
type sight struct {
	kind   string
	at     time.Time // sent
	took   time.Duration
	status int // 0: none
	wrong  bool
	moved  bool // by a connection that has not served its user yet: to a gateway that may not know the token
	detail string
}

func (s sight) bad() bool {
	return s.wrong || s.status != http.StatusOK && (s.kind != limited || s.status != http.StatusTooManyRequests)
}

// watch is the traffic of the whole run.
type watch struct {
	d    *drilled
	stop chan struct{}
	wait sync.WaitGroup

	mu     sync.Mutex // protects what follows
	seen   []sight    // of the cycle under way
	fresh  []string   // tokens that nobody has used, of the users fresh-<n>
	users  []string
	spend  string            // token of the cycle's limited user
	served map[net.Conn]bool // connections on which a known token got its answer
}

const (
	// Each user stays below a gateway's share of 20 a second, of which there are
	// four or five for half a minute after a gateway was replaced (design: fallback-share).
	drillUsers  = 24
	drillPace   = 400 * time.Millisecond
	drillLimit  = outageAllowed
	drillBudget = time.Second // for a reply of Redis (extend); 100 ms are shipped

	// drillWait is the longest wait for a good answer where no gateway hangs:
	// limits by address, authsvc (1 s, whatever the number of its addresses) and
	// limits by user, each for its whole budget, and a second for the machine.
	drillWait     = drillBudget + time.Second + drillBudget + time.Second
	unheard       = 6 // permits that a Redis grants when it wakes up, to calls that were given up: nobody can spend them
	limitedClient = 4
)

// start begins the traffic: half of the known users over HTTP/2, half over
// HTTP/1.1.
func (d *drilled) start() *watch {
	w := &watch{d: d, stop: make(chan struct{}), served: map[net.Conn]bool{}}
	w.prepare(0)
	front := d.ready.HTTPS
	addresses := d.addresses(drillUsers + 1 + limitedClient)
	each := func(i int, pace time.Duration, kept bool, ask func(client *http.Client)) {
		// Users have addresses of their own: requests under way from one address
		// hold permits of bad-token, of which there are thirty a minute.
		dialer := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: addresses[0]}}
		addresses = addresses[1:]
		transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: i%2 == 0, DisableKeepAlives: !kept}
		client := &http.Client{Timeout: 5 * time.Second, Transport: transport}
		w.wait.Go(func() {
			defer client.CloseIdleConnections()
			time.Sleep(time.Duration(i) * pace / drillUsers) // not all at once
			ticks := time.NewTicker(pace)
			defer ticks.Stop()
			for {
				select {
				case <-w.stop:
					return
				case <-ticks.C:
					ask(client)
				}
			}
		})
	}
	for i := range drillUsers {
		user := fmt.Sprintf("drill-%d", i)
		// Longer than the run: that tokens expire is no part of any drill.
		token := d.token(user, "claims", map[string]any{"plan": "pro"}, "ttl", "3h")
		each(i, drillPace, true, func(client *http.Client) {
			if i%4 == 3 {
				w.ask(client, product, front+"/v1/products", token, "")
				return
			}
			w.ask(client, knownToken, front+"/echo", token, user)
		})
	}
	each(1, drillPace, false, func(client *http.Client) {
		if token, user := w.unused(); token != "" {
			w.ask(client, newToken, front+"/echo", token, user)
		}
	})
	for i := range limitedClient {
		each(i, drillPace/2, false, func(client *http.Client) {
			w.mu.Lock()
			token := w.spend
			w.mu.Unlock()
			w.ask(client, limited, front+"/outage", token, "")
		})
	}
	return w
}

// addresses gives this machine so many in the balancer's network. They go with
// the network's bridge.
func (d *drilled) addresses(n int) (all []net.IP) {
	links, err := net.Interfaces()
	if err != nil {
		d.t.Fatal(err)
	}
	for _, link := range links {
		own, err := link.Addrs()
		if err != nil {
			continue // gone meanwhile
		}
		for _, a := range own {
			network, ok := a.(*net.IPNet)
			if !ok || network.IP.String() != d.address {
				continue
			}
			for i := range n {
				address := slices.Clone(network.IP.To4())
				address[2], address[3] = address[2]|0x0f, byte(100+i) // containers are numbered from below
				ones, _ := network.Mask.Size()
				if out, err := exec.CommandContext(d.ctx, "ip", "address", "add", fmt.Sprintf("%s/%d", address, ones), "dev", link.Name).CombinedOutput(); err != nil || !network.Contains(address) {
					d.t.Fatalf("address %s for %s: %v: %s", address, link.Name, err, out)
				}
				all = append(all, address)
			}
			return all
		}
	}
	d.t.Fatalf("no interface has %s", d.address)
	return nil
}

// awaitIssuing waits until every authsvc has its Redis again.
func (d *drilled) awaitIssuing() {
	for _, authsvc := range d.containers("authsvc") {
		harness.Eventually(d.t, 20*time.Second, "tokens are issued", func() error {
			got, err := d.try("POST", "http://"+authsvc.Address["identity"]+":9001/v1/tokens", map[string]any{"user_id": "nobody"}, bearer(d.ready.AdminToken))
			if err == nil && got.Status != http.StatusOK {
				err = fmt.Errorf("%d", got.Status)
			}
			return err
		})
	}
}

// issued is a token that has been asked for as often as it takes.
func (d *drilled) issued(user string) (token string) {
	d.t.Helper()
	harness.Eventually(d.t, 20*time.Second, "a token is issued", func() error {
		got, err := d.try("POST", d.ready.Admin+"/v1/tokens", map[string]any{"user_id": user}, bearer(d.ready.AdminToken))
		var answer tokens
		if err == nil {
			err = json.Unmarshal(got.Body, &answer)
		}
		if token = answer.AccessToken; err == nil && token == "" {
			err = fmt.Errorf("%s", got)
		}
		return err
	})
	return token
}

// prepare issues what a cycle uses up: tokens that nobody knows, and a user with
// the whole limit.
func (w *watch) prepare(cycle int) {
	var fresh, users []string
	for i := range 60 {
		users = append(users, fmt.Sprintf("fresh-%d-%d", cycle, i))
		fresh = append(fresh, w.d.issued(users[i]))
	}
	spend := w.d.issued(fmt.Sprintf("limited-%d", cycle))
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fresh, w.users, w.spend, w.seen = fresh, users, spend, nil
}

func (w *watch) unused() (token, user string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.fresh) == 0 {
		return "", ""
	}
	token, user = w.fresh[0], w.users[0]
	w.fresh, w.users = w.fresh[1:], w.users[1:]
	return token, user
}

func (w *watch) ask(client *http.Client, kind, url, token, user string) {
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		panic(err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	s := sight{kind: kind, at: time.Now()}
	var connection net.Conn // the balancer gives each to one gateway
	request = request.WithContext(httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
		GotConn: func(got httptrace.GotConnInfo) { connection = got.Conn },
	}))
	response, err := client.Do(request)
	if err == nil {
		var body []byte
		body, err = io.ReadAll(response.Body)
		response.Body.Close()
		if err == nil {
			s.status, s.detail = response.StatusCode, fmt.Sprintf("%d %.300s %q", response.StatusCode, body, response.Header.Get("RateLimit"))
		}
		if s.status == http.StatusOK && user != "" {
			var saw harness.Seen
			s.wrong = json.Unmarshal(body, &saw) != nil || saw.Header.Get("X-User-ID") != user
		}
	}
	if err != nil {
		s.detail = err.Error()
	}
	s.took = time.Since(s.at)
	w.mu.Lock()
	defer w.mu.Unlock()
	if kind == limited && token != w.spend {
		return // the user of the cycle before
	}
	if kind == knownToken || kind == product {
		s.moved = !w.served[connection]
		w.served[connection] = w.served[connection] || s.status == http.StatusOK
	}
	w.seen = append(w.seen, s)
}

func (w *watch) so() []sight {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.seen)
}

// figures are what one drill's cycles have come to.
type figures struct {
	cycles, sent, lost, wrong int
	byWhom                    map[string]int // 5xx and what else was not wanted
	over                      int            // requests admitted beyond the bound
	alone                     int            // decisions without Redis, by gateways that still live
	least, admitted, bound    int            // the least and the most in a cycle
	healed, back              []time.Duration
	slowest                   sight // of good answers
	broken                    []string
}

// cycle hurts the stack once and judges every answer.
func (d *drilled) cycle(w *watch, one *drill, n int, f *figures) {
	t := d.t
	d.redis.RoomIn(time.Hour, 40*time.Second)
	d.awaitIssuing()
	w.prepare(n)
	d.chosen = nil
	harness.Eventually(t, 10*time.Second, "traffic flows", func() error {
		if seen := w.so(); len(seen) < 3*drillUsers {
			return fmt.Errorf("%d answers", len(seen))
		}
		return nil
	})
	before := d.redis.Last(prefix)
	hurt := time.Now()
	one.hurt(d)
	if one.away > 0 {
		<-time.After(one.away)
	}
	healing := time.Now()
	one.heal(d)
	d.recovered(t)
	back := time.Since(healing)
	spent := func() (passed, refusedSince int) {
		for _, s := range w.so() {
			if s.kind == limited && s.status == http.StatusOK {
				passed, refusedSince = passed+1, 0
			} else if s.kind == limited {
				refusedSince++
			}
		}
		return passed, refusedSince
	}
	settled := len(w.so())
	harness.Eventually(t, 20*time.Second, "the limit is reached", func() error {
		if passed, refusedSince := spent(); passed < drillLimit && refusedSince < 10*limitedClient {
			return fmt.Errorf("%d of %d", passed, drillLimit)
		}
		if seen := w.so(); len(seen) < settled+3*drillUsers {
			return errors.New("too little seen since")
		}
		return nil
	})

	f.cycles++
	d.loads = append(d.loads, load())
	f.back = append(f.back, back)
	var last time.Duration
	lost := 0
	complain := func(format string, args ...any) {
		f.broken = append(f.broken, fmt.Sprintf("%s, cycle %d: ", one.name, n)+fmt.Sprintf(format, args...))
	}
	for _, s := range w.so() {
		f.sent++
		if !s.bad() {
			if s.took > f.slowest.took {
				f.slowest = s
			}
			if s.took > drillWait && one.lost == 0 && !(one.service && s.kind == product) {
				complain("%s: a good answer after %v, sent %v after the fault: %s", s.kind, s.took, s.at.Sub(hurt), s.detail)
			}
			continue
		}
		last = max(last, s.at.Add(s.took).Sub(hurt))
		switch {
		case s.wrong:
			f.wrong++
			complain("a wrong identity: %s", s.detail)
		case s.status == 0:
			lost++
		case one.authAway && s.kind == newToken && s.status == http.StatusServiceUnavailable:
			f.byWhom["503 by the gateway: nobody can judge a new token"]++
		case one.authAway && s.moved && s.status == http.StatusServiceUnavailable:
			f.byWhom["503 by a gateway that the balancer changed to: it has not seen the token"]++
		case one.service && s.kind == product && (s.status == http.StatusBadGateway || s.status == http.StatusGatewayTimeout):
			f.byWhom[fmt.Sprintf("%d by the gateway: the service is away", s.status)]++
		default:
			f.byWhom[fmt.Sprintf("%d to %s", s.status, s.kind)]++
			complain("%s: %s", s.kind, s.detail)
		}
	}
	f.lost += lost
	if lost > one.lost {
		such := ""
		for _, s := range w.so() {
			if s.status == 0 {
				such = fmt.Sprintf("%s, %v after, %v: %s", s.kind, s.at.Sub(hurt), s.took, s.detail)
			}
		}
		complain("%d requests without an answer, at most %d may be; such as %s", lost, one.lost, such)
		d.blame(hurt)
	}
	if last > 0 {
		f.healed = append(f.healed, last)
	}
	// With Redis the limit holds to the request, that is where no decision was
	// made without it (design: late-replies).
	alone := 0
	for instance, now := range d.redis.Last(prefix) { // as their last heartbeats tell
		alone += int(now.Counters.Degraded - before[instance].Counters.Degraded)
	}
	f.alone += alone
	bound := drillLimit
	if one.redisAway || alone > 0 {
		bound = 2 * drillLimit
	}
	passed, _ := spent()
	f.admitted, f.bound = max(f.admitted, passed), max(f.bound, bound)
	if f.least == 0 || passed < f.least {
		f.least = passed
	}
	if passed < drillLimit-unheard {
		complain("only %d requests passed a limit of %d", passed, drillLimit)
	}
	if passed > bound {
		f.over += passed - bound
		complain("%d requests passed a limit of %d, at most %d may", passed, drillLimit, bound)
	}
}

// blame logs what balancer and gateways complained of since the fault.
func (d *drilled) blame(since time.Time) {
	for _, part := range d.containers("lb", "gateway") {
		logs, err := d.project.Logs(d.ctx, part)
		if err != nil {
			d.t.Fatal(err)
		}
		var told []string
		for line := range strings.Lines(logs) {
			stamp, rest, _ := strings.Cut(line, " ")
			at, err := time.Parse(time.RFC3339, stamp)
			if err == nil && !at.Before(since.Truncate(time.Second)) && (strings.HasPrefix(rest, "WRN") || strings.HasPrefix(rest, "ERR")) {
				told = append(told, line)
			}
		}
		d.t.Logf("%s: %d complaints, the first of them\n%s", part.Name, len(told), strings.Join(told[:min(len(told), 12)], ""))
	}
}

// load is how many processes want a core, over the last minute.
func load() (mean float64) {
	content, err := os.ReadFile("/proc/loadavg")
	if err == nil {
		_, err = fmt.Sscan(string(content), &mean)
	}
	if err != nil {
		return math.NaN()
	}
	return mean
}

// TestDrills hurts the stack of compose.yaml again and again under steady
// traffic, and writes DRILLS.md where it went through every drill
// often enough to say anything.
func TestDrills(t *testing.T) {
	if !*onDocker {
		t.Skip("only with -docker; on processes TestFast and the tests of package identity take parts away, in short")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 55*time.Minute)
	defer cancel()
	begun := time.Now()
	c := bringUp(ctx, t, compose.Options{Clocks: true})
	c.extend()
	routes, err := os.ReadFile(c.dynamic)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(routes), "\n            timeout: "+drillBudget.String()+"\n") {
		t.Fatal("the tests' routes have another budget for Redis")
	}
	d := &drilled{composed: c, lot: rand.New(rand.NewPCG(drillSeed, 0)), routes: string(routes)}
	w := d.start()
	all := make([]*figures, len(drills))
	for i := range all {
		all[i] = &figures{byWhom: map[string]int{}}
	}
	cycles := 0
	defer func() { // of a run that was broken off, too
		var broken []string
		for _, f := range all {
			broken = append(broken, f.broken...)
		}
		if len(broken) > mostBroken {
			broken = append(broken[:mostBroken:mostBroken], fmt.Sprintf("and %d more", len(broken)-mostBroken))
		}
		for _, line := range broken {
			t.Error(line)
		}
		if cycles >= 100 {
			if err := d.write(all, broken, cycles, time.Since(begun)); err != nil {
				t.Error(err)
			}
		}
	}()
	defer w.wait.Wait()
	defer close(w.stop)
	for range *drillRounds {
		for _, i := range d.lot.Perm(len(drills)) {
			if drills[i].clock && !c.project.CanSetClock() || !strings.Contains(drills[i].name, *drillNamed) {
				continue // an official Traefik's clock cannot be set
			}
			d.cycle(w, &drills[i], cycles+1, all[i])
			cycles++
			t.Logf("%d %s: %+v", cycles, drills[i].name, *all[i])
		}
	}
}

// mostBroken is how many broken promises a report tells in full.
const mostBroken = 20

// write puts the record down.
func (d *drilled) write(all []*figures, broken []string, cycles int, took time.Duration) error {
	versions, err := d.project.Versions(d.ctx)
	if err != nil {
		return err
	}
	var text strings.Builder
	fmt.Fprintf(&text, `# Drills: the stack of compose.yaml, hurt again and again

Written by `+"`make drills`"+` (cd test && go test ./e2e -run '^TestDrills$' -docker -rounds 5 -timeout 60m), %d cycles in %v, in an order drawn by lot (seed %d),
on %d cores with a load average of %.1f, %.1f at most: all that waits for a core waits longer than it would on machines of its own.

The shipped compose.yaml, unchanged, on a Docker engine: the balancer, three gateways (%s), two authsvc, the services, Redis. All traffic
comes in by the balancer over TLS while each drill runs: %d users with kept connections and known tokens, half over HTTP/2, a
quarter of them at the products service; tokens that nobody has seen, each on a connection of its own; and one user a cycle, on a
connection a request, who runs into a limit of %d an hour over all gateways. Every answer is judged.

- **no answer**: connections that broke, or five seconds without a word. A gateway that is killed takes what is under way through it and
  what the balancer gives it until its check notices; all else loses none.
- **5xx**: and by whom. **identity**: answers that told the service of another user than the token's.
- **without Redis**: decisions that a gateway made by its share of a limit, as its heartbeat counts them; one that ended took its count
  with it.
- **admitted**: of the limit, the least and the most in a cycle (a Redis that freezes may grant a few permits to calls that were given
  up), and the bound: the limit itself with Redis, limit by Redis and limit by shares where
  Redis was away from any gateway, or a reply later than its budget (design: late-replies, design: fallback-share).
- **slowest good answer**: limits by address, authsvc and limits by user may wait for their budgets one after the other. Redis's is %v in
  these routes, as in all tests of this machine, and 100 ms as shipped; authsvc's is 1 s.
- **the line by tc**: %s, on what Redis sends. **The clock**: a gateway restarted with its clock ten minutes fast or slow, and again
  with a right one.
- **healed**: from the fault until the last answer that was not good. **back**: from the end of the fault until every container is healthy
  and all gateways count together again; Docker checks health every two seconds, so most of it is waiting to be told.

| drill | cycles | requests | no answer | 5xx and by whom | identity | without Redis | admitted | bound | healed p50 / max | back p50 / max | slowest good answer |
|---|---|---|---|---|---|---|---|---|---|---|---|
`, cycles, took.Round(time.Second), drillSeed, runtime.NumCPU(), mean(d.loads), slices.Max(d.loads), "interpreted", drillUsers, drillLimit, drillBudget, d.line)
	sent, wrong, over := 0, 0, 0
	for i, f := range all {
		var blamed []string
		for what, n := range f.byWhom {
			blamed = append(blamed, fmt.Sprintf("%d x %s", n, what))
		}
		slices.Sort(blamed)
		if blamed == nil {
			blamed = []string{"none"}
		}
		fmt.Fprintf(&text, "| %s | %d | %d | %d | %s | %d | %d | %d to %d | %d | %s | %s | %v, %s |\n", drills[i].name, f.cycles, f.sent, f.lost, strings.Join(blamed, ", "), f.wrong, f.alone,
			f.least, f.admitted, f.bound, spread(f.healed), spread(f.back), f.slowest.took.Round(time.Millisecond), f.slowest.kind)
		sent, wrong, over = sent+f.sent, wrong+f.wrong, over+f.over
	}
	fmt.Fprintf(&text, "\n%d requests in %d cycles: wrong identities %d, limits exceeded beyond the bound by %d.\n\n## Promises broken\n\n", sent, cycles, wrong, over)
	for _, line := range broken {
		fmt.Fprintf(&text, "- %s\n", line)
	}
	if len(broken) == 0 {
		fmt.Fprintln(&text, "None.")
	}
	fmt.Fprintf(&text, "\n## Versions\n\n| | |\n|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		fmt.Fprintf(&text, "| %s | %s |\n", name, versions[name])
	}
	return os.WriteFile("DRILLS.md", []byte(text.String()), 0o644)
}

func mean(all []float64) (sum float64) {
	for _, one := range all {
		sum += one / float64(len(all))
	}
	return sum
}

// spread is the median and the largest, or nothing.
func spread(all []time.Duration) string {
	if len(all) == 0 {
		return "never hurt"
	}
	slices.Sort(all)
	return fmt.Sprintf("%v / %v", all[len(all)/2].Round(10*time.Millisecond), all[len(all)-1].Round(10*time.Millisecond))
}
