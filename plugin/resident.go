package plugin

import (
	"fmt"
	"net/http"
	"runtime"
	"sync"

	"github.com/sluice-gateway/sluice/plugin/config"
	"github.com/sluice-gateway/sluice/plugin/limit"
)

var attending sync.Once

// takeSeats begins to attend.
func takeSeats() {
	for n := 0; n < mostVisits; n++ {
		visits <- newVisit()
	}
	for n := 0; n < runtime.GOMAXPROCS(0); n++ {
		s := limit.NewSpender()
		go func() {
			for {
				takeSeat(s)
			}
		}()
	}
}

// takeSeat attends until a request makes it panic, which would end Traefik: that one
// is refused.
func takeSeat(spender *limit.Spender) {
	s := &seat{spender: spender}
	defer func() {
		if p := recover(); p != nil {
			logLine("error", fmt.Sprint("a request made the gate panic and was refused: ", p))
			v := s.visit
			if v.lent {
				v.lent = false
				visits <- newVisit()
			}
			giveUp(v)
		}
	}()
	v := <-arrivals

	s.visit = v
	attend(v, arrivals, s)
}

// seeTo is for a request that does all by itself.
func seeTo(v *visit) {
	attend(v, nil, nil)
	if v.unknown {
		inquire(v, nil, nil)
		attend(v, nil, nil)
	}
}

// write answers with the refusal a request that nobody attends to, or no more.
func (no *refusal) write(w http.ResponseWriter, r *http.Request, id []string) {
	out := w.Header()
	out[config.RequestIDHeader] = id
	v := &visit{w: w, r: r, out: out, no: no, again: true}
	attend(v, nil, nil)
	give(w, v.status, v.body)
}
