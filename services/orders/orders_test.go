package orders

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/services/internal/web"
	"github.com/sluice-gateway/sluice/services/products"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type reply struct {
	status int
	header http.Header
	body   string
	order
	Errors []web.FieldError `json:"errors"`
}

// shop is an order service beside a real product service.
type shop struct {
	base  string
	s     *Service
	calls atomic.Int64 // requests that reached the product service
	down  atomic.Bool
}

func open(t *testing.T) *shop {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	stock, err := products.Open(context.Background(), products.Config{Listen: "127.0.0.1:0", Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	o := &shop{}
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.calls.Add(1)
		if o.down.Load() {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		r.URL.Scheme, r.URL.Host, r.RequestURI = "http", stock.Addr(), ""
		response, err := http.DefaultClient.Do(r)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer response.Body.Close()
		w.WriteHeader(response.StatusCode)
		_, _ = io.Copy(w, response.Body)
	}))
	o.s, err = Open(context.Background(), Config{Listen: "127.0.0.1:0", Products: between.URL, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	o.base = "http://" + o.s.Addr()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := errors.Join(o.s.Close(), stock.Close()); err != nil {
			t.Error(err)
		}
		between.Close()
	})
	return o
}

func (o *shop) do(t *testing.T, method, path, user, key, body string) reply {
	t.Helper()
	request, err := http.NewRequest(method, o.base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if user != "" {
		request.Header.Set(web.UserHeader, user)
	}
	if key != "" {
		request.Header.Set("Idempotency-Key", key)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	raw, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	got := reply{status: response.StatusCode, header: response.Header, body: string(raw)}
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &got); err != nil {
			t.Fatalf("%v in %q", err, raw)
		}
	}
	return got
}

func (o *shop) kept() int {
	o.s.mu.RLock()
	defer o.s.mu.RUnlock()
	return len(o.s.orders)
}

const basket = `{"items":[{"product_id":"p-1001","quantity":2},{"product_id":"p-1005","quantity":3},{"product_id":"p-1001","quantity":1}]}`

func TestOrder(t *testing.T) {
	o := open(t)
	made := o.do(t, "POST", "/v1/orders", "ann", "", basket)
	if made.status != 201 || made.UserID != "ann" || len(made.Items) != 3 || made.Total != 3*14900+3*890 {
		t.Fatalf("%d %s", made.status, made.body)
	}
	if made.header.Get("Location") != "/v1/orders/"+made.ID {
		t.Errorf("Location: %q", made.header.Get("Location"))
	}
	if age := time.Since(made.CreatedAt); age < 0 || age > time.Minute {
		t.Errorf("created %v ago", age)
	}
	if o.calls.Load() != 2 {
		t.Errorf("%d questions to the product service for two products", o.calls.Load())
	}
	path := "/v1/orders/" + made.ID
	if shown := o.do(t, "GET", path, "ann", "", ""); shown.status != 200 || shown.body != made.body {
		t.Errorf("%d %s, want what was created", shown.status, shown.body)
	}
	if got := o.do(t, "HEAD", path, "ann", "", ""); got.status != 200 {
		t.Errorf("HEAD: %d", got.status)
	}
	stranger, unknown := o.do(t, "GET", path, "bob", "", ""), o.do(t, "GET", "/v1/orders/none", "ann", "", "")
	if stranger.status != 404 || unknown.status != 404 || stranger.body != unknown.body {
		t.Errorf("a stranger's order: %d %s, an unknown one: %d %s", stranger.status, stranger.body, unknown.status, unknown.body)
	}
	for _, method := range []string{"GET", "HEAD"} {
		if got := o.do(t, method, path, "", "", ""); got.status != 401 {
			t.Errorf("%s by nobody: %d", method, got.status)
		}
	}
	if got := o.do(t, "POST", "/v1/orders", "", "", basket); got.status != 401 {
		t.Errorf("POST by nobody: %d", got.status)
	}
}

func TestRefusedOrders(t *testing.T) {
	o := open(t)
	tests := []struct {
		name, key, body string
		status          int
		fields          string
	}{
		{"nothing", "", `{}`, 400, "items"},
		{"no items", "", `{"items":[]}`, 400, "items"},
		{"everything wrong", "", `{"items":[{"quantity":0},{"product_id":"","quantity":1001,"price_cents":1},7],"total_cents":1}`, 400,
			"items[0].product_id items[0].quantity items[1].product_id items[1].quantity items[1].price_cents items[2] total_cents"},
		{"unknown products, all named", "", `{"items":[{"product_id":"p-0","quantity":1},{"product_id":"p-1001","quantity":1},{"product_id":"..","quantity":1},{"product_id":"../users/x","quantity":1}]}`, 400,
			"items[0].product_id items[2].product_id items[3].product_id"},
		{"too many items", "", `{"items":[` + strings.Repeat(`{"product_id":"p-1001","quantity":1},`, 50) + `{"product_id":"p-1001","quantity":1}]}`, 400, "items"},
		{"key too long", strings.Repeat("k", 256), basket, 400, ""},
		{"key beyond ASCII", "k\xe4y", basket, 400, ""},
		{"body too large", "", `{"items":"` + strings.Repeat("x", web.MaxBody) + `"}`, 413, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := o.do(t, "POST", "/v1/orders", "ann", tt.key, tt.body)
			var fields []string
			for _, field := range got.Errors {
				fields = append(fields, field.Field)
			}
			if got.status != tt.status || strings.Join(fields, " ") != tt.fields {
				t.Errorf("%d %q, want %d %q", got.status, fields, tt.status, tt.fields)
			}
		})
	}
	if o.kept() != 0 {
		t.Errorf("%d orders were kept", o.kept())
	}
}

