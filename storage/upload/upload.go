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
	Issued    Status = "issued"    // the session is on record, the URL may be signed, nothing is known of the object
	Uploading Status = "uploading" // a multipart upload is open at the store
	Ready     Status = "ready"     // confirmed: the object is there and is what was signed
	Rejected  Status = "rejected"  // what landed differs from what was signed, or is larger than is allowed
	Failed    Status = "failed"    // the store no longer has the multipart upload, and no object came of it
	Aborted   Status = "aborted"   // its owner gave it up
	Expired   Status = "expired"   // not confirmed in time
)

// Open reports whether the session can still become ready.
func (s Status) Open() bool { return s == Issued || s == Uploading }

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
	Size        int64     `json:"size"`                        // as signed; after ready as stored; -1 where it was not bound
	Checksum    string    `json:"checksumSha256,omitempty"`    // base64, as signed; after ready as stored, where the store knows it
	Checksum64  string    `json:"checksumCrc64nvme,omitempty"` // CRC-64/NVME in base64: the same
	Status      Status    `json:"status"`
	Record      string    `json:"record"` // the audit record that issued it
	CreatedAt   time.Time `json:"createdAt"`
	ExpiresAt   time.Time `json:"expiresAt"` // the URL's end at the latest: credentials that end sooner end it
	ConfirmBy   time.Time `json:"confirmBy"` // confirmations come until then
	ETag        string    `json:"etag,omitempty"`
	VersionID   string    `json:"versionId,omitempty"`
	ReadyAt     time.Time `json:"readyAt,omitzero"`
	// RejectedAt is when it was rejected: each notice of that says the same.
	RejectedAt time.Time `json:"rejectedAt,omitzero"`
	// Reason is why it was rejected or failed (the field, a colon, the rest), or
	// what became of an object that came too late (late: kept, late: deleted).
	Reason string `json:"reason,omitempty"`

	// Route is the policy's route that issued it; a multipart upload goes on
	// at that route only.
	Route     string `json:"route,omitempty"`
	Multipart bool   `json:"multipart,omitempty"`
	UploadID  string `json:"uploadId,omitempty"` // the store's, of a multipart upload once it is open
	MaxBytes  int64  `json:"maxBytes,omitempty"` // of a multipart upload's whole; 0: no bound
	Overwrite bool   `json:"overwrite,omitempty"`
	// CompletingAt is when the store was last asked to make the object of a
	// multipart upload's parts. While it does, it may know neither of the upload
	// nor of the object.
	CompletingAt time.Time `json:"completingAt,omitzero"`
	// PartChecksums: every part of the multipart upload comes with its SHA-256,
	// which the store checks.
	PartChecksums bool `json:"partChecksums,omitempty"`
	// DeleteLate: what lands and is not confirmed in time is deleted, else kept.
	DeleteLate bool `json:"deleteLate,omitempty"`
	// AutoConfirm: nobody is expected to confirm it; a sweep does, once the URL
	// is over.
	AutoConfirm bool `json:"autoConfirm,omitempty"`
	// Direct: the client completes the multipart upload itself, so that nobody
	// looks at the parts between that call and the object.
	Direct bool `json:"direct,omitempty"`
	// Request is the hash of what was asked, where the caller gave an
	// Idempotency-Key: the same key with another request is refused.
	Request string `json:"request,omitempty"`

	// Quota is the account that the session counts in, for as long as Held; its
	// window begins at QuotaWindow. The size counted is Counted.
	Quota       string    `json:"quota,omitempty"`
	QuotaWindow time.Time `json:"quotaWindow,omitzero"`
	Counted     int64     `json:"counted,omitempty"`
	Held        bool      `json:"held,omitempty"`

	// Wake is when the gateway itself looks at the session next: to end it, or
	// to tell a webhook of it. Zero: never.
	Wake time.Time `json:"wake,omitzero"`
	// Notice is where the webhook's notice of the session's end stands, and
	// Attempts how often it was tried.
	Notice   Notice `json:"notice,omitempty"`
	Attempts int    `json:"attempts,omitempty"`
	// Changes counts the transitions: the one that a change starts from is
	// part of its condition.
	Changes int64 `json:"changes,omitempty"`
}

// A Notice is where the telling of an upload's end stands. The zero Notice:
// nobody is to be told.
type Notice string

const (
	NoticeDue     Notice = "due"
	NoticeSent    Notice = "sent"
	NoticeGivenUp Notice = "given_up"
)

