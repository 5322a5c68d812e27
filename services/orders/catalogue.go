package orders

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/services/internal/web"
)

const (
	catalogueTimeout = 2 * time.Second
	maxProduct       = 16 << 10 // bytes of the product service's answer
	maxPrice         = 1 << 40  // cents; keeps fifty items of a thousand pieces far from overflow
)

// catalogue asks the product service for prices, in the caller's name and under
// the caller's request id, so that one search of the logs finds both sides.
type catalogue struct {
	base   string
	client *http.Client
}

func newCatalogue(base string) (*catalogue, error) {
	at, err := url.Parse(base)
	if err != nil || at.Host == "" || (at.Scheme != "http" && at.Scheme != "https") {
		return nil, fmt.Errorf("the product service's address %q is no URL such as http://products:8000", base)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 32, IdleConnTimeout: time.Minute}
	return &catalogue{
		base:   strings.TrimRight(base, "/"),
		client: &http.Client{Timeout: catalogueTimeout, Transport: transport},
	}, nil
}

func (c *catalogue) close() { c.client.CloseIdleConnections() }

// prices looks every product up and names all the unknown ones at once.
func (c *catalogue) prices(ctx context.Context, userID, requestID string, items []item) (map[string]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, catalogueTimeout)
	defer cancel()
	known := make(map[string]int64, len(items))
	var wrong []web.FieldError
	for i, line := range items {
		if _, seen := known[line.ProductID]; !seen {
			price, found, err := c.price(ctx, userID, requestID, line.ProductID)
			if err != nil {
				return nil, web.Unavailable("the catalogue cannot be read at the moment", err)
			}
			if !found {
				wrong = append(wrong, web.FieldError{Field: fmt.Sprintf("items[%d].product_id", i), Detail: "is not in the catalogue"})
				continue
			}
			known[line.ProductID] = price
		}
	}
	if wrong != nil {
		return nil, &web.Problem{Status: http.StatusBadRequest, Detail: "the body has errors", Fields: wrong}
	}
	return known, nil
}

func (c *catalogue) price(ctx context.Context, userID, requestID, productID string) (cents int64, found bool, err error) {
	// PathEscape leaves dots alone, and "." or ".." would name another resource.
	if strings.Trim(productID, ".") == "" {
		return 0, false, nil
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/v1/products/"+url.PathEscape(productID), nil)
	if err != nil {
		return 0, false, err
	}
	request.Header.Set(web.UserHeader, userID)
	if requestID != "" {
		request.Header.Set(echo.HeaderXRequestID, requestID)
	}
	response, err := c.client.Do(request)
	if err != nil {
		return 0, false, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxProduct))
	switch {
	case err != nil:
		return 0, false, err
	case response.StatusCode == http.StatusNotFound:
		return 0, false, nil
	case response.StatusCode != http.StatusOK:
		return 0, false, fmt.Errorf("the product service answered %s", response.Status)
	}
	var product struct {
		ID    string `json:"id"`
		Price *int64 `json:"price_cents"`
	}
	if err := json.Unmarshal(answer, &product); err != nil {
		return 0, false, err
	}
	if product.ID != productID || product.Price == nil || *product.Price < 0 || *product.Price > maxPrice {
		return 0, false, fmt.Errorf("the product service answered with something that is not product %q", productID)
	}
	return *product.Price, true, nil
}
