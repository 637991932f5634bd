// Package redis keeps the budgets of rate limits that several gateways share, in
// one Redis (or Valkey). Only here the client of Redis is known.
//
// Redis is asked once for each request that a limit counts, by one script that
// takes from all of the request's budgets or from none. Where it cannot be asked
// that is an error at once, or after the time-out: the caller decides what then.
package redis

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	client "github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"sidegate/policy"
)

// Options are what Limits are made of. URL, Timeout and Prefix are needed.
type Options struct {
	// URL is redis://[user:password@]host[:port][/db], or rediss:// with TLS. It is
	// a secret.
	URL string
	// Authorities may vouch for a Redis with TLS; nil: the machine's.
	Authorities *x509.CertPool
	// Timeout bounds each question whole, with a new connection where it needs one.
	Timeout time.Duration
	// Prefix begins each key.
	Prefix string
	// Changed is told when Redis cannot be asked any more, with the reason, and
	// when it can again, with nil; nil: nobody is told.
	Changed func(error)
	// Metrics takes the metrics; nil: there are none.
	Metrics prometheus.Registerer
}

// Limits are budgets in Redis. They are safe for concurrent use.
type Limits struct {
	client  *client.Client
	script  *client.Script
	timeout time.Duration
	prefix  string
	metrics *metrics
	breaker *breaker
}

// connections are how many there are to Redis at most, which does one thing at a
// time itself: more would only wait there, and not here.
const connections = 32

// New makes Limits. It asks nobody. What is wrong with the URL it says without any
// part of it.
func New(o Options) (*Limits, error) {
	at, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	if at.TLSConfig != nil {
		at.TLSConfig.RootCAs = o.Authorities
	}
	if o.Timeout <= 0 || o.Prefix == "" {
		return nil, errors.New("redis: a time-out and a prefix are needed")
	}
	m, err := newMetrics(o.Metrics)
	if err != nil {
		return nil, err
	}
	quiet()
	at.Dialer, at.OnConnect = dialer(at.TLSConfig), refuseOthers
	// A question that was sent may have been answered: asked again, it would take
	// twice.
	at.MaxRetries, at.DialerRetries = -1, 1
	at.DialTimeout, at.PoolTimeout, at.ReadTimeout, at.WriteTimeout = max(o.Timeout, time.Second), o.Timeout, o.Timeout, o.Timeout
	at.ContextTimeoutEnabled = true
	at.PoolSize, at.MaxActiveConns, at.PipelinePoolSize = connections, connections, -1
	at.ReadBufferSize, at.WriteBufferSize = 4<<10, 4<<10
	at.ConnMaxIdleTime = time.Minute // before what is between drops it silently
	at.Protocol, at.DisableIdentity = 2, true
	at.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	l := &Limits{client: client.NewClient(at), script: client.NewScript(script), timeout: o.Timeout, prefix: o.Prefix, metrics: m}
	l.breaker = newBreaker(l.Check, func(err error) {
		m.reachable(err == nil)
		if o.Changed != nil {
			o.Changed(err)
		}
	})
	return l, nil
}

