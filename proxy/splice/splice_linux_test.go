package splice

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// linked gives both ends of a TCP connection.
func linked(t *testing.T) (near, far *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	other, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(); other.Close() })
	return conn.(*net.TCPConn), other.(*net.TCPConn)
}

func get(t *testing.T) *Pipe {
	t.Helper()
	p := Get()
	if p == nil {
		t.Fatal("there is no pipe")
	}
	t.Cleanup(p.Put)
	return p
}

// pourAll writes what is held.
func pourAll(t *testing.T, p *Pipe, to *net.TCPConn) {
	t.Helper()
	raw, err := to.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for p.Held() > 0 {
		if _, err := p.Pour(raw); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEveryByteInOrder: whatever is read by a Pipe, or not, is written once and in
// order, and the buffer has nothing of what the Pipe has.
func TestEveryByteInOrder(t *testing.T) {
	spliced := 0
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		data := make([]byte, 1<<19+r.IntN(1<<20))
		rand.NewChaCha8([32]byte{byte(seed)}).Read(data)
		app, from := linked(t)
		to, caller := linked(t)
		go func() {
			for left := data; len(left) > 0; {
				n := min(len(left), 1+r.IntN(300<<10))
				app.Write(left[:n])
				left = left[n:]
			}
			app.Close()
		}()
		got := make(chan []byte)
		go func() {
			all, _ := io.ReadAll(caller)
			got <- all
		}()
		source, p := Conn(from), get(t)
		choose := rand.New(rand.NewPCG(seed, 2))
		small, blank := make([]byte, MinRead), make([]byte, pipeSize)
		for {
			buf := p.Buffer()[:MinRead+choose.IntN(pipeSize-MinRead+1)]
			switch choose.IntN(4) {
			case 0:
				buf = small
			case 1:
				buf = p.Buffer()[:MinRead-1]
			case 2:
				buf = p.Buffer()[1:]
			default:
				clear(buf)
			}
			n, err := source.Read(buf)
			if err == io.EOF && n == 0 {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if taken := p.Taken(); taken == 0 {
				if _, err := to.Write(buf[:n]); err != nil {
					t.Fatal(err)
				}
			} else {
				if taken != n || !bytes.Equal(buf, blank[:len(buf)]) || &buf[0] != &p.Buffer()[0] {
					t.Fatalf("%d bytes of %d are in the pipe", taken, n)
				}
				spliced += n
				pourAll(t, p, to)
			}
		}
		to.Close()
		if !bytes.Equal(<-got, data) {
			t.Fatalf("%d: other bytes came", seed)
		}
	}
	if spliced == 0 {
		t.Error("nothing went by a pipe")
	}
}

// TestDeadlines: those of the connections count as ever.
func TestDeadlines(t *testing.T) {
	app, from := linked(t)
	to, caller := linked(t)
	p, source := get(t), Conn(from)
	source.SetReadDeadline(time.Now())
	if n, err := source.Read(p.Buffer()); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(n, err)
	}
	source.SetReadDeadline(time.Time{})
	caller.SetReadBuffer(4096)
	raw, err := to.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	go func() { // who reads nothing, until nothing can be written any more
		for {
			if _, err := app.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}()
	to.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for {
		if _, err := source.Read(p.Buffer()); err != nil || p.Taken() == 0 {
			t.Fatal(err)
		}
		for p.Held() > 0 && err == nil {
			_, err = p.Pour(raw)
		}
		if err != nil {
			break
		}
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) || p.Held() == 0 {
		t.Fatal(err)
	}
}

// TestBroken: connections that are gone are errors, and no end.
func TestBroken(t *testing.T) {
	app, from := linked(t)
	p := get(t)
	app.SetLinger(0)
	app.Close()
	if n, err := Conn(from).Read(p.Buffer()); n != 0 || !errors.Is(err, unix.ECONNRESET) {
		t.Error(n, err)
	}
	from.Close()
	if n, err := Conn(from).Read(p.Buffer()); n != 0 || err == nil || err == io.EOF {
		t.Error(n, err)
	}
	app, from = linked(t)
	to, _ := linked(t)
	raw, err := to.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	app.Write([]byte("lost"))
	if n, err := Conn(from).Read(p.Buffer()); n != 4 || err != nil {
		t.Fatal(n, err)
	}
	if n, err := Conn(from).Read(p.Buffer()); n != 0 || err != errNotEmpty {
		t.Error("a pipe was filled that was not empty:", n, err)
	}
	to.Close()
	if n, err := p.Pour(raw); n != 0 || !errors.Is(err, net.ErrClosed) {
		t.Error(n, err)
	}
}

// TestNothingIsLeft: what one user of a Pipe left there the next does not get, and
// there are so many and no more.
func TestNothingIsLeft(t *testing.T) {
	app, from := linked(t)
	app.Write([]byte("secret"))
	left := Get()
	if n, err := Conn(from).Read(left.Buffer()); n != 6 || err != nil {
		t.Fatal(n, err)
	}
	part := make([]byte, 2)
	if n, err := left.Read(part); n != 2 || string(part) != "se" {
		t.Fatal(n, err)
	}
	room := &left.Buffer()[0]
	left.Put()
	var all []*Pipe
	seen := false
	for p := Get(); p != nil; p = Get() {
		all = append(all, p)
		var poll = []unix.PollFd{{Fd: int32(p.out), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 0); n != 0 || err != nil || p.Held() != 0 || p.Taken() != 0 {
			t.Error("something is in a new pipe", n, err)
		}
		seen = seen || &p.Buffer()[0] == room
	}
	if len(all) != maxPipes || !seen {
		t.Errorf("%d pipes; the one that was given back is among them: %t", len(all), seen)
	}
	for _, p := range all {
		p.Put()
	}
	if p := Get(); p == nil {
		t.Error("none came back")
	} else {
		p.Put()
	}
}
