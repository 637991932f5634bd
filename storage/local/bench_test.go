package local

import (
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"sidegate/storage/upload"
)

// BenchmarkCreate is what a session costs in a store that holds 20,000: CPU of
// all threads, for so many that ask at once and share transactions.
func BenchmarkCreate(b *testing.B) {
	for _, quota := range []*upload.Quota{nil, {Objects: 1 << 40, Window: time.Hour}} {
		for _, c := range [][2]int{{1, 1000}, {8, 1000}, {64, 1}, {64, 1000}} {
			callers, users := c[0], c[1]
			b.Run(fmt.Sprintf("quota=%v/callers=%d/users=%d", quota != nil, callers, users), func(b *testing.B) {
				s, err := Open(b.TempDir())
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
				createAtOnce(b, s, 20000, 1000, users, quota)
				b.ResetTimer()
				before, written := cpu(b), s.transactions(b)
				createAtOnce(b, s, b.N, callers, users, quota)
				b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
				b.ReportMetric(float64(b.N)/float64(s.transactions(b)-written), "sessions/transaction")
			})
		}
	}
}

// transactions is how many were written so far.
func (s *Store) transactions(b *testing.B) (n int) {
	if err := s.db.View(func(tx *bolt.Tx) error { n = tx.ID(); return nil }); err != nil {
		b.Fatal(err)
	}
	return n
}

func createAtOnce(b *testing.B, s *Store, n, callers, users int, q *upload.Quota) {
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := c; i < n; i += callers {
				one := session()
				one.UID, one.Key = fmt.Sprint("u", i%users), "users/u1/"+one.ID
				one.CreatedAt = one.CreatedAt.Add(time.Duration(i) * time.Millisecond)
				one.Wake = one.CreatedAt.Add(time.Hour)
				if q != nil {
					one.Quota, one.QuotaWindow, one.Held = "uploads", start, true
				}
				if err := s.Create(b.Context(), one, q); err != nil {
					b.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
