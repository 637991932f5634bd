package trial

import (
	"testing"

	"sidegate/policy"
	"sidegate/storage/audit"
)

// BenchmarkReplay replays a log of the requests that probe the example, over
// and over: each decision has its outcome beside it, as in a real one.
func BenchmarkReplay(b *testing.B) {
	text := unlimited(b)
	gw := newLogged(b, text)
	p := gateOf(b, text).Policy
	for range 10 {
		for probe := range policy.Probes(policy.MaxProbes, p).All() {
			gw.serve(probeRequest(probe))
		}
	}
	dir := gw.closed()
	other := changed(b, text, "roles: [admin], time", "roles: [owner], time")
	decisions := 0
	for b.Loop() {
		r, err := Replay{Examples: 5}.Run(audit.Lines(dir), func() (*Gate, error) { return gateOf(b, other), nil })
		if err != nil {
			b.Fatal(err)
		}
		decisions += r.Decisions
	}
	b.ReportMetric(float64(decisions)/b.Elapsed().Seconds(), "decisions/s")
}

// BenchmarkDiff compares the example with itself: the making of the probes, and
// two judgements of each.
func BenchmarkDiff(b *testing.B) {
	text := read(b, examplePolicy)
	old, new := gateOf(b, text), gateOf(b, text)
	probes := 0
	for b.Loop() {
		probes += Diff(old, new, nil, Comparison{}).Probes
	}
	b.ReportMetric(float64(probes)/b.Elapsed().Seconds(), "probes/s")
}
