package cmd

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"sidegate/proxy"
	"sidegate/proxy/oidc"
	"sidegate/storage/audit"
)

// place is a machine that a config is loaded on.
type place struct {
	env      map[string]string
	files    map[string]string
	disk     disk
	insecure insecure
}

func (p place) load(text string) (*Config, []string, error) {
	l := &configLoader{
		name: "sidegate.yaml", file: filepath.FromSlash("/etc/sidegate/sidegate.yaml"),
		env:      func(name string) (string, bool) { v, ok := p.env[name]; return v, ok },
		insecure: p.insecure,
		readFile: func(path string, limit int64) ([]byte, error) {
			data, ok := p.files[filepath.ToSlash(path)]
			if !ok {
				return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
			}
			return []byte(data), nil
		},
		diskOf: func(string) disk { return p.disk },
		keys:   configKeys(),
	}
	c, err := l.load([]byte(text))
	return c, l.warnings, err
}

const versionLine = "version: sidegate-config/v1\n"

func mustLoad(t *testing.T, p place, text string) *Config {
	t.Helper()
	c, _, err := p.load(versionLine + text)
	if err != nil {
		t.Fatalf("load:\n%s\n%v", text, err)
	}
	if err := fitsSchema(versionLine + text); err != nil {
		t.Errorf("loads, and does not fit the schema:\n%s\n%v", text, err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	c := mustLoad(t, place{}, "upstreams: {app: {url: \"http://127.0.0.1:9000\"}}\nbuckets: {default: {bucket: acme}}\nidentities: {users: {firebase: {project: acme-prod}}}")
	for _, tt := range []struct {
		key       string
		got, want any
	}{
		{"name", c.Name, "sidegate"},
		{"listen.address", c.Listen.Address, ":8080"},
		{"listen.trusted_proxies", len(c.Listen.TrustedProxies), 0},
		{"listen.trusted_proxies", c.Listen.TrustPeer, false},
		{"listen.shutdown_grace", c.Listen.ShutdownGrace, 9 * time.Second},
		{"listen.drain_delay", c.Listen.DrainDelay, time.Duration(0)},
		{"listen.header_timeout", c.Listen.HeaderTimeout, 10 * time.Second},
		{"listen.max_header_bytes", c.Listen.MaxHeaderBytes, 32 << 10},
		{"listen.idle_timeout", c.Listen.IdleTimeout, 75 * time.Second},
		{"listen.max_connections", c.Listen.MaxConnections, 0},
		{"admin.address", c.AdminAddress, "127.0.0.1:9180"},
		{"forward_auth", c.ForwardAuth.Address, ""},
		{"policy", c.Policy, "/etc/sidegate/policy.yaml"},
		{"token_cache", c.TokenCache, 100000},
		{"identities", c.Identities[0], IdentityConfig{Name: "users", Namespace: "users", Firebase: c.Identities[0].Firebase}},
		{"identities.firebase", *c.Identities[0].Firebase, FirebaseIdentity{Project: "acme-prod", Leeway: time.Minute}},
		{"upstreams.url", c.Upstreams[0].URL.String(), "http://127.0.0.1:9000"},
		{"upstreams.balance", c.Upstreams[0].LeastBusy, false},
		{"upstreams.transport", c.Upstreams[0].NetHTTP, false},
		{"upstreams.max_requests", c.Upstreams[0].MaxRequests, 0},
		{"upstreams.host", c.Upstreams[0].KeepHost, true},
		{"upstreams.timeout", c.Upstreams[0].Timeout, time.Minute},
		{"upstreams.idle_timeout", c.Upstreams[0].IdleTimeout, 5 * time.Minute},
		{"upstreams.max_body", c.Upstreams[0].MaxBody, int64(10 << 20)},
		{"upstreams.authorization", c.Upstreams[0].KeepAuthorization, false},
		{"upstreams.headers", c.Upstreams[0].Headers.Preset, "native"},
		{"buckets", c.Buckets[0], BucketConfig{Name: "default", Bucket: "acme", Region: "us-east-1", Store: "aws"}},
		{"storage.local.dir", c.Storage.LocalDir, "/etc/sidegate/data"},
		{"storage.firestore", c.Storage.Firestore == nil, true},
		{"lookups.firestore", c.Lookups == nil, true},
		{"audit.dir", c.Audit.Dir, "/etc/sidegate/data/audit"},
		{"audit.survive", c.Audit.Survive, audit.Crash},
		{"audit.max_size", c.Audit.MaxSize, int64(1 << 30)},
		{"audit.segment", c.Audit.Segment, int64(64 << 20)},
		{"audit.firestore", c.Audit.Firestore == nil, true},
		{"audit.stdout", c.Audit.Stdout, false},
		{"audit.retention", c.Audit.Retention, 2160 * time.Hour},
		{"audit.key", c.Audit.Key.IsSet(), false},
		{"audit.checkpoint", c.Audit.Checkpoint, time.Minute},
		{"telemetry.otlp", c.Telemetry.OTLP == nil, true},
		{"telemetry.sample", c.Telemetry.Sample, 0.1},
		{"log.level", c.Log.Level, "info"},
		{"log.format", c.Log.Format, "json"},
	} {
		if tt.got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.key, tt.got, tt.want)
		}
	}
}

// TestVariableLineBreak: a secret that was a file, as `aws secretsmanager
// create-secret --secret-string file://...` keeps it, ends as one. In the middle
// a break is somebody's mistake.
func TestVariableLineBreak(t *testing.T) {
	for value, refused := range map[string]bool{"here": false, "here\n": false, "here\r\n": false, "he\nre": true, "here\n\n": true, "here\x00\n": true} {
		c, _, err := place{env: map[string]string{"NAME": value}}.load(versionLine + `name: "${env:NAME}"` + "\n")
		switch {
		case refused && (err == nil || !strings.Contains(err.Error(), "the variable NAME holds a line break")):
			t.Errorf("%q: %v", value, err)
		case !refused && (err != nil || c.Name != "here"):
			t.Errorf("%q: %v", value, err)
		}
	}
	if _, _, err := (place{env: map[string]string{"NAME": "\n"}}).load(versionLine + `name: "${env:NAME}"` + "\n"); err == nil || !strings.Contains(err.Error(), "not set, or empty") {
		t.Errorf("nothing but a break: %v", err)
	}
}

