package proxy

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"sidegate/policy"
)

const (
	// lookupCacheBytes bounds about what the documents that are kept take.
	lookupCacheBytes = 64 << 20
	// maxDocumentReads bounds the reads at one time: a store that hangs must
	// not gather goroutines and streams.
	maxDocumentReads = 256
	// maxLookupReads bounds those of one lookup, and those of them for callers
	// that nobody vouches for: a store that is slow for some, or strangers who
	// ask for much, must not keep others from theirs.
	maxLookupReads = 64
	maxNobodyReads = 32
)

var (
	errNoLookups   = errors.New("no lookups.firestore in sidegate.yaml")
	errLookupLate  = errors.New("no answer within its timeout")
	errReaderEnded = errors.New("the reader ended without an answer")
)

// A DocumentReader reads documents for the policy's lookups. It is safe for
// concurrent use.
type DocumentReader interface {
	// ReadDocument reads those fields of the document at path, such as
	// shares/abc, as it is now or was at some time since the call began. That
	// it does not exist is no error: an error says that it cannot be told
	// now. It ends soon after ctx does. Nobody changes what it gave.
	ReadDocument(ctx context.Context, path string, fields []string) (policy.Document, error)
}

// A lookupCache reads documents: once for all who ask for the same one at the
// same time, and not again while what was read is young enough. What it cannot
// tell in time is an error. It is safe for concurrent use; the documents it
// gives are shared, and nobody may change them.
type lookupCache struct {
	reader  DocumentReader // nil: none is configured
	now     func() time.Time
	metrics *lookupMetrics
	reads   chan struct{} // has an element for each read under way
	shares  sync.Map      // by the lookup's name: *lookupShare
	flights singleflight.Group
	kept    *keptDocuments
}

// newLookupCache keeps documents of about maxBytes in all. The clock should
// have a monotonic reading, as time.Now has.
func newLookupCache(reader DocumentReader, now func() time.Time, maxBytes int64, m *lookupMetrics) *lookupCache {
	return &lookupCache{reader: reader, now: now, metrics: m, reads: make(chan struct{}, maxDocumentReads), kept: newKeptDocuments(maxBytes)}
}

// A lookupShare is what of the reads one lookup may have under way.
type lookupShare struct{ all, nobody chan struct{} }

func (c *lookupCache) share(name string) *lookupShare {
	if s, ok := c.shares.Load(name); ok {
		return s.(*lookupShare)
	}
	s, _ := c.shares.LoadOrStore(name, &lookupShare{make(chan struct{}, maxLookupReads), make(chan struct{}, maxNobodyReads)})
	return s.(*lookupShare)
}

// nobodyKey marks the context of a read for a caller who was not verified.
type nobodyKey struct{}

// places takes a place in each of the bounds, in an order that is the same for
// all; done gives them back.
func (c *lookupCache) places(ctx context.Context, name string) (done func(), err error) {
	share := c.share(name)
	bounds := []chan struct{}{share.all, c.reads}
	if ctx.Value(nobodyKey{}) != nil {
		bounds = []chan struct{}{share.nobody, share.all, c.reads}
	}
	done = func() {}
	for _, bound := range bounds {
		select {
		case bound <- struct{}{}:
			before := done
			done = func() { <-bound; before() }
		case <-ctx.Done():
			done()
			return nil, fmt.Errorf("%d other reads are under way: %w", cap(bound), context.Cause(ctx))
		}
	}
	return done, nil
}

// A datedDocument is what a read found. The date is that of its beginning: the
// document may have changed at any time since.
type datedDocument struct {
	policy.Document
	began time.Time
}

// within tells whether the document may be taken at that time for what it was
// when it was read. The clock that time.Time counts by stands still while the
// machine is suspended, and the one that it shows may be set back: the greater
// age counts.
func (d datedDocument) within(age time.Duration, at time.Time) bool {
	return max(at.Sub(d.began), at.Round(0).Sub(d.began.Round(0))) <= age
}

// get is the document as the lookup may see it: read now, or read at most
// l.Cache ago. It waits for l.Timeout at most, and not longer than ctx lets
// it; who joins a read that fails, fails with it. An error says that it cannot
// be told.
func (c *lookupCache) get(ctx context.Context, l *policy.Lookup, document string) (policy.Document, error) {
	d, cached, err := c.find(ctx, l, document)
	result := "read"
	switch {
	case err != nil:
		d, err = datedDocument{}, fmt.Errorf("lookup %s: %w", l.Name, err)
		result = "failed"
	case cached:
		result = "cached"
	case !d.Exists:
		result = "missing"
	}
	c.metrics.lookups.WithLabelValues(l.Name, result).Inc()
	return d.Document, err
}

