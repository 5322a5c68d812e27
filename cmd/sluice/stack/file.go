package stack

import (
	"os"
	"path/filepath"
)

// replace writes a file whole and readable by its owner alone: whoever reads it
// at that moment, another stack or a waiting test, gets the old or the new one.
func replace(name string, content []byte) error {
	temporary, err := os.CreateTemp(filepath.Dir(name), ".new-") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name()) // fails once renamed, as it should
	_, err = temporary.Write(content)
	if closeErr := temporary.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(temporary.Name(), name)
}