func TestKeys(t *testing.T) {
	env := map[string]string{"PORT": "9999", "AWS_DEFAULT_REGION": "eu-west-1", "GOOGLE_CLOUD_PROJECT": "acme-env", "ADDR": "127.0.0.1", "SECRET": "s3cr3t", "EMPTY": "", "N": "7", "YES": "true", "PRICE": "US$5"}
	files := map[string]string{"/run/secrets/key": "from-file\n", "/etc/sidegate/rel": "rel", "/run/secrets/k1.pem": newPEM(t, elliptic.P256()), "/run/secrets/k2.pem": newPEM(t, elliptic.P256()), "/run/secrets/audit.key": auditKey(t)}
	for _, tt := range []struct {
		text string
		got  func(*Config) any
		want any
	}{
		{"name: photos-api", func(c *Config) any { return c.Name }, "photos-api"},
		{"log: {level: info}", func(c *Config) any { return c.Listen.Address }, ":9999"},
		{`listen: {address: "${env:ADDR}:1"}`, func(c *Config) any { return c.Listen.Address }, "127.0.0.1:1"},
		{`listen: {address: ":${env:EMPTY:81}"}`, func(c *Config) any { return c.Listen.Address }, ":81"},
		{`listen: {address: "[::1]:81"}`, func(c *Config) any { return c.Listen.Address }, "[::1]:81"},
		{"listen: {trusted_proxies: cloud-run}", func(c *Config) any { return c.Listen.TrustPeer }, true},
		{"listen: {trusted_proxies: [cloud-run, 10.0.0.0/8]}", func(c *Config) any { return c.Listen.TrustPeer }, true},
		{`listen: {trusted_proxies: [cloud-run, 10.0.0.0/8, 192.0.2.1, "2001:db8::/32"]}`, func(c *Config) any {
			return fmt.Sprint(c.Listen.TrustedProxies)
		}, fmt.Sprint([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("2001:db8::/32")})},
		{"listen: {shutdown_grace: 20s, drain_delay: 5s}", func(c *Config) any { return c.Listen.DrainDelay }, 5 * time.Second},
		{"listen: {header_timeout: 500ms}", func(c *Config) any { return c.Listen.HeaderTimeout }, 500 * time.Millisecond},
		{"listen: {max_header_bytes: 64KiB}", func(c *Config) any { return c.Listen.MaxHeaderBytes }, 64 << 10},
		{`listen: {max_connections: "${env:N}"}`, func(c *Config) any { return c.Listen.MaxConnections }, 7},
		{"admin: {address: \":9180\"}", func(c *Config) any { return c.AdminAddress }, ":9180"},
		{"forward_auth: {dialect: nginx}", func(c *Config) any { return c.ForwardAuth.Address }, "127.0.0.1:9181"},
		{"forward_auth: {dialect: traefik}", func(c *Config) any { return c.ForwardAuth.Dialect }, proxy.DialectTraefik},
		{`forward_auth: {address: "10.0.0.1:9180", dialect: envoy}`, func(c *Config) any { return c.ForwardAuth.Address }, "10.0.0.1:9180"},
		{"policy: /p/policy.yaml", func(c *Config) any { return c.Policy }, "/p/policy.yaml"},
		{"policy: ../p.yaml", func(c *Config) any { return c.Policy }, "/etc/p.yaml"},
		{`policy: "$${env:X}"`, func(c *Config) any { return c.Policy }, "/etc/sidegate/${env:X}"},
		{"token_cache: 0", func(c *Config) any { return c.TokenCache }, 0},
		{"identities: {a: {firebase: {project: p1, tenant: t-1, leeway: 0s}}}", func(c *Config) any { return *c.Identities[0].Firebase }, FirebaseIdentity{Project: "p1", Tenant: "t-1"}},
		{"identities: {a: {firebase: {project: p1, session_cookie: __session, revocation_grace: 1m, app_check: true}}}", func(c *Config) any { return *c.Identities[0].Firebase },
			FirebaseIdentity{Project: "p1", SessionCookie: "__session", Revocation: 5 * time.Minute, RevocationGrace: time.Minute, AppCheck: true, Leeway: time.Minute}},
		{"identities: {a: {firebase: {project: p1, revocation: 1m}}}", func(c *Config) any { return c.Identities[0].Firebase.Revocation }, time.Minute},
		{"identities: {a: {firebase: {project: p1, revocation: off}}}", func(c *Config) any { return c.Identities[0].Firebase.Revocation }, time.Duration(0)},
		{"identities: {w: {google: {audience: https://photos.acme.dev, emails: [a@p1.iam.gserviceaccount.com]}}}", func(c *Config) any { return fmt.Sprint(*c.Identities[0].OIDC) },
			fmt.Sprint(OIDCIdentity{Issuer: "https://accounts.google.com", Keys: "https://www.googleapis.com/oauth2/v3/certs", Audiences: []string{"https://photos.acme.dev"},
				Emails: []string{"a@p1.iam.gserviceaccount.com"}, UID: oidc.Path{"sub"}, Algorithms: []string{"RS256"}})},
		{"identities: {o: {oidc: {issuer: https://acme.okta.com/oauth2/default, audience: api}}}", func(c *Config) any { return fmt.Sprint(*c.Identities[0].OIDC) },
			fmt.Sprint(OIDCIdentity{Issuer: "https://acme.okta.com/oauth2/default", Audiences: []string{"api"}, UID: oidc.Path{"sub"}, Algorithms: []string{"RS256", "ES256"}})},
		{`identities: {o: {oidc: {issuer: "https://i.example/", audience: [a, b], keys: "https://i.example/keys", uid: oid, actor: act.sub, algorithms: [PS256, ES384, EdDSA], claims: {roles: realm_access.roles, groups: "https://acme.dev/groups", x: [a.b, c]}, require: {client: mobile, a.b: true, n: 3}}}}`,
			func(c *Config) any { return fmt.Sprint(*c.Identities[0].OIDC) },
			fmt.Sprint(OIDCIdentity{Issuer: "https://i.example/", Audiences: []string{"a", "b"}, Keys: "https://i.example/keys", UID: oidc.Path{"oid"}, Actor: oidc.Path{"act", "sub"},
				Algorithms: []string{"PS256", "ES384", "EdDSA"}, Claims: map[string]oidc.Path{"roles": {"realm_access", "roles"}, "groups": {"https://acme.dev/groups"}, "x": {"a.b", "c"}},
				Require: []oidc.Requirement{{Claim: oidc.Path{"client"}, Value: "mobile"}, {Claim: oidc.Path{"a", "b"}, Value: true}, {Claim: oidc.Path{"n"}, Value: int64(3)}}})},
		{"identities: {a: {oidc: {issuer: https://i.example, audience: x}}, b: {oidc: {issuer: https://i.example, audience: x, actor: act.sub}, uids: a}}", func(c *Config) any { return c.Identities[1].Namespace }, "a"},
		{"identities: {a: {google: {audience: x, emails: [a@x.dev]}}, b: {google: {audience: x, emails: [b@x.dev]}}}", func(c *Config) any { return len(c.Identities) }, 2},
		{"upstreams: {a: {url: \"unix:///run/app.sock\"}}", func(c *Config) any { return c.Upstreams[0].Socket + " " + c.Upstreams[0].URL.String() }, "/run/app.sock http://localhost"},
		{"upstreams: {a: {url: [\"http://[::1]:9000\", http://B, http://b:9000], balance: least_busy, max_requests: 7}}", func(c *Config) any {
			u := c.Upstreams[0]
			return fmt.Sprint(u.URL, u.Addresses, u.LeastBusy, u.MaxRequests)
		}, "http://[::1]:9000 [[::1]:9000 B b:9000] true 7"},
		{"upstreams: {a: {url: http://a, transport: net/http}}", func(c *Config) any { return c.Upstreams[0].NetHTTP }, true},
		{"upstreams: {a: {url: [h2c://a, h2c://b]}}", func(c *Config) any {
			return fmt.Sprint(c.Upstreams[0].URL, c.Upstreams[0].Addresses, c.Upstreams[0].H2C)
		}, "http://a [a b] true"},
		{"upstreams: {a: {url: https://a, tls: {ca: ca.crt, cert: /c.crt, key: c.key}}}", func(c *Config) any { return fmt.Sprint(c.Upstreams[0].TLS) }, "{/etc/sidegate/ca.crt /c.crt /etc/sidegate/c.key}"},
		{`upstreams: {a: {url: http://a, headers: {X-A: "US$5 ${auth.uid}", X-B: "${env:PRICE}"}}}`, func(c *Config) any { return c.Upstreams[0].Headers.Preset }, "map"},
		{"identities: {o: {oidc: {issuer: https://i.example, audience: a, uid: oid, claims: {pairwise: sub, cf: user_id}}}}", func(c *Config) any { return len(c.Identities[0].OIDC.Claims) }, 2},
		{"identities: {o: {oidc: {issuer: https://securetoken.google.com.example, audience: a}}}", func(c *Config) any { return c.Identities[0].OIDC.Issuer }, "https://securetoken.google.com.example"},
		{"listen: {tls: {cert: tls.crt, key: /tls.key, client_ca: ca.crt}}", func(c *Config) any { return fmt.Sprint(c.Listen.TLS) }, "{/etc/sidegate/tls.crt /tls.key /etc/sidegate/ca.crt}"},
		{"cors: upstream", func(c *Config) any { return fmt.Sprint(*c.CORS) }, fmt.Sprint(proxy.CORS{Upstream: true})},
		{"cors: {origins: [https://app.acme.dev, \"http://localhost:3000\"], credentials: true, max_age: 1h}", func(c *Config) any { return fmt.Sprint(*c.CORS) },
			fmt.Sprint(proxy.CORS{Origins: []string{"https://app.acme.dev", "http://localhost:3000"}, Headers: []string{"Authorization", "Content-Type"}, Credentials: true, MaxAge: time.Hour})},
		{`cors: {origins: ["*"], headers: ["*"]}`, func(c *Config) any { return fmt.Sprint(*c.CORS) }, fmt.Sprint(proxy.CORS{Origins: []string{"*"}, Headers: []string{"*"}, MaxAge: 10 * time.Minute})},
		{"log: {level: warn}", func(c *Config) any { return c.CORS == nil }, true},
		{"keys_cache: keys", func(c *Config) any { return c.KeysCache }, "/etc/sidegate/keys"},
		{`keys_cache: ""`, func(c *Config) any { return c.KeysCache }, ""},
		{`webhook: {url: "https://u:p@acme.dev/hooks?t=1", secret: "24-bytes-or-more-less-than-65"}`, func(c *Config) any { return c.Webhook.URL.Reveal() }, "https://u:p@acme.dev/hooks?t=1"},
		{`redis: {url: "rediss://u:p@h:6380/1"}`, func(c *Config) any { return c.Redis.URL.Reveal() }, "rediss://u:p@h:6380/1"},
		{`redis: {url: redis://h}`, func(c *Config) any { return fmt.Sprint(c.Redis.Prefix, c.Redis.Timeout, c.Redis.CA) }, "sidegate:sidegate:100ms"},
		{`redis: {url: redis://h, prefix: "x:", timeout: 1s}`, func(c *Config) any { return fmt.Sprint(c.Redis.Prefix, c.Redis.Timeout) }, "x:1s"},
		{`redis: {url: rediss://h, ca: /etc/ca.pem}`, func(c *Config) any { return c.Redis.CA }, "/etc/ca.pem"},
		{`webhook: {url: "http://127.0.0.1:9/x", secret: whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw}`, func(c *Config) any { return c.Webhook.Secret.Reveal() }, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
		{"", func(c *Config) any { return c.Webhook.URL.IsSet() }, false},
		{`assertion: {key: "${file:/run/secrets/k1.pem}", next_key: "${file:/run/secrets/k2.pem}"}`, func(c *Config) any { return c.Assertion.Key.IsSet() && c.Assertion.NextKey.IsSet() }, true},
		{`assertion: {key: "${file:/run/secrets/k1.pem}", next_key: ""}`, func(c *Config) any { return c.Assertion.NextKey.IsSet() }, false},
		{"identities: {a: {firebase: {project: p1}}, b: {firebase: {project: p1, tenant: t}}}", func(c *Config) any { return len(c.Identities) }, 2},
		{"identities: {a: {firebase: {project: p1}, uids: b}, b: {firebase: {project: p2}, uids: c}, c: {firebase: {project: p3}}}", func(c *Config) any { return c.Identities[0].Namespace }, "c"},
		{"upstreams: {a: {url: https://app.acme.dev}}", func(c *Config) any { return c.Upstreams[0].URL.Host }, "app.acme.dev"},
		{`upstreams: {a: {url: "http://[::1]:80", host: upstream}}`, func(c *Config) any { return c.Upstreams[0].KeepHost }, false},
		{"upstreams: {a: {url: http://my_app:80, authorization: keep}}", func(c *Config) any { return c.Upstreams[0].KeepAuthorization }, true},
		{"upstreams: {a: {url: http://a, headers: none}}", func(c *Config) any { return c.Upstreams[0].Headers.Preset }, ""},
		{"upstreams: {a: {url: http://a, headers: oauth2-proxy}}", func(c *Config) any { return c.Upstreams[0].Headers.Preset }, "oauth2-proxy"},
		{"upstreams: {a: {url: http://a, headers: esp}}", func(c *Config) any { return c.Upstreams[0].Headers.Preset }, "esp"},
		{"upstreams: {a: {url: http://a, headers: {esp: X-Apigateway-}}}", func(c *Config) any { return c.Upstreams[0].Headers.Preset }, "esp"},
		{`upstreams: {a: {url: http://a, headers: {X-User: "${auth.uid}", X-Who: "${env:ADDR} ${auth.identity}", X-Groups: "${auth.token.groups}"}}}`, func(c *Config) any { return c.Upstreams[0].Headers.Identity }, true},
		{`upstreams: {a: {url: http://a, headers: {X-User: "${auth.uid}"}}}`, func(c *Config) any { return c.Upstreams[0].Headers.Identity || c.Upstreams[0].Headers.Actor }, false},
		{"assertion: {key: \"${file:/run/secrets/k1.pem}\"}\nupstreams: {a: {url: http://a, headers: {X-Jwt: \"${assertion}\"}}}", func(c *Config) any { return c.Upstreams[0].Headers.Actor }, true},
		{"upstreams: {a: {url: http://a, timeout: 5m, idle_timeout: 1h, max_body: 1GiB}}", func(c *Config) any { return c.Upstreams[0].MaxBody }, int64(1 << 30)},
		{"buckets: {d: {bucket: acme}}", func(c *Config) any { return c.Buckets[0].Region }, "eu-west-1"},
		{"buckets: {d: {bucket: acme, region: auto, credentials: {}}}", func(c *Config) any { return c.Buckets[0].Region }, "auto"},
		{"buckets: {d: {bucket: acme, endpoint: http://minio:9000, store: minio, path_style: true}}", func(c *Config) any { return c.Buckets[0].PublicEndpoint }, "http://minio:9000"},
		{`buckets: {d: {bucket: acme, endpoint: "", path_style: "${env:YES}"}}`, func(c *Config) any { return c.Buckets[0].PathStyle }, true},
		{"buckets: {d: {bucket: acme, endpoint: http://minio:9000, store: minio, public_endpoint: https://s3.acme.dev}}", func(c *Config) any { return c.Buckets[0].PublicEndpoint }, "https://s3.acme.dev"},
		{`buckets: {d: {bucket: acme, credentials: {access_key: "${env:SECRET}", secret_key: "${file:/run/secrets/key}"}}}`, func(c *Config) any { return c.Buckets[0].SecretKey.Reveal() }, "from-file"},
		{`buckets: {d: {bucket: acme, credentials: {access_key: a, secret_key: "${file:rel}"}}}`, func(c *Config) any { return c.Buckets[0].SecretKey.Reveal() }, "rel"},
		{"buckets: {d: {bucket: acme, endpoint: https://s3.eu-central-1.amazonaws.com}}", func(c *Config) any { return c.Buckets[0].Store }, "aws"},
		{"buckets: {d: {bucket: acme, store: other, endpoint: http://ceph:9000}}", func(c *Config) any { return c.Buckets[0].Store }, "other"},
		{"buckets: {d: {bucket: acme, store: minio, endpoint: http://minio:9000, sse: aes256}}", func(c *Config) any { return c.Buckets[0].Objects.AES256 }, true},
		{"buckets: {d: {bucket: acme, sse: {kms_key: alias/photos}, storage_class: STANDARD_IA}}", func(c *Config) any { return c.Buckets[0].Objects.KMSKey }, "alias/photos"},
		{`buckets: {d: {bucket: acme, tags: {team: photos}, metadata: {origin: "${env:ADDR}"}}}`, func(c *Config) any { return c.Buckets[0].Objects.Metadata["origin"] }, "127.0.0.1"},
		{"buckets: {d: {bucket: acme, credentials: {role: arn:aws:iam::111122223333:role/x, from: google}}}", func(c *Config) any { return *c.Buckets[0].Role }, RoleConfig{"arn:aws:iam::111122223333:role/x", "sts.amazonaws.com"}},
		{"buckets: {d: {bucket: acme, credentials: {role: arn:aws:iam::111122223333:role/x, from: google, audience: sidegate}}}", func(c *Config) any { return c.Buckets[0].Role.Audience }, "sidegate"},
		{"storage: {local: {dir: x}}", func(c *Config) any { return c.Storage.LocalDir }, "/etc/sidegate/x"},
		{"storage: {firestore: {}}", func(c *Config) any { return *c.Storage.Firestore }, FirestoreConfig{"acme-env", "(default)", "uploadSessions"}},
		{"storage: {firestore: {}}", func(c *Config) any { return c.Storage.LocalDir }, ""},
		{"storage: {firestore: {project: p1, database: sidegate, collection: s}}", func(c *Config) any { return *c.Storage.Firestore }, FirestoreConfig{"p1", "sidegate", "s"}},
		{"lookups: {firestore: {}}", func(c *Config) any { return *c.Lookups }, FirestoreConfig{"acme-env", "(default)", ""}},
		{"lookups: {firestore: {project: p1, database: facts}}", func(c *Config) any { return *c.Lookups }, FirestoreConfig{"p1", "facts", ""}},
		{"lookups: {}", func(c *Config) any { return c.Lookups == nil }, true},
		{"audit: {dir: /a, survive: power, max_size: 2GiB, segment: 1MiB, stdout: true}", func(c *Config) any { return c.Audit.Survive }, audit.Power},
		{"audit: {retention: 36500d}", func(c *Config) any { return c.Audit.Retention }, 36500 * 24 * time.Hour},
		{`audit: {key: "${file:/run/secrets/audit.key}", checkpoint: 30s}`, func(c *Config) any { return c.Audit.Key.IsSet() && c.Audit.Checkpoint == 30*time.Second }, true},
		{"audit: {survive: machine, firestore: {ttl: 30d}}", func(c *Config) any { return c.Audit.TTL }, 720 * time.Hour},
		{"audit: {survive: machine, firestore: {}}", func(c *Config) any { return *c.Audit.Firestore }, FirestoreConfig{"acme-env", "(default)", "auditLog"}},
		{"telemetry: {otlp: http://localhost:4318}", func(c *Config) any { return c.Telemetry.OTLP.String() }, "http://localhost:4318/v1/traces"},
		{`telemetry: {otlp: "https://otlp.acme.dev/"}`, func(c *Config) any { return c.Telemetry.OTLP.String() }, "https://otlp.acme.dev/v1/traces"},
		{`telemetry: {otlp: "https://otlp.acme.dev/otlp/v1/traces", sample: 1}`, func(c *Config) any { return c.Telemetry.OTLP.String() }, "https://otlp.acme.dev/otlp/v1/traces"},
		{`telemetry: {otlp: "http://[::1]:4318", sample: 0.005}`, func(c *Config) any { return c.Telemetry.Sample }, 0.005},
		{`telemetry: {otlp: "http://localhost:4318", sample: 0}`, func(c *Config) any { return c.Telemetry.Sample }, 0.0},
		{`telemetry: {otlp: "http://127.0.0.1:4318", headers: {Authorization: "${env:ADDR}"}}`, func(c *Config) any { return c.Telemetry.Headers["Authorization"].Reveal() }, "127.0.0.1"},
		{`telemetry: {otlp: "https://otlp.acme.dev", ca: ca.pem}`, func(c *Config) any { return c.Telemetry.CA }, "/etc/sidegate/ca.pem"},
		{"log: {level: debug, format: console}", func(c *Config) any { return c.Log.Level + c.Log.Format }, "debugconsole"},
	} {
		c := mustLoad(t, place{env: env, files: files}, tt.text)
		if got := tt.got(c); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.text, got, tt.want)
		}
	}
}

