package cmd

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sidegate/storage/audit"
	"sidegate/storage/s3"
	"sidegate/storage/upload"
)

const (
	// sweepPause is between two sweeps at most. A session that is due sooner, or
	// that just ended and is to be told of, ends the pause.
	sweepPause = 15 * time.Second
	// sweepChance is up to how much longer it is, so that gateways that share a
	// store do not all look at the same moment.
	sweepChance = time.Second
	// sweepGap is the least time from one sweep to the next, whatever ends: where
	// many uploads become ready each second, one sweep is for many of them, and
	// not a round of queries for each.
	sweepGap = time.Second
)

// A sweeping is what looks after upload sessions in the background.
type sweeping struct {
	sweeper upload.Sweeper
	wake    chan struct{}
	swept   *prometheus.CounterVec
	failing prometheus.Gauge
	last    prometheus.Gauge
}

// openSweeping prepares to look after the sessions, and to tell the webhook of
// them where there is one.
func (g *gateway) openSweeping(u *upload.Uploads) error {
	var notifier upload.Notifier
	if g.s.config.Webhook.URL.IsSet() {
		endpoint, err := g.s.config.webhook()
		if err != nil {
			return err
		}
		notifier = endpoint
	}
	s := &sweeping{
		wake: make(chan struct{}, 1),
		swept: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sidegate_uploads_swept_total",
			Help: "Upload sessions that were ended or told of in the background, by what was done."}, []string{"what"}),
		failing: prometheus.NewGauge(prometheus.GaugeOpts{Name: "sidegate_uploads_sweep_failing",
			Help: "1 while the store of upload sessions cannot be swept."}),
		last: prometheus.NewGauge(prometheus.GaugeOpts{Name: "sidegate_uploads_last_sweep_timestamp_seconds",
			Help: "When the last whole sweep of upload sessions ended; 0: not since the start."}),
	}
	for _, what := range upload.SweptWords {
		s.swept.WithLabelValues(what)
	}
	g.metrics.MustRegister(s.swept, s.failing, s.last)
	s.sweeper = upload.Sweeper{Uploads: u, Notify: notifier, Record: g.recordSweep, Report: func(w upload.Swept) {
		s.swept.WithLabelValues(w.What).Inc()
		g.tellSwept(w)
	}}
	u.Notices = notifier != nil
	u.Woken = func() {
		select {
		case s.wake <- struct{}{}:
		default: // one is waiting, and will see this session too
		}
	}
	g.sweeping = s
	return nil
}

// measureSkew shows how far the store's clock is from this machine's: beyond
// some minutes it refuses what is signed here.
func (g *gateway) measureSkew(name string, b *s3.Bucket) error {
	return g.metrics.Register(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sidegate_store_clock_skew_seconds",
		Help:        "How far the store's clock is ahead of this machine's, by its last answer; NaN: it was not asked yet.",
		ConstLabels: prometheus.Labels{"bucket": name}}, func() float64 {
		skew, known := b.Skew()
		if !known {
			return math.NaN()
		}
		return skew.Seconds()
	}))
}

// sweep looks at what is due until the gateway stops, or background ends.
func (g *gateway) sweep(background, stopping context.Context) {
	ctx, cancel := context.WithCancel(background)
	defer cancel()
	defer context.AfterFunc(stopping, cancel)()
	s := g.sweeping
	for {
		gap := time.NewTimer(sweepGap)
		_, err := s.sweeper.Sweep(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			s.failing.Set(1)
			g.log.Warn().Err(err).Msg("the upload sessions cannot be swept now; it is tried again")
		default:
			s.failing.Set(0)
			s.last.SetToCurrentTime()
		}
		select {
		case <-ctx.Done():
		case <-gap.C:
		}
		pause := time.NewTimer(s.sweeper.Next(ctx, sweepPause) + rand.N(sweepChance))
		select {
		case <-ctx.Done():
		case <-s.wake:
		case <-pause.C:
		}
		pause.Stop()
	}
}

// recordSweep puts on record what is done to a bucket without a request.
func (g *gateway) recordSweep(ctx context.Context, s *upload.Session, what string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	e := &audit.Event{Type: audit.TypeSystem, Time: time.Now(), System: &audit.System{Event: "upload_" + what, Detail: map[string]string{
		"session": s.ID, "namespace": s.Namespace, "uid": s.UID, "record": s.Record,
	}}}
	e.Object = &audit.Object{Bucket: s.Bucket, Key: s.Key, Operation: "delete", ContentType: s.ContentType, Size: -1, Session: s.ID}
	if what == upload.SweptAborted {
		e.Object.Operation = "multipart_abort"
	}
	if err := (recorder{g.ledger}).Record(ctx, e, g.s.config.Audit.Survive); err != nil {
		return fmt.Errorf("put on record what is done to an upload: %w", err)
	}
	return nil
}

// tellSwept logs what needs a look; what ends as it should is in the metrics.
func (g *gateway) tellSwept(w upload.Swept) {
	e := g.log.Debug()
	switch w.What {
	case upload.SweptFailed, upload.SweptNoticeFailed, upload.SweptNoticeGivenUp:
		e = g.log.Warn()
	}
	e.Str("session", w.Session.ID).Str("status", string(w.Session.Status)).Str("bucket", w.Session.Bucket).
		Dur("late_ms", w.Late).AnErr("error", w.Err).Msg("upload session: " + w.What)
}