func TestIdempotencyKey(t *testing.T) {
	o := open(t)
	first := o.do(t, "POST", "/v1/orders", "ann", "key", basket)
	again := o.do(t, "POST", "/v1/orders", "ann", "key", basket)
	if first.status != 201 || again.status != 201 || first.body != again.body || first.header.Get("Location") != again.header.Get("Location") {
		t.Errorf("%d %s, then %d %s", first.status, first.body, again.status, again.body)
	}
	if first.header.Get("Idempotency-Replayed") != "" || again.header.Get("Idempotency-Replayed") != "true" {
		t.Errorf("replayed: %q, %q", first.header.Get("Idempotency-Replayed"), again.header.Get("Idempotency-Replayed"))
	}
	other := `{"items":[{"product_id":"p-1002","quantity":1}]}`
	for _, step := range []struct {
		user, key, body string
		status, kept    int
	}{
		{"ann", "key", other, 422, 1},
		{"bob", "key", other, 201, 2}, // another user's key of the same spelling
		{"ann", "key 2", basket, 201, 3},
		{"ann", "", basket, 201, 4}, // no key: every request is an order
		{"ann", "key 3", `{}`, 400, 4},
		{"ann", "key 3", basket, 201, 5}, // a refused order leaves its key free
	} {
		got := o.do(t, "POST", "/v1/orders", step.user, step.key, step.body)
		if got.status != step.status || o.kept() != step.kept {
			t.Errorf("%+v: status %d, %d orders kept", step, got.status, o.kept())
		}
	}
}

func TestProductServiceAway(t *testing.T) {
	o := open(t)
	o.down.Store(true)
	got := o.do(t, "POST", "/v1/orders", "ann", "key", basket)
	if got.status != 503 || got.header.Get("Retry-After") != "1" || o.kept() != 0 {
		t.Errorf("%d, Retry-After %q, %d orders kept", got.status, got.header.Get("Retry-After"), o.kept())
	}
	o.down.Store(false)
	if got := o.do(t, "POST", "/v1/orders", "ann", "key", basket); got.status != 201 {
		t.Errorf("tried again: %d", got.status)
	}
}

// TestRepeatsMakeOneOrder sends one request many times at once: the first fails,
// one of the others makes the order and all the rest are answered with it.
func TestRepeatsMakeOneOrder(t *testing.T) {
	r := newRepeats(time.Now)
	var made atomic.Int64
	var failed atomic.Bool
	place := func(context.Context) (order, error) {
		if failed.CompareAndSwap(false, true) {
			return order{}, errors.New("the catalogue is away")
		}
		return order{ID: fmt.Sprint(made.Add(1))}, nil
	}
	const many = 50
	var wait sync.WaitGroup
	var succeeded, failures, replays atomic.Int64
	for range many {
		wait.Go(func() {
			got, replayed, err := r.once(context.Background(), "ann", "key", []byte("body"), place)
			switch {
			case err != nil:
				failures.Add(1)
			case got.ID == "1":
				succeeded.Add(1)
			}
			if replayed {
				replays.Add(1)
			}
		})
	}
	wait.Wait()
	if made.Load() != 1 || failures.Load() != 1 || succeeded.Load() != many-1 || replays.Load() != many-2 {
		t.Errorf("%d orders, %d failures, %d answers, %d of them replays", made.Load(), failures.Load(), succeeded.Load(), replays.Load())
	}
}

func TestRepeatWaitsNoLongerThanItsClient(t *testing.T) {
	r := newRepeats(time.Now)
	entered, leave, left := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(left)
		_, _, _ = r.once(context.Background(), "ann", "key", nil, func(context.Context) (order, error) {
			close(entered)
			<-leave
			return order{}, nil
		})
	}()
	<-entered
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := r.once(gone, "ann", "key", nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(leave)
	<-left
}

func TestPanicFreesItsKey(t *testing.T) {
	r := newRepeats(time.Now)
	func() {
		defer func() { _ = recover() }()
		_, _, _ = r.once(context.Background(), "ann", "key", nil, func(context.Context) (order, error) { panic("bug") })
	}()
	made, _, err := r.once(context.Background(), "ann", "key", nil, func(context.Context) (order, error) { return order{ID: "1"}, nil })
	if err != nil || made.ID != "1" {
		t.Errorf("%+v, %v", made, err)
	}
}

func TestRepeatsAreBoundedAndExpire(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	r := newRepeats(func() time.Time { return now })
	var made int
	order := func(user, key string) (id string, replayed bool) {
		t.Helper()
		got, replayed, err := r.once(context.Background(), user, key, nil, func(context.Context) (order, error) {
			made++
			return order{ID: fmt.Sprint(made)}, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got.ID, replayed
	}
	order("bob", "key")
	for i := range repeatsUser + 1 {
		order("ann", fmt.Sprint(i))
	}
	if len(r.byUser["ann"]) != repeatsUser {
		t.Errorf("%d keys kept", len(r.byUser["ann"]))
	}
	if _, replayed := order("ann", "1"); !replayed {
		t.Error("the second key is forgotten already")
	}
	if _, replayed := order("bob", "key"); !replayed {
		t.Error("one user's keys pushed out another's")
	}
	now = now.Add(repeatLife - 1)
	if _, replayed := order("bob", "key"); !replayed {
		t.Error("forgotten before its time")
	}
	now = now.Add(1)
	if _, replayed := order("bob", "key"); replayed {
		t.Error("not forgotten in time")
	}
}
