package audit

import (
	"context"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// cpu is the CPU time that the process has used, or the thread.
func cpu(b *testing.B, of int) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(of, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

const thread = 1 // RUSAGE_THREAD of getrusage(2)

// usual is what the gate makes of a request that it allows.
func usual() *Event {
	e := request()
	e.Request.Trace = e.Record
	e.Identity.TokenHash = strings.Repeat("0123456789abcdef", 4)
	e.Identity.UID = "kJ8f2LqPz0RtYw7uXcVb3nM5aSd1"
	e.Decision.Rule = "upload/owner"
	e.Decision.Policy.SHA256 = strings.Repeat("fedcba9876543210", 4)
	return e
}

// BenchmarkAppend is what a request pays at survive: crash, hash included:
// append-cpu-ns/op is the CPU of whoever appends, all-cpu-ns/op has the writing
// goroutine's and the system's write(2) in it. ns/op also has the waiting for a
// disk that is slower than the benchmark.
func BenchmarkAppend(b *testing.B) {
	l, err := Open(Options{Dir: b.TempDir(), Gateway: Gateway{Name: "photos"}})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close(context.Background())
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	e := usual()
	b.ReportAllocs()
	var t Ticket
	mine, all := cpu(b, thread), cpu(b, syscall.RUSAGE_SELF)
	for b.Loop() {
		for {
			next, err := l.Append(e)
			if err == nil {
				t = next
				break
			}
			t.Wait(context.Background(), Crash)
		}
	}
	mine = cpu(b, thread) - mine
	t.Wait(context.Background(), Crash)
	all = cpu(b, syscall.RUSAGE_SELF) - all
	b.ReportMetric(float64(mine.Nanoseconds())/float64(b.N), "append-cpu-ns/op")
	b.ReportMetric(float64(all.Nanoseconds())/float64(b.N), "all-cpu-ns/op")
}

// BenchmarkEncode is Append without queue and disk: the line and its hash.
func BenchmarkEncode(b *testing.B) {
	enc := newEncoder(Gateway{Name: "photos"})
	e := usual()
	var prev [32]byte
	b.ReportAllocs()
	before := cpu(b, syscall.RUSAGE_SELF)
	for b.Loop() {
		enc.buf = enc.buf[:0]
		enc.line(e, atNoon, "0123456789abcdef0123456789abcdef", 1, &prev)
		prev = hash(enc.buf)
	}
	used := cpu(b, syscall.RUSAGE_SELF) - before
	b.ReportMetric(float64(used.Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.SetBytes(int64(len(enc.buf)))
}

// BenchmarkSurvive is 64 requests at once that each wait for their own event: how
// many share one write(2), and one fsync. At power there is one fsync a batch.
func BenchmarkSurvive(b *testing.B) {
	for name, level := range map[string]Survive{"crash": Crash, "power": Power} {
		b.Run(name, func(b *testing.B) {
			d := newDisk()
			l, err := Open(Options{Dir: b.TempDir(), Gateway: Gateway{Name: "photos"}, open: d.open})
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close(context.Background())
			writes, syncs := d.writes.Load(), d.syncs.Load()
			const requests = 64
			var all sync.WaitGroup
			each := make(chan struct{}, b.N)
			for range b.N {
				each <- struct{}{}
			}
			close(each)
			b.ResetTimer()
			for range requests {
				all.Go(func() {
					e := usual()
					for range each {
						t, err := l.Append(e)
						if err == nil {
							err = t.Wait(context.Background(), level)
						}
						if err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
			b.StopTimer()
			writes, syncs = d.writes.Load()-writes, d.syncs.Load()-syncs
			b.ReportMetric(float64(b.N)/float64(writes), "events/batch")
			b.ReportMetric(float64(syncs)/float64(writes), "fsyncs/batch")
			if syncs > 0 {
				b.ReportMetric(float64(b.N)/float64(syncs), "events/fsync")
			}
		})
	}
}
