package upload

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// maxIdempotency is the longest Idempotency-Key, in bytes: 255 of a caller, and
// the number of a batch's item.
const maxIdempotency = 255 + len("/99")

// IdempotentID is the session's id, and the 32 hex digits of ${uuid} in its key,
// of an upload with an Idempotency-Key: the same for the same user, route and
// Idempotency-Key, and for nothing else.
func IdempotentID(namespace, uid, route, key string) (id, uuid string) {
	id = digest("sidegate upload session", namespace, uid, route, key)[:32]
	return id, UUIDOf(id)
}

// UUIDOf is the ${uuid} of the session's key. That it follows from the id lets
// whoever has the session see whether its key is the session's alone.
func UUIDOf(id string) string { return digest("sidegate upload uuid", id)[:32] }

// sole reports whether no other session has this one's key, so that whatever
// lies or is open under the key is this session's.
func (s *Session) sole() bool { return strings.Contains(s.Key, UUIDOf(s.ID)) }

// hash tells one request from another under the same Idempotency-Key. All that
// decides what is signed is in it, the policy's part too: a URL is not signed
// again under rules that no longer hold.
func (r *Request) hash(k kind) string {
	parts := []string{
		string(k), r.Identity, r.Bucket, r.Key, r.ContentType, strconv.FormatInt(r.Size, 10), r.Checksum, r.Checksum64,
		strconv.FormatBool(r.Overwrite), strconv.FormatBool(r.Form), strconv.FormatInt(r.MaxBytes, 10),
		r.Expires.String(), r.ConfirmWithin.String(), strconv.FormatBool(r.PartChecksums),
	}
	for _, name := range slices.Sorted(maps.Keys(r.Metadata)) {
		parts = append(parts, name, r.Metadata[name])
	}
	return digest("sidegate upload request", parts...)
}

// digest is the SHA-256 of the parts in hex, each with its length before it:
// no two lists of parts are the same bytes, and no two words.
func digest(word string, parts ...string) string {
	text := lengthened(make([]byte, 0, 256), word)
	for _, p := range parts {
		text = lengthened(text, p)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

func lengthened(text []byte, part string) []byte {
	return append(binary.BigEndian.AppendUint64(text, uint64(len(part))), part...)
}

// checkIdempotency holds the Idempotency-Key's form, and that the session is
// the one it names.
func (r *Request) checkIdempotency() error {
	if r.Idempotency == "" {
		return nil
	}
	if len(r.Idempotency) > maxIdempotency {
		return &InvalidError{"idempotency_key", "is longer than 255 bytes"}
	}
	for i := range len(r.Idempotency) {
		if c := r.Idempotency[i]; c <= ' ' || c > '~' {
			return &InvalidError{"idempotency_key", "has bytes that are not visible ASCII"}
		}
	}
	if id, _ := IdempotentID(r.Namespace, r.UID, r.Route, r.Idempotency); id != r.ID {
		return &InvalidError{"session", "is not that of the Idempotency-Key"}
	}
	return nil
}

// first is the session that was stored before under the Idempotency-Key of s,
// where it is still good for the same answer.
func (u *Uploads) first(ctx context.Context, s *Session) (*Session, error) {
	first, err := u.Store.Get(ctx, s.ID)
	if err != nil {
		return nil, unavailable("read the upload session of the Idempotency-Key", err)
	}
	if first.ID != s.ID || first.Namespace != s.Namespace || first.UID != s.UID || first.Route != s.Route {
		return nil, unavailable("read the upload session of the Idempotency-Key", errors.New("it is another's"))
	}
	if first.Request != s.Request {
		return nil, ErrOtherRequest
	}
	end := first.ExpiresAt
	if first.Multipart && first.Status != Issued {
		end = first.ConfirmBy // its URLs are signed one by one
	}
	switch {
	case first.Status == Expired, first.Status.Open() && !u.Now().Before(end):
		return nil, ErrExpired
	case first.Status.Open(), first.Status == Ready && (first.Multipart || u.Now().Before(end)):
		return first, nil
	case first.Status == Ready:
		return nil, ErrExpired
	}
	return nil, ErrState
}
