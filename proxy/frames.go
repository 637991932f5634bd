package proxy

import "encoding/binary"

// closeFrame is RFC 6455, section 5.5.1. Frames to a server are masked; the
// mask keeps scripts from choosing the bytes on the wire, and these are none's.
func closeFrame(end *streamEnd, mask *[4]byte) []byte {
	payload := binary.BigEndian.AppendUint16(nil, end.close)
	payload = append(payload, end.text...)
	frame := []byte{0x88, byte(len(payload))}
	if mask != nil {
		frame[1] |= 0x80
		frame = append(frame, mask[:]...)
	}
	return append(frame, payload...)
}

// wsFrames follows the frames of one direction (RFC 6455, section 5.2).
type wsFrames struct {
	max     int64  // bytes of a message, of all its frames; 0: no bound of anything
	control uint64 // the payload of the largest control frame
	head    [14]byte
	have    int
	left    uint64 // of the frame's payload
	message uint64 // of the message so far
}

// between reports whether no frame has begun.
func (f *wsFrames) between() bool { return f.have == 0 && f.left == 0 }

// maxControl is the largest payload of a control frame (RFC 6455, section 5.5).
const maxControl = 125

// follow looks at the next bytes. It gives why they may not pass, if so: a
// message, or a control frame, is too large.
func (f *wsFrames) follow(p []byte) *streamEnd {
	for len(p) > 0 {
		n := f.step(p)
		p = p[n:]
		switch {
		case f.max <= 0:
		case f.message > uint64(f.max):
			return endTooLarge
		case f.control > maxControl:
			return endBroken
		}
	}
	return nil
}

// rest is how many of these bytes belong to the frame that has begun.
func (f *wsFrames) rest(p []byte) int {
	ahead := *f
	n := 0
	for n < len(p) {
		n += ahead.step(p[n:])
		if ahead.between() {
			break
		}
	}
	return n
}

// step goes on by at least one byte, and never beyond a frame's end.
func (f *wsFrames) step(p []byte) int {
	if f.left > 0 {
		n := min(f.left, uint64(len(p)))
		f.left -= n
		return int(n)
	}
	n := copy(f.head[f.have:f.need()], p)
	f.have += n
	if f.have == f.need() {
		f.begin()
	}
	return n
}

// need is how long the header is, as far as that is known.
func (f *wsFrames) need() int {
	if f.have < 2 {
		return 2
	}
	need := 2
	switch f.head[1] & 0x7f {
	case 126:
		need += 2
	case 127:
		need += 8
	}
	if f.head[1]&0x80 != 0 {
		need += 4
	}
	return need
}

// begin reads a header that is whole.
func (f *wsFrames) begin() {
	f.have = 0
	switch n := f.head[1] & 0x7f; n {
	case 126:
		f.left = uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		f.left = binary.BigEndian.Uint64(f.head[2:])
	default:
		f.left = uint64(n)
	}
	switch opcode := f.head[0] & 0x0f; {
	case opcode >= 8: // control frames come between those of a message
		f.control = max(f.control, f.left)
	case opcode == 0:
		f.message += min(f.left, 1<<62)
	default:
		f.message = f.left
	}
}
