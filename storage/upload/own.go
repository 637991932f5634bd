package upload

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// maxPage is the most that a page holds.
const maxPage = 1000

// List is a page of a user's sessions, newest first, and the cursor of the
// next ("": none). An error is [ErrCursor] or wraps [ErrUnavailable].
func (u *Uploads) List(ctx context.Context, namespace, uid, cursor string, limit int) ([]*Session, string, error) {
	if namespace == "" || uid == "" {
		return nil, "", nil // nobody's are not everybody's
	}
	page, next, err := u.Index.List(ctx, namespace, uid, cursor, min(max(limit, 1), maxPage))
	if errors.Is(err, ErrCursor) {
		return nil, "", ErrCursor
	}
	if err != nil {
		return nil, "", unavailable("list the upload sessions", err)
	}
	for _, s := range page {
		if s.Namespace != namespace || s.UID != uid {
			return nil, "", unavailable("list the upload sessions", errors.New("the index gave another user's"))
		}
	}
	for i, s := range page {
		page[i] = u.asOf(s)
	}
	return page, next, nil
}

// LookupKey is the newest of the user's sessions with that key. Errors are
// those of [Uploads.Lookup].
func (u *Uploads) LookupKey(ctx context.Context, namespace, uid, key string) (*Session, error) {
	if CheckKey(key) != nil || namespace == "" || uid == "" {
		return nil, ErrNotFound
	}
	s, err := u.Index.Find(ctx, namespace, uid, key)
	if errors.Is(err, ErrNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, unavailable("find the upload session", err)
	}
	if s.Namespace != namespace || s.UID != uid || s.Key != key {
		return nil, ErrNotFound
	}
	return u.asOf(s), nil
}

// Delete removes the object under the key. An error is an [InvalidError] or
// wraps [ErrUnavailable].
func (u *Uploads) Delete(ctx context.Context, bucket, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	b, err := u.bucket(bucket)
	if err != nil {
		return err
	}
	if err := b.Delete(ctx, key, ""); err != nil {
		return unavailable("delete the object", err)
	}
	return nil
}

// ListObjects is a page of what lies under the prefix, which must end in a
// slash, and the token of the next page. An error is an [InvalidError],
// [ErrCursor] or wraps [ErrUnavailable].
func (u *Uploads) ListObjects(ctx context.Context, bucket, prefix, token string, limit int) ([]Object, string, error) {
	if err := checkPrefix(prefix); err != nil {
		return nil, "", err
	}
	b, err := u.bucket(bucket)
	if err != nil {
		return nil, "", err
	}
	page, next, err := b.List(ctx, prefix, token, min(max(limit, 1), maxPage))
	if errors.Is(err, ErrCursor) {
		return nil, "", ErrCursor
	}
	if err != nil {
		return nil, "", unavailable("list the objects", err)
	}
	for _, o := range page {
		if !strings.HasPrefix(o.Key, prefix) {
			return nil, "", unavailable("list the objects", fmt.Errorf("the store listed what is not under %.64q", prefix))
		}
	}
	return page, next, nil
}

// checkPrefix says with an [InvalidError] why what is under a prefix must not
// be listed, or nil: a prefix is a key that passes [CheckKey], and one slash,
// so that users/u1/ does not list users/u10.
func checkPrefix(prefix string) error {
	key, slash := strings.CutSuffix(prefix, "/")
	reason := badKey(key)
	switch {
	case prefix == "":
		reason = "is empty"
	case !slash:
		reason = "does not end in a slash"
	case reason == "" && len(prefix) > maxKey:
		reason = "leaves no room for a key"
	}
	if reason != "" {
		return &InvalidError{Field: "prefix", Reason: reason}
	}
	return nil
}
