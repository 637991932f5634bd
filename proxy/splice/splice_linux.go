package splice

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Pipe holds what was read for it until it is written. One goroutine at a time
// may use it.
type Pipe struct {
	in, out int
	room    []byte
	held    int   // bytes in the kernel
	taken   int   // of the last read
	broken  error // it cannot be used again
}

// rooms are the Pipes' buffers. Next to nothing is ever written there, and what is
// not written takes no memory.
var rooms [maxPipes][pipeSize]byte

var pipes = struct {
	sync.Mutex
	idle   []*Pipe
	vacant []*[pipeSize]byte // rooms of no Pipe
	begun  bool
	at     sync.Map // from a room's first byte to its Pipe
}{}

// Get gives a Pipe, or nil where there is none to be had. Put must be called when
// it is not needed any more.
func Get() *Pipe {
	pipes.Lock()
	defer pipes.Unlock()
	if !pipes.begun {
		pipes.begun = true
		for i := range rooms {
			pipes.vacant = append(pipes.vacant, &rooms[i])
		}
	}
	if n := len(pipes.idle); n > 0 {
		p := pipes.idle[n-1]
		pipes.idle = pipes.idle[:n-1]
		return p
	}
	n := len(pipes.vacant)
	if n == 0 {
		return nil
	}
	p := open(pipes.vacant[n-1][:])
	if p != nil {
		pipes.vacant = pipes.vacant[:n-1]
		pipes.at.Store(&p.room[0], p)
	}
	return p
}

// open gives nil where the system gives no pipe of some size: it makes them of a
// page once a user has many, and then copying is cheaper.
func open(room []byte) *Pipe {
	var ends [2]int
	if unix.Pipe2(ends[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return nil
	}
	p := &Pipe{out: ends[0], in: ends[1], room: room}
	size, err := unix.FcntlInt(uintptr(p.in), unix.F_SETPIPE_SZ, pipeSize)
	if err != nil {
		size, err = unix.FcntlInt(uintptr(p.in), unix.F_GETPIPE_SZ, 0)
	}
	if err != nil || size < MinRead {
		p.close()
		return nil
	}
	return p
}

func (p *Pipe) close() {
	_ = unix.Close(p.in)
	_ = unix.Close(p.out)
}

// Put gives it back. What it still holds is lost.
func (p *Pipe) Put() {
	pipes.Lock()
	defer pipes.Unlock()
	p.taken = 0
	if p.held == 0 && p.broken == nil {
		pipes.idle = append(pipes.idle, p)
		return
	}
	pipes.at.Delete(&p.room[0])
	pipes.vacant = append(pipes.vacant, (*[pipeSize]byte)(p.room))
	p.close()
}

// Buffer is what to read into, from its beginning.
func (p *Pipe) Buffer() []byte { return p.room }

// Taken is how much of what the last read into Buffer gave is in the Pipe: all of
// it, or nothing, and then it is in the buffer.
func (p *Pipe) Taken() (n int) {
	n, p.taken = p.taken, 0
	return n
}

// Held is how much is to be written.
func (p *Pipe) Held() int { return p.held }

// Read gives what is held, for who cannot have it within the kernel.
func (p *Pipe) Read(b []byte) (int, error) {
	if p.held == 0 {
		return 0, io.EOF
	}
	n, err := unix.Read(p.out, b[:min(len(b), p.held)])
	if err != nil || n <= 0 {
		p.broken = os.NewSyscallError("read", err)
		return 0, io.ErrUnexpectedEOF
	}
	p.held -= n
	return n, nil
}

// Pour writes some of what is held, as soon as the connection takes any. The
// connection's write deadline counts.
func (p *Pipe) Pour(to syscall.RawConn) (n int, err error) {
	failed := to.Write(func(fd uintptr) bool {
		n, err = move(p.out, int(fd), p.held)
		return err != unix.EAGAIN
	})
	if failed != nil {
		return 0, failed
	}
	switch {
	case err != nil:
		return 0, os.NewSyscallError("splice", err)
	case n == 0:
		return 0, io.ErrShortWrite // the kernel says nothing of why; who asked again could do so for ever
	}
	p.held -= n
	return n, nil
}

// fill reads what is there, as soon as there is any, up to most.
func (p *Pipe) fill(from syscall.RawConn, most int) (n int, err error) {
	if p.held > 0 {
		return 0, errNotEmpty // a full pipe says the same as a connection on which nothing came
	}
	failed := from.Read(func(fd uintptr) bool {
		n, err = move(int(fd), p.in, most)
		return err != unix.EAGAIN
	})
	switch {
	case failed != nil:
		return 0, failed
	case err != nil:
		return 0, os.NewSyscallError("splice", err)
	case n == 0:
		return 0, io.EOF
	}
	p.held, p.taken = n, n
	return n, nil
}

func move(from, to, most int) (int, error) {
	for {
		n, err := unix.Splice(from, nil, to, nil, most, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		if err != unix.EINTR {
			return max(int(n), 0), err
		}
	}
}

// Conn lets a connection fill Pipes, if it can.
func Conn(c net.Conn) net.Conn {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return c
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return c
	}
	return &conn{tcp, raw}
}

type conn struct {
	*net.TCPConn
	raw syscall.RawConn
}

func (c *conn) Read(b []byte) (int, error) {
	if len(b) < MinRead {
		return c.TCPConn.Read(b)
	}
	if p, ok := pipes.at.Load(&b[0]); ok {
		return p.(*Pipe).fill(c.raw, len(b))
	}
	return c.TCPConn.Read(b)
}
