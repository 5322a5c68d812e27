// Package test holds what needs more than one part of Sluice at once: the plugin
// in both its forms, and the whole gateway from outside. It is a module of its
// own because the plugin catalog refuses a root go.mod that requires Yaegi or
// Traefik, test dependencies included (design: catalog).
package test

import (
	"fmt"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/traefik/yaegi/interp"
	"github.com/traefik/yaegi/stdlib"

	"github.com/sluice-gateway/sluice/test/harness"
)

// evaluate runs a program under Yaegi as Traefik sets it up and returns what its
// run() string says, or how loading or running it failed.
func evaluate(t *testing.T, program string) (said string, panicked any, loadErr error) {
	t.Helper()
	if harness.Race {
		t.Skip("Yaegi itself does not pass the race detector")
	}
	i := interp.New(interp.Options{})
	if err := i.Use(stdlib.Symbols); err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		said     string
		loadErr  error
		panicked any
	}
	done := make(chan outcome, 1)
	go func() {
		var got outcome
		defer func() {
			got.panicked = recover()
			done <- got
		}()
		if _, got.loadErr = i.Eval(program); got.loadErr != nil {
			return
		}
		run, err := i.Eval("p.Run")
		if got.loadErr = err; err == nil {
			got.said = run.Call(nil)[0].String()
		}
	}()
	select {
	case got := <-done:
		return got.said, got.panicked, got.loadErr
	case <-time.After(30 * time.Second):
		t.Fatal("the program does not end")
		return
	}
}