func (c *lookupCache) find(ctx context.Context, l *policy.Lookup, document string) (d datedDocument, cached bool, err error) {
	if c.reader == nil {
		return d, false, errNoLookups
	}
	if l.Cache <= 0 {
		ctx, cancel := context.WithTimeoutCause(ctx, l.Timeout, errLookupLate)
		defer cancel()
		d, err = c.read(ctx, l, document)
		return d, false, err
	}
	asked := c.now()
	key := lookupKey(document, l.Fields)
	if d, ok := c.kept.get(key); ok && d.within(l.Cache, asked) {
		return d, true, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, l.Timeout, errLookupLate)
	defer cancel()
	for {
		select {
		case landed := <-c.fly(ctx, l, document, key):
			if landed.Err != nil {
				return d, false, landed.Err
			}
			// One that had begun long before is too old by now. The next
			// begins after it, and so after this caller asked.
			if d = landed.Val.(datedDocument); d.within(l.Cache, asked) {
				return d, false, nil
			}
		case <-ctx.Done():
			return d, false, context.Cause(ctx)
		}
	}
}

// fly joins the read of that document for that kind of lookup, or begins it.
// It belongs to all who wait, so it does not end with the caller who was
// first. Lookups of another age or timeout fly for themselves: one that is
// impatient does not fail the others.
func (c *lookupCache) fly(ctx context.Context, l *policy.Lookup, document, key string) <-chan singleflight.Result {
	kind := strconv.FormatInt(int64(l.Cache), 10) + "," + strconv.FormatInt(int64(l.Timeout), 10) + ","
	if ctx.Value(nobodyKey{}) != nil { // whose reads have a bound of their own
		kind = "nobody," + kind
	}
	return c.flights.DoChan(kind+key, func() (any, error) {
		// Another may have landed since the caller looked.
		if d, ok := c.kept.get(key); ok && d.within(l.Cache, c.now()) {
			return d, nil
		}
		ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), l.Timeout, errLookupLate)
		defer cancel()
		d, err := c.read(ctx, l, document)
		if err != nil {
			return nil, err
		}
		c.kept.put(key, d)
		return d, nil
	})
}

// read asks the reader. It ends with ctx even where the reader does not, and a
// panic of the reader is an error: singleflight would end the process with it.
func (c *lookupCache) read(ctx context.Context, l *policy.Lookup, document string) (datedDocument, error) {
	done, err := c.places(ctx, l.Name)
	if err != nil {
		return datedDocument{}, err
	}
	type answer struct {
		document policy.Document
		err      error
	}
	answered := make(chan answer, 1)
	began := c.now()
	go func() {
		a := answer{err: errReaderEnded}
		defer func() {
			if broken := recover(); broken != nil {
				a = answer{err: fmt.Errorf("panic: %v", broken)}
			}
			c.metrics.duration.WithLabelValues(l.Name).Observe(c.now().Sub(began).Seconds())
			done()
			answered <- a
		}()
		a.document, a.err = c.reader.ReadDocument(ctx, document, l.Fields)
	}()
	select {
	case a := <-answered:
		return datedDocument{a.document, began}, a.err
	case <-ctx.Done():
		return datedDocument{}, context.Cause(ctx)
	}
}

// lookupKey names what is read. Each part is preceded by its length, so that
// no other document and fields have the same key, whatever a caller puts into
// a document's name (CVE-2026-71326: two requests of different users, one
// flight).
func lookupKey(document string, fields []string) string {
	b := make([]byte, 0, 128)
	b = appendPart(b, document)
	for _, f := range fields {
		b = appendPart(b, f)
	}
	return string(b)
}

func appendPart(b []byte, part string) []byte {
	b = strconv.AppendInt(b, int64(len(part)), 10)
	b = append(b, ':')
	return append(b, part...)
}

// lookupMetrics count the lookups; docs/operations.md explains each.
type lookupMetrics struct {
	lookups  *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

func newLookupMetrics(r prometheus.Registerer) (*lookupMetrics, error) {
	m := &lookupMetrics{
		lookups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sidegate_lookups_total", Help: "Documents that decisions asked for, by lookup and result (cached, read, missing, failed).",
		}, []string{"lookup", "result"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "sidegate_lookup_duration_seconds", Help: "Time of a document's read, failed ones included, by lookup.",
			Buckets:                     []float64{.001, .0025, .005, .01, .025, .05, .1, .2, .3, .5, 1, 2.5, 5, 10},
			NativeHistogramBucketFactor: nativeFactor, NativeHistogramMaxBucketNumber: nativeBuckets, NativeHistogramMinResetDuration: nativeReset,
		}, []string{"lookup"}),
	}
	for _, c := range []prometheus.Collector{m.lookups, m.duration} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}
