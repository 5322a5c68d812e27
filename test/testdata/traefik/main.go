// Command traefik asks Traefik's own packages what they make of rules and of
// configuration, so that a test can hold `sluice check` to it. It is compiled in
// the module that Traefik is built from; it reads a Question and writes an Answer.
package main

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"text/template"

	"github.com/traefik/paerser/cli"
	ptypes "github.com/traefik/paerser/types"
	"github.com/traefik/traefik/v3/cmd"
	tcli "github.com/traefik/traefik/v3/pkg/cli"
	"github.com/traefik/traefik/v3/pkg/config/dynamic"
	"github.com/traefik/traefik/v3/pkg/config/static"
	httpmuxer "github.com/traefik/traefik/v3/pkg/muxer/http"
	tcpmuxer "github.com/traefik/traefik/v3/pkg/muxer/tcp"
	"github.com/traefik/traefik/v3/pkg/provider/file"
	"github.com/traefik/traefik/v3/pkg/provider/kubernetes/crd/traefikio/v1alpha1"
	"github.com/traefik/traefik/v3/pkg/tcp"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Question holds what to judge. A file is named by its extension.
type Question struct {
	HTTP, TCP       []string
	Dynamic, Static []File
}

type File struct{ Extension, Content string }

// Answer holds an error, or "", for each item of the question, what each static
// file comes to, and the fields of every configuration.
type Answer struct {
	HTTP, TCP, Dynamic, Static []string
	Effective                  []static.Configuration
	Fields                     map[string]any
}

func main() {
	var question Question
	must(json.NewDecoder(os.Stdin).Decode(&question))
	answer := Answer{Fields: map[string]any{
		"dynamic": fields(reflect.TypeFor[dynamic.Configuration](), false),
		"static":  fields(reflect.TypeFor[static.Configuration](), false),

		"Middleware":          fields(reflect.TypeFor[v1alpha1.MiddlewareSpec](), true),
		"MiddlewareTCP":       fields(reflect.TypeFor[v1alpha1.MiddlewareTCPSpec](), true),
		"IngressRoute":        fields(reflect.TypeFor[v1alpha1.IngressRouteSpec](), true),
		"IngressRouteTCP":     fields(reflect.TypeFor[v1alpha1.IngressRouteTCPSpec](), true),
		"IngressRouteUDP":     fields(reflect.TypeFor[v1alpha1.IngressRouteUDPSpec](), true),
		"ServersTransport":    fields(reflect.TypeFor[v1alpha1.ServersTransportSpec](), true),
		"ServersTransportTCP": fields(reflect.TypeFor[v1alpha1.ServersTransportTCPSpec](), true),
		"TLSOption":           fields(reflect.TypeFor[v1alpha1.TLSOptionSpec](), true),
		"TLSStore":            fields(reflect.TypeFor[v1alpha1.TLSStoreSpec](), true),
		"TraefikService":      fields(reflect.TypeFor[v1alpha1.TraefikServiceSpec](), true),
	}}
	for _, rule := range question.HTTP {
		parser, err := httpmuxer.NewSyntaxParser()
		must(err)
		answer.HTTP = append(answer.HTTP, text(httpmuxer.NewMuxer(parser, nil).AddRoute(rule, "v3", 0, "", http.NotFoundHandler())))
	}
	for _, rule := range question.TCP {
		muxer, err := tcpmuxer.NewMuxer(nil)
		must(err)
		answer.TCP = append(answer.TCP, text(muxer.AddRoute(rule, "v3", 0, "", tcp.HandlerFunc(func(tcp.WriteCloser) {}))))
	}
	dir, err := os.MkdirTemp("", "")
	must(err)
	defer os.RemoveAll(dir)
	for _, f := range question.Dynamic {
		provider := file.Provider{}
		_, err := provider.CreateConfiguration(context.Background(), write(dir, f), template.FuncMap{}, false)
		answer.Dynamic = append(answer.Dynamic, text(err))
	}
	for _, f := range question.Static {
		configuration := cmd.NewTraefikConfiguration()
		_, err := (&tcli.FileLoader{}).Load([]string{"--configFile=" + write(dir, f)}, &cli.Command{Configuration: configuration})
		answer.Static = append(answer.Static, text(err))
		answer.Effective = append(answer.Effective, configuration.Configuration)
	}
	must(json.NewEncoder(os.Stdout).Encode(answer))
}

func write(dir string, f File) string {
	name := filepath.Join(dir, "configuration"+f.Extension)
	must(os.WriteFile(name, []byte(f.Content), 0o600))
	return name
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// fields describes a type: a struct by its keys, a map by the key "*", a list by
// its element, a scalar by its kind. A resource of Kubernetes is read by encoding/
// json, everything else by paerser, which goes by the names of Go's fields.
func fields(t reflect.Type, byTag bool) any {
	switch t {
	case reflect.TypeFor[ptypes.Duration]():
		return "duration"
	case reflect.TypeFor[intstr.IntOrString]():
		return "any"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return fields(t.Elem(), byTag)
	case reflect.Slice, reflect.Array:
		if t.Elem().Kind() == reflect.Uint8 {
			return "any" // JSON that is kept as it is
		}
		return []any{fields(t.Elem(), byTag)}
	case reflect.Map:
		return map[string]any{"*": fields(t.Elem(), byTag)}
	case reflect.Struct:
		all := map[string]any{}
		for i := range t.NumField() {
			f := t.Field(i)
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !byTag && !strings.EqualFold(name, f.Name) {
				name = strings.ToLower(f.Name[:1]) + f.Name[1:]
			}
			switch {
			case !f.IsExported() || f.Tag.Get("file") == "-" || f.Tag.Get("json") == "-" && byTag:
			case f.Anonymous && (byTag && name == "" || !byTag):
				if embedded, ok := fields(f.Type, byTag).(map[string]any); ok {
					for key, value := range embedded {
						all[key] = value
					}
				}
			default:
				all[name] = fields(f.Type, byTag)
			}
		}
		if len(all) == 0 && t.NumField() > 0 {
			return "any"
		}
		return all
	case reflect.Bool:
		return "bool"
	case reflect.String:
		return "string"
	case reflect.Float32, reflect.Float64:
		return "float"
	case reflect.Interface:
		return "any"
	default:
		return "int"
	}
}
