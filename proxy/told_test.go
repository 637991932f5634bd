package proxy

import (
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"sidegate/policy"
)

// toldPolicies declare different claims; the second twice over.
func toldPolicies(t testing.TB) []*policy.Policy {
	return []*policy.Policy{
		loadPolicy(t, testPolicy),
		loadPolicy(t, strings.Replace(testPolicy, "claims: {roles: list(string), plan: string}", "claims: {roles: list(string)}", 1)),
		loadPolicy(t, strings.Replace(testPolicy, "claims: {roles: list(string), plan: string}", "claims: {roles: list(string)}", 1)),
	}
}

// TestKeptHeadersAreTheFreshOnes: whatever was asked before, with whatever
// policy, for whatever upstream, a caller is told as if it were the first time.
func TestKeptHeadersAreTheFreshOnes(t *testing.T) {
	must := mustHeaders(t)
	all := []Headers{
		NativeHeaders(), OAuth2ProxyHeaders(), NativeHeaders(), must(ESPHeaders(ESPPrefix)), must(HeaderMap(presetMap, false)),
		must(HeaderMap(map[string]string{"X-A": "${auth.uid}", "X-B": "${assertion}"}, true)), {},
	}
	for name, id := range people() {
		altered := *id // with what is kept of the other
		altered.UID, altered.Claims = "another", policy.ClaimMap{"roles": []any{"r9"}, "groups": []any{"bad group"}}
		for range 3 {
			for _, pol := range toldPolicies(t) {
				for _, hs := range all {
					for _, who := range []*policy.Identity{id, &altered} {
						fresh := *who
						fresh.Kept = nil
						is, want := http.Header{}, http.Header{}
						x := &exchange{policy: pol, identity: who, assertion: "signed"}
						y := &exchange{policy: pol, identity: &fresh, assertion: "signed"}
						hs.write(is, x)
						hs.write(want, y)
						if !reflect.DeepEqual(is, want) || hs.carry(x) != hs.carry(y) {
							t.Errorf("%s, %s: %v, %v; not %v, %v", name, hs.Preset, is, hs.carry(x), want, hs.carry(y))
						}
					}
				}
			}
		}
		if kept := keptOf(id).told; slices.Contains(kept[:], nil) {
			t.Errorf("%v are kept", kept)
		}
	}
}

// TestOneRequestsHeadersAreItsOwn: what is done to them shows in no other's.
func TestOneRequestsHeadersAreItsOwn(t *testing.T) {
	x := &exchange{policy: loadPolicy(t, testPolicy), identity: people()["rich"]}
	first := http.Header{}
	NativeHeaders().write(first, x)
	before := first.Clone()
	for _, name := range slices.Collect(maps.Keys(first)) {
		first.Add(name, "evil")
		first[name] = append(first[name], "evil")
		first.Set(name, "evil")
	}
	second := http.Header{}
	NativeHeaders().write(second, x)
	if !reflect.DeepEqual(second, before) {
		t.Errorf("%v, not %v", second, before)
	}
}

// TestToldWithoutMemory: a caller whose token came before costs none.
func TestToldWithoutMemory(t *testing.T) {
	x := &exchange{policy: loadPolicy(t, testPolicy), identity: people()["rich"]}
	hs, h := NativeHeaders(), http.Header{}
	tell := func() {
		hs.carry(x)
		hs.write(h, x)
	}
	tell()
	if n := testing.AllocsPerRun(100, tell); n != 0 {
		t.Errorf("it takes %v pieces of memory", n)
	}
}
