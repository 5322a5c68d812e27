package config

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/traefik/paerser/cli"
	"github.com/traefik/paerser/file"
	"github.com/traefik/paerser/flag"
	"github.com/traefik/paerser/parser"
	"go.yaml.in/yaml/v3"
)

const envPrefix = "AUTHSVC_"

// Load builds a configuration from its four sources, each over the one before:
// defaults, file, AUTHSVC_* variables, flags (design: authsvc-configuration). Traefik itself takes
// the first source that has anything to say and ignores the others.
//
// paerser stops at the first setting it cannot decode, does not say which one
// it was, and passes over unknown names at the root of a file. So every
// setting is looked at first, the bad ones are reported together, and paerser
// decodes the rest.
func Load(args, environ []string) (*Config, error) {
	c := New()
	var m Mistakes
	flags, err := flag.Parse(args, c)
	if err != nil {
		return nil, fmt.Errorf("flags: %w", err)
	}
	variables := environment(environ)
	claimsVariable(variables, &m)

	path, err := configFile(flags, variables)
	if err != nil {
		return nil, err
	}
	if path != "" {
		if err := loadFile(path, c, &m); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
	}
	if err := loadLabels(variables, c, func(name string) string {
		return envPrefix + strings.ToUpper(strings.NewReplacer(".", "_", "[", "_", "]", "").Replace(name))
	}, &m); err != nil {
		return nil, fmt.Errorf("environment: %w", err)
	}
	if err := loadLabels(flags, c, func(name string) string { return "--" + name }, &m); err != nil {
		return nil, fmt.Errorf("flags: %w", err)
	}
	var invalid *Error
	if errors.As(c.Validate(), &invalid) {
		m = append(m, invalid.Mistakes...)
	}
	return c, m.Err()
}

// configFile finds the file: by flag, by variable, else in the usual places.
func configFile(flags, variables map[string]string) (string, error) {
	named := ""
	for _, source := range []map[string]string{variables, flags} {
		for name, value := range source {
			if strings.EqualFold(name, parser.DefaultRootName+".configFile") {
				named = cmp.Or(value, named)
			}
		}
	}
	if named != "" {
		if _, err := os.Stat(named); err != nil {
			return "", fmt.Errorf("configFile: %w", err)
		}
		return named, nil
	}
	finder := cli.Finder{BasePaths: []string{"./authsvc", "/etc/sluice/authsvc"}, Extensions: []string{"yml", "yaml"}}
	return finder.Find("")
}

func loadFile(path string, c *Config, m *Mistakes) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var document map[string]any
	if err := yaml.Unmarshal(content, &document); err != nil {
		return err
	}
	kept := inspect(document, reflect.TypeOf(*c), "", path+": ", m)
	if kept == nil {
		return nil
	}
	clean, err := yaml.Marshal(kept)
	if err != nil {
		return err
	}
	return file.DecodeContent(string(clean), ".yml", c)
}

// inspect walks a document beside the type it is meant for and returns what
// can be decoded. Empty lists, sections and values mean "as it is" to paerser,
// and come back as nil.
func inspect(value any, t reflect.Type, path, source string, m *Mistakes) any {
	switch {
	case value == nil:
		return nil
	case t.Kind() == reflect.Struct:
		section, ok := value.(map[string]any)
		if !ok {
			m.Add(source+path, value, "is a section; write its options below it")
			return nil
		}
		kept := make(map[string]any)
		for name, inner := range section {
			field, known := fieldNamed(t, name)
			if !known {
				m.unknown(source+join(path, name), unknownOption(t))
				continue
			}
			if inner = inspect(inner, field.Type, join(path, name), source, m); inner != nil {
				kept[name] = inner
			}
		}
		return orNil(kept, len(kept))
	case t.Kind() == reflect.Map:
		entries, ok := value.(map[string]any)
		if !ok {
			m.Add(source+path, value, "is a map; write name: value lines below it")
			return nil
		}
		return orNil(entries, len(entries))
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		list, ok := value.([]any)
		if !ok {
			m.Add(source+path, value, "is a list; begin each item with a dash")
			return nil
		}
		var kept []any
		for i, item := range list {
			if item = inspect(item, t.Elem(), fmt.Sprintf("%s[%d]", path, i), source, m); item != nil {
				kept = append(kept, item)
			}
		}
		return orNil(kept, len(kept))
	case t.Kind() == reflect.Slice:
		if list, ok := value.([]any); ok {
			return orNil(list, len(list))
		}
		return value
	}
	switch value.(type) {
	case map[string]any, []any:
		m.Add(source+path, value, "takes one value")
		return nil
	}
	text := fmt.Sprint(value)
	if accepted := scalar(t, text); accepted != "" {
		m.Add(source+path, text, accepted)
		return nil
	}
	return text
}

