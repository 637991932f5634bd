package proxy

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func TestClientAddress(t *testing.T) {
	inner := TrustedProxies{Prefixes: prefixes("10.0.0.0/8", "2001:db8::/32")}
	peer := TrustedProxies{Peer: true, Prefixes: prefixes("35.191.0.0/16")}
	for _, c := range []struct {
		by      TrustedProxies
		remote  string
		lines   []string
		want    string
		trusted bool
	}{
		{TrustedProxies{}, "192.0.2.1:1", nil, "192.0.2.1", false},
		{TrustedProxies{}, "192.0.2.1:1", []string{"1.1.1.1"}, "192.0.2.1", false},
		{TrustedProxies{}, "[::1]:1", []string{"1.1.1.1"}, "::1", false},
		{TrustedProxies{}, "[::ffff:192.0.2.1]:1", nil, "192.0.2.1", false},
		{TrustedProxies{}, "@", []string{"1.1.1.1"}, "", false},
		{inner, "192.0.2.1:1", []string{"1.1.1.1"}, "192.0.2.1", false},
		{inner, "10.0.0.1:1", nil, "10.0.0.1", true},
		{inner, "10.0.0.1:1", []string{"1.1.1.1"}, "1.1.1.1", true},
		{inner, "[::ffff:10.0.0.1]:1", []string{"1.1.1.1"}, "1.1.1.1", true},
		{inner, "10.0.0.1:1", []string{"6.6.6.6, 1.1.1.1"}, "1.1.1.1", true},
		{inner, "10.0.0.1:1", []string{"6.6.6.6, 1.1.1.1, 10.2.3.4"}, "1.1.1.1", true},
		{inner, "10.0.0.1:1", []string{"6.6.6.6", "1.1.1.1", "10.2.3.4,2001:db8::1"}, "1.1.1.1", true},
		{inner, "10.0.0.1:1", []string{"10.9.9.9, 10.2.3.4"}, "10.9.9.9", true},
		{inner, "10.0.0.1:1", []string{"1.1.1.1:443, 10.0.0.2:80"}, "1.1.1.1", true},
		{inner, "10.0.0.1:1", []string{"[2001:470::1]:443"}, "2001:470::1", true},
		{inner, "10.0.0.1:1", []string{"::ffff:1.1.1.1"}, "1.1.1.1", true},
		{inner, "10.0.0.1:1", []string{"1.1.1.1, unknown, 10.2.3.4"}, "10.2.3.4", true},
		{inner, "10.0.0.1:1", []string{"1.1.1.1, "}, "10.0.0.1", true},
		{inner, "10.0.0.1:1", []string{""}, "10.0.0.1", true},
		{peer, "192.0.2.1:1", []string{"6.6.6.6, 1.1.1.1"}, "1.1.1.1", true},
		{peer, "192.0.2.1:1", []string{"6.6.6.6, 1.1.1.1, 35.191.0.1"}, "1.1.1.1", true},
		{peer, "192.0.2.1:1", nil, "192.0.2.1", true},
	} {
		got, trusted := c.by.client(c.remote, http.Header{"X-Forwarded-For": c.lines})
		text := ""
		if got.IsValid() {
			text = got.String()
		}
		if text != c.want || trusted != c.trusted {
			t.Errorf("%s %q: %s, %v", c.remote, c.lines, text, trusted)
		}
	}
}

// FuzzClientAddress: what stands left of an address that is not trusted never
// changes who the caller is.
func FuzzClientAddress(f *testing.F) {
	f.Add("192.0.2.1:1", "6.6.6.6", "1.1.1.1")
	f.Add("10.0.0.1:1", "6.6.6.6, 7.7.7.7", "1.1.1.1")
	f.Add("10.0.0.1:1", "10.0.0.9", "10.0.0.8")
	f.Add("10.0.0.1:1", "1.1.1.1", "nonsense")
	f.Fuzz(func(t *testing.T, remote, attacker, line string) {
		trust := TrustedProxies{Prefixes: prefixes("10.0.0.0/8")}
		alone, _ := trust.client(remote, http.Header{"X-Forwarded-For": {line}})
		for _, lines := range [][]string{{attacker + "," + line}, {attacker, line}} {
			got, trusted := trust.client(remote, http.Header{"X-Forwarded-For": lines})
			if got != alone && !(trusted && trust.trusts(alone)) {
				t.Fatalf("%q after %q: %s instead of %s", line, attacker, got, alone)
			}
			if got.Is4In6() || got.Zone() != "" {
				t.Fatalf("%s", got)
			}
		}
		if plain, trusted := (&TrustedProxies{}).client(remote, http.Header{"X-Forwarded-For": {attacker, line}}); trusted || plain.IsValid() && !strings.Contains(remote, ":") {
			t.Fatalf("%s", plain)
		}
	})
}

// FuzzForwardedFor: nobody but a trusted proxy has a word in who calls. What
// stands left of the address that counts changes nothing; the address is the
// peer's, or one that a trusted proxy wrote; and it is a trusted proxy's only
// where there is none other.
func FuzzForwardedFor(f *testing.F) {
	f.Add("10.0.0.1:1", "6.6.6.6, 1.1.1.1, 10.2.3.4", "7.7.7.7")
	f.Add("192.0.2.1:1", "1.1.1.1", "10.0.0.1")
	f.Add("[::ffff:10.0.0.1]:1", "1.1.1.1:443,,unknown", ", ,")
	f.Add("[2001:db8::1%eth0]:80", "[::1]:1", "x")
	by := TrustedProxies{Prefixes: prefixes("10.0.0.0/8", "2001:db8::/32")}
	f.Fuzz(func(t *testing.T, remote, list, left string) {
		client, trusted := by.client(remote, http.Header{"X-Forwarded-For": {list}})
		peer, err := netip.ParseAddrPort(remote)
		if err != nil {
			if client.IsValid() || trusted {
				t.Fatalf("of no peer: %s", client)
			}
			return
		}
		from := peer.Addr().Unmap().WithZone("")
		if trusted != by.trusts(from) || !trusted && client != from {
			t.Fatalf("%s %q: %s, %v", remote, list, client, trusted)
		}
		// Entry by entry from the right, by the definition.
		want := from
		entries := strings.Split(list, ",")
		stopped := !trusted
		for i := len(entries) - 1; i >= 0 && !stopped; i-- {
			a, ok := parseForwarded(strings.TrimSpace(entries[i]))
			if !ok {
				stopped = true
				break
			}
			want, stopped = a, !by.trusts(a)
		}
		if client != want || client.Is4In6() || client.Zone() != "" {
			t.Fatalf("%s %q: %s, want %s", remote, list, client, want)
		}
		if more, _ := by.client(remote, http.Header{"X-Forwarded-For": {left, list}}); stopped && more != client {
			t.Fatalf("%s: %q left of %q makes %s of %s", remote, left, list, more, client)
		}
	})
}
