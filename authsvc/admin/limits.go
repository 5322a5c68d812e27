package admin

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"github.com/sluice-gateway/sluice/authsvc/refusal"
	"github.com/sluice-gateway/sluice/authsvc/store"
)

// getLimit is GET /v1/limits/:name/:key.
func (i *Interface) getLimit(c echo.Context) error {
	limits, key, err := i.limit(c)
	if err != nil {
		return err
	}
	usage, err := i.usage(c.Request().Context(), limits[0], key)
	if err != nil {
		return refuseKey(err)
	}
	return c.JSON(http.StatusOK, usage)
}

// deleteLimit is DELETE /v1/limits/:name/:key. One name may have several
// windows in several middlewares; all of them are reset. Where nothing was
// counted the answer is 404.
func (i *Interface) deleteLimit(c echo.Context) error {
	limits, key, err := i.limit(c)
	if err != nil {
		return err
	}
	var used int64
	for _, limit := range limits {
		usage, err := i.Store.Usage(c.Request().Context(), limit, key)
		if err == nil {
			err = i.Store.Reset(c.Request().Context(), limit, key)
		}
		if err != nil {
			return refuseKey(err)
		}
		used += usage.Used
	}
	if used == 0 {
		outcome(c, "nothing was counted")
		return &refusal.Refusal{Status: http.StatusNotFound, Detail: i.nothingCounted(key)}
	}
	return c.NoContent(http.StatusNoContent)
}

// nothingCounted says what a key may have been meant for. The key itself may be
// a secret (of a limit by header), and refusals are logged.
func (i *Interface) nothingCounted(key string) string {
	text := "Nothing was counted for this key."
	if prefixes := i.Judge.Prefixes(); strings.HasPrefix(key, "user:") && len(prefixes) > 0 {
		text += fmt.Sprintf(" Users are called as services see them; prefixes: %s.", strings.Join(prefixes, ", "))
	}
	return text
}

func refuseKey(err error) error {
	if errors.Is(err, store.ErrBadKey) {
		return refusal.InvalidRequest("key: "+err.Error()+".", nil)
	}
	return err
}

// limit finds what living gateways mean by a limit's name.
func (i *Interface) limit(c echo.Context) ([]store.Limit, string, error) {
	name, err := pathParam(c, "name")
	if err != nil {
		return nil, "", err
	}
	key, err := pathParam(c, "key")
	if err != nil {
		return nil, "", err
	}
	i.target(c, "limit "+name+" "+i.loggableKey(key))
	gateways, err := i.Store.Gateways(c.Request().Context())
	if err != nil {
		return nil, "", err
	}
	var names []string
	var limits []store.Limit
	for _, limit := range distinct(gateways) {
		names = append(names, limit.Name)
		if limit.Name == name {
			limits = append(limits, limit)
		}
	}
	if len(limits) == 0 {
		slices.Sort(names)
		detail := fmt.Sprintf("No living gateway has a limit of this name; limits: %s.", strings.Join(slices.Compact(names), ", "))
		if len(gateways) == 0 {
			detail = fmt.Sprintf("No gateway is alive in redis below redis.keyPrefix %q; limits are known by the gateways' heartbeats.", i.Config.Redis.KeyPrefix)
		}
		return nil, "", &refusal.Refusal{Status: http.StatusNotFound, Detail: detail}
	}
	return limits, key, nil
}

// distinct are the limits of the living gateways, each name and window once.
func distinct(gateways []store.Gateway) (all []store.Limit) {
	for _, gateway := range gateways {
		if gateway.Stale {
			continue
		}
		for _, limit := range gateway.Limits {
			known := slices.ContainsFunc(all, func(l store.Limit) bool { return l.Name == limit.Name && l.WindowMS == limit.WindowMS })
			if limit.WindowMS > 0 && !known {
				all = append(all, limit)
			}
		}
	}
	return all
}

// getGateways is GET /v1/gateways: the heartbeats as the gateways wrote them, with
// when that was. One that has been silent since is stale: stopped, or refused by
// Redis, and then it decides alone.
func (i *Interface) getGateways(c echo.Context) error {
	i.target(c, "gateways")
	gateways, err := i.Store.Gateways(c.Request().Context())
	if err != nil {
		return err
	}
	beats := make([]map[string]json.RawMessage, len(gateways))
	for i, gateway := range gateways {
		if err := json.Unmarshal(gateway.Raw, &beats[i]); err != nil {
			return err
		}
		beats[i]["stale"] = strconv.AppendBool(nil, gateway.Stale)
		beats[i]["last_seen"] = strconv.AppendInt(nil, gateway.LastSeen, 10) // unix ms
	}
	return c.JSON(http.StatusOK, map[string]any{"gateways": beats})
}
