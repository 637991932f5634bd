package proxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sidegate/policy"
)

// readFunc is a reader of documents.
type readFunc func(ctx context.Context, path string, fields []string) (policy.Document, error)

func (f readFunc) ReadDocument(ctx context.Context, path string, fields []string) (policy.Document, error) {
	return f(ctx, path, fields)
}

// testLookups has the clock of its bubble, or the real one.
type testLookups struct {
	*lookupCache
	registry *prometheus.Registry
}

func newTestLookups(t testing.TB, reader DocumentReader) *testLookups {
	t.Helper()
	r := prometheus.NewRegistry()
	m, err := newLookupMetrics(r)
	if err != nil {
		t.Fatal(err)
	}
	return &testLookups{newLookupCache(reader, time.Now, lookupCacheBytes, m), r}
}

// counted is what the metrics say of all lookups, such as "read 1", and how
// many durations were taken.
func (c *testLookups) counted(t *testing.T) (results string, durations uint64) {
	t.Helper()
	families, err := c.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sums := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			for _, label := range m.Label {
				if label.GetName() == "result" {
					sums[label.GetValue()] += m.Counter.GetValue()
				}
			}
			durations += m.Histogram.GetSampleCount()
		}
	}
	var out []string
	for _, result := range slices.Sorted(maps.Keys(sums)) {
		out = append(out, fmt.Sprint(result, " ", sums[result]))
	}
	return strings.Join(out, ", "), durations
}

func aLookup(cache time.Duration) *policy.Lookup {
	return &policy.Lookup{Name: "share", Cache: cache, Timeout: 300 * time.Millisecond, Fields: []string{"n"}}
}

func numbered(n int64) policy.Document {
	return policy.Document{Exists: true, Fields: map[string]any{"n": n}}
}

// numberedReads tells its reads apart by their number, from 1.
func numberedReads(reads *atomic.Int64) readFunc {
	return func(context.Context, string, []string) (policy.Document, error) { return numbered(reads.Add(1)), nil }
}

func (c *testLookups) wantN(t *testing.T, what string, l *policy.Lookup, document string, want int64) {
	t.Helper()
	if d, err := c.get(t.Context(), l, document); err != nil || d.Fields["n"] != want {
		t.Errorf("%s: got %v, %v, want read %d", what, d, err, want)
	}
}

func TestLookupIsOneReadForAllWhoAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		release := make(chan struct{})
		c := newTestLookups(t, readFunc(func(ctx context.Context, path string, fields []string) (policy.Document, error) {
			<-release
			return numberedReads(&reads)(ctx, path, fields)
		}))
		l := aLookup(time.Minute)
		for range 64 {
			go c.wantN(t, "at once", l, "shares/a", 1)
		}
		synctest.Wait()
		close(release)
		synctest.Wait()
		c.wantN(t, "later", l, "shares/a", 1)
		if results, durations := c.counted(t); reads.Load() != 1 || results != "cached 1, read 64" || durations != 1 {
			t.Errorf("%d reads, counted %s, %d durations", reads.Load(), results, durations)
		}
	})
}

