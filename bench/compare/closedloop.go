package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

//go:embed drive.lua
var driver []byte

// connections that every run keeps busy, on one thread of wrk: of several the
// first would send while the next still reads the requests, and wrk counts those
// answers but not that time. One thread answers three times what bare Traefik does.
const connections = 64

// outcome is what wrk counted in one run.
type outcome struct {
	Requests int64 `json:"requests"`
	Micros   int64 `json:"micros"`
	Refused  int64 `json:"refused"` // status of 400 and above
	Broken   int64 `json:"broken"`  // socket errors
	Late     int64 `json:"late"`    // no answer for 2 s
	Wrapped  int64 `json:"wrapped"` // the file's requests were sent more than once

	cpu time.Duration // of wrk itself
}

func (o outcome) rate() float64 { return float64(o.Requests) / (float64(o.Micros) / 1e6) }

// drive keeps connections busy for so many seconds.
func drive(ctx context.Context, dir, url, path string, lines []line, seconds int) (outcome, error) {
	file, script := filepath.Join(dir, "requests"), filepath.Join(dir, "drive.lua")
	if err := writeLines(file, lines); err != nil {
		return outcome{}, err
	}
	if err := os.WriteFile(script, driver, 0o600); err != nil {
		return outcome{}, err
	}
	command := exec.CommandContext(ctx, "wrk", "-t", "1", "-c", strconv.Itoa(connections), "-d", strconv.Itoa(seconds)+"s",
		"-s", script, url, "--", path, file)
	output, err := command.CombinedOutput()
	if err != nil {
		return outcome{}, fmt.Errorf("wrk (on Debian: apt-get install wrk): %w\n%s", err, output)
	}
	_, said, ok := bytes.Cut(output, []byte("\nJSON "))
	var o outcome
	if !ok || json.Unmarshal(bytes.TrimSpace(said), &o) != nil {
		return outcome{}, fmt.Errorf("wrk said %q", output)
	}
	o.cpu = command.ProcessState.UserTime() + command.ProcessState.SystemTime()
	return o, nil
}
