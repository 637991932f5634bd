package proxy

import "bytes"

// A framer follows where requests and their bodies begin and end in the bytes
// of one direction of a connection, exactly as net/http does (trailers are
// read more strictly: their names are tokens, their lines end in CRLF), and takes what
// net/http refuses for broken. What it does not judge (targets, values, sizes)
// is net/http's to refuse: it has no influence on where a request ends. The
// zero value stands at the start of a connection.
type framer struct {
	at      place
	ended   bool // a request has, and nothing has come since but blank lines
	preface int  // how many bytes of HTTP/2's preface have come; notHTTP2: others
	blanks  int  // CRs and LFs that net/http still skips before a request

	// Of the line at hand.
	size  int     // bytes of it so far
	begin [5]byte // of a request line
	end   [9]byte // of a request line: its last bytes, at the right
	name  [len("transfer-encoding") + 1]byte
	stage int  // within a value that counts, or a chunk's line
	cr    bool // the last byte was one

	// Of the request at hand.
	post, old, upgrade     bool
	first, trailer         bool // of a block of header lines
	hasLength, hasEncoding bool
	unclear                bool  // net/http refuses it at its header's end
	length                 int64 // Content-Length
	field                  field // that the line at hand, or continues
	left                   uint64
}

// A place is what is expected next.
type place uint8

const (
	atRequest     place = iota // a request line's first byte
	atRequestLine              // more of it
	atLine                     // a header line's first byte, or the blank line
	atBlank                    // the LF of a blank line
	atName
	atValue
	atBody
	atChunk // a chunk's line
	atChunkData
	atChunkCR
	atChunkLF
)

// A field is a header that counts here.
type field uint8

const (
	fieldOther field = iota
	fieldLength
	fieldEncoding
)

const (
	http2Preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	notHTTP2     = -1
	// maxBlanks and maxChunkLine are net/http's.
	maxBlanks    = 4
	maxChunkLine = 4096
)

// follow goes on through b. It gives how many bytes of it were followed, and
// what those behind them are: strictHTTP when that was all.
func (f *framer) follow(b []byte) (int, strictMode) {
	i := 0
	if f.preface != notHTTP2 {
		for i < len(b) && f.preface < len(http2Preface) && b[i] == http2Preface[f.preface] {
			i++
			f.preface++
		}
		switch {
		case f.preface == len(http2Preface):
			return len(b), strictOpen
		case i == len(b):
			return i, strictHTTP
		}
		seen := []byte(http2Preface[:f.preface])
		f.preface = notHTTP2
		for len(seen) > 0 {
			n, next := f.step(seen)
			if next != strictHTTP {
				return i, strictBroken
			}
			seen = seen[n:]
		}
	}
	for i < len(b) {
		n, next := f.step(b[i:])
		i += n
		if next != strictHTTP {
			return i, next
		}
	}
	return i, strictHTTP
}

// between reports whether a request has ended and the next has not begun.
func (f *framer) between() bool { return f.ended && f.at == atRequest }

// step follows some of b, which is not empty. What is broken is not followed.
func (f *framer) step(b []byte) (int, strictMode) {
	switch f.at {
	case atRequest:
		if (b[0] == '\r' || b[0] == '\n') && f.blanks > 0 {
			f.blanks--
			return 1, strictHTTP
		}
		*f = framer{at: atRequestLine, preface: notHTTP2}
		return 0, strictHTTP
	case atRequestLine:
		return f.requestLine(b)
	case atLine:
		return f.line(b[0])
	case atBlank:
		if b[0] != '\n' {
			return 0, strictBroken
		}
		return f.blockEnds()
	case atName:
		return f.fieldName(b)
	case atValue:
		return f.fieldValue(b)
	case atBody, atChunkData:
		n := int(min(f.left, uint64(len(b))))
		if f.left -= uint64(n); f.left > 0 {
			return n, strictHTTP
		}
		if f.at == atBody {
			return n, f.requestEnds()
		}
		f.at = atChunkCR
		return n, strictHTTP
	case atChunk:
		return f.chunkLine(b)
	case atChunkCR:
		return f.expect(b[0], '\r', atChunkLF)
	case atChunkLF:
		f.size, f.stage = 0, 0
		return f.expect(b[0], '\n', atChunk)
	}
	return 0, strictBroken
}

