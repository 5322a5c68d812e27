package check

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Configuration is kept as a tree of YAML nodes, since those know their line.
// What comes as TOML or as labels is made into one.

// field returns the value of a key, whose case Traefik ignores, and the key.
func field(n *yaml.Node, key string) (value, at *yaml.Node) {
	for name, v := range pairs(n) {
		if strings.EqualFold(name.Value, key) {
			value, at = v, name
		}
	}
	return value, at
}

// dig walks down nested maps; nil where one is missing.
func dig(n *yaml.Node, path ...string) *yaml.Node {
	for _, key := range path {
		n, _ = field(n, key)
	}
	return n
}

// pairs are the keys and values of a map, none for anything else.
func pairs(n *yaml.Node) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		if n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

// words reads a list, which may be written as one scalar with commas.
func words(n *yaml.Node) []*yaml.Node {
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.SequenceNode:
		return n.Content
	case n.Kind == yaml.ScalarNode:
		var all []*yaml.Node
		for _, word := range strings.Split(n.Value, ",") {
			if word = strings.TrimSpace(word); word != "" {
				all = append(all, scalar(word, n.Line))
			}
		}
		return all
	}
	return nil
}

func value(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		return ""
	}
	return n.Value
}

func lineOf(n *yaml.Node) int {
	if n == nil {
		return 0
	}
	return n.Line
}

func scalar(value string, line int) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: value, Line: line}
}

func mapping(line int) *yaml.Node {
	return &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map", Line: line}
}

// plain is the tree as maps, lists and scalars.
func plain(n *yaml.Node) (out any) {
	if n == nil || n.Decode(&out) != nil {
		return nil
	}
	return out
}

// expand puts what aliases and merge keys stand for in their place.
func expand(n *yaml.Node) *yaml.Node {
	switch n.Kind {
	case yaml.AliasNode:
		return expand(n.Alias)
	case yaml.DocumentNode:
		return expand(n.Content[0])
	case yaml.MappingNode:
		out := *n
		out.Content, out.Anchor = nil, ""
		var merged []*yaml.Node
		for key, v := range pairs(n) {
			if key.Tag != "!!merge" {
				out.Content = append(out.Content, key, expand(v))
				continue
			}
			from := expand(v)
			if from.Kind == yaml.MappingNode {
				from = &yaml.Node{Content: []*yaml.Node{from}}
			}
			for _, source := range from.Content {
				merged = append(merged, source.Content...)
			}
		}
		for i := 0; i+1 < len(merged); i += 2 { // what is written wins over what is merged
			if !slices.ContainsFunc(out.Content, func(c *yaml.Node) bool { return c.Value == merged[i].Value && c.Kind == yaml.ScalarNode }) {
				out.Content = append(out.Content, merged[i], merged[i+1])
			}
		}
		return &out
	default:
		out := *n
		out.Content, out.Anchor = nil, ""
		for _, c := range n.Content {
			out.Content = append(out.Content, expand(c))
		}
		return &out
	}
}

// renumber gives every node the line that its own line stands for.
func renumber(n *yaml.Node, line func(int) int) {
	n.Line = line(n.Line)
	for _, c := range n.Content {
		renumber(c, line)
	}
}

var step = regexp.MustCompile(`[^.\[\]]+|\[\d+\]`)

// locate is the line of what a path such as limits[1].window names, or of the
// nearest thing above it that is there.
func locate(n *yaml.Node, path string) int {
	line := lineOf(n)
	for _, word := range step.FindAllString(path, -1) {
		var at *yaml.Node
		if index, isItem := strings.CutPrefix(word, "["); isItem {
			i, _ := strconv.Atoi(strings.TrimSuffix(index, "]"))
			switch {
			case n.Kind == yaml.SequenceNode && i < len(n.Content):
				n = n.Content[i]
				at = n
			case n.Kind == yaml.MappingNode && i == 0: // a section that holds one
				continue
			}
		} else {
			if n, at = field(n, word); at == nil {
				return line
			}
		}
		if at == nil {
			return line
		}
		if at.Line > 0 {
			line = at.Line
		}
	}
	return line
}

// plant puts a value where a label's path says: http.routers.a.rule, with [0]
// for the items of a list. It returns what was there before, if it differs.
func plant(root *yaml.Node, path, text string, line int) (before string) {
	n := root
	steps := step.FindAllString(path, -1)
	for i, word := range steps {
		index, isItem := strings.CutPrefix(word, "[")
		var next *yaml.Node
		if isItem {
			at, _ := strconv.Atoi(strings.TrimSuffix(index, "]"))
			if n.Kind != yaml.SequenceNode {
				n.Kind, n.Tag, n.Content = yaml.SequenceNode, "!!seq", nil
			}
			for len(n.Content) <= at && at < 1000 {
				n.Content = append(n.Content, mapping(line))
			}
			if at >= len(n.Content) {
				return ""
			}
			next = n.Content[at]
		} else {
			if n.Kind != yaml.MappingNode {
				n.Kind, n.Tag, n.Value, n.Content = yaml.MappingNode, "!!map", "", nil
			}
			if next, _ = field(n, word); next == nil {
				next = mapping(line)
				n.Content = append(n.Content, scalar(word, line), next)
			}
		}
		if n = next; i < len(steps)-1 {
			continue
		}
		if n.Kind == yaml.ScalarNode && n.Value != text {
			return n.Value
		}
		if len(n.Content) == 0 {
			*n = *scalar(text, line)
		}
	}
	return ""
}

// kindOf says what a node is, for people.
func kindOf(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.MappingNode:
		return "a map"
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Tag == "!!null":
		return "nothing"
	default:
		return fmt.Sprintf("the value %q", n.Value)
	}
}

// suggest asks whether the nearest of the known names was meant.
func suggest(name string, known []string) string {
	best, least := "", 1+max(1, len(name)/3)
	for _, candidate := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(candidate)); d < least {
			best, least = candidate, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is the least number of letters to insert, delete, replace, or swap
// with the next, that makes a into b.
func distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[1] {
		rows[1][j] = j
	}
	for i := 1; i <= len(a); i++ {
		before, last, now := rows[0], rows[1], rows[2]
		now[0] = i
		for j := 1; j <= len(b); j++ {
			same := 1
			if a[i-1] == b[j-1] {
				same = 0
			}
			now[j] = min(last[j]+1, now[j-1]+1, last[j-1]+same)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				now[j] = min(now[j], before[j-2]+1)
			}
		}
		rows[0], rows[1], rows[2] = last, now, before
	}
	return rows[1][len(b)]
}
