package main

import (
	"fmt"
	"io"
	"text/template"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
)

// tourText is pasted line by line into a shell of its own.
var tourText = template.Must(template.New("tour").Parse(`
Sluice is up: {{.HTTP}} and {{.HTTPS}}
{{.Gateways}} with the plugin {{.Plugin}}, {{.Wiring}} wiring; logs in {{.Work}}

Register, and keep the token:
  TOKEN=$(curl -s {{.HTTP}}/v1/users/register -H 'Content-Type: application/json' -d '{"email":"ada@example.com","password":"correct horse battery staple","name":"Ada"}' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
Log in again, whenever it has expired:
  TOKEN=$(curl -s {{.HTTP}}/v1/users/login -H 'Content-Type: application/json' -d '{"email":"ada@example.com","password":"correct horse battery staple"}' | sed 's/.*"access_token":"\([^"]*\)".*/\1/')
Call, without the token and with it:
  curl -i {{.HTTP}}/v1/products
  curl -i {{.HTTP}}/v1/products -H "Authorization: Bearer $TOKEN"
Hit the limit, 20 a second, and see what the 429 says:
  curl -s -o /dev/null -w '%{http_code} ' -H "Authorization: Bearer $TOKEN" "{{.HTTP}}/v1/products?n=[1-25]"; curl -i {{.HTTP}}/v1/products -H "Authorization: Bearer $TOKEN"

Ctrl-C ends everything.
`))

func tour(out io.Writer, ready stack.Ready, work string) {
	gateways := "1 gateway"
	if n := len(ready.Gateways); n > 1 {
		gateways = fmt.Sprintf("%d gateways behind a balancer", n)
	}
	_ = tourText.Execute(out, struct {
		stack.Ready
		Gateways, Work string
	}{ready, gateways, work}) // a closed terminal is no reason to stop serving
}
