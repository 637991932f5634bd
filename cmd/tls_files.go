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

	mu   sync.Mutex
	seen []fileStamp
	last *T
}

// A fileStamp tells a file from what was there before under its name.
type fileStamp struct {
	changed time.Time
	size    int64
}

// newRenewable reads the files once: those that are no good are found at the start.
func newRenewable[T any](read func() (*T, error), names ...string) (*renewable[T], error) {
	w := &renewable[T]{names: names, read: read}
	_, err := w.get()
	return w, err
}

// get gives what the files hold now.
func (w *renewable[T]) get() (*T, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	seen, err := stampsOf(w.names)
	if err == nil && w.last != nil && slices.Equal(seen, w.seen) {
		return w.last, nil
	}
	now, err := w.read()
	switch {
	case err == nil:
		w.last, w.seen = now, seen
	case w.last == nil:
		return nil, err
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
func renewableKeyPair(cert, key string) (*renewable[tls.Certificate], error) {
	return newRenewable(func() (*tls.Certificate, error) { return readKeyPair(cert, key) }, cert, key)
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

// listenTLS is how callers connect with TLS; nil: they do not.
func (c *Config) listenTLS() (*tls.Config, error) {
	in := c.Listen.TLS
	if in.Cert == "" {
		return nil, nil
	}
	pair, err := renewableKeyPair(in.Cert, in.Key)
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
	mutual, err := newRenewable(func() (*tls.Config, error) {
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
