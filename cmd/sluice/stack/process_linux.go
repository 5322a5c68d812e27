package stack

import "syscall"

// ownGroup keeps the terminal's Ctrl-C from the child, and has the kernel kill
// the child when this process dies without closing.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
