package admin

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"
)

// postKeysRotate is POST /v1/keys/rotate.
func (i *Interface) postKeysRotate(c echo.Context) error {
	i.target(c, "keys")
	if err := i.Keys.Rotate(time.Now()); err != nil {
		return err
	}
	type schedule struct {
		ID        string    `json:"kid"`
		Algorithm string    `json:"alg"`
		Activates time.Time `json:"activates"`
		Retires   time.Time `json:"retires,omitzero"`
	}
	var keys []schedule
	for _, key := range i.Keys.Living() {
		keys = append(keys, schedule{key.KeyID, key.Algorithm, key.Activates, key.Retires})
	}
	return c.JSON(http.StatusOK, map[string]any{"keys": keys})
}
