package cmd

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sidegate/storage/upload"
)

// Uploads that become ready one after the other do not have the store asked
// without end, and none waits for the next sweep that comes by itself.
func TestSweepsAreNotAsManyAsUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		index := &countingIndex{}
		g := &gateway{metrics: prometheus.NewRegistry()}
		g.s.config = &Config{}
		u := &upload.Uploads{Index: index, Now: time.Now}
		if err := g.openSweeping(u); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { g.sweep(t.Context(), ctx); close(done) }()
		for range 1000 {
			u.Woken()
			synctest.Wait()
			time.Sleep(10 * time.Millisecond) // of the bubble's clock
		}
		if n := index.asked.Load(); n < 10 || n > 30 {
			t.Errorf("asked %d times in ten seconds", n)
		}
		stop()
		<-done
	})
}

type countingIndex struct {
	upload.Index
	asked atomic.Int64
}

func (i *countingIndex) Due(context.Context, time.Time, int) ([]*upload.Session, error) {
	i.asked.Add(1)
	return nil, nil
}
