package policy

import "testing"

// TestLastingInputs: what is kept of a caller's inputs is all of them, or nothing
// is kept.
func TestLastingInputs(t *testing.T) {
	route := "  - {id: r, path: \"/r/{x}\", methods: [GET, POST], upstream: app, allow: [{who: [users], claims: {plan: [pro]}}]}\n"
	p, again := mustLoad(t, celHeader+route), mustLoad(t, celHeader+route)
	number := p.LastingInputs(celInputOf(p, bob(), nil))
	if number == 0 || number == again.LastingInputs(celInputOf(again, bob(), nil)) {
		t.Fatalf("%d, and the policy that is loaded after it has the same", number)
	}
	for name, change := range map[string]func(*Input){
		"nobody":   func(in *Input) { in.Identity = nil },
		"no route": func(in *Input) { in.Route = nil },
		"document": func(in *Input) { in.looked = make([]lookedUp, 1) },
		"checksum": func(in *Input) { in.Checksum = true },
	} {
		in := celInputOf(p, bob(), nil)
		change(in)
		if n := p.LastingInputs(in); n != 0 {
			t.Errorf("%s: %d", name, n)
		}
	}
	asks := mustLoad(t, celHeader+"  - {id: r, path: \"/r/{x}\", methods: [GET, POST], upstream: app, allow: [{who: [users], app_check: true, claims: {plan: [pro]}}]}\n")
	if n := asks.LastingInputs(celInputOf(asks, bob(), nil)); n != 0 {
		t.Errorf("App Check, which is the request's: %d", n)
	}
}

// TestClaimsAreOfTheCaller: claims that were made for one caller are not another's,
// where the same input is asked about both.
func TestClaimsAreOfTheCaller(t *testing.T) {
	p := mustLoad(t, celHeader+"  - {id: r, path: \"/r/{x}\", methods: [GET, POST], upstream: app, allow: [{who: [users], if: \"auth.token.plan == 'pro'\"}]}\n")
	of := func(plan string) *Identity {
		id := bob()
		id.Claims = &countedClaims{ClaimMap{"plan": plan}, map[string]int{}}
		return id
	}
	in := celInputOf(p, of("pro"), nil)
	before := *in
	if d := p.Decide(in); !d.Allow {
		t.Fatalf("%+v", d)
	}
	before.Identity = of("free")
	in.Restore(before)
	if d := p.Decide(in); d.Allow {
		t.Errorf("by another's claim: %+v", d)
	}
}
