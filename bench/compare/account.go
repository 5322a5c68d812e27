package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// tick is the unit of /proc/PID/stat: Linux tells user space of hundredths of a
// second on every architecture.
const tick = 10 * time.Millisecond

// cpuOf is the processor time that processes have used, from /proc/PID/stat,
// which counts the threads that have ended too. A run of seconds makes the
// hundredth that is lost less than half a percent.
func cpuOf(pids ...int) (time.Duration, error) {
	total := time.Duration(0)
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		// The second field is the command in parentheses and may hold spaces.
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		for _, at := range []int{11, 12} { // utime and stime, fields 14 and 15
			n, err := strconv.ParseInt(fields[at], 10, 64)
			if err != nil {
				return 0, err
			}
			total += time.Duration(n) * tick
		}
	}
	return total, nil
}

// residentOf is how many bytes of memory processes hold, from /proc/PID/statm.
func residentOf(pids ...int) (float64, error) {
	pages := 0
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
		if err != nil {
			return 0, err
		}
		n, err := strconv.Atoi(strings.Fields(string(text))[1])
		if err != nil {
			return 0, err
		}
		pages += n
	}
	return float64(pages * os.Getpagesize()), nil
}

// childrenOf are the processes that a process has started.
func childrenOf(pid int) []int {
	var all []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // that thread has ended
		}
		for _, field := range strings.Fields(string(text)) {
			if child, err := strconv.Atoi(field); err == nil {
				all = append(all, child)
			}
		}
	}
	return all
}

// commands is what Redis has run. Redis counts what a script runs like what a
// client sends, so the scripts stand apart: on the way of a hot request nothing
// but a script is ever sent.
type commands struct{ scripts, all int64 }

func redisCommands(ctx context.Context, client *redis.Client) (commands, error) {
	text, err := client.Info(ctx, "commandstats").Result()
	if err != nil {
		return commands{}, err
	}
	var c commands
	for stat := range strings.Lines(text) {
		name, values, ok := strings.Cut(strings.TrimPrefix(stat, "cmdstat_"), ":calls=")
		if !ok || name == "info" { // info is ours
			continue
		}
		calls, _, _ := strings.Cut(values, ",")
		n, err := strconv.ParseInt(calls, 10, 64)
		if err != nil {
			return commands{}, fmt.Errorf("INFO commandstats: %q", stat)
		}
		c.all += n
		if strings.HasPrefix(name, "eval") {
			c.scripts += n
		}
	}
	return c, nil
}

// mallocs is how many objects a Traefik has allocated, from its runtime metrics.
func mallocs(ctx context.Context, metrics string) (float64, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, metrics, nil)
	if err != nil {
		return 0, err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, err
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		if text, ok := strings.CutPrefix(lines.Text(), "go_memstats_mallocs_total "); ok {
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, fmt.Errorf("%s has no go_memstats_mallocs_total", metrics)
}
