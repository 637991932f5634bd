package policy

import (
	"fmt"
	"strings"
	"testing"
)

// bigPolicy has n routes as an API of many resources has them, and guards: some
// for every request, some for a part of them.
func bigPolicy(n int) string {
	var b strings.Builder
	b.WriteString(strings.TrimSuffix(header, "routes:\n") + `guards:
  - {id: agents-never-write, deny: {who: [agents], methods: [POST, PUT, PATCH, DELETE]}}
  - {id: suspended, deny: {claims: {plan: [suspended]}}}
  - {id: office, path: "/v1/admin/{rest...}", require: {ip: [198.51.100.0/24], mfa: 15m}}
  - {id: night, path: "/v1/{rest...}/night", deny: {time: {hours: "22:00-06:00"}}}
  - {id: host, host: ["*.internal.acme.dev"], require: {ip: [10.0.0.0/8]}}
routes:
`)
	for i := range n / 5 {
		fmt.Fprintf(&b, "  - {id: list-%d, path: /v1/r%d, methods: [GET, POST], upstream: app, allow: [{who: [users]}]}\n", i, i)
		fmt.Fprintf(&b, "  - {id: item-%d, path: \"/v1/r%d/{id}\", methods: [GET, PUT], upstream: app, allow: [{who: [users], roles: [admin]}, {who: [users], uid: \"${params.id}\"}]}\n", i, i)
		fmt.Fprintf(&b, "  - {id: sub-%d, path: \"/v1/r%d/{id}/files/{rest...}\", methods: [GET], upstream: app, allow: [{who: [users], uid: \"${params.id}\"}]}\n", i, i)
		fmt.Fprintf(&b, "  - {id: health-%d, path: \"/v1/r%d/{rest...}/health\", host: [h%d.acme.dev], methods: [GET], upstream: app, allow: public}\n", i, i, i)
		fmt.Fprintf(&b, "  - {id: file-%d, path: \"/f/r%d/{key...}\", methods: [GET], serve: presign_download, allow: [{who: [users], key_prefix: \"users/${auth.uid}/\"}], object: {key: \"${params.key}\"}}\n", i, i)
	}
	return b.String()
}

// hotPaths are the requests of the benchmark, at a policy of n routes.
func hotPaths(n int) [][3]string {
	last := n/5 - 1
	return [][3]string{
		{"GET", "api.acme.dev", fmt.Sprintf("/v1/r%d", last)},
		{"PUT", "api.acme.dev", fmt.Sprintf("/v1/r%d/bob", last/2)},
		{"GET", "api.acme.dev", fmt.Sprintf("/v1/r%d/bob/files/2026/03/a.jpg", last)},
		{"GET", fmt.Sprintf("h%d.acme.dev", last), fmt.Sprintf("/v1/r%d/x/health", last)},
		{"GET", "api.acme.dev", fmt.Sprintf("/f/r%d/users/bob/uploads/a.jpg", last)},
	}
}

// BenchmarkDecide is routing and deciding, the mean of several kinds of route.
func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 100, 1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			p, paths, id := mustLoad(b, bigPolicy(n)), hotPaths(n), bob(claim("roles", []any{"viewer"}))
			var in Input // as the proxy has it: part of the request's own state
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				r := &paths[i%len(paths)]
				m := p.Match(r[1], r[2], r[0])
				in.Route, in.Params, in.Method, in.Identity, in.Time = m.Route, m.Params, r[0], id, noon
				in.Host, in.Path = r[1], r[2]
				if d := p.Decide(&in); !d.Allow {
					b.Fatal(r, d)
				}
			}
		})
	}
}

// BenchmarkKey is a presign: the key itself is its one allocation.
func BenchmarkKey(b *testing.B) {
	p, id := mustLoad(b, keyRoutes), bob()
	var in Input
	b.ReportAllocs()
	for b.Loop() {
		m := p.Match("", "/up", "POST")
		in.Route, in.Params, in.Method, in.Identity, in.Time = m.Route, m.Params, "POST", id, noon
		in.UUID, in.Ext = someUUID, ".jpg"
		if d := p.Decide(&in); !d.Allow {
			b.Fatal(d)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			text := []byte(bigPolicy(n))
			for b.Loop() {
				if _, err := Load("policy.yaml", text, testEnv()); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*n), "µs/route")
		})
	}
}

// BenchmarkSettle is the check for overlaps alone, of tables in which every
// path has the same start or the same end.
func BenchmarkSettle(b *testing.B) {
	for _, form := range []string{"/{rest...}/r%d", "/a/{rest...}/r%d", "/{t}/r%d", "/r%d/{rest...}", "/r%d/{rest...}/health"} {
		for _, n := range []int{1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", strings.ReplaceAll(form, "/", "|"), n), func(b *testing.B) {
				table := newTable()
				for i := range n {
					p, err := parsePattern(fmt.Sprintf(form, i))
					if err != nil {
						b.Fatal(err)
					}
					table.place(p)
				}
				for b.Loop() {
					table.settle(func(_, _ *group, w string) { b.Fatal(w) })
				}
			})
		}
	}
}

// TestDecisionsDoNotAllocate holds the claim of the package: but for a key that
// is made, conditions in CEL and results of dry_run, deciding needs no memory.
func TestDecisionsDoNotAllocate(t *testing.T) {
	p, paths, id := mustLoad(t, bigPolicy(100)), hotPaths(100), bob(claim("roles", []any{"viewer"}))
	var in Input
	for _, r := range paths {
		got := testing.AllocsPerRun(100, func() {
			m := p.Match(r[1], r[2], r[0])
			in.Route, in.Params, in.Method, in.Identity, in.Time = m.Route, m.Params, r[0], id, noon
			in.Host, in.Path = r[1], r[2]
			p.Decide(&in)
		})
		if got != 0 {
			t.Errorf("%v: %v allocations", r, got)
		}
	}
}

// BenchmarkDecideCEL is a decision by a condition of `if`, beside the same by
// fields (BenchmarkDecide).
func BenchmarkDecideCEL(b *testing.B) {
	for name, condition := range map[string]string{
		"uid":  `auth.uid == params.x`,
		"role": `"admin" in auth.token.roles`,
		"time": `request.time - auth.auth_time < duration("10m")`,
	} {
		b.Run(name, func(b *testing.B) {
			p := celPolicy(b, condition)
			in := celInputOf(p, bob(withUID("x"), claim("roles", []any{"viewer", "admin"})), nil)
			b.ReportAllocs()
			for b.Loop() {
				if d := p.Decide(in); !d.Allow {
					b.Fatal(d)
				}
			}
		})
	}
}
