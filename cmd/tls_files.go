package cmd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"
)

// maxPEMBytes bounds a file of certificates: the whole world's authorities are
// a fifth of it.
const maxPEMBytes = 1 << 20

// A renewable is what files hold: they are read again when they changed, and what
// was good last stays while the new ones are none. Whoever renews certificates
// replaces them while the gateway runs, one file after the other. It is safe for
// concurrent use.
type renewable[T any] struct {
	names []string
	read  func() (*T, error)
	// refused is told, once for each state of the files, why they are none.
	refused func(error)

	mu   sync.Mutex
	seen []fileStamp // of last
	bad  []fileStamp // of what was refused last; nil: what the files hold is in use
	last *T
}

// A fileStamp tells a file from what was there before under its name.
type fileStamp struct {
	changed time.Time
	size    int64
}

// newRenewable reads the files once: those that are no good are found at the
// start. refused is told of those that come later.
func newRenewable[T any](refused func(error), read func() (*T, error), names ...string) (*renewable[T], error) {
	w := &renewable[T]{names: names, read: read, refused: refused}
	_, err := w.get()
	return w, err
}

// get gives what the files hold now.
func (w *renewable[T]) get() (*T, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen, err := stampsOf(w.names)
	if err == nil && w.last != nil && slices.Equal(seen, w.seen) {
		w.bad = nil
		return w.last, nil
	}
	if err == nil && w.bad != nil && slices.Equal(seen, w.bad) {
		return w.last, nil
	}
	var now *T
	if err == nil {
		now, err = w.read()
	}
	switch {
	case err == nil:
		w.last, w.seen, w.bad = now, seen, nil
	case w.last == nil:
		return nil, err
	case w.bad == nil || !slices.Equal(seen, w.bad):
		w.bad = append([]fileStamp{}, seen...) // not nil, also where there is no file
		w.refused(err)
	}
	return w.last, nil
}

func stampsOf(names []string) ([]fileStamp, error) {
	out := make([]fileStamp, len(names))
	for i, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return nil, err
		}
		out[i] = fileStamp{info.ModTime(), info.Size()}
	}
	return out, nil
}

// renewableKeyPair is a certificate and its private key.
func renewableKeyPair(cert, key string, refused func(error)) (*renewable[tls.Certificate], error) {
	return newRenewable(refused, func() (*tls.Certificate, error) { return readKeyPair(cert, key) }, cert, key)
}

func readKeyPair(cert, key string) (*tls.Certificate, error) {
	certPEM, err := readBounded(cert, maxPEMBytes)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readBounded(key, maxPEMBytes)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil { // which says nothing of the key
		return nil, fmt.Errorf("%s and %s: %w", cert, key, err)
	}
	return &pair, nil
}

// readAuthorities reads a file of certificates, in PEM.
func readAuthorities(name string) (*x509.CertPool, error) {
	data, err := readBounded(name, maxPEMBytes)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", name)
	}
	return pool, nil
}

// listenTLS is how callers connect with TLS; nil: they do not. refused is told of
// files that were replaced by what is no good.
func (c *Config) listenTLS(refused func(error)) (*tls.Config, error) {
	in := c.Listen.TLS
	if in.Cert == "" {
		return nil, nil
	}
	pair, err := renewableKeyPair(in.Cert, in.Key, refused)
	if err != nil {
		return nil, fmt.Errorf("listen.tls.cert: %w", err)
	}
	config := &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     []string{"h2", "http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.get() },
	}
	if in.ClientCA == "" {
		return config, nil
	}
	// A whole configuration for each state of the file: tickets are off, so that
	// no session outlives the authority that it was begun by.
	mutual, err := newRenewable(refused, func() (*tls.Config, error) {
		authorities, err := readAuthorities(in.ClientCA)
		if err != nil {
			return nil, err
		}
		c := config.Clone()
		c.ClientCAs, c.ClientAuth, c.SessionTicketsDisabled = authorities, tls.RequireAndVerifyClientCert, true
		return c, nil
	}, in.ClientCA)
	if err != nil {
		return nil, fmt.Errorf("listen.tls.client_ca: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: config.NextProtos, GetCertificate: config.GetCertificate,
		// Should the next line ever give nothing, nobody gets in.
		ClientAuth:         tls.RequireAndVerifyClientCert,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return mutual.get() },
	}, nil
}
