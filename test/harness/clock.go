package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ShiftedClock writes to dir what the go command's -overlay takes, and returns
// that file's name: a binary built with it has a wall clock that is off by as
// many seconds as the environment variable says, and the same monotonic clock.
//
// Go reads the clock without libc, so no preloaded library can lie to it, and
// the kernel's time namespaces have no wall clock of their own.
func ShiftedClock(dir, variable string) (overlay string, err error) {
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	original := filepath.Join(strings.TrimSpace(string(root)), "src", "time", "time.go")
	source, err := os.ReadFile(original)
	if err != nil {
		return "", err
	}
	const reads = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), reads) != 1 {
		return "", fmt.Errorf("%s reads the clock in a way that is not known here", original)
	}
	text := strings.Replace(string(source), reads, reads+"\tsec += clockShift\n", 1) + `
var clockShift = readClockShift()

func readClockShift() (seconds int64) {
	text, _ := syscall.Getenv("` + variable + `")
	sign := int64(1)
	for _, c := range []byte(text) {
		if c == '-' {
			sign = -1
		} else {
			seconds = 10*seconds + int64(c-'0')
		}
	}
	return sign * seconds
}
`
	text = strings.Replace(text, "import (", "import (\n\t\"syscall\"", 1)
	shifted := filepath.Join(dir, "time.go")
	list, err := json.Marshal(map[string]any{"Replace": map[string]string{original: shifted}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, errors.Join(os.WriteFile(shifted, []byte(text), 0o600), os.WriteFile(overlay, list, 0o600))
}
