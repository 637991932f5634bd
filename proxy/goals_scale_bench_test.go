package proxy_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"sidegate/proxy"
)

// BenchmarkGoalRoutes is a request with as many routes, by one with a single one.
func BenchmarkGoalRoutes(b *testing.B) {
	s := newGoalScene(b)
	tokens := s.tokens(benchToken())
	counts := []int{1, 100, 10_000}
	var loads []goalLoad
	for _, n := range counts {
		gate := s.gate(func(o *proxy.Options) { o.Policy = goalPolicy(b, n) })
		loads = append(loads, goalLoad{Kind: "get", Address: gate, Tokens: tokens, Connections: benchConnections, Requests: benchRequests})
	}
	for b.Loop() {
		costs := s.inTurn(benchRounds, loads...)
		for i := 1; i < len(counts); i++ {
			b.ReportMetric(ratio(cpuOf, costs[i], costs[0]), fmt.Sprint("x-1-at-", counts[i]))
		}
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkGoalUsers is a request of one of as many users, whose tokens are all in
// the cache and come in no order, by one of a single user's; and what a user
// costs in memory.
func BenchmarkGoalUsers(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			s := newGoalScene(b)
			tokens := make([]string, n)
			for i, at := range rand.Perm(n) {
				tokens[at] = userToken(i)
			}
			bare := goalLoad{Kind: "get", Address: s.bare(s.hello.App, false), Tokens: s.tokens(tokens[0]), Connections: benchConnections, Requests: benchRequests}
			one, many := bare, bare
			one.Address = s.gate()
			many.Address, many.Tokens = s.gate(caching(b, everyUser{}, 4*n)), s.tokens(tokens...)
			clear(tokens)
			heap := func() float64 {
				var m runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&m)
				return float64(m.HeapAlloc)
			}
			before := heap()
			all := many
			all.Requests = (n/benchConnections + 1) * benchConnections
			s.run(all)
			each := (heap() - before) / float64(n)
			for b.Loop() {
				costs := s.inTurn(benchRounds, bare, one, many)
				b.ReportMetric(ratio(cpuOf, costs[2], costs[1]), "x-one-user")
				b.ReportMetric(ratio(cpuOf, costs[2], costs[0]), "x-bare")
			}
			b.ReportMetric(each, "bytes/user")
			b.ReportMetric(0, "ns/op")
		})
	}
}
