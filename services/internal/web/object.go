package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/labstack/echo/v4"
)

// MaxBody is the size of a request's body at most, in bytes.
const MaxBody = 64 << 10

const (
	maxErrors = 50 // reported for one body; ten thousand unknown fields get no longer answer
)

// Object is a JSON object of a request, taken apart field by field. Each getter
// reads one field and notes what is wrong with it, and Err reports all of it at
// once, fields nobody asked for included. encoding/json alone would stop at the
// first mistake, fold the case of names and let the last of two equal names
// win; each of these has let one party read another value than the next.
//
// The raw body is kept for those who compare two requests.
type Object struct {
	Raw    []byte
	path   string // "" or "items[1]."
	fields map[string]json.RawMessage
	read   map[string]bool
	errs   *[]FieldError // shared with the objects inside
}

// ReadObject reads the body of a request, which is one JSON object whatever its
// Content-Type says: these services know no other form, and no cookie that a
// foreign page could ride on.
func ReadObject(c echo.Context) (*Object, error) {
	body, err := io.ReadAll(http.MaxBytesReader(c.Response(), c.Request().Body, MaxBody))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return nil, Refuse(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body may hold %d bytes", MaxBody))
	case err != nil:
		return nil, &Problem{Status: http.StatusBadRequest, Detail: "the body could not be read", Cause: err}
	}
	return ParseObject(body)
}

// ParseObject is ReadObject of bytes that are in memory already.
func ParseObject(body []byte) (*Object, error) {
	if !utf8.Valid(body) {
		return nil, Refuse(http.StatusBadRequest, "the body is not UTF-8")
	}
	o := &Object{Raw: body, errs: new([]FieldError)}
	if err := o.parse(body); err != nil {
		return nil, &Problem{Status: http.StatusBadRequest, Detail: "the body must be one JSON object: " + err.Error()}
	}
	return o, nil
}

var (
	errNotObject = errors.New("it is something else")
	errTrailing  = errors.New("something follows it")
	errSyntax    = errors.New("its syntax is wrong")
)

func (o *Object) parse(body []byte) error {
	o.fields = make(map[string]json.RawMessage)
	o.read = make(map[string]bool)
	decoder := json.NewDecoder(bytes.NewReader(body))
	if open, err := decoder.Token(); err != nil || open != json.Delim('{') {
		return errNotObject
	}
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return errSyntax
		}
		name, isString := token.(string)
		if !isString {
			return errSyntax
		}
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return errSyntax
		}
		if _, twice := o.fields[name]; twice {
			return fmt.Errorf("%q appears twice in it", shorten(name))
		}
		o.fields[name] = value
	}
	if _, err := decoder.Token(); err != nil {
		return errSyntax
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errTrailing
	}
	return nil
}

// field hands out a field's bytes; nil for one that is absent or null.
func (o *Object) field(name string) json.RawMessage {
	o.read[name] = true
	if value := o.fields[name]; string(value) != "null" {
		return value
	}
	return nil
}

// Reject notes that a field is wrong; callers use it for what only they can see.
func (o *Object) Reject(name, detail string) {
	if len(*o.errs) == maxErrors {
		return
	}
	*o.errs = append(*o.errs, FieldError{Field: o.path + name, Detail: detail})
}

// String reads a required string of min to max bytes.
func (o *Object) String(name string, min, max int) string {
	var value string
	raw := o.field(name)
	switch {
	case raw == nil:
		o.Reject(name, "is required")
	case json.Unmarshal(raw, &value) != nil:
		o.Reject(name, "must be a string")
	case len(value) < min || len(value) > max:
		o.Reject(name, fmt.Sprintf("must hold %d to %d bytes", min, max))
	default:
		return value
	}
	return ""
}

// OptionalString is String for a field that may be left out.
func (o *Object) OptionalString(name string, min, max int) string {
	if o.field(name) == nil {
		return ""
	}
	return o.String(name, min, max)
}

// Integer reads a required whole number from min to max.
func (o *Object) Integer(name string, min, max int64) int64 {
	var value int64
	raw := o.field(name)
	switch {
	case raw == nil:
		o.Reject(name, "is required")
	case json.Unmarshal(raw, &value) != nil || value < min || value > max:
		o.Reject(name, fmt.Sprintf("must be a whole number from %d to %d", min, max))
	default:
		return value
	}
	return 0
}

// Objects reads a required list of min to max objects and hands each to read.
func (o *Object) Objects(name string, min, max int, read func(*Object)) {
	raw := o.field(name)
	if raw == nil {
		o.Reject(name, "is required")
		return
	}
	var elements []json.RawMessage
	if json.Unmarshal(raw, &elements) != nil || len(elements) < min || len(elements) > max {
		o.Reject(name, fmt.Sprintf("must be a list of %d to %d objects", min, max))
		return
	}
	for i, element := range elements {
		place := fmt.Sprintf("%s[%d]", name, i)
		inner := &Object{path: o.path + place + ".", errs: o.errs}
		if err := inner.parse(element); err != nil {
			o.Reject(place, "must be an object: "+err.Error())
			continue
		}
		read(inner)
		inner.rejectUnknown()
	}
}

func (o *Object) rejectUnknown() {
	var unknown []string
	for name := range o.fields {
		if !o.read[name] {
			unknown = append(unknown, name)
		}
	}
	sort.Strings(unknown)
	for _, name := range unknown {
		o.Reject(shorten(name), "is not a known field")
	}
}

// Err answers for every field at once; it comes after the last getter.
func (o *Object) Err() error {
	o.rejectUnknown()
	if len(*o.errs) == 0 {
		return nil
	}
	return &Problem{Status: http.StatusBadRequest, Detail: "the body has errors", Fields: *o.errs}
}

// shorten keeps a client's own text from making an answer as long as its body.
func shorten(name string) string {
	const enough = 64
	if len(name) <= enough {
		return name
	}
	return strings.ToValidUTF8(name[:enough], "") + "..."
}
