package authsvc

import (
	"bytes"
	"sync"
)

// lockedBuffer lets a test read the log while requests write it.
type lockedBuffer struct {
	mu     sync.Mutex // protects buffer
	buffer bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.String()
}
