// Package upload is the life of an upload: a session is issued with a signed
// URL, the client sends the object to the store itself, and a confirmation
// compares what landed with what was signed. It knows no HTTP and no cloud.
package upload

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// A Status is where an upload stands. The zero Status is none.
type Status string

const (
	Issued   Status = "issued"   // the URL is signed, nothing is known of the object
	Ready    Status = "ready"    // confirmed: the object is there and is what was signed
	Rejected Status = "rejected" // the object that landed differs from what was signed
	Expired  Status = "expired"  // not confirmed in time
)

// A Session is one upload. Stores keep it under ID with the field names of its
// json tags.
type Session struct {
	ID          string    `json:"session"`
	UID         string    `json:"uid"`
	Namespace   string    `json:"namespace"`
	Identity    string    `json:"identity"` // the identity's name in sidegate.yaml
	Key         string    `json:"key"`
	Bucket      string    `json:"bucket"` // the bucket's name in sidegate.yaml
	ContentType string    `json:"contentType"`
	Size        int64     `json:"size"`                     // as signed; after ready as stored; -1 where it was not bound
	Checksum    string    `json:"checksumSha256,omitempty"` // base64, as signed; after ready as stored, where the store knows it
	Status      Status    `json:"status"`
	Record      string    `json:"record"` // the audit record that issued it
	CreatedAt   time.Time `json:"createdAt"`
	ExpiresAt   time.Time `json:"expiresAt"` // the URL's end at the latest: credentials that end sooner end it
	ConfirmBy   time.Time `json:"confirmBy"` // confirmations come until then
	ETag        string    `json:"etag,omitempty"`
	VersionID   string    `json:"versionId,omitempty"`
	ReadyAt     time.Time `json:"readyAt,omitzero"`
	Reason      string    `json:"reason,omitempty"` // why it was rejected
}

var (
	// ErrNotFound says that there is no session of that id, or none of that user.
	ErrNotFound = errors.New("no such upload session")
	// ErrExists says that the id is taken; with random ids that is a fault.
	ErrExists = errors.New("the upload session exists already")
	// ErrConflict says that the stored session is no longer in the state the
	// transition starts from: somebody else was first.
	ErrConflict = errors.New("the upload session changed meanwhile")
	// ErrNoObject is the store's word that nothing lies under the key.
	ErrNoObject = errors.New("no such object")

	// ErrUnavailable marks what could not be found out or done for the
	// moment: it is neither yes nor no, and asking again may help.
	ErrUnavailable = errors.New("unavailable")
	// ErrNotUploaded says that the session's object has not arrived yet.
	ErrNotUploaded = errors.New("the object is not uploaded yet")
	// ErrExpired says that the time to confirm is over.
	ErrExpired = errors.New("the upload was not confirmed in time")
)

// An InvalidError says which field of a request cannot be signed, and why. Both
// parts are for the caller and hold nothing that the caller did not send.
type InvalidError struct {
	Field  string // key, contentType, size, checksumSha256, expiresSeconds
	Reason string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Reason }

// A Mismatch says that the object that landed is not what was signed.
type Mismatch struct {
	Field  string // size, contentType or checksumSha256
	Reason string // for the log: what was signed, what is stored
}

func (e *Mismatch) Error() string {
	return "the stored object differs in " + e.Field + " from what was signed: " + e.Reason
}

// A Store keeps sessions. It is safe for concurrent use, also by several
// gateways where it is shared. What Create and Transition reported as done
// survives the process; an error that is none of this package's means that it
// is unknown whether it was done.
type Store interface {
	// Create stores a new session: ErrExists where the ID is taken.
	Create(ctx context.Context, s *Session) error
	// Get is the session of that id, or ErrNotFound.
	Get(ctx context.Context, id string) (*Session, error)
	// Transition replaces the session of next.ID if its status is still from:
	// else ErrConflict, or ErrNotFound.
	Transition(ctx context.Context, from Status, next *Session) error
}

// A Put is what an upload URL binds.
type Put struct {
	Key         string
	ContentType string
	Size        int64         // -1: not bound
	Checksum    string        // SHA-256 in base64; empty: not bound
	Overwrite   bool          // false signs If-None-Match: *
	At          time.Time     // the URL's life begins; zero: now
	Expires     time.Duration // after At, at most; whole seconds
}

// A Get is what a download URL binds.
type Get struct {
	Key         string
	Head        bool          // signs for HEAD instead of GET
	Disposition string        // the answer's Content-Disposition
	Expires     time.Duration // at most; whole seconds
}

// Signed is a URL that lets its holder do one thing until Expires.
type Signed struct {
	URL     string
	Method  string
	Headers http.Header // exactly those to send, without Host and Content-Length
	Expires time.Time   // in force: never beyond the credentials'
}

// An Object is what lies under a key.
type Object struct {
	Size        int64
	ContentType string
	ETag        string // with its quotes, as the store says it
	VersionID   string
	Checksum    string // SHA-256 of the whole in base64, where the store knows it
	// Modified is when the object came to be, by this machine's clock and not
	// exact to the second; zero where the store does not say.
	Modified time.Time
}

// A Bucket signs URLs for one bucket and looks at its objects. It is safe for
// concurrent use. Signing asks no network but for credentials. A URL never
// ends later than asked; it ends sooner where the credentials do.
type Bucket interface {
	SignPut(ctx context.Context, p Put) (Signed, error)
	SignGet(ctx context.Context, g Get) (Signed, error)
	// Head is the object under the key, or ErrNoObject. Every other error
	// means that it could not be told, a refusal for lack of permission too.
	Head(ctx context.Context, key string) (Object, error)
}
