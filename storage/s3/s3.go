// Package s3 signs URLs for one bucket of Amazon S3 or a store that speaks its
// protocol, and looks after the objects that landed. It is the only package that
// knows the AWS SDK. It keeps nothing on record and decides nothing: by the
// time it is asked, both are done.
package s3

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// Options are a bucket's keys of sidegate.yaml.
type Options struct {
	Bucket         string
	Region         string // empty: AWS_REGION or the profile's, else us-east-1
	Endpoint       string // where this process reaches the store; empty: AWS
	PublicEndpoint string // where clients reach it; empty: Endpoint
	PathStyle      bool
	// Store is one of Stores; empty: aws without an endpoint, else other.
	Store string
	// AES256 and KMSKey (a key's id or ARN) ask for encryption by the store;
	// StorageClass, Tags and Metadata (lower-case names) are every object's.
	// They are signed in each upload, and no caller can say otherwise.
	AES256         bool
	KMSKey         string
	StorageClass   string
	Tags, Metadata map[string]string
	// Role is assumed in the place of keys; nil: none is.
	Role *Role
	// AccessKey and SecretKey are used as they are; both empty: the AWS
	// default chain (environment, profile, web identity, task role, instance
	// role), which is asked when first needed and refreshed in time.
	AccessKey, SecretKey string
	// Observe is told of each call of the store, by several goroutines at once;
	// nil: nobody is.
	Observe func(Call)
	Now     func() time.Time // nil: time.Now
	backoff time.Duration    // of tests; 0: maxBackoff
}

const defaultRegion = "us-east-1"

// A Bucket is one bucket. It is an upload.Bucket and safe for concurrent use.
type Bucket struct {
	name     string
	region   string
	store    string
	limits   Limits
	unsent   unsent
	public   place
	fixed    []field
	metadata map[string]string // the configuration's
	// metadataSize is what of maxMetadata the configuration's takes.
	metadataSize int
	client       *s3.Client
	slow         aws.HTTPClient // of calls that take long
	signer       *signer
	credentials  *credentialSource
	skew         *skew
	now          func() time.Time

	headTimeout, callTimeout, listTimeout, completeTimeout time.Duration
}

// A place is where clients reach the bucket, in the pieces that signing needs.
type place struct {
	origin string // scheme and host
	path   string // escaped, without the last slash: a slash and the key follow
	signed string // the Host header that clients send
}

func placeOf(u url.URL) place {
	u.Host = strings.ToLower(u.Host) // as browsers send it, however it is written
	return place{u.Scheme + "://" + u.Host, u.EscapedPath(), hostHeader(u)}
}

// hostHeader leaves out the port that the scheme has anyway, as clients do.
func hostHeader(u url.URL) string {
	if port := u.Port(); u.Scheme == "http" && port == "80" || u.Scheme == "https" && port == "443" {
		return strings.TrimSuffix(u.Host, ":"+port)
	}
	return u.Host
}

// Open prepares a bucket. It reads the AWS environment variables and files,
// and asks no network: that there are credentials, and that they suffice, is
// found out by CheckCredentials and by use.
func Open(ctx context.Context, o Options) (*Bucket, error) {
	if err := o.Check(); err != nil {
		return nil, fmt.Errorf("bucket %q: %w", o.Bucket, err)
	}
	o.Store = StoreOf(o.Store, o.Endpoint)
	cfg, err := o.load(ctx)
	if err != nil {
		return nil, fmt.Errorf("bucket %s: read the AWS configuration: %w", o.Bucket, err)
	}
	public := o.PublicEndpoint
	if public == "" {
		public = o.Endpoint
	}
	at, err := resolve(ctx, o.Bucket, cfg.Region, public, o.PathStyle)
	if err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	now := o.Now
	if o.Role != nil {
		cfg.Credentials = newAssumedRole(*o.Role, cfg.Region, cfg.HTTPClient)
	}
	creds := newCredentialSource(cfg.Credentials, now)
	clock := &skew{now: now}
	usual, slow := httpClients(cfg.HTTPClient, clock)
	b := &Bucket{
		name:        o.Bucket,
		region:      cfg.Region,
		store:       o.Store,
		limits:      LimitsOf(o.Store),
		unsent:      unsentOf(o.Store),
		public:      placeOf(at),
		fixed:       o.fixedFields(),
		metadata:    o.Metadata,
		client:      s3.New(clientOptions(cfg, o, creds, usual)),
		slow:        slow,
		signer:      &signer{region: cfg.Region},
		credentials: creds,
		skew:        clock,
		now:         now,
		headTimeout: headTimeout, callTimeout: callTimeout, listTimeout: listTimeout, completeTimeout: completeTimeout,
	}
	for name, value := range o.Metadata {
		b.metadataSize += len(name) + len(encodeMeta(value))
	}
	return b, nil
}

