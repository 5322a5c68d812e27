package stack

import (
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"

	"github.com/sluice-gateway/sluice/authsvc"
	"github.com/sluice-gateway/sluice/authsvc/config"
)

// openIdentity starts authsvc in this process. Its signing keys, and with them
// the tokens that it issues, outlive the run; so do the operator's and the
// issuer's token, which lie beside the keys and are told in the ready file.
func (s *Stack) openIdentity(ctx context.Context) error {
	options := config.New()
	options.Listen, options.AdminListen = anyLoopback, anyLoopback
	options.Own.KeyDir = s.keyDir()
	options.Redis.Addresses = []string{s.ready.Redis}
	options.Redis.Username = s.getenv("SLUICE_REDIS_USERNAME")
	options.Redis.Password = s.getenv("SLUICE_REDIS_PASSWORD")
	options.Redis.KeyPrefix = s.getenv("SLUICE_KEY_PREFIX")
	options.Redis.TLS.Enabled, _ = strconv.ParseBool(s.getenv("SLUICE_REDIS_TLS"))

	service := &authsvc.Service{Config: options, Log: s.log.With("service", "authsvc")}
	if err := service.Open(ctx); err != nil {
		return fmt.Errorf("authsvc, whose keys are in %s (--dataDir names another folder): %w", options.Own.KeyDir, err)
	}
	s.onClose(service.Close)
	s.ready.AuthSvc, s.ready.Admin = url("http", service.PublicAddr().String()), url("http", service.AdminAddr().String())
	s.ready.AdminToken, s.ready.IssuerToken = service.AdminToken(), service.IssuerToken()
	s.env = append(s.env, "SLUICE_AUTHSVC="+s.ready.AuthSvc)
	return await(ctx, "authsvc", nil, answers(s.ready.AuthSvc+"/readyz", http.StatusOK))
}

func (s *Stack) keyDir() string { return filepath.Join(s.options.DataDir, "keys") }