// Callers come while reads land: who looked just before one landed does not
// read again.
func TestLookupConcurrently(t *testing.T) {
	var reads sync.Map
	c := newTestLookups(t, readFunc(func(_ context.Context, path string, _ []string) (policy.Document, error) {
		n, _ := reads.LoadOrStore(path, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
		return policy.Document{Exists: true, Fields: map[string]any{"n": path}}, nil
	}))
	l := aLookup(time.Hour)
	l.Timeout = time.Hour
	var all sync.WaitGroup
	for worker := range 64 {
		all.Go(func() {
			for i := range 200 {
				path := fmt.Sprintf("shares/%d", (i+worker%4)%100)
				if d, err := c.get(t.Context(), l, path); err != nil || d.Fields["n"] != path {
					t.Errorf("%s: %v, %v", path, d, err)
				}
			}
		})
	}
	all.Wait()
	reads.Range(func(path, n any) bool {
		if got := n.(*atomic.Int64).Load(); got != 1 {
			t.Errorf("%s was read %d times", path, got)
		}
		return true
	})
}

// The same, made to happen: a read landed between the look and the flight.
func TestLookupLooksAgainBeforeItReads(t *testing.T) {
	var reads atomic.Int64
	c := newTestLookups(t, numberedReads(&reads))
	l := aLookup(time.Hour)
	c.wantN(t, "first", l, "shares/a", 1)
	landed := <-c.fly(t.Context(), l, "shares/a", lookupKey("shares/a", l.Fields))
	if landed.Err != nil || reads.Load() != 1 {
		t.Errorf("%v, %d reads", landed, reads.Load())
	}
}

func TestLookupWithoutCacheIsReadEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		release := make(chan struct{})
		c := newTestLookups(t, readFunc(func(ctx context.Context, path string, fields []string) (policy.Document, error) {
			n := reads.Add(1)
			<-release
			return numbered(n), nil
		}))
		seen := make(chan any, 8)
		for range cap(seen) {
			go func() {
				d, err := c.get(t.Context(), aLookup(0), "shares/a")
				if err != nil {
					t.Error(err)
				}
				seen <- d.Fields["n"]
			}()
		}
		synctest.Wait()
		close(release)
		own := map[any]bool{}
		for range cap(seen) {
			own[<-seen] = true
		}
		if len(own) != cap(seen) {
			t.Errorf("%d callers shared %d reads", cap(seen), len(own))
		}
	})
}

// The age counts from the read's beginning: the document may have changed
// right after.
func TestLookupIsNeverOlderThanItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		c := newTestLookups(t, readFunc(func(context.Context, string, []string) (policy.Document, error) {
			n := reads.Add(1)
			time.Sleep(100 * time.Millisecond)
			return numbered(n), nil
		}))
		l := aLookup(time.Second)
		c.wantN(t, "first", l, "shares/a", 1)
		time.Sleep(900 * time.Millisecond)
		c.wantN(t, "at its end", l, "shares/a", 1)
		time.Sleep(time.Nanosecond)
		c.wantN(t, "after it", l, "shares/a", 2)
	})
}

// A read can be under way for longer than the document may be old: who joins
// it late does not take what it gives.
func TestLookupDoesNotJoinWhatIsTooOld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		c := newTestLookups(t, readFunc(func(context.Context, string, []string) (policy.Document, error) {
			n := reads.Add(1)
			time.Sleep(100 * time.Millisecond)
			return numbered(n), nil
		}))
		l := aLookup(50 * time.Millisecond)
		go c.wantN(t, "first", l, "shares/a", 1)
		time.Sleep(50 * time.Millisecond)
		go c.wantN(t, "just in time", l, "shares/a", 1)
		time.Sleep(time.Nanosecond)
		start := time.Now()
		for range 8 {
			go c.wantN(t, "too late", l, "shares/a", 2)
		}
		c.wantN(t, "too late", l, "shares/a", 2)
		if took := time.Since(start); took >= l.Timeout {
			t.Errorf("it took %s", took)
		}
		synctest.Wait()
		if reads.Load() != 2 {
			t.Errorf("%d reads", reads.Load())
		}
	})
}

func TestLookupKeepsNoErrorAndWhatIsMissing(t *testing.T) {
	var reads atomic.Int64
	fault := errors.New("a fault")
	c := newTestLookups(t, readFunc(func(context.Context, string, []string) (policy.Document, error) {
		switch reads.Add(1) {
		case 1:
			return numbered(1), fault // what comes with an error is no document
		case 2:
			return policy.Document{}, nil
		}
		return numbered(3), nil
	}))
	l := aLookup(time.Minute)
	if d, err := c.get(t.Context(), l, "shares/a"); !errors.Is(err, fault) || d.Exists || d.Fields != nil || !strings.Contains(err.Error(), "lookup share") {
		t.Errorf("%v, %v", d, err)
	}
	for range 3 {
		if d, err := c.get(t.Context(), l, "shares/a"); err != nil || d.Exists {
			t.Errorf("%v, %v", d, err)
		}
	}
	if results, durations := c.counted(t); results != "cached 2, failed 1, missing 1" || durations != 2 {
		t.Errorf("counted %s, %d durations", results, durations)
	}
}