// newPEM is a new private key of a curve.
func newPEM(t testing.TB, curve elliptic.Curve) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return pkcs8(t, key)
}

func pkcs8(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func TestRefused(t *testing.T) {
	secret, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"/etc/sidegate/empty": "\n", "/run/secrets/k1.pem": newPEM(t, elliptic.P256()), "/run/secrets/k384.pem": newPEM(t, elliptic.P384()), "/run/secrets/rsa.pem": pkcs8(t, secret), "/run/secrets/dollar": "s3cr3t ${auth.uid}", "/run/secrets/half": "$"}
	files["/run/secrets/k1.again"] = "\n" + files["/run/secrets/k1.pem"] + "\n"
	for _, tt := range []struct{ text, want string }{
		{"nam: x", "sidegate.yaml:2:1: unknown key `nam`; did you mean \"name\"?"},
		{"redis: {url: x}", "sidegate.yaml:2:14: `redis.url`: want redis://user:password@host:port/db, or rediss:// with TLS, and nothing more"},
		{"redis: {}", "`redis.url` is missing"},
		{`redis: {url: ""}`, "`redis.url` is empty"},
		{"redis: {url: \"redis://u:s3cr3t@h/x\"}", "want redis://user:password@host:port/db"},
		{"redis: {url: \"redis://s3cr3t@h\"}", "a user without a password"},
		{"redis: {url: redis://h, timeout: 0s}", "`redis.timeout` must be from 1ms to 5s"},
		{"redis: {url: redis://h, timeout: 6s}", "`redis.timeout` must be from 1ms to 5s"},
		{"redis: {url: redis://h, ca: ca.pem}", "`redis.ca` is for a rediss:// url"},
		{`redis: {url: redis://h, prefix: "a{b}"}`, "`redis.prefix`: want 1 to 128 letters, digits and `._:-`"},
		{"redis: {url: redis://h, pool: 9}", "unknown key `redis.pool`"},
		{"name: a/b", "`name`: want 1 to 128 letters, digits and `._-`, not \"a/b\""},
		{"name: 7", "`name` must be a string, not a number (quote it)"},
		{"name: ${env:NOPE}", "sidegate.yaml:2:7: the variable NOPE is not set, or empty; set it, or write a default: ${env:NOPE:default}"},
		{"name: ${env:1X}", "needs a variable's name"},
		{"name: ${file:nope}", "file does not exist"},
		{"name: ${file:empty}", "empty is empty"},
		{"name: ${vars.x}", "`${` that starts neither"},
		{"listen: {address: 8080}", "`listen.address` must be a string, not a number"},
		{`listen: {address: "8080"}`, "want host:port or :port, not \"8080\""},
		{`listen: {address: ":70000"}`, "want host:port or :port"},
		{`listen: {address: "a b:80"}`, "want host:port or :port"},
		{"listen: {tls: {cert: a}}", "`listen.tls.key` is missing"},
		{"listen: {tls: {cert: a, key: b, ca: c}}", "unknown key"},
		{"listen: {trusted_proxies: [0.0.0.0/0]}", "is everybody"},
		{`listen: {trusted_proxies: ["::/0"]}`, "is everybody"},
		{`listen: {trusted_proxies: ["::ffff:0:0/96"]}`, "write IPv4 networks as IPv4"},
		{"listen: {trusted_proxies: [10.1.2.3/8]}", "has bits set beyond its length"},
		{"listen: {trusted_proxies: [cloudrun]}", "want a network such as 10.0.0.0/8, an address, or the word cloud-run"},
		{"listen: {trusted_proxies: []}", "an empty list"},
		{"listen: {drain_delay: 10s}", "it cannot be longer"},
		{"listen: {header_timeout: 0s}", "must be from 100ms to 1h, not \"0s\""},
		{"listen: {header_timeout: 10}", "must be a duration such as 15m, not a number"},
		{"listen: {max_header_bytes: 1MB}", "is no size"},
		{"listen: {max_connections: -1}", "must be a whole number from 0"},
		{`admin: {address: "127.0.0.1:8080"}`, "are one port"},
		{"forward_auth: {address: \"127.0.0.1:9181\"}", "`forward_auth.dialect` is missing"},
		{"forward_auth: {dialect: caddy}", "must be one of nginx, traefik, envoy"},
		{"forward_auth: {dialect: nginx, path: /auth}", "unknown key"},
		{"forward_auth: nginx", "`forward_auth` must be a mapping"},
		{`forward_auth: {dialect: nginx, address: "127.0.0.1:8080"}`, "`forward_auth.address` and `listen.address` are one port"},
		{`forward_auth: {dialect: nginx, address: "127.0.0.1:9180"}`, "`forward_auth.address` and `admin.address` are one port"},
		{`forward_auth: {dialect: nginx, address: "[::]:9180"}`, "`forward_auth.address` and `admin.address` are one port"},
		{"forward_auth: {dialect: nginx, address: \"9181\"}", "want host:port or :port"},
		{`policy: ""`, "`policy` is empty"},
		{"policy:", "no value: leave the key out"},
		{"token_cache: many", "must be a whole number, not a string"},
		{"identities: {Users: {firebase: {project: p1}}}", "is no name"},
		{"identities: {users: {}}", "`identities.users` needs one of firebase, google and oidc"},
		{"identities: {users: {firebase: {project: p1}, google: {audience: x, emails: [a@b.dev]}}}", "`identities.users.google` and `identities.users.firebase`: an identity has one issuer"},
		{"identities: {users: {google: {audience: x}}}", "`identities.users.google.emails` is missing"},
		{"identities: {users: {google: {audience: x, emails: [nobody]}}}", "want an e-mail address"},
		{"identities: {users: {google: {audience: x, emails: [a@b.dev, a@b.dev]}}}", "is there twice"},
		{"identities: {users: {google: {emails: [a@b.dev]}}}", "`identities.users.google.audience` is missing"},
		{"identities: {users: {firebase: {project: p1, session_cookie: s, revocation: off}}}", "session cookies live for up to two weeks"},
		{"identities: {users: {firebase: {project: p1, session_cookie: \"a b\"}}}", "want a cookie's name"},
		{"identities: {users: {firebase: {project: p1, revocation: 1s}}}", "must be from 10s to 1h"},
		{"identities: {users: {firebase: {project: p1, revocation: on}}}", "`identities.users.firebase.revocation`"},
		{"identities: {users: {firebase: {project: p1, revocation_grace: 1m}}}", "without `revocation` it is never asked"},
		{"identities: {users: {oidc: {audience: x}}}", "`identities.users.oidc.issuer` is missing"},
		{"identities: {users: {oidc: {issuer: https://i.example}}}", "`identities.users.oidc.audience` is missing"},
		{"identities: {users: {oidc: {issuer: http://i.example, audience: x}}}", "want an https URL"},
		{"identities: {users: {oidc: {issuer: \"https://i.example?x=1\", audience: x}}}", "want an https URL"},
		{"identities: {users: {oidc: {issuer: \"https://u:s3cr3t@i.example\", audience: x}}}", "without user and password"},
		{"identities: {users: {oidc: {issuer: https://i.example, audience: \"\"}}}", "want an audience"},
		{"identities: {users: {oidc: {issuer: https://i.example, audience: [a, a]}}}", "is there twice"},
		{"identities: {users: {oidc: {issuer: https://i.example, audience: a, keys: keys.json}}}", "want an https URL"},
		{"identities: {users: {oidc: {issuer: https://i.example, audience: a, uid: a..b}}}", "is empty"},
		{"identities: {users: {oidc: {issuer: https://i.example, audience: a, actor: azp}}}", "write act.sub, or off"},
		{"identities: {users: {oidc: {issuer: https://i.example, audience: a, algorithms: [HS256]}}}", "RS256"},
		{"identities: {users: {oidc: {issuer: https://i.example, audience: a, algorithms: [none]}}}", "RS256"},
		{"identities: {users: {oidc: {issuer: https://i.example, audience: a, algorithms: [RS256, RS256]}}}", "is there twice"},
		{"identities: {users: {oidc: {issuer: https://i.example, audience: a, claims: {\"a.b\": c}}}}", "a.b"},
		{"identities: {users: {oidc: {issuer: https://i.example, audience: a, require: {a: [b]}}}}", "must be a string"},
		{"identities: {a: {oidc: {issuer: https://i.example, audience: x}}, b: {oidc: {issuer: https://i.example, audience: [y, x], require: {client: web}}}}", "neither tenant, e-mail list nor actor tells their tokens apart"},
		{"identities: {a: {google: {audience: x, emails: [a@x.dev, b@x.dev]}}, b: {google: {audience: x, emails: [b@x.dev]}}}", "neither tenant"},
		{"identities: {a: {google: {audience: x, emails: [a@x.dev]}}, b: {oidc: {issuer: https://accounts.google.com, audience: x}}}", "neither tenant"},
		{"identities: {users: {oidc: {issuer: https://session.firebase.google.com/p1, audience: p1}}}", "write `firebase: {project: ...}`"},
		{"identities: {users: {oidc: {issuer: https://securetoken.google.com/p1, audience: p1}}}", "write `firebase: {project: ...}`"},
		{"identities: {users: {oidc: {issuer: https://i.example, audience: a, claims: {mail: email}}}}", "the policy reads auth.email"},
		{"identities: {users: {oidc: {issuer: https://i.example, audience: a, require: {a: 1.5}}}}", "a whole number"},
		{`upstreams: {app: {url: http://a, headers: {X-A: "$${auth.uid}"}}}`, "neither a literal"},
		{`upstreams: {app: {url: http://a, headers: {X-A: "${file:/run/secrets/dollar}"}}}`, "neither a literal"},
		{`upstreams: {app: {url: http://a, headers: {X-A: "${auth.uid} ${file:/run/secrets/dollar}"}}}`, "neither a literal"},
		{"upstreams: {app: {url: http://a, headers: {}}}", "is empty"},
		{`assertion: {key: "${file:/run/secrets/k1.pem}", next_key: "${file:/run/secrets/k1.again}"}`, "is the key itself"},
		{`upstreams: {app: {url: http://a, headers: {X-A: "${file:/run/secrets/half}{auth.uid}"}}}`, "neither a literal"},
		{`assertion: {key: "", next_key: "${file:/run/secrets/k1.pem}"}`, "there is none"},
		{"webhook: {url: https://acme.dev}", "`webhook.secret` is missing"},
		{"webhook: {secret: 24-bytes-or-more-less-than-65}", "`webhook.url` is missing"},
		{`webhook: {url: "https://acme.dev", secret: short}`, "`webhook.secret`: the secret is not 24 to 64 bytes"},
		{`webhook: {url: "https://acme.dev", secret: whsec_!}`, "is not base64"},
		{`webhook: {url: "http://u:s3cr3t@acme.dev/hooks", secret: "24-bytes-or-more-less-than-65"}`, "use https"},
		{`webhook: {url: "ftp://acme.dev/hooks", secret: "24-bytes-or-more-less-than-65"}`, "`webhook.url`: the URL is neither https nor http"},
		{`webhook: {url: "/hooks", secret: "24-bytes-or-more-less-than-65"}`, "not an absolute URL"},
		{`webhook: {url: "https://acme.dev/#x", secret: "24-bytes-or-more-less-than-65"}`, "has a fragment"},
		{"cors: app", "must be upstream"},
		{"cors: {credentials: true}", "`cors.origins` is missing"},
		{"cors: {origins: []}", "an empty list"},
		{"cors: {origins: [app.acme.dev]}", "want an origin such as"},
		{"cors: {origins: [https://app.acme.dev/]}", "want an origin such as"},
		{"cors: {origins: [\"null\"]}", "want an origin such as"},
		{"cors: {origins: [\"https://*.acme.dev\"]}", "want an origin such as"},
		{"cors: {origins: [https://App.acme.dev]}", "browsers write an origin in lower case"},
		{"cors: {origins: [\"https://app.acme.dev:443\"]}", "without its scheme's own port"},
		{"cors: {origins: [https://a.dev, https://a.dev]}", "is there twice"},
		{`cors: {origins: ["*", https://a.dev]}`, "stands alone"},
		{`cors: {origins: ["*"], credentials: true}`, "would let every page act"},
		{`cors: {origins: [https://a.dev], headers: ["*"], credentials: true}`, "browsers do not take"},
		{"cors: {origins: [https://a.dev], headers: [\"a b\"]}", "want a header's name"},
		{"cors: {origins: [https://a.dev], max_age: 2d}", "must be from 0s to 1d"},
		{"cors: {origins: [https://a.dev], methods: [GET]}", "unknown key"},
		{"assertion: {}", "`assertion.key` is missing"},
		{"assertion: {key: s3cr3t}", "it is not one key in PEM"},
		{`assertion: {key: "${file:/run/secrets/k1.pem}", next_key: "${file:/run/secrets/k1.pem}"}`, "is the key itself"},
		{`assertion: {key: "${file:/run/secrets/k384.pem}"}`, "not P-256"},
		{`assertion: {key: "${file:/run/secrets/rsa.pem}"}`, "ES256 needs one of P-256"},
		{`name: "${auth.uid}"`, "stand in the headers of an upstream only"},
		{`buckets: {d: {bucket: "${assertion}"}}`, "stand in the headers of an upstream only"},
		{"identities: {users: {firebase: {}}}", "`identities.users.firebase.project` is missing"},
		{"identities: {users: {firebase: {project: P 1}}}", "want a Firebase project's id"},
		{"identities: {users: {firebase: {project: p1, leeway: 10m}}}", "must be from 0s to 5m"},
		{"identities:\n  a: {firebase: {project: p1}}\n  b: {firebase: {project: p1}}", "sidegate.yaml:4:3: a token could be of `identities.b` and of `identities.a` (sidegate.yaml:3:6)"},
		{"identities: {users: {firebase: {project: p1}, uids: user}}", "there is no identity \"user\"; did you mean \"users\"?"},
		{"identities: {a: {firebase: {project: p1}, uids: b}, b: {firebase: {project: p2}, uids: a}}", "goes round in a circle"},
		{"upstreams: {app: {}}", "`upstreams.app.url` is missing"},
		{"upstreams: {app: {url: [http://a, https://b]}}", "the URLs of an upstream have one scheme"},
		{"upstreams: {app: {url: [http://a, h2c://b]}}", "the URLs of an upstream have one scheme"},
		{"upstreams: {app: {url: [http://a, http://A:80]}}", "this address is there twice"},
		{"upstreams: {app: {url: [http://a, \"unix:///a\"]}}", "a socket stands alone"},
		{"upstreams: {app: {url: []}}", "empty list"},
		{"upstreams: {app: {url: [http://a, http://b/c]}}", "without path, query and fragment, not \"http://b/c\""},
		{"upstreams: {app: {url: [" + strings.Repeat("http://a,", 65) + "]}}", "it can have 64"},
		{"upstreams: {app: {url: http://a, balance: random}}", "must be one of round_robin, least_busy"},
		{"upstreams: {app: {url: http://a, transport: http2}}", "must be one of own, net/http"},
		{"upstreams: {app: {url: http://a, max_requests: -1}}", "must be a whole number from 0 to 10000000"},
		{"upstreams: {app: {url: 127.0.0.1:9000}}", "want http://host:port"},
		{"upstreams: {app: {url: http://a/b}}", "without path, query and fragment, not \"http://a/b\""},
		{"upstreams: {app: {url: \"http://a?b\"}}", "without path, query and fragment"},
		{"upstreams: {app: {url: \"http://u:p@a\"}}", "without user and password"},
		{"upstreams: {app: {url: h2c://a/b}}", "without path, query and fragment"},
		{"upstreams: {app: {url: h2c://a, tls: {ca: ca.crt}}}", "is for an https url"},
		{"buckets: {d: {bucket: acme, endpoint: http://minio:9000}}", "say beside it what kind of store that is"},
		{"buckets: {d: {bucket: acme, endpoint: h2c://a}}", "want http://host:port or https://host:port"},
		{"upstreams: {app: {url: \"unix://run/app.sock\"}}", "want unix:// and the absolute path"},
		{"upstreams: {app: {url: \"unix:///" + strings.Repeat("a", 103) + "\"}}", "want unix:// and the absolute path"},
		{"upstreams: {app: {url: \"unix:///a?b\"}}", "want unix:// and the absolute path"},
		{"upstreams: {app: {url: http://a, tls: {ca: ca.crt}}}", "`upstreams.app.tls` is for an https url"},
		{"upstreams: {app: {url: \"unix:///a\", tls: {ca: ca.crt}}}", "is for an https url"},
		{"upstreams: {app: {url: https://a, tls: {cert: c.crt}}}", "needs both cert and key"},
		{"upstreams: {app: {url: https://a, tls: {cafile: c.crt}}}", "unknown key"},
		{"upstreams: {app: {url: \"http://:80\"}}", "want http://host:port"},
		{"upstreams: {app: {url: \"http://a:\"}}", "want http://host:port"},
		{"upstreams: {app: {url: http://a, host: kep}}", "must be one of keep, upstream, not \"kep\"; did you mean \"keep\"?"},
		{"upstreams: {app: {url: http://a, headers: espv2}}", "esp"},
		{"upstreams: {app: {url: http://a, headers: {esp: \"X Y\"}}}", "what the header begins with"},
		{"upstreams: {app: {url: http://a, headers: {esp: X-A-, X-User: b}}}", "unknown key"},
		{`upstreams: {app: {url: http://a, headers: {X-A: "${auth.name}"}}}`, "${auth.name} is not known here"},
		{`upstreams: {app: {url: http://a, headers: {X-A: "${auth.uid}${auth.actor}"}}}`, "there must be a space"},
		{`upstreams: {app: {url: http://a, headers: {X-A: "${auth.uid}", x-a: "${auth.actor}"}}}`, "is there already"},
		{`upstreams: {app: {url: http://a, headers: {Host: "${auth.uid}"}}}`, "does not say who calls"},
		{`upstreams: {app: {url: http://a, headers: {Content_Length: "${auth.uid}"}}}`, "a header's name is"},
		{`upstreams: {app: {url: http://a, headers: {X-Forwarded-For: "${auth.uid}"}}}`, "does not say who calls"},
		{`upstreams: {app: {url: http://a, headers: {X-A: "${assertion}"}}}`, "needs `assertion.key`"},
		{`upstreams: {app: {url: http://a, headers: {X-A: "é ${auth.uid}"}}}`, "printable ASCII"},
		{"upstreams: {app: {url: http://a, max_body: 0B}}", "must be from 1B"},
		{"buckets: {d: {}}", "`buckets.d.bucket` is missing"},
		{"buckets: {d: {bucket: a/b}}", "want a bucket's name"},
		{"buckets: {d: {bucket: photos--x-s3}}", "S3 Express buckets"},
		{"upstreams: {app: {url: \"http://user:sesame@a\"}}", "without user and password"},
		{"buckets: {d: {bucket: acme, endpoint: minio}}", "`buckets.d.endpoint`: want http://host:port"},
		{"buckets: {d: {bucket: acme, credentials: {access_key: a}}}", "needs both access_key and secret_key"},
		{"buckets: {d: {bucket: acme, credentials: {role: arn:aws:iam::111122223333:role/x}}}", "`buckets.d.credentials.from` is missing"},
		{"buckets: {d: {bucket: acme, credentials: {role: a, from: google}}}", "`buckets.d.credentials.role` is not a role's ARN"},
		{"buckets: {d: {bucket: acme, credentials: {from: google}}}", "`buckets.d.credentials.role` is missing"},
		{"buckets: {d: {bucket: acme, credentials: {role: arn:aws:iam::111122223333:role/x, from: azure}}}", "must be google"},
		{"buckets: {d: {bucket: acme, credentials: {role: arn:aws:iam::111122223333:role/x, from: google, audience: \"\"}}}", "audience` is empty"},
		{`buckets: {d: {bucket: acme, credentials: {role: arn:aws:iam::111122223333:role/x, from: google, secret_key: x}}}`, "exclude each other"},
		{"buckets: {d: {bucket: acme, sse: kms}}", "`buckets.d.sse` must be aes256"},
		{"buckets: {d: {bucket: acme, sse: {}}}", "kms_key` is missing"},
		{"buckets: {d: {bucket: acme, sse: {kms_key: \"\"}}}", "kms_key` is empty"},
		{"buckets: {d: {bucket: acme, acl: public-read}}", "unknown key `buckets.d.acl`: access lists of objects are never signed"},
		{"buckets: {d: {bucket: acme, store: ceph, endpoint: http://a}}", "`buckets.d.store` is not one of aws, minio, versitygw, r2, gcs, other"},
		{"buckets: {d: {bucket: acme, store: r2}}", "`buckets.d.endpoint` is missing: the store r2"},
		{"buckets: {d: {bucket: acme, store: aws, endpoint: http://minio:9000}}", "`buckets.d.endpoint` is not one of AWS"},
		{"buckets: {d: {bucket: acme, store: r2, endpoint: https://a.r2.cloudflarestorage.com, sse: {kms_key: k}}}", "`buckets.d.sse` is not possible: the store r2 encrypts by itself"},
		{"buckets: {d: {bucket: acme, store: r2, endpoint: https://a.r2.cloudflarestorage.com, tags: {a: b}}}", "`buckets.d.tags` is not possible"},
		{"buckets: {d: {bucket: acme, store: gcs, endpoint: https://storage.googleapis.com, storage_class: GLACIER}}", "`buckets.d.storage_class` is not possible"},
		{"buckets: {d: {bucket: acme, storage_class: standard}}", "is not a storage class"},
		{"buckets: {d: {bucket: acme, metadata: {Origin: x}}}", "`buckets.d.metadata` has the name"},
		{"buckets: {d: {bucket: acme, metadata: {origin: \"a\\nb\"}}}", "`buckets.d.metadata.origin` holds a control character"},
		{"buckets: {d: {bucket: acme, tags: {\"aws:x\": y}}}", "AWS's own"},
		{"storage: {local: {dir: a}, firestore: {project: p1}}", "exclude each other"},
		{"storage: {firestore: {}}", "`storage.firestore.project` is missing, and the variable GOOGLE_CLOUD_PROJECT names no project"},
		{"storage: {firestore: {project: p1, collection: a/b}}", "want a collection's id"},
		{"storage: {firestore: {project: p1, database: a/b}}", "want a database's id"},
		{"storage: {local: {dir: x}}\naudit: {dir: x}", "are one folder"},
		{"storage: {firestore: {project: p1, collection: c}}\naudit: {firestore: {project: p1, collection: c}}", "are one collection"},
		{"storage: {firestore: {project: p1, collection: c}}\naudit: {firestore: {project: p1, collection: cQuotas}}", "are one collection"},
		{"lookups: {firestore: {}}", "`lookups.firestore.project` is missing, and the variable GOOGLE_CLOUD_PROJECT names no project"},
		{"lookups: {firestore: {project: p1, database: a/b}}", "`lookups.firestore.database`: want a database's id"},
		{"lookups: {firestore: {project: p1, collection: c}}", "unknown key `lookups.firestore.collection`"},
		{"lookups: {redis: {}}", "unknown key `lookups.redis`"},
		{"audit: {survive: machine}", "`audit.survive: machine` needs `audit.firestore`"},
		{"audit: {survive: fire}", "must be one of crash, power, machine"},
		{"audit: {segment: 1KiB}", "must be from 64KiB"},
		{"audit: {retention: 1m}", "must be from 1h"},
		{"audit: {key: s3cr3t}", "`audit.key` is no key to sign with"},
		{`audit: {key: ""}`, "`audit.key` is empty"},
		{"audit: {checkpoint: 1ms}", "must be from 1s"},
		{"audit: {stdout: yes}", "must be true or false"},
		{"telemetry: {sample: 1}", "`telemetry.otlp` is missing"},
		{`telemetry: {otlp: "collector:4318"}`, "`telemetry.otlp`: want the URL of a collector"},
		{`telemetry: {otlp: "grpc://collector:4317"}`, "`telemetry.otlp`: want the URL of a collector"},
		{`telemetry: {otlp: "http://:4318"}`, "`telemetry.otlp`: want the URL of a collector"},
		{`telemetry: {otlp: "https://u:s3cr3t@otlp.acme.dev"}`, "`telemetry.otlp`: want a URL without user"},
		{`telemetry: {otlp: "https://otlp.acme.dev?key=s3cr3t"}`, "`telemetry.otlp`: want a URL without user"},
		{`telemetry: {otlp: "https://otlp.acme.dev", sample: 1.5}`, "`telemetry.sample` must be a share from 0 to 1, not \"1.5\""},
		{`telemetry: {otlp: "https://otlp.acme.dev", sample: -0.1}`, "`telemetry.sample` must be a share from 0 to 1"},
		{`telemetry: {otlp: "https://otlp.acme.dev", headers: {}}`, "`telemetry.headers` is empty"},
		{`telemetry: {otlp: "https://otlp.acme.dev", headers: {"a b": s}}`, "is not a header's name"},
		{`telemetry: {otlp: "https://otlp.acme.dev", headers: {content-TYPE: s}}`, "is the gateway's to set"},
		{`telemetry: {otlp: "https://otlp.acme.dev", headers: {a: s, A: s}}`, "is there already, in another spelling"},
		{`telemetry: {otlp: "http://localhost:4318", ca: ca.pem}`, "`telemetry.ca` is for an https URL"},
		{"log: {level: warning}", "must be one of debug, info, warn, error, not \"warning\"; did you mean \"warn\"?"},
		{"log: {format: xml}", "must be one of json, console"},
	} {
		p := place{files: files}
		_, _, err := p.load(versionLine + tt.text)
		switch {
		case err == nil:
			t.Errorf("%s: loaded; want %q", tt.text, tt.want)
		case !errors.Is(err, errInvalid) || ExitStatus(err) != exitInvalid:
			t.Errorf("%s: %v is not an invalid config", tt.text, err)
		case !strings.Contains(err.Error(), tt.want):
			t.Errorf("%s:\ngot  %v\nwant %s", tt.text, err, tt.want)
		case strings.Contains(err.Error(), "\n") && !strings.Contains(tt.want, "circle"):
			t.Errorf("%s: one mistake, several complaints: %v", tt.text, err)
		}
		if fitsSchema(versionLine+tt.text) == nil && !formless.MatchString(tt.want) {
			t.Errorf("%s: fits the schema, in spite of: %s", tt.text, tt.want)
		}
	}
}

