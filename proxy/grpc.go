package proxy

import (
	"net/http"
	"strconv"
	"strings"
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
	const grpc = "application/grpc"
	types := r.Header["Content-Type"]
	if len(types) != 1 || len(types[0]) < len(grpc) || !strings.EqualFold(types[0][:len(grpc)], grpc) {
		return false
	}
	rest := types[0][len(grpc):]
	return rest == "" || strings.IndexByte("+;- ", rest[0]) >= 0
}

// writeGRPC answers by headers alone (Trailers-Only), under the caller's own
// content type.
func (p *problem) writeGRPC(w http.ResponseWriter, contentType string) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Grpc-Status", strconv.Itoa(grpcStatus(p.status)))
	h.Set("Grpc-Message", grpcMessage(p.code+": "+p.detail))
	w.WriteHeader(http.StatusOK)
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
