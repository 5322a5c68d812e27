package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
)

const (
	burstLimit  = 20 // the shipped limit "burst", a second and user
	burstSent   = 60
	revokedSoon = 2 * time.Second // a revocation has reached every gateway by then
)

// demonstration walks through the promises with real requests and notes which
// were kept.
type demonstration struct {
	ctx    context.Context
	out    io.Writer
	stack  *stack.Stack
	base   string // the front door
	client *http.Client
	broken []string
}

// person is a registered user with a valid token.
type person struct {
	ID    string
	token string
}

// answer is what came back.
type answer struct {
	*http.Response
	body []byte
}

func demo(ctx context.Context, out io.Writer, options stack.Options) error {
	s, err := stack.Open(ctx, options)
	if err != nil {
		return err
	}
	d := &demonstration{ctx: ctx, out: out, stack: s, base: s.Ready().HTTP, client: &http.Client{Timeout: 10 * time.Second}}
	err = d.run()
	d.client.CloseIdleConnections()
	if err = errors.Join(err, s.Close()); err != nil {
		return err
	}
	if len(d.broken) > 0 {
		return fmt.Errorf("not as promised: %s", strings.Join(d.broken, "; "))
	}
	fmt.Fprintln(out, "\nEverything was as promised.")
	return nil
}

// run is the tour, in the order of a reader's questions. An error is a request
// that got no answer at all; an answer other than promised is noted.
func (d *demonstration) run() error {
	ready := d.stack.Ready()
	fmt.Fprintf(d.out, "A gateway at %s, the plugin %s, %s wiring.\n", ready.HTTP, ready.Plugin, ready.Wiring)

	d.title("Ada and Bob register")
	ada, err := d.register("ada")
	if err != nil {
		return err
	}
	bob, err := d.register("bob")
	if err != nil {
		return err
	}
	for _, step := range []func(ada, bob person) error{
		d.identity, d.forgery, d.ownership, d.limit, d.revocation, d.withoutRedis,
	} {
		if err := step(ada, bob); err != nil {
			return err
		}
	}
	return nil
}

func (d *demonstration) identity(ada, _ person) error {
	d.title("No token, no entry; a token opens")
	for _, step := range []struct {
		token string
		want  int
	}{{"", http.StatusUnauthorized}, {ada.token + "x", http.StatusUnauthorized}, {ada.token, http.StatusOK}} {
		got, err := d.get("/v1/products", step.token)
		if err != nil {
			return err
		}
		d.show(got, "WWW-Authenticate", "X-Request-ID", "RateLimit-Policy", "RateLimit")
		d.promise(got.StatusCode == step.want, "%d was promised", step.want)
	}
	return nil
}

func (d *demonstration) forgery(ada, bob person) error {
	d.title("Ada says that she is Bob: a forged X-User-ID is ignored")
	for _, step := range []struct {
		path string
		want int
	}{{"/v1/users/" + bob.ID, http.StatusNotFound}, {"/v1/users/" + ada.ID, http.StatusOK}} {
		got, err := d.get(step.path, ada.token, "X-User-ID", bob.ID)
		if err != nil {
			return err
		}
		d.show(got)
		d.promise(got.StatusCode == step.want, "%d was promised", step.want)
	}
	return nil
}

func (d *demonstration) ownership(ada, bob person) error {
	d.title("Ada orders; Bob cannot see it")
	catalogue, err := d.get("/v1/products", ada.token)
	if err != nil {
		return err
	}
	var products struct{ Items []struct{ ID string } }
	if err := json.Unmarshal(catalogue.body, &products); err != nil || len(products.Items) == 0 {
		return fmt.Errorf("no products in %q: %w", catalogue.body, err)
	}
	order, err := d.send(http.MethodPost, "/v1/orders", ada.token, map[string]any{
		"items": []map[string]any{{"product_id": products.Items[0].ID, "quantity": 2}},
	})
	if err != nil {
		return err
	}
	d.show(order, "Location")
	d.promise(order.StatusCode == http.StatusCreated, "201 was promised")
	for _, step := range []struct {
		who  person
		want int
	}{{ada, http.StatusOK}, {bob, http.StatusNotFound}} {
		got, err := d.get(order.Header.Get("Location"), step.who.token)
		if err != nil {
			return err
		}
		d.show(got)
		d.promise(got.StatusCode == step.want, "%d was promised", step.want)
	}
	return nil
}

func (d *demonstration) limit(_, bob person) error {
	d.title(fmt.Sprintf("Bob sends %d requests at once where %d a second are his", burstSent, burstLimit))
	return d.burst(bob)
}

// burst promises that the limit binds and that the refusal says how long.
func (d *demonstration) burst(who person) error {
	begun := time.Now()
	statuses := map[int]int{}
	var refused *answer
	for range burstSent {
		got, err := d.get("/v1/products", who.token)
		if err != nil {
			return err
		}
		statuses[got.StatusCode]++
		if refused == nil && got.StatusCode == http.StatusTooManyRequests {
			refused = got
		}
	}
	took := time.Since(begun)
	fmt.Fprintf(d.out, "  %d passed, %d refused, in %s\n", statuses[http.StatusOK], statuses[http.StatusTooManyRequests], took.Round(time.Millisecond))
	others := len(statuses)
	for _, expected := range []int{http.StatusOK, http.StatusTooManyRequests} {
		if statuses[expected] > 0 {
			others--
		}
	}
	d.promise(others == 0, "only 200 and 429 were promised, not %v", statuses)
	// What the window frees while the requests are sent may pass as well.
	most := burstLimit + int(burstLimit*took.Seconds()) + 1
	d.promise(statuses[http.StatusOK] <= most, "at most %d were to pass", most)
	if refused == nil {
		d.promise(false, "a refusal was promised")
		return nil
	}
	d.show(refused, "Retry-After", "RateLimit-Policy", "RateLimit")
	wait, err := strconv.Atoi(refused.Header.Get("Retry-After"))
	d.promise(err == nil && wait >= 1, "Retry-After was promised")
	d.promise(bytes.Contains(refused.body, []byte(`"limit":"burst"`)), "the limit's name was promised")
	return nil
}

