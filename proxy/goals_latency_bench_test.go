package proxy_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"sidegate/proxy"
	"sidegate/storage/audit"
)

// BenchmarkGoalLatency is what a caller waits, at one connection and at many, by
// what the bare ReverseProxy has him wait: medians of the rounds' percentiles.
func BenchmarkGoalLatency(b *testing.B) {
	s := newGoalScene(b)
	tokens := s.tokens(benchToken())
	bare, gate := s.bare(s.hello.App, false), s.gate()
	for b.Loop() {
		for _, connections := range []int{1, benchConnections} {
			l := goalLoad{Kind: "get", Tokens: tokens, Connections: connections, Requests: benchRequests}
			plain, ours := l, l
			plain.Address, ours.Address = bare, gate
			costs := s.inTurn(benchRounds, plain, ours)
			for name, of := range map[string]func(goalCost) float64{"p50": p50Of, "p99": p99Of} {
				b.ReportMetric(ratio(of, costs[1], costs[0]), fmt.Sprintf("%s-x-bare-at-%d", name, connections))
			}
		}
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkGoalPower is survive: power by survive: crash: CPU, and what a caller
// waits longer, in fsyncs of as small a write to the same disk.
func BenchmarkGoalPower(b *testing.B) {
	s := newGoalScene(b)
	tokens := s.tokens(benchToken())
	crash := s.gate()
	power := s.gate(func(o *proxy.Options) { o.Survive = audit.Power })
	for b.Loop() {
		for _, connections := range []int{1, benchConnections} {
			l := goalLoad{Kind: "get", Tokens: tokens, Connections: connections, Requests: benchRequests / 2}
			plain, ours := l, l
			plain.Address, ours.Address = crash, power
			var costs [2][]goalCost
			var syncs []time.Duration
			for range benchRounds {
				costs[0], costs[1] = append(costs[0], s.run(plain)), append(costs[1], s.run(ours))
				syncs = append(syncs, fsyncTakes(b))
			}
			b.ReportMetric(ratio(cpuOf, costs[1], costs[0]), fmt.Sprint("cpu-x-crash-at-", connections))
			b.ReportMetric(medianOf(benchRounds, func(i int) float64 {
				return float64(costs[1][i].P50-costs[0][i].P50) / float64(syncs[i])
			}), fmt.Sprint("fsyncs-at-", connections))
		}
	}
	b.ReportMetric(0, "ns/op")
}

// fsyncTakes is the median of what an appended line and its fsync take.
func fsyncTakes(b *testing.B) time.Duration {
	f, err := os.Create(filepath.Join(b.TempDir(), "line"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	line := make([]byte, 1024)
	return time.Duration(medianOf(100, func(int) float64 {
		begun := time.Now()
		if _, err := f.Write(line); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		return float64(time.Since(begun))
	}))
}
