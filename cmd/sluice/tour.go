package main

import (
	"fmt"
	"io"
	"strings"
	"text/template"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
)

// sights are what the tour shows.
type sights struct {
	stack.Ready
	Work           string // folder of the logs
	AdminTokenFile string
	Shipped        bool   // the routes are ours: else we know no path to call
	Certificate    string // a file that curl can trust; empty: the user's own certificate
	Redirects      bool   // HTTP answers with a redirect
}

// tourText is pasted line by line, and each line again, into a shell of its
// own. It sets TOKEN to a token or to nothing: where there is none, curl says
// why on standard error.
var tourText = template.Must(template.New("tour").Funcs(template.FuncMap{"quote": quote}).Parse(`
Sluice is up: {{.HTTP}} and {{.HTTPS}}
{{.Count}} with the plugin {{.Plugin}}, {{.Wiring}} wiring; logs in {{.Work}}
{{- $json := "-H 'Content-Type: application/json'"}}{{$bearer := "-H \"Authorization: Bearer $TOKEN\""}}
{{- if .Shipped}}

Register, once:
  {{.Curl}} -sS {{.Front}}/v1/users/register {{$json}} -d '{"email":"ada@example.com","password":"correct horse battery staple","name":"Ada"}'; echo
Log in, and again whenever the token has expired:
  TOKEN=$({{.Curl}} -sSf {{.Front}}/v1/users/login {{$json}} -d '{"email":"ada@example.com","password":"correct horse battery staple"}' | sed -n 's/.*"access_token":"\([^"]*\)".*/\1/p')
Call, without the token and with it{{if not .Redirects}}, and over HTTPS{{end}}:
  {{.Curl}} -i {{.Front}}/v1/products
  {{.Curl}} -i {{.Front}}/v1/products {{$bearer}}
{{- if not .Redirects}}
  curl {{.Trust}} -i {{.HTTPS}}/v1/products {{$bearer}}
{{- end}}
Hit the limit, 20 a second, and see what the 429 says:
  {{.Curl}} -s -o /dev/null -w '%{http_code} ' {{$bearer}} "{{.Front}}/v1/products?n=[1-25]"; {{.Curl}} -i {{.Front}}/v1/products {{$bearer}}
{{- else}}

Your own routes are served; over HTTPS: curl {{.Trust}} -i {{.HTTPS}}/
{{- end}}
Look behind it, at {{.Admin}} with the token in {{.AdminTokenFile}}:
  curl -sS {{.Admin}}/metrics | grep ^sluice_
  curl -sS {{.Admin}}/v1/gateways -H "Authorization: Bearer $(cat {{quote .AdminTokenFile}})"
{{- if .Shipped}}
  curl -sS {{.Admin}}/v1/limits/register/ip:127.0.0.1 -H "Authorization: Bearer $(cat {{quote .AdminTokenFile}})"
{{- end}}
Revoke and inspect tokens, show and reset limits: authsvc --help, in the source tree go run ./cmd/authsvc --help; a command needs
  --server={{.Admin}} --adminTokenFile={{quote .AdminTokenFile}}

Ctrl-C ends everything.
`))

func tour(out io.Writer, s sights) {
	_ = tourText.Execute(out, s) // a closed terminal is no reason to stop serving
}

// Count says how many gateways there are.
func (s sights) Count() string {
	if n := len(s.Gateways); n > 1 {
		return fmt.Sprintf("%d gateways behind a balancer", n)
	}
	return "1 gateway"
}

// Front is what the tour calls: HTTP, unless that answers with redirects, which
// curl does not follow and which lose what was posted.
func (s sights) Front() string {
	if s.Redirects {
		return s.HTTPS
	}
	return s.HTTP
}

// Curl is the command that trusts Front.
func (s sights) Curl() string {
	if s.Redirects {
		return "curl " + s.Trust()
	}
	return "curl"
}

// Trust has curl accept our certificate and no other. What the user's own is
// good for we do not know.
func (s sights) Trust() string {
	if s.Certificate == "" {
		return "-k"
	}
	return "--cacert " + quote(s.Certificate)
}

// quote makes one word of a path, for any shell.
func quote(path string) string {
	if !strings.ContainsAny(path, " '\"$`\\!*?[]()<>|;&~#\t\n") {
		return path
	}
	return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
}
