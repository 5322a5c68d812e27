-- The gateway that many a tutorial builds: the token's user is looked up in
-- Redis, and a script counts the request, over connections that are kept.
local redis = require "nginx.redis"

local function refuse(status)
  ngx.status = status
  ngx.header["Content-Type"] = "application/problem+json"
  ngx.say('{"type":"about:blank","status":' .. status .. '}')
  return ngx.exit(status)
end

local token = string.match(ngx.var.http_authorization or "", "^Bearer (.+)$")
if not token then return refuse(401) end
local r = redis:new()
r:set_timeout(100)
if not r:connect("127.0.0.1", tonumber(ngx.var.redis_port)) then return refuse(503) end
local user = r:get("nginx:token:" .. token)
if not user then return refuse(503) end
if user == ngx.null then
  r:set_keepalive(60000, 256)
  return refuse(401)
end
local count = r:evalsha(ngx.var.counting_script, 1, "nginx:count:" .. user, 60)
if not count then return refuse(503) end
r:set_keepalive(60000, 256)
if count > 30000000 then return refuse(429) end
ngx.req.set_header("X-User-ID", user)
ngx.req.clear_header("Authorization")
