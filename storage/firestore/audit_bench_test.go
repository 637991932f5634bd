package firestore

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sidegate/storage/audit"
)

// BenchmarkShipping is the ledger's own way to the emulator: read, fsynced,
// sent batch by batch, noted and fsynced. The collection is an old one.
func BenchmarkShipping(b *testing.B) {
	log := connect(b, Options{Emulator: emulator(b)}).Audit("auditLog", 0)
	dir := b.TempDir()
	l := open(b, audit.Options{Dir: dir, Sink: log})
	shipOne(b, l)
	closed(b, l)
	forgetSince(b, filepath.Join(dir, "shipped.json"))

	// The backlog is written first, so that only shipping is measured.
	l = open(b, audit.Options{Dir: dir})
	var last audit.Ticket
	for i := range b.N {
		var err error
		if last, err = l.Append(decision(i)); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 999 {
			if err := last.Wait(b.Context(), audit.Crash); err != nil {
				b.Fatal(err)
			}
		}
	}
	closed(b, l)

	b.ResetTimer()
	l = open(b, audit.Options{Dir: dir, Sink: log})
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	if s := l.Stats(); s.Shipped != uint64(b.N)+1 || len(s.Failures) > 0 {
		b.Fatalf("%+v", s)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

func shipOne(b *testing.B, l *audit.Ledger) {
	ticket, err := l.Append(decision(0))
	if err == nil {
		err = ticket.Wait(b.Context(), audit.Machine)
	}
	if err != nil {
		b.Fatal(err)
	}
}

// forgetSince makes a folder one that shipped long ago: without the ramp.
func forgetSince(b *testing.B, name string) {
	data, err := os.ReadFile(name)
	if err != nil {
		b.Fatal(err)
	}
	var resume map[string]any
	if err := json.Unmarshal(data, &resume); err != nil {
		b.Fatal(err)
	}
	delete(resume, "since")
	if data, err = json.Marshal(resume); err != nil {
		b.Fatal(err)
	}
	if err := os.WriteFile(name, data, 0o600); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkBatch is one call of so many events, to choose a batch's size by.
func BenchmarkBatch(b *testing.B) {
	log := connect(b, Options{Emulator: emulator(b)}).Audit("auditLog", 0)
	for _, n := range []int{20, 100, 200, 500} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			dir := b.TempDir()
			l := open(b, audit.Options{Dir: dir})
			for i := range n {
				if _, err := l.Append(decision(i)); err != nil {
					b.Fatal(err)
				}
			}
			closed(b, l)
			lines, err := audit.Tail(dir, n)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				for i := range lines {
					lines[i].ID = audit.NewID()
				}
				if _, err := log.Store(b.Context(), lines); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n*b.N)/b.Elapsed().Seconds(), "events/s")
		})
	}
}
