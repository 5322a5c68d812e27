//go:build !linux

package stack

import "syscall"

// ownGroup keeps the terminal's Ctrl-C from the child. Only Linux can tie the
// child's life to ours.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true}
}
