package check

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
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

// encodedCharacters are the seven switches, all of which have to be written:
// once the section exists, a missing one means allowed.
var encodedCharacters = []string{
	"allowEncodedSlash", "allowEncodedBackSlash", "allowEncodedNullCharacter", "allowEncodedSemicolon",
	"allowEncodedPercent", "allowEncodedQuestionMark", "allowEncodedHash",
}

// Static lists what a static configuration file leaves open, by path.
func Static(name string) ([]string, error) {
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	tree, err := parse(filepath.Ext(name), content)
	if err != nil {
		return []string{err.Error()}, nil
	}
	return Openings(tree), nil
}

// Openings is Static for a file that has been parsed already.
func Openings(tree map[string]any) []string {
	var found []string
	open := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }

	if at(tree, "experimental", "plugins", PluginName) == nil && at(tree, "experimental", "localPlugins", PluginName) == nil {
		open("experimental.localPlugins.%s: missing; without it no middleware of ours is built and its routes vanish", PluginName)
	}
	if !is(at(tree, "experimental", "abortOnPluginFailure"), true) {
		open("experimental.abortOnPluginFailure: write true; otherwise a plugin that fails to load leaves a gateway without routes")
	}
	if is(at(tree, "api", "insecure"), true) {
		open("api.insecure: true serves the API and the dashboard to everyone on an entry point")
	}
	for _, key := range []string{"checkNewVersion", "sendAnonymousUsage"} {
		if !is(at(tree, "global", key), false) {
			open("global.%s: write false; the gateway calls home otherwise", key)
		}
	}
	points, _ := at(tree, "entryPoints").(map[string]any)
	if len(points) == 0 {
		open("entryPoints: none is configured, so Traefik opens :80 with its defaults")
	}
	for _, name := range slices.Sorted(maps.Keys(points)) {
		for _, opening := range entryPoint(points[name]) {
			open("entryPoints.%s.%s", name, opening)
		}
	}
	return found
}

func entryPoint(point any) []string {
	var found []string
	open := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }

	if strategy := at(point, "http", "aliasHeadersStrategy"); strategy != "reject" {
		open("http.aliasHeadersStrategy: write reject; X_User_ID and X.User.ID reach services as X-User-ID otherwise (CVE-2026-54763)")
	}
	if !is(at(point, "http", "sanitizePath"), true) {
		open("http.sanitizePath: write true; /../ passes the routing otherwise")
	}
	for _, character := range encodedCharacters {
		if !is(at(point, "http", "encodedCharacters", character), false) {
			open("http.encodedCharacters.%s: write false; a missing one is allowed", character)
		}
	}
	if !within(at(point, "http", "maxHeaderBytes"), maxHeaderBytes) {
		open("http.maxHeaderBytes: write %d or less; the default is 1 MiB a request", maxHeaderBytes)
	}
	if !within(at(point, "http2", "maxConcurrentStreams"), maxConcurrentStreams) {
		open("http2.maxConcurrentStreams: write %d or less; the default is 250", maxConcurrentStreams)
	}
	for _, timeout := range []string{"readTimeout", "idleTimeout"} {
		if !limited(at(point, "transport", "respondingTimeouts", timeout)) {
			open("transport.respondingTimeouts.%s: write a duration above zero; slow clients hold connections for ever otherwise", timeout)
		}
	}
	if at(point, "http3") != nil {
		open("http3: leave it out; QUIC passes the balancer and its PROXY protocol by")
	}
	for _, section := range []string{"forwardedHeaders", "proxyProtocol"} {
		if is(at(point, section, "insecure"), true) {
			open("%s.insecure: true lets every client choose its address; list the proxies in trustedIPs", section)
		}
		for _, address := range list(at(point, section, "trustedIPs")) {
			if prefix, err := netip.ParsePrefix(address); err == nil && prefix.Bits() == 0 {
				open("%s.trustedIPs: %s lets every client choose its address", section, address)
			}
		}
	}
	return found
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
