package main

import (
	"net"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) { testscript.Main(m, map[string]func(){"sluice": main}) }

// TestScripts runs the command as a shell does. $REPO is the repository, $BIN
// the folder that holds sluice alone, $BUSY an address where something listens.
func TestScripts(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = busy.Close() })
	repository, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	sluice, err := exec.LookPath("sluice")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{Dir: "testdata/script", Setup: func(e *testscript.Env) error {
		e.Setenv("REPO", repository)
		e.Setenv("BIN", filepath.Dir(sluice))
		e.Setenv("BUSY", busy.Addr().String())
		return nil
	}})
}
