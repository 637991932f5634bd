package proxy

import (
	"net/http"
	"net/netip"
	"strings"
)

// TrustedProxies says whose X-Forwarded-* is believed. The zero value believes
// nobody.
type TrustedProxies struct {
	Prefixes []netip.Prefix
	// Peer: whoever connects is a proxy, one hop (Cloud Run).
	Peer bool
}

func (t *TrustedProxies) trusts(a netip.Addr) bool {
	for _, p := range t.Prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// client gives the caller's address, and whether the peer's X-Forwarded-* may
// be continued. It is the right-most address that is not a trusted proxy's;
// an entry that is no address ends the walk at the proxy that reported it.
func (t *TrustedProxies) client(remote string, h http.Header) (client netip.Addr, trusted bool) {
	ap, err := netip.ParseAddrPort(remote)
	if err != nil {
		return netip.Addr{}, false
	}
	client = ap.Addr().Unmap().WithZone("")
	if !t.Peer && !t.trusts(client) {
		return client, false
	}
	lines := h["X-Forwarded-For"]
	for i := len(lines) - 1; i >= 0; i-- {
		rest := lines[i]
		for more := true; more; {
			var one string
			if j := strings.LastIndexByte(rest, ','); j >= 0 {
				one, rest = rest[j+1:], rest[:j]
			} else {
				one, more = rest, false
			}
			a, ok := parseForwarded(strings.TrimSpace(one))
			if !ok {
				return client, true
			}
			client = a
			if !t.trusts(a) {
				return client, true
			}
		}
	}
	return client, true
}

// parseForwarded reads an address as proxies write it: with or without a port.
func parseForwarded(s string) (netip.Addr, bool) {
	if a, err := netip.ParseAddr(s); err == nil {
		return a.Unmap().WithZone(""), true
	}
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap().WithZone(""), true
	}
	return netip.Addr{}, false
}