// quiet keeps the client's own log, which may hold what Redis said, off standard
// error. It is one for the whole program.
var quiet = sync.OnceFunc(func() { client.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// CheckURL says what is wrong with an Options.URL, without any part of it.
func CheckURL(s string) error {
	_, err := parseURL(s)
	return err
}

// Plain is the host of an Options.URL without TLS, and empty of one with it.
func Plain(s string) (host string) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "redis" {
		return ""
	}
	return u.Hostname()
}

var errURL = errors.New("want redis://user:password@host:port/db, or rediss:// with TLS, and nothing more")

func parseURL(s string) (*client.Options, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "redis" && u.Scheme != "rediss" || u.Opaque != "" || u.Hostname() == "" ||
		u.RawQuery != "" || u.ForceQuery || strings.Contains(s, "#") || strings.HasSuffix(u.Host, ":") {
		return nil, errURL
	}
	o := &client.Options{Network: "tcp"}
	port := u.Port()
	if port == "" {
		port = "6379"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, errURL
	}
	o.Addr = net.JoinHostPort(u.Hostname(), port)
	if u.User != nil {
		o.Username = u.User.Username()
		o.Password, _ = u.User.Password()
		if o.Password == "" { // which the client takes for no user at all
			return nil, errors.New("a user without a password: want redis://user:password@host, or redis://:password@host")
		}
	}
	if db := strings.TrimPrefix(u.Path, "/"); db != "" {
		n, err := strconv.ParseUint(db, 10, 16)
		if err != nil {
			return nil, errURL
		}
		o.DB = int(n)
	}
	if u.Scheme == "rediss" {
		o.TLSConfig = &tls.Config{ServerName: u.Hostname(), MinVersion: tls.VersionTLS12}
	}
	return o, nil
}

// Start asks Redis once, so that the first request finds a connection, or that
// there is none. It is no error where Redis is away.
func (l *Limits) Start(ctx context.Context) {
	if err := l.Check(ctx); err != nil {
		l.breaker.trip(err)
		return
	}
	l.metrics.reachable(true)
}

// Close ends the connections. Nobody waits for an answer any more.
func (l *Limits) Close() error {
	l.breaker.end()
	err := l.client.Close()
	l.breaker.running.Wait()
	return err
}

// Take takes one request from every one of the budgets, or from none of them:
// where one has nothing left, ok is false, retry is how long until all of them
// would have, and spent is the index of the one that takes that long. Concurrent calls, of any number of gateways, are as one after the
// other.
//
// An error means that it cannot be told; that the request was taken all the same
// is possible. While Redis is away it comes at once, else no later than the
// time-out. It holds nothing of what Redis said but a code.
func (l *Limits) Take(ctx context.Context, draws []policy.Draw) (retry time.Duration, spent int, ok bool, err error) {
	turn, err := l.breaker.away()
	if err != nil {
		return 0, 0, false, err
	}
	// A caller who leaves says nothing about Redis.
	retry, spent, ok, err = l.take(context.WithoutCancel(ctx), draws)
	l.breaker.result(turn, err)
	return retry, spent, ok, err
}

// Check asks Redis as Take does, for a budget that nobody needs.
func (l *Limits) Check(ctx context.Context) error {
	_, _, _, err := l.take(ctx, []policy.Draw{{Count: 1_000_000, Period: time.Second, Burst: 1_000_000}})
	return err
}

func (l *Limits) take(ctx context.Context, draws []policy.Draw) (retry time.Duration, spent int, ok bool, err error) {
	keys := make([]string, 0, len(draws))
	args := make([]any, 0, 3*len(draws))
	for i := range draws {
		d := &draws[i]
		keys = append(keys, l.prefix+base64.RawURLEncoding.EncodeToString(d.Key[:]))
		args = append(args, d.Count, int64(d.Period/time.Second), d.Burst)
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	began := time.Now()
	answer, err := l.script.Run(ctx, l.client, keys, args...).Int64Slice()
	if err == nil {
		retry, spent, ok, err = read(answer, len(draws))
	}
	err = failed(err)
	l.metrics.asked(time.Since(began), err)
	return retry, spent, ok, err
}

// read reads what the script gives for a number of budgets.
func read(answer []int64, budgets int) (retry time.Duration, spent int, ok bool, err error) {
	if len(answer) != 4 {
		return 0, 0, false, errAnswer
	}
	taken, s, ns, which := answer[0], answer[1], answer[2], answer[3]
	switch {
	case taken == 1 && s == 0 && ns == 0 && which == 0:
		return 0, 0, true, nil
	case taken != 0 || s < 0 || ns < 0 || ns >= int64(time.Second) || which < 1 || which > int64(budgets):
		return 0, 0, false, errAnswer
	case s > math.MaxInt64/int64(time.Second)-1:
		return math.MaxInt64, int(which - 1), false, nil
	}
	return max(time.Duration(s)*time.Second+time.Duration(ns), 1), int(which - 1), false, nil
}