func (d *demonstration) revocation(ada, _ person) error {
	d.title("The operator revokes Ada's token")
	before, err := d.get("/v1/products", ada.token)
	if err != nil {
		return err
	}
	d.show(before)
	d.promise(before.StatusCode == http.StatusOK, "200 was promised")

	ready := d.stack.Ready()
	form := url.Values{"token": {ada.token}}
	request, err := http.NewRequestWithContext(d.ctx, http.MethodPost, ready.Admin+"/v1/tokens/revoke", strings.NewReader(form.Encode()))
	if err != nil {
		return err
	}
	request.Header.Set("Authorization", "Bearer "+ready.AdminToken)
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	revoked, err := d.do(request)
	if err != nil {
		return err
	}
	d.show(revoked)
	d.promise(revoked.StatusCode/100 == 2, "2xx was promised")

	begun := time.Now()
	for {
		got, err := d.get("/v1/products", ada.token)
		if err != nil {
			return err
		}
		if got.StatusCode == http.StatusUnauthorized {
			d.show(got, "WWW-Authenticate")
			fmt.Fprintf(d.out, "  refused %s after the revocation\n", time.Since(begun).Round(100*time.Microsecond))
			return nil
		}
		if time.Since(begun) > revokedSoon {
			d.show(got)
			d.promise(false, "401 within %s was promised", revokedSoon)
			return nil
		}
		if err := d.pause(50 * time.Millisecond); err != nil {
			return err
		}
	}
}

func (d *demonstration) withoutRedis(_, bob person) error {
	d.title("Redis goes away: requests still pass, limits still hold")
	carol, err := d.register("carol")
	if err != nil {
		return err
	}
	if _, err := d.get("/v1/products", carol.token); err != nil { // known to the gateway from now on
		return err
	}
	if err := d.pause(2 * time.Second); err != nil { // Bob's and Carol's windows of a second empty
		return err
	}
	if err := d.stack.StopRedis(); err != nil {
		return err
	}
	fmt.Fprintln(d.out, "  Redis is stopped")
	for _, who := range []person{carol, bob} {
		got, err := d.get("/v1/products", who.token)
		if err != nil {
			return err
		}
		d.show(got, "RateLimit")
		d.promise(got.StatusCode == http.StatusOK, "200 was promised")
	}
	return d.burst(carol)
}

func (d *demonstration) register(name string) (person, error) {
	got, err := d.send(http.MethodPost, "/v1/users/register", "", map[string]any{
		"email": name + "@example.com", "password": "correct horse battery staple", "name": strings.ToUpper(name[:1]) + name[1:],
	})
	if err != nil {
		return person{}, err
	}
	d.show(got, "X-Request-ID")
	var body struct {
		User  person
		Token string `json:"access_token"`
	}
	if err := json.Unmarshal(got.body, &body); got.StatusCode != http.StatusCreated || err != nil {
		return person{}, fmt.Errorf("register %s: %s %s", name, got.Status, got.body)
	}
	body.User.token = body.Token
	return body.User, nil
}

func (d *demonstration) get(path, token string, header ...string) (*answer, error) {
	return d.send(http.MethodGet, path, token, nil, header...)
}

// send makes one request through the front door. Header holds names and values
// in turn.
func (d *demonstration) send(method, path, token string, body any, header ...string) (*answer, error) {
	var content io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(encoded)
	}
	request, err := http.NewRequestWithContext(d.ctx, method, d.base+path, content)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token)
	}
	for pair := range slices.Chunk(header, 2) {
		request.Header.Set(pair[0], pair[1])
	}
	return d.do(request)
}

func (d *demonstration) do(request *http.Request) (*answer, error) {
	response, err := d.client.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	return &answer{response, body}, nil
}

func (d *demonstration) pause(length time.Duration) error {
	select {
	case <-d.ctx.Done():
		return d.ctx.Err()
	case <-time.After(length):
		return nil
	}
}

func (d *demonstration) title(text string) { fmt.Fprintf(d.out, "\n%s\n", text) }

// show prints an exchange as a line and the named headers below it.
func (d *demonstration) show(got *answer, headers ...string) {
	fmt.Fprintf(d.out, "  %s %s -> %s\n", got.Request.Method, got.Request.URL.Path, got.Status)
	for _, name := range headers {
		if value := got.Header.Get(name); value != "" {
			fmt.Fprintf(d.out, "      %s: %s\n", name, value)
		}
	}
}

// promise notes what was not kept.
func (d *demonstration) promise(kept bool, format string, args ...any) {
	if kept {
		return
	}
	broken := fmt.Sprintf(format, args...)
	fmt.Fprintf(d.out, "  NOT AS PROMISED: %s\n", broken)
	d.broken = append(d.broken, broken)
}
