
local window, limit, cost, need, extra, instances =
  tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
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
  if not stored.generation then return redis.error_reply('SLUICE value of ' .. KEYS[1] .. ' is not six integers') end
end
stored = rebased(stored)
local seen = rebased(counts(ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]))
local base = math.max(index, stored.index, seen.index)
now = math.max(now, base * window)

local spent, previousSpent, returned, previousReturned =
  tonumber(ARGV[13]), tonumber(ARGV[14]), tonumber(ARGV[15]), tonumber(ARGV[16])
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

local elapsed = now - base * window
local free = limit * window - (c.previousGranted - c.previousReturned) * (window - elapsed)
local room = math.floor(free / window) - (c.granted - c.returned)
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
