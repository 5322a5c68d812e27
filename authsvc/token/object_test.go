package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// decoded is parseObject by encoding/json's decoder, one token after the other,
// and with names compared each with each.
func decoded(data []byte) (map[string]any, error) {
	if !utf8.Valid(data) {
		return nil, errors.New("invalid UTF-8")
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value func(depth int) (any, error)
	value = func(depth int) (any, error) {
		token, err := decoder.Token()
		delimiter, nested := token.(json.Delim)
		if err != nil || !nested {
			return token, err
		}
		if depth > maxDepth {
			return nil, errors.New("nested too deep")
		}
		object, list := map[string]any{}, []any{}
		for decoder.More() {
			name := ""
			if delimiter == '{' {
				token, err := decoder.Token()
				if err != nil {
					return nil, err
				}
				name = token.(string)
				for other := range object {
					if strings.EqualFold(other, name) {
						return nil, errors.New("a name twice")
					}
				}
			}
			element, err := value(depth + 1)
			if err != nil {
				return nil, err
			}
			object[name], list = element, append(list, element)
		}
		if _, err := decoder.Token(); err != nil || delimiter == '{' {
			return object, err
		}
		return list, nil
	}
	read, err := value(1)
	if err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	object, is := read.(map[string]any)
	if !is {
		return nil, errors.New("no object")
	}
	return object, nil
}

var objects = []string{
	payload, `{}`, ` { } `, `[]`, `null`, `"a"`, `{`, `}`, ``, `{}{}`, `{} x`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{,"a":1}`, `{"a":1 "b":2}`, `{"a" 1}`, `{1:1}`, `{"a":[1,]}`, `{"a":[,1]}`, `{"a":[1 2]}`,
	`{"a":1,"a":2}`, `{"a":1,"A":2}`, "{\"sub\":1,\"\u017fub\":2}", "{\"kid\":1,\"\u212aid\":2}", `{"a":1,"\u0061":2}`, `{"x":{"a":1,"A":2}}`, `{"x":[{"a":1,"A":2}]}`, `{"A":{"a":1},"b":{"a":2}}`,
	"\t{\n\"a\" :\r[ 1 , -0.5e+3 ,true,false , null,\"x\\n\\\"\\u00e9\\ud83d\\ude00\\ud800\" ,{ } ,[ ] ] }\n", `{"":0}`, `{"a":01}`, `{"a":1.}`, `{"a":+1}`, `{"a":tru}`, `{"a":nulll}`, `{"a":NaN}`, "{\"a\":\"\x01\"}", "{\"a\":\"\xff\"}", `{"a":"\x"}`, `{"a":"\u12"}`, `{"a":"`, `{"a":"\`, "\ufeff{}", `{"a":"\\"}`, `{"a":"\\\""}`,
	`{"a":` + strings.Repeat("[", 15) + strings.Repeat("]", 15) + `}`, `{"a":` + strings.Repeat("[", 16) + strings.Repeat("]", 16) + `}`, strings.Repeat(`{"a":`, 16) + "1" + strings.Repeat("}", 16), strings.Repeat(`{"a":`, 17) + "1" + strings.Repeat("}", 17),
	`{"` + strings.Repeat("a", 300) + `":"` + strings.Repeat("b", 300) + `"}`, manyNames(40),
}

func manyNames(n int) string {
	var names []string
	for i := range n {
		names = append(names, fmt.Sprintf(`"name-%d":%d`, i, i))
	}
	return "{" + strings.Join(names, ",") + "}"
}

// FuzzParseObject: what encoding/json's decoder reads, and nothing else, is read
// here too, and means the same.
func FuzzParseObject(f *testing.F) {
	for _, seed := range objects {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		want, refused := decoded(data)
		got, err := parseObject(data)
		if (err == nil) != (refused == nil) {
			t.Fatalf("%q: %v; the decoder: %v", data, err, refused)
		}
		if err == nil && !reflect.DeepEqual(got, want) {
			t.Fatalf("%q: %#v; the decoder: %#v", data, got, want)
		}
	})
}

// FuzzRawMembers: each member of an object is passed over whole.
func FuzzRawMembers(f *testing.F) {
	for _, seed := range objects {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := openObject(data)
		if err != nil {
			return
		}
		got := map[string]json.RawMessage{}
		if err := r.members(func(name string) error {
			got[name] = r.raw()
			return nil
		}); err != nil {
			return
		}
		var want map[string]json.RawMessage
		if err := json.Unmarshal(data, &want); err != nil || len(got) != len(want) {
			t.Fatalf("%q: %v, %d members instead of %d", data, err, len(got), len(want))
		}
		for name, value := range want {
			if !bytes.Equal(got[name], value) {
				t.Fatalf("%q: %q is %q instead of %q", data, name, got[name], value)
			}
		}
	})
}

// BenchmarkParseObject is the reading of a usual token's claims.
func BenchmarkParseObject(b *testing.B) {
	data := []byte(`{"aud":"sluice","exp":1795806000,"iat":1795802400.123,"iss":"sluice","jti":"5f7c2f64-8d6c-4d0d-9a2b-0b1c2d3e4f50","plan":"pro","scope":"read write","sid":"0123456789abcdef0123456789abcdef","sub":"ann"}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := parseObject(data); err != nil {
			b.Fatal(err)
		}
	}
}
