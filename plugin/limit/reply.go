package limit

import (
	"encoding/json"
	"fmt"

	"github.com/sluice-gateway/sluice/plugin/redis"
	"github.com/sluice-gateway/sluice/plugin/window"
)

var (
	errReply = fmt.Errorf("%w: the reply is not what this version's script answers", redis.ErrProtocol)
	errSense = fmt.Errorf("%w: the numbers of the reply make no sense", redis.ErrProtocol)
)

// hear reads what Redis answers, and passes all on to the core. What makes no
// sense is an error by then, as if Redis were away: a server that has lost its mind
// does not decide (and may have counted).
//
// A reply makes sense as an answer to ask when its counts could be those of a key
// and forget nothing that ask brought along, and when it grants what the rule gives
// beside them. Whoever answers otherwise, in the right shape or not, is not the
// script.
//
// It is one function that goes on, for the same reason as run.
func hear(replies <-chan interface{}, inbox chan<- interface{}) {
	var (
		message       interface{}
		call          *redis.Call
		f             *flight
		numbers       []int64
		i             int
		ok            bool
		need, extra   int64
		now, index    int64
		generation    int64
		granted       int64
		returned      int64
		before, gone  int64 // granted and returned in the window before
		told, earlier int64 // granted as ask knows it, in the same windows
		used, room    int64
	)
	for {
		message, ok = <-replies
		if !ok {
			return
		}
		if call, ok = message.(*redis.Call); ok && call.Err == nil {
			if f, ok = call.Tag.(*flight); ok {
				numbers = numbers[:0]
				ok = json.Unmarshal([]byte(call.Line), &numbers) == nil && len(numbers) >= window.Fixed && (len(numbers) > window.Fixed) == f.exact
				if !ok {
					call.Err = errReply
				} else {
					need = numbers[0]
					extra = numbers[1]
					now = numbers[2]
					generation = numbers[3]
					index = numbers[4]
					granted = numbers[5]
					returned = numbers[6]
					before = numbers[7]
					gone = numbers[8]
					ok = granted <= window.MaxCount && before <= window.MaxCount && generation <= window.MaxCount &&
						generation >= f.ask.Seen.Generation && returned >= 0 && returned <= granted && gone >= 0 && gone <= before &&
						now >= 0 && now/f.ask.Window == index && need >= 0 && extra >= 0 && need <= f.need && extra <= f.ask.Extra && need+extra <= granted
					if ok && generation == f.ask.Seen.Generation {
						// What is granted comes on top of all that was seen and is
						// owed: one who counts it once would grant it for ever.
						told = f.ask.Seen.Granted
						earlier = f.ask.Seen.PreviousGranted
						if f.brings {
							told, earlier = window.Brought(&f.ask)
						}
						if index == f.ask.Seen.Index {
							ok = granted-need-extra >= told && returned >= f.ask.Seen.Returned && before >= earlier && gone >= f.ask.Seen.PreviousReturned
						} else if index == f.ask.Seen.Index+1 {
							ok = before >= told && gone >= f.ask.Seen.Returned
						}
					}
					if ok {
						f.grant.Need = need
						f.grant.Extra = extra
						f.grant.Now = now
						f.grant.Counts.Generation = generation
						f.grant.Counts.Index = index
						f.grant.Counts.Granted = granted
						f.grant.Counts.Returned = returned
						f.grant.Counts.PreviousGranted = before
						f.grant.Counts.PreviousReturned = gone
						f.grant.Counts.Told = call.Line
						if f.exact {
							f.grant.Counts.History = numbers[window.Fixed]
							f.grant.Counts.Instants = append([]int64(nil), numbers[window.Fixed+1:]...)
							for i = range f.grant.Counts.Instants {
								f.grant.Counts.Instants[i] += (index - 1) * f.ask.Window
							}
							ok = window.Answers(&f.grant, &f.ask)
							f.room = f.limit - int64(len(f.grant.Counts.Instants))
							if f.room < 0 {
								f.room = 0
							}
						} else {
							used = granted - returned
							if before > gone { // seldom of newcomers, and a call takes as long as all else here
								used += window.Weight(before-gone, f.ask.Window, f.limit, now-index*f.ask.Window)
							}
							room = f.limit - used + need + extra
							f.room = room - need - extra
							if f.room < 0 {
								f.room = 0
							}
							if room < 0 {
								room = 0
							}
							if room >= f.need {
								ok = need == f.need
								room = (room - f.need) / (2 * f.ask.Instances) // for what is wanted on top
							} else {
								ok = need == room/f.cost*f.cost
								room = 0
							}
							if room > f.ask.Extra {
								room = f.ask.Extra
							}
							ok = ok && extra == room/f.cost*f.cost
						}
					}
					if !ok {
						call.Err = fmt.Errorf("%w: %s", errSense, call.Line)
					}
				}
			}
		}
		inbox <- message
	}
}
