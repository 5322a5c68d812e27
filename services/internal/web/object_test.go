package web

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"
)

// readSample asks for one field of every kind.
func readSample(o *Object) error {
	o.String("name", 1, 8)
	o.OptionalString("note", 1, 8)
	o.Objects("items", 1, 2, func(item *Object) { item.Integer("n", 1, 9) })
	return o.Err()
}

func TestObject(t *testing.T) {
	tests := []struct {
		name, body string
		want       []string // "field: detail", or the detail alone where the body as a whole is wrong
	}{
		{"complete", `{"name":"a","note":"b","items":[{"n":1},{"n":9}]}`, nil},
		{"optional left out", `{"name":"a","items":[{"n":1}]}`, nil},
		{"optional null", `{"name":"a","note":null,"items":[{"n":1}]}`, nil},
		{"white space", " \n{\"name\":\"a\",\"items\":[{\"n\":1}]}\t", nil},
		{"empty", ``, []string{"it is something else"}},
		{"list", `[]`, []string{"it is something else"}},
		{"string", `"a"`, []string{"it is something else"}},
		{"cut off", `{"name":"a"`, []string{"its syntax is wrong"}},
		{"no value", `{"name"}`, []string{"its syntax is wrong"}},
		{"two objects", `{"name":"a","items":[{"n":1}]}{}`, []string{"something follows it"}},
		{"not UTF-8", "{\"name\":\"\xff\"}", []string{"not UTF-8"}},
		{"a name twice", `{"name":"a","name":"b"}`, []string{`"name" appears twice`}},
		{"a name twice inside", `{"name":"a","items":[{"n":1,"n":2}]}`, []string{`items[0]: must be an object: "n" appears twice`}},
		{"names are not folded", `{"Name":"a","items":[{"n":1}]}`, []string{"name: is required", "Name: is not a known field"}},
		{"every mistake at once", `{"name":7,"note":"","items":[{"n":0,"m":1},{"n":1.5}],"x":{},"a":1}`, []string{
			"name: must be a string",
			"note: must hold 1 to 8 bytes",
			"items[0].n: must be a whole number from 1 to 9",
			"items[0].m: is not a known field",
			"items[1].n: must be a whole number from 1 to 9",
			"a: is not a known field",
			"x: is not a known field",
		}},
		{"too long", `{"name":"123456789","items":[{"n":1}]}`, []string{"name: must hold 1 to 8 bytes"}},
		{"no items", `{"name":"a","items":[]}`, []string{"items: must be a list of 1 to 2 objects"}},
		{"too many items", `{"name":"a","items":[{},{},{}]}`, []string{"items: must be a list of 1 to 2 objects"}},
		{"items of another kind", `{"name":"a","items":[1]}`, []string{"items[0]: must be an object"}},
		{"number out of range", `{"name":"a","items":[{"n":99999999999999999999}]}`, []string{"items[0].n: must be a whole number"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o, err := ParseObject([]byte(tt.body))
			if err == nil {
				err = readSample(o)
			}
			got := complaints(t, err)
			if len(got) != len(tt.want) {
				t.Fatalf("got %d complaints %q, want %q", len(got), got, tt.want)
			}
			for i := range got {
				if !strings.Contains(got[i], tt.want[i]) {
					t.Errorf("complaint %d: got %q, want %q", i, got[i], tt.want[i])
				}
			}
		})
	}
}

func complaints(t *testing.T, err error) []string {
	t.Helper()
	if err == nil {
		return nil
	}
	var problem *Problem
	if !errors.As(err, &problem) || problem.Status != 400 {
		t.Fatalf("got %v, want a problem with status 400", err)
	}
	if problem.Fields == nil {
		return []string{problem.Detail}
	}
	var all []string
	for _, field := range problem.Fields {
		all = append(all, field.Field+": "+field.Detail)
	}
	return all
}

func TestObjectReportsABoundedNumberOfErrors(t *testing.T) {
	var body strings.Builder
	body.WriteString(`{"name":"a"`)
	for i := range 5000 {
		fmt.Fprintf(&body, `,"f%d":1`, i)
	}
	body.WriteString(`}`)
	o, err := ParseObject([]byte(body.String()))
	if err != nil {
		t.Fatal(err)
	}
	if got := len(complaints(t, readSample(o))); got != maxErrors {
		t.Errorf("got %d errors, want %d", got, maxErrors)
	}
}

// FuzzObject holds the parser against encoding/json: whatever it accepts is one
// JSON object with the same fields, and no answer to a bad one grows with it.
func FuzzObject(f *testing.F) {
	for _, seed := range []string{`{}`, `{"name":"a","items":[{"n":1}]}`, `{"a":1,"a":2}`, `[`, `{"name":null}`, `{"a":"\ud800"}`, `{"":0}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		o, err := ParseObject(body)
		if err != nil {
			if len(err.Error()) > 1024 {
				t.Fatalf("the refusal is %d bytes long", len(err.Error()))
			}
			return
		}
		var plain map[string]json.RawMessage
		if err := json.Unmarshal(body, &plain); err != nil {
			t.Fatalf("accepted what encoding/json refuses: %v", err)
		}
		if len(plain) != len(o.fields) {
			t.Fatalf("%d fields, encoding/json sees %d", len(o.fields), len(plain))
		}
		err = readSample(o)
		var problem *Problem
		if errors.As(err, &problem) {
			for _, field := range problem.Fields {
				if len(field.Field) > 128 || !utf8.ValidString(field.Field) {
					t.Fatalf("field name %q in the answer", field.Field)
				}
			}
		}
	})
}
