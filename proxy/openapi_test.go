package proxy

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"sidegate/configs"
)

// A contract is configs/openapi.yaml. It remembers what it was held against.
type contract struct {
	root    map[string]any
	paths   []contractPath
	schemas *jsonschema.Compiler

	mu       sync.Mutex
	answered map[string]bool            // operationId and status
	members  map[string]map[string]bool // by operationId: names of members in its successes
}

type contractPath struct {
	template string
	is       *regexp.Regexp
	item     map[string]any
}

// theContract is read once: every test of a served route is held against it.
var theContract = sync.OnceValues(func() (*contract, error) {
	var doc any
	if err := yaml.Unmarshal([]byte(configs.OpenAPI), &doc); err != nil {
		return nil, err
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	if doc, err = jsonschema.UnmarshalJSON(strings.NewReader(string(text))); err != nil {
		return nil, err
	}
	if at := nullIn(doc, ""); at != "" {
		return nil, fmt.Errorf("configs/openapi.yaml: %s has no value: quote a text that holds a comma", at)
	}
	c := &contract{root: doc.(map[string]any), schemas: jsonschema.NewCompiler(), answered: map[string]bool{}, members: map[string]map[string]bool{}}
	c.schemas.AssertFormat()
	c.schemas.DefaultDraft(jsonschema.Draft2020)
	if err := c.schemas.AddResource("openapi.json", doc); err != nil {
		return nil, err
	}
	for template, item := range c.root["paths"].(map[string]any) {
		expr := regexp.QuoteMeta(template)
		expr = strings.ReplaceAll(expr, `\{key\}`, `.+`)
		expr = regexp.MustCompile(`\\\{\w+\\\}`).ReplaceAllString(expr, `[^/]+`)
		c.paths = append(c.paths, contractPath{template, regexp.MustCompile("^" + expr + "$"), item.(map[string]any)})
	}
	// The more of it is text, the more it says.
	plain := regexp.MustCompile(`\{\w+\}`)
	slices.SortFunc(c.paths, func(a, b contractPath) int {
		return len(plain.ReplaceAllString(b.template, "")) - len(plain.ReplaceAllString(a.template, ""))
	})
	return c, nil
})

// nullIn names a member without a value, which OpenAPI has nowhere: it is what
// the second half of {description: this, and that} becomes.
func nullIn(v any, at string) string {
	switch v := v.(type) {
	case nil:
		return at
	case map[string]any:
		for name, member := range v {
			if found := nullIn(member, at+"/"+escapePointer(name)); found != "" {
				return found
			}
		}
	case []any:
		for i, item := range v {
			if found := nullIn(item, fmt.Sprint(at, "/", i)); found != "" {
				return found
			}
		}
	}
	return ""
}

func readContract(t testing.TB) *contract {
	t.Helper()
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// at follows references and gives the pointer of where it came.
func (c *contract) at(v any, pointer string) (map[string]any, string) {
	m, _ := v.(map[string]any)
	for m != nil {
		ref, ok := m["$ref"].(string)
		if !ok || len(m) > 1 {
			break
		}
		pointer = strings.TrimPrefix(ref, "#")
		var at any = c.root
		for name := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
			at = at.(map[string]any)[name]
		}
		m, _ = at.(map[string]any)
	}
	return m, pointer
}

func escapePointer(s string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(s)
}

// validate holds JSON against the schema at a pointer.
func (c *contract) validate(pointer, body string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	schema, err := c.schemas.Compile("openapi.json#" + (&url.URL{Path: pointer}).EscapedPath())
	if err != nil {
		return err
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err != nil {
		return err
	}
	return schema.Validate(v)
}

// operation finds what the contract has for a request.
func (c *contract) operation(method, path string) (op map[string]any, pointer string, known bool) {
	for _, p := range c.paths {
		if !p.is.MatchString(path) {
			continue
		}
		name := strings.ToLower(method)
		if name == "head" {
			name = "get"
		}
		op, _ := p.item[name].(map[string]any)
		return op, "/paths/" + escapePointer(p.template) + "/" + name, true
	}
	return nil, "", false
}

// check holds a request and its answer against the contract: whatever is answered
// must be in it, and what was asked must be where it succeeded.
func (c *contract) check(t testing.TB, method, target, body string, a answer) {
	t.Helper()
	path, query, _ := strings.Cut(target, "?")
	op, pointer, known := c.operation(method, path)
	if op == nil {
		if a.StatusCode != 405 && a.StatusCode != 404 && (known || a.StatusCode != 403) {
			t.Errorf("%s %s: %d, which configs/openapi.yaml does not have", method, path, a.StatusCode)
		}
		return
	}
	where := fmt.Sprintf("%s %s: %d", method, target, a.StatusCode)
	status := fmt.Sprint(a.StatusCode)
	response, ok := op["responses"].(map[string]any)[status]
	if !ok {
		t.Errorf("%s, which configs/openapi.yaml does not have: %s", where, a.body)
		return
	}
	id := op["operationId"].(string)
	c.mu.Lock()
	c.answered[id+" "+status] = true
	c.mu.Unlock()
	spec, at := c.at(response, pointer+"/responses/"+status)
	c.checkHeaders(t, where, spec, a.Header)
	content, _ := spec["content"].(map[string]any)
	switch {
	case method == http.MethodHead || content == nil:
		if a.body != "" {
			t.Errorf("%s: a body: %s", where, a.body)
		}
	default:
		media := a.Header.Get("Content-Type")
		if content[media] == nil {
			t.Errorf("%s: %q is not in configs/openapi.yaml", where, media)
			return
		}
		if err := c.validate(at+"/content/"+escapePointer(media)+"/schema", a.body); err != nil {
			t.Errorf("%s: %s\n%v", where, a.body, err)
		}
		if a.StatusCode == 200 {
			c.see(id, a.body)
		}
	}
	if a.StatusCode < 400 {
		c.checkRequest(t, where, op, pointer, query, body, a.body)
	}
}

func (c *contract) checkHeaders(t testing.TB, where string, response map[string]any, h http.Header) {
	t.Helper()
	declared, _ := response["headers"].(map[string]any)
	for name, header := range declared {
		spec, _ := c.at(header, "")
		if spec["required"] == true && h.Get(name) == "" {
			t.Errorf("%s: %s is missing", where, name)
		}
		schema, _ := spec["schema"].(map[string]any)
		if want, ok := schema["const"]; ok && h.Get(name) != want {
			t.Errorf("%s: %s: %s", where, name, h.Get(name))
		}
	}
}

func (c *contract) checkRequest(t testing.TB, where string, op map[string]any, pointer, query, body, answer string) {
	t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		t.Errorf("%s: %v", where, err)
	}
	declared := map[string]bool{}
	list, _ := op["parameters"].([]any)
	for _, parameter := range list {
		spec, _ := c.at(parameter, "")
		if spec["in"] == "query" {
			declared[spec["name"].(string)] = true
		}
		if spec["in"] == "query" && spec["required"] == true && !values.Has(spec["name"].(string)) {
			t.Errorf("%s: it succeeded without %s", where, spec["name"])
		}
	}
	for name := range values {
		if i := strings.IndexByte(name, '['); i > 0 { // style deepObject
			name = name[:i]
		}
		if !declared[name] {
			t.Errorf("%s: the parameter %s is not in configs/openapi.yaml", where, name)
		}
	}
	if strings.Contains(answer, `"code":`) { // of one of many, that was wrong
		return
	}
	if request, ok := op["requestBody"].(map[string]any); ok && (body != "" || request["required"] == true) {
		if err := c.validate(pointer+"/requestBody/content/application~1json/schema", body); err != nil {
			t.Errorf("%s: it succeeded with %s\n%v", where, body, err)
		}
	}
}

// see remembers the members of an answer.
func (c *contract) see(operation, body string) {
	var v any
	if json.Unmarshal([]byte(body), &v) != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.members[operation] == nil {
		c.members[operation] = map[string]bool{}
	}
	seen := c.members[operation]
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, value := range v {
				seen[name] = true
				walk(value)
			}
		case []any:
			for _, value := range v {
				walk(value)
			}
		}
	}
	walk(v)
}

