package attacks

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/cmd/sluice/stack"
)

// modes attacks what lets more in by configuration: auth.optional, dryRun and
// exempt open what they name, and nothing beside it (bypassroutes_test.go).
func modes(b *bed) (all []probe) {
	good, parts := b.token, strings.Split(b.token, ".")
	bad := map[string][]field{
		"garbage": {bearer("garbage")}, "a changed signature": {bearer(changed(good, 2))}, "changed claims": {bearer(changed(good, 1))}, "no signature": {bearer(parts[0] + "." + parts[1] + ".")}, "a token and more": {bearer(good + "A")}, "another's claims": {bearer(parts[0] + ".eyJzdWIiOiJib2IifQ." + parts[2])},
		"no token": {{"Authorization", "Bearer"}}, "nothing": {{"Authorization", ""}}, "another scheme": {{"Authorization", "Basic YTpi"}}, "a bare token": {{"Authorization", good}}, "two blanks": {{"Authorization", "Bearer  " + good}},
		"a bad one and a good one": {bearer(changed(good, 2)), bearer(good)}, "a good one and a bad one": {bearer(good), bearer(changed(good, 2))}, "a good one twice": {bearer(good), bearer(good)}, "an empty one and a good one": {{"Authorization", ""}, bearer(good)},
	}
	say := func(name, target string, judge func(answer, []seen) error, w way, before ...field) {
		for _, f := range fronts {
			all = append(all, probe{name: name, front: f, judge: judge, message: message{method: "GET", target: target, host: echoHost, fields: append(before, w.fields...), trailers: w.trailers}})
		}
	}
	add := func(name, target string, judge func(answer, []seen) error, fields ...field) {
		say(name, target, judge, way{fields: fields})
	}
	targets := []string{"/limited/dry"}
	if b.wiring == stack.Fast {
		targets = append(targets, "/limited/optional") // forwardAuth has no such thing
	}
	for _, target := range targets {
		for _, name := range slices.Sorted(maps.Keys(bad)) {
			fields := bad[name]
			add(target+", "+name, target, refusedCredential, fields...)
			add(target+", "+name+", as somebody", target, refusedCredential, append([]field{{"X-User-ID", lie}, {"Connection", "X-User-ID"}}, fields...)...)
		}
		add(target+", ann", target, arrivesIntact(ann), bearer(good))
		for _, name := range []string{"X-User-ID", "X-User-Plan", "X-User-Scopes", "X-Token-ID", "X-Session-ID", "X-Request-ID"} {
			for _, w := range ways(name) {
				say(target+", ann, "+name+" "+w.name, target, arrivesOnlyAs(ann), w, bearer(good))
				if target == "/limited/optional" {
					say(target+", nobody, "+name+" "+w.name, target, arrivesOnlyAs(who{}), w)
				}
			}
		}
	}
	add("/limited/dry, nobody", "/limited/dry", refusedCredential)
	add("/limited/dry, nobody, as an exempt user", "/limited/dry", refusedCredential, field{"X-User-ID", "root"})
	return all
}

// refusedCredential: 401, or 400 to two of them; it never counts as none.
func refusedCredential(got answer, arrived []seen) error {
	if len(arrived) > 0 || got.status != http.StatusUnauthorized && got.status != http.StatusBadRequest {
		return fmt.Errorf("%d, arrived %d times", got.status, len(arrived))
	}
	return nil
}

// tokenInLog is a whole JWT or refresh token; a log may hold neither.
var tokenInLog = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{20,}|[0-9a-f]{32}\.[A-Za-z0-9_-]{43}\.[A-Za-z0-9_-]{43}`)

// logged looks for secrets in everything that was written meanwhile by gateways,
// balancer, authsvc and services (CWE-532). Every attack of the other classes has
// been through them by now.
func logged(b *bed, _ class) (o outcome) {
	files, err := filepath.Glob(filepath.Join(b.stack.Work(), "*.log"))
	deeper, _ := filepath.Glob(filepath.Join(b.stack.Work(), "*", "*.log"))
	if files = append(files, deeper...); err != nil || len(files) < 2 {
		return outcome{findings: []string{fmt.Sprintf("only %d logs, %v", len(files), err)}}
	}
	read := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			o.findings = append(o.findings, err.Error())
			continue
		}
		read += len(text)
		for line := range strings.Lines(string(text)) {
			// A token in a path or a query is there because the client wrote it
			// where everybody logs (RFC 6750 section 5.3): tokensElsewhere did.
			if strings.Contains(line, `"RequestPath"`) {
				line = requestPath.ReplaceAllString(line, "")
			}
			o.tried++
			for _, secret := range []string{b.ready.AdminToken, b.ready.IssuerToken, knownPassword} {
				if strings.Contains(line, secret) {
					o.findings = append(o.findings, fmt.Sprintf("%s holds a secret: %.300s", filepath.Base(file), line))
				}
			}
			if found := tokenInLog.FindString(line); found != "" {
				o.findings = append(o.findings, fmt.Sprintf("%s holds the token %.40s...: %.300s", filepath.Base(file), found, line))
			}
		}
	}
	if o.tried < 100 {
		o.findings = append(o.findings, errors.New("the logs are nearly empty").Error())
	}
	b.t.Logf("%d bytes in %d logs", read, len(files))
	return o
}

var requestPath = regexp.MustCompile(`"RequestPath":"(\\.|[^"\\])*"`)
