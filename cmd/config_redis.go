package cmd

import (
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
	if ca := m.Get("ca"); ca.Present() && !strings.HasPrefix(r.URL.Reveal(), "rediss:") {
		ca.Errorf("`%s` is for a rediss:// url, which has TLS", ca.Path())
	}
}
