package cmd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/note"

	"sidegate/proxy"
	"sidegate/proxy/google"
	"sidegate/proxy/transport"
	"sidegate/storage/audit"
	"sidegate/storage/firestore"
	"sidegate/storage/local"
	"sidegate/storage/s3"
	"sidegate/storage/upload"
)

// stores is what openStores opened beside the ledger.
type stores struct {
	uploads *upload.Uploads
	buckets []*s3.Bucket
	lookups proxy.DocumentReader // nil: none is configured
}

func (g *gateway) openStores(ctx context.Context) (stores, error) {
	c := g.s.config
	clients := map[firestore.Options]*firestore.Client{}
	credentials, err := googleFromAWS(context.WithoutCancel(ctx), g.s.env)
	if err != nil {
		return stores{}, err
	}
	connect := func(f *FirestoreConfig) (*firestore.Client, error) {
		o := firestore.Options{Project: f.Project, Database: f.Database, Emulator: g.s.insecure.firestoreEmulator, Credentials: credentials}
		if have := clients[o]; have != nil {
			return have, nil
		}
		client, err := firestore.Connect(ctx, o)
		if err != nil {
			return nil, err
		}
		clients[o] = client
		g.onClose(client.Close)
		return client, nil
	}
	if err := g.openLedger(connect); err != nil {
		return stores{}, err
	}
	store, err := g.openSessions(connect)
	if err != nil {
		return stores{}, err
	}
	measured := newStoreMetrics(g.metrics)
	store = &measuredSessions{store, measured}
	out := stores{uploads: &upload.Uploads{Store: store, Index: store, Buckets: map[string]upload.Bucket{}, Now: time.Now}}
	if err := g.openSweeping(out.uploads); err != nil {
		return stores{}, err
	}
	if out.lookups, err = openLookups(c.Lookups, connect); err != nil {
		return stores{}, err
	}
	for _, b := range c.Buckets {
		bucket, err := g.openBucket(ctx, &b, measured.of(b.Name))
		if err != nil {
			return stores{}, fmt.Errorf("buckets.%s: %w", b.Name, err)
		}
		out.uploads.Buckets[b.Name] = &countedBucket{bucket, b.Name, measured}
		out.buckets = append(out.buckets, bucket)
		if err := g.measureSkew(b.Name, bucket); err != nil {
			return stores{}, err
		}
	}
	return out, nil
}

// openBucket opens a bucket. The ID tokens of a role are asked for when first
// needed, and kept until shortly before their end.
func (g *gateway) openBucket(ctx context.Context, b *BucketConfig, observe func(s3.Call)) (*s3.Bucket, error) {
	o := b.options()
	o.Observe = observe
	if b.Role != nil {
		tokens, err := google.NewIDTokens(b.Role.Audience)
		if err != nil {
			return nil, err
		}
		o.Role.Token, o.Role.Session = tokens.Token, roleSession(g.s.config.Name)
		o.Role.Endpoint = g.s.env.get("AWS_ENDPOINT_URL_STS")
	}
	return s3.Open(ctx, o)
}

// roleSession names this gateway in AWS's logs: 2 to 64 characters.
// https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
func roleSession(name string) string {
	if len(name) < 2 {
		name = "sidegate-" + name
	}
	return name[:min(len(name), 64)]
}

func (g *gateway) openLedger(connect func(*FirestoreConfig) (*firestore.Client, error)) error {
	c := g.s.config
	var err error
	o := audit.Options{
		Dir:     c.Audit.Dir,
		Gateway: audit.Gateway{Name: c.Name, Version: g.s.version, Instance: g.instance},
		Segment: c.Audit.Segment,
		MaxSize: c.Audit.MaxSize,
	}
	if f := c.Audit.Firestore; f != nil {
		client, err := connect(f)
		if err != nil {
			return fmt.Errorf("audit.firestore: %w", err)
		}
		o.Sink = client.Audit(f.Collection, c.Audit.TTL)
		if g.rescues = g.memoryDisk(); g.rescues {
			o.LastResort = &lastResort{g: g}
		}
	}
	if c.Audit.Key.IsSet() {
		if o.Signer, err = note.NewSigner(c.Audit.Key.Reveal()); err != nil {
			return errors.New("audit.key is no key to sign with: make one by `sidegate audit keygen`")
		}
	} else {
		g.log.Info().Msg("audit.key is not set: the audit log has no signed checkpoints, so that a removed end of it does not show")
	}
	o.Checkpoint, o.Retention = c.Audit.Checkpoint, c.Audit.Retention
	if c.Audit.Stdout {
		o.Copy = g.s.stdout
	}
	if g.ledger, err = audit.Open(o); err != nil {
		if errors.Is(err, audit.ErrLocked) {
			return fmt.Errorf("%w; each gateway needs an audit.dir of its own", err)
		}
		if corrupt := (*audit.CorruptError)(nil); errors.As(err, &corrupt) {
			return fmt.Errorf("%w; nothing was changed. `sidegate audit verify --dir %s` looks at all of it; `sidegate audit repair --dir %s` keeps everything as evidence and begins a new chain",
				err, c.Audit.Dir, c.Audit.Dir)
		}
		return err
	}
	g.onClose(g.closeLedger)
	return nil
}