// TestDialect shows what Yaegi 0.16.1 does otherwise than Go, so that a line of
// the plugin that avoids an idiom can be trusted, and simplified once its case
// here fails.
func TestDialect(t *testing.T) {
	t.Run("silent", func(t *testing.T) {
		for _, tt := range []struct{ name, program, compiled, interpreted string }{
			{
				name: "closures share the loop variable",
				program: `package p
					func Run() string {
						var said []func() string
						for _, s := range []string{"a", "b"} {
							said = append(said, func() string { return s })
						}
						return said[0]() + said[1]()
					}`,
				compiled: "ab", interpreted: "bb",
			},
			{
				name: "an assertion takes a struct type for another of the same shape",
				program: `package p
					type metre struct{ n int }
					type foot struct{ n int }
					func Run() string {
						var length interface{} = foot{3}
						if _, ok := length.(metre); ok {
							return "a metre"
						}
						return "no metre"
					}`,
				compiled: "no metre", interpreted: "a metre",
			},
			{
				name: "a type switch that binds a variable does too",
				program: `package p
					type metre struct{ n int }
					type foot struct{ n int }
					func Run() string {
						var length interface{} = foot{3}
						switch v := length.(type) {
						case metre:
							_ = v
							return "metre"
						case foot:
							_ = v
							return "foot"
						}
						return "neither"
					}`,
				compiled: "foot", interpreted: "metre",
			},
			{
				name: "one that binds none knows no type of the program",
				program: `package p
					type foot struct{ n int }
					func Run() string {
						var length interface{} = foot{3}
						switch length.(type) {
						case foot:
							return "foot"
						}
						return "neither"
					}`,
				compiled: "foot", interpreted: "neither",
			},
			{
				name: "nor that something is an error",
				program: `package p
					import "errors"
					func Run() string {
						var thing interface{} = errors.New("away")
						switch thing.(type) {
						case error:
							return "an error"
						}
						return "no error"
					}`,
				compiled: "an error", interpreted: "no error",
			},
			{
				name: "a case with two conditions never holds",
				program: `package p
					func Run() string {
						key := "ip"
						switch {
						case key == "user", key == "ip":
							return "known"
						}
						return "unknown"
					}`,
				compiled: "known", interpreted: "unknown",
			},
			{
				name: "an assignment inside a switch statement's head matches nothing",
				program: `package p
					import "strings"
					func Run() string {
						for _, name := range []string{" Close"} {
							switch name = strings.TrimSpace(name); strings.ToLower(name) {
							case "close":
								return "hop by hop"
							}
						}
						return "end to end"
					}`,
				compiled: "hop by hop", interpreted: "end to end",
			},
			{
				name: "a parallel assignment with an expression in it loses a value",
				program: `package p
					import "strconv"
					func tenfold(n int) int { return n * 10 }
					func Run() string {
						x, y := 1, 2
						x, y = tenfold(x), y+1
						return strconv.Itoa(x) + " " + strconv.Itoa(y)
					}`,
				compiled: "10 3", interpreted: "10 2",
			},
			{
				name: "and with a call loses all but the call's",
				program: `package p
					import "fmt"
					type stream struct { epoch string; seq, at int64 }
					type event struct { epoch string; seq int64 }
					func clock() int64 { return 99 }
					func (h *stream) hear(e event) { h.epoch, h.seq, h.at = e.epoch, e.seq, clock() }
					func Run() string {
						h := &stream{}
						h.hear(event{"e", 7})
						return fmt.Sprintf("%q %d %d", h.epoch, h.seq, h.at)
					}`,
				compiled: `"e" 7 99`, interpreted: `"" 0 99`,
			},
			{
				name: "of a type with methods, what is sent as an interface value is the variable, not what it holds",
				program: `package p
					type call struct{ name string }
					func (c *call) end() {}
					func Run() string {
						sent := make(chan interface{}, 2)
						first := &call{"a"}
						second := &call{"b"}
						c := first
						sent <- c
						c = second
						sent <- c
						said := ""
						for len(sent) > 0 {
							message := <-sent
							said += message.(*call).name
						}
						return said
					}`,
				compiled: "ab", interpreted: "bb",
			},
			{
				name: "a function literal does not see what is received after it was made",
				program: `package p
					type call struct{ name string }
					func Run() string {
						calls := make(chan *call, 1)
						var c *call
						said := func() string {
							if c == nil {
								return "none"
							}
							return c.name
						}
						calls <- &call{"a"}
						c = <-calls
						return said()
					}`,
				compiled: "a", interpreted: "none",
			},
			{
				name: "goroutines started in a loop share their receiver, unless they are quick",
				program: `package p
					type node struct { n int; said chan int }
					func (n *node) keep() { n.said <- n.n }
					func Run() string {
						for round := 0; round < 1000; round++ {
							said := make(chan int, 2)
							for i := 0; i < 2; i++ {
								n := &node{i, said}
								go n.keep()
							}
							first := <-said
							second := <-said
							if first == second {
								return "one twice"
							}
						}
						return "each"
					}`,
				compiled: "each", interpreted: "one twice",
			},
			{
				name: "a named result begins with what the caller's loop had in its place",
				program: `package p
					import "fmt"
					func either(is bool) (some bool) {
						if is {
							some = true
						}
						return some
					}
					func Run() string {
						text := ""
						for _, is := range []bool{false, true, false} {
							some := either(is)
							text += fmt.Sprint(some, " ")
						}
						return text
					}`,
				compiled: "false true false ", interpreted: "false true true ",
			},
			{
				name: "a named type is its underlying one",
				program: `package p
					type kind int
					func Run() string {
						var thing interface{} = kind(3)
						switch thing.(type) {
						case int:
							return "int"
						case kind:
							return "kind"
						}
						return "neither"
					}`,
				compiled: "kind", interpreted: "int",
			},
		} {
			t.Run(tt.name, func(t *testing.T) {
				said, panicked, loadErr := evaluate(t, tt.program)
				if loadErr != nil || panicked != nil || said != tt.interpreted {
					t.Errorf("said %q, load error %v, panic %v; want %q (compiled: %q)", said, loadErr, panicked, tt.interpreted, tt.compiled)
				}
			})
		}
	})

	t.Run("panics", func(t *testing.T) {
		for _, tt := range []struct{ name, program string }{
			{"a return of what is received", `package p
				func Run() string {
					said := make(chan string, 1)
					go func() { said <- "ran" }()
					return <-said
				}`},
			{"an assignment to what was received into", `package p
				type call struct{ name string }
				func Run() string {
					calls := make(chan *call, 1)
					var c *call
					calls <- &call{"a"}
					c = <-calls
					c = nil
					if c == nil {
						return "none"
					}
					return c.name
				}`},
			{"errors.As on a type of the program", `package p
				import "errors"
				type refused struct{ code int }
				func (r *refused) Error() string { return "refused" }
				func Run() string {
					var err error = &refused{1}
					var as *refused
					if errors.As(err, &as) {
						return "found"
					}
					return "not found"
				}`},
			{"nil in a parallel assignment", `package p
				type queue struct{ calls []int }
				func Run() string {
					q := &queue{calls: []int{1}}
					var taken []int
					taken, q.calls = q.calls, nil
					return string(rune('0' + len(taken)))
				}`},
			{"a map of a type that comes back to itself through others", `package p
				type name struct{ text string }
				type engine struct { limiters map[name]*limiter; stop chan int }
				type limiter struct { engine *engine; table table }
				type table struct{ ring []*bucket }
				type bucket struct{ limiter *limiter }
				func open() *engine {
					e := &engine{limiters: map[name]*limiter{}, stop: make(chan int)}
					return e
				}
				func Run() string {
					e := open()
					e.limiters[name{"a"}] = &limiter{engine: e}
					return "ran"
				}`},
			{"a method expression", `package p
				type counter struct{ n int }
				func (c *counter) add(d int) { c.n += d }
				func Run() string {
					add := (*counter).add
					c := &counter{}
					add(c, 2)
					return "ran"
				}`},
		} {
			t.Run(tt.name, func(t *testing.T) {
				said, panicked, loadErr := evaluate(t, tt.program)
				if loadErr == nil && panicked == nil {
					t.Errorf("ran and said %q", said)
				}
			})
		}
	})

	t.Run("does not load", func(t *testing.T) {
		for name, body := range map[string]string{
			"min":                                `return fmt.Sprint(min(1, 2))`,
			"max":                                `return fmt.Sprint(max(1, 2))`,
			"clear":                              `m := map[int]int{1: 1}; clear(m); return fmt.Sprint(len(m))`,
			"range over int":                     `n := 0; for range 3 { n++ }; return fmt.Sprint(n)`,
			"maps":                               `return fmt.Sprint(maps.Clone(map[int]int{1: 1}))`,
			"atomic.Pointer":                     `var p atomic.Pointer[int]; return fmt.Sprint(p.Load() == nil)`,
			"sync.OnceValue":                     `return fmt.Sprint(sync.OnceValue(func() int { return 1 })())`,
			"a method value in a struct literal": `d := &net.Dialer{}; t := &http.Transport{DialContext: d.DialContext}; return fmt.Sprint(t != nil)`,
			"unsafe.String":                      `b := []byte("a"); return unsafe.String(&b[0], 1)`,
		} {
			t.Run(name, func(t *testing.T) {
				var imports []string
				for _, pkg := range []string{"fmt", "maps", "net", "net/http", "sync", "sync/atomic", "unsafe"} {
					base := pkg[strings.LastIndex(pkg, "/")+1:]
					if strings.Contains(body, base+".") {
						imports = append(imports, fmt.Sprintf("import %q", pkg))
					}
				}
				program := "package p\n" + strings.Join(imports, "\n") + "\nfunc Run() string { " + body + " }"
				if said, panicked, loadErr := evaluate(t, program); loadErr == nil && panicked == nil {
					t.Errorf("loaded, and said %q", said)
				}
			})
		}
	})

	t.Run("does not load, append of a type that comes back to itself", func(t *testing.T) {
		_, _, loadErr := evaluate(t, `package p
			type bucket struct{ limiter *limiter }
			type limiter struct{ ring []*bucket }
			func (l *limiter) all() []*bucket { return append([]*bucket(nil), l.ring...) }
			func Run() string { return "ran" }`)
		if loadErr == nil {
			t.Error("loaded")
		}
	})

	t.Run("works", func(t *testing.T) {
		for _, tt := range []struct{ name, program, want string }{
			{"errors.Is through %w", `package p
				import ("errors"; "fmt")
				var errAway = errors.New("away")
				func Run() string { return fmt.Sprint(errors.Is(fmt.Errorf("asked: %w", errAway), errAway)) }`, "true"},
			{"atomic.Int64", `package p
				import ("fmt"; "sync/atomic")
				type counter struct{ n atomic.Int64 }
				func Run() string { c := &counter{}; c.n.Add(2); return fmt.Sprint(c.n.Load()) }`, "2"},
			{"atomic.Value", `package p
				import ("fmt"; "sync/atomic")
				type state struct{ n int }
				func Run() string { var v atomic.Value; v.Store(&state{3}); return fmt.Sprint(v.Load().(*state).n) }`, "3"},
			{"a copy of the loop variable", `package p
				func Run() string {
					var said []func() string
					for _, s := range []string{"a", "b"} {
						s := s
						said = append(said, func() string { return s })
					}
					return said[0]() + said[1]()
				}`, "ab"},
			{"a case with two values, or with or", `package p
				func Run() string {
					key, said := "ip", ""
					switch key {
					case "user", "ip":
						said = "known"
					}
					switch {
					case key == "user" || key == "ip":
						said += " twice"
					}
					return said
				}`, "known twice"},
			{"a type switch over types of the language", `package p
				func Run() string {
					var reply interface{} = []interface{}{int64(1)}
					switch reply.(type) {
					case string:
						return "string"
					case []interface{}:
						return "list"
					}
					return "neither"
				}`, "list"},
			{"use before declaration", `package p
				func Run() string { return greeting.text() }
				var greeting = word{"hello"}
				func (w word) text() string { return w.s }
				type word struct{ s string }`, "hello"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				said, panicked, loadErr := evaluate(t, tt.program)
				if loadErr != nil || panicked != nil || said != tt.want {
					t.Errorf("said %q, load error %v, panic %v; want %q", said, loadErr, panicked, tt.want)
				}
			})
		}
	})

	t.Run("works over files and packages", func(t *testing.T) {
		i := interp.New(interp.Options{GoPath: "go", SourcecodeFilesystem: fstest.MapFS{
			"go/src/example.org/p/a.go": {Data: []byte(`package p
				import ("errors"; "fmt"; "example.org/p/inner")
				func Run() string { return fmt.Sprint(errors.Is(inner.Ask(first), inner.ErrAway), first.n) }`)},
			"go/src/example.org/p/b.go": {Data: []byte("package p\nvar first = second\nvar second = numbered{7}")},
			"go/src/example.org/p/c.go": {Data: []byte("package p\ntype numbered struct{ n int }\nfunc (n numbered) Number() int { return n.n }")},
			"go/src/example.org/p/inner/inner.go": {Data: []byte(`package inner
				import ("errors"; "fmt")
				type Numbered interface{ Number() int }
				var ErrAway = errors.New("away")
				func Ask(n Numbered) error { return fmt.Errorf("asked %d: %w", n.Number(), ErrAway) }`)},
		}})
		if err := i.Use(stdlib.Symbols); err != nil {
			t.Fatal(err)
		}
		if _, err := i.Eval(`import "example.org/p"`); err != nil {
			t.Fatal(err)
		}
		run, err := i.Eval("p.Run")
		if err != nil {
			t.Fatal(err)
		}
		if said := run.Call(nil)[0].String(); said != "true 7" {
			t.Errorf("said %q", said)
		}
	})
}

