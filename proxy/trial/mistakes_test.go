package trial

import (
	"fmt"
	"strings"
	"testing"

	"sidegate/policy"
)

// TestMistakes: what people write into test files by mistake is told once, and
// with what to write instead.
func TestMistakes(t *testing.T) {
	p, err := policy.Load("policy.yaml", []byte(`version: sidegate-policy/v1
identities: [users]
claims: {roles: list(string), plan: string}
lookups: {share: {document: "shares/${sha256(params.id)}", fields: {owner: string}}}
routes:
  - {id: a, path: "/{id}", methods: [GET], upstream: app, allow: [{who: [users], if: lookup.share.owner == auth.uid}]}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	const file = `version: sidegate-test/v1
policy: policy.yaml
now: 2026-03-02T10:00:00+01:00
identities: {alice: {from: users, uid: u%s}}
lookups: [{share: x%s}]
tests: [{name: a, as: alice, cases: [%s]}]
`
	const one = "{get: /a, expect: 404}"
	for _, tt := range []struct{ identity, document, one, want string }{
		{"", "", one, ""},
		{", claims: {iss: x, name: y, roles: [a]}", "", one, ""}, // as real tokens have them
		{", claims: {role: x, roles: [a]}", "", one, ""},
		{", claims: {Plan: x}", "", one, `4:52: the policy declares no claim ` + "`Plan`" + `; did you mean "plan"?`},
		{", claims: {role: [x]}", "", one, `did you mean "roles"?`},
		{", roles: [admin]", "", one, "a token's claims go under `claims: {roles: …}`"},
		{"", ", unavailable: true", one, ""},
		{"", ", owner: u, unavailable: true", one, "cannot be read, so that it has no fields"},
		{"", "", "{get: /a, expect: 200}", "write allow"},
		{"", "", "{get: /a, expect: '403'}", "a status is written without quotes: 403"},
		{"", "", "{get: /a, as: {from: users}, expect: 404}", "must be a string, not a mapping"},
		{"", "", "{path: /a, get: /a, expect: 404}", "the target goes beside the method, as `get: /x`"},
		{"", "", "{GET: /a, get: /a, expect: 404}", `did you mean "get"?`},
		{"", "", "{get: /a, expect: 404, at: soon}", "must be a time such as"},
	} {
		text := fmt.Sprintf(file, tt.identity, tt.document, tt.one)
		_, err := ReadTests("t.yaml", []byte(text), p, nil)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%v\nin\n%s", err, text)
			}
			continue
		}
		if got := fmt.Sprint(err); !strings.Contains(got, tt.want) || strings.Contains(got, "\n") {
			t.Errorf("got  %s\nwant %s\nin\n%s", got, tt.want, text)
		}
	}
}