func TestAllMistakesInOneRun(t *testing.T) {
	_, _, err := place{env: map[string]string{"FIRESTORE_EMULATOR_HOST": "h:1"}}.load(versionLine + "nam: x\nlog: {level: loud}\naudit: {survive: machine}\n")
	for _, want := range []string{":2:1:", ":3:14:", ":4:18:", "FIRESTORE_EMULATOR_HOST"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, err)
		}
	}
}

func TestPortVariable(t *testing.T) {
	for _, port := range []string{"tcp://10.0.0.1:80", "0", "-1", "99999"} {
		p := place{env: map[string]string{"PORT": port}}
		if _, _, err := p.load(versionLine); err == nil || !strings.Contains(err.Error(), "PORT must be") || strings.Contains(err.Error(), port) && len(port) > 3 {
			t.Errorf("PORT=%s: %v", port, err)
		}
		if _, _, err := p.load(versionLine + `listen: {address: ":80"}`); err != nil {
			t.Errorf("PORT=%s beside listen.address: %v", port, err)
		}
	}
}

func TestEphemeralDisks(t *testing.T) {
	const shared = "storage: {firestore: {project: p1}}\naudit: {survive: machine, firestore: {project: p1}}\n"
	cloudRun := map[string]string{"K_SERVICE": "gw", "PORT": "8080"}
	for _, tt := range []struct {
		name  string
		place place
		text  string
		err   string
		warn  string
	}{
		{"cloud run, defaults", place{env: cloudRun}, "", "sidegate.yaml:1:1: on Cloud Run", ""},
		{"cloud run, sessions here", place{env: cloudRun}, "storage: {local: {dir: /d}}", "sidegate.yaml:2:10: on Cloud Run", ""},
		{"cloud run, events here", place{env: cloudRun}, "storage: {firestore: {project: p1}}\naudit: {survive: power}", "sidegate.yaml:3:8: on Cloud Run", ""},
		{"cloud run, two lines", place{env: cloudRun}, shared, "", ""},
		{"cloud run, allowed", place{env: cloudRun, insecure: insecure{ephemeral: true}}, "", "", "--insecure-ephemeral"},
		{"cloud run, other port", place{env: cloudRun}, shared + `listen: {address: ":9"}`, "", "Cloud Run sends requests to $PORT (8080)"},
		{"tmpfs", place{disk: diskMemory}, "", "`storage.local.dir` lies on a tmpfs", ""},
		{"tmpfs, events", place{disk: diskMemory}, "storage: {firestore: {project: p1}}", "`audit.dir` lies on a tmpfs", ""},
		{"tmpfs, shared", place{disk: diskMemory}, shared, "", ""},
		{"tmpfs, allowed", place{disk: diskMemory, insecure: insecure{ephemeral: true}}, "", "", "--insecure-ephemeral: `audit.dir`"},
		{"forward-auth at every address", place{}, `forward_auth: {dialect: nginx, address: ":9181"}`, "", "`forward_auth.address` is every address of this machine"},
		{"forward-auth at every address", place{}, `forward_auth: {dialect: nginx, address: "[::]:9181"}`, "", "`forward_auth.address` is every address of this machine"},
		{"forward-auth at one", place{}, `forward_auth: {dialect: nginx, address: "10.0.0.1:9181"}`, "", ""},
		{"overlayfs", place{disk: diskContainer}, "", "", "`audit.dir` lies in the container's own layer"},
	} {
		_, warnings, err := tt.place.load(versionLine + tt.text)
		if (tt.err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: error %v, want %q", tt.name, err, tt.err)
		}
		if err != nil && (!strings.Contains(err.Error(), "\n    storage: {firestore:") || !strings.Contains(err.Error(), "\n    audit: {survive: machine, firestore:")) {
			t.Errorf("%s: the two lines are missing: %v", tt.name, err)
		}
		if all := strings.Join(warnings, "\n"); !strings.Contains(all, tt.warn) || tt.warn == "" && all != "" {
			t.Errorf("%s: warnings %q, want %q", tt.name, all, tt.warn)
		}
	}
}

