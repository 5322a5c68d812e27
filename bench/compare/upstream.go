package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

// seen is what the upstream counts of one chain's requests. Every request says
// in X-Expect-User whom its token names.
type seen struct {
	Total       int64 `json:"total"`
	RightUser   int64 `json:"right_user"`   // X-User-ID is there once and is that user
	Credentials int64 `json:"credentials"`  // Authorization arrived
	RequestIDs  int64 `json:"request_ids"`  // X-Request-ID is there
	BusiestUser int64 `json:"busiest_user"` // requests of the user who had most
}

func (s seen) minus(before seen) seen {
	return seen{Total: s.Total - before.Total, RightUser: s.RightUser - before.RightUser, Credentials: s.Credentials - before.Credentials,
		RequestIDs: s.RequestIDs - before.RequestIDs, BusiestUser: s.BusiestUser}
}

type tally struct {
	total, rightUser, credentials, requestIDs atomic.Int64
	users                                     sync.Map // user -> *atomic.Int64, of chains that deny some
}

const upstreamBody = `{"items":[{"id":"p-1001","name":"Kettle","price_cents":3490},{"id":"p-1002","name":"Lamp","price_cents":5990}],"next":null}`

// upstream serves one small JSON document and counts. The counters are told at
// /counters, which sets those of single users back; first comes a line with the
// address.
func upstream() error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var tallies sync.Map // chain -> *tally
	of := func(name string) *tally {
		if found, ok := tallies.Load(name); ok {
			return found.(*tally)
		}
		made, _ := tallies.LoadOrStore(name, &tally{})
		return made.(*tally)
	}
	fmt.Fprintln(os.Stdout, listener.Addr())
	return http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
		if name == "counters" {
			all := map[string]seen{}
			tallies.Range(func(key, value any) bool {
				t := value.(*tally)
				s := seen{Total: t.total.Load(), RightUser: t.rightUser.Load(), Credentials: t.credentials.Load(), RequestIDs: t.requestIDs.Load()}
				t.users.Range(func(_, count any) bool {
					s.BusiestUser = max(s.BusiestUser, count.(*atomic.Int64).Swap(0))
					return true
				})
				all[key.(string)] = s
				return true
			})
			json.NewEncoder(w).Encode(all)
			return
		}
		t := of(name)
		t.total.Add(1)
		expected := r.Header.Get("X-Expect-User")
		if users := r.Header["X-User-Id"]; len(users) == 1 && users[0] == expected {
			t.rightUser.Add(1)
		}
		if len(r.Header["Authorization"]) > 0 {
			t.credentials.Add(1)
		}
		if len(r.Header["X-Request-Id"]) > 0 {
			t.requestIDs.Add(1)
		}
		if strings.HasPrefix(name, "fast-zipf") {
			count, ok := t.users.Load(expected)
			if !ok {
				count, _ = t.users.LoadOrStore(expected, new(atomic.Int64))
			}
			count.(*atomic.Int64).Add(1)
		}
		h := w.Header()
		h["Content-Type"] = []string{"application/json"}
		w.Write([]byte(upstreamBody))
	}))
}
