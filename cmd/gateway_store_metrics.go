package cmd

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sidegate/storage/s3"
	"sidegate/storage/upload"
)

// storeMetrics tell how the object stores and the store of upload sessions do,
// and what was signed.
type storeMetrics struct {
	calls           *prometheus.HistogramVec // of object stores
	failures        *prometheus.CounterVec
	signed          *prometheus.CounterVec
	sessions        *prometheus.HistogramVec
	sessionFailures *prometheus.CounterVec
	states          *prometheus.CounterVec
}

// storeBuckets are of calls over a network. Beside them are native histograms.
var storeBuckets = []float64{.0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

func newStoreMetrics(r prometheus.Registerer) *storeMetrics {
	histogram := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: storeBuckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 100, NativeHistogramMinResetDuration: time.Hour}, labels)
	}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &storeMetrics{
		calls:           histogram("sidegate_store_duration_seconds", "Time of a call of an object store, failed ones included, by bucket and S3's name of the call.", "bucket", "operation"),
		failures:        counter("sidegate_store_failures_total", "Calls of an object store, and signatures (operation Sign), that failed, by bucket, operation and kind.", "bucket", "operation", "kind"),
		signed:          counter("sidegate_signed_total", "URLs that were signed, by bucket and by what each lets its holder do once.", "bucket", "operation"),
		sessions:        histogram("sidegate_sessions_duration_seconds", "Time of a call of the store of upload sessions, failed ones included.", "operation"),
		sessionFailures: counter("sidegate_sessions_failures_total", "Calls of the store of upload sessions that failed.", "operation"),
		states:          counter("sidegate_uploads_total", "Upload sessions that this gateway brought into a state, by the state.", "state"),
	}
	for _, state := range []upload.Status{upload.Issued, upload.Uploading, upload.Ready, upload.Rejected, upload.Failed, upload.Aborted, upload.Expired} {
		m.states.WithLabelValues(string(state))
	}
	for _, operation := range []string{"create", "get", "transition", "list", "find", "due"} {
		m.sessionFailures.WithLabelValues(operation)
	}
	r.MustRegister(m.calls, m.failures, m.signed, m.sessions, m.sessionFailures, m.states)
	return m
}

// of is told of the calls of a bucket.
func (m *storeMetrics) of(bucket string) func(s3.Call) {
	return func(c s3.Call) {
		m.calls.WithLabelValues(bucket, c.Operation).Observe(c.Took.Seconds())
		if c.Failure != "" {
			m.failures.WithLabelValues(bucket, c.Operation, c.Failure).Inc()
		}
	}
}

// A countedBucket counts what is signed. What else a bucket does is a call, and
// counted as that.
type countedBucket struct {
	upload.Bucket
	name string
	m    *storeMetrics
}

func (b *countedBucket) SignPut(ctx context.Context, p upload.Put) (upload.Signed, error) {
	operation := "put"
	if p.Form {
		operation = "post"
	}
	s, err := b.Bucket.SignPut(ctx, p)
	b.count(err, operation)
	return s, err
}

func (b *countedBucket) SignGet(ctx context.Context, g upload.Get) (upload.Signed, error) {
	operation := "get"
	if g.Head {
		operation = "head"
	}
	s, err := b.Bucket.SignGet(ctx, g)
	b.count(err, operation)
	return s, err
}

func (b *countedBucket) SignMultipart(ctx context.Context, calls []upload.MultipartCall) ([]upload.Signed, error) {
	s, err := b.Bucket.SignMultipart(ctx, calls)
	if err != nil {
		b.count(err, "")
		return s, err
	}
	for _, c := range calls {
		b.count(nil, multipartOperation(c.Op))
	}
	return s, err
}

func multipartOperation(o upload.MultipartOp) string {
	switch o {
	case upload.CreateUpload:
		return "multipart_create"
	case upload.UploadPart:
		return "multipart_part"
	case upload.ListParts:
		return "multipart_list"
	case upload.CompleteUpload:
		return "multipart_complete"
	case upload.AbortUpload:
		return "multipart_abort"
	}
	return "other"
}

// count counts a signature. It fails for want of credentials, or for what was
// asked for, which is no failure of the store's.
func (b *countedBucket) count(err error, operation string) {
	switch {
	case err == nil:
		b.m.signed.WithLabelValues(b.name, operation).Inc()
	case errors.Is(err, upload.ErrUnavailable) && !errors.Is(err, context.Canceled):
		b.m.failures.WithLabelValues(b.name, "Sign", s3.FailureCredentials).Inc()
	}
}

// measuredSessions are a store of sessions whose calls are measured.
type measuredSessions struct {
	sessions
	m *storeMetrics
}

// measure counts one call. What the store says of a session is no failure, nor is
// it one that its caller went away.
func (s *measuredSessions) measure(ctx context.Context, operation string, began time.Time, err error) {
	if err != nil && ctx.Err() == context.Canceled {
		return
	}
	s.m.sessions.WithLabelValues(operation).Observe(time.Since(began).Seconds())
	var full *upload.QuotaError
	switch {
	case err == nil, errors.As(err, &full):
		return
	case !errors.Is(err, upload.ErrUnavailable):
		for _, answer := range []error{upload.ErrNotFound, upload.ErrExists, upload.ErrConflict, upload.ErrCursor} {
			if errors.Is(err, answer) {
				return
			}
		}
	}
	s.m.sessionFailures.WithLabelValues(operation).Inc()
}

func (s *measuredSessions) Create(ctx context.Context, one *upload.Session, q *upload.Quota) error {
	began := time.Now()
	err := s.sessions.Create(ctx, one, q)
	s.measure(ctx, "create", began, err)
	if err == nil {
		s.m.states.WithLabelValues(string(one.Status)).Inc()
	}
	return err
}

func (s *measuredSessions) Get(ctx context.Context, id string) (*upload.Session, error) {
	began := time.Now()
	one, err := s.sessions.Get(ctx, id)
	s.measure(ctx, "get", began, err)
	return one, err
}

func (s *measuredSessions) Transition(ctx context.Context, from upload.Status, next *upload.Session) error {
	began := time.Now()
	err := s.sessions.Transition(ctx, from, next)
	s.measure(ctx, "transition", began, err)
	if err == nil && next.Status != from {
		s.m.states.WithLabelValues(string(next.Status)).Inc()
	}
	return err
}

func (s *measuredSessions) List(ctx context.Context, namespace, uid, cursor string, limit int) ([]*upload.Session, string, error) {
	began := time.Now()
	all, next, err := s.sessions.List(ctx, namespace, uid, cursor, limit)
	s.measure(ctx, "list", began, err)
	return all, next, err
}

func (s *measuredSessions) Find(ctx context.Context, namespace, uid, key string) (*upload.Session, error) {
	began := time.Now()
	one, err := s.sessions.Find(ctx, namespace, uid, key)
	s.measure(ctx, "find", began, err)
	return one, err
}

func (s *measuredSessions) Due(ctx context.Context, now time.Time, limit int) ([]*upload.Session, error) {
	began := time.Now()
	due, err := s.sessions.Due(ctx, now, limit)
	s.measure(ctx, "due", began, err)
	return due, err
}
