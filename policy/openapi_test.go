package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

const openapiPolicy = `version: sidegate-policy/v1
identities: [users]
routes:
  - {id: items, path: /v1/items, methods: [GET], upstream: app, allow: [{who: [users]}]}
  - {id: items-add, path: /v1/items, methods: [POST], upstream: app, allow: [{who: [users]}]}
  - {id: item, path: "/v1/items/{id}", methods: [GET, DELETE], upstream: app, allow: [{who: [users]}]}
  - {id: top, path: /v1/items/top, methods: [GET], upstream: app, allow: [{who: [users]}]}
  - {id: docs, path: "/v1/docs/{rest...}", methods: [GET, PUT], upstream: app, allow: [{who: [users]}]}
  - {id: closed, path: /v1/docs/closed, methods: [PUT], upstream: app, allow: [{who: [users]}]}
  - {id: inner, path: /v1/inner, host: [api.dev], methods: [GET], upstream: app, allow: [{who: [users]}]}
  - {id: suffix, path: /v1/suffix, host: ['*.dev'], methods: [GET], upstream: app, allow: [{who: [users]}]}
`

func TestUncovered(t *testing.T) {
	p := mustLoad(t, openapiPolicy)
	for _, tt := range []struct{ name, text string }{
		{"covered", "openapi: 3.1.0\npaths:\n  /v1/items: {get: {}, post: {}, head: {}}\n  /v1/items/{item}: {get: {}, delete: {}, summary: x, parameters: []}\n  x-more: {get: {}}\n"},
		{"a method of no route", "openapi: 3.1.0\npaths:\n  /v1/items: {get: {}, «PUT /v1/items»put: {}}\n"},
		{"a path of no route", "openapi: 3.1.0\npaths:\n  /v1/other:\n    «GET /v1/other»get: {}\n    «POST /v1/other»post: {}\n"},
		{"a route of one value only", "openapi: 3.1.0\npaths:\n  /v1/{collection}:\n    «GET /v1/{collection}»get: {}\n"},
		{"a path without a capture within one with", "openapi: 3.1.0\npaths:\n  /v1/items/recent: {get: {}}\n"},
		{"the most specific route decides", "openapi: 3.1.0\npaths:\n  /v1/docs/open: {get: {}}\n  /v1/docs/closed: {«GET /v1/docs/closed»get: {}, put: {}}\n  /v1/items/top: {«DELETE /v1/items/top»delete: {}}\n"},
		{"a part of a segment", "openapi: 3.1.0\npaths:\n  /v1/items/{id}.json: {get: {}}\n  /v1/items{id}: {«GET /v1/items{id}»get: {}}\n"},
		{"several segments", "openapi: 3.1.0\npaths:\n  /v1/docs/{a}/{b}/: {get: {}}\n  /v1/docs: {get: {}}\n"},
		{"some host", "openapi: 3.1.0\npaths:\n  /v1/inner: {get: {}}\n  /v1/suffix: {get: {}}\n"},
		{"methods that are not routed", "openapi: 3.1.0\npaths:\n  /v1/items: {«TRACE /v1/items»trace: {}, «QUERY /v1/items»query: {}}\n"},
		{"encoded", "openapi: 3.1.0\npaths:\n  /v1/%69tems?all=1: {get: {}}\n"},
		{"a reference", "openapi: 3.1.0\npaths:\n  «path /v1/x»/v1/x: {$ref: x.yaml}\n"},
		{"an alias", "openapi: 3.1.0\nx-item: &x {get: {}}\npaths:\n  /v1/items: *x\n  /v1/docs/a: {<<: *x}\n"},
		{"no paths", "openapi: 3.1.0\nwebhooks: {}\n"},

		{"a server's path", "openapi: 3.0.3\nservers: [{url: https://api.dev/v1/}]\npaths:\n  /items: {get: {}, «PUT /v1/items»put: {}}\n"},
		{"a path as a server", "openapi: 3.0.3\nservers: [{url: /v1}]\npaths: {/items: {get: {}}}\n"},
		{"a relative server", "openapi: 3.0.3\nservers: [{url: ./v1}]\npaths: {/items: {get: {}}}\n"},
		{"a server without a path", "openapi: 3.0.3\nservers: [{url: 'https://api.dev'}, {url: /}]\npaths: {/v1/items: {get: {}}}\n"},
		{"one of several servers", "openapi: 3.0.3\nservers: [{url: 'http://localhost:8080'}, {url: 'https://api.dev/v1?x#y'}]\npaths: {/items: {get: {}}, /other: {«GET /other»get: {}}}\n"},
		{"a server's variables", "openapi: 3.0.3\nservers: [{url: '{scheme}://{host}/{base}', variables: {scheme: {default: https}, host: {default: x}, base: {default: v1}}}]\npaths: {/items: {get: {}}}\n"},
		{"a path's server", "openapi: 3.0.3\nservers: [{url: /v2}]\npaths:\n  /items: {servers: [{url: /v1}], get: {}}\n  /docs/x: {«GET /v2/docs/x»get: {}}\n"},
		{"an operation's server", "openapi: 3.0.3\npaths:\n  /items: {servers: [{url: /v2}], get: {servers: [{url: /v1}]}, «POST /v2/items»post: {}}\n"},
		{"Swagger", "swagger: '2.0'\nbasePath: /v1/\npaths:\n  /items: {get: {}, «PUT /v1/items»put: {}}\n"},
		{"Swagger, not quoted", "swagger: 2.0\npaths:\n  /v1/items: {get: {}}\n"},
		{"JSON", "{\"openapi\": \"3.1.0\", \"info\": {\"title\": \"\\ud83d\\ude00\"},\n\t\"paths\": {\"/v1/items\": {\"get\": {}, «PUT /v1/items»\"put\": {}}}}"},
	} {
		text, want := unmarkedOpenAPI(tt.text)
		found, err := p.Uncovered("api.yaml", []byte(text))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var got []string
		for _, f := range found {
			what, _, _ := strings.Cut(f.Text, " is ")
			got = append(got, fmt.Sprintf("%d:%d %s", f.Line, f.Column, what))
			if f.ID != "SG119" || f.Severity != SeverityWarning || f.File != "api.yaml" {
				t.Errorf("%s: %+v", tt.name, f)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s:\ngot  %q\nwant %q", tt.name, got, want)
		}
	}
}

// unmarkedOpenAPI is unmarked, with the start of the finding's text as the mark.
func unmarkedOpenAPI(text string) (string, []string) {
	var want []string
	for {
		before, rest, ok := strings.Cut(text, "«")
		if !ok {
			return text, want
		}
		what, after, _ := strings.Cut(rest, "»")
		line := strings.Count(before, "\n") + 1
		column := len([]rune(before[strings.LastIndexByte(before, '\n')+1:])) + 1
		want = append(want, fmt.Sprintf("%d:%d %s", line, column, what))
		text = before + after
	}
}

func TestUncoveredSaysWhich(t *testing.T) {
	p := mustLoad(t, openapiPolicy)
	found, err := p.Uncovered("api.yaml", []byte("openapi: 3.1.0\npaths: {/v1/items: {put: {}}, /v1/x: {get: {}}, \"/v1/\\e[2J\": {get: {}}}\n"))
	if err != nil || len(found) != 3 {
		t.Fatal(found, err)
	}
	for i, want := range []string{"PUT /v1/items is covered by no route: those of its path take GET, HEAD, POST", "GET /v1/x is covered by no route", `GET "/v1/\x1b[2J" is covered by no route`} {
		if found[i].Text != want {
			t.Errorf("got %s, want %s", found[i].Text, want)
		}
	}
}

func TestUncoveredRefuses(t *testing.T) {
	p := mustLoad(t, openapiPolicy)
	for _, tt := range []struct{ text, want string }{
		{"a: [", "api.yaml:1:1: not YAML"},
		{"version: sidegate-policy/v1\n", "api.yaml: is neither an OpenAPI 3 nor a Swagger 2.0 file"},
		{"openapi: 4.0.0\n", "api.yaml: is neither"},
		{"swagger: '1.2'\n", "api.yaml: is neither"},
		{"- a\n", "api.yaml: is neither"},
	} {
		if _, err := p.Uncovered("api.yaml", []byte(tt.text)); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%q: %v", tt.text, err)
		}
	}
}
