package check

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/vulcand/predicate"
)

// Rules are parsed by the package that Traefik parses them with, over matchers of
// the same names that refuse the same arguments. test/traefik_test.go puts the
// same rules to Traefik itself.

// matcher checks the arguments of one; nil accepts all.
type matcher struct {
	least, most int // arguments
	check       func(args []string) error
}

var httpMatchers = map[string]matcher{
	"ClientIP":     {1, 1, clientIP},
	"Method":       {1, 1, nil},
	"Host":         {1, 1, ascii},
	"HostRegexp":   {1, 1, both(ascii, expression)},
	"Path":         {1, 1, rooted},
	"PathRegexp":   {1, 1, expression},
	"PathPrefix":   {1, 1, rooted},
	"Header":       {2, 2, nil},
	"HeaderRegexp": {2, 2, expression},
	"Query":        {1, 2, nil},
	"QueryRegexp":  {1, 2, secondExpression},
}

var tcpMatchers = map[string]matcher{
	"ClientIP":      {1, 1, clientIP},
	"ALPN":          {1, 1, alpn},
	"HostSNI":       {1, 1, hostSNI},
	"HostSNIRegexp": {1, 1, both(ascii, expression)},
}

// tree is what a rule stands for; only its leaves have something to check.
type tree func() error

// Rule says what is wrong with an HTTP router's rule.
func Rule(rule string) error { return parseRule(rule, httpMatchers) }

// TCPRule says what is wrong with a TCP router's rule.
func TCPRule(rule string) error { return parseRule(rule, tcpMatchers) }

func parseRule(rule string, matchers map[string]matcher) error {
	functions := map[string]any{}
	for name, m := range matchers {
		build := func(args ...string) tree { return func() error { return m.accepts(name, args) } }
		title := strings.ToUpper(name[:1]) + strings.ToLower(name[1:])
		for _, spelled := range []string{name, strings.ToLower(name), strings.ToUpper(name), title} {
			functions[spelled] = build
		}
	}
	each := func(left, right tree) tree {
		return func() error { return errors.Join(left(), right()) }
	}
	parser, err := predicate.NewParser(predicate.Def{
		Operators: predicate.Operators{AND: each, OR: each, NOT: func(t tree) tree { return t }},
		Functions: functions,
	})
	if err != nil {
		return err
	}
	parsed, err := parser.Parse(rule)
	if err != nil {
		return explain(rule, err, slices.Sorted(maps.Keys(matchers)))
	}
	t, ok := parsed.(tree)
	if !ok {
		return fmt.Errorf("is no matcher; write one such as %s", example(matchers))
	}
	return t()
}

func example(matchers map[string]matcher) string {
	if _, http := matchers["Path"]; http {
		return "Host(`example.com`) && PathPrefix(`/`)"
	}
	return "HostSNI(`*`)"
}

func (m matcher) accepts(name string, args []string) error {
	switch {
	case len(args) == 0:
		return fmt.Errorf("%s has no argument", name)
	case slices.Contains(args, ""):
		return fmt.Errorf("%s has an empty argument", name)
	case len(args) < m.least || len(args) > m.most:
		count := fmt.Sprint(m.most)
		if m.least != m.most {
			count = fmt.Sprintf("%d or %d", m.least, m.most)
		}
		return fmt.Errorf("%s takes %s, not %d; join several by ||, each in its own %s", name, plural(count, "argument"), len(args), name)
	case m.check == nil:
		return nil
	}
	if err := m.check(args); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

var unsupported = regexp.MustCompile(`unsupported function: (\S+)`)

// explain says what the parser's words mean for one who writes rules.
func explain(rule string, err error, known []string) error {
	message, _, _ := strings.Cut(err.Error(), "\n")
	if found := unsupported.FindStringSubmatch(err.Error()); found != nil {
		hint := suggest(found[1], known)
		if hint == "" {
			hint = "; Traefik knows " + strings.Join(known, ", ")
		}
		return fmt.Errorf("there is no matcher %s%s", found[1], hint)
	}
	switch {
	case strings.TrimSpace(rule) == "":
		return errors.New("is empty")
	case strings.Contains(rule, "'"):
		return fmt.Errorf("%s; quote arguments by backticks, not by '", message)
	case regexp.MustCompile(`\b(and|AND|or|OR|not|NOT)\b`).MatchString(rule):
		return fmt.Errorf("%s; write && for and, || for or, ! for not", message)
	case strings.Count(rule, "`")%2 == 1:
		return fmt.Errorf("%s; a backtick is missing", message)
	case strings.Count(rule, "(") != strings.Count(rule, ")"):
		return fmt.Errorf("%s; brackets do not match", message)
	}
	return errors.New(message)
}

func both(checks ...func([]string) error) func([]string) error {
	return func(args []string) error {
		for _, check := range checks {
			if err := check(args); err != nil {
				return err
			}
		}
		return nil
	}
}

func ascii(args []string) error {
	if i := strings.IndexFunc(args[0], func(c rune) bool { return c > unicode.MaxASCII }); i >= 0 {
		return fmt.Errorf("%q is not ASCII; write its punycode, which begins with xn--", args[0])
	}
	return nil
}

// expression checks the last argument, which a regular expression always is.
func expression(args []string) error {
	_, err := regexp.Compile(args[len(args)-1])
	return err
}

func secondExpression(args []string) error {
	if len(args) < 2 {
		return nil
	}
	return expression(args)
}

func rooted(args []string) error {
	if !strings.HasPrefix(args[0], "/") {
		return fmt.Errorf("%q does not begin with /", args[0])
	}
	return nil
}

func clientIP(args []string) error {
	if net.ParseIP(args[0]) != nil {
		return nil
	}
	if _, _, err := net.ParseCIDR(args[0]); err != nil {
		return fmt.Errorf("%q is neither an address nor a network", args[0])
	}
	return nil
}

func alpn(args []string) error {
	if args[0] == "acme-tls/1" {
		return fmt.Errorf("%s is Traefik's own", args[0])
	}
	return nil
}

var hostOrIP = regexp.MustCompile(`^(\*\.)?[[:word:]\.\-\:]+$`)

func hostSNI(args []string) error {
	if args[0] != "*" && !hostOrIP.MatchString(args[0]) {
		return fmt.Errorf("%q is no host name", args[0])
	}
	return nil
}

func plural(count, noun string) string {
	if count == "1" {
		return count + " " + noun
	}
	return count + " " + noun + "s"
}