// TestSelectIsNotSafe shows the worst of the differences. A select statement keeps
// one list of its cases for all goroutines: two that enter it at the same moment
// may each wait on the other's channels. The plugin therefore lets no two
// goroutines run one select statement. It takes luck to see, so the program runs
// until it is seen.
func TestSelectIsNotSafe(t *testing.T) {
	const program = `package p
		import ("sync"; "time")
		func Run() string {
			said := make(chan string, 20)
			never := make(chan struct{})
			var done sync.WaitGroup
			for g := 0; g < 8; g++ {
				g := g
				mine := make(chan int, 1)
				done.Add(1)
				go func() {
					defer done.Done()
					for n := 0; n < 2000; n++ {
						mine <- g
						select {
						case got := <-mine:
							if got != g {
								said <- "took what was another's"
								return
							}
						case <-never:
							return
						}
					}
				}()
			}
			go func() {
				done.Wait()
				said <- ""
			}()
			go func() {
				time.Sleep(time.Second)
				said <- "waits for what is another's"
			}()
			first := <-said
			return first
		}`
	for range 100 {
		said, panicked, loadErr := evaluate(t, program)
		if loadErr != nil || panicked != nil {
			t.Fatal(loadErr, panicked)
		}
		if said != "" {
			return
		}
	}
	t.Error("a hundred rounds went right: does Yaegi keep the cases apart now?")
}