// TestIssuersOfEverybody: where callers choose the audience, and nothing else is
// required, the operator is told.
func TestIssuersOfEverybody(t *testing.T) {
	const github, google = "https://token.actions.githubusercontent.com", "https://accounts.google.com"
	for _, tt := range []struct{ issuer, rest, warn string }{
		{github, "audience: x", "sidegate.yaml:3:"},
		{github, "audience: x, claims: {roles: x}", "every repository"},
		{github, "audience: x, require: {repository: acme/photos}", ""},
		{google, "audience: https://photos.acme.dev", "every service account"},
		{google, "audience: [1.apps.googleusercontent.com, https://photos.acme.dev]", "every service account"},
		{google, "audience: 1.apps.googleusercontent.com", "every service account"},
		{google, "audience: https://photos.acme.dev, require: {hd: acme.dev}", ""},
		{"https://acme.okta.com", "audience: x", ""},
	} {
		text := versionLine + "identities:\n  a: {oidc: {issuer: " + tt.issuer + ", " + tt.rest + "}}"
		_, warnings, err := place{}.load(text)
		if all := strings.Join(warnings, "\n"); err != nil || !strings.Contains(all, tt.warn) || tt.warn == "" && all != "" {
			t.Errorf("%s: %v, warnings %q; want %q", text, err, all, tt.warn)
		}
	}
}

