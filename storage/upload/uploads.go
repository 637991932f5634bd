package upload

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// Uploads runs uploads and downloads over one Store and the buckets of
// sidegate.yaml. It decides nothing about who may: that was decided and is on
// record before it is asked. Its fields are set once; it is safe for
// concurrent use.
type Uploads struct {
	Store   Store
	Index   Index
	Buckets map[string]Bucket // by their names in sidegate.yaml
	// Notices: sessions that become ready or rejected are to be told of.
	Notices bool
	// Woken is called when a session became due this moment, so that nobody
	// waits for the next sweep; nil: they do. It must not block.
	Woken func()
	Now   func() time.Time
}

// NewID is a new session's id in 32 hex digits: 80 random bits, and behind them
// the milliseconds since 1970. What comes first must be random for stores that
// spread documents by their names; one that keeps new ones together, so that
// fewer pages change, finds the time at the end.
func NewID() string {
	var b [18]byte
	rand.Read(b[:10]) // never fails: it ends the process first
	binary.BigEndian.PutUint64(b[10:], uint64(time.Now().UnixMilli())<<16)
	return hex.EncodeToString(b[:16])
}

// Begin puts the session on record and then signs its URL: nothing is ever
// signed that is not on record, and a record whose URL could not be signed
// stays issued until it expires. An error is an [InvalidError] or a
// [QuotaError], or it wraps [ErrUnavailable]; nothing was signed then.
//
// The URL's life begins at the session's CreatedAt, so that the ExpiresAt
// recorded before holds. Credentials that end sooner cut the URL, not the
// record: there ExpiresAt is the latest end, and Signed.Expires the true one.
//
// With an Idempotency-Key that came before, the session is that of the first
// time and the URL is signed again, to the same bytes as long as the
// credentials are the same; nothing is counted again. Then the error can be
// [ErrOtherRequest], [ErrExpired] once the URL is over, and [ErrState] where
// the session ended without an object.
func (u *Uploads) Begin(ctx context.Context, r Request) (*Session, Signed, error) {
	if err := r.check(single); err != nil {
		return nil, Signed{}, err
	}
	bucket, err := u.bucket(r.Bucket)
	if err != nil {
		return nil, Signed{}, err
	}
	s, err := u.record(ctx, &r, single)
	if err != nil {
		return nil, Signed{}, err
	}
	signed, err := bucket.SignPut(ctx, r.put(s))
	if err := withinRecord(signed, s.ExpiresAt, err); err != nil {
		return nil, Signed{}, err
	}
	return s, signed, nil
}

// withinRecord is why what a bucket signed must not be given away, or nil: the
// end of what a URL can do is on record before.
func withinRecord(signed Signed, end time.Time, err error) error {
	if err != nil {
		return unavailable("sign the upload", err)
	}
	if signed.Expires.After(end) {
		return unavailable("sign the upload", errors.New("the bucket signed for longer than is on record"))
	}
	return nil
}

// record stores the session of a request, or finds the one that its
// Idempotency-Key made before.
func (u *Uploads) record(ctx context.Context, r *Request, k kind) (*Session, error) {
	s := r.session(k, u.Now().UTC())
	err := u.Store.Create(ctx, s, r.Quota)
	var full *QuotaError
	switch {
	case err == nil:
		return s, nil
	case errors.As(err, &full) && r.Quota != nil:
		return nil, &QuotaError{What: full.What, Retry: r.Quota.next(u.Now())}
	case errors.Is(err, ErrExists) && r.Idempotency != "":
		return u.first(ctx, s)
	}
	// ErrExists too: with 128 random bits it is a fault, not a caller's doing.
	return nil, unavailable("store the upload session", err)
}

// Lookup is the session of that id which belongs to the user. A malformed id,
// one that does not exist and somebody else's are the same [ErrNotFound]; any
// other error wraps [ErrUnavailable].
func (u *Uploads) Lookup(ctx context.Context, namespace, uid, id string) (*Session, error) {
	if !wellFormed(id) || namespace == "" || uid == "" {
		return nil, ErrNotFound
	}
	s, err := u.Store.Get(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, unavailable("read the upload session", err)
	}
	if s.ID != id || s.Namespace != namespace || s.UID != uid {
		return nil, ErrNotFound
	}
	return u.asOf(s), nil
}

// asOf is the session as it is now. One of the version that had no sweeps is
// never due, and its time ends all the same: it counts in no quota and has no
// multipart upload, so that a sweep would have nothing to do for it.
func (u *Uploads) asOf(s *Session) *Session {
	if !s.Status.Open() || !s.Wake.IsZero() || !u.Now().After(s.over()) {
		return s
	}
	over := *s
	over.Status = Expired
	return &over
}

// A Download is a download that was allowed.
type Download struct {
	Bucket      string // its name in sidegate.yaml
	Key         string
	Head        bool // signs for HEAD instead of GET
	Disposition Disposition
	Expires     time.Duration // whole seconds; the credentials may cut it
}

// Download signs a download. Where the key's name is that of what a browser
// would run (HTML, SVG, scripts), the answer's type is signed as bytes. An
// error is an [InvalidError] or wraps [ErrUnavailable].
func (u *Uploads) Download(ctx context.Context, d Download) (Signed, error) {
	if err := CheckKey(d.Key); err != nil {
		return Signed{}, err
	}
	if err := checkExpires(d.Expires); err != nil {
		return Signed{}, err
	}
	bucket, err := u.bucket(d.Bucket)
	if err != nil {
		return Signed{}, err
	}
	signed, err := bucket.SignGet(ctx, Get{
		Key:         d.Key,
		Head:        d.Head,
		Disposition: d.Disposition.header(d.Key),
		ContentType: inertType(d.Key),
		Expires:     d.Expires,
	})
	if err != nil {
		return Signed{}, unavailable("sign the download", err)
	}
	return signed, nil
}

func (u *Uploads) bucket(name string) (Bucket, error) {
	b := u.Buckets[name]
	if b == nil {
		return nil, fmt.Errorf("%w: sidegate.yaml has no bucket %q", ErrUnavailable, name)
	}
	return b, nil
}

func wellFormed(id string) bool {
	if len(id) != 32 {
		return false
	}
	for i := range len(id) {
		if c := id[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// unavailable marks err as neither yes nor no.
func unavailable(doing string, err error) error {
	if errors.Is(err, ErrUnavailable) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, doing, err)
}
