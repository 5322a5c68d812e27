package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

//go:embed nginx.lua
var nginxLua []byte

// countingScript is the fixed window that goes with it.
const countingScript = `local n = redis.call('INCR', KEYS[1])
if n == 1 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return n`

const nginxConfig = `load_module /usr/lib/nginx/modules/ndk_http_module.so;
load_module /usr/lib/nginx/modules/ngx_http_lua_module.so;
daemon off;
pid nginx.pid;
worker_processes auto;
error_log stderr warn;
events { worker_connections 4096; }
http {
  access_log off;
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
  keepalive_requests 1000000000;
  upstream up { server %s; keepalive 256; keepalive_requests 1000000000; }
  server {
    listen %s;
    location / {
      set $redis_port %s;
      set $counting_script %s;
      access_by_lua_file nginx.lua;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_pass http://up;
    }
  }
}
`

// installed tells whether nginx is there with Lua and its client of Redis.
func nginxInstalled() bool {
	for _, path := range []string{"/usr/sbin/nginx", "/usr/lib/nginx/modules/ngx_http_lua_module.so", "/usr/share/lua/5.1/nginx/redis.lua"} {
		if _, err := os.Stat(path); err != nil {
			return false
		}
	}
	return true
}

// startNginx runs the peer where it is installed, and takes its chain out
// where it is not.
func (b *bed) startNginx(ctx context.Context) error {
	at := slices.IndexFunc(b.chains, func(c chain) bool { return c.gateway == nginx })
	if at < 0 {
		return nil
	}
	if !nginxInstalled() {
		b.chains = slices.Delete(b.chains, at, at+1)
		return nil
	}
	script, err := b.redis.client.ScriptLoad(ctx, countingScript).Result()
	if err != nil {
		return err
	}
	for _, p := range b.crowd.hot {
		if err := b.redis.client.Set(ctx, "nginx:token:"+p.token, p.user, 4*time.Hour).Err(); err != nil {
			return err
		}
	}
	_, port, _ := net.SplitHostPort(b.redis.address)
	dir := filepath.Join(b.dir, nginx)
	config := fmt.Sprintf(nginxConfig, strings.TrimPrefix(b.upstream, "http://"), b.ports[nginx], port, script)
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chmod(b.dir, 0o755),
		os.WriteFile(filepath.Join(dir, "nginx.conf"), []byte(config), 0o644),
		os.WriteFile(filepath.Join(dir, "nginx.lua"), nginxLua, 0o644)); err != nil {
		return err
	}
	command, err := b.start(nginx, "/usr/sbin/nginx", []string{"-p", dir, "-c", filepath.Join(dir, "nginx.conf")}, nil)
	if err != nil {
		return err
	}
	b.pids[nginx] = command.Process.Pid
	return b.await(ctx, nginx, func() error { return b.serves(ctx, b.chains[at]) })
}