func TestAdvisedLinesLoad(t *testing.T) {
	var lines []string
	for _, line := range strings.Split(ephemeralAdvice, "\n")[1:] {
		lines = append(lines, strings.TrimSpace(line))
	}
	p := place{env: map[string]string{"K_SERVICE": "gw", "GOOGLE_CLOUD_PROJECT": "acme-prod"}}
	if _, warnings, err := p.load(versionLine + strings.Join(lines, "\n")); err != nil || len(warnings) > 0 {
		t.Errorf("%v %v", warnings, err)
	}
}

func TestEmulatorVariables(t *testing.T) {
	for _, name := range []string{"FIREBASE_AUTH_EMULATOR_HOST", "FIRESTORE_EMULATOR_HOST"} {
		p := place{env: map[string]string{name: "localhost:9099"}}
		if _, _, err := p.load(versionLine); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "--insecure-emulator") {
			t.Errorf("%s without the switch: %v", name, err)
		}
		p.insecure.emulator = true
		if _, warnings, err := p.load(versionLine); err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], name) {
			t.Errorf("%s with the switch: %v %v", name, warnings, err)
		}
		for _, bad := range []string{"localhost", "http://localhost:9099", ":9099", "localhost:0", "a@b:1", "a/b:1"} {
			p.env = map[string]string{name: bad}
			if _, _, err := p.load(versionLine); err == nil {
				t.Errorf("%s=%s is accepted", name, bad)
			}
		}
		p = place{env: map[string]string{name: ""}}
		if _, _, err := p.load(versionLine); err != nil {
			t.Errorf("%s empty: %v", name, err)
		}
	}
}

