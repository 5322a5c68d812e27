package check

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"text/template/parse"
	"unicode"

	"github.com/Masterminds/sprig/v3"
)

// A line of what a template renders belongs to a line of the file, which no one
// can tell from the result. So each line of the template's text begins with its
// number between two letters of the private use area while it is executed.
const (
	markBegin = "\uE000"
	markEnd   = "\uE001"
)

// render executes the file as a template with the functions that Traefik gives
// it, and notes which environment variables came out empty. The result's line
// i+1 stems from the file's line lines[i].
func render(content []byte, getenv func(string) string) (rendered []byte, lines []int, unset []string, err error) {
	missing := map[string]bool{}
	functions := sprig.TxtFuncMap()
	functions["normalize"] = normalize
	functions["split"] = strings.Split
	functions["env"] = func(name string) string {
		value := getenv(name)
		missing[name] = value == ""
		return value
	}
	parsed, err := template.New("").Funcs(functions).Parse(string(content))
	if err != nil {
		return nil, nil, nil, err
	}
	for _, t := range parsed.Templates() {
		if t.Tree != nil {
			mark(t.Root, content)
		}
	}
	var out bytes.Buffer
	err = parsed.Execute(&out, false)
	maps.DeleteFunc(missing, func(_ string, empty bool) bool { return !empty })
	rendered, lines = unmark(out.String())
	return rendered, lines, slices.Sorted(maps.Keys(missing)), err
}

// mark numbers the lines of every piece of text below a node.
func mark(n parse.Node, content []byte) {
	switch n := n.(type) {
	case *parse.ListNode:
		if n != nil {
			for _, c := range n.Nodes {
				mark(c, content)
			}
		}
	case *parse.IfNode:
		mark(n.List, content)
		mark(n.ElseList, content)
	case *parse.RangeNode:
		mark(n.List, content)
		mark(n.ElseList, content)
	case *parse.WithNode:
		mark(n.List, content)
		mark(n.ElseList, content)
	case *parse.TextNode:
		line := 1 + bytes.Count(content[:n.Pos], []byte("\n"))
		var out strings.Builder
		for i, text := range strings.SplitAfter(string(n.Text), "\n") {
			fmt.Fprintf(&out, "%s%d%s%s", markBegin, line+i, markEnd, text)
		}
		n.Text = []byte(out.String())
	}
}

// unmark takes the numbers out again. A line has that of its last mark, or that
// of the line before it.
func unmark(marked string) (plain []byte, lines []int) {
	current := 1
	for line := range strings.Lines(marked) {
		for {
			before, rest, found := strings.Cut(line, markBegin)
			number, after, closed := strings.Cut(rest, markEnd)
			if !found || !closed {
				break
			}
			if n, err := strconv.Atoi(number); err == nil && strings.TrimSpace(after) != "" {
				current = n
			}
			line = before + after
		}
		plain = append(plain, line...)
		lines = append(lines, current)
	}
	return plain, lines
}

// normalize is Traefik's function of that name.
func normalize(name string) string {
	words := strings.FieldsFunc(name, func(c rune) bool { return !unicode.IsLetter(c) && !unicode.IsNumber(c) })
	return strings.Join(words, "-")
}
