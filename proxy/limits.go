package proxy

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sidegate/policy"
)

// Limits keep the budgets of limits for several gateways. They are safe for
// concurrent use.
type Limits interface {
	// Take takes one request from every one of the budgets, or from none: where one
	// has nothing left, ok is false, retry is how long until all of them would have,
	// and spent is the index of the one that takes that long. An error means that this cannot be told; it comes soon, whether the
	// store answers or not, and holds nothing secret.
	Take(ctx context.Context, draws []policy.Draw) (retry time.Duration, spent int, ok bool, err error)
}

// limit takes the request from the budgets of its caller: 429 where one is used
// up, and 503 where that cannot be told and the policy lets nobody through then.
func (x *exchange) limit(limits []*policy.Limit, d decision) (decision, bool) {
	if len(limits) == 0 || x.limits() == nil {
		return d, true
	}
	retry, spent, err := x.take(limits)
	switch {
	case err != nil:
		return refuse(codeUnavailable, unavailable("requests cannot be counted now", err)).by(d), false
	case spent == nil:
		return d, true
	}
	x.sawLimit(spent.By.String())
	return refuse(codeRate, &problem{status: http.StatusTooManyRequests, code: codeRate, detail: "too many requests; try again later", retry: retry}).by(d), false
}

// limits are the gateway's own, or those of a request that is only judged, which
// draws on no other.
func (x *exchange) limits() *policy.Limiter {
	if x.given != nil {
		return x.given.Limits
	}
	return x.p.limits
}

// take asks the shared budgets where there are any, and else, or while those
// cannot be asked, the gateway's own. Where one has nothing left, that is spent.
func (x *exchange) take(limits []*policy.Limit) (retry time.Duration, spent *policy.Limit, err error) {
	if x.given != nil || x.p.o.Limits == nil {
		retry, spent = x.takeOwn(limits)
		return retry, spent, nil
	}
	var room [4]policy.Draw
	draws, known := policy.Draws(room[:0], limits, &x.input)
	if !known {
		return time.Second, limits[0], nil
	}
	retry, which, ok, err := x.askShared(draws)
	switch {
	case err == nil && ok:
		x.follow(limits)
		return 0, nil, nil
	case err == nil:
		return retry, limits[which], nil
	case slices.ContainsFunc(limits, func(l *policy.Limit) bool { return l.Refuse }):
		return 0, nil, err
	}
	x.p.localLimits.WithLabelValues(x.routeID()).Inc()
	retry, spent = x.takeOwn(limits)
	return retry, spent, nil
}

// patience is how long a request for many things waits for the shared budgets, of
// which each thing asks: then the rest is as if they could not be asked.
const patience = 2 * time.Second

var errPatience = errors.New("the shared budgets answer too slowly to be asked for each item of a batch")

func (x *exchange) askShared(draws []policy.Draw) (retry time.Duration, spent int, ok bool, err error) {
	if x.further && x.waited >= patience {
		return 0, 0, false, errPatience
	}
	began := x.p.o.Now()
	retry, spent, ok, err = x.p.o.Limits.Take(x.ctx, draws)
	x.waited += x.p.o.Now().Sub(began)
	return retry, spent, ok, err
}

func (x *exchange) takeOwn(limits []*policy.Limit) (retry time.Duration, spent *policy.Limit) {
	retry, ok := x.limits().Take(limits, &x.input, x.p.o.Now())
	if ok {
		return 0, nil
	}
	if len(limits) > 1 {
		spent = x.limits().Spent(limits, &x.input, x.p.o.Now())
	}
	if spent == nil { // by now all have some left again
		spent = limits[0]
	}
	return retry, spent
}

// follow takes what the shared budgets gave from each of the gateway's own, too,
// whatever they say to it: so these are not full when they are needed, and a store
// that comes and goes gives nobody a burst each time. One that has nothing left
// does not keep the others from being taken from.
func (x *exchange) follow(limits []*policy.Limit) {
	for i := range limits {
		x.limits().Take(limits[i:i+1], &x.input, x.p.o.Now())
	}
}

// newLocalLimits counts what Limits would be for; it is registered where there
// are some.
func newLocalLimits(o *Options) (*prometheus.CounterVec, error) {
	if o.Limits == nil {
		return nil, nil
	}
	c := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sidegate_limits_local_total", Help: "Times that a gateway counted limits by itself, since the budgets that it shares could not be asked, by route.",
	}, []string{"route"})
	if err := o.Metrics.Register(c); err != nil {
		return nil, errors.Join(errors.New("proxy: limits"), err)
	}
	return c, nil
}
