package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// TestLintFindsWhatTryingAllFinds holds SG115 and SG116 against small policies
// whose every request is tried.
func TestLintFindsWhatTryingAllFinds(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	found := map[string]int{}
	for range 200 {
		text, p := randomPolicy(rng)
		if p == nil {
			continue
		}
		want := []string{}
		for _, r := range p.Routes {
			for id, is := range map[string]bool{"SG115": triedCase(p, r), "SG116": triedHosts(p, r)} {
				if is {
					found[id]++
					want = append(want, r.ID+" "+id)
				}
			}
		}
		slices.Sort(want)
		got := []string{}
		for _, f := range Lint("policy.yaml", []byte(text), LintOptions{}) {
			if f.ID == "SG115" || f.ID == "SG116" {
				got = append(got, p.Routes[f.Line-4].ID+" "+f.ID)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("lint %v, tried %v in\n%s", got, want, text)
		}
	}
	if found["SG115"] < 20 || found["SG116"] < 20 {
		t.Errorf("only %v: this tests nothing", found)
	}
}

// randomPolicy is a policy of a few routes, one in a line from line 4; nil
// where it does not load.
func randomPolicy(rng *rand.Rand) (string, *Policy) {
	pick := func(of ...string) string { return of[rng.IntN(len(of))] }
	text := "version: sidegate-policy/v1\nidentities: [users]\nroutes:\n"
	for i := range 2 + rng.IntN(3) {
		path := ""
		for j := range 1 + rng.IntN(2) {
			path += "/" + pick("a", "a", "A", "b", fmt.Sprintf("{x%d}", j))
		}
		path += pick("", "", "/{r...}", "/{r...}/b")
		text += fmt.Sprintf("  - {id: r%d, %spath: %q, methods: [%s], upstream: %s, allow: %s}\n", i, pick("", "", "host: [a.dev], ", "host: ['*.dev'], "), path,
			pick("GET", "GET, POST"), pick("app", "app", "app", "web"), pick("public", "optional", "[{who: [users]}]", "[{who: [users], mfa: 5m}]"))
	}
	p, err := Load("policy.yaml", []byte(text), nil)
	if err != nil {
		return text, nil
	}
	return text, p
}

var (
	triedTexts = []string{"a", "A", "b", "B", "z"}
	triedPaths = func() (out []string) {
		level := []string{""}
		for range 4 {
			var next []string
			for _, p := range level {
				for _, s := range triedTexts {
					next = append(next, p+"/"+s)
				}
			}
			out, level = append(out, next...), next
		}
		return out
	}()
)

var triedHostNames = []string{"a.dev", "b.dev", "c"}

func triedCase(p *Policy, r *Route) bool {
	for _, host := range triedHostNames {
		for _, m := range []string{"GET", "POST"} {
			for _, w := range triedPaths {
				if p.Match(host, w, m).Route != r {
					continue
				}
				for _, other := range recasings(&r.path, w) {
					b := p.Match(host, other, m).Route
					if b != nil && b != r && b.Upstream == r.Upstream && r.stricter(b, r.methods&b.methods) {
						return true
					}
				}
			}
		}
	}
	return false
}

// recasings are the paths in another case where the pattern has literals.
func recasings(p *pattern, w string) []string {
	parts, _ := split(nil, w)
	literals, _ := p.stretched(len(parts))
	out := []string{""}
	for i, s := range parts {
		var next []string
		for _, start := range out {
			next = append(next, start+"/"+s)
			if !literals[i].captures() && otherCase(s) != s {
				next = append(next, start+"/"+otherCase(s))
			}
		}
		out = next
	}
	return slices.DeleteFunc(out, func(s string) bool { return s == w })
}

func triedHosts(p *Policy, a *Route) bool {
	for _, host := range triedHostNames {
		for _, wide := range triedHostNames {
			for _, m := range []string{"GET", "POST"} {
				for _, w := range triedPaths {
					b := p.Match(wide, w, m).Route
					if p.Match(host, w, m).Route != a || b == nil || b == a || a.Upstream != b.Upstream || !b.stricter(a, a.methods&b.methods) {
						continue
					}
					if strings.Join(a.hosts, "") != strings.Join(b.hosts, "") && hostCovers(b.hosts[0], a.hosts[0]) {
						return true
					}
				}
			}
		}
	}
	return false
}
