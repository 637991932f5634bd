//go:build unix

package transport

import "syscall"

// peek looks what there is to be read, and leaves it.
func (c *ownConn) peek(fd uintptr) {
	for {
		_, _, err := syscall.Recvfrom(int(fd), c.peeked[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		if err != syscall.EINTR {
			c.silent = err == syscall.EAGAIN || err == syscall.EWOULDBLOCK
			return
		}
	}
}