// closeLedger flushes within what is left of shutdown_grace, and a moment in
// any case. It is an error if events are lost by it.
func (g *gateway) closeLedger() error {
	left := time.Second
	if !g.graceEnd.IsZero() {
		left = max(time.Until(g.graceEnd), left)
	}
	ctx, cancel := context.WithTimeout(context.Background(), left)
	defer cancel()
	err := g.ledger.Close(ctx)
	g.tellUnshipped(g.ledger.Stats())
	return err
}

// sessions is a store of upload sessions.
type sessions interface {
	upload.Store
	upload.Index
}

func (g *gateway) openSessions(connect func(*FirestoreConfig) (*firestore.Client, error)) (sessions, error) {
	c := g.s.config
	if f := c.Storage.Firestore; f != nil {
		client, err := connect(f)
		if err != nil {
			return nil, fmt.Errorf("storage.firestore: %w", err)
		}
		return firestore.NewSessions(client, f.Collection)
	}
	store, err := local.Open(c.Storage.LocalDir)
	if err != nil {
		return nil, fmt.Errorf("storage.local: %w", err)
	}
	g.onClose(store.Close)
	return store, nil
}

// openLookups gives an interface that is nil where nothing is configured, and
// not one that holds a nil pointer.
func openLookups(f *FirestoreConfig, connect func(*FirestoreConfig) (*firestore.Client, error)) (proxy.DocumentReader, error) {
	if f == nil {
		return nil, nil
	}
	client, err := connect(f)
	if err != nil {
		return nil, fmt.Errorf("lookups.firestore: %w", err)
	}
	return firestore.NewDocuments(client), nil
}

func (g *gateway) upstreams() (map[string]proxy.Upstream, error) {
	m, err := transport.NewMetrics(g.metrics)
	if err != nil {
		return nil, fmt.Errorf("upstreams: %w", err)
	}
	out := map[string]proxy.Upstream{}
	for _, u := range g.s.config.Upstreams {
		by, err := newTransport(u, m, g.fileRefused("upstreams."+u.Name+".tls"))
		if err != nil {
			return nil, fmt.Errorf("upstreams.%s: %w", u.Name, err)
		}
		out[u.Name] = proxy.Upstream{
			URL: u.URL, KeepHost: u.KeepHost, Timeout: u.Timeout, IdleTimeout: u.IdleTimeout, MaxBody: u.MaxBody,
			KeepAuthorization: u.KeepAuthorization, Unlimited: u.Unlimited, Headers: u.Headers,
			Transport: by, MaxRequests: u.MaxRequests, HTTP2: u.H2C || u.URL.Scheme == "https",
		}
		if u.IDToken == "" {
			continue
		}
		tokens, err := google.NewIDTokens(u.IDToken)
		if err != nil {
			return nil, fmt.Errorf("upstreams.%s: %w", u.Name, err)
		}
		up := out[u.Name]
		up.IDToken = tokens.Token
		out[u.Name] = up
		g.idTokens = append(g.idTokens, tokens)
	}
	return out, nil
}

// newTransport asks an app at its addresses.
func newTransport(u UpstreamConfig, m *transport.Metrics, refused func(error)) (*transport.Transport, error) {
	o := transport.Options{Name: u.Name, Addresses: u.Addresses, Socket: u.Socket, H2C: u.H2C, NetHTTP: u.NetHTTP, LeastBusy: u.LeastBusy, Metrics: m}
	if u.URL.Scheme == "https" {
		var err error
		if o.TLS, err = upstreamTLS(u, refused); err != nil {
			return nil, err
		}
	}
	return transport.New(o)
}

// upstreamTLS is how an https app is recognised, and the gateway by it.
func upstreamTLS(u UpstreamConfig, refused func(error)) (*tls.Config, error) {
	c := &tls.Config{}
	var err error
	if u.TLS.CA != "" {
		if c.RootCAs, err = readAuthorities(u.TLS.CA); err != nil {
			return nil, fmt.Errorf("tls.ca: %w", err)
		}
	}
	if u.TLS.Cert != "" {
		pair, err := renewableKeyPair(u.TLS.Cert, u.TLS.Key, refused)
		if err != nil {
			return nil, fmt.Errorf("tls.cert: %w", err)
		}
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.get() }
	}
	return c, nil
}

// warnOfCredentials says early what would else show with the first upload. It
// may ask the network, so it delays nobody.
func (g *gateway) warnOfCredentials(ctx context.Context, buckets []*s3.Bucket) {
	for _, b := range buckets {
		go func() {
			ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
			defer cancel()
			if err := b.CheckCredentials(ctx); err != nil && ctx.Err() == nil {
				g.log.Warn().Err(err).Msg("no AWS credentials: presign routes answer 503 until there are some")
			}
		}()
	}
}

// listenHint adds what to do.
func listenHint(err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%w: another process listens there; stop it, or choose another address", err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: ports below 1024 need a privilege; choose a higher one", err)
	}
	return err
}
