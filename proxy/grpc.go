package proxy

import (
	"encoding/binary"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Status codes of gRPC (grpc.github.io/grpc/core/md_doc_statuscodes.html).
const (
	grpcUnknown           = 2
	grpcDeadlineExceeded  = 4
	grpcPermissionDenied  = 7
	grpcResourceExhausted = 8
	grpcUnimplemented     = 12
	grpcInternal          = 13
	grpcUnavailable       = 14
	grpcUnauthenticated   = 16
)

// grpcStatus is a refusal's status as gRPC has it: the protocol's own mapping
// from HTTP (doc/http-grpc-status-mapping.md), but that of 429, which says that
// a budget is used up, 413 likewise, and 500 and 504, which have codes of their
// own there.
func grpcStatus(status int) int {
	switch status {
	case http.StatusBadRequest, http.StatusInternalServerError:
		return grpcInternal
	case http.StatusUnauthorized:
		return grpcUnauthenticated
	case http.StatusForbidden:
		return grpcPermissionDenied
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return grpcUnimplemented
	case http.StatusTooManyRequests, http.StatusRequestEntityTooLarge:
		return grpcResourceExhausted
	case http.StatusGatewayTimeout:
		return grpcDeadlineExceeded
	case http.StatusServiceUnavailable, http.StatusBadGateway:
		return grpcUnavailable
	}
	return grpcUnknown
}

// speaksGRPC reports whether a caller waits for a gRPC status: its content type
// begins with application/grpc (PROTOCOL-HTTP2.md of gRPC; gRPC-Web's too).
func speaksGRPC(r *http.Request) bool {
	return hasGRPCType(r.Header, anyGRPC)
}

// isGRPC reports whether a request is gRPC's own, whose streams have messages
// (gRPC-Web's look like any other request's body).
func isGRPC(r *http.Request) bool {
	return r.ProtoMajor == 2 && r.Method == http.MethodPost && hasGRPCType(r.Header, nativeGRPC)
}

// What follows the content type of gRPC, where anything does; that of gRPC-Web
// goes on with a dash.
const (
	nativeGRPC = "+; "
	anyGRPC    = nativeGRPC + "-"
)

// hasGRPCType looks for the content type, followed by nothing or by one of these.
func hasGRPCType(h http.Header, then string) bool {
	const grpc = "application/grpc"
	types := h["Content-Type"]
	if len(types) != 1 || len(types[0]) < len(grpc) || !strings.EqualFold(types[0][:len(grpc)], grpc) {
		return false
	}
	rest := types[0][len(grpc):]
	return rest == "" || strings.IndexByte(then, rest[0]) >= 0
}

// grpcTimeout is how long a call may take, as its caller says (PROTOCOL-HTTP2.md,
// Timeout: at most eight digits and a unit); 0: it does not say.
func grpcTimeout(h http.Header) time.Duration {
	v := h["Grpc-Timeout"]
	if len(v) != 1 || len(v[0]) < 2 || len(v[0]) > 9 {
		return 0
	}
	digits, unit := v[0][:len(v[0])-1], v[0][len(v[0])-1]
	n, err := strconv.ParseUint(digits, 10, 32)
	if err != nil {
		return 0
	}
	switch unit {
	case 'H':
		return time.Duration(min(n, 1<<20)) * time.Hour // more is for ever, and no Duration holds it
	case 'M':
		return time.Duration(n) * time.Minute
	case 'S':
		return time.Duration(n) * time.Second
	case 'm':
		return time.Duration(n) * time.Millisecond
	case 'u':
		return time.Duration(n) * time.Microsecond
	case 'n':
		return time.Duration(n)
	}
	return 0
}

// pastDeadline reports whether the time of a gRPC call is over, after which its
// server may break off without a word: that is no fault of the server's.
func (x *exchange) pastDeadline() bool {
	if !isGRPC(x.r) {
		return false
	}
	timeout := grpcTimeout(x.r.Header)
	return timeout > 0 && x.duration() >= timeout
}

// grpcMessages follows the messages of a gRPC stream: each has a byte of flags,
// its length in four, and so many bytes (PROTOCOL-HTTP2.md, Length-Prefixed-Message).
type grpcMessages struct {
	max    int64 // bytes of one message; 0: no bound
	prefix [5]byte
	have   int   // of prefix
	left   int64 // of the message
}

// pass looks at the next bytes; false: they begin a message that is too large.
func (m *grpcMessages) pass(p []byte) bool {
	for len(p) > 0 {
		if m.left > 0 {
			n := min(m.left, int64(len(p)))
			m.left -= n
			p = p[n:]
			continue
		}
		n := copy(m.prefix[m.have:], p)
		m.have, p = m.have+n, p[n:]
		if m.have < len(m.prefix) {
			return true
		}
		m.have, m.left = 0, int64(binary.BigEndian.Uint32(m.prefix[1:]))
		if m.max > 0 && m.left > m.max {
			return false
		}
	}
	return true
}

// writeGRPC answers by headers alone (Trailers-Only), under the caller's own
// content type.
func (p *problem) writeGRPC(w http.ResponseWriter, contentType string) {
	w.Header().Set("Content-Type", contentType)
	setGRPCStatus(w.Header(), grpcStatus(p.status), p.code+": "+p.detail)
	w.WriteHeader(http.StatusOK)
}

func setGRPCStatus(h http.Header, status int, message string) {
	h.Set("Grpc-Status", strconv.Itoa(status))
	h.Set("Grpc-Message", grpcMessage(message))
}

// grpcMessage percent-encodes what is not printable ASCII, and the percent sign.
func grpcMessage(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '%' {
			b.Write([]byte{'%', upperHex[c>>4], upperHex[c&15]})
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}
