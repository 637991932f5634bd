package cmd

import (
	"encoding/json"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"gopkg.in/yaml.v3"

	"sidegate/configs"
	"sidegate/policy/document"
)

// leaves are the keys that hold values, with <name> for names.
func leaves() []string {
	keys := configKeys()
	var out []string
	for path, k := range keys {
		for _, key := range k.Known {
			full := strings.TrimPrefix(path+"."+key, ".")
			if _, section := keys[full]; section {
				continue
			}
			if _, section := keys[full+".*"]; section {
				continue
			}
			out = append(out, strings.ReplaceAll(full, "*", "<name>"))
		}
	}
	slices.Sort(out)
	return out
}

// documented is the first column of the tables under a heading of
// docs/configuration.md, up to the next heading of its level.
func documented(t *testing.T, heading string) []string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(data), "\n## "+heading+"\n")
	if !ok {
		t.Fatalf("docs/configuration.md has no section %q", heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var out []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)`").FindAllStringSubmatch(section, -1) {
		out = append(out, row[1])
	}
	slices.Sort(out)
	return out
}

func compare(t *testing.T, what string, have, want []string) {
	t.Helper()
	for _, s := range want {
		if n := len(have) - len(slices.DeleteFunc(slices.Clone(have), func(h string) bool { return h == s })); n != 1 {
			t.Errorf("%s: %s is there %d times", what, s, n)
		}
	}
	for _, s := range have {
		if !slices.Contains(want, s) {
			t.Errorf("%s: %s does not exist", what, s)
		}
	}
}

func testRoot() *cobra.Command {
	p := &program{env: newEnvironment(nil), stdout: io.Discard, stderr: io.Discard}
	return p.newRoot()
}

func TestReferenceNamesEveryKey(t *testing.T) {
	compare(t, "docs/configuration.md", documented(t, "Keys"), leaves())
}

func TestReferenceNamesEveryFlag(t *testing.T) {
	flags := map[string]bool{}
	var collect func(c *cobra.Command)
	collect = func(c *cobra.Command) {
		c.LocalFlags().VisitAll(func(f *pflag.Flag) { flags["--"+f.Name] = true })
		for _, sub := range c.Commands() {
			if sub.Name() != "audit" { // docs/audit.md
				collect(sub)
			}
		}
	}
	collect(testRoot())
	delete(flags, "--help")
	compare(t, "docs/configuration.md", documented(t, "Flags"), slices.Collect(maps.Keys(flags)))
}

func TestAuditPageNamesEveryFlag(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "docs", "audit.md"))
	if err != nil {
		t.Fatal(err)
	}
	audit := newAuditCommand(newEnvironment(nil), io.Discard, io.Discard)
	for _, sub := range audit.Commands() {
		sub.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name != "help" && !strings.Contains(string(page), "`--"+f.Name+"`") {
				t.Errorf("docs/audit.md forgets --%s of audit %s", f.Name, sub.Name())
			}
		})
	}
}

func TestReferenceNamesEveryExitStatus(t *testing.T) {
	var want []string
	for _, status := range []int{exitFine, exitFailed, exitUsage, exitInvalid} {
		want = append(want, strconv.Itoa(status))
	}
	compare(t, "docs/configuration.md", documented(t, "Exit statuses"), want)
}

func TestReferenceExampleLoads(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("..", "docs", "configuration.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, example, _ := strings.Cut(string(data), "```yaml\n")
	example, _, _ = strings.Cut(example, "```")
	p := place{env: map[string]string{"GOOGLE_CLOUD_PROJECT": "acme-prod", "S3_BUCKET": "acme-photos"}}
	if c, _, err := p.load(example); err != nil || len(c.Buckets) != 1 {
		t.Errorf("the first example does not load: %v", err)
	}
}

func TestEveryCommandShowsAnExample(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Example == "" {
			t.Errorf("`%s` shows no example", c.CommandPath())
		}
		if c.Short == "" {
			t.Errorf("`%s` does not say what it does", c.CommandPath())
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(testRoot())
}

// A schema is the part of JSON Schema that ours uses.
type schema struct {
	Description          string             `json:"description"`
	Type                 any                `json:"type"`
	Properties           map[string]*schema `json:"properties"`
	AdditionalProperties json.RawMessage    `json:"additionalProperties"`
	Required             []string           `json:"required"`
	Pattern              string             `json:"pattern"`
	AnyOf                []struct {
		Enum    []string `json:"enum"`
		Pattern string   `json:"pattern"`
	} `json:"anyOf"`
	Items *schema `json:"items"`
}

func loadSchema(t *testing.T) *schema {
	t.Helper()
	root := &schema{}
	if err := json.Unmarshal([]byte(configs.Schema), root); err != nil {
		t.Fatal(err)
	}
	return root
}

// named is the schema of the values of a mapping with names of one's own.
func (s *schema) named(t *testing.T) *schema {
	inner := &schema{}
	if err := json.Unmarshal(s.AdditionalProperties, inner); err != nil {
		t.Fatal(err)
	}
	return inner
}

func (s *schema) at(t *testing.T, path string) *schema {
	for _, part := range strings.Split(path, ".") {
		switch {
		case part == "":
		case part == "*":
			s = s.named(t)
		case s.Properties[part] == nil:
			t.Fatalf("the schema has no %s", path)
		default:
			s = s.Properties[part]
		}
	}
	return s
}

func TestSchemaKnowsEveryKey(t *testing.T) {
	root := loadSchema(t)
	for path, keys := range configKeys() {
		at := root.at(t, path)
		compare(t, "schema, "+path, slices.Collect(maps.Keys(at.Properties)), keys.Known)
		if string(at.AdditionalProperties) != "false" {
			t.Errorf("schema, %s: accepts unknown keys", path)
		}
		for key, p := range at.Properties {
			if p.Description == "" || p.Type == nil {
				t.Errorf("schema, %s.%s: no description or type", path, key)
			}
		}
	}
}

// fits checks keys, types, patterns and words.
func (s *schema) fits(t *testing.T, path string, n *yaml.Node) {
	t.Helper()
	types, _ := s.Type.([]any)
	if one, ok := s.Type.(string); ok {
		types = []any{one}
	}
	kinds := map[string]string{"!!map": "object", "!!seq": "array", "!!str": "string", "!!int": "integer", "!!bool": "boolean"}
	if !slices.Contains(types, any(kinds[n.Tag])) {
		t.Errorf("%s: %s does not fit %v", path, n.Tag, s.Type)
		return
	}
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i].Value
			inner := s.Properties[key]
			if inner == nil {
				if string(s.AdditionalProperties) == "false" {
					t.Errorf("%s.%s: not in the schema", path, key)
					continue
				}
				inner = s.named(t)
			}
			inner.fits(t, path+"."+key, n.Content[i+1])
		}
	case yaml.SequenceNode:
		for _, item := range n.Content {
			s.Items.fits(t, path, item)
		}
	case yaml.ScalarNode:
		s.fitsScalar(t, path, n)
	}
}