func TestLookupEndsInTime(t *testing.T) {
	// A reader that obeys its context, and one that does not.
	for name, obeys := range map[string]bool{"obeys": true, "hangs": false} {
		for _, cache := range []time.Duration{0, time.Minute} {
			t.Run(fmt.Sprint(name, " ", cache), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					release := make(chan struct{})
					c := newTestLookups(t, readFunc(func(ctx context.Context, _ string, _ []string) (policy.Document, error) {
						if obeys {
							<-ctx.Done()
							return policy.Document{}, ctx.Err()
						}
						<-release
						return numbered(1), nil
					}))
					l := aLookup(cache)
					var all sync.WaitGroup
					for range 8 {
						all.Go(func() {
							start := time.Now()
							d, err := c.get(t.Context(), l, "shares/a")
							if took := time.Since(start); err == nil || d.Exists || took != l.Timeout {
								t.Errorf("%v, %v after %s", d, err, took)
							}
						})
					}
					all.Wait()
					ctx, cancel := context.WithTimeoutCause(t.Context(), time.Millisecond, errClientGone)
					defer cancel()
					start := time.Now()
					_, err := c.get(ctx, l, "shares/b")
					if took := time.Since(start); err == nil || took != time.Millisecond {
						t.Errorf("a caller who leaves: %v after %s", err, took)
					}
					close(release)
					time.Sleep(l.Timeout) // the bubble's: what still flies ends
				})
			})
		}
	}
}

func TestLookupOutlivesTheCallerWhoWasFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		release := make(chan struct{})
		c := newTestLookups(t, readFunc(func(ctx context.Context, _ string, _ []string) (policy.Document, error) {
			n := reads.Add(1)
			select {
			case <-release:
				return numbered(n), nil
			case <-ctx.Done():
				return policy.Document{}, ctx.Err()
			}
		}))
		l := aLookup(time.Minute)
		first, leave := context.WithCancelCause(t.Context())
		left := make(chan error)
		go func() {
			_, err := c.get(first, l, "shares/a")
			left <- err
		}()
		synctest.Wait()
		go c.wantN(t, "the other", l, "shares/a", 1)
		synctest.Wait()
		leave(errClientGone)
		if err := <-left; !errors.Is(err, errClientGone) {
			t.Errorf("who left: %v", err)
		}
		close(release)
		synctest.Wait()
		c.wantN(t, "later", l, "shares/a", 1)
	})
}

// Without a cache nobody else waits for the read: it ends with its caller.
func TestLookupWithoutCacheEndsWithItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Bool
		c := newTestLookups(t, readFunc(func(ctx context.Context, _ string, _ []string) (policy.Document, error) {
			<-ctx.Done()
			ended.Store(true)
			return policy.Document{}, ctx.Err()
		}))
		ctx, leave := context.WithCancel(t.Context())
		go func() { synctest.Wait(); leave() }()
		if d, err := c.get(ctx, aLookup(0), "shares/a"); !errors.Is(err, context.Canceled) || d.Exists {
			t.Errorf("%v, %v", d, err)
		}
		if synctest.Wait(); !ended.Load() {
			t.Error("the read goes on")
		}
	})
}

func TestLookupPanics(t *testing.T) {
	for name, breaks := range map[string]func(){"panic": func() { panic("sesame") }, "Goexit": runtime.Goexit, "nil": func() { panic(nil) }} {
		for _, cache := range []time.Duration{0, time.Minute} {
			t.Run(fmt.Sprint(name, " ", cache), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var whole atomic.Bool
					release := make(chan struct{})
					c := newTestLookups(t, readFunc(func(context.Context, string, []string) (policy.Document, error) {
						<-release
						if !whole.Load() {
							breaks()
						}
						return numbered(1), nil
					}))
					l := aLookup(cache)
					start := time.Now()
					var all sync.WaitGroup
					for range 8 {
						all.Go(func() {
							if d, err := c.get(t.Context(), l, "shares/a"); err == nil || d.Exists || errors.Is(err, errLookupLate) {
								t.Errorf("%v, %v", d, err)
							}
						})
					}
					synctest.Wait()
					close(release)
					all.Wait()
					for range maxDocumentReads { // each gives back its place
						_, _ = c.get(t.Context(), l, "shares/a")
					}
					if took := time.Since(start); took != 0 {
						t.Errorf("somebody waited %s", took)
					}
					whole.Store(true)
					c.wantN(t, "after it", l, "shares/a", 1)
				})
			})
		}
	}
}

