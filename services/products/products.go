// Package products is the catalogue: a short list that never changes, read page
// by page or one by one.
package products

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/services/internal/web"
)

// Config is what the service has to be told.
type Config struct {
	Listen   string       // host:port; port 0 takes a free one
	Listener net.Listener // a ready one wins over Listen
	Log      *slog.Logger // nil: slog's default
}

// Service is a running product service.
type Service struct{ *web.Server }

// Open starts the service; Close ends it.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	server, err := web.Open(ctx, cfg.Listen, cfg.Listener, cfg.Log.With("service", "products"), routes)
	if err != nil {
		return nil, fmt.Errorf("products: %w", err)
	}
	return &Service{server}, nil
}

func routes(e *echo.Echo) {
	web.Get(e, "/v1/products", list, web.Protect)
	web.Get(e, "/v1/products/:id", show, web.Protect)
}

// product is one entry of the catalogue.
type product struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Price int64  `json:"price_cents"`
}

// page is a stretch of the catalogue. Next leads to the one after it.
type page struct {
	Items []product `json:"items"`
	Next  *string   `json:"next"` // null: this is the last
}

const (
	defaultPage = 10
	maxPage     = 100
)

func list(c echo.Context) error {
	var wrong []web.FieldError
	size := defaultPage
	if given := c.QueryParam("limit"); given != "" {
		var err error
		if size, err = strconv.Atoi(given); err != nil || size < 1 || size > maxPage {
			wrong = append(wrong, web.FieldError{Field: "limit", Detail: fmt.Sprintf("must be a whole number from 1 to %d", maxPage)})
		}
	}
	after, err := parseCursor(c.QueryParam("cursor"))
	if err != nil {
		wrong = append(wrong, web.FieldError{Field: "cursor", Detail: err.Error()})
	}
	if wrong != nil {
		return &web.Problem{Status: http.StatusBadRequest, Detail: "the query has errors", Fields: wrong}
	}
	return c.JSON(http.StatusOK, pageAfter(after, size))
}

func show(c echo.Context) error {
	at, found := slices.BinarySearchFunc(catalogue, c.Param("id"), byID)
	if !found {
		return web.Refuse(http.StatusNotFound, "there is no such product")
	}
	return c.JSON(http.StatusOK, catalogue[at])
}

func byID(p product, id string) int { return strings.Compare(p.ID, id) }

// pageAfter lists what comes after an id. A cursor names the last id seen and
// not a position, so that it stays right when the catalogue grows before it.
func pageAfter(id string, size int) page {
	start, found := slices.BinarySearchFunc(catalogue, id, byID)
	if found {
		start++
	}
	end := min(start+size, len(catalogue))
	shown := page{Items: catalogue[start:end]}
	if end < len(catalogue) {
		next := cursor(catalogue[end-1].ID)
		shown.Next = &next
	}
	return shown
}

// A cursor is opaque to clients; the prefix leaves room for another form.
const cursorForm = "after:"

func cursor(id string) string { return base64.RawURLEncoding.EncodeToString([]byte(cursorForm + id)) }

func parseCursor(given string) (after string, err error) {
	if given == "" {
		return "", nil
	}
	decoded, err := base64.RawURLEncoding.Strict().DecodeString(given)
	id, ours := strings.CutPrefix(string(decoded), cursorForm)
	if err != nil || !ours || given != cursor(id) { // Go's decoder skips line breaks
		return "", fmt.Errorf("must be the next of an earlier page")
	}
	return id, nil
}
