package check

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits on what an entry point accepts; a smaller value is as good.
const (
	maxHeaderBytes       = 32768
	maxConcurrentStreams = 100
)

// What Traefik takes for a timeout that is not written.
var defaultTimeouts = map[string]string{"readTimeout": "60s", "idleTimeout": "180s"}

// encodedCharacters are the seven switches, all of which have to be written:
// once the section exists, a missing one means allowed.
var encodedCharacters = []string{
	"allowEncodedSlash", "allowEncodedBackSlash", "allowEncodedNullCharacter", "allowEncodedSemicolon",
	"allowEncodedPercent", "allowEncodedQuestionMark", "allowEncodedHash",
}

// Openings says what a static configuration leaves open to clients, and, as weak,
// what it could do better; both by path. What is not written counts as what Traefik
// takes for it: test/traefik_test.go holds that to Traefik's own defaults.
func Openings(tree map[string]any) (open, weak []string) {
	opened := func(format string, args ...any) { open = append(open, fmt.Sprintf(format, args...)) }
	weakened := func(format string, args ...any) { weak = append(weak, fmt.Sprintf(format, args...)) }

	if !registers(tree) {
		opened("experimental.localPlugins.%s: missing; without it, or experimental.plugins.%s, no middleware of ours is built and its routes vanish", PluginName, PluginName)
	}
	if !is(at(tree, "experimental", "abortOnPluginFailure"), true) {
		opened("experimental.abortOnPluginFailure: write true; the default is false, and with a plugin that fails to load the routes with a gate vanish, so that a broader route without one may take their requests")
	}
	if at(tree, "experimental", "fastProxy") != nil {
		opened("experimental.fastProxy: to a request with an empty Host, which anybody can send, Traefik 3.7.13 dials the service without end; leave it out, or write passHostHeader: false for every service")
	}
	if is(at(tree, "api", "insecure"), true) {
		opened("api.insecure: true serves the API and the dashboard to everyone on an entry point")
	}
	if is(at(tree, "providers", "rest", "insecure"), true) {
		opened("providers.rest.insecure: true lets everyone change the routes")
	}
	if value := at(tree, "global", "checkNewVersion"); value == nil || is(value, true) {
		weakened("global.checkNewVersion: write false; the default is true, and the gateway asks a server of Traefik's for newer versions")
	}
	if is(at(tree, "global", "sendAnonymousUsage"), true) {
		weakened("global.sendAnonymousUsage: true sends the configuration's outline to a server of Traefik's")
	}
	points, _ := at(tree, "entryPoints").(map[string]any)
	if len(points) == 0 {
		opened("entryPoints: none is configured, so Traefik opens :80 with its defaults: X_User_ID passes, and encoded slashes")
	}
	for _, name := range slices.Sorted(maps.Keys(points)) {
		if address, _ := at(points[name], "address").(string); strings.HasSuffix(address, "/udp") {
			continue // no HTTP
		}
		o, w := entryPoint(points[name])
		for _, text := range o {
			opened("entryPoints.%s.%s", name, text)
		}
		for _, text := range w {
			weakened("entryPoints.%s.%s", name, text)
		}
	}
	return open, weak
}

// registers tells whether the plugin is registered, under whatever name.
func registers(tree map[string]any) bool {
	for _, section := range []string{"plugins", "localPlugins"} {
		plugins, _ := at(tree, "experimental", section).(map[string]any)
		for _, p := range plugins {
			if at(p, "moduleName") == module {
				return true
			}
		}
	}
	return false
}

// at walks down nested maps by key, whose case Traefik ignores.
func at(tree any, path ...string) any {
	for _, key := range path {
		branch, ok := tree.(map[string]any)
		if !ok {
			return nil
		}
		tree = nil
		for name, value := range branch {
			if strings.EqualFold(name, key) {
				tree = value
			}
		}
	}
	return tree
}

