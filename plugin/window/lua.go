package window

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// Script is Decide in Lua, run by Redis on its own clock: one call reserves,
// gives back and reports, atomically.
//
//	KEYS[1]   the key of the counts
//	ARGV[1]   integers, decimal:
//	          window (us), limit, cost, need, extra, instances;
//	          then, where the caller has seen anything, the reply in which it did,
//	          as it was, in its brackets;
//	          then, where it owes anything: an index, and by the windows of that
//	          spent, previous spent, returned, previous returned, how many were
//	          spent at known instants, those instants (us), and the instants of
//	          permits that are given back
//	reply     a status: need granted, extra granted, now (us), and the value, all
//	          with commas between them, in brackets: a JSON list
//	value     the six counts, separated by one space; by the log rule also the
//	          history and the instants, from the start of window index-1 (us)
//	expiry    two windows after the start of window index, set with every write;
//	          a denial writes nothing, unless it is the first that the log rule
//	          does with what the counter rule counted
//
// Times are formatted with %.0f: Lua would print 1795480825874203 as
// 1.7954808258742e+15 (design: integers). The instants of a value have at most 13 digits,
// which it prints as they are.
const Script = `
local function numbers(text)
  local list = {}
  for number in string.gmatch(text, '%d+') do list[#list + 1] = tonumber(number) end
  return list
end

local asked, told, debts = string.match(ARGV[1], '^([^%[]*)%[?([^%]]*)%]?(.*)$')
local ask, debt = numbers(asked), numbers(debts)
local window, limit, cost, need, extra, instances = ask[1], ask[2], ask[3], ask[4], ask[5], ask[6]
local exact = limit <= 64 and window >= 10000000
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

local function counts(list, first)
  local c = {generation = list[first] or 0, index = list[first + 1] or 0, granted = list[first + 2] or 0, returned = list[first + 3] or 0,
    previousGranted = list[first + 4] or 0, previousReturned = list[first + 5] or 0, history = list[first + 6] or 0, instants = {}}
  if exact then
    for i = first + 7, #list do c.instants[i - first - 6] = list[i] + (c.index - 1) * window end
  end
  return c
end

local text = redis.call('GET', KEYS[1]) or '0 0 0 0 0 0'
local value = numbers(text)
if #value < 6 then return redis.error_reply('SLUICE a counter is not six integers') end
local stored = counts(value, 1)
-- A caller that has seen what is stored, as most have, knows no other instants.
local same = exact and stored.history ~= 0 and ',' .. string.gsub(text, ' ', ',') == string.sub(told, -#text - 1)
local seen = counts(same and value or numbers(told), same and 1 or 4)
rebased(stored)
local known = debt[1] or seen.index
at(seen, known)
rebased(seen)
local base = math.max(index, stored.index, seen.index)
now = math.max(now, base * window)

local spent, previousSpent, returned, previousReturned = debt[2] or 0, debt[3] or 0, debt[4] or 0, debt[5] or 0
local moved = base - seen.index
if moved > 0 then
  -- One after the other: miniredis loses a value where locals swap places.
  previousSpent, previousReturned = 0, 0
  if moved == 1 then previousSpent = spent; previousReturned = returned end
  spent, returned = 0, 0
end

local c = at(stored, base)
at(seen, base)
local changed = false
local function keep(field, number)
  if c[field] ~= number then c[field] = number; changed = true end
end

local function insert(list, instant)
  local i = #list + 1
  while i > 1 and list[i - 1] > instant do i = i - 1 end
  if i > 1 and list[i - 1] == instant then
    instant = instant + 1
    while list[i] == instant do instant = instant + 1; i = i + 1 end
  end
  table.insert(list, i, instant)
end

local function newest(list)
  local over = #list - 64
  if over <= 0 then return list end
  local last = {}
  for i = 1, 64 do last[i] = list[i + over] end
  return last
end

local function instantsOf(c)
  local list, ahead = {}, 0
  if c.history == 0 then
    for n = 0, math.min(c.previousGranted - c.previousReturned, 64) - 1 do list[#list + 1] = c.index * window + n end
    for n = 1, math.min(c.granted - c.returned, 64) do insert(list, now) end
    return newest(list), false
  end
  for _, instant in ipairs(c.instants) do
    if instant > now + window then ahead = ahead + 1 elseif instant > now - window then list[#list + 1] = instant end
  end
  for n = 1, ahead do insert(list, now) end
  return list, ahead > 0
end

local function union(a, b)
  local all, i, j = {}, 1, 1
  while a[i] or b[j] do
    if not b[j] or a[i] and a[i] < b[j] then
      all[#all + 1] = a[i]; i = i + 1
    elseif not a[i] or b[j] < a[i] then
      all[#all + 1] = b[j]; j = j + 1
    else
      all[#all + 1] = a[i]; i = i + 1; j = j + 1
    end
  end
  return all
end

local list, anew
if exact then
  local of, other = c, seen
  if seen.generation > c.generation then of, other = seen, c end
  list, anew = instantsOf(of)
  local history = of.history
  if not same and other.generation == of.generation then
    local all = union(list, (instantsOf(seen)))
    local more, lost = #all - #list
    if c.history == 0 or seen.history == 0 then
      lost = c.granted < seen.granted or c.returned < seen.returned or
        c.previousGranted < seen.previousGranted or c.previousReturned < seen.previousReturned
    else
      lost = c.history ~= seen.history or more > c.returned + c.previousReturned - seen.returned - seen.previousReturned
    end
    if more > 0 and lost then list, history, anew = all, 0, true end
  end
  list = newest(list)
  if history == 0 then
    anew = anew or #list > 0
    history = now % 1000000 + 1
  end
  of.history = history
end

if seen.generation > c.generation then
  c, changed = seen, true
elseif seen.generation == c.generation then
  keep('granted', math.max(c.granted, seen.granted))
  keep('returned', math.max(c.returned, seen.returned))
  keep('previousGranted', math.max(c.previousGranted, seen.previousGranted))
  keep('previousReturned', math.max(c.previousReturned, seen.previousReturned))
end
if #debt > 0 and c.generation == seen.generation then
  if exact then anew = true end
  local both = spent + previousSpent
  for i = 7, 6 + debt[6] do
    local instant = debt[i]
    if instant >= base * window then spent = spent + 1 elseif instant >= (base - 1) * window then previousSpent = previousSpent + 1 end
    if exact then
      if instant > now + window then instant = now end
      if instant > now - window then insert(list, instant) end
    end
  end
  if exact then
    for n = 1, math.min(both, 64) do insert(list, now) end
  end
  for i = 7 + debt[6], #debt do
    local instant = debt[i]
    if instant >= base * window then returned = returned + 1 elseif instant >= (base - 1) * window then previousReturned = previousReturned + 1 end
    if exact then
      for j, other in ipairs(list) do
        if other == instant then table.remove(list, j); break end
      end
    end
  end
  keep('granted', c.granted + spent)
  keep('previousGranted', c.previousGranted + previousSpent)
  keep('returned', c.returned + math.min(returned, c.granted - c.returned))
  keep('previousReturned', c.previousReturned + math.min(previousReturned, c.previousGranted - c.previousReturned))
  if exact then
    list = newest(list)
    for n = #list + 1, math.min(c.granted - c.returned, 64) do insert(list, now) end
  end
end

local room
if exact then
  room, extra = limit - #list, 0
else
  local previous = c.previousGranted - c.previousReturned
  local unit = math.floor(math.max(limit, previous) * window / 4503599627370496) + 1
  local units = math.floor((window + unit - 1) / unit)
  local elapsed = math.floor((now - base * window) / unit)
  local free = limit * units - previous * (units - elapsed)
  room = math.floor(free / units) - (c.granted - c.returned)
end
local needGranted, extraGranted = 0, 0
if room > 0 then
  needGranted = math.floor(math.min(need, room) / cost) * cost
  if needGranted == need and extra > 0 then
    local spare = math.floor((room - needGranted) / (2 * instances))
    extraGranted = math.floor(math.min(extra, spare) / cost) * cost
  end
end
keep('granted', c.granted + needGranted + extraGranted)

local tail = ''
if exact then
  local first = math.max(now, (list[#list] or 0) + 1)
  for n = 0, needGranted - 1 do list[#list + 1] = first + n end
  for i, instant in ipairs(list) do list[i] = instant - (c.index - 1) * window end
  table.insert(list, 1, c.history)
  tail = ' ' .. table.concat(list, ' ')
end
if changed or anew then
  redis.call('SET', KEYS[1],
    string.format('%.0f %.0f %.0f %.0f %.0f %.0f%s', c.generation, c.index, c.granted, c.returned, c.previousGranted, c.previousReturned, tail),
    'PX', string.format('%.0f', math.ceil(((c.index + 2) * window - now) / 1000)))
end
if exact then tail = ',' .. table.concat(list, ',') end
return {ok = string.format('[%.0f,%.0f,%.0f,%.0f,%.0f,%.0f,%.0f,%.0f,%.0f%s]', needGranted, extraGranted, now,
  c.generation, c.index, c.granted, c.returned, c.previousGranted, c.previousReturned, tail)}
`

