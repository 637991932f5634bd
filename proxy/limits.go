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
	// has nothing left, ok is false and retry is how long until all of them would
	// have. An error means that this cannot be told; it comes soon, whether the
	// store answers or not, and holds nothing secret.
	Take(ctx context.Context, draws []policy.Draw) (retry time.Duration, ok bool, err error)
}

// limit takes the request from the budgets of its caller: 429 where one is used
// up, and 503 where that cannot be told and the policy lets nobody through then.
func (x *exchange) limit(limits []*policy.Limit, d decision) (decision, bool) {
	if len(limits) == 0 || x.limits == nil {
		return d, true
	}
	retry, ok, err := x.take(limits)
	switch {
	case err != nil:
		return refuse(codeUnavailable, unavailable("requests cannot be counted now", err)).by(d), false
	case ok:
		return d, true
	}
	x.sawLimit(x.spentOf(limits, x.p.o.Now()))
	return refuse(codeRate, &problem{status: http.StatusTooManyRequests, code: codeRate, detail: "too many requests; try again later", retry: retry}).by(d), false
}

// take asks the shared budgets where there are any, and else, or while those
// cannot be asked, the gateway's own.
//
// What the shared ones gave is taken from the gateway's own, too, whatever they
// say to it: so these are not full when they are needed, and a store that comes
// and goes gives nobody a burst each time.
func (x *exchange) take(limits []*policy.Limit) (retry time.Duration, ok bool, err error) {
	if x.shared != nil {
		var room [4]policy.Draw
		draws, known := policy.Draws(room[:0], limits, &x.input)
		if !known {
			return time.Second, false, nil
		}
		retry, ok, err = x.shared.Take(x.r.Context(), draws)
		if err == nil && !ok {
			return retry, false, nil
		}
		if err != nil && slices.ContainsFunc(limits, func(l *policy.Limit) bool { return l.Refuse }) {
			return 0, false, err
		}
	}
	own, has := x.limits.Take(limits, &x.input, x.p.o.Now())
	switch {
	case x.shared == nil:
	case err == nil:
		return 0, true, nil
	default:
		x.p.localLimits.WithLabelValues(x.routeID()).Inc()
	}
	return own, has, nil
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
