//go:build unix

package transport

import (
	"os"
	"syscall"
)

// speak is send's step: called first when what comes from now on ends the wait,
// and then when something has come. False: wait.
func (c *ownConn) speak(fd uintptr) bool {
	if c.said.all {
		return true
	}
	if c.peek(fd); !c.silent {
		return true
	}
	for {
		n, err := syscall.Write(int(fd), c.head)
		switch {
		case err == syscall.EINTR:
			continue
		case err == nil:
			c.said.n, c.said.all = n, n == len(c.head)
		case err != syscall.EAGAIN && err != syscall.EWOULDBLOCK: // else there is no room, and send writes the rest
			c.said.err = os.NewSyscallError("write", err)
		}
		return !c.said.all
	}
}