func entryPoint(point any) (open, weak []string) {
	opened := func(format string, args ...any) { open = append(open, fmt.Sprintf(format, args...)) }
	weakened := func(format string, args ...any) { weak = append(weak, fmt.Sprintf(format, args...)) }

	if strategy := at(point, "http", "aliasHeadersStrategy"); strategy != "reject" && strategy != "delete" {
		opened("http.aliasHeadersStrategy: write reject; the default is keep, and X_User_ID and X.User.ID reach services as X-User-ID (CVE-2026-54763)")
	} else if strategy == "delete" {
		weakened("http.aliasHeadersStrategy: write reject, which tells a client that X_User_ID was not taken; delete drops it in silence")
	}
	if is(at(point, "http", "sanitizePath"), false) {
		opened("http.sanitizePath: false lets /../ pass the routing; leave it out or write true")
	}
	if at(point, "http", "encodedCharacters") == nil {
		opened("http.encodedCharacters: missing, so all are allowed and one path may be read as another behind the gateway; write false for each of %s", strings.Join(encodedCharacters, ", "))
	}
	for _, character := range encodedCharacters {
		if at(point, "http", "encodedCharacters") == nil {
			break
		}
		if !is(at(point, "http", "encodedCharacters", character), false) {
			opened("http.encodedCharacters.%s: write false; the default is true, and one path may then be read as another behind the gateway", character)
		}
	}
	if !within(at(point, "http", "maxHeaderBytes"), maxHeaderBytes) {
		weakened("http.maxHeaderBytes: write %d or less; the default is 1048576, which a client may make the gateway hold for each request", maxHeaderBytes)
	}
	if !within(at(point, "http2", "maxConcurrentStreams"), maxConcurrentStreams) {
		weakened("http2.maxConcurrentStreams: write %d or less; the default is 250 requests at once on each connection", maxConcurrentStreams)
	}
	for _, timeout := range []string{"readTimeout", "idleTimeout"} {
		if value := at(point, "transport", "respondingTimeouts", timeout); value != nil && !limited(value) {
			opened("transport.respondingTimeouts.%s: %v lets slow clients hold connections for ever; leave it out (the default is %s) or write a duration above zero", timeout, value, defaultTimeouts[timeout])
		}
	}
	if at(point, "http3") != nil {
		weakened("http3: QUIC passes a TCP balancer and its PROXY protocol by; leave it out behind one")
	}
	for _, section := range []string{"forwardedHeaders", "proxyProtocol"} {
		if is(at(point, section, "insecure"), true) {
			opened("%s.insecure: true lets every client choose its address; list the proxies in trustedIPs", section)
		}
		for _, address := range list(at(point, section, "trustedIPs")) {
			if prefix, err := netip.ParsePrefix(address); err == nil && prefix.Bits() == 0 {
				opened("%s.trustedIPs: %s lets every client choose its address", section, address)
			}
		}
	}
	return open, weak
}

// is compares a switch that may be a boolean or its text.
func is(value any, want bool) bool {
	got, err := strconv.ParseBool(fmt.Sprint(value))
	return err == nil && got == want
}

func within(value any, most int) bool {
	got, err := strconv.Atoi(fmt.Sprint(value))
	return err == nil && 0 < got && got <= most
}

// limited says whether a timeout ends: a duration, or a plain number of seconds.
func limited(value any) bool {
	text := fmt.Sprint(value)
	if seconds, err := strconv.Atoi(text); err == nil {
		return seconds > 0
	}
	duration, err := time.ParseDuration(text)
	return err == nil && duration > 0
}

// list reads a list that may be written as one with commas.
func list(value any) []string {
	switch value := value.(type) {
	case []any:
		var out []string
		for _, item := range value {
			out = append(out, list(item)...)
		}
		return out
	case string:
		return strings.FieldsFunc(value, func(c rune) bool { return c == ',' || c == ' ' })
	default:
		return nil
	}
}
