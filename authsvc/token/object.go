package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxDepth bounds nesting; claims of real issuers stay below five.
const maxDepth = 16

// parseObject reads exactly one JSON object, stricter than encoding/json:
// valid UTF-8 only, no trailing data, no nesting beyond maxDepth, and no two
// names in one object that are equal once case is folded. The last rule is
// what keeps {"sub":"a","SUB":"b"} from meaning a to us and b to whoever
// decodes the same bytes into a struct (U+017F folds onto s as well).
// Numbers arrive as json.Number.
func parseObject(data []byte) (object map[string]any, err error) {
	err = parseOne(data, func(decoder *json.Decoder) (err error) {
		object, err = readObject(decoder, 1)
		return err
	})
	return object, err
}

// parseOne opens the one object that data is, lets read take it, and sees that
// nothing follows.
func parseOne(data []byte, read func(*json.Decoder) error) error {
	if !utf8.Valid(data) {
		return errors.New("invalid UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	opening, err := decoder.Token()
	if err != nil {
		return fmt.Errorf("not JSON: %w", err)
	}
	if opening != json.Delim('{') {
		return errors.New("not a JSON object")
	}
	if err := read(decoder); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the JSON object")
	}
	return nil
}

func readObject(decoder *json.Decoder, depth int) (map[string]any, error) {
	object := make(map[string]any)
	err := readMembers(decoder, func(name string) (err error) {
		object[name], err = readValue(decoder, depth)
		return err
	})
	return object, err
}

// readMembers reads the names of an object whose brace has been read, and lets
// read take each one's value.
func readMembers(decoder *json.Decoder, read func(name string) error) error {
	folded := make(map[string]string)
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return fmt.Errorf("not JSON: %w", err)
		}
		name := token.(string) // the decoder admits nothing else here
		fold := foldName(name)
		if twin, seen := folded[fold]; seen {
			return fmt.Errorf("names %.40q and %.40q are one name in two spellings", twin, name)
		}
		folded[fold] = name
		if err := read(name); err != nil {
			return err
		}
	}
	_, err := decoder.Token() // the closing brace
	return err
}

func readValue(decoder *json.Decoder, depth int) (any, error) {
	token, err := decoder.Token()
	if err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	delimiter, nested := token.(json.Delim)
	if !nested {
		return token, nil
	}
	if depth == maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	if delimiter == '{' {
		return readObject(decoder, depth+1)
	}
	list := []any{}
	for decoder.More() {
		value, err := readValue(decoder, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, value)
	}
	_, err = decoder.Token() // the closing bracket
	return list, err
}

// foldedNames is names by their folded spelling.
func foldedNames(names ...string) map[string]string {
	folded := make(map[string]string)
	for _, name := range names {
		folded[foldName(name)] = name
	}
	return folded
}

// imitates says whether a name is one of folded in another spelling.
func imitates(name string, folded map[string]string) (known string, imitated bool) {
	known, there := folded[foldName(name)]
	return known, there && known != name
}

// foldName maps every spelling that strings.EqualFold holds equal to one
// string: the smallest rune of each folding orbit.
func foldName(name string) string {
	return strings.Map(func(r rune) rune {
		least := r
		for next := unicode.SimpleFold(r); next != r; next = unicode.SimpleFold(next) {
			least = min(least, next)
		}
		return least
	}, name)
}
