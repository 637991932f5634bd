package policy

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
)

// judgeProbe decides a probe as the gate would: an expiry and an upload's limits
// are not the decision's.
func judgeProbe(p *Policy, q *Probe) Decision {
	m := p.Match(q.Host, q.Path, q.Method)
	in := Input{Route: m.Route, Params: m.Params, Host: q.Host, Path: q.Path, Method: q.Method, IP: q.IP, Time: q.Time, AppCheck: q.AppCheck, Lookups: q, UUID: probeUUID}
	if m.Route != nil && m.Route.Access != AccessPublic {
		in.Identity = q.Identity
	}
	if q.Upload != nil {
		in.Ext, in.Size, in.ContentType = q.Upload.Ext(), q.Upload.Size, q.Upload.ContentType
	}
	return p.Decide(&in)
}

const probePolicy = `version: sidegate-policy/v1
name: test
identities: [users, agents]
claims: {roles: list(string), level: int, score: double, member: bool, since: timestamp, plan: string, orgs: map(string), ranks: map(int), tags: list(int), scopes: list(string)}
vars: {staff: [boss, chief], minimum: 3, office: [198.51.100.0/24], domain: "@acme.dev"}
lookups:
  share: {document: "shares/${sha256(params.id)}", fields: {readers: list(string), until: timestamp, open: bool, uses: int, owner: string, ranks: map(int)}}
  profile: {document: "profiles/${auth.uid}", fields: {level: int, ok: bool}}
routes:
  - {id: r, path: "/r/{id}", methods: [GET, POST], upstream: app, allow: [{id: e, CONDITION}]}
`

