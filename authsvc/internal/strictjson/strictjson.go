// Package strictjson reads JSON that has to be what is expected and nothing
// else.
package strictjson

import (
	"encoding/json"
	"errors"
	"io"
)

// Decode reads one JSON value of known members, with nothing after it. Numbers
// in an any keep their digits.
func Decode(r io.Reader, into any) error {
	decoder := json.NewDecoder(r)
	decoder.DisallowUnknownFields()
	decoder.UseNumber()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the JSON object")
	}
	return nil
}
