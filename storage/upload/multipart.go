package upload

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// BeginMultipart puts the session on record, opens a multipart upload at the
// store, and moves the session to uploading. Errors are those of
// [Uploads.Begin]. With an Idempotency-Key that came before it gives the
// session of that time.
func (u *Uploads) BeginMultipart(ctx context.Context, r Request) (*Session, error) {
	if err := r.check(multipart); err != nil {
		return nil, err
	}
	bucket, err := u.bucket(r.Bucket)
	if err != nil {
		return nil, err
	}
	s, err := u.record(ctx, &r, multipart)
	if err != nil || s.Status != Issued {
		return s, err
	}
	// Whoever stored the session may have been killed here, or be here still:
	// both open one, and the transition tells whose is the session's.
	id, err := bucket.CreateMultipart(ctx, r.put(s))
	if err != nil {
		return nil, unavailable("open the multipart upload", err)
	}
	if id == "" {
		return nil, unavailable("open the multipart upload", errors.New("the store gave it no id"))
	}
	s, err = u.bind(ctx, s, id)
	if err == nil && s.UploadID != id || errors.Is(err, ErrState) || errors.Is(err, ErrNotFound) {
		// Ours lost. One that cannot be ended now is found when the session ends.
		_ = bucket.AbortMultipart(ctx, r.Key, id)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// bind moves the session from issued to uploading with the store's id, unless
// somebody else did: then it gives theirs. ErrState says that it ended.
func (u *Uploads) bind(ctx context.Context, s *Session, uploadID string) (*Session, error) {
	for range maxRaces {
		next := *s
		next.Status, next.UploadID = Uploading, uploadID
		err := u.Store.Transition(ctx, Issued, &next)
		switch {
		case err == nil:
			return &next, nil
		case errors.Is(err, ErrNotFound):
			return nil, ErrNotFound
		case !errors.Is(err, ErrConflict):
			return nil, unavailable("store the multipart upload", err)
		}
		if s, err = u.Lookup(ctx, s.Namespace, s.UID, s.ID); err != nil {
			return nil, err
		}
		if s.Status == Uploading {
			return s, nil
		}
		if s.Status != Issued {
			return s, ErrState
		}
	}
	return nil, unavailable("store the multipart upload", ErrConflict)
}

// uploading says why nothing can be done now with the session's multipart
// upload, or nil.
func (u *Uploads) uploading(s *Session) error {
	switch {
	case s.Status == Expired:
		return ErrExpired
	case s.Status != Uploading || s.UploadID == "":
		return ErrState
	case u.Now().After(s.ConfirmBy):
		return ErrExpired
	}
	return nil
}

// A PartRequest is a part that its client is about to send.
type PartRequest struct {
	Number   int    // 1 to 10000
	Size     int64  // -1: not bound
	Checksum string // SHA-256 in base64: of a session with PartChecksums always, else never
}

// SignParts signs a PUT for each part, in their order, that holds for expires
// at most and not beyond the session's ConfirmBy. An error is an
// [InvalidError], [ErrState] where the session is not uploading, [ErrExpired],
// or wraps [ErrUnavailable].
func (u *Uploads) SignParts(ctx context.Context, s *Session, parts []PartRequest, expires time.Duration) ([]Signed, error) {
	if err := u.uploading(s); err != nil {
		return nil, err
	}
	if err := s.checkParts(parts); err != nil {
		return nil, err
	}
	calls := make([]MultipartCall, len(parts))
	for i, p := range parts {
		calls[i] = MultipartCall{Op: UploadPart, Part: p.Number, Put: Put{Size: p.Size, Checksum: p.Checksum}}
	}
	return u.signCalls(ctx, s, calls, expires)
}

// checkParts refuses parts that the session's upload cannot have.
func (s *Session) checkParts(parts []PartRequest) error {
	if len(parts) == 0 || len(parts) > MaxParts {
		return &InvalidError{"parts", fmt.Sprintf("are not 1 to %d", MaxParts)}
	}
	bound := s.bound()
	seen := make(map[int]bool, len(parts))
	var whole int64
	for _, p := range parts {
		switch {
		case p.Number < 1 || p.Number > MaxParts:
			return &InvalidError{"partNumber", fmt.Sprintf("is not 1 to %d", MaxParts)}
		case seen[p.Number]:
			return &InvalidError{"partNumber", fmt.Sprintf("%d is there twice", p.Number)}
		case p.Size < -1:
			return &InvalidError{"size", "is negative"}
		case p.Size > MaxPut:
			return &InvalidError{"size", "is more than a part can have (5 GiB)"}
		case p.Size == 0 && p.Checksum != "" && p.Checksum != emptySum:
			return &InvalidError{"checksumSha256", "is not that of an empty part"}
		}
		if err := s.checkPartSum(p); err != nil {
			return err
		}
		seen[p.Number] = true
		whole += max(p.Size, 0)
		if bound >= 0 && whole > bound {
			return &InvalidError{"size", fmt.Sprintf("of the parts is more than the %d bytes of the upload", bound)}
		}
	}
	return nil
}

// checkPartSum wants a part's checksum where the upload was opened for it, and
// only there: a store refuses it elsewhere.
func (s *Session) checkPartSum(p PartRequest) error {
	switch {
	case s.PartChecksums && p.Checksum == "":
		return &InvalidError{"checksumSha256", fmt.Sprintf("of part %d is missing: each part of this upload comes with its own", p.Number)}
	case !s.PartChecksums && p.Checksum != "":
		return &InvalidError{"checksumSha256", fmt.Sprintf("of part %d cannot be checked: the upload began without partChecksums", p.Number)}
	}
	return checkChecksum(p.Checksum)
}

// bound is how large the whole can be at most; -1: as large as the store takes.
func (s *Session) bound() int64 {
	switch {
	case s.Size >= 0:
		return s.Size
	case s.MaxBytes > 0:
		return s.MaxBytes
	}
	return -1
}

// signCalls signs calls of the session's multipart upload: its key and its id
// whatever the calls say, and not beyond its ConfirmBy.
func (u *Uploads) signCalls(ctx context.Context, s *Session, calls []MultipartCall, expires time.Duration) ([]Signed, error) {
	if err := checkExpires(expires); err != nil {
		return nil, err
	}
	bucket, err := u.bucket(s.Bucket)
	if err != nil {
		return nil, err
	}
	at := u.Now().UTC().Truncate(time.Second)
	life := min(expires, s.ConfirmBy.Sub(at).Truncate(time.Second))
	if life < time.Second {
		return nil, ErrExpired
	}
	for i := range calls {
		c := &calls[i]
		c.UploadID, c.Key, c.Overwrite, c.At, c.Expires = s.UploadID, s.Key, s.Overwrite, at, life
	}
	signed, err := bucket.SignMultipart(ctx, calls)
	if err == nil && len(signed) != len(calls) {
		err = fmt.Errorf("%d calls and %d signatures", len(calls), len(signed))
	}
	if err != nil {
		return nil, unavailable("sign the calls of the multipart upload", err)
	}
	for _, one := range signed {
		if err := withinRecord(one, at.Add(life), nil); err != nil {
			return nil, err
		}
	}
	return signed, nil
}

// Parts is what has arrived of a multipart upload. Errors are as in SignParts,
// and [ErrNoUpload].
func (u *Uploads) Parts(ctx context.Context, s *Session) ([]Part, error) {
	if err := u.uploading(s); err != nil {
		return nil, err
	}
	bucket, err := u.bucket(s.Bucket)
	if err != nil {
		return nil, err
	}
	parts, err := bucket.ListParts(ctx, s.Key, s.UploadID)
	if errors.Is(err, ErrNoUpload) {
		return nil, ErrNoUpload
	}
	if err != nil {
		return nil, unavailable("list the parts", err)
	}
	return parts, nil
}

// SignCreate puts a session on record and signs the call by which the client
// itself opens a multipart upload under its key. Errors are those of Begin.
func (u *Uploads) SignCreate(ctx context.Context, r Request) (*Session, Signed, error) {
	if err := r.check(direct); err != nil {
		return nil, Signed{}, err
	}
	bucket, err := u.bucket(r.Bucket)
	if err != nil {
		return nil, Signed{}, err
	}
	s, err := u.record(ctx, &r, direct)
	if err != nil {
		return nil, Signed{}, err
	}
	if !u.Now().Before(s.ExpiresAt) {
		return nil, Signed{}, ErrExpired // its upload goes on, and this call is over
	}
	signed, err := bucket.SignMultipart(ctx, []MultipartCall{{Op: CreateUpload, Put: r.put(s)}})
	if err == nil && len(signed) != 1 {
		err = fmt.Errorf("one call and %d signatures", len(signed))
	}
	if err != nil {
		return nil, Signed{}, unavailable("sign the upload", err)
	}
	if err := withinRecord(signed[0], s.ExpiresAt, nil); err != nil {
		return nil, Signed{}, err
	}
	return s, signed[0], nil
}

// maxUploadID bounds the ids of multipart uploads that callers name, in bytes;
// those of S3 have some 130, of other stores up to 300.
const maxUploadID = 1024

// Adopt binds a multipart upload that the client itself opened at the store
// with a URL of ours ([Uploads.SignCreate]): the first id that the store knows
// under the session's key. It gives the session as it then stands, or
// [ErrNoUpload] where the id is another's or none. Other errors are as in
// SignParts.
func (u *Uploads) Adopt(ctx context.Context, s *Session, uploadID string) (*Session, error) {
	if !s.Multipart || uploadID == "" || len(uploadID) > maxUploadID {
		return s, ErrNoUpload
	}
	if s.Status == Issued {
		bound, err := u.adopt(ctx, s, uploadID)
		if err != nil {
			return s, err
		}
		s = bound
	}
	if err := u.uploading(s); err != nil {
		return s, err
	}
	if s.UploadID != uploadID {
		return s, ErrNoUpload
	}
	return s, nil
}

func (u *Uploads) adopt(ctx context.Context, s *Session, uploadID string) (*Session, error) {
	if u.Now().After(s.ConfirmBy) {
		return nil, ErrExpired
	}
	bucket, err := u.bucket(s.Bucket)
	if err != nil {
		return nil, err
	}
	open, err := bucket.OpenMultiparts(ctx, s.Key)
	if err != nil {
		return nil, unavailable("look for the multipart upload", err)
	}
	// One that was opened before the session is another session's under the same
	// key; and its object would be as old, and so be taken for none of this one's.
	if !slices.ContainsFunc(open, func(o OpenMultipart) bool { return o.ID == uploadID && !s.older(o.Begun) }) {
		return nil, ErrNoUpload
	}
	return u.bind(ctx, s, uploadID)
}

// SignCall signs ListParts, CompleteUpload or AbortUpload of an adopted upload
// for its client. AbortUpload is signed again of one that was aborted: an answer
// may have been lost. Errors are as in SignParts, and for CompleteUpload as in
// [Uploads.Complete] where the parts are more than the session allows already.
func (u *Uploads) SignCall(ctx context.Context, s *Session, op MultipartOp, expires time.Duration) (Signed, error) {
	again := op == AbortUpload && s.Status == Aborted && s.UploadID != ""
	if err := u.uploading(s); err != nil && !again {
		return Signed{}, err
	}
	switch op {
	case ListParts, AbortUpload:
	case CompleteUpload:
		if err := u.mayComplete(ctx, s); err != nil {
			return Signed{}, err
		}
	default:
		return Signed{}, fmt.Errorf("%w: call %d is not one of an open multipart upload", ErrUnavailable, op)
	}
	signed, err := u.signCalls(ctx, s, []MultipartCall{{Op: op, Put: Put{Size: -1}}}, expires)
	if err != nil {
		return Signed{}, err
	}
	return signed[0], nil
}
