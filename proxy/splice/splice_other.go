//go:build !linux

package splice

import (
	"io"
	"net"
	"syscall"
)

// A Pipe is never had here.
type Pipe struct{}

// Get gives nil: there is no Pipe to be had.
func Get() *Pipe { return nil }

// Put gives it back.
func (*Pipe) Put() {}

// Buffer is what to read into.
func (*Pipe) Buffer() []byte { return nil }

// Taken is how much of it is in the Pipe.
func (*Pipe) Taken() int { return 0 }

// Held is how much is to be written.
func (*Pipe) Held() int { return 0 }

// Read gives what is held.
func (*Pipe) Read([]byte) (int, error) { return 0, io.EOF }

// Pour writes some of what is held.
func (*Pipe) Pour(syscall.RawConn) (int, error) { return 0, io.EOF }

// Conn is the connection itself.
func Conn(c net.Conn) net.Conn { return c }