// A store that hangs gathers no more reads than that; what waits behind them
// fails in time.
func TestLookupReadsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads, most atomic.Int64
		release := make(chan struct{})
		c := newTestLookups(t, readFunc(func(context.Context, string, []string) (policy.Document, error) {
			most.Store(max(most.Load(), reads.Add(1)))
			defer reads.Add(-1)
			<-release
			return numbered(1), nil
		}))
		start := time.Now()
		var all sync.WaitGroup
		for i := range 2 * maxDocumentReads {
			l := aLookup(time.Duration(i%2) * time.Minute)
			l.Name = fmt.Sprint("share", i%16) // each may have its share
			all.Go(func() {
				if d, err := c.get(t.Context(), l, fmt.Sprint("shares/", i)); err == nil || d.Exists {
					t.Errorf("%v, %v", d, err)
				}
			})
		}
		all.Wait()
		if took := time.Since(start); took != 300*time.Millisecond {
			t.Errorf("it took %s", took)
		}
		for _, cache := range []time.Duration{0, time.Minute} {
			if _, err := c.get(t.Context(), aLookup(cache), "shares/x"); err == nil || cache == 0 && !strings.Contains(err.Error(), "256 other reads") {
				t.Errorf("one more: %v", err)
			}
		}
		close(release)
		synctest.Wait()
		c.wantN(t, "after it", aLookup(0), "shares/x", 1)
		if most.Load() != maxDocumentReads {
			t.Errorf("%d reads at one time", most.Load())
		}
	})
}

// TestAttackStarvingLookups: one lookup that is slow, and callers whom nobody
// vouches for, leave the others their reads.
func TestAttackStarvingLookups(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Int64
		release := make(chan struct{})
		c := newTestLookups(t, readFunc(func(_ context.Context, path string, _ []string) (policy.Document, error) {
			if strings.HasPrefix(path, "slow/") {
				slow.Add(1)
				<-release
			}
			return numbered(1), nil
		}))
		named := func(name string) *policy.Lookup {
			return &policy.Lookup{Name: name, Timeout: 2 * time.Second, Fields: []string{"n"}}
		}
		nobody := context.WithValue(t.Context(), nobodyKey{}, true)
		for i := range 300 {
			go c.get(nobody, named("slow"), fmt.Sprint("slow/", i))
		}
		synctest.Wait()
		if n := slow.Load(); n != maxNobodyReads {
			t.Errorf("%d reads for nobody", n)
		}
		for i := range 300 {
			go c.get(t.Context(), named("slow"), fmt.Sprint("slow/known", i))
		}
		synctest.Wait()
		if n := slow.Load(); n != maxLookupReads {
			t.Errorf("%d reads of one lookup", n)
		}
		if d, err := c.get(t.Context(), named("quick"), "quick/a"); err != nil || !d.Exists {
			t.Errorf("another lookup: %v, %v", d, err)
		}
		if d, err := c.get(nobody, named("quick"), "quick/b"); err != nil || !d.Exists {
			t.Errorf("another lookup, for nobody: %v, %v", d, err)
		}
		close(release)
		synctest.Wait()
	})
}

// Who is verified does not join a read that waits for one of the places of
// strangers.
func TestAttackStrangersReadIsNotJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		c := newTestLookups(t, readFunc(func(_ context.Context, path string, _ []string) (policy.Document, error) {
			if strings.HasPrefix(path, "slow/") {
				<-release
			}
			return numbered(1), nil
		}))
		l := &policy.Lookup{Name: "share", Cache: time.Minute, Timeout: 2 * time.Second, Fields: []string{"n"}}
		nobody := context.WithValue(t.Context(), nobodyKey{}, true)
		for i := range maxNobodyReads {
			go c.get(nobody, l, fmt.Sprint("slow/", i))
		}
		synctest.Wait()
		go c.get(nobody, l, "shares/a")
		synctest.Wait()
		start := time.Now()
		c.wantN(t, "verified", l, "shares/a", 1)
		if took := time.Since(start); took != 0 {
			t.Errorf("it waited %s for a stranger", took)
		}
		close(release)
		synctest.Wait()
	})
}