// Head begins ARGV[1] of the script: the six numbers of an Ask that are the same
// for many, in its units, so it may be kept.
func Head(window, limit, cost, need, extra, instances int64) string {
	return fmt.Sprint(window, limit, cost, need, extra, instances)
}

// Word is the script's ARGV[1]. What was seen is handed back as it was told, so
// nothing is made of it but where it was changed since.
func Word(head string, a *Ask) string {
	told := a.Seen.Told
	if told == "" && (a.Seen.Index != 0 || a.Seen.Generation != 0) {
		told = Line(&Grant{Counts: a.Seen}, a.Window)
	}
	if a.Owed.Empty() {
		return head + told
	}
	if told == "" {
		told = "[]"
	}
	debts := fmt.Sprint(a.Seen.Index, a.Owed.Spent, a.Owed.PreviousSpent, a.Owed.Returned, a.Owed.PreviousReturned, len(a.Owed.SpentAt))
	for _, at := range a.Owed.SpentAt {
		debts += " " + strconv.FormatInt(at, 10)
	}
	for _, at := range a.Owed.ReturnedAt {
		debts += " " + strconv.FormatInt(at, 10)
	}
	return head + told + debts
}

// Word is the whole of the script's ARGV[1] for an ask, its head included.
func (a *Ask) Word() string {
	return Word(Head(a.Window, a.Limit, a.Cost, a.Need, a.Extra, a.Instances), a)
}

