package transport

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

var errNoHTTP = errors.New("the upstream's answer is no HTTP/1.1")

// readHead reads the head of an answer, up to its empty line. It looks for lines
// and not for what usually ends a head, since one may end in line feeds alone,
// and whoever waited for more would wait in vain.
func (c *ownConn) readHead() (string, error) {
	var line, end int
	for {
		buf, _ := c.in.Peek(c.in.Buffered())
		for end < len(buf) {
			n := bytes.IndexByte(buf[end:], '\n')
			if n < 0 {
				end = len(buf)
				break
			}
			end += n + 1
			if isEmptyLine(buf[line:end]) {
				head := string(buf[:end])
				_, err := c.in.Discard(end)
				return head, err
			}
			line = end
		}
		if !beginsLikeHTTP(buf) {
			return "", errNoHTTP
		}
		if len(buf) == c.in.Size() {
			return c.readLongHead()
		}
		if _, err := c.in.Peek(len(buf) + 1); err != nil {
			return "", unexpected(err)
		}
	}
}

// readLongHead reads one that the buffer does not hold.
func (c *ownConn) readLongHead() (string, error) {
	var head []byte
	for line := 0; ; {
		part, err := c.in.ReadSlice('\n')
		head = append(head, part...)
		switch {
		case err == bufio.ErrBufferFull:
		case err != nil:
			return "", unexpected(err)
		case isEmptyLine(head[line:]):
			return string(head), nil
		default:
			line = len(head)
		}
	}
}

// beginsLikeHTTP: of what is something else nobody waits for the end.
func beginsLikeHTTP(b []byte) bool {
	const first = "HTTP/"
	n := min(len(b), len(first))
	return string(b[:n]) == first[:n]
}

func isEmptyLine(line []byte) bool {
	return len(line) == 1 || len(line) == 2 && line[0] == '\r'
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parseHead takes the head of an answer apart, where it is as apps write it and
// RFC 9112 wants it. What is odd in any way it leaves to net/http (false), which
// knows what may be made of it: two opinions on where an answer ends would be
// the beginning of an attack. Of the request it asks for the method only.
func parseHead(head, method string, res *http.Response) (ok bool) {
	line, rest, found := strings.Cut(head, "\r\n")
	if !found || !parseStatus(line, res) {
		return false
	}
	lines := strings.Count(rest, "\r\n") - 1
	if lines < 0 {
		return false
	}
	res.Header = make(http.Header, min(lines, 64))
	values := make([]string, 0, lines)
	for {
		if line, rest, found = strings.Cut(rest, "\r\n"); !found {
			return false
		}
		if line == "" {
			return rest == "" && parseFraming(method, res)
		}
		name, value, ok := parseField(line)
		if !ok {
			return false
		}
		if have := res.Header[name]; have != nil {
			res.Header[name] = append(have, value)
			continue
		}
		values = append(values, value)
		n := len(values)
		res.Header[name] = values[n-1 : n : n] // so that an append goes elsewhere
	}
}

func parseStatus(line string, res *http.Response) bool {
	const digits = len("HTTP/1.1 ")
	if len(line) < digits+3 || line[:len("HTTP/1.")] != "HTTP/1." || line[digits-1] != ' ' {
		return false
	}
	minor := line[len("HTTP/1.")]
	if minor != '0' && minor != '1' || len(line) > digits+3 && line[digits+3] != ' ' {
		return false
	}
	for _, c := range []byte(line[digits : digits+3]) {
		if c < '0' || c > '9' {
			return false
		}
		res.StatusCode = 10*res.StatusCode + int(c-'0')
	}
	res.Proto, res.ProtoMajor, res.ProtoMinor = line[:digits-1], 1, int(minor-'0')
	res.Status = line[digits:]
	return res.StatusCode >= 100 && httpguts.ValidHeaderFieldValue(res.Status) // a line feed alone ends a line, too
}

// parseField takes one line apart. What continues it on the next is odd.
func parseField(line string) (name, value string, ok bool) {
	name, value, ok = strings.Cut(line, ":")
	if !ok || !httpguts.ValidHeaderFieldName(name) {
		return "", "", false
	}
	value = trimBlanks(value)
	return textproto.CanonicalMIMEHeaderKey(name), value, httpguts.ValidHeaderFieldValue(value)
}

// trimBlanks takes away what RFC 9110, section 5.6.3, has around a value, and
// nothing else: what ends a line otherwise is not to vanish unseen.
func trimBlanks(s string) string {
	for s != "" && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for s != "" && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}

// parseFraming finds where the answer ends: RFC 9112, section 6.3. It says so in
// the answer as net/http does.
func parseFraming(method string, res *http.Response) bool {
	h := res.Header
	if len(h["Pragma"]) > 0 && h["Pragma"][0] == "no-cache" && h["Cache-Control"] == nil {
		h["Cache-Control"] = []string{"no-cache"} // RFC 7234, section 5.4
	}
	res.Close = closes(res)
	coding, length := h["Transfer-Encoding"], h["Content-Length"]
	bodiless := res.StatusCode < 200 || res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusNotModified
	res.ContentLength = -1
	switch {
	case len(length) > 1 || len(coding) > 1 || len(coding) > 0 && len(length) > 0:
		return false
	case len(coding) > 0:
		if bodiless || res.ProtoMinor == 0 || !strings.EqualFold(coding[0], "chunked") {
			return false
		}
		delete(h, "Transfer-Encoding")
		res.TransferEncoding = []string{"chunked"}
		return announced(res)
	case len(length) > 0:
		n, err := strconv.ParseUint(length[0], 10, 63)
		if err != nil || n > 0 && bodiless && res.StatusCode != http.StatusNotModified {
			return false
		}
		res.ContentLength = int64(n)
	}
	switch {
	case bodiless && method != http.MethodHead:
		res.ContentLength = 0
	case res.ContentLength < 0 && !bodiless && method != http.MethodHead:
		res.Close = true
	}
	return true
}

// closes: RFC 9112, section 9.3. By what was said of it the header says no more
// of it, as net/http has it.
func closes(res *http.Response) bool {
	connection := res.Header["Connection"]
	if len(connection) == 0 {
		return res.ProtoMinor == 0
	}
	said := httpguts.HeaderValuesContainsToken(connection, "close")
	if res.ProtoMinor == 0 {
		return said || !httpguts.HeaderValuesContainsToken(connection, "keep-alive")
	}
	if said {
		delete(res.Header, "Connection")
	}
	return said
}

// announced are the trailers of an answer in chunks.
func announced(res *http.Response) bool {
	names := res.Header["Trailer"]
	if len(names) == 0 {
		return true
	}
	delete(res.Header, "Trailer")
	for _, list := range names {
		for name := range strings.SplitSeq(list, ",") {
			if name = textproto.TrimString(name); name == "" {
				continue
			}
			switch name = textproto.CanonicalMIMEHeaderKey(name); name {
			case "Transfer-Encoding", "Trailer", "Content-Length":
				return false
			}
			if res.Trailer == nil {
				res.Trailer = http.Header{}
			}
			res.Trailer[name] = nil
		}
	}
	return true
}
