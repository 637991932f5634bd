package proxy

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A tunnel is the caller's connection after a WebSocket handshake. What passes
// is not changed; frames are followed, so that the gateway can say goodbye
// between two of them, and bound the caller's messages. Its two directions run
// on goroutines of their own.
type tunnel struct {
	net.Conn
	early   []byte // what was read already
	in, out atomic.Int64
	asks    wsFrames         // what the caller sends; its reader's own
	tooMuch func(*streamEnd) // told when the caller sends what may not pass

	ending atomic.Pointer[streamEnd]
	// discards says that Close takes what still comes: what Read gets then has a
	// hole before it, and is nobody's.
	discards atomic.Bool

	mu      sync.Mutex // of writing
	answers wsFrames   // what the app sends
	said    bool       // the close frame is written: nothing may follow it
}

// farewell bounds how long the end of a tunnel waits: for a frame to end, for a
// side that does not read, and for the caller's own close frame.
const farewell = time.Second

var errTunnelEnded = errors.New("the tunnel is ended")

func (t *tunnel) Read(p []byte) (int, error) {
	var n int
	var err error
	if len(t.early) > 0 {
		n = copy(p, t.early)
		t.early = t.early[n:]
	} else {
		n, err = t.Conn.Read(p)
	}
	if t.discards.Load() {
		return 0, errTunnelEnded
	}
	t.in.Add(int64(n))
	if end := t.asks.follow(p[:n]); end != nil {
		t.tooMuch(end)
		return 0, errTunnelEnded
	}
	return n, err
}

func (t *tunnel) Write(p []byte) (n int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(p) > 0 {
		if end := t.ending.Load(); end != nil && t.answers.between() {
			t.say(end)
			return n, errTunnelEnded
		}
		part := p
		if t.ending.Load() != nil { // up to the end of this frame
			part = p[:t.answers.rest(p)]
		}
		wrote, err := t.Conn.Write(part)
		t.out.Add(int64(wrote))
		t.answers.follow(part[:wrote])
		n, p = n+wrote, p[wrote:]
		if err != nil {
			return n, err
		}
	}
	if end := t.ending.Load(); end != nil && t.answers.between() {
		t.say(end)
		return n, errTunnelEnded
	}
	return n, nil
}

// end says goodbye, now or when the frame that is being written ends, and then
// calls cut. It returns at once.
func (t *tunnel) end(end *streamEnd, cut func()) {
	if !t.ending.CompareAndSwap(nil, end) {
		return
	}
	// A caller who does not read holds up nobody, and neither does one who stays.
	_ = t.Conn.SetWriteDeadline(time.Now().Add(farewell))
	_ = t.Conn.SetReadDeadline(time.Now().Add(2 * farewell))
	go func() {
		t.mu.Lock()
		if t.answers.between() {
			t.say(end)
		}
		said := t.said
		t.mu.Unlock()
		if !said {
			time.AfterFunc(farewell, cut) // unless Write says it first, which ends the tunnel, too
			return
		}
		cut()
	}()
}

// say writes the close frame. The lock is held.
func (t *tunnel) say(end *streamEnd) {
	if t.said {
		return
	}
	t.said = true
	_, _ = t.Conn.Write(closeFrame(end, nil)) // who is gone needs none
}

// Close ends the connection. After a close frame the caller's own is waited for:
// what it sent meanwhile would make of the end a reset, which can overtake the
// frame.
func (t *tunnel) Close() error {
	if end := t.ending.Load(); end != nil {
		_ = t.Conn.SetDeadline(time.Now().Add(farewell))
		t.mu.Lock()
		if t.answers.between() {
			t.say(end)
		}
		said := t.said
		t.said = true
		t.mu.Unlock()
		if said {
			_ = t.CloseWrite()
			t.discards.Store(true)
			_, _ = io.CopyN(io.Discard, t.Conn, discardBytes)
		}
	}
	return t.Conn.Close()
}

// CloseWrite ends one direction of the tunnel.
func (t *tunnel) CloseWrite() error { return closeWrite(t.Conn) }

func closeWrite(c io.Closer) error {
	if cw, ok := c.(interface{ CloseWrite() error }); ok {
		if err := cw.CloseWrite(); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
	}
	return c.Close()
}

// An appTunnel is the app's side of one.
type appTunnel struct {
	io.ReadWriteCloser
	why  func() *streamEnd // of the tunnel's end; nil: the gateway did not end it
	once sync.Once

	mu   sync.Mutex
	asks wsFrames // what the caller sent it
	said bool
}

func (t *appTunnel) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.said {
		return 0, errTunnelEnded
	}
	n, err := t.ReadWriteCloser.Write(p)
	t.asks.follow(p[:n])
	return n, err
}

// CloseWrite tells the app first where the gateway ended the tunnel: a caller who
// was told can hang up before Close comes.
func (t *appTunnel) CloseWrite() error {
	t.tell()
	return closeWrite(t.ReadWriteCloser)
}

// Close tells the app, too, where the gateway ended it.
func (t *appTunnel) Close() error {
	t.tell()
	return t.ReadWriteCloser.Close()
}

func (t *appTunnel) tell() {
	if end := t.why(); end != nil {
		t.once.Do(func() { t.bid(end) })
	}
}

func (t *appTunnel) bid(end *streamEnd) {
	told := make(chan struct{})
	go func() { // an app that does not read keeps it until the connection is closed
		defer close(told)
		t.mu.Lock()
		defer t.mu.Unlock()
		if !t.said && t.asks.between() {
			_, _ = t.ReadWriteCloser.Write(closeFrame(end, new([4]byte)))
		}
		t.said = true
	}()
	wait := time.NewTimer(farewell)
	defer wait.Stop()
	select {
	case <-told:
	case <-wait.C:
	}
}
