package cmd

import (
	"context"
	"errors"
	"time"

	"sidegate/storage/redis"
)

// redisProbes ask Redis as a gateway does.
func redisProbes(s settings) []probe {
	c := s.config.Redis
	if c == nil {
		return nil
	}
	return []probe{single("redis.reach", "", func(ctx context.Context, b probe) check {
		o, err := c.options()
		if err != nil {
			return b.fails("name a file of certificates in PEM that this user may read", "%v", err)
		}
		l, err := redis.New(o)
		if err != nil {
			return b.fails("mend redis in sidegate.yaml", "%v", err)
		}
		defer l.Close()
		if err := l.Check(ctx); err != nil { // the first one has a connection to make
			err = l.Check(ctx)
			return redisCheck(b, err)
		}
		began := time.Now()
		if err := l.Check(ctx); err != nil {
			return redisCheck(b, err)
		}
		took := time.Since(began)
		if took > c.Timeout/4 {
			return b.warn("raise redis.timeout, or bring Redis nearer: each request that a limit counts waits as long", "it answers, in %s of the %s of redis.timeout", took.Round(10*time.Microsecond), c.Timeout)
		}
		if publicly(ctx, c) {
			return b.warn(plainRedisDo, "it answers; %s", plainRedis)
		}
		return b.pass("budgets are shared as %s*; it answers in %s", c.Prefix, took.Round(10*time.Microsecond))
	})}
}

func redisCheck(b probe, err error) check {
	var f *redis.Failure
	switch {
	case err == nil:
		return b.warn("raise redis.timeout, so that a new connection fits in it", "it answers, but not the first question within redis.timeout")
	case errors.As(err, &f):
		return b.fails(f.Do(), "%s", f.Error())
	}
	return b.fails("see the gateway's log", "Redis cannot be asked")
}
