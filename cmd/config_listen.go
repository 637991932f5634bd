package cmd

import (
	"net"
	"net/netip"
	"time"

	"sidegate/policy/document"
	"sidegate/proxy"
)

func (l *configLoader) readListen(m document.Map, c *Config) {
	in := &c.Listen
	in.Address = l.readAddress(m.Get("address"))
	if v := m.Get("tls"); v.Present() {
		t := v.Map(l.keys["listen.tls"])
		in.TLS.Cert, in.TLS.Key, in.TLS.ClientCA = l.optionalPath(t.Need("cert")), l.optionalPath(t.Need("key")), l.optionalPath(t.Get("client_ca"))
	}
	l.readTrustedProxies(m.Get("trusted_proxies"), c)
	in.ShutdownGrace = l.duration(m.Get("shutdown_grace"), 9*time.Second, 0, time.Hour)
	in.DrainDelay = l.duration(m.Get("drain_delay"), 0, 0, time.Hour)
	in.HeaderTimeout = l.duration(m.Get("header_timeout"), 10*time.Second, 100*time.Millisecond, time.Hour)
	in.MaxHeaderBytes = int(l.size(m.Get("max_header_bytes"), 32<<10, 1<<10, 1<<20))
	in.IdleTimeout = l.duration(m.Get("idle_timeout"), 75*time.Second, 100*time.Millisecond, longest)
	in.MaxConnections = int(m.Get("max_connections").Int(0, 10_000_000))
	in.MaxRequests = m.Get("max_requests").Int(0, 10_000_000)
	in.MaxPerConnection = m.Get("max_requests_per_connection").Int(0, 1<<40)
	if in.DrainDelay > in.ShutdownGrace {
		m.Get("drain_delay").Errorf("`listen.drain_delay` (%s) lies within `listen.shutdown_grace` (%s): it cannot be longer",
			document.FormatDuration(in.DrainDelay), document.FormatDuration(in.ShutdownGrace))
	}
	if on := l.env.get("PORT"); l.onCloudRun() && on != "" && in.Address != "" {
		if _, p, _ := net.SplitHostPort(in.Address); p != on {
			l.warn(m.Get("address"), "Cloud Run sends requests to $PORT (%s), and `listen.address` has another port", on)
		}
	}
}

// readAddress reads the public address; PORT gives the default.
func (l *configLoader) readAddress(v document.Value) string {
	port := l.env.get("PORT")
	if port == "" {
		port = "8080"
	}
	if _, n, ok := splitAddress(":" + port); !v.Present() && (!ok || n == 0) {
		v.Errorf("the variable PORT must be a port's number, from 1 to 65535")
		return ""
	}
	return l.address(v, ":"+port)
}

// readTrustedProxies reads a list of networks, addresses and the word
// cloud-run, or that word alone.
func (l *configLoader) readTrustedProxies(v document.Value, c *Config) {
	items := []document.Value{v}
	if !v.IsString() {
		items = v.List()
	}
	for _, item := range items {
		s, ok := item.Text()
		if !ok {
			continue
		}
		if s == "cloud-run" {
			c.Listen.TrustPeer = true
		} else if p, ok := l.network(item, s); ok {
			c.Listen.TrustedProxies = append(c.Listen.TrustedProxies, p)
		}
	}
}

func (l *configLoader) network(v document.Value, s string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		a, err := netip.ParseAddr(s)
		if err != nil || a.Zone() != "" {
			v.Errorf("`%s`: want a network such as 10.0.0.0/8, an address, or the word cloud-run, not %s", v.Path(), v.Quote())
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	switch {
	case p.Bits() == 0:
		v.Errorf("`%s`: %q is everybody, so anybody could claim any address; name your proxies", v.Path(), v.Show())
	case p.Addr().Is4In6():
		v.Errorf("`%s`: %q: write IPv4 networks as IPv4, such as 10.0.0.0/8", v.Path(), v.Show())
	case p != p.Masked():
		v.Errorf("`%s`: %q has bits set beyond its length; a single address is written without one", v.Path(), v.Show())
	default:
		return p, true
	}
	return netip.Prefix{}, false
}

func (l *configLoader) readAdmin(m document.Map, c *Config) {
	v := m.Get("address")
	c.AdminAddress = l.address(v, "127.0.0.1:9180")
	if onePort(c.AdminAddress, c.Listen.Address) {
		v.Errorf("`admin.address` and `listen.address` are one port: health and metrics are never on the public listener")
	}
}

// readForwardAuth reads where another proxy asks. It must say how: in the words
// of another dialect a stranger could ask.
func (l *configLoader) readForwardAuth(v document.Value, c *Config) {
	if !v.Present() {
		return
	}
	m := v.Map(l.keys["forward_auth"])
	at := m.Get("address")
	c.ForwardAuth.Address = l.address(at, "127.0.0.1:9181")
	if d := m.Need("dialect"); d.Present() {
		c.ForwardAuth.Dialect = proxy.Dialect(d.OneOf(string(proxy.DialectNginx), string(proxy.DialectTraefik), string(proxy.DialectEnvoy)))
	}
	switch {
	case onePort(c.ForwardAuth.Address, c.Listen.Address):
		at.Errorf("`forward_auth.address` and `listen.address` are one port: whoever may ask there can ask in anybody's name")
	case onePort(c.ForwardAuth.Address, c.AdminAddress):
		at.Errorf("`forward_auth.address` and `admin.address` are one port: each listener needs its own")
	}
	if host, _, ok := splitAddress(c.ForwardAuth.Address); ok && isEverywhere(host) {
		l.warn(at, "`forward_auth.address` is every address of this machine: nobody but the proxy that asks may reach it, since it is believed what it says of the caller")
	}
}

// onePort reports whether two addresses cannot both be listened on.
func onePort(a, b string) bool {
	hostA, portA, okA := splitAddress(a)
	hostB, portB, okB := splitAddress(b)
	return okA && okB && portA == portB && portA != 0 && (hostA == hostB || isEverywhere(hostA) || isEverywhere(hostB))
}

// isEverywhere reports whether a listener's host is all of the machine's addresses.
func isEverywhere(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "" || err == nil && a.IsUnspecified()
}
