-- Sends the requests of a file, one after another. Without a `response` function
-- wrk parses no headers: it only counts statuses of 400 and above. What it says at
-- the end is one line of JSON.
local sender

function setup(thread)
  sender = thread
end

function init(args)
  local path, file = args[1], args[2]
  ready, at, wrapped = {}, 0, 0
  for text in io.lines(file) do
    local user, key, address, token = text:match("^(%S+) (%S+) (%S+) (%S+)$")
    ready[#ready + 1] = wrk.format("GET", path, {
      ["Host"] = "shop.example", ["Accept"] = "application/json", ["User-Agent"] = "bench",
      ["Authorization"] = "Bearer " .. token, ["X-Expect-User"] = user, ["X-Key"] = key, ["X-Forwarded-For"] = address,
    })
  end
end

function request()
  at = at + 1
  if at > #ready then at, wrapped = 1, wrapped + 1 end
  return ready[at]
end

function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('\nJSON {"requests":%d,"micros":%d,"refused":%d,"broken":%d,"late":%d,"wrapped":%d}\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write, e.timeout, sender:get("wrapped")))
end
