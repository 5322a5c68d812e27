package main

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sluice-gateway/sluice/authsvc"
	"github.com/sluice-gateway/sluice/authsvc/config"
	"github.com/sluice-gateway/sluice/internal/redistest"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"authsvc": main}) }

// TestScripts runs the command as a shell does. A service is there, which it finds
// as beside the service's container: by the variables of its configuration. redis
// sends a command to its Redis; $MINUTE is the index of the minute that runs.
func TestScripts(t *testing.T) {
	redis := redistest.Start(t)
	c := config.New()
	c.Listen, c.AdminListen, c.Own.KeyDir = "127.0.0.1:0", "127.0.0.1:0", t.TempDir()
	c.Redis.Addresses, c.Redis.Timeout = []string{redis.Addr}, 2*time.Second
	service := &authsvc.Service{Config: c}
	if err := service.Open(context.Background()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := service.Close(); err != nil {
			t.Error(err)
		}
	})
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Vars = append(e.Vars, "AUTHSVC_ADMINLISTEN="+service.AdminAddr().String(), "AUTHSVC_OWN_KEYDIR="+c.Own.KeyDir,
				"MINUTE="+strconv.FormatInt(time.Now().Unix()/60, 10))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"redis": func(_ *testscript.TestScript, _ bool, words []string) { redis.Do(words...) },
		},
	})
}
