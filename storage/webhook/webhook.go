// Package webhook tells an app over HTTP of uploads that became ready, or were
// rejected, in the form of Standard Webhooks 1.0.0
// (github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md).
// It makes one attempt; what was told to whom, and when the next attempt is due,
// stands in the upload's session.
package webhook

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"sidegate/storage/upload"
)

const (
	// timeout bounds an attempt: the specification recommends 15 to 30 seconds.
	timeout = 20 * time.Second
	// maxAnswer is how much of an answer is read, in bytes, for the connection's
	// sake: nothing is made of it but its status.
	maxAnswer = 4 << 10
	// maxHeader bounds an answer's header, in bytes.
	maxHeader = 64 << 10
)

// Options say who is told, and by whom.
type Options struct {
	// URL is where notices are posted to: https, or http to this machine. It may
	// hold a user and password, and a query; no error shows either.
	URL string
	// Secret signs: whsec_ and 24 to 64 bytes in base64, or else 24 to 64 bytes
	// as they are. While it is replaced, the new one, a space and the old one:
	// each signs.
	Secret string
	Now    func() time.Time

	roots *x509.CertPool // tests
}

// An Endpoint is an upload.Notifier: one URL. It is safe for concurrent use.
type Endpoint struct {
	url    string
	origin string // scheme and host, for errors
	keys   [][]byte
	now    func() time.Time
	client *http.Client
}

// New makes an endpoint, and asks nobody. An error says what is wrong with the
// URL or the secret and holds neither.
func New(o Options) (*Endpoint, error) {
	u, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	keys, err := parseSecrets(o.Secret)
	if err != nil {
		return nil, err
	}
	return &Endpoint{
		url:    u.String(),
		origin: u.Scheme + "://" + u.Host,
		keys:   keys,
		now:    o.Now,
		client: &http.Client{
			Transport: newTransport(o.roots),
			// The specification has a redirect fail: the URL is to be changed, and
			// a notice is signed for whom it is sent to.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Opaque != "" || u.Hostname() == "":
		return nil, errors.New("webhook: the URL is not an absolute URL, such as https://app.example.com/hooks") // url.Parse's error shows all of it
	case u.Port() != "" && !isPort(u.Port()):
		return nil, errors.New("webhook: the URL's port is not 1 to 65535")
	case u.Fragment != "":
		return nil, errors.New("webhook: the URL has a fragment, which is never sent")
	case u.Scheme == "https" || u.Scheme == "http" && loopback(u.Hostname()):
		return u, nil
	case u.Scheme == "http":
		return nil, errors.New("webhook: the URL is http to another machine, where what is told can be read on the way: use https")
	}
	return nil, errors.New("webhook: the URL is neither https nor http")
}

func isPort(text string) bool {
	n, err := strconv.ParseUint(text, 10, 16)
	return err == nil && n > 0
}

func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

func newTransport(roots *x509.CertPool) *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2:      true,
		MaxIdleConnsPerHost:    8, // as many notices as a sweep sends at once
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: maxHeader,
		DisableCompression:     true, // nothing is made of the answer
	}
}

// Notify makes one attempt to tell of a session that is ready or rejected. nil:
// it was taken (a status of 2xx). An error that wraps [upload.ErrGone] (410)
// says that it is of no use to try again. An error names the URL's host and
// nothing else of it.
func (e *Endpoint) Notify(ctx context.Context, s *upload.Session) error {
	now := e.now()
	n, err := newNotice(s, now)
	if err != nil {
		return fmt.Errorf("webhook %s: %w", e.origin, err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(n.body))
	if err != nil {
		return fmt.Errorf("webhook %s: the request cannot be made", e.origin)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "sidegate")
	// Names of headers have no case; this is how the specification spells them.
	at := strconv.FormatInt(now.Unix(), 10)
	r.Header["webhook-id"] = []string{n.id}
	r.Header["webhook-timestamp"] = []string{at}
	r.Header["webhook-signature"] = []string{sign(e.keys, n.id, at, n.body)}
	answer, err := e.client.Do(r)
	if err != nil {
		return fmt.Errorf("webhook %s: %w", e.origin, unanswered(ctx, err))
	}
	defer answer.Body.Close()
	io.CopyN(io.Discard, answer.Body, maxAnswer) // so that the connection can be used again
	return e.judge(answer.StatusCode)
}

func (e *Endpoint) judge(status int) error {
	switch {
	case status >= 200 && status <= 299:
		return nil
	case status == http.StatusGone:
		return fmt.Errorf("webhook %s answered 410: %w", e.origin, upload.ErrGone)
	case status >= 300 && status <= 399:
		return fmt.Errorf("webhook %s answered %d: redirects are not followed, change webhook.url", e.origin, status)
	}
	return fmt.Errorf("webhook %s answered %d", e.origin, status)
}

// unanswered says why there was no answer, and only what cannot show the URL,
// a proxy's password or what the other side sent.
func unanswered(ctx context.Context, err error) error {
	var dns *net.DNSError
	var op *net.OpError
	var certificate x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Errorf("no answer in time (%v at most): %w", timeout, context.DeadlineExceeded)
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &dns):
		return dns
	case errors.As(err, &certificate):
		return certificate
	case errors.As(err, &host):
		return errors.New("its certificate is for another host")
	case errors.As(err, &invalid):
		return errors.New("its certificate is not valid (any more)")
	case errors.As(err, &op):
		return op
	}
	return errors.New("the connection ended without an answer, or with what is no HTTP")
}
