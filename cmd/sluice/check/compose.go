package check

import (
	"regexp"
	"strings"

	"go.yaml.in/yaml/v3"
)

// labels takes what the labels of a compose file's services say, as the providers
// docker and swarm do.
func (c *configuration) labels(d *document) {
	for _, provider := range []struct {
		name string
		path []string
	}{{"docker", []string{"labels"}}, {"swarm", []string{"deploy", "labels"}}} {
		all := mapping(1)
		owner := map[string]string{}
		for service, v := range pairs(dig(d.root, "services")) {
			c.containers = append(c.containers, service.Value)
			own := c.container(d, all, owner, service.Value, dig(v, provider.path...))
			c.defaultService(d, own)
		}
		if len(all.Content) > 0 {
			c.sections[provider.name+"/http/services"] = true // every container is one
			c.report.fields(d, withServers(all), schemas["dynamic"], "")
			c.collectFrom(d, all, provider.name)
		}
	}
}

// container plants the labels of one service beside those of the others, and
// returns them alone.
func (c *configuration) container(d *document, all *yaml.Node, owner map[string]string, service string, labels *yaml.Node) *yaml.Node {
	own := mapping(lineOf(labels))
	type label struct {
		name, text string
		line       int
	}
	var found []label
	for key, v := range pairs(labels) {
		found = append(found, label{key.Value, value(v), key.Line})
	}
	if labels != nil && labels.Kind == yaml.SequenceNode {
		for _, item := range labels.Content {
			name, text, _ := strings.Cut(item.Value, "=")
			found = append(found, label{name, text, item.Line})
		}
	}
	for _, l := range found {
		if strings.EqualFold(l.name, "traefik.enable") && strings.EqualFold(l.text, "false") {
			return own
		}
	}
	for _, l := range found {
		root, path, _ := strings.Cut(l.name, ".")
		section := strings.ToLower(before(path, "."))
		if !strings.EqualFold(root, "traefik") {
			continue
		}
		switch section {
		case "http", "tcp", "udp", "tls":
		case "enable", "docker", "swarm":
			continue
		default:
			c.report.error(d, l.line, "label %s: unknown, so Traefik drops all labels of the container%s", l.name, suggest(section, dynamicKeys))
			continue
		}
		text := interpolate(l.text, d.getenv)
		plant(own, path, text, l.line)
		if there := plant(all, path, text, l.line); there != "" && owner[strings.ToLower(path)] != service {
			c.report.error(d, l.line, "label %s: is %q here and %q on %s, so Traefik takes neither", l.name, text, there, owner[strings.ToLower(path)])
		}
		owner[strings.ToLower(path)] = service
	}
	return own
}

// defaultService holds that a router that names no service means that of its
// container, which must then have but one.
func (c *configuration) defaultService(d *document, own *yaml.Node) {
	count := 0
	for range pairs(dig(own, "http", "services")) {
		count++
	}
	for router, v := range pairs(dig(own, "http", "routers")) {
		if count > 1 && value(dig(v, "service")) == "" {
			c.report.error(d, router.Line, "router %q: names no service, and its container has %d; write traefik.http.routers.%s.service", router.Value, count, router.Value)
		}
	}
}

// withServers writes loadbalancer.server, which labels alone know, as a list.
func withServers(root *yaml.Node) *yaml.Node {
	copied := expand(root)
	for _, proto := range []string{"http", "tcp", "udp"} {
		for _, service := range pairs(dig(copied, proto, "services")) {
			balancer := dig(service, "loadBalancer")
			if balancer == nil {
				continue
			}
			var kept []*yaml.Node
			for key, v := range pairs(balancer) {
				if !strings.EqualFold(key.Value, "server") {
					kept = append(kept, key, v)
				}
			}
			balancer.Content = kept
		}
	}
	return copied
}

var variable = regexp.MustCompile(`\$(?:\$|(\w+)|\{(\w+)(?:(:?[-?+])([^}]*))?\})`)

// interpolate replaces variables as compose does. One that is not set here stays,
// since it may be set where the file is used.
func interpolate(text string, getenv func(string) string) string {
	return variable.ReplaceAllStringFunc(text, func(found string) string {
		if found == "$$" {
			return "$"
		}
		parts := variable.FindStringSubmatch(found)
		name, operator, word := parts[1]+parts[2], strings.TrimPrefix(parts[3], ":"), parts[4]
		switch v := getenv(name); {
		case v != "":
			return v
		case operator == "-":
			return word
		default:
			return "${" + name + "}"
		}
	})
}

// flagsOf reads static configuration that a service is given as flags.
func flagsOf(root *yaml.Node) []*yaml.Node {
	var all []*yaml.Node
	for _, service := range pairs(dig(root, "services")) {
		command := dig(service, "command")
		var args []*yaml.Node
		if command != nil && command.Kind == yaml.ScalarNode {
			for _, word := range strings.Fields(command.Value) {
				args = append(args, scalar(word, command.Line))
			}
		} else {
			args = words(command)
		}
		flags := mapping(lineOf(command))
		for _, arg := range args {
			if path, text, ok := strings.Cut(arg.Value, "="); ok && strings.HasPrefix(path, "--") {
				plant(flags, strings.TrimPrefix(path, "--"), text, arg.Line)
			}
		}
		if dig(flags, "entryPoints") != nil || dig(flags, "experimental") != nil {
			all = append(all, flags)
		}
	}
	return all
}