// TestProbesSolveConditions has each condition found true and false.
func TestProbesSolveConditions(t *testing.T) {
	for _, condition := range []string{
		`if: auth.uid == params.id`,
		`if: auth.uid != params.id`,
		`if: "'admin' in auth.token.roles"`,
		`if: "!('admin' in auth.token.roles)"`,
		`if: "has(auth.token.roles) && auth.token.roles.exists(r, r in vars.staff)"`,
		`if: "auth.token.roles.all(r, r in vars.staff) && size(auth.token.roles) > 1"`,
		`if: "size(auth.token.roles) > 4"`,
		`if: auth.token.level >= vars.minimum`,
		`if: auth.token.level > 3 && auth.token.level < 5`,
		`if: auth.token.score > 0.5`,
		`if: auth.token.member`,
		`if: "!has(auth.token.plan) || auth.token.plan == 'pro'"`,
		`if: "auth.token.plan in ['pro', 'team']"`,
		`if: "auth.token.plan.startsWith('pro-')"`,
		`if: "auth.token.plan.matches('^[a-c]+-[0-9]{3}$')"`,
		`if: "params.id in auth.token.orgs && auth.token.orgs[params.id] == 'owner'"`,
		`if: "auth.token.ranks[params.id] > 2"`,
		`if: "auth.token.tags.exists(x, x == 7)"`,
		`if: auth.token.since < request.time - duration("720h")`,
		`if: request.time - auth.auth_time < duration("10m")`,
		`if: request.time > timestamp("2030-01-01T00:00:00Z")`,
		`if: request.time.getHours("Europe/Berlin") >= 7 && request.time.getHours("Europe/Berlin") < 20`,
		`if: request.time.getDayOfWeek() in [0, 6]`,
		`if: "request.ip.startsWith('10.')"`,
		`if: "request.ip == '198.51.100.7'"`,
		`if: "request.method == 'POST'"`,
		`if: "request.method == 'GET' || auth.token.level > 3"`,
		`if: "request.path == '/r/me'"`,
		`if: "request.host.endsWith('.acme.dev')"`,
		`{verified_email: true, if: auth.email.endsWith(vars.domain)}`,
		`if: "auth.email_verified == true"`,
		`if: "has(auth.actor) ? auth.actor == 'bot' : auth.token.level > 9"`,
		`if: "auth.identity == 'agents'"`,
		`if: "auth.provider == 'google.com'"`,
		`if: "auth.tenant == 'acme'"`,
		`if: auth.uid in lookup.share.readers && request.time < lookup.share.until`,
		`if: has(lookup.share) && lookup.share.open`,
		`if: "!has(lookup.share)"`,
		`if: "!has(lookup.share.until) || lookup.share.until > request.time"`,
		`if: "lookup.share.owner == auth.uid || lookup.share.uses < 10"`,
		`if: lookup.share.ranks[auth.uid] >= vars.minimum`,
		`if: lookup.profile.level >= auth.token.level && lookup.profile.ok`,
		`if: lookup.profile.level >= lookup.share.uses && auth.uid in lookup.share.readers`,
		`{who: [agents], if: "auth.token.level > 3 || (auth.token.member && auth.token.plan == 'pro')"}`,
		`{roles: [admin], mfa: 10m, signed_in: 5m, if: "auth.token.level > 3"}`,
		`{ip: "${vars.office}", time: {days: [sat], hours: "22:00-03:00"}, if: "auth.token.level == 100"}`,
		`{scopes: [a, b], org: {id: "${params.id}", role: [owner]}, claims: {plan: [pro, team], level: [3], member: [true]}}`,
		`{providers: [google.com], app_check: true, verified_email: true, uid: "svc-${params.id}"}`,
	} {
		t.Run(condition, func(t *testing.T) {
			condition = strings.TrimSuffix(strings.TrimPrefix(condition, "{"), "}")
			if strings.HasPrefix(condition, "if: ") && !strings.HasPrefix(condition, `if: "`) {
				condition = "if: '" + strings.ReplaceAll(strings.TrimPrefix(condition, "if: "), "'", "''") + "'"
			}
			if !strings.Contains(condition, "who:") && !strings.Contains(condition, "identity") {
				condition = "who: [users], " + condition
			}
			text := strings.Replace(probePolicy, "CONDITION", condition, 1)
			p, err := Load("p", []byte(text), nil)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]int{}
			n := 0
			for q := range Probes(MaxProbes, p).All() {
				d := judgeProbe(p, q)
				seen[d.Reason]++
				n++
			}
			if seen[ReasonEntry] == 0 || seen[ReasonNoEntry] == 0 {
				t.Errorf("%d probes: %v", n, seen)
			}
		})
	}
}

// TestProbesOfGuards has guards of every kind seen to be all that refuses.
func TestProbesOfGuards(t *testing.T) {
	for _, guard := range []string{
		`{id: g, deny: {who: [agents]}}`,
		`{id: g, path: "/a/secret/{rest...}", methods: [POST], deny: {ip: [203.0.113.0/24]}}`,
		`{id: g, host: [admin.acme.dev], require: {mfa: 10m}}`,
		`{id: g, path: "/a/{x}/b", deny: {who: [users], if: "params.x == auth.uid"}}`,
		`{id: g, path: "/a/{x}", deny: {if: "request.time < timestamp('2027-01-01T00:00:00Z') && params.x != 'open'"}}`,
		`{id: g, require: {app_check: true}}`,
		`{id: g, deny: {who: [agents], if: "has(lookup.ban) && lookup.ban.until > request.time"}}`,
	} {
		t.Run(guard, func(t *testing.T) {
			text := `version: sidegate-policy/v1
name: test
identities: [users, agents]
lookups: {ban: {document: "bans/${auth.uid}", fields: {until: timestamp}}}
guards:
  - ` + guard + `
routes:
  - {id: r, path: "/a/{rest...}", methods: [GET, POST], upstream: app, allow: [{id: e, who: [users, agents]}]}
  - {id: open, path: "/a/{x}/b", methods: [GET], upstream: app, allow: optional}
`
			p, err := Load("p", []byte(text), nil)
			if err != nil {
				t.Fatal(err)
			}
			without, err := Load("p", []byte(strings.Replace(text, "guards:\n  - "+guard+"\n", "", 1)), nil)
			if err != nil {
				t.Fatal(err)
			}
			var refused, passed int
			for q := range Probes(MaxProbes, p).All() {
				with, bare := judgeProbe(p, q), judgeProbe(without, q)
				switch {
				case bare.Allow && !with.Allow && with.Rule == "g":
					refused++
				case with.Allow:
					passed++
				}
			}
			if refused == 0 || passed == 0 {
				t.Errorf("refused %d, passed %d", refused, passed)
			}
		})
	}
}

