package proxy

import (
	"context"
	"errors"
	"strings"
)

// putOnRecord hands the decision to the audit log.
func (x *exchange) putOnRecord(ctx context.Context) error {
	s := papersKept.Get().(*papers)
	err := x.p.o.Recorder.Record(ctx, x.decisionEvent(s), x.survive())
	s.release()
	return err
}

// noteOutcome hands over what was answered.
func (x *exchange) noteOutcome(truncated bool) error {
	s := papersKept.Get().(*papers)
	err := x.p.o.Recorder.Note(x.outcomeEvent(s, truncated))
	s.release()
	return err
}

// userAgent is what the caller says that it is.
func (x *exchange) userAgent() string {
	if v := x.r.Header["User-Agent"]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// auditPath is the canonical path; of a target that was refused as ambiguous,
// what came, without query and authority, which can hold secrets.
func (x *exchange) auditPath() string {
	if x.target.path != "" {
		return x.target.path
	}
	raw := x.r.RequestURI
	if i := strings.IndexAny(raw, "?#"); i >= 0 {
		raw = raw[:i]
	}
	if strings.HasPrefix(raw, "/") || raw == "*" {
		return raw
	}
	_, rest, _ := strings.Cut(raw, "://")
	if i := strings.IndexByte(rest, '/'); i >= 0 {
		return rest[i:]
	}
	return "" // nothing but an authority
}

// failureCode names a failure without the words of whoever caused it.
func failureCode(err error) string {
	var pr *problem
	var end *streamEnd
	switch {
	case errors.As(err, &end):
		return end.outcome
	case errors.Is(err, ErrStopping):
		return "gateway_stopped"
	case errors.Is(err, errClientGone):
		return "client_gone"
	case errors.Is(err, errClientStalled):
		return "client_stalled"
	case errors.As(err, &pr):
		return pr.code
	}
	return codeInternal
}
