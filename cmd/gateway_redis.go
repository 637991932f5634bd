package cmd

import (
	"context"
	"errors"
	"fmt"

	"sidegate/proxy"
	"sidegate/storage/redis"
)

// openLimits opens the budgets that gateways share; nil where there are none.
// Redis need not be there: who may do what does not depend on it.
func (g *gateway) openLimits(ctx context.Context) (proxy.Limits, error) {
	c := g.s.config.Redis
	if c == nil {
		return nil, nil
	}
	o, err := c.options()
	if err != nil {
		return nil, err
	}
	o.Metrics, o.Changed = g.metrics, g.redisChanged
	limits, err := redis.New(o)
	if err != nil {
		return nil, fmt.Errorf("redis: %w", err)
	}
	g.onClose(limits.Close)
	limits.Start(ctx)
	return limits, nil
}

func (g *gateway) redisChanged(err error) {
	if err != nil {
		line := g.log.Warn().Err(err)
		var f *redis.Failure
		if errors.As(err, &f) {
			line.Str("do", f.Do())
		}
		line.Msg("shared limits cannot be asked: until they can, each gateway counts for itself, and limits with `unavailable: refuse` let nobody pass")
		return
	}
	g.log.Info().Msg("shared limits can be asked again")
}

func (c *RedisConfig) options() (redis.Options, error) {
	o := redis.Options{URL: c.URL.Reveal(), Timeout: c.Timeout, Prefix: c.Prefix}
	if c.CA != "" {
		var err error
		if o.Authorities, err = readAuthorities(c.CA); err != nil {
			return o, fmt.Errorf("redis.ca: %w", err)
		}
	}
	return o, nil
}