// TestProbesLetEachEntryDecide: where entries overlap, each is found to let
// somebody in whom no other does, so that a change of it alone shows.
func TestProbesLetEachEntryDecide(t *testing.T) {
	text := strings.Replace(probePolicy, "allow: [{id: e, CONDITION}]", `allow: [
      {id: own, who: [users], uid: "${params.id}"},
      {id: admin, who: [users], roles: [admin]},
      {id: pro, who: [users], claims: {plan: [pro]}, mfa: 10m},
      {id: high, who: [users, agents], if: auth.token.level > 3 || auth.token.member},
      {id: shared, who: [users], if: auth.uid in lookup.share.readers}]`, 1)
	p, err := Load("p", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	sole := map[string]bool{}
	for q := range Probes(MaxProbes, p).All() {
		m := p.Match(q.Host, q.Path, q.Method)
		if m.Route == nil || q.Identity == nil {
			continue
		}
		in := Input{Route: m.Route, Params: m.Params, Host: q.Host, Path: q.Path, Method: q.Method, Identity: q.Identity, IP: q.IP, Time: q.Time, Lookups: q}
		var hits []string
		for _, r := range p.Explain(&in).Entries {
			if r.Result == Hit {
				hits = append(hits, r.Rule)
			}
		}
		if len(hits) == 1 {
			sole[hits[0]] = true
		}
	}
	for _, rule := range p.Rules() {
		if !sole[rule.ID] {
			t.Errorf("%s never decides alone", rule.ID)
		}
	}
}

// TestProbesAreTheSame holds that the set is one and the same each time, without
// repetition, and that a bound is kept and said.
func TestProbesAreTheSame(t *testing.T) {
	text := strings.Replace(probePolicy, "CONDITION", `who: [users], if: '"admin" in auth.token.roles && auth.uid in lookup.share.readers'`, 1)
	p, err := Load("p", []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	all := func(s *ProbeSet) (out []Probe) {
		for q := range s.All() {
			out = append(out, *q)
		}
		return out
	}
	set := Probes(MaxProbes, p, p)
	first := all(set)
	if set.Cut() {
		t.Error("cut")
	}
	if again := all(set); !reflect.DeepEqual(first, again) {
		t.Error("the second round differs")
	}
	if alone := all(Probes(MaxProbes, p)); !reflect.DeepEqual(first, alone) {
		t.Error("a policy twice gives other probes than once")
	}
	seen := map[string]bool{}
	for _, q := range first {
		q.About = ""
		key := fmt.Sprintf("%+v %+v", q, q.Identity)
		if q.Expires != nil {
			key += fmt.Sprint(*q.Expires)
		}
		if seen[key] {
			t.Errorf("twice: %s", key)
		}
		seen[key] = true
	}
	set = Probes(len(first), p)
	if n := len(all(set)); n != len(first) || set.Cut() {
		t.Errorf("%d of %d, cut: %v", n, len(first), set.Cut())
	}
	set = Probes(10, p)
	if some := all(set); len(some) != 10 || !set.Cut() || !reflect.DeepEqual(some, first[:10]) {
		t.Errorf("%d probes, cut: %v", len(some), set.Cut())
	}
	for range set.All() {
		break // whoever stops early is not told more
	}
}