func orNil(value any, size int) any {
	if size == 0 {
		return nil
	}
	return value
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// scalar says what a type accepts if it does not accept text.
func scalar(t reflect.Type, text string) (accepted string) {
	if t == reflect.TypeFor[time.Duration]() {
		if _, err := time.ParseDuration(text); err != nil {
			return "write a duration with its unit, such as 50ms, 60s or 15m"
		}
		return ""
	}
	var err error
	switch t.Kind() {
	case reflect.Bool:
		_, err = strconv.ParseBool(text)
		accepted = "write true or false"
	case reflect.Int:
		_, err = strconv.Atoi(text)
		accepted = "write a whole number"
	case reflect.Float64:
		_, err = strconv.ParseFloat(text, 64)
		accepted = "write a number"
	}
	if err == nil {
		return ""
	}
	return accepted
}

func fieldNamed(t reflect.Type, name string) (reflect.StructField, bool) {
	return t.FieldByNameFunc(func(field string) bool { return strings.EqualFold(field, name) })
}

func unknownOption(t reflect.Type) string {
	var names []string
	for i := range t.NumField() {
		names = append(names, t.Field(i).Name)
	}
	return "unknown option; there are " + strings.Join(names, ", ") + " (in any case)"
}

// kubernetesLink are the variables that Kubernetes sets in every pod for a
// service that is called authsvc.
var kubernetesLink = regexp.MustCompile(`^AUTHSVC_(SERVICE_(HOST|PORT)|PORT)(_|$)`)

// environment turns AUTHSVC_REDIS_KEYPREFIX into the label redis.keyprefix and
// AUTHSVC_ISSUERS_0_NAME into issuers[0].name.
func environment(environ []string) map[string]string {
	labels := make(map[string]string)
	for _, variable := range environ {
		name, value, _ := strings.Cut(variable, "=")
		if kubernetesLink.MatchString(name) {
			continue
		}
		if rest, ours := strings.CutPrefix(name, envPrefix); ours && rest != "" {
			label := strings.ReplaceAll(strings.ToLower(rest), "_", ".")
			label = regexp.MustCompile(`\.(\d+)`).ReplaceAllString(label, "[$1]")
			labels[parser.DefaultRootName+"."+label] = value
		}
	}
	return labels
}

// claimsVariable spreads AUTHSVC_CLAIMS=companyId=X-Company-Id,plan= over the
// claims it names. The name of a variable could not: it has no capitals, and
// one sign for the underscores and the dots of a claim's name, so that
// AUTHSVC_CLAIMS_COMPANYID would map a claim that no token has.
func claimsVariable(labels map[string]string, m *Mistakes) {
	const claims = parser.DefaultRootName + ".claims"
	for label, value := range labels {
		if name, guessed := strings.CutPrefix(label, claims+"."); guessed {
			delete(labels, label)
			m.Add(envPrefix+"CLAIMS_"+strings.ToUpper(strings.ReplaceAll(name, ".", "_")), value,
				fmt.Sprintf("a variable's name cannot spell a claim's; write %sCLAIMS=%s=%s with the claim spelt as tokens do (several with commas between)", envPrefix, name, value))
		}
	}
	list, set := labels[claims]
	if !set {
		return
	}
	delete(labels, claims)
	for entry := range strings.SplitSeq(list, ",") {
		// The last one: a claim's name may hold equals signs, a header's cannot.
		equals := strings.LastIndexByte(entry, '=')
		if equals < 1 || strings.TrimSpace(entry[:equals]) == "" {
			m.Add(envPrefix+"CLAIMS", entry, "write claim=Header, several with commas between; claim= drops a default")
			continue
		}
		labels[claims+"."+strings.TrimSpace(entry[:equals])] = strings.TrimSpace(entry[equals+1:])
	}
}

// loadLabels decodes flat settings: flags and variables.
func loadLabels(labels map[string]string, c *Config, show func(string) string, m *Mistakes) error {
	kept := make(map[string]string)
	for label, value := range labels {
		name := strings.TrimPrefix(label, parser.DefaultRootName+".")
		switch t, accepted := labelType(name); {
		case accepted != "":
			m.unknown(show(name), accepted)
			continue
		case scalar(t, value) != "":
			m.Add(show(name), value, scalar(t, value))
			continue
		}
		kept[label] = value
	}
	slices.Sort(*m)
	if len(kept) == 0 {
		return nil
	}
	return parser.Decode(kept, c, parser.DefaultRootName)
}

// labelType finds what a flat name means, or says why it means nothing.
func labelType(name string) (t reflect.Type, wrong string) {
	t = reflect.TypeFor[Config]()
	for step := range strings.SplitSeq(name, ".") {
		step, index, indexed := strings.Cut(step, "[")
		if t.Kind() == reflect.Map {
			return t.Elem(), "" // the rest is the key
		}
		if t.Kind() != reflect.Struct {
			return nil, "unknown option"
		}
		field, known := fieldNamed(t, step)
		if !known {
			return nil, unknownOption(t)
		}
		t = field.Type
		if indexed {
			if _, err := strconv.Atoi(strings.TrimSuffix(index, "]")); err != nil || t.Kind() != reflect.Slice {
				return nil, "unknown option"
			}
			t = t.Elem()
		}
	}
	switch {
	case t.Kind() == reflect.Struct, t.Kind() == reflect.Map, t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return nil, "is a section; name the option inside it"
	}
	return t, ""
}
