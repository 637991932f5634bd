package cmd

import (
	"net/netip"
	"net/url"
	"time"

	"sidegate/proxy"
	"sidegate/proxy/oidc"
	"sidegate/storage/audit"
)

// Config is sidegate.yaml, read, checked and completed: the comment of each
// field is the manual of its key, and says the default. Paths are absolute.
// It is never changed after loading and holds nothing open.
type Config struct {
	// File is the absolute path of sidegate.yaml.
	File string

	// SecretFiles is not written in the file: those that its ${file:} read, as
	// absolute paths.
	SecretFiles []string

	// Name is how this gateway calls itself: the realm of its challenges and
	// gateway.name in the audit log. Default: sidegate.
	Name string

	// Listen is the public listener.
	Listen struct {
		// Address is where callers connect, host:port; without a host it is
		// every address of the machine. Default: port $PORT, else 8080.
		Address string
		// TLS encrypts; without a certificate, the default, something in front
		// does. Files that are replaced are read again.
		TLS struct {
			// Cert and Key are the gateway's certificate and private key.
			Cert, Key string
			// ClientCA is a file of the authorities of which callers must have a
			// certificate (mutual TLS); empty, the default: they need none.
			ClientCA string
		}
		// TrustedProxies are the addresses whose X-Forwarded-For is believed.
		// Default: nobody's.
		TrustedProxies []netip.Prefix
		// TrustPeer is the word cloud-run in trusted_proxies: whoever
		// connects is a proxy, one hop.
		TrustPeer bool
		// ShutdownGrace is how long a stop may take: no new connections,
		// requests end, the audit log is flushed. Default: 9s.
		ShutdownGrace time.Duration
		// DrainDelay is the first part of ShutdownGrace, in which the gateway
		// is not ready but still accepts. Default: 0s.
		DrainDelay time.Duration
		// HeaderTimeout is how long a request's header may take. Default: 10s.
		HeaderTimeout time.Duration
		// MaxHeaderBytes bounds a request's header. Default: 32KiB.
		MaxHeaderBytes int
		// IdleTimeout ends a connection between requests, and a body that
		// stalls. Default: 75s.
		IdleTimeout time.Duration
		// NoAddress is not written in the file: on Cloud Run, with
		// TrustedProxies empty and TrustPeer off, everybody has the address
		// of the load balancer, and no policy may read it.
		NoAddress bool
		// MaxConnections bounds open connections; 0, the default: no limit.
		MaxConnections int
		// MaxRequests bounds the requests that are served at once, tunnels
		// included: beyond it 503. 0, the default: no limit.
		MaxRequests int64
		// MaxPerConnection (max_requests_per_connection) is after how many
		// requests a connection is ended; 0, the default: none.
		MaxPerConnection int64
	}

	// AdminAddress (admin.address) is where health, readiness, metrics and
	// version are served, never on the public listener. Default: 127.0.0.1:9180.
	AdminAddress string

	// ForwardAuth (forward_auth) is where another proxy asks whether a request
	// may pass.
	ForwardAuth struct {
		// Address is where, host:port; empty where the mapping is not there, the
		// default: nowhere. Default within it: 127.0.0.1:9181.
		Address string
		// Dialect is how it asks: nginx, traefik or envoy.
		Dialect proxy.Dialect
	}

	// Policy is the policy's path. Default: policy.yaml.
	Policy string

	// Identities are who may be verified, in file order.
	Identities []IdentityConfig

	// KeysCache (keys_cache) is the folder where issuers' last good keys survive
	// a restart; empty, the default: they do not.
	KeysCache string

	// TokenCache is how many verified tokens are kept; 0: none. Default: 100000.
	TokenCache int

	// Upstreams are the apps behind the gateway, in file order.
	Upstreams []UpstreamConfig

	// CORS says which pages of other origins may read answers; nil, the default:
	// OPTIONS is a method like any other.
	CORS *proxy.CORS

	// Buckets are the object stores, in file order.
	Buckets []BucketConfig

	// Storage is where upload sessions live: exactly one of the two is set.
	Storage struct {
		// LocalDir (storage.local.dir) is the embedded store's folder, for one
		// machine. Default, without storage.firestore: data.
		LocalDir string
		// Firestore (storage.firestore) is shared by all gateways that name
		// it. Its collection's default: uploadSessions.
		Firestore *FirestoreConfig
	}

	// Lookups (lookups.firestore) is where the documents of the policy's
	// lookups are read; nil, the default: nowhere. Its collection is empty: the
	// policy names each document by its whole path.
	Lookups *FirestoreConfig

	// Audit is the audit log.
	Audit struct {
		// Dir is the ledger's folder on this machine. Default: data/audit.
		Dir string
		// Survive is what a decision outlives before its request goes on:
		// crash, power or machine. Default: crash.
		Survive audit.Survive
		// MaxSize bounds the events that wait for Firestore, in bytes; beyond
		// it requests get 503. Default: 1GiB.
		MaxSize int64
		// Segment is the size at which a new file is begun, in bytes. Default: 64MiB.
		Segment int64
		// Retention is how old the last event of a closed file may become
		// before the file is deleted. Default: 90d.
		Retention time.Duration
		// Key signs checkpoints (golang.org/x/mod/sumdb/note); without one, the
		// default, there are none.
		Key Secret
		// Checkpoint is how often one is made. Default: 1m.
		Checkpoint time.Duration
		// Firestore is where events are shipped; nil, the default: nowhere.
		// Its collection's default: auditLog.
		Firestore *FirestoreConfig
		// TTL (audit.firestore.ttl) is how long after its time an event may be
		// deleted by Firestore. Default: 400d.
		TTL time.Duration
		// Stdout prints each event as a line of JSON, too. Default: false.
		Stdout bool
	}

	// Webhook is told of uploads that became ready or were rejected.
	Webhook struct {
		// URL is where; not set, the default: nobody is told. It may hold a
		// password or a token.
		URL Secret
		// Secret signs what is sent, by Standard Webhooks.
		Secret Secret
	}

	// Redis is where budgets of limits are shared by gateways; nil, the default:
	// each counts for itself.
	Redis *RedisConfig

	// Assertion signs who calls, for upstreams; without a key, the default,
	// nothing is signed.
	Assertion struct {
		// Key is the private key in PEM (EC, P-256); NextKey is the one that
		// takes its place.
		Key, NextKey Secret
	}

	// Telemetry is where traces go.
	Telemetry struct {
		// OTLP is the whole URL at which a collector takes them, by OTLP over
		// HTTP; nil, the default: nothing is traced.
		OTLP *url.URL
		// Sample is the share, 0 to 1, that is kept of the traces which begin
		// here. Default: 0.1.
		Sample float64
		// Headers are sent beside them. Default: none.
		Headers map[string]Secret
		// CA is a file of the authorities that may vouch for an https collector;
		// empty, the default: the machine's.
		CA string
	}

	// Log is the gateway's own log, on standard error.
	Log struct {
		// Level is debug, info, warn or error. Default: info.
		Level string
		// Format is json (Cloud Logging's names) or console. Default: json.
		Format string
		// Sample is the share, 0 to 1, of the requests that were allowed and went
		// well which have a line; all others have one. Default: 1.
		Sample float64
	}
}

