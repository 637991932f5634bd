package policy

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"sidegate/policy/document"
)

// operations are the keys of a path item that are operations (OpenAPI 3.2,
// 4.9; Swagger 2.0, "Path Item Object").
var operations = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace", "query"}

// Uncovered lists the operations of an OpenAPI 3 or Swagger 2.0 file, YAML or
// JSON, whose requests no route takes (SG119): on some host, for whatever its
// parameters are, and below one of the paths that its servers name. Only the
// file itself is read: a path that is a $ref is a finding, too. An error is of
// a file that is none of these.
func (p *Policy) Uncovered(name string, data []byte) ([]Finding, error) {
	root, err := document.Loose(name, data)
	if err != nil {
		return nil, err
	}
	swagger := root.Field("swagger").Show() == "2.0"
	if !swagger && !strings.HasPrefix(root.Field("openapi").Show(), "3.") {
		return nil, document.Error{File: name, Text: "is neither an OpenAPI 3 nor a Swagger 2.0 file: it says neither `openapi: 3...` nor `swagger: \"2.0\"`"}
	}
	c := coverage{p: p, name: name}
	bases := []string{""}
	if swagger {
		bases[0] = strings.Trim(root.Field("basePath").Show(), "/")
	} else {
		bases = serverPaths(root, bases)
	}
	for _, item := range root.Field("paths").Entries() {
		if !strings.HasPrefix(item.Key, "/") {
			continue // x-something
		}
		if ref := item.Value.Field("$ref"); ref.Present() {
			c.find(item.At, "path %s is a $ref, which is not followed: put all into one file", shown(item.Key))
		}
		below := serverPaths(item.Value, bases)
		for _, op := range item.Value.Entries() {
			if slices.Contains(operations, op.Key) {
				c.operation(op, strings.ToUpper(op.Key), item.Key, serverPaths(op.Value, below))
			}
		}
	}
	return c.found, nil
}

// A coverage looks at the operations of one file.
type coverage struct {
	p     *Policy
	name  string
	found []Finding
}

func (c *coverage) find(at document.Value, format string, args ...any) {
	line, column := at.Position()
	c.found = append(c.found, Finding{ID: "SG119", Severity: SeverityWarning, File: c.name, Line: line, Column: column, Text: fmt.Sprintf(format, args...)})
}

func (c *coverage) operation(op document.Entry, method, path string, bases []string) {
	shown := shown(joined(bases[0], path))
	if !KnownMethod(method) {
		c.find(op.At, "%s %s is covered by no route: no request of this method is routed", method, shown)
		return
	}
	var takes []string
	for _, base := range bases {
		for _, host := range c.p.hosts.tables() {
			m := c.p.Match(exampleHost(host.host), requestPath(joined(base, path)), method)
			if m.Route != nil {
				return
			}
			takes = append(takes, m.Allowed...)
		}
	}
	if len(takes) == 0 {
		c.find(op.At, "%s %s is covered by no route", method, shown)
		return
	}
	slices.Sort(takes)
	c.find(op.At, "%s %s is covered by no route: those of its path take %s", method, shown, strings.Join(slices.Compact(takes), ", "))
}

func joined(base, path string) string {
	if base == "" {
		return path
	}
	return "/" + base + path
}

// shown is a path of somebody else's file as it can be shown on a terminal.
func shown(path string) string {
	if strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(path)
	}
	return path
}

var parameter = regexp.MustCompile(`\{[^{}/]*\}`)

// requestPath is a request's path for an operation: decoded, and with
// parameters that are nothing that the policy could name.
func requestPath(path string) string {
	path, _, _ = strings.Cut(path, "?")
	path, _, _ = strings.Cut(path, "#")
	path = parameter.ReplaceAllLiteralString(path, anyText)
	if decoded, err := url.PathUnescape(path); err == nil {
		return decoded
	}
	return path
}

// serverPaths are the paths of the URLs in `servers`, without slashes around
// them; those around it where there are none.
func serverPaths(v document.Value, around []string) []string {
	var out []string
	for i, s := range v.Field("servers").List() {
		if path := serverPath(s); i < maxServers && !slices.Contains(out, path) {
			out = append(out, path)
		}
	}
	if out == nil {
		return around
	}
	return out
}

// Bounds of what is read of `servers`.
const (
	maxServers    = 100
	maxServerPath = maxPath
)

var serverVariable = regexp.MustCompile(`\{[^{}]*\}`)

// serverPath is the path of a server's URL, with its variables' defaults. A
// default is text: what looks like a variable in it is none.
func serverPath(server document.Value) string {
	variables := server.Field("variables")
	at := serverVariable.ReplaceAllStringFunc(server.Field("url").Show(), func(name string) string {
		v := variables.Field(name[1 : len(name)-1]).Field("default")
		if !v.Present() || len(v.Show()) > maxServerPath {
			return name
		}
		return v.Show()
	})
	if len(at) > maxServerPath {
		at = at[:maxServerPath]
	}
	if _, rest, ok := strings.Cut(at, "//"); ok { // scheme and host
		_, at, _ = strings.Cut(rest, "/")
	}
	at, _, _ = strings.Cut(at, "?")
	at, _, _ = strings.Cut(at, "#")
	return strings.Trim(strings.TrimPrefix(at, "."), "/")
}