func (f *framer) expect(got, want byte, then place) (int, strictMode) {
	if got != want {
		return 0, strictBroken
	}
	f.at = then
	return 1, strictHTTP
}

// requestLine keeps the line's begin and end: the method, which decides what
// is skipped before the next request, and the version.
func (f *framer) requestLine(b []byte) (int, strictMode) {
	end := bytes.IndexByte(b, '\n')
	part := b
	if end >= 0 {
		part = b[:end]
	}
	if f.size < len(f.begin) {
		copy(f.begin[f.size:], part)
	}
	f.size += min(len(part), len(f.begin)) // a bound, not a count
	f.size = min(f.size, len(f.begin))
	if keep := len(f.end) - len(part); keep > 0 {
		copy(f.end[:keep], f.end[len(part):])
		copy(f.end[keep:], part)
	} else {
		copy(f.end[:], part[-keep:])
	}
	if end < 0 {
		return len(b), strictHTTP
	}
	v := bytes.TrimSuffix(f.end[:], []byte{'\r'})
	v = v[len(v)-len("HTTP/1.1"):]
	if string(v[:5]) != "HTTP/" || !isDigit(v[5]) || v[6] != '.' || !isDigit(v[7]) {
		return end, strictBroken
	}
	f.old = v[5] < '1' || v[5] == '1' && v[7] == '0'
	f.post = string(f.begin[:]) == "POST "
	f.at, f.first = atLine, true
	return end + 1, strictHTTP
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// line looks at a header line's first byte. Lines end in LF or CRLF, and one
// that begins with a space continues the one before it. A trailer's end in
// CRLF alone: net/http looks for a CRLF CRLF behind a trailer with an LF, and
// would find it in the next request.
func (f *framer) line(c byte) (int, strictMode) {
	switch {
	case c == '\r':
		f.at = atBlank
		return 1, strictHTTP
	case c == '\n' && !f.trailer:
		return f.blockEnds()
	case c == ' ' || c == '\t':
		if f.first {
			return 0, strictBroken
		}
		f.at, f.cr = atValue, false
		return 1, strictHTTP
	}
	f.at, f.first, f.size = atName, false, 0
	return 0, strictHTTP
}

// fieldName follows a header's name to its colon.
func (f *framer) fieldName(b []byte) (int, strictMode) {
	for i, c := range b {
		if c == ':' {
			if f.size == 0 || f.named() {
				return i, strictBroken
			}
			f.at, f.stage, f.cr = atValue, 0, false
			return i + 1, strictHTTP
		}
		if !tokenByte[c] {
			return i, strictBroken
		}
		if f.size < len(f.name) {
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			f.name[f.size] = c
			f.size++
		}
	}
	return len(b), strictHTTP
}

// named takes note of the header at hand; it reports whether the request has
// two framings now.
func (f *framer) named() (conflict bool) {
	f.field = fieldOther
	if f.trailer {
		return false
	}
	switch string(f.name[:f.size]) {
	case "content-length":
		conflict = f.hasLength || f.hasEncoding
		f.field, f.hasLength, f.unclear = fieldLength, true, true
	case "transfer-encoding":
		conflict = f.hasLength || f.hasEncoding || f.old
		f.field, f.hasEncoding, f.unclear = fieldEncoding, true, true
	case "upgrade":
		f.upgrade = true
	}
	return conflict
}

// fieldValue follows a value to its line's end.
func (f *framer) fieldValue(b []byte) (int, strictMode) {
	end := bytes.IndexByte(b, '\n')
	part := b
	if end >= 0 {
		part = b[:end]
	}
	switch f.field {
	case fieldLength:
		f.readLength(part)
	case fieldEncoding:
		f.readEncoding(part)
	}
	if len(part) > 0 {
		f.cr = part[len(part)-1] == '\r'
	}
	if end < 0 {
		return len(b), strictHTTP
	}
	if f.trailer && !f.cr {
		return end, strictBroken
	}
	f.at = atLine
	return end + 1, strictHTTP
}

// Stages of a value that counts: space, the value (of an encoding: how many
// of its letters have come), space again, or what is refused.
const (
	valueAfter = 100
	valueBad   = 101
)

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' }

// readLength reads more of Content-Length. A length that is none, or beyond 63
// bits, stays unclear.
func (f *framer) readLength(part []byte) {
	for _, c := range part {
		switch {
		case f.stage == valueBad:
			return
		case isSpace(c):
			if f.stage == 1 {
				f.stage = valueAfter
			}
		case !isDigit(c) || f.stage == valueAfter || f.length > (1<<63-1-int64(c-'0'))/10:
			f.stage, f.unclear = valueBad, true
		default:
			f.stage, f.unclear = 1, false
			f.length = f.length*10 + int64(c-'0')
		}
	}
}

// readEncoding reads more of Transfer-Encoding. Any but chunked stays unclear.
func (f *framer) readEncoding(part []byte) {
	const chunked = "chunked"
	for _, c := range part {
		switch {
		case f.stage == valueBad:
			return
		case isSpace(c) && (f.stage == 0 || f.stage == valueAfter):
		case isSpace(c) && f.stage == len(chunked):
			f.stage = valueAfter
		case f.stage < len(chunked) && c|0x20 == chunked[f.stage]:
			f.stage++
			f.unclear = f.stage < len(chunked)
		default:
			f.stage, f.unclear = valueBad, true
		}
	}
}

// blockEnds follows the end of the header, or of the trailers.
func (f *framer) blockEnds() (int, strictMode) {
	switch {
	case f.trailer:
		return 1, f.requestEnds()
	case f.unclear:
		return 1, strictBroken
	case f.hasEncoding:
		f.at, f.size, f.stage = atChunk, 0, 0
	case f.length > 0:
		f.at, f.left = atBody, uint64(f.length)
	default:
		return 1, f.requestEnds()
	}
	return 1, strictHTTP
}

func (f *framer) requestEnds() strictMode {
	if f.upgrade {
		return strictUpgrade
	}
	f.at, f.blanks, f.ended = atRequest, 0, true
	if f.post {
		f.blanks = maxBlanks
	}
	return strictHTTP
}

// Stages of a chunk's line.
const (
	chunkDigits = iota
	chunkSpace
	chunkExtension
	chunkEnd // its LF
)

// chunkLine follows a chunk's size in up to 16 hexadecimal digits, space or an
// extension, and CRLF.
func (f *framer) chunkLine(b []byte) (int, strictMode) {
	for i, c := range b {
		if f.size++; f.size > maxChunkLine {
			return i, strictBroken
		}
		if f.size == 1 {
			f.left = 0
		}
		switch {
		case f.stage == chunkEnd:
			if c != '\n' {
				return i, strictBroken
			}
			f.at = atChunkData
			if f.left == 0 {
				f.at, f.trailer, f.first = atLine, true, true
			}
			return i + 1, strictHTTP
		case c == '\r' && f.size > 1:
			f.stage = chunkEnd
		case c == '\n':
			return i, strictBroken
		case f.stage == chunkExtension:
		case f.stage == chunkDigits && isHex(c) && f.size <= 16:
			f.left = f.left<<4 | uint64(unhex(c))
		case f.stage == chunkDigits && c == ';' && f.size > 1:
			f.stage = chunkExtension
		case (c == ' ' || c == '\t') && f.size > 1:
			f.stage = chunkSpace
		default:
			return i, strictBroken
		}
	}
	return len(b), strictHTTP
}

// tokenByte holds what a header's name may hold (RFC 9110, section 5.6.2).
var tokenByte = func() (t [256]bool) {
	for c := range t {
		b := byte(c)
		t[c] = b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || isDigit(b) || bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), b) >= 0
	}
	return t
}()