// secretText stands in the variable and the file that every test below reads.
const secretText = "hunter2-XyZZy"

func secretPlace() place {
	return place{
		env:   map[string]string{"SECRET": secretText, "GOOGLE_CLOUD_PROJECT": "acme-prod"},
		files: map[string]string{"/etc/sidegate/secret": secretText + "\n"},
	}
}

// TestSecretsAreNeverPrinted puts a secret where it does not belong: at every
// key, by variable and by file.
func TestSecretsAreNeverPrinted(t *testing.T) {
	for path, keys := range configKeys() {
		for _, key := range append(slices.Clone(keys.Known), "unknown") {
			for _, form := range []string{"${env:SECRET}", "${file:secret}", "x ${file:secret} y", "[\"${env:SECRET}\"]"} {
				lines := []string{}
				for _, part := range append(strings.Split(path, "."), key) {
					if part = strings.Replace(part, "*", "x", 1); part != "" {
						lines = append(lines, strings.Repeat(" ", len(lines))+part+":")
					}
				}
				if !strings.HasPrefix(form, "[") {
					form = `"` + form + `"`
				}
				c, warnings, err := secretPlace().load(versionLine + strings.Join(lines, "\n") + " " + form)
				if err != nil && strings.Contains(err.Error(), secretText) {
					t.Errorf("%s.%s: the error shows the secret: %v", path, key, err)
				}
				if strings.Contains(strings.Join(warnings, "\n"), secretText) {
					t.Errorf("%s.%s: a warning shows the secret: %v", path, key, warnings)
				}
				if strings.Contains(path, "credentials") {
					if shown := fmt.Sprintf("%v %+v %#v", c, c, c.Buckets); strings.Contains(shown, secretText) {
						t.Errorf("%s.%s: the config shows the secret: %s", path, key, shown)
					}
				}
			}
		}
	}
}

