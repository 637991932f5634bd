package policy

import (
	"slices"
	"testing"
)

// TestTemplateSources makes a key of each source, with the value there, absent
// and hostile.
func TestTemplateSources(t *testing.T) {
	for source, set := range map[string]func(*Identity, string){
		"auth.uid":          func(id *Identity, v string) { id.UID = v },
		"auth.actor":        func(id *Identity, v string) { id.Actor = v },
		"auth.tenant":       func(id *Identity, v string) { id.Tenant = v },
		"auth.email":        func(id *Identity, v string) { id.Email, id.EmailVerified = v, true },
		"auth.provider":     func(id *Identity, v string) { id.Provider = v },
		"auth.token.org_id": func(id *Identity, v string) { id.Claims.(ClaimMap)["org_id"] = v },
	} {
		entry := "who: [users]"
		if source == "auth.email" {
			entry += ", verified_email: true"
		}
		p := mustLoad(t, header+`  - {id: up, path: /up, methods: [POST], serve: presign_upload, allow: [{`+entry+`}], object: {key: "u/${`+source+`}/${uuid}"}}`)
		for value, want := range map[string]string{"v@x.dev": "u/v@x.dev/" + someUUID, "": "", "..": "", "a/b": "", "a\u202eb": ""} {
			id := bob()
			set(id, value)
			if _, d := ask(p, id, "POST", "", "/up"); d.Key != want || d.Allow != (want != "") {
				t.Errorf("${%s} of %q: %+v", source, value, d)
			}
		}
	}
	p := mustLoad(t, header+`  - {id: up, path: /up, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "${auth.identity}/${auth.uid}/${auth.token.org_id}"}}`)
	if _, d := ask(p, bob(claim("org_id", "o")), "POST", "", "/up"); d.Key != "users/bob/o" {
		t.Errorf("%+v", d)
	}
	for _, wrong := range []any{7, []any{"o"}, nil} {
		if _, d := ask(p, bob(claim("org_id", wrong)), "POST", "", "/up"); d.Allow || d.Reason != ReasonNoKey {
			t.Errorf("org_id %v: %+v", wrong, d)
		}
	}
}

// TestKeyNeedsUUID: a proxy that forgot the UUID gets no key, not the same key
// for everybody.
func TestKeyNeedsUUID(t *testing.T) {
	p := mustLoad(t, keyRoutes)
	m := p.Match("", "/up", "POST")
	for _, in := range []Input{{}, {UUID: "a/b"}, {UUID: someUUID, Ext: "/../x"}} {
		in.Route, in.Params, in.Method, in.Identity, in.Time = m.Route, m.Params, "POST", bob(), noon
		if d := p.Decide(&in); d.Allow || d.Reason != ReasonNoKey {
			t.Errorf("%q %q: %+v", in.UUID, in.Ext, d)
		}
	}
}

func TestPolicyClaims(t *testing.T) {
	p := mustLoad(t, header+`  - {id: a, path: /a, methods: [GET], upstream: app, allow: public}`)
	if got, want := p.Claims(), []string{"beta", "level", "org_id", "orgs", "plan", "roles", "score"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if m := p.Match("", "/a", "GET"); m.Code() != "" {
		t.Errorf("a route was found: %q", m.Code())
	}
}