// Lookups of one document that differ otherwise have each their own way.
func TestLookupsDoNotDisturbEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reads atomic.Int64
		c := newTestLookups(t, readFunc(func(ctx context.Context, _ string, fields []string) (policy.Document, error) {
			n := reads.Add(1)
			select {
			case <-time.After(100 * time.Millisecond):
				return policy.Document{Exists: true, Fields: map[string]any{"n": n, "fields": strings.Join(fields, " ")}}, nil
			case <-ctx.Done():
				return policy.Document{}, ctx.Err()
			}
		}))
		long, short, other, impatient := aLookup(time.Hour), aLookup(time.Second), aLookup(time.Hour), aLookup(time.Hour)
		other.Fields = []string{"m", "n"}
		impatient.Timeout = 50 * time.Millisecond

		go func() {
			if d, err := c.get(t.Context(), impatient, "shares/a"); err == nil {
				t.Errorf("impatient: %v", d)
			}
		}()
		synctest.Wait()
		c.wantN(t, "while an impatient one reads", long, "shares/a", 2)
		c.wantN(t, "impatient, but it is there", impatient, "shares/a", 2)
		c.wantN(t, "short", short, "shares/a", 2)
		if d, err := c.get(t.Context(), other, "shares/a"); err != nil || d.Fields["n"] != int64(3) || d.Fields["fields"] != "m n" {
			t.Errorf("other fields: %v, %v", d, err)
		}
		time.Sleep(time.Second)
		c.wantN(t, "long, after a second", long, "shares/a", 2)
		c.wantN(t, "short, after a second", short, "shares/a", 4)
		c.wantN(t, "long, after the short one's", long, "shares/a", 4)
		c.wantN(t, "other fields", other, "shares/a", 3)
		time.Sleep(time.Hour - 100*time.Millisecond)
		c.wantN(t, "long, to its end", long, "shares/a", 4)
	})
}

func TestLookupWithoutReader(t *testing.T) {
	c := newTestLookups(t, nil)
	for _, cache := range []time.Duration{0, time.Minute} {
		if d, err := c.get(t.Context(), aLookup(cache), "shares/a"); !errors.Is(err, errNoLookups) || d.Exists || !strings.Contains(err.Error(), "no lookups.firestore in sidegate.yaml") {
			t.Errorf("%v, %v", d, err)
		}
	}
	if results, durations := c.counted(t); results != "failed 2" || durations != 0 {
		t.Errorf("counted %s, %d durations", results, durations)
	}
}

// CVE-2026-71326: two requests with one key in a singleflight, by a delimiter
// within a part.
func TestLookupKeysDoNotCollide(t *testing.T) {
	parts := []string{"", "a", "1", ":", "1:", "1:a", "0:", "a1:a", "a/b", "a,b", "1:a1:a", "2:1:", "\x00", "é",
		"4bbbb5ccccc", "bbbb", "ccccc"} // where no colon ends the length
	seen := map[string][]string{}
	check := func(document string, fields ...string) {
		key := lookupKey(document, fields)
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have the key %q", append([]string{document}, fields...), other, key)
		}
		seen[key] = append([]string{document}, fields...)
	}
	for _, a := range parts {
		check(a)
		for _, b := range parts {
			check(a, b)
			for _, c := range parts {
				check(a, b, c)
			}
		}
	}
}

func (k *keptDocuments) sum() (bytes int64) {
	for e := k.recent.Front(); e != nil; e = e.Next() {
		bytes += e.Value.(*keptDocument).bytes
	}
	return bytes
}

