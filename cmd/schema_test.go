package cmd

import (
	"crypto/elliptic"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"gopkg.in/yaml.v3"

	"sidegate/configs"
	"sidegate/configs/schematest"
	"sidegate/policy/document"
)

// These tests hold the JSON Schema of sidegate.yaml against the loader. Two
// more are where the loader's own are: mustLoad and TestRefused.

func configSchema(t *testing.T) map[string]any {
	t.Helper()
	var root map[string]any
	if err := json.Unmarshal([]byte(configs.ConfigSchema), &root); err != nil {
		t.Fatal(err)
	}
	return root
}

var configValidator = sync.OnceValue(func() *jsonschema.Schema {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(configs.ConfigSchema))
	if err != nil {
		panic(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("sidegate.schema.json", doc); err != nil {
		panic(err)
	}
	return c.MustCompile("sidegate.schema.json")
})

// fitsSchema is nil where an editor would have nothing to say, and where there
// is nothing to compare: a number such as +5 has no form in JSON.
func fitsSchema(text string) error {
	doc := document.New("sidegate.yaml", nil)
	root := doc.Parse([]byte(text), configVersion)
	before := doc.Err() // ${env:}, which this reader does not have
	plain := root.Plain()
	if fmt.Sprint(doc.Err()) != fmt.Sprint(before) {
		return nil
	}
	return configValidator().Validate(plain)
}

func TestSchemaKnowsEveryKey(t *testing.T) {
	keys := configKeys()
	seen := map[string]bool{}
	var walk func(path string, s map[string]any)
	walk = func(path string, s map[string]any) {
		if named, ok := s["additionalProperties"].(map[string]any); ok {
			walk(strings.TrimPrefix(path+".*", "."), named)
			return
		}
		properties, ok := s["properties"].(map[string]any)
		if !ok {
			return
		}
		seen[path] = true
		compare(t, "schema, "+path, slices.Collect(maps.Keys(properties)), keys[path].Known)
		if s["additionalProperties"] != false {
			t.Errorf("schema, %s: accepts unknown keys", path)
		}
		for key, p := range properties {
			walk(strings.TrimPrefix(path+"."+key, "."), p.(map[string]any))
		}
	}
	walk("", configSchema(t))
	compare(t, "schema", slices.Collect(maps.Keys(seen)), slices.Collect(maps.Keys(keys)))
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
			if err := fitsSchema(text); err != nil {
				t.Error(err)
			}
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

func TestExamplesFitTheSchema(t *testing.T) {
	files, err := filepath.Glob("../examples/*/sidegate.yaml")
	if err != nil || len(files) < 3 {
		t.Fatal(files, err)
	}
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := fitsSchema(string(data)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// formless are the mistakes that the schema does not see: what a value means,
// what other keys and other files say of it, and what only this machine knows.
var formless = regexp.MustCompile(strings.Join([]string{
	"the variable .* is not set", "needs a variable's name", "file does not exist", "empty is empty", "starts neither", // ${...}
	`not ":70000"|want host:port or :port$`, "must be from", "write IPv4 networks as IPv4", "has bits set beyond its length", "S3 Express", // meaning
	"it cannot be longer", "are one port", "a token could be of", "there is no identity", "in a circle", "are one folder", "are one collection", // other keys
	"GOOGLE_CLOUD_PROJECT names no project", "neither tenant", "is for an https url", "have one scheme", "this address is there twice", "browsers write an origin", "scheme's own port", "stands alone", "would let every page", "browsers do not take", "session cookies live", "without `revocation`", "an identity has one issuer",
	"is not known here", "there must be a space", "is there already", "neither a literal", "write `firebase:", "the policy reads auth", "there is none", "does not say who calls", "needs `assertion.key`", // header templates
	"the store r2", "not one of AWS", "what kind of store that is", "is not possible", "holds a control character", // kinds of stores, escapes
	"not 24 to 64 bytes", "is not base64", "asymmetric signatures", "more than 4 secrets", "not an absolute URL", "use https", "neither https nor http", "has a fragment", // webhook
	"want redis://", "a user without a password", "is for a rediss:// url", // redis
	"is for an https URL", "want the URL of a collector", "want a URL without user", "is the gateway's to set", "in another spelling", // telemetry
	"one key in PEM", "no key to sign with", "is the key itself", "not P-256", "ES256 needs", "of requests, and stand", // keys
}, "|"))

// TestSchemaAndLoaderAgreeOnDefaults loads each default that the schema names.
func TestSchemaAndLoaderAgreeOnDefaults(t *testing.T) {
	defaults := map[string]any{"version": configVersion}
	for name, s := range configSchema(t)["properties"].(map[string]any) {
		if v, ok := defaultsOf(s.(map[string]any)); ok {
			defaults[name] = v
		}
	}
	for _, section := range []string{"storage", "audit", "lookups"} {
		delete(defaults[section].(map[string]any), "firestore")
	}
	delete(defaults["listen"].(map[string]any), "tls")
	delete(defaults, "assertion") // which needs a key
	delete(defaults, "cors")      // and this origins
	delete(defaults, "forward_auth")
	delete(defaults, "telemetry") // and this a collector
	delete(defaults, "webhook")   // which has none
	delete(defaults, "redis")
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

// beside is what a mapping needs for any of its keys to make sense.
var beside = map[string]map[string]any{
	"identities.*":          {"firebase": map[string]any{"project": "acme-prod"}},
	"identities.*.firebase": {"project": "acme-prod", "revocation": "5m"},
	"identities.*.google":   {"audience": "https://photos.acme.dev", "emails": []string{"thumbs@acme-prod.iam.gserviceaccount.com"}},
	"identities.*.oidc":     {"issuer": "https://acme.okta.com/oauth2/default", "audience": "photos-api"},
	"assertion":             {"key": "${file:k1.pem}"},
	"forward_auth":          {"dialect": "nginx"},
	"telemetry":             {"otlp": "https://otlp.acme.dev"},
	"webhook":               {"url": "https://acme.dev/hooks", "secret": "24-bytes-or-more-less-than-65"},
	"redis":                 {"url": "rediss://redis.acme.dev"},
	"cors":                  {"origins": []string{"https://app.acme.dev"}},
	"upstreams.*":           {"url": "https://app"},
	"listen.tls":            {"cert": "tls.crt", "key": "tls.key"},
	"upstreams.*.tls":       {"cert": "gateway.crt", "key": "gateway.key"},
	"buckets.*":             {"bucket": "acme", "endpoint": "https://s3.eu-central-1.amazonaws.com"}, // which any kind of store may have
	"buckets.*.sse":         {"kms_key": "k"},
	"buckets.*.credentials": {"access_key": "a", "secret_key": "b"},
	"audit":                 {"firestore": map[string]any{}},
}

// besideKey is the same for one key, where others of its mapping exclude it.
var besideKey = map[string]map[string]any{
	"buckets.*.endpoint":             {"bucket": "acme", "store": "other"},
	"buckets.*.credentials.role":     {"from": "google"},
	"buckets.*.credentials.from":     {"role": "arn:aws:iam::111122223333:role/x"},
	"buckets.*.credentials.audience": {"from": "google", "role": "arn:aws:iam::111122223333:role/x"},
}

// TestSchemaOffersWhatLoads tries each word, default and example of the schema.
func TestSchemaOffersWhatLoads(t *testing.T) {
	root := configSchema(t)
	env := map[string]string{"GOOGLE_CLOUD_PROJECT": "acme-prod", "S3_ACCESS_KEY": "a", "S3_SECRET_KEY": "b"}
	p := place{env: env, files: map[string]string{"/run/secrets/s3": "s", "/etc/sidegate/k1.pem": newPEM(t, elliptic.P256()), "/etc/sidegate/k2.pem": newPEM(t, elliptic.P256()), "/etc/sidegate/audit.key": auditKey(t), "/run/secrets/webhook": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "/run/secrets/redis": "rediss://:p@redis.acme.dev", "/run/secrets/otlp": "Bearer s3cr3t"}}
	for path, keys := range configKeys() {
		s := root
		for _, part := range strings.Split(path, ".") {
			switch part {
			case "":
			case "*":
				s = s["additionalProperties"].(map[string]any)
			default:
				s = s["properties"].(map[string]any)[part].(map[string]any)
			}
		}
		for _, key := range keys.Known {
			for _, v := range schematest.Words(root, schematest.At(s, "properties", key)) {
				near := beside[path]
				if own, ok := besideKey[path+"."+key]; ok {
					near = own
				}
				file := with(near, key, v)
				parts := strings.Split(path, ".")
				for i := len(parts) - 1; i >= 0 && path != ""; i-- {
					file = with(beside[strings.Join(parts[:i], ".")], strings.Replace(parts[i], "*", "users", 1), file)
				}
				file["version"] = configVersion
				text, err := json.Marshal(file) // flow style is YAML
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := p.load(string(text)); err != nil {
					t.Errorf("%s\n%v", text, err)
				}
			}
		}
	}
}

func with(m map[string]any, key string, v any) map[string]any {
	out := map[string]any{key: v}
	for k, other := range m {
		if k != key && !(slices.Contains(issuers, k) && slices.Contains(issuers, key)) {
			out[k] = other
		}
	}
	return out
}
