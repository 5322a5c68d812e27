package window

import "fmt"

// Script is Decide in Lua, run by Redis on its own clock: one call reserves,
// gives back and reports, atomically.
//
//	KEYS[1]   the counter's key
//	ARGV[1]   sixteen integers, decimal, separated by one space:
//	          window (us), limit, cost, need, extra, instances;
//	          what the caller has seen: generation, index, granted, returned,
//	          previous granted, previous returned;
//	          what it owes, by the windows of its index: spent, previous spent,
//	          returned, previous returned
//	reply     need granted, extra granted, now (us), then the six counts
//	value     the six counts, decimal, separated by one space
//	expiry    two windows after the start of window `index`, set with every
//	          write; a denial writes nothing
//
// Times are formatted with %.0f: Lua would print 1795480825874203 as
// 1.7954808258742e+15 (RULES 36).
const Script = `
local ask = {}
for number in string.gmatch(ARGV[1], '%d+') do ask[#ask + 1] = tonumber(number) end
local window, limit, cost, need, extra, instances = ask[1], ask[2], ask[3], ask[4], ask[5], ask[6]
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
local index = math.floor(now / window)

local function rebased(c)
  if c.index > index + 1 then c.index = index end
  return c
end

local function at(c, base)
  local ahead = base - c.index
  if ahead == 1 then
    c.previousGranted, c.previousReturned, c.granted, c.returned = c.granted, c.returned, 0, 0
  elseif ahead > 1 then
    c.previousGranted, c.previousReturned, c.granted, c.returned = 0, 0, 0, 0
  end
  if ahead > 0 then c.index = base end
  return c
end

local function counts(generation, index, granted, returned, previousGranted, previousReturned)
  return {generation = tonumber(generation), index = tonumber(index), granted = tonumber(granted), returned = tonumber(returned),
    previousGranted = tonumber(previousGranted), previousReturned = tonumber(previousReturned)}
end

local stored = counts(0, 0, 0, 0, 0, 0)
local value = redis.call('GET', KEYS[1])
if value then
  stored = counts(string.match(value, '^(%d+) (%d+) (%d+) (%d+) (%d+) (%d+)$'))
  if not stored.generation then return redis.error_reply('SLUICE a counter is not six integers') end
end
stored = rebased(stored)
local seen = rebased(counts(ask[7], ask[8], ask[9], ask[10], ask[11], ask[12]))
local base = math.max(index, stored.index, seen.index)
now = math.max(now, base * window)

local spent, previousSpent, returned, previousReturned = ask[13], ask[14], ask[15], ask[16]
local moved = base - seen.index
if moved == 1 then
  spent, previousSpent, returned, previousReturned = 0, spent, 0, returned
elseif moved > 1 then
  spent, previousSpent, returned, previousReturned = 0, 0, 0, 0
end

local c = at(stored, base)
at(seen, base)
local changed = false
local function keep(field, number)
  if c[field] ~= number then c[field] = number; changed = true end
end

if seen.generation > c.generation then
  c, changed = seen, true
elseif seen.generation == c.generation then
  keep('granted', math.max(c.granted, seen.granted))
  keep('returned', math.max(c.returned, seen.returned))
  keep('previousGranted', math.max(c.previousGranted, seen.previousGranted))
  keep('previousReturned', math.max(c.previousReturned, seen.previousReturned))
end
if c.generation == seen.generation then
  keep('granted', c.granted + spent)
  keep('previousGranted', c.previousGranted + previousSpent)
  keep('returned', c.returned + math.min(returned, c.granted - c.returned))
  keep('previousReturned', c.previousReturned + math.min(previousReturned, c.previousGranted - c.previousReturned))
end

local previous = c.previousGranted - c.previousReturned
local unit = math.floor(math.max(limit, previous) * window / 4503599627370496) + 1
local units = math.floor((window + unit - 1) / unit)
local elapsed = math.floor((now - base * window) / unit)
local free = limit * units - previous * (units - elapsed)
local room = math.floor(free / units) - (c.granted - c.returned)
local needGranted, extraGranted = 0, 0
if room > 0 then
  needGranted = math.floor(math.min(need, room) / cost) * cost
  if needGranted == need and extra > 0 then
    local spare = math.floor((room - needGranted) / (2 * instances))
    extraGranted = math.floor(math.min(extra, spare) / cost) * cost
  end
end
keep('granted', c.granted + needGranted + extraGranted)

if changed then
  redis.call('SET', KEYS[1],
    string.format('%.0f %.0f %.0f %.0f %.0f %.0f', c.generation, c.index, c.granted, c.returned, c.previousGranted, c.previousReturned),
    'PX', string.format('%.0f', math.ceil(((c.index + 2) * window - now) / 1000)))
end
return {needGranted, extraGranted, now, c.generation, c.index, c.granted, c.returned, c.previousGranted, c.previousReturned}
`

// ReplyLength is the number of integers in the script's reply.
const ReplyLength = 9

// String is the script's ARGV[1]. One word and one call make it, where sixteen
// of each made up a tenth of what a reservation costs the interpreter.
func (a Ask) String() string {
	return fmt.Sprint(a.Window, a.Limit, a.Cost, a.Need, a.Extra, a.Instances,
		a.Seen.Generation, a.Seen.Index, a.Seen.Granted, a.Seen.Returned, a.Seen.PreviousGranted, a.Seen.PreviousReturned,
		a.Owed.Spent, a.Owed.PreviousSpent, a.Owed.Returned, a.Owed.PreviousReturned)
}

// ParseGrant reads the script's reply; ok is false when it does not have
// ReplyLength elements.
func ParseGrant(reply []int64) (grant Grant, ok bool) {
	if len(reply) != ReplyLength {
		return Grant{}, false
	}
	return Grant{
		Need:  reply[0],
		Extra: reply[1],
		Now:   reply[2],
		Counts: Counts{
			Generation: reply[3], Index: reply[4],
			Granted: reply[5], Returned: reply[6],
			PreviousGranted: reply[7], PreviousReturned: reply[8],
		},
	}, true
}