func TestKeptDocumentsAreBounded(t *testing.T) {
	const maxBytes = 1 << 20
	at := time.Now()
	text := func(n int) datedDocument {
		return datedDocument{policy.Document{Exists: true, Fields: map[string]any{"list": []any{strings.Repeat("x", n)}}}, at}
	}
	has := func(k *keptDocuments, key string) bool {
		_, ok := k.get(key)
		return ok
	}
	k := newKeptDocuments(maxBytes)
	for i := range 1000 {
		k.put(fmt.Sprint(i), text(10<<10))
		if !has(k, "0") || k.bytes > maxBytes || k.bytes != k.sum() || len(k.entries) != k.recent.Len() {
			t.Fatalf("after %d: %d bytes, in truth %d, in %d and %d entries, the first is there: %v", i, k.bytes, k.sum(), len(k.entries), k.recent.Len(), has(k, "0"))
		}
	}
	if n := len(k.entries); n < 80 || n > 102 || has(k, "1") || has(k, "900") || !has(k, "999") {
		t.Errorf("%d entries; what was used last stays, what was not goes", n)
	}
	before := k.bytes
	k.put("large", text(maxBytes/keptShare))
	if has(k, "large") || k.bytes != before {
		t.Error("a large document is kept")
	}
	k.put("0", text(maxBytes/keptShare))
	if has(k, "0") || k.bytes != k.sum() {
		t.Error("a document is kept of which is known that it is outdated")
	}
	k.put("999", datedDocument{numbered(1), at.Add(-time.Second)})
	if d, _ := k.get("999"); d.Fields["n"] != nil {
		t.Error("an earlier read replaces a later one")
	}

	k = newKeptDocuments(1 << 40)
	for i := range maxKeptDocuments + 10 {
		k.put(fmt.Sprint(i), datedDocument{began: at})
	}
	if len(k.entries) != maxKeptDocuments || has(k, "9") || !has(k, "10") {
		t.Errorf("%d entries", len(k.entries))
	}
	k = newKeptDocuments(0)
	if k.put("a", text(1)); len(k.entries) != 0 {
		t.Error("something is kept in no bytes at all")
	}
}

// TestKeptDocumentsAreEstimatedHighEnough compares with what the runtime says.
func TestKeptDocumentsAreEstimatedHighEnough(t *testing.T) {
	for name, make1 := range map[string]func(i int) policy.Document{
		"missing": func(int) policy.Document { return policy.Document{} },
		"one":     func(i int) policy.Document { return numbered(int64(i) + 1<<40) },
		"texts": func(i int) policy.Document {
			list := []any{}
			for j := range 50 {
				list = append(list, fmt.Sprintf("reader-%d-%d", i, j))
			}
			return policy.Document{Exists: true, Fields: map[string]any{"readers": list, "until": time.Now()}}
		},
		"maps": func(i int) policy.Document {
			all := map[string]any{}
			for j := range 30 {
				all[fmt.Sprintf("k%d-%d", i, j)] = map[string]any{"a": 1.5 + float64(i), "b": map[string]any{}, "c": []any{}}
			}
			return policy.Document{Exists: true, Fields: map[string]any{"m": all}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			const documents = 2000
			heap := func() int64 {
				var m runtime.MemStats
				runtime.GC()
				runtime.GC()
				runtime.ReadMemStats(&m)
				return int64(m.HeapAlloc)
			}
			k := newKeptDocuments(1 << 40)
			before := heap()
			for i := range documents {
				k.put(lookupKey(fmt.Sprintf("shares/%064d", i), []string{"n"}), datedDocument{make1(i), time.Now()})
			}
			took := heap() - before
			if len(k.entries) != documents || took > k.bytes { // other tests' garbage can only make less of it
				t.Errorf("%d bytes, estimated at %d", took/documents, k.bytes/documents)
			}
			t.Logf("%d bytes, estimated at %d", took/documents, k.bytes/documents)
			runtime.KeepAlive(k)
		})
	}
}

func BenchmarkLookupCached(b *testing.B) {
	c := newTestLookups(b, numberedReads(new(atomic.Int64)))
	l := aLookup(time.Hour)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.get(b.Context(), l, "shares/0123456789abcdef0123456789abcdef"); err != nil {
			b.Fatal(err)
		}
	}
}
