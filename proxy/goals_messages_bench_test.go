package proxy_test

import (
	"fmt"
	"testing"
)

// BenchmarkGoalMessages is a message and its echo, over WebSockets and over
// streams of gRPC: CPU and what a caller waits, by the bare ReverseProxy's.
func BenchmarkGoalMessages(b *testing.B) {
	for _, kind := range []string{"websocket", "grpc"} {
		for _, size := range []int64{64, 16 << 10} {
			b.Run(fmt.Sprintf("%s-%d", kind, size), func(b *testing.B) {
				s := newGoalScene(b)
				l := goalLoad{Kind: kind, Tokens: s.tokens(benchToken()), Target: "/v1/socket", Connections: 16, Requests: 16 * 1000, Bytes: size}
				plain, ours := l, l
				if kind == "grpc" {
					plain.Address, ours.Address = s.bare(s.hello.GRPC, true), s.gateFor(s.hello.GRPC, true)
				} else {
					plain.Address, ours.Address = s.bare(s.hello.App, false), s.gate()
				}
				for b.Loop() {
					costs := s.inTurn(benchRounds, plain, ours)
					b.ReportMetric(ratio(cpuOf, costs[1], costs[0]), "cpu-x-bare")
					b.ReportMetric(ratio(p50Of, costs[1], costs[0]), "p50-x-bare")
				}
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
