package proxy

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A sequence is what one side of a WebSocket sends: frames, legal ones and others,
// since the tunnel judges none. ends are where each of them ends.
type sequence struct {
	data []byte
	ends map[int]bool
}

// anySequence has messages in fragments, control frames between them, empty
// frames, lengths in 7, 16 and 64 bits (also in more than they need), reserved
// bits and opcodes, and masks of either side.
func anySequence(r *rand.Rand, frames int) sequence {
	s := sequence{ends: map[int]bool{0: true}}
	noise := rand.NewChaCha8([32]byte{byte(r.Uint32()), byte(r.Uint32())})
	for range frames {
		first := byte(r.IntN(256))
		if first&0x0f == 8 {
			first++ // a close frame is looked for
		}
		size := []int{0, r.IntN(126), 125 + r.IntN(3), r.IntN(5000), 1<<16 - 2 + r.IntN(4), r.IntN(100_000)}[min(r.IntN(8), r.IntN(8), 5)]
		if r.IntN(3) == 0 { // as browsers send them
			first = []byte{0x81, 0x82, 0x01, 0x00, 0x80, 0x89, 0x8a, 0xc1, 0xc2, 0x41}[r.IntN(10)]
		}
		if first&0x08 != 0 {
			size = min(size, maxControl) // of which larger ones do not pass
		}
		var mask byte
		if r.IntN(2) == 0 {
			mask = 0x80
		}
		wide := r.IntN(20)
		switch {
		case size >= 1<<16 || wide == 0:
			s.data = binary.BigEndian.AppendUint64(append(s.data, first, mask|127), uint64(size))
		case size >= 126 || wide == 1:
			s.data = binary.BigEndian.AppendUint16(append(s.data, first, mask|126), uint16(size))
		default:
			s.data = append(s.data, first, mask|byte(size))
		}
		if mask != 0 {
			s.data = binary.BigEndian.AppendUint32(s.data, r.Uint32())
		}
		payload := make([]byte, size)
		noise.Read(payload)
		s.data = append(s.data, payload...)
		s.ends[len(s.data)] = true
	}
	return s
}

// cuts are pieces of any size, and not too many of them.
func cuts(r *rand.Rand, data []byte) (pieces [][]byte) {
	most := []int{4, 300, 1 << 15}[r.IntN(3)]
	for len(data) > 0 {
		n := min(len(data), 1+r.IntN(most)+r.IntN(1+len(data)/100))
		pieces, data = append(pieces, data[:n]), data[n:]
	}
	return pieces
}

// wantSame says where two differ; whole they are too long to read.
func wantSame(t *testing.T, where string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		t.Fatalf("%s: %d bytes of %d, and from %d on they differ", where, len(got), len(want), at)
	}
}

// TestTunnelIntegrity: what one side of a WebSocket sends is what the other gets,
// byte for byte, both ways at once, and each side may end first and still listen.
func TestTunnelIntegrity(t *testing.T) {
	type side struct {
		pieces [][]byte
		second bool // ends when the other has
	}
	sides, heard := make(chan side, 1), make(chan []byte, 1)
	// talk says it all, and gives what the other said.
	talk := func(conn net.Conn, r io.Reader, s side) []byte {
		said, ended := make(chan bool), make(chan bool)
		go func() {
			defer close(said)
			for _, p := range s.pieces {
				conn.Write(p)
			}
			if s.second {
				<-ended
			}
			conn.(*net.TCPConn).CloseWrite()
		}()
		got, err := io.ReadAll(r)
		if err != nil {
			t.Error(err)
		}
		close(ended)
		<-said
		return got
	}
	g, _ := streamGate(t, socketApp(t, func(w *wire) { heard <- talk(w.conn, w.r, <-sides) }))
	for seed := range uint64(400) {
		r := rand.New(rand.NewPCG(seed, 11))
		up, down := anySequence(r, 1+r.IntN(20)), anySequence(r, 1+r.IntN(20))
		callerFirst := seed%2 == 0
		w := g.openWire()
		sides <- side{cuts(r, down.data), callerFirst}
		got := talk(w.conn, w.r, side{cuts(r, up.data), !callerFirst})
		w.conn.Close()
		wantSame(t, "the app's", <-heard, up.data)
		wantSame(t, "the caller's", got, down.data)
		if o := g.outcome().Outcome; o.Error != "" || o.Truncated || o.BytesIn != int64(len(up.data)) || o.BytesOut != int64(len(down.data)) {
			t.Fatalf("%d: %+v", seed, o)
		}
	}
	g.noStreams()
}

// TestTunnelEndsBetweenFrames: wherever in what both sides send a tunnel is ended,
// the caller has whole frames, then one close frame, and nothing behind it. So has
// the app, unless the caller was in the middle of a frame: then it hears no more.
func TestTunnelEndsBetweenFrames(t *testing.T) {
	within := 0 // ends in the middle of what the app sends
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 12))
			up, down := anySequence(r, 30), anySequence(r, 30)
			upPieces, downPieces := cuts(r, up.data), cuts(r, down.data)
			pauses := []*rand.Rand{rand.New(rand.NewPCG(seed, 13)), rand.New(rand.NewPCG(seed, 14))}
			say := func(conn net.Conn, pieces [][]byte, r *rand.Rand) {
				for _, p := range pieces {
					if _, err := conn.Write(p); err != nil {
						return
					}
					if r.IntN(4) == 0 {
						time.Sleep(time.Duration(r.IntN(4)) * time.Millisecond)
					}
				}
			}
			var running sync.WaitGroup
			defer running.Wait()
			heard := make(chan []byte, 1)
			a := &turncoat{}
			g, _ := inProcessGate(t, func(w http.ResponseWriter, r *http.Request) {
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
				running.Go(func() { say(conn, downPieces, pauses[0]) })
				all, _ := io.ReadAll(conn)
				heard <- all
			}, func(o *Options) { o.Authenticator = a })
			g.proxy.lookEvery = 3 * time.Millisecond
			w := g.openWire()
			running.Go(func() { say(w.conn, upPieces, pauses[1]) })
			running.Go(func() {
				time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond)
				a.turn(nil, errRevoked)
			})
			got, err := io.ReadAll(w.r)
			w.conn.Close()
			end := closeFrame(tokenEnded(nil), nil)
			whole, closed := bytes.CutSuffix(got, end)
			if err != nil || !closed || !down.ends[len(whole)] {
				t.Fatalf("%d: the caller has %d bytes, %v; closed: %t", seed, len(got), err, closed)
			}
			wantSame(t, "the caller's", whole, down.data[:len(whole)])
			if len(whole) < len(down.data) {
				within++
			}
			got = <-heard
			whole, closed = bytes.CutSuffix(got, closeFrame(tokenEnded(nil), new([4]byte)))
			if len(whole) > len(up.data) || closed != up.ends[len(whole)] {
				t.Fatalf("%d: the app has %d bytes, %d of the caller's; closed: %t", seed, len(got), len(whole), closed)
			}
			wantSame(t, "the app's", whole, up.data[:len(whole)])
			if o := g.outcome().Outcome; o.Error != "token_ended" || !o.Truncated {
				t.Errorf("%d: %+v", seed, o)
			}
			g.noStreams()
		})
	}
	t.Logf("%d ended in the middle of what the app sends", within)
	if within < 100 {
		t.Errorf("only %d ended in the middle: the test shows little", within)
	}
}