// An IdentityConfig is one of identities.<name>: a kind of caller that
// policy.yaml names in `who`.
type IdentityConfig struct {
	Name string
	// Namespace (uids) is the space in which these uids are unique: the
	// namespace of the identity that `uids` names. Default: Name.
	Namespace string
	// One of these is set.
	Firebase *FirebaseIdentity
	OIDC     *OIDCIdentity // also of `google`, which is a certain issuer
}

// A FirebaseIdentity is identities.<name>.firebase.
type FirebaseIdentity struct {
	// Project is the Firebase project whose ID tokens these are.
	Project string
	// Tenant is the only Identity Platform tenant accepted; empty, the default:
	// only tokens without a tenant.
	Tenant string
	// SessionCookie is the name of the cookie in which Firebase session cookies
	// are accepted, too; empty, the default: none is.
	SessionCookie string
	// Revocation is within which revoked and disabled users are noticed; 0
	// (`off`): when their tokens expire. Default: off, 5m with SessionCookie.
	Revocation time.Duration
	// RevocationGrace is how long a user that was verified goes on while
	// revocation cannot be asked. Default: 0s.
	RevocationGrace time.Duration
	// AppCheck verifies App Check tokens where they are sent. Default: false.
	AppCheck bool
	// Leeway is how far the clocks may differ. Default: 60s.
	Leeway time.Duration
}

// An OIDCIdentity is identities.<name>.oidc, or .google.
type OIDCIdentity struct {
	// Issuer is what the claim iss must be, byte for byte.
	Issuer string
	// Audiences (audience) are those that the tokens may be for.
	Audiences []string
	// Keys is where the issuer's keys are; empty, the default: where the issuer
	// says (OpenID Connect Discovery).
	Keys string
	// Emails (google.emails) are the only verified addresses accepted; none:
	// every token is.
	Emails []string
	// UID is the claim that is the uid. Default: sub.
	UID oidc.Path
	// Actor is the claim, within act, that says who acts for the user; nil, the
	// default: nobody may.
	Actor oidc.Path
	// Algorithms are those that signatures may have. Default: RS256, ES256.
	Algorithms []string
	// Claims leads from the policy's names of claims to the token's. Default:
	// each has its own name, and scopes is scope.
	Claims map[string]oidc.Path
	// Require are claims that must be as given.
	Require []oidc.Requirement
}