// An OptionError says which key of a bucket in sidegate.yaml cannot be, and why.
type OptionError struct {
	Key    string // below the bucket's: endpoint, credentials.role and so on
	Reason string // goes on after the key
}

func (e *OptionError) Error() string { return e.Key + " " + e.Reason }

// Check says what of o cannot be: an [OptionError], or nil. It asks nobody.
func (o *Options) Check() error {
	for _, check := range []func() *OptionError{o.checkName, o.checkCredentials, o.checkEndpoints, o.checkFixed, o.checkStore} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (o *Options) checkName() *OptionError {
	switch {
	case o.Bucket == "":
		return &OptionError{"bucket", "needs a name"}
	case strings.ContainsAny(o.Bucket, "/:?#%\\ "):
		return &OptionError{"bucket", "is not a bucket's name, but an ARN, URL or path"}
	case strings.HasSuffix(o.Bucket, "--x-s3"):
		// They are signed with short-lived keys of their own, for another service.
		return &OptionError{"bucket", "names an S3 Express directory bucket, which are not supported"}
	}
	return nil
}

func (o *Options) checkCredentials() *OptionError {
	switch {
	case (o.AccessKey == "") != (o.SecretKey == ""):
		return &OptionError{"credentials", "need each other: access_key and secret_key"}
	case o.Role != nil && o.AccessKey != "":
		return &OptionError{"credentials.role", "and keys exclude each other"}
	case o.Role != nil && !roleARN().MatchString(o.Role.ARN):
		return &OptionError{"credentials.role", "is not a role's ARN, such as arn:aws:iam::111122223333:role/sidegate"}
	}
	return nil
}

func (o *Options) checkEndpoints() *OptionError {
	for _, e := range []struct{ key, value string }{{"endpoint", o.Endpoint}, {"public_endpoint", o.PublicEndpoint}} {
		if e.value == "" {
			continue
		}
		u, err := url.Parse(e.value)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Opaque != "" ||
			u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.EscapedPath() != u.Path {
			return &OptionError{e.key, "is not an http or https URL without user, query, fragment and escapes"}
		}
	}
	return nil
}

// load reads what the SDK reads, and takes from it region, credentials and
// HTTP client (AWS_CA_BUNDLE). Endpoints come from Options alone, so that what
// is signed and what is looked at are the same store.
func (o *Options) load(ctx context.Context) (aws.Config, error) {
	read := []func(*config.LoadOptions) error{
		// The mode auto, if the environment asks for it, asks the network.
		config.WithDefaultsMode(aws.DefaultsModeStandard),
	}
	if o.Region != "" {
		read = append(read, config.WithRegion(o.Region))
	}
	if o.AccessKey != "" {
		read = append(read, config.WithCredentialsProvider(
			credentials.NewStaticCredentialsProvider(o.AccessKey, o.SecretKey, "")))
	}
	cfg, err := config.LoadDefaultConfig(ctx, read...)
	if cfg.Region == "" {
		cfg.Region = defaultRegion
	}
	return cfg, err
}

// resolve is the bucket's URL by the SDK's own rules: the bucket in the host,
// or in the path where that is asked for or the host is an address or the
// name has dots.
func resolve(ctx context.Context, bucket, region, endpoint string, pathStyle bool) (url.URL, error) {
	p := s3.EndpointParameters{
		Bucket:         aws.String(bucket),
		Region:         aws.String(region),
		ForcePathStyle: aws.Bool(pathStyle),
	}.WithDefaults()
	if endpoint != "" {
		p.Endpoint = aws.String(endpoint)
	}
	e, err := s3.NewDefaultEndpointResolverV2().ResolveEndpoint(ctx, p)
	if err != nil {
		return url.URL{}, fmt.Errorf("bucket %s in region %s: %w", bucket, region, err)
	}
	u := e.URI
	u.Path = strings.TrimSuffix(u.Path, "/")
	u.RawPath = strings.TrimSuffix(u.RawPath, "/")
	return u, nil
}

// CheckCredentials says whether there are credentials to sign with. It may ask
// the network (a task's or instance's role), for a few seconds at most.
func (b *Bucket) CheckCredentials(ctx context.Context) error {
	if _, err := b.credentials.Retrieve(ctx); err != nil {
		return fmt.Errorf("bucket %s: %w", b.name, err)
	}
	return nil
}