// Line is the script's reply that says g, over windows of the given length
// (microseconds). ReadLine reads it back.
func Line(g *Grant, window int64) string {
	c := &g.Counts
	line := []byte("[")
	for _, n := range []int64{g.Need, g.Extra, g.Now, c.Generation, c.Index, c.Granted, c.Returned, c.PreviousGranted, c.PreviousReturned} {
		line = append(strconv.AppendInt(line, n, 10), ',')
	}
	if c.History != 0 {
		line = append(strconv.AppendInt(line, c.History, 10), ',')
		start := (c.Index - 1) * window
		for _, at := range c.Instants {
			if at > start { // else it counts no more
				line = append(strconv.AppendInt(line, at-start, 10), ',')
			}
		}
	}
	line[len(line)-1] = ']'
	return string(line)
}

// Fixed is how many numbers stand in every reply; by the log rule instants follow.
const Fixed = 9

// ReadLine reads a reply over windows of the given length (microseconds) into g,
// and reports whether it has the shape of one.
func ReadLine(line string, window int64, g *Grant) bool {
	numbers := make([]int64, 0, 16)
	if json.Unmarshal([]byte(line), &numbers) != nil || len(numbers) < Fixed || len(numbers) > Fixed+1+int(MaxExact) {
		return false
	}
	g.Need = numbers[0]
	g.Extra = numbers[1]
	g.Now = numbers[2]
	c := &g.Counts
	c.Generation = numbers[3]
	c.Index = numbers[4]
	c.Granted = numbers[5]
	c.Returned = numbers[6]
	c.PreviousGranted = numbers[7]
	c.PreviousReturned = numbers[8]
	c.History = 0
	c.Instants = nil
	c.Told = line
	if len(numbers) > Fixed {
		c.History = numbers[Fixed]
		if c.History == 0 {
			return false
		}
		c.Instants = numbers[Fixed+1:]
		for i := range c.Instants {
			c.Instants[i] += (c.Index - 1) * window
		}
	}
	return true
}
