package cmd

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sidegate/policy/document"
	"sidegate/storage/redis"
)

// A RedisConfig is redis: where budgets of limits are shared.
type RedisConfig struct {
	// URL is where; it may hold a password.
	URL Secret
	// CA is a file of the authorities that may vouch for it; empty, the default:
	// the machine's.
	CA string
	// Timeout bounds each question. Default: 100ms.
	Timeout time.Duration
	// Prefix begins each key. Default: sidegate:, the gateway's name, and a colon.
	Prefix string
}

// readRedis reads where budgets are shared. Nothing of the URL is shown.
func (l *configLoader) readRedis(v document.Value, c *Config) {
	if !v.Present() {
		return
	}
	m := v.Map(l.keys["redis"])
	at := m.Need("url")
	r := &RedisConfig{URL: l.secret(at), CA: l.optionalPath(m.Get("ca")), Prefix: "sidegate:" + c.Name + ":"}
	r.Timeout = l.duration(m.Get("timeout"), 100*time.Millisecond, time.Millisecond, 5*time.Second)
	if p := m.Get("prefix"); p.Present() {
		r.Prefix = l.matching(p, redisPrefix, "1 to 128 letters, digits and `._:-`")
	}
	c.Redis = r
	if !r.URL.IsSet() {
		return
	}
	if err := redis.CheckURL(r.URL.Reveal()); err != nil {
		at.Errorf("`%s`: %s", at.Path(), strings.TrimPrefix(err.Error(), "redis: "))
		return
	}
	if strings.Contains(r.URL.Reveal(), "@") {
		l.warnLiteral(at)
	}
	// What a name leads to is seen by check --online.
	if ip, err := netip.ParseAddr(redis.Plain(r.URL.Reveal())); err == nil && !isPrivate(ip) {
		l.warn(at, "`%s`: %s", at.Path(), plainRedis+"; "+plainRedisDo)
	}
	if ca := m.Get("ca"); ca.Present() && !strings.HasPrefix(r.URL.Reveal(), "rediss:") {
		ca.Errorf("`%s` is for a rediss:// url, which has TLS", ca.Path())
	}
}

// Redis without TLS is usual within a private network, and is no warning there: of
// what passes, a password lets no more than budgets be read and changed.
const (
	plainRedis   = "Redis has a public address and is asked without encryption: whoever is between can read the password, and what limits are told"
	plainRedisDo = "write rediss://, or use an address of a private network"
)

// sharedSpace is of carriers, and of clouds' own networks (RFC 6598).
var sharedSpace = netip.MustParsePrefix("100.64.0.0/10")

// isPrivate reports whether an address leads to this machine or a network that is
// not everybody's.
func isPrivate(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip.IsLoopback() || ip.IsPrivate() || ip.IsLinkLocalUnicast() || sharedSpace.Contains(ip)
}

// publicly is whether Redis is asked without encryption at an address that is
// not private. A host that nobody knows is none.
func publicly(ctx context.Context, c *RedisConfig) bool {
	host := redis.Plain(c.URL.Reveal())
	if host == "" {
		return false
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	return err == nil && slices.ContainsFunc(ips, func(ip netip.Addr) bool { return !isPrivate(ip) })
}