// BenchmarkDialect is what Yaegi takes for the things that the plugin is made
// of, the loop itself ("nothing") included: why its hot path is few
// functions with few expressions. A call makes room for every expression of the
// function, executed or not, at one allocation each; a method is called by way
// of package reflect.
func BenchmarkDialect(b *testing.B) {
	const program = `package p
		import ("strconv"; "sync")
		type thing struct { n int; mu sync.Mutex }
		var it = &thing{}
		func call(t *thing) int { return t.n }
		func (t *thing) method() int { return t.n }
		func large(t *thing) int {
			if t.n == 0 {
				return 0
			}
			a := t.n*1 + t.n*2 + t.n*3 + t.n*4 + t.n*5 + t.n*6 + t.n*7 + t.n*8
			b := t.n*1 + t.n*2 + t.n*3 + t.n*4 + t.n*5 + t.n*6 + t.n*7 + t.n*8
			return a + b
		}
		func Empty(n int) { for i := 0; i < n; i++ { } }
		func Field(n int) { t, x := it, 0; for i := 0; i < n; i++ { x = t.n }; _ = x }
		func Native(n int) { for i := 0; i < n; i++ { strconv.Itoa(7) } }
		func Lock(n int) { t := it; for i := 0; i < n; i++ { t.mu.Lock(); t.mu.Unlock() } }
		func Call(n int) { t := it; for i := 0; i < n; i++ { call(t) } }
		func Large(n int) { t := it; for i := 0; i < n; i++ { large(t) } }
		func Method(n int) { t := it; for i := 0; i < n; i++ { t.method() } }`
	i := interp.New(interp.Options{})
	if err := i.Use(stdlib.Symbols); err != nil {
		b.Fatal(err)
	}
	if _, err := i.Eval(program); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct{ name, function string }{
		{"nothing", "Empty"}, {"field", "Field"}, {"call of the standard library", "Native"}, {"lock and unlock", "Lock"},
		{"call", "Call"}, {"call of a function with 64 expressions more", "Large"}, {"method", "Method"},
	} {
		function, err := i.Eval("p." + c.function)
		if err != nil {
			b.Fatal(err)
		}
		loop := function.Interface().(func(int))
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			loop(b.N)
		})
	}
}
