package stack

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice"
	"github.com/sluice-gateway/sluice/cmd/sluice/check"
)

// configure completes the children's environment, puts the dynamic
// configuration in place and refuses one with errors: Traefik would run on
// without the routes that they concern.
func (s *Stack) configure(context.Context) error {
	s.env = append(s.env, "SLUICE_MIN_INSTANCES="+strconv.Itoa(s.options.Gateways), "SLUICE_PLUGIN="+s.options.Plugin)
	if err := s.certify(); err != nil {
		return err
	}
	if s.options.RedirectHTTP {
		_, port, err := net.SplitHostPort(s.options.ListenTLS)
		if err != nil {
			return err
		}
		s.env = append(s.env, "SLUICE_REDIRECT_HTTP="+port)
	}
	if s.options.Dynamic == "" {
		content, err := sluice.TraefikFile(s.options.Wiring + ".yml")
		if err != nil {
			return err
		}
		s.options.Dynamic = filepath.Join(s.work, s.options.Wiring+".yml")
		if err := os.WriteFile(s.options.Dynamic, content, 0o600); err != nil {
			return err
		}
		s.shipped = true
	}
	report, err := check.Check(check.Options{Names: []string{s.options.Dynamic}, Here: true, Getenv: s.getenv})
	if err != nil {
		return err
	}
	if problems := report.Errors(); len(problems) > 0 {
		return fmt.Errorf("%s has errors:\n  %s", s.options.Dynamic, strings.Join(problems, "\n  "))
	}
	s.ready.Wiring = s.options.Wiring
	s.asked = check.ReadyPath
	if !report.Ready {
		s.asked = "/ping"
		if s.options.Gateways > 1 {
			s.say("%s has no router ready, as the shipped files have it: a gateway that starts again may get requests before its routes are there.", s.options.Dynamic)
		}
	}
	return nil
}

// certify takes the certificate that SLUICE_TLS_CERT and SLUICE_TLS_KEY name,
// or makes one.
func (s *Stack) certify() error {
	certificate, key := os.Getenv("SLUICE_TLS_CERT"), os.Getenv("SLUICE_TLS_KEY")
	if certificate == "" {
		host, _, err := net.SplitHostPort(s.options.ListenTLS)
		if err != nil {
			return err
		}
		file, err := selfSigned(s.options.DataDir, []string{"localhost", "127.0.0.1", "::1", host})
		if err != nil {
			return err
		}
		certificate, key = file, file
		s.certificate = file
	}
	for _, file := range []*string{&certificate, &key} {
		if err := readable(file); err != nil {
			return fmt.Errorf("SLUICE_TLS_CERT and SLUICE_TLS_KEY: %q: %w", *file, err)
		}
	}
	s.env = append(s.env, "SLUICE_TLS_CERT="+certificate, "SLUICE_TLS_KEY="+key)
	return nil
}

// getenv answers as a child's environment would.
func (s *Stack) getenv(name string) string {
	for _, entry := range slices.Backward(s.childEnv()) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// childEnv is this process's environment with our own names replaced.
func (s *Stack) childEnv(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(entry string) bool { return strings.HasPrefix(entry, "SLUICE_") })
	return append(append(env, s.env...), more...)
}
