package main

import (
	"fmt"
	"path"
	"strings"
)

// A row is a line of the table: a proxy, what it is to do, and what it is
// asked.
type row struct {
	id, title string
	kind      kind
	peer      peer
	load      load
	logs      string // what it writes down of each request
	other     bool   // of the other sidegate program
}

// A kind is what a proxy does beside forwarding; the chart has a colour for
// each.
type kind string

const (
	reference kind = "reference"
	forwards  kind = "forwards only"
	verifies  kind = "verifies tokens"
	gateway   kind = "sidegate"
)

// A load is what is sent, again and again, with the tokens in turn.
type load struct {
	tokens  tokenSet
	presign bool // POST of an upload in the place of GET of an app's route
	status  int  // that all answers have
}

const (
	noLogs       = "nothing"
	sidegateLogs = "a line, and the audit log's decision and outcome"
	countedLogs  = "a line; in the audit log one by one up to a rate, then counted"
)

var (
	oneToken   = load{tokens: one, status: 200}
	thousand   = load{tokens: users, status: 200}
	ofThousand = ", 1,000 users' tokens in turn"
)

// rows are all there are, in the order of the table. The first is what the
// others are compared with.
func rows() []row {
	out := []row{
		{id: "bare", title: "bare `httputil.ReverseProxy`", kind: reference, peer: bare{}, load: oneToken, logs: noLogs},
		{id: "bare-one-cpu", title: "bare `httputil.ReverseProxy`, `GOMAXPROCS=1`", kind: reference, peer: bare{env: []string{oneCPU}}, load: oneToken, logs: noLogs},
		{id: "haproxy", title: "HAProxy, forwarding only", kind: forwards, peer: haproxy{}, load: oneToken, logs: noLogs},
		{id: "nginx", title: "nginx, forwarding only", kind: forwards, peer: nginx{}, load: oneToken, logs: noLogs},
		{id: "apache", title: "Apache, forwarding only", kind: forwards, peer: apache{}, load: oneToken, logs: noLogs},
		{id: "caddy", title: "Caddy, forwarding only", kind: forwards, peer: caddy{}, load: oneToken, logs: noLogs},
	}
	pair := func(id, title string, kind kind, p peer, logs string) {
		out = append(out,
			row{id: id, title: title, kind: kind, peer: p, load: oneToken, logs: logs},
			row{id: id + "-1000", title: title + ofThousand, kind: kind, peer: p, load: thousand, logs: logs})
	}
	pair("haproxy-jwt", "HAProxy, `jwt_verify`", verifies, haproxy{jwt: true}, noLogs)
	pair("nginx-ask", "nginx, `auth_request` to sidegate", verifies, nginx{ask: true}, "nginx nothing; sidegate "+sidegateLogs)
	pair("apache-jwt", "Apache, mod_auth_openidc", verifies, apache{jwt: true}, noLogs)
	pair("sidegate", "**sidegate**", gateway, sidegate{}, sidegateLogs)
	pair("sidegate-one-cpu", "sidegate, `GOMAXPROCS=1`", gateway, sidegate{env: []string{oneCPU}}, sidegateLogs)
	pair("sidegate-nethttp", "sidegate, `transport: net/http`", gateway, sidegate{transport: "net/http"}, sidegateLogs)
	return append(out,
		row{id: "sidegate-first", title: "sidegate, each token seen for the first time", kind: gateway, peer: sidegate{tokenCache: firstSeenCache}, load: load{tokens: fresh, status: 200}, logs: sidegateLogs},
		row{id: "sidegate-power", title: "sidegate, `audit.survive: power`", kind: gateway, peer: sidegate{survive: "power"}, load: oneToken, logs: sidegateLogs + ", fsynced first"},
		row{id: "sidegate-assertion", title: "sidegate, with assertions (ES256)", kind: gateway, peer: sidegate{assertion: true}, load: oneToken, logs: sidegateLogs},
		row{id: "sidegate-presign", title: "sidegate, an upload presigned (embedded store)", kind: gateway, peer: sidegate{}, load: load{tokens: one, presign: true, status: 200}, logs: sidegateLogs},
		row{id: "sidegate-denied", title: "sidegate, denied by the policy (403)", kind: gateway, peer: sidegate{}, load: load{tokens: reader, status: 403}, logs: countedLogs},
		row{id: "sidegate-malformed", title: "sidegate, no token of anybody's (401)", kind: gateway, peer: sidegate{}, load: load{tokens: malformed, status: 401}, logs: countedLogs},
		row{id: "sidegate-forged", title: "sidegate, a forged signature (401)", kind: gateway, peer: sidegate{}, load: load{tokens: forged, status: 401}, logs: countedLogs},
	)
}

// choose takes the rows that one of the patterns fits, and always the first.
func choose(all []row, only string) ([]row, error) {
	if only == "" {
		return all, nil
	}
	fits := make([]bool, len(all))
	fits[0] = true
	for pattern := range strings.SplitSeq(only, ",") {
		found := false
		for i, r := range all {
			ok, err := path.Match(pattern, r.id)
			if err != nil {
				return nil, fmt.Errorf("--only %s: %w", pattern, err)
			}
			fits[i] = fits[i] || ok
			found = found || ok
		}
		if !found {
			return nil, fmt.Errorf("--only %s: no row is called so; --list shows them", pattern)
		}
	}
	var out []row
	for i, r := range all {
		if fits[i] {
			out = append(out, r)
		}
	}
	return out, nil
}
