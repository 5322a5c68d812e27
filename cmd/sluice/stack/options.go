package stack

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
)

// The two forms of the plugin and the two wirings of the gateway.
const (
	Compiled    = "compiled"
	Interpreted = "interpreted"
	Fast        = "fast"
	Classic     = "classic"
)

// MaxGateways bounds how many Traefik processes one machine is asked to run.
const MaxGateways = 16

// Options says what to start. The zero value is `sluice up` without flags.
type Options struct {
	Listen       string // front door for HTTP; default 127.0.0.1:8080, port 0 takes a free one
	ListenTLS    string // front door for HTTPS; default 127.0.0.1:8443
	Gateways     int    // default 1; several get a balancer before them
	Redis        string // host:port; empty: an embedded one
	Traefik      string // a stock Traefik >= 3.7.13, which interprets; empty: ours is built
	Plugin       string // Compiled or Interpreted; default Compiled, or Interpreted with Traefik
	Wiring       string // Fast or Classic; default Fast
	Dynamic      string // a dynamic configuration instead of the shipped one
	DataDir      string // keys and certificate; default: sluice in the user's state directory
	FastProxy    bool   // Traefik's experimental.fastProxy
	RedirectHTTP bool   // HTTP answers with a redirect to HTTPS
	ReadyFile    string // written once every part answers

	Log io.Writer // progress and the children's errors; nil: silence
}

// complete fills in defaults and refuses what cannot work, in one line a fault
// that says what to do.
func (o *Options) complete() error {
	o.Listen = cmp.Or(o.Listen, "127.0.0.1:8080")
	o.ListenTLS = cmp.Or(o.ListenTLS, "127.0.0.1:8443")
	o.Gateways = cmp.Or(o.Gateways, 1)
	o.Wiring = cmp.Or(o.Wiring, Fast)
	if o.Log == nil {
		o.Log = io.Discard
	}
	if o.Plugin == "" {
		o.Plugin = Compiled
		if o.Traefik != "" {
			o.Plugin = Interpreted
		}
	}
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if !GatewaysFit(o.Gateways) {
		fault("--gateways=%d: write a number from 1 to %d", o.Gateways, MaxGateways)
	}
	if o.Wiring != Fast && o.Wiring != Classic {
		fault("--wiring=%s: write %s or %s", o.Wiring, Fast, Classic)
	}
	switch {
	case o.Plugin != Compiled && o.Plugin != Interpreted:
		fault("--plugin=%s: write %s or %s", o.Plugin, Compiled, Interpreted)
	case o.Plugin == Compiled && o.Traefik != "":
		fault("--plugin=compiled needs our own Traefik: leave out --traefik=%s, or write --plugin=interpreted", o.Traefik)
	}
	if _, _, err := net.SplitHostPort(o.Redis); o.Redis != "" && err != nil {
		fault("--redis=%s: write host:port, such as 127.0.0.1:6379", o.Redis)
	}
	if o.Dynamic != "" {
		if err := readable(&o.Dynamic); err != nil {
			fault("--dynamic=%s: %v", o.Dynamic, err)
		}
	}
	if o.DataDir == "" {
		dir, err := stateDir()
		if err != nil {
			faults = append(faults, err)
		}
		o.DataDir = dir
	}
	if o.DataDir != "" {
		if err := os.MkdirAll(o.DataDir, 0o700); err != nil { // before Traefik is built, which takes minutes
			fault("--dataDir=%s: %v; name a folder that can be written", o.DataDir, errors.Unwrap(err))
		}
	}
	faults = append(faults, vacant("listen", &o.Listen), vacant("listenTLS", &o.ListenTLS))
	return errors.Join(faults...)
}

// GatewaysFit says whether one machine is asked to run so many.
func GatewaysFit(n int) bool { return n >= 1 && n <= MaxGateways }

// readable makes a file's path absolute, since Traefik runs in another folder.
func readable(path *string) error {
	file, err := os.Open(*path)
	if err != nil {
		return errors.Unwrap(err)
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return errors.New("not a file")
	}
	absolute, err := filepath.Abs(*path)
	if err == nil {
		*path = absolute
	}
	return err
}

// stateDir is where the XDG base directory specification keeps what outlives a
// run but is no configuration.
func stateDir() (string, error) {
	if dir := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "sluice"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", errors.New("there is no home directory to keep keys in; name a folder with --dataDir=DIR")
	}
	return filepath.Join(home, ".local", "state", "sluice"), nil
}
