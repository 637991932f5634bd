package otlp

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

const (
	protobuf = "application/x-protobuf"
	// maxAnswer bounds what is read of an answer: one of a collector has a
	// number and a sentence.
	maxAnswer = 64 << 10
	// maxRetryAfter bounds how long a collector can have itself left alone.
	maxRetryAfter = 30 * time.Second
)

// A client sends exports; it is the otlptrace.Client of ours. OpenTelemetry's own
// for HTTP takes a score of settings from the environment, follows redirects with
// all headers, and puts what a collector answers into its errors.
type client struct {
	url     string
	headers http.Header
	http    *http.Client
}

func newClient(o Options) (*client, error) {
	if o.URL == nil || o.URL.Scheme != "http" && o.URL.Scheme != "https" || o.URL.Host == "" {
		return nil, errors.New("otlp: the collector's URL must be http or https")
	}
	t := http.DefaultTransport.(*http.Transport).Clone() // with the environment's proxy
	t.TLSClientConfig = o.TLS.Clone()
	t.MaxConnsPerHost, t.MaxResponseHeaderBytes = 2, maxAnswer
	t.DisableCompression = true // a small answer could become a large one
	c := &client{url: o.URL.String(), headers: http.Header{}, http: &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // headers are for this collector
	}}
	for name, value := range o.Headers {
		c.headers.Set(name, value)
	}
	c.headers.Set("Content-Type", protobuf)
	c.headers.Set("Content-Encoding", "gzip")
	c.headers.Set("User-Agent", "sidegate/"+o.Version)
	return c, nil
}

// Start does nothing: connections are made when they are needed.
func (c *client) Start(context.Context) error { return nil }

// Stop closes connections that nobody uses.
func (c *client) Stop(context.Context) error {
	c.http.CloseIdleConnections()
	return nil
}

// UploadTraces sends one export. Its errors hold no word of the collector's and
// no header.
func (c *client) UploadTraces(ctx context.Context, spans []*tracepb.ResourceSpans) error {
	// On the wire TracesData is ExportTraceServiceRequest, which opentelemetry-proto
	// promises; the latter's package brings a gRPC gateway with it.
	plain, err := proto.Marshal(&tracepb.TracesData{ResourceSpans: spans})
	if err != nil {
		return fmt.Errorf("encode spans: %w", err)
	}
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	if _, err := z.Write(plain); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return c.post(ctx, &body, false)
}

// Probe asks whether a collector takes an export, by one of nothing. What answers
// must speak as a collector: any web server may say 200.
func Probe(ctx context.Context, o Options) error {
	c, err := newClient(o)
	if err != nil {
		return err
	}
	defer c.http.CloseIdleConnections()
	var body bytes.Buffer
	if err := gzip.NewWriter(&body).Close(); err != nil {
		return err
	}
	return c.post(ctx, &body, true)
}

// post sends an encoded export. Strict: a yes in another form than was asked in is
// none (OTLP, "OTLP/HTTP Response", wants the same form).
func (c *client) post(ctx context.Context, body io.Reader, strict bool) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, body)
	if err != nil {
		return err
	}
	req.Header = c.headers.Clone()
	res, err := c.http.Do(req)
	if err != nil {
		return unreachable(ctx, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	switch {
	case res.StatusCode < 200 || res.StatusCode > 299:
		return &statusError{status: res.StatusCode, after: readRetryAfter(res.Header.Get("Retry-After"))}
	case err != nil:
		return unreachable(ctx, err)
	case len(answer) > maxAnswer:
		return ErrNotCollector
	case strings.HasPrefix(res.Header.Get("Content-Type"), protobuf):
		return readAnswer(answer)
	case strict && len(answer) > 0:
		return ErrNotCollector
	}
	return nil // some say nothing, or JSON
}

// unreachable says why there is no answer.
func unreachable(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case strings.Contains(err.Error(), "malformed"):
		return ErrNotCollector
	default:
		err = ownWords(err)
	}
	return &connectionError{err}
}

