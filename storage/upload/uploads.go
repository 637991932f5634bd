package upload

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"time"
)

// Uploads runs uploads and downloads over one Store and the buckets of
// sidegate.yaml. It decides nothing about who may: that was decided and is on
// record before it is asked. Its fields are set once; it is safe for
// concurrent use.
type Uploads struct {
	Store   Store
	Buckets map[string]Bucket // by their names in sidegate.yaml
	Now     func() time.Time
}

// A Request is an upload that was allowed.
type Request struct {
	ID            string // of the session, from NewID
	Namespace     string
	UID           string
	Identity      string // the identity's name in sidegate.yaml
	Record        string // the audit record that allowed it
	Bucket        string // its name in sidegate.yaml
	Key           string
	ContentType   string
	Size          int64  // in bytes; -1: not bound
	Checksum      string // SHA-256 in base64; empty: not bound
	Overwrite     bool
	Expires       time.Duration // the URL's life, whole seconds; the credentials may cut it
	ConfirmWithin time.Duration // after the URL's end
}

// maxContentType is the longest media type that is signed, in bytes: RFC 6838
// (4.2) allows 127 for each of its two names, and parameters follow.
const maxContentType = 512

// emptySum is the SHA-256 of no bytes, in base64.
const emptySum = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

// NewID is a new session's id: 128 random bits in 32 hex digits.
func NewID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: it ends the process first
	return hex.EncodeToString(b[:])
}

// Begin puts the session on record and then signs its URL: nothing is ever
// signed that is not on record, and a record whose URL could not be signed
// stays issued until it expires. An error is an [InvalidError], or it wraps
// [ErrUnavailable] and nothing was signed.
//
// The URL's life begins at the session's CreatedAt, so that the ExpiresAt
// recorded before holds. Credentials that end sooner cut the URL, not the
// record: there ExpiresAt is the latest end, and Signed.Expires the true one.
func (u *Uploads) Begin(ctx context.Context, r Request) (*Session, Signed, error) {
	if err := r.check(); err != nil {
		return nil, Signed{}, err
	}
	bucket, err := u.bucket(r.Bucket)
	if err != nil {
		return nil, Signed{}, err
	}
	// Signatures and Firestore cut times: whole seconds come back as they went.
	created := u.Now().UTC().Truncate(time.Second)
	s := &Session{
		ID:          r.ID,
		UID:         r.UID,
		Namespace:   r.Namespace,
		Identity:    r.Identity,
		Key:         r.Key,
		Bucket:      r.Bucket,
		ContentType: r.ContentType,
		Size:        r.Size,
		Checksum:    r.Checksum,
		Status:      Issued,
		Record:      r.Record,
		CreatedAt:   created,
		ExpiresAt:   created.Add(r.Expires),
		ConfirmBy:   created.Add(r.Expires + max(r.ConfirmWithin, 0)),
	}
	if err := u.Store.Create(ctx, s); err != nil {
		// ErrExists too: with 128 random bits it is a fault, not a caller's doing.
		return nil, Signed{}, unavailable("store the upload session", err)
	}
	signed, err := bucket.SignPut(ctx, Put{
		Key:         r.Key,
		ContentType: r.ContentType,
		Size:        r.Size,
		Checksum:    r.Checksum,
		Overwrite:   r.Overwrite,
		At:          created,
		Expires:     r.Expires,
	})
	if err != nil {
		return nil, Signed{}, unavailable("sign the upload", err)
	}
	if signed.Expires.After(s.ExpiresAt) {
		return nil, Signed{}, unavailable("sign the upload", errors.New("the bucket signed for longer than is on record"))
	}
	return s, signed, nil
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
	return s, nil
}

// A Download is a download that was allowed.
type Download struct {
	Bucket      string // its name in sidegate.yaml
	Key         string
	Head        bool // signs for HEAD instead of GET
	Disposition Disposition
	Expires     time.Duration // whole seconds; the credentials may cut it
}

// Download signs a download. An error is an [InvalidError] or wraps
// [ErrUnavailable].
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

func (r *Request) check() error {
	switch {
	case !wellFormed(r.ID):
		return &InvalidError{"session", "is not 32 lower-case hex digits"}
	case r.Namespace == "" || r.UID == "":
		return &InvalidError{"uid", "is empty"} // a session of nobody is everybody's
	case r.Size < -1:
		return &InvalidError{"size", "is negative"}
	}
	if err := CheckKey(r.Key); err != nil {
		return err
	}
	if err := checkContentType(r.ContentType); err != nil {
		return err
	}
	if err := checkChecksum(r.Checksum); err != nil {
		return err
	}
	if r.Size == 0 && r.Checksum != "" && r.Checksum != emptySum {
		return &InvalidError{"checksumSha256", "is not that of an empty object"}
	}
	return checkExpires(r.Expires)
}

func checkContentType(t string) error {
	invalid := func(reason string) error { return &InvalidError{"contentType", reason} }
	if len(t) > maxContentType {
		return invalid(fmt.Sprintf("is longer than %d bytes", maxContentType))
	}
	for i := range len(t) {
		// A signature folds spaces and cannot carry line breaks: the type
		// must be the same bytes to whoever signs, sends and stores it.
		if t[i] < ' ' || t[i] > '~' || t[i] == ' ' && (i == 0 || i == len(t)-1 || t[i-1] == ' ') {
			return invalid("has spaces or bytes that a media type has not")
		}
	}
	if _, _, err := mime.ParseMediaType(t); err != nil {
		return invalid("is not a media type")
	}
	return nil
}

func checkChecksum(c string) error {
	if c == "" {
		return nil
	}
	if sum, err := base64.StdEncoding.Strict().DecodeString(c); err != nil || len(sum) != 32 || len(c) != 44 {
		return &InvalidError{"checksumSha256", "is not a SHA-256 in base64"}
	}
	return nil
}

func checkExpires(d time.Duration) error {
	if d < time.Second || d%time.Second != 0 {
		return &InvalidError{"expiresSeconds", "is not a positive number of whole seconds"}
	}
	return nil
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
