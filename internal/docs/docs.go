// Package docs reads this repository's Markdown, for the tests that hold it to
// the code.
package docs

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode"
)

// Document is one Markdown file.
type Document struct {
	Name  string // relative to the repository's root, with slashes
	lines []string
}

// Block is what stands between two fences.
type Block struct {
	Document string
	Line     int    // of the first line inside
	Info     string // the info string: what the block is
	Text     string
}

func (b Block) String() string { return fmt.Sprintf("%s:%d", b.Document, b.Line) }

// Kind is the first word of the info string, or the first two of YAML, which is
// of many kinds; Mark is the word after it.
func (b Block) Kind() string { kind, _ := b.words(); return kind }

// Mark says how far a block of its kind can be tried.
func (b Block) Mark() string { _, mark := b.words(); return mark }

func (b Block) words() (kind, mark string) {
	words := strings.Fields(b.Info)
	n := 1
	if len(words) > 0 && words[0] == "yaml" {
		n = 2
	}
	n = min(n, len(words))
	return strings.Join(words[:n], " "), strings.Join(words[n:], " ")
}

// Load reads the Markdown below root, but for test data.
func Load(root string) ([]*Document, error) {
	var all []*Document
	err := filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != root && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata"):
			return fs.SkipDir
		case entry.IsDir() || filepath.Ext(name) != ".md":
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, name)
		all = append(all, &Document{Name: filepath.ToSlash(relative), lines: strings.Split(string(text), "\n")})
		return err
	})
	return all, err
}

// ForUsers tells whether the document is written for users, whose snippets are
// tried: those of the root and of docs/.
func (d *Document) ForUsers() bool {
	return path.Dir(d.Name) == "." || strings.HasPrefix(d.Name, "docs/")
}

var fence = regexp.MustCompile("^( *)(```+)(.*)$")

// walk calls inside and outside for each line with its number.
func (d *Document) walk(inside func(block *Block, line string), outside func(number int, line string)) {
	var open *Block
	var indent, mark string
	for i, line := range d.lines {
		match := fence.FindStringSubmatch(line)
		switch {
		case open == nil && match != nil:
			indent, mark = match[1], match[2]
			open = &Block{Document: d.Name, Line: i + 2, Info: strings.TrimSpace(match[3])}
			inside(open, "")
		case open != nil && strings.TrimSpace(line) == mark:
			open = nil
		case open != nil:
			open.Text += strings.TrimPrefix(line, indent) + "\n"
		default:
			outside(i+1, line)
		}
	}
}

// Blocks are the document's fenced blocks, in order.
func (d *Document) Blocks() []*Block {
	var all []*Block
	d.walk(func(b *Block, _ string) { all = append(all, b) }, func(int, string) {})
	return all
}

// Link is where a link leads.
type Link struct {
	Line   int
	Target string
}

var (
	codeSpan = regexp.MustCompile("``[^`]+.*?``|`[^`]*`")
	linkTo   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading  = regexp.MustCompile(`^#{1,6} +(.*?)#* *$`)
)

// Links are the links outside of code.
func (d *Document) Links() (all []Link) {
	d.walk(func(*Block, string) {}, func(number int, line string) {
		for _, match := range linkTo.FindAllStringSubmatch(codeSpan.ReplaceAllString(line, ""), -1) {
			all = append(all, Link{number, match[1]})
		}
	})
	return all
}

// Headings are the titles, as they are written.
func (d *Document) Headings() (all []string) {
	d.walk(func(*Block, string) {}, func(_ int, line string) {
		if match := heading.FindStringSubmatch(line); match != nil {
			all = append(all, strings.TrimSpace(match[1]))
		}
	})
	return all
}

// Anchors are what links may lead to within the document, as GitHub makes them
// of its headings.
func (d *Document) Anchors() (all []string) {
	for _, title := range d.Headings() {
		title = linkTo.ReplaceAllString(title, "")
		var anchor strings.Builder
		for _, c := range strings.ToLower(title) {
			switch {
			case c == ' ':
				anchor.WriteByte('-')
			case c == '-' || c == '_' || unicode.IsLetter(c) || unicode.IsDigit(c):
				anchor.WriteRune(c)
			}
		}
		name := anchor.String()
		for n := 1; slices.Contains(all, name); n++ {
			name = fmt.Sprintf("%s-%d", anchor.String(), n)
		}
		all = append(all, name)
	}
	return all
}

// Section is the lines below a heading, up to the next of any level.
func (d *Document) Section(title string) (lines []string) {
	in := false
	d.walk(func(*Block, string) {}, func(_ int, line string) {
		if match := heading.FindStringSubmatch(line); match != nil {
			in = strings.TrimSpace(match[1]) == title
		} else if in {
			lines = append(lines, line)
		}
	})
	return lines
}

// Find is the document of that name.
func Find(all []*Document, name string) *Document {
	for _, d := range all {
		if d.Name == name {
			return d
		}
	}
	return nil
}
