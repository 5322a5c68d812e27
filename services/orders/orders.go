// Package orders is the service that keeps what people order.
//
// A new order is checked field by field, priced from the product service and
// kept under the caller's id; nobody else is ever told that it exists. A client
// that lost the answer may send the order again under the same Idempotency-Key
// and gets the first answer instead of a second order.
package orders

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/services/internal/web"
)

const (
	maxItems    = 50      // of one order
	maxQuantity = 1000    // of one item
	maxOrders   = 100_000 // memory is bounded; a new order is then 503
)

// Config is what the service has to be told.
type Config struct {
	Listen   string       // host:port; port 0 takes a free one
	Listener net.Listener // a ready one wins over Listen
	Products string       // base URL of the product service
	Log      *slog.Logger // nil: slog's default
}

// Service is a running order service.
type Service struct {
	*web.Server
	catalogue *catalogue
	repeats   *repeats

	mu     sync.RWMutex // protects orders
	orders map[string]order
}

// order is one order as its owner sees it.
type order struct {
	ID        string    `json:"id"`
	UserID    string    `json:"user_id"`
	Items     []item    `json:"items"`
	Total     int64     `json:"total_cents"`
	CreatedAt time.Time `json:"created_at"`
}

// item is one line of an order, at the price of the day.
type item struct {
	ProductID string `json:"product_id"`
	Quantity  int64  `json:"quantity"`
	Price     int64  `json:"price_cents"`
}

// Open starts the service; Close ends it.
func Open(ctx context.Context, cfg Config) (*Service, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	catalogue, err := newCatalogue(cfg.Products)
	if err != nil {
		return nil, fmt.Errorf("orders: %w", err)
	}
	s := &Service{catalogue: catalogue, repeats: newRepeats(time.Now), orders: map[string]order{}}
	if s.Server, err = web.Open(ctx, cfg.Listen, cfg.Listener, cfg.Log.With("service", "orders"), s.routes); err != nil {
		return nil, fmt.Errorf("orders: %w", err)
	}
	return s, nil
}

// Close ends the service and gives back its connections to the product service.
func (s *Service) Close() error {
	err := s.Server.Close()
	s.catalogue.close()
	return err
}

func (s *Service) routes(e *echo.Echo) {
	e.POST("/v1/orders", s.create, web.Protect)
	web.Get(e, "/v1/orders/:id", s.show, web.Protect)
}

func (s *Service) create(c echo.Context) error {
	key, err := idempotencyKey(c.Request().Header)
	if err != nil {
		return err
	}
	body, err := web.ReadObject(c)
	if err != nil {
		return err
	}
	place := func(ctx context.Context) (order, error) { return s.place(ctx, web.UserID(c), requestID(c), body) }
	made, replayed, err := s.repeats.once(c.Request().Context(), web.UserID(c), key, body.Raw, place)
	if err != nil {
		return err
	}
	if replayed {
		c.Response().Header().Set("Idempotency-Replayed", "true")
	}
	c.Response().Header().Set(echo.HeaderLocation, "/v1/orders/"+made.ID)
	return c.JSON(http.StatusCreated, made)
}

// place checks, prices and keeps one order.
func (s *Service) place(ctx context.Context, userID, requestID string, body *web.Object) (order, error) {
	var items []item
	body.Objects("items", 1, maxItems, func(line *web.Object) {
		items = append(items, item{
			ProductID: line.String("product_id", 1, 64),
			Quantity:  line.Integer("quantity", 1, maxQuantity),
		})
	})
	if err := body.Err(); err != nil {
		return order{}, err
	}
	made := order{ID: uuid.NewString(), UserID: userID, Items: items, CreatedAt: time.Now().UTC()}
	prices, err := s.catalogue.prices(ctx, userID, requestID, items)
	if err != nil {
		return order{}, err
	}
	for i := range made.Items {
		line := &made.Items[i]
		line.Price = prices[line.ProductID]
		made.Total += line.Price * line.Quantity
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.orders) >= maxOrders {
		return order{}, web.Unavailable("no room for another order", nil)
	}
	s.orders[made.ID] = made
	return made, nil
}

// show answers another user's order and an unknown one alike.
func (s *Service) show(c echo.Context) error {
	s.mu.RLock()
	found, ok := s.orders[c.Param("id")]
	s.mu.RUnlock()
	if !ok || found.UserID != web.UserID(c) {
		return web.Refuse(http.StatusNotFound, "there is no such order")
	}
	return c.JSON(http.StatusOK, found)
}

func requestID(c echo.Context) string { return c.Request().Header.Get(echo.HeaderXRequestID) }
