// Package version says which Sluice a program is. A release tells it to the
// linker; a program that was built in a checkout, or by `go install`, has it from
// what Go writes into every binary.
package version

import (
	"cmp"
	"runtime/debug"
)

// Set by the linker, as in
// -X github.com/sluice-gateway/sluice/internal/version.tag=v0.1.0
var tag, commit string

const unknown = "unknown"

// Version is a release's tag, or what Go made of the checkout.
func Version() string {
	v, _ := of(debug.ReadBuildInfo())
	return cmp.Or(tag, v)
}

// Commit is what the program was built from.
func Commit() string {
	_, c := of(debug.ReadBuildInfo())
	return cmp.Or(commit, c)
}

func of(info *debug.BuildInfo, ok bool) (version, commit string) {
	if !ok {
		return unknown, unknown
	}
	modified := ""
	for _, setting := range info.Settings {
		switch {
		case setting.Key == "vcs.revision":
			commit = setting.Value
		case setting.Key == "vcs.modified" && setting.Value == "true":
			modified = " and changes"
		}
	}
	if commit == "" {
		modified = ""
	}
	return cmp.Or(info.Main.Version, unknown), cmp.Or(commit+modified, unknown)
}
