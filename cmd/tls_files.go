package cmd

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"sync"
	"time"
)

// maxPEMBytes bounds a file of certificates: the whole world's authorities are
// a fifth of it.
const maxPEMBytes = 1 << 20

// A keyPair is a certificate and its private key in two files. Whoever renews
// certificates replaces them while the gateway runs: they are read again when
// they changed, and the last good ones stay while the new ones do not belong
// together. It is safe for concurrent use.
type keyPair struct {
	cert, key string

	mu   sync.Mutex
	seen [2]fileStamp
	pair *tls.Certificate
}

// A fileStamp tells a file from what was there before under its name.
type fileStamp struct {
	changed time.Time
	size    int64
}

// newKeyPair reads the files once: those that are no good are found at the
// start.
func newKeyPair(cert, key string) (*keyPair, error) {
	k := &keyPair{cert: cert, key: key}
	_, err := k.get()
	return k, err
}

// get gives the pair, as the files have it now.
func (k *keyPair) get() (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	stamps, err := stampsOf(k.cert, k.key)
	if err == nil && k.pair != nil && stamps == k.seen {
		return k.pair, nil
	}
	pair, err := k.read()
	switch {
	case err == nil:
		k.pair, k.seen = pair, stamps
	case k.pair == nil:
		return nil, err
	}
	return k.pair, nil
}

func (k *keyPair) read() (*tls.Certificate, error) {
	cert, err := readBounded(k.cert, maxPEMBytes)
	if err != nil {
		return nil, err
	}
	key, err := readBounded(k.key, maxPEMBytes)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil { // which says nothing of the key
		return nil, fmt.Errorf("%s and %s: %w", k.cert, k.key, err)
	}
	return &pair, nil
}

func stampsOf(names ...string) (out [2]fileStamp, err error) {
	for i, name := range names {
		info, err := os.Stat(name)
		if err != nil {
			return out, err
		}
		out[i] = fileStamp{info.ModTime(), info.Size()}
	}
	return out, nil
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
