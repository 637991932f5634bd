package proxy

import (
	"net/http"
	"reflect"
	"testing"

	"sidegate/policy"
)

// TestKeptRecordsAreTheFreshOnes: whoever was on record before, by whatever
// policy, an event says of a caller what it would say of one seen for the first
// time.
func TestKeptRecordsAreTheFreshOnes(t *testing.T) {
	kept := 0
	event := func(pol *policy.Policy, who *policy.Identity, checksum bool) (whose, inputs any) {
		x := &exchange{p: &Proxy{}, r: &http.Request{}, policy: pol, identity: who, input: policy.Input{Identity: who, Route: pol.Routes[0], Checksum: checksum}}
		x.match.Route = pol.Routes[0]
		s := new(papers)
		e := x.decisionEvent(s)
		if e.Decision.KeptInputs != nil && e.KeptIdentity != nil {
			kept++
		}
		said := ""
		if e.KeptIdentity != nil {
			said = e.KeptIdentity.Text
		}
		return said, copyOf(e).Decision.Inputs
	}
	for name, id := range people() {
		id = id.Keep()
		altered := *id // with what is kept of the other
		altered.UID, altered.Claims = "another", policy.ClaimMap{"roles": []any{"r9"}}
		check := func(pol *policy.Policy, who *policy.Identity, checksum bool) {
			fresh := who.Keep()
			saidOf, is := event(pol, who, checksum)
			wantOf, want := event(pol, fresh, checksum)
			fresh.Kept = nil
			_, plain := event(pol, fresh, checksum)
			if saidOf != wantOf || saidOf == "" || !reflect.DeepEqual(is, want) || len(is.(map[string]any)) != len(plain.(map[string]any)) {
				t.Errorf("%s: %v of %v; not %v of %v, nor %v", name, is, saidOf, want, wantOf, plain)
			}
		}
		policies := append(toldPolicies(t), loadPolicy(t, `version: sidegate-policy/v1
name: reads-the-address
identities: [users]
routes: [{id: r, path: /r, methods: [GET], upstream: app, allow: [{who: [users], verified_email: true}]}]
`))
		for range 3 {
			for _, checksum := range []bool{false, true} {
				for _, pol := range policies { // another caller by the same policy
					check(pol, id, checksum)
					check(pol, &altered, checksum)
				}
				for _, who := range []*policy.Identity{id, &altered} { // and the same by another one, as after a reload
					for _, pol := range policies {
						check(pol, who, checksum)
					}
				}
			}
		}
	}
	if kept == 0 {
		t.Error("nothing was kept")
	}
}