// ownWords is what this machine says of a connection. net/http writes the URL into
// its errors, and repeats what it could not read: of an answer, which may hold the
// headers of the export, of HTTP/2's last frame, and of a proxy.
func ownWords(err error) error {
	var network *net.OpError
	var certificate *tls.CertificateVerificationError
	var slow net.Error
	switch {
	case errors.As(err, &network):
		return network
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &slow) && slow.Timeout():
		return context.DeadlineExceeded
	case errors.Is(err, http.ErrSchemeMismatch):
		return http.ErrSchemeMismatch
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return io.ErrUnexpectedEOF
	}
	return errBroken
}

// errBroken is also of what speaks before it is asked, as gRPC's port does.
var errBroken = fmt.Errorf("the connection broke, a proxy on the way refused it, or %w", ErrNotCollector)

var (
	// ErrNotCollector is of an answer that no collector for OTLP over HTTP gives.
	ErrNotCollector = errors.New("the answer is none of a collector's")
	// ErrForbidden is of one to somebody that it does not know.
	ErrForbidden = errors.New("the collector does not know this gateway")
)

// readAnswer reads an ExportTraceServiceResponse: its field 1, partial_success,
// has the number of refused spans in its field 1.
func readAnswer(b []byte) error {
	partial, err := protoField(b, 1, protowire.BytesType)
	if err != nil || partial == nil {
		return err
	}
	number, err := protoField(partial, 1, protowire.VarintType)
	if err != nil || number == nil {
		return err
	}
	if n, _ := protowire.ConsumeVarint(number); n > 0 {
		return &partialError{int64(min(n, math.MaxInt64))}
	}
	return nil
}

// protoField gives the last value of a message's field (without its length, where
// it has one); nil: it is not there.
func protoField(b []byte, want protowire.Number, wire protowire.Type) ([]byte, error) {
	var out []byte
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return nil, ErrNotCollector
		}
		b = b[n:]
		if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
			return nil, ErrNotCollector
		}
		if number == want && kind == wire {
			out = b[:n]
			if kind == protowire.BytesType {
				out, _ = protowire.ConsumeBytes(b)
			}
		}
		b = b[n:]
	}
	return out, nil
}

// A statusError is an answer that is no yes.
type statusError struct {
	status int
	after  time.Duration // the collector asks to be left alone so long; 0: it does not
}

// Is tells what a status means.
func (e *statusError) Is(target error) bool {
	switch e.status {
	case http.StatusUnauthorized, http.StatusForbidden:
		return target == ErrForbidden
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusUnsupportedMediaType, http.StatusBadRequest:
		return target == ErrNotCollector
	}
	return e.status >= 300 && e.status < 400 && target == ErrNotCollector
}

func (e *statusError) Error() string { return "the collector answered " + strconv.Itoa(e.status) }

// A connectionError is no answer.
type connectionError struct{ err error }

func (e *connectionError) Error() string {
	if errors.Is(e.err, context.DeadlineExceeded) {
		return "the collector did not answer in time"
	}
	return "the collector cannot be reached: " + e.err.Error()
}

func (e *connectionError) Unwrap() error { return e.err }

// A partialError is a yes to only a part.
type partialError struct{ spans int64 }

func (e *partialError) Error() string {
	return "the collector refused " + strconv.FormatInt(e.spans, 10) + " spans"
}

// temporary reports whether the same export may be taken later (OTLP, "Failures",
// "OTLP/HTTP Response").
func temporary(err error) bool {
	var s *statusError
	if errors.As(err, &s) {
		return s.status == 429 || s.status == 502 || s.status == 503 || s.status == 504
	}
	var c *connectionError
	return errors.As(err, &c)
}

func retryAfter(err error) time.Duration {
	var s *statusError
	if errors.As(err, &s) {
		return s.after
	}
	return 0
}

// readRetryAfter reads seconds; a date is for browsers.
func readRetryAfter(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxRetryAfter)
}
