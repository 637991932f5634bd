package cmd

import (
	"net"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"sidegate/policy/document"
	"sidegate/proxy/transport"
)

// maxSocketPath is what the smallest of the systems' addresses holds (unix(7)
// has 108 bytes with the zero at the end, others 104).
const maxSocketPath = 103

// readUpstreamURL reads where an app is: a base URL, or several of one scheme,
// or unix:// and the absolute path of a socket.
func (l *configLoader) readUpstreamURL(v document.Value, u *UpstreamConfig) {
	if !v.IsList() {
		if s, ok := v.Text(); ok && strings.HasPrefix(s, "unix://") {
			readSocket(v, strings.TrimPrefix(s, "unix://"), u)
		} else {
			l.readUpstreamAddress(v, u)
		}
		return
	}
	list := v.List()
	if len(list) > transport.MaxAddresses {
		v.Errorf("`%s` has %d URLs; it can have %d", v.Path(), len(list), transport.MaxAddresses)
		return
	}
	for _, at := range list {
		if s, ok := at.Text(); ok && strings.HasPrefix(s, "unix://") {
			at.Errorf("`%s`: a socket stands alone, not in a list", at.Path())
			continue
		}
		l.readUpstreamAddress(at, u)
	}
}

func readSocket(v document.Value, path string, u *UpstreamConfig) {
	if !filepath.IsAbs(path) || len(path) > maxSocketPath || strings.ContainsAny(path, "\x00?#") {
		v.Errorf("`%s`: want unix:// and the absolute path of a socket, such as unix:///run/app.sock, of at most %d bytes", v.Path(), maxSocketPath)
		return
	}
	u.URL, u.Socket = &url.URL{Scheme: "http", Host: "localhost"}, filepath.Clean(path)
}

// readUpstreamAddress reads one base URL. The first says of what scheme all are.
func (l *configLoader) readUpstreamAddress(v document.Value, u *UpstreamConfig) {
	at := l.baseURL(v, "http", "https", "h2c")
	if at == nil {
		return
	}
	h2c := at.Scheme == "h2c"
	if h2c {
		at.Scheme = "http" // of its URLs and ports; how it is spoken is another thing
	}
	switch {
	case u.URL == nil:
		u.URL, u.H2C = at, h2c
	case u.URL.Scheme != at.Scheme || u.H2C != h2c:
		v.Errorf("`%s`: the URLs of an upstream have one scheme", v.Path())
		return
	case slices.ContainsFunc(u.Addresses, func(have string) bool {
		return endpointOf(at.Scheme, have) == endpointOf(at.Scheme, at.Host)
	}):
		v.Errorf("`%s`: this address is there twice", v.Path())
		return
	}
	u.Addresses = append(u.Addresses, at.Host)
}

// endpointOf is host and port in one form, the port where none is written too.
func endpointOf(scheme, host string) string {
	u := url.URL{Host: strings.ToLower(host)}
	port := u.Port()
	switch {
	case port != "":
	case scheme == "https":
		port = "443"
	default:
		port = "80"
	}
	return net.JoinHostPort(u.Hostname(), port)
}