// A Quota bounds what one user begins within a window of time. Windows begin at
// multiples of Window since 1970-01-01 UTC.
type Quota struct {
	Bytes   int64 // 0: no bound
	Objects int64 // 0: no bound
	Window  time.Duration
}

// A QuotaError says that the user's quota does not hold one more upload.
type QuotaError struct {
	Retry time.Duration // until the next window
	What  string        // bytes or objects
}

func (e *QuotaError) Error() string { return "the quota of " + e.What + " is used up" }

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
	// ErrNoUpload is the store's word that there is no such multipart upload
	// (any more).
	ErrNoUpload = errors.New("no such multipart upload")
	// ErrTaken is the store's word that an object lies under a key that must
	// not be overwritten.
	ErrTaken = errors.New("an object is there already")
	// ErrParts is the store's word that the parts named do not make an object:
	// one is missing, differs, or is too small.
	ErrParts = errors.New("the parts do not make an object")
	// ErrState says that the session is in no state for what was asked.
	ErrState = errors.New("the upload session is in no state for this")
	// ErrOtherRequest says that an Idempotency-Key came with another request
	// before.
	ErrOtherRequest = errors.New("the Idempotency-Key belongs to another request")
	// ErrExpired says that the time to confirm is over.
	ErrExpired = errors.New("the upload was not confirmed in time")
)

// An InvalidError says which field of a request cannot be signed, and why. Both
// parts are for the caller and hold nothing that the caller did not send.
type InvalidError struct {
	// key, contentType, size, checksumSha256, checksumCrc64nvme, partChecksums,
	// expiresSeconds, metadata, parts, partNumber, prefix, idempotency_key; session and uid are
	// faults of whoever asks.
	Field  string
	Reason string
}

func (e *InvalidError) Error() string { return e.Field + ": " + e.Reason }

// A Mismatch says that the object that landed is not what was signed.
type Mismatch struct {
	Field  string // size, contentType, checksumSha256 or checksumCrc64nvme
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
	// Create stores a new session: ErrExists where the ID is taken, also where
	// the quota is used up: the first answer is asked for again. Where s.Held it
	// counts s in the account (s.Namespace, s.UID, s.Quota) of the window
	// s.QuotaWindow, one object and s.Counted bytes, in the same transaction, or
	// stores nothing and gives a QuotaError where q would be exceeded (its Retry
	// is the caller's to know). q is nil where nothing is counted.
	Create(ctx context.Context, s *Session, q *Quota) error
	// Get is the session of that id, or ErrNotFound.
	Get(ctx context.Context, id string) (*Session, error)
	// Transition replaces the session of next.ID if its status is still from
	// and its Changes still those of next: else ErrConflict, or ErrNotFound.
	// It stores Changes one higher, in next too. Where the stored session was
	// Held and next is not, what it counted is given back to its account in
	// the same transaction.
	Transition(ctx context.Context, from Status, next *Session) error
}

// An Index finds sessions. It is safe for concurrent use.
type Index interface {
	// List is a user's sessions, newest first, from the one after the cursor
	// ("": from the newest), at most limit, and the cursor of the next page,
	// "" where there is none. ErrCursor where the cursor is none.
	List(ctx context.Context, namespace, uid, cursor string, limit int) ([]*Session, string, error)
	// Find is the newest of a user's sessions with that key, or ErrNotFound.
	Find(ctx context.Context, namespace, uid, key string) (*Session, error)
	// Due are sessions whose Wake is set and not after now, at most limit,
	// the longest due first as far as that is cheap to tell. An error may come
	// with some: with all that could be read.
	Due(ctx context.Context, now time.Time, limit int) ([]*Session, error)
}

// ErrCursor says that a page's cursor is none of ours.
var ErrCursor = errors.New("not a cursor")

// A Put is what an upload URL binds, or what a multipart upload makes.
type Put struct {
	Key         string
	ContentType string
	Size        int64  // -1: not bound
	MaxSize     int64  // of a form whose size is not bound; 0: as much as the store takes
	Checksum    string // SHA-256 in base64; empty: not bound
	Checksum64  string // CRC-64/NVME in base64; empty: not bound
	// PartChecksums: every part of the multipart upload that this opens comes
	// with its SHA-256.
	PartChecksums bool
	Metadata      map[string]string // the caller's, names in lower case; the bucket's own come first
	Overwrite     bool              // false signs If-None-Match: *
	Form          bool              // a POST with fields (a POST policy) instead of a PUT
	At            time.Time         // the URL's life begins; zero: now
	Expires       time.Duration     // after At, at most; whole seconds
}

