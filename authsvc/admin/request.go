package admin

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/internal/strictjson"
	"github.com/sluice-gateway/sluice/authsvc/refusal"
)

// readJSON reads a body that must be one JSON object of known members.
func readJSON(c echo.Context, into any) error {
	if kind, _, _ := mime.ParseMediaType(c.Request().Header.Get("Content-Type")); kind != "application/json" {
		return &refusal.Refusal{Status: http.StatusUnsupportedMediaType, Detail: "Send application/json."}
	}
	return refuseBody(strictjson.Decode(c.Request().Body, into))
}

func refuseBody(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLarge):
		return &refusal.Refusal{Status: http.StatusRequestEntityTooLarge, Detail: "The body is too large.", Cause: err}
	}
	return refusal.InvalidRequest("The body is not the JSON object or form that this takes.", err)
}

// readFields reads text members of a JSON object, or of a form as the OAuth
// RFCs have it. Per RFC 6749 section 3.2 a member that comes twice is refused,
// and unknown ones (client_id, token_type_hint) are ignored.
func readFields(c echo.Context) (map[string]string, error) {
	request, fields := c.Request(), make(map[string]string)
	if kind, _, _ := mime.ParseMediaType(request.Header.Get("Content-Type")); kind == "application/json" {
		if err := readJSON(c, &fields); err != nil {
			return nil, err
		}
	} else {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return nil, refuseBody(err)
		}
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, refuseBody(err)
		}
		for name, values := range form {
			if len(values) != 1 {
				return nil, refusal.InvalidRequest(fmt.Sprintf("%q is there more than once.", name), nil)
			}
			fields[name] = values[0]
		}
	}
	return fields, nil
}

// pathParam undoes percent-encoding exactly once: Echo matches on the raw path
// where there is one, and on the decoded path else.
func pathParam(c echo.Context, name string) (string, error) {
	value := c.Param(name)
	if c.Request().URL.RawPath == "" {
		return value, nil
	}
	text, err := url.PathUnescape(value)
	if err != nil {
		return "", refusal.InvalidRequest("The path is not percent-encoded well.", err)
	}
	return text, nil
}