func FuzzConfig(f *testing.F) {
	f.Add(versionLine)
	f.Add(versionLine + "name: \"${env:SECRET}\"\nlog: {level: \"${file:secret}\"}")
	f.Add(versionLine + "identities: {a: {firebase: {project: p}, uids: b}, b: {firebase: {project: q}, uids: a}}")
	f.Add(versionLine + "upstreams: {a: {url: \"http://[::1]:80\"}}\nlisten: {trusted_proxies: [cloud-run, ::1]}")
	f.Add(versionLine + "buckets: {d: {bucket: acme, credentials: {access_key: a, secret_key: \"${env:SECRET}\"}}}")
	f.Add(versionLine + "storage: {firestore: {}}\naudit: {survive: machine, firestore: {ttl: 1d}}")
	f.Add(versionLine + "lookups: {firestore: {database: facts}}")
	f.Add(versionLine + "identities: {a: {oidc: {issuer: https://i.example, audience: [x], uid: a.b, actor: act.sub, claims: {x: [a, b]}, require: {a.b: true}}}, b: {google: {audience: x, emails: [a@b.dev]}}}")
	f.Add(versionLine + "upstreams: {a: {url: http://a, headers: {X-A: \"${auth.uid}, ${env:SECRET}\"}}}\nkeys_cache: k\nassertion: {key: \"${env:SECRET}\"}")
	f.Add("a: *b\n---\n")
	f.Add("# only words")
	f.Fuzz(func(t *testing.T, text string) {
		if strings.Contains(text, secretText) {
			t.Skip()
		}
		p := secretPlace()
		c, warnings, err := p.load(text)
		if err == nil && c == nil {
			t.Fatal("neither config nor error")
		}
		if err != nil && strings.Contains(err.Error(), secretText) {
			t.Fatalf("the error shows the secret: %v", err)
		}
		if strings.Contains(strings.Join(warnings, "\n"), secretText) {
			t.Fatalf("a warning shows the secret: %v", warnings)
		}
		if err != nil {
			return
		}
		if err := fitsSchema(text); err != nil {
			t.Fatalf("loads, and does not fit the schema: %v", err)
		}
		if c.Policy == "" || c.Listen.Address == "" || c.AdminAddress == "" || c.Audit.Dir == "" || (c.Storage.LocalDir == "") == (c.Storage.Firestore == nil) {
			t.Fatalf("loaded with holes: %+v", c)
		}
		for _, u := range c.Upstreams {
			if u.URL == nil || u.URL.Path != "" || u.URL.User != nil || u.MaxBody <= 0 {
				t.Fatalf("loaded with holes: %+v", u)
			}
		}
		for _, id := range c.Identities {
			if len(id.selectors()) == 0 || id.Namespace == "" || (id.Firebase == nil) == (id.OIDC == nil) {
				t.Fatalf("loaded with holes: %+v", id)
			}
		}
	})
}

// TestUnreadSecretIsNotLiteral: a secret whose variable is not set has an error,
// and is not called one that stands in the file.
func TestUnreadSecretIsNotLiteral(t *testing.T) {
	for _, text := range []string{
		`webhook: {url: "https://acme.dev", secret: "${env:UNSET_SECRET}"}`,
		`buckets: {default: {bucket: photos, credentials: {access_key: a, secret_key: "${env:UNSET_SECRET}"}}}`,
	} {
		if _, warnings, err := (place{}).load(versionLine + text); err == nil || len(warnings) > 0 {
			t.Errorf("%s: %v, warnings %q", text, err, warnings)
		}
	}
}