func (s *schema) fitsScalar(t *testing.T, path string, n *yaml.Node) {
	t.Helper()
	if n.Tag == "!!str" && s.Pattern != "" && !regexp.MustCompile(s.Pattern).MatchString(n.Value) {
		t.Errorf("%s: %q does not match %s", path, n.Value, s.Pattern)
	}
	for _, option := range s.AnyOf {
		if slices.Contains(option.Enum, n.Value) || option.Pattern != "" && regexp.MustCompile(option.Pattern).MatchString(n.Value) {
			return
		}
	}
	if len(s.AnyOf) > 0 {
		t.Errorf("%s: %q is none of the words", path, n.Value)
	}
}

// uncommented is the default config with its suggestions switched on, those of
// one machine or those of Cloud Run.
func uncommented(from, to string) string {
	text := configs.Config
	i, j := strings.Index(text, from), len(text)
	if to != "" {
		j = strings.Index(text, to)
	}
	return text[:i] + regexp.MustCompile(`(?m)^# ([a-z]+: )`).ReplaceAllString(text[i:j], "$1")
}

func TestDefaultFilesFitTheSchemaAndTheLoader(t *testing.T) {
	p := place{env: map[string]string{"GOOGLE_CLOUD_PROJECT": "acme-prod", "S3_BUCKET": "acme-photos"}}
	for name, text := range map[string]string{
		"as written":  configs.Config,
		"one machine": uncommented("# On one machine", "# On Cloud Run"),
		"Cloud Run":   uncommented("# On Cloud Run", ""),
		"bucket":      regexp.MustCompile(`(?m)^    # `).ReplaceAllString(configs.Config, "    "),
	} {
		t.Run(name, func(t *testing.T) {
			var doc yaml.Node
			if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
				t.Fatal(err)
			}
			loadSchema(t).fits(t, "", doc.Content[0])
			place := p
			if name == "Cloud Run" {
				place.env = maps.Clone(p.env)
				place.env["K_SERVICE"] = "gateway"
			}
			c, warnings, err := place.load(text)
			if err != nil || len(warnings) > 0 {
				t.Fatalf("%v %v", warnings, err)
			}
			path := filepath.Join(t.TempDir(), "policy.yaml")
			write(t, path, configs.Policy)
			if _, err := loadPolicy(path, c); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestSchemaAndLoaderAgreeOnDefaults loads each default that the schema names.
func TestSchemaAndLoaderAgreeOnDefaults(t *testing.T) {
	var raw map[string]any
	if err := json.Unmarshal([]byte(configs.Schema), &raw); err != nil {
		t.Fatal(err)
	}
	defaults := map[string]any{"version": configVersion}
	for name, s := range raw["properties"].(map[string]any) {
		if v, ok := defaultsOf(s.(map[string]any)); ok {
			defaults[name] = v
		}
	}
	delete(defaults["storage"].(map[string]any), "firestore")
	delete(defaults["audit"].(map[string]any), "firestore")
	text, err := yaml.Marshal(defaults)
	if err != nil {
		t.Fatal(err)
	}
	written, _, err := place{}.load(string(text))
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	absent := mustLoad(t, place{}, "")
	a, _ := json.Marshal(written)
	b, _ := json.Marshal(absent)
	if string(a) != string(b) {
		t.Errorf("the schema's defaults are others than the loader's:\n%s\n%s", a, b)
	}
}

func defaultsOf(s map[string]any) (any, bool) {
	properties, ok := s["properties"].(map[string]any)
	if !ok {
		v, ok := s["default"]
		return v, ok
	}
	out := map[string]any{}
	for name, p := range properties {
		if v, ok := defaultsOf(p.(map[string]any)); ok {
			out[name] = v
		}
	}
	return out, true
}

func TestKeysTableHasNoStrangePaths(t *testing.T) {
	keys := configKeys()
	for path := range keys {
		parent, last := "", path
		if i := strings.LastIndex(strings.TrimSuffix(path, ".*"), "."); i >= 0 {
			parent, last = path[:i], path[i+1:]
		}
		last = strings.TrimSuffix(last, ".*")
		if path != "" && !slices.Contains(append(keys[parent].Known, keys[parent+".*"].Known...), last) {
			t.Errorf("%s: %s does not know %s%s", path, parent, last, document.DidYouMean(last, keys[parent].Known))
		}
	}
}