// names are the members that a schema has.
func (c *contract) names(v any, out map[string]bool) {
	m, _ := v.(map[string]any)
	if ref, ok := m["$ref"].(string); ok {
		target, _ := c.at(map[string]any{"$ref": ref}, "")
		c.names(target, out)
	}
	properties, _ := m["properties"].(map[string]any)
	for name, p := range properties {
		out[name] = true
		c.names(p, out)
	}
	if items := m["items"]; items != nil {
		c.names(items, out)
	}
	for _, key := range []string{"oneOf", "anyOf", "allOf"} {
		list, _ := m[key].([]any)
		for _, option := range list {
			c.names(option, out)
		}
	}
}

// uncovered says what of the contract was not seen.
func (c *contract) uncovered() (missing []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.paths {
		for _, v := range p.item {
			op, ok := v.(map[string]any)
			if !ok || op["operationId"] == nil {
				continue
			}
			id := op["operationId"].(string)
			for status, response := range op["responses"].(map[string]any) {
				if !c.answered[id+" "+status] {
					missing = append(missing, id+" is never answered by "+status)
				}
				if status != "200" {
					continue
				}
				spec, _ := c.at(response, "")
				names := map[string]bool{}
				content, _ := spec["content"].(map[string]any)
				if media, ok := content["application/json"].(map[string]any); ok {
					c.names(media["schema"], names)
				}
				for name := range names {
					if !c.members[id][name] {
						missing = append(missing, id+" never answers "+name)
					}
				}
			}
		}
	}
	slices.Sort(missing)
	return missing
}

// statuses of problems are those of the codes.
func (c *contract) codes() map[string]string {
	out := map[string]string{}
	for name, v := range c.root["components"].(map[string]any)["schemas"].(map[string]any) {
		status, ok := strings.CutPrefix(name, "Problem")
		if !ok || status == "" {
			continue
		}
		for _, code := range v.(map[string]any)["properties"].(map[string]any)["code"].(map[string]any)["enum"].([]any) {
			out[code.(string)] = status
		}
	}
	return out
}
