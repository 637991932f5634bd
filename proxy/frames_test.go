package proxy

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// splitFrames is the oracle: it has all bytes at once, and gives where frames
// end and how large messages get.
func splitFrames(p []byte) (ends []int, largest, control uint64) {
	var message uint64
	for at := 0; ; {
		rest := p[at:]
		if len(rest) < 2 {
			return ends, largest, control
		}
		size, head := uint64(rest[1]&0x7f), 2
		switch {
		case size == 126 && len(rest) >= 4:
			size, head = uint64(binary.BigEndian.Uint16(rest[2:])), 4
		case size == 127 && len(rest) >= 10:
			size, head = binary.BigEndian.Uint64(rest[2:]), 10
		case size >= 126:
			return ends, largest, control
		}
		if rest[1]&0x80 != 0 {
			head += 4
		}
		if len(rest) < head {
			return ends, largest, control
		}
		if op := rest[0] & 15; op == 0 {
			message += min(size, 1<<62)
		} else if op < 8 {
			message = size
		} else {
			control = max(control, size)
		}
		largest = max(largest, message)
		if uint64(len(rest)-head) < size {
			return ends, largest, control
		}
		at += head + int(size)
		ends = append(ends, at)
	}
}

// FuzzFrames: however the bytes are cut, frames end where they end, and only a
// message that is too large is told.
func FuzzFrames(f *testing.F) {
	f.Add(frame(0x81, true, []byte("hello")), 3, 100)
	f.Add(append(frame(0x01, false, make([]byte, 300)), frame(0x80, false, make([]byte, 1000))...), 100, 1200)
	f.Add([]byte{0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255, 1}, 1, 1)
	f.Add([]byte{0x82, 126, 0, 0, 0x89, 0, 0x80, 0x80, 1, 2, 3, 4}, 2, 1)
	f.Fuzz(func(t *testing.T, p []byte, piece, limit int) {
		if piece < 1 || limit < 1 || len(p) > 4<<10 {
			return
		}
		ends, largest, control := splitFrames(p)
		var free, bounded wsFrames
		bounded.max = int64(limit)
		fine := true
		for at := 0; at < len(p); at += min(piece, len(p)-at) {
			part := p[at:min(len(p), at+piece)]
			// Up to the end of a frame, and no further.
			want := len(part)
			for _, end := range ends {
				if end > at && end-at <= len(part) {
					want = end - at
					break
				}
			}
			if got := free.rest(part); got != want {
				t.Fatalf("at %d of %x: a frame ends after %d, want %d", at, p, got, want)
			}
			free.follow(part)
			fine = fine && bounded.follow(part) == nil
			between := at+len(part) == 0
			for _, end := range ends {
				between = between || end == at+len(part)
			}
			if free.between() != between {
				t.Fatalf("after %d of %x: between is %v", at+len(part), p, free.between())
			}
		}
		if fine != (largest <= uint64(limit) && control <= 125) {
			t.Fatalf("the largest message has %d bytes, %d may be: %v", largest, limit, fine)
		}
	})
}

// FuzzGRPCMessages: however the bytes are cut, a message that is too large is
// found, and no other.
func FuzzGRPCMessages(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 3, 1, 2, 3, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0}, 2, 10)
	f.Add([]byte{0, 255, 255, 255, 255}, 1, 1<<20)
	f.Fuzz(func(t *testing.T, p []byte, piece, limit int) {
		if piece < 1 || limit < 1 || len(p) > 4<<10 {
			return
		}
		want := true
		for rest := p; len(rest) >= 5; {
			size := uint64(binary.BigEndian.Uint32(rest[1:]))
			if size > uint64(limit) {
				want = false
				break
			}
			rest = rest[5+min(size, uint64(len(rest)-5)):]
		}
		m := grpcMessages{max: int64(limit)}
		got := true
		for rest := p; len(rest) > 0 && got; {
			n := min(piece, len(rest))
			got = m.pass(rest[:n])
			rest = rest[n:]
		}
		if got != want {
			t.Fatalf("%x in pieces of %d, at most %d: %v", p, piece, limit, got)
		}
	})
}

// TestCloseFrames reads them back.
func TestCloseFrames(t *testing.T) {
	for _, end := range []*streamEnd{tokenEnded(nil), tokenUnknown(nil), endStopping, endTooLarge} {
		for _, mask := range []*[4]byte{nil, new([4]byte)} {
			f := closeFrame(end, mask)
			if ends, _, _ := splitFrames(f); len(ends) != 1 || ends[0] != len(f) || f[0] != 0x88 || len(end.text) > 123 || !bytes.HasSuffix(f, []byte(end.text)) {
				t.Errorf("%x", f)
			}
		}
	}
}