// A Get is what a download URL binds.
type Get struct {
	Key         string
	Head        bool          // signs for HEAD instead of GET
	Disposition string        // the answer's Content-Disposition
	ContentType string        // the answer's Content-Type; empty: the object's own
	Expires     time.Duration // at most; whole seconds
}

// A MultipartCall is one call of S3's multipart API that a client makes itself.
type MultipartCall struct {
	Op       MultipartOp
	UploadID string // of all but CreateUpload
	Part     int    // of UploadPart: 1 to 10000
	// Put is the object: its key always, all of it for CreateUpload; Size and
	// Checksum are the part's for UploadPart, At and Expires the URL's.
	Put
}

// A MultipartOp is a call of S3's multipart API. The zero MultipartOp is none.
type MultipartOp uint8

const (
	CreateUpload MultipartOp = iota + 1
	UploadPart
	ListParts
	CompleteUpload
	AbortUpload
)

// Signed is a URL that lets its holder do one thing until Expires.
type Signed struct {
	URL     string
	Method  string
	Headers http.Header       // exactly those to send, without Host and Content-Length
	Fields  map[string]string // of a form, all but the file, which comes last
	Expires time.Time         // in force: never beyond the credentials'
}

// An Object is what lies under a key.
type Object struct {
	Key         string // where it was listed
	Size        int64
	ContentType string
	ETag        string // with its quotes, as the store says it
	VersionID   string
	Checksum    string // SHA-256 of the whole in base64, where the store knows it
	Checksum64  string // CRC-64/NVME of the whole in base64, the same
	// Modified is when the object came to be, by this machine's clock and not
	// exact to the second; zero where the store does not say. Of a listed
	// object it is the store's own word.
	Modified time.Time
}

// An OpenMultipart is a multipart upload that a store holds.
type OpenMultipart struct {
	ID string
	// Begun is when it was opened, as Modified of an Object, and what stores say
	// of the object that it becomes; zero where the store does not say.
	Begun time.Time
}

// A Part is one of a multipart upload.
type Part struct {
	Number   int // 1 to 10000
	Size     int64
	ETag     string // with its quotes
	Checksum string // SHA-256 in base64; empty: the store does not say
}

// A Bucket signs for one bucket and looks after its objects. It is safe for
// concurrent use.
type Bucket interface {
	Signer
	Objects
	Multiparts
	PartLists
}

// A Signer makes URLs. Signing asks no network but for credentials. A URL never
// ends later than asked; it ends sooner where the credentials do.
type Signer interface {
	// SignPut signs a PUT, or a form.
	SignPut(ctx context.Context, p Put) (Signed, error)
	SignGet(ctx context.Context, g Get) (Signed, error)
	// SignMultipart signs many calls at once, in their order.
	SignMultipart(ctx context.Context, calls []MultipartCall) ([]Signed, error)
}

// Objects are what lies in a bucket. Every error but those that are named means
// that it could not be told or done, a refusal for lack of permission too, and
// wraps ErrUnavailable.
type Objects interface {
	// Head is the object under the key, or ErrNoObject.
	Head(ctx context.Context, key string) (Object, error)
	// Delete removes the object; that it is not there is no error. With a
	// version only that one goes.
	Delete(ctx context.Context, key, version string) error
	// List is a page of the objects whose keys begin with prefix, in the
	// store's order, and the token of the next page, "" where there is none.
	// ErrCursor where the store does not know the token.
	List(ctx context.Context, prefix, token string, limit int) ([]Object, string, error)
}

// Multiparts are the multipart uploads of a bucket; errors are as in Objects.
type Multiparts interface {
	CreateMultipart(ctx context.Context, p Put) (uploadID string, err error)
	// CompleteMultipart makes the object, p.Key and p.Overwrite say which:
	// ErrNoUpload, ErrTaken, ErrParts.
	CompleteMultipart(ctx context.Context, p Put, uploadID string, parts []Part) error
	// AbortMultipart ends it; that there is none is no error.
	AbortMultipart(ctx context.Context, key, uploadID string) error
}

// PartLists say what a bucket holds of multipart uploads; errors are as in Objects.
type PartLists interface {
	// ListParts is every part of it that has arrived, by number: ErrNoUpload.
	ListParts(ctx context.Context, key, uploadID string) ([]Part, error)
	// OpenMultiparts are the multipart uploads under exactly this key.
	OpenMultiparts(ctx context.Context, key string) ([]OpenMultipart, error)
}