// An UpstreamConfig is one of upstreams.<name>: an app behind the gateway.
type UpstreamConfig struct {
	Name string
	// URL has the scheme http (of h2c, too) or https, the first address, and
	// nothing more. Of a unix socket it is http://localhost.
	URL *url.URL
	// Addresses are the hosts, with their ports where these are written, of all
	// URLs; there are none where Socket is set.
	Addresses []string
	// H2C (the scheme h2c) speaks HTTP/2 without TLS.
	H2C bool
	// Socket is the path of url's unix socket; empty: url is none.
	Socket string
	// LeastBusy (balance: least_busy) asks the address with the fewest requests
	// in flight; false (round_robin) one after the other. Default: round_robin.
	LeastBusy bool
	// NetHTTP (transport: net/http) asks the app over HTTP/1.1 by Go's own
	// transport; false (own) by sidegate's. Default: own.
	NetHTTP bool
	// TLS is how an https app is recognised, and recognises the gateway.
	TLS struct {
		// CA is a file of the authorities that may vouch for the app; empty, the
		// default: the machine's.
		CA string
		// Cert and Key are the gateway's own certificate and key; empty, the
		// default: it has none.
		Cert, Key string
	}
	// KeepHost (host: keep) sends the caller's Host; false (host: upstream)
	// sends the URL's. Default: keep.
	KeepHost bool
	// Timeout is to the response's header: then 504. Default: 60s.
	Timeout time.Duration
	// IdleTimeout ends a body that stalls. Default: 5m.
	IdleTimeout time.Duration
	// MaxBody bounds a request's body, in bytes: then 413. Default: 10MiB.
	MaxBody int64
	// MaxRequests bounds the requests in flight, until their answers end: then
	// 503; 0, the default: no bound.
	MaxRequests int
	// KeepAuthorization (authorization: keep) forwards the caller's token.
	// Default: drop.
	KeepAuthorization bool
	// IDToken (id_token) is the audience of the Google ID token that the gateway
	// sends as X-Serverless-Authorization; empty, the default: none is sent.
	IDToken string
	// Unlimited (streams: unlimited) lets WebSockets, gRPC streams and event
	// streams go on when the caller's token has ended; false (until_token) ends
	// them. Default: until_token.
	Unlimited bool
	// Headers says in which headers the app is told who calls: native
	// (X-Sidegate-*), oauth2-proxy, esp, none, or a map. Default: native.
	Headers proxy.Headers
}

// BucketObjects are the keys of buckets.<name> that say what every object there
// is stored with. No caller can say otherwise.
type BucketObjects struct {
	AES256         bool   // sse: aes256
	KMSKey         string // sse.kms_key
	StorageClass   string
	Tags, Metadata map[string]string
}

// A RoleConfig is an AWS role that the gateway assumes with Google ID tokens of
// its own, for Audience. Default: sts.amazonaws.com.
type RoleConfig struct{ ARN, Audience string }

// A BucketConfig is one of buckets.<name>.
type BucketConfig struct {
	Name string
	// Bucket is the store's name of it.
	Bucket string
	// Region is the store's. Default: $AWS_REGION, else $AWS_DEFAULT_REGION,
	// else us-east-1.
	Region string
	// Endpoint is the base URL at which this process reaches the store;
	// empty, the default: AWS.
	Endpoint string
	// PublicEndpoint is the base URL at which clients reach it: the signature
	// covers the host. Default: Endpoint.
	PublicEndpoint string
	// PathStyle puts the bucket into the path and not into the host name.
	// Default: false.
	PathStyle bool
	// Store is the kind of store, which says what cannot be: one of
	// [s3.Stores]. Default: aws without an endpoint, else other.
	Store string
	// Objects is what is signed of every object; nil, the default: nothing.
	Objects *BucketObjects
	// Role (credentials.role) is assumed in the place of keys; nil, the
	// default: none is.
	Role *RoleConfig
	// AccessKey and SecretKey (credentials) are static; both empty, the
	// default: AWS's default chain of credentials.
	AccessKey, SecretKey Secret
}

// A FirestoreConfig is a collection in Firestore, or a database.
type FirestoreConfig struct {
	// Project is the Google Cloud project. Default: $GOOGLE_CLOUD_PROJECT.
	Project string
	// Database is the database's id. Default: (default).
	Database string
	// Collection is the collection's id; empty: the database's root.
	Collection string
}
