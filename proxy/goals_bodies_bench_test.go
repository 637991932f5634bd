package proxy_test

import (
	"fmt"
	"testing"
)

// BenchmarkGoalBodies is a body of a GiB, and of a MiB, down and up on one
// connection: throughput and CPU by the bare ReverseProxy's. App and caller take
// as much of the machine as either: throughput says less than CPU where the
// machine has few cores.
func BenchmarkGoalBodies(b *testing.B) {
	for _, kind := range []string{"down", "up"} {
		for _, size := range []int64{1 << 20, 1 << 30} {
			b.Run(fmt.Sprintf("%s-%dMiB", kind, size>>20), func(b *testing.B) {
				s := newGoalScene(b)
				l := goalLoad{Kind: kind, Tokens: s.tokens(benchToken()), Target: "/v1/" + kind, Connections: 1, Requests: int((1 << 30) / size), Bytes: size}
				plain, ours := l, l
				plain.Address, ours.Address = s.bare(s.hello.App, false), s.gate()
				for b.Loop() {
					costs := s.inTurn(benchRounds, plain, ours)
					b.ReportMetric(ratio(elapsedOf, costs[0], costs[1]), "throughput-x-bare")
					b.ReportMetric(ratio(cpuOf, costs[1], costs[0]), "cpu-x-bare")
					b.ReportMetric(medianOf(benchRounds, func(i int) float64 { return cpuOf(costs[1][i]) / 1e6 }), "cpu-ms/GiB")
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
