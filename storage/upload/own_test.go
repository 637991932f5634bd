package upload

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"testing"
	"time"
)

func TestListOnesOwn(t *testing.T) {
	f := newEmpty(t)
	var own []string
	for i := range 5 {
		f.set(start.Add(time.Duration(i) * time.Minute))
		own = append(own, f.begin(t, owned(jpeg())).ID)
		r := owned(jpeg())
		r.UID = "u2"
		f.begin(t, r)
	}
	var got []string
	cursor := ""
	for range 4 {
		page, next, err := f.List(t.Context(), "users", "u1", cursor, 2)
		if err != nil || len(page) > 2 {
			t.Fatal(page, err)
		}
		for _, s := range page {
			got = append([]string{s.ID}, got...)
		}
		if cursor = next; cursor == "" {
			break
		}
	}
	if strings.Join(got, " ") != strings.Join(own, " ") {
		t.Errorf("listed %v, want %v", got, own)
	}
	if _, _, err := f.List(t.Context(), "users", "u1", "nonsense", 2); err != ErrCursor {
		t.Errorf("a cursor that is none: %v", err)
	}
	for _, who := range [][2]string{{"", ""}, {"users", ""}, {"", "u1"}} {
		if page, _, err := f.List(t.Context(), who[0], who[1], "", 2); err != nil || len(page) != 0 {
			t.Errorf("%q: %v, %v", who, page, err)
		}
	}
}

// An index that gives what it was not asked for gives nobody anything.
func TestIndexIsNotTrusted(t *testing.T) {
	f := newEmpty(t)
	s := f.begin(t, owned(jpeg()))
	f.Uploads.Index = &wrongIndex{f.store, s}
	if page, _, err := f.List(t.Context(), "users", "u2", "", 2); !errors.Is(err, ErrUnavailable) || page != nil {
		t.Errorf("list: %v, %v", page, err)
	}
	for _, key := range []string{s.Key, "users/u2/x"} {
		if got, err := f.LookupKey(t.Context(), "users", "u2", key); err != ErrNotFound || got != nil {
			t.Errorf("find: %v, %v", got, err)
		}
	}
	if got, err := f.LookupKey(t.Context(), "users", "u1", "users/u1/other"); err != ErrNotFound {
		t.Errorf("another key: %v, %v", got, err)
	}
	if got, err := f.LookupKey(t.Context(), "users", "u1", s.Key); err != nil || got.ID != s.ID {
		t.Errorf("its own: %v, %v", got, err)
	}
}

type wrongIndex struct {
	*memory
	s *Session
}

func (w *wrongIndex) List(context.Context, string, string, string, int) ([]*Session, string, error) {
	return []*Session{w.s}, "", nil
}

func (w *wrongIndex) Find(context.Context, string, string, string) (*Session, error) { return w.s, nil }

func TestLookupKeyIsTheNewest(t *testing.T) {
	f, r := newEmpty(t), jpeg()
	f.begin(t, r)
	f.set(start.Add(time.Minute))
	r.ID = NewID()
	f.begin(t, r)
	if got, err := f.LookupKey(t.Context(), "users", "u1", r.Key); err != nil || got.ID != r.ID {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestDeleteAndListObjects(t *testing.T) {
	f := newEmpty(t)
	for i := range 5 {
		f.bucket.put(fmt.Sprintf("users/u1/%d", i), Object{Size: int64(i)}, false)
	}
	f.bucket.put("users/u10/a", Object{}, false)
	f.bucket.put("users/u1", Object{}, false)
	if err := f.Delete(t.Context(), "default", "users/u1/3"); err != nil {
		t.Fatal(err)
	}
	var got []string
	token := ""
	for range 3 {
		page, next, err := f.ListObjects(t.Context(), "default", "users/u1/", token, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page {
			got = append(got, o.Key)
		}
		if token = next; token == "" {
			break
		}
	}
	if want := "users/u1/0 users/u1/1 users/u1/2 users/u1/4"; strings.Join(got, " ") != want {
		t.Errorf("listed %v", got)
	}
	if _, _, err := f.ListObjects(t.Context(), "default", "users/u1/", "nonsense", 2); err != ErrCursor {
		t.Errorf("a token that is none: %v", err)
	}
	f.Buckets["wide"] = &wideBucket{f.bucket}
	if page, _, err := f.ListObjects(t.Context(), "wide", "users/u1/", "", 9); !errors.Is(err, ErrUnavailable) || page != nil {
		t.Errorf("a store that lists what is not asked: %v, %v", page, err)
	}
}

type wideBucket struct{ *shelf }

func (b *wideBucket) List(ctx context.Context, _, token string, limit int) ([]Object, string, error) {
	return b.shelf.List(ctx, "users/", token, limit)
}

// Every error of store and bucket is one that cannot tell.
func TestOwnUnavailable(t *testing.T) {
	for name, call := range map[string]func(*fixture) error{
		"list":   func(f *fixture) error { _, _, err := f.List(t.Context(), "users", "u1", "", 1); return err },
		"find":   func(f *fixture) error { _, err := f.LookupKey(t.Context(), "users", "u1", "a"); return err },
		"delete": func(f *fixture) error { return f.Delete(t.Context(), "default", "a") },
		"objects": func(f *fixture) error {
			_, _, err := f.ListObjects(t.Context(), "default", "a/", "", 1)
			return err
		},
		"delete without a bucket": func(f *fixture) error { return f.Delete(t.Context(), "none", "a") },
		"list without a bucket": func(f *fixture) error {
			_, _, err := f.ListObjects(t.Context(), "none", "a/", "", 1)
			return err
		},
	} {
		f := newEmpty(t)
		f.faults.reset(1, refused, context.DeadlineExceeded)
		if err := call(f); !errors.Is(err, ErrUnavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCheckPrefix(t *testing.T) {
	for _, good := range []string{"a/", "users/u1/", "a b/ä/", strings.Repeat("k", 1023) + "/"} {
		if err := checkPrefix(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "/", "a", "users/u1", "a//", "/a/", "../", "a/../", "a/./b/", `a\/`, "a\n/", "cafe\u0301/", strings.Repeat("k", 1024) + "/"} {
		if err := checkPrefix(bad); invalidField(err) != "prefix" {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// What lies under a prefix that passes is nobody's who has another prefix, and
// stays there when a path is cleaned.
func FuzzCheckPrefix(f *testing.F) {
	for _, p := range []string{"a/", "a/../", "users/u1", "users/u1/", "//", "a//", ".../", "a/b/"} {
		f.Add(p, "k")
	}
	f.Fuzz(func(t *testing.T, prefix, key string) {
		if checkPrefix(prefix) != nil {
			return
		}
		if !strings.HasSuffix(prefix, "/") || strings.HasSuffix(prefix, "//") || CheckKey(prefix[:len(prefix)-1]) != nil {
			t.Fatalf("%q passes", prefix)
		}
		if CheckKey(key) != nil || len(prefix)+len(key) > maxKey {
			return
		}
		whole := prefix + key
		if CheckKey(whole) == nil && path.Clean("/"+whole) != "/"+whole {
			t.Fatalf("%q leaves %q", whole, prefix)
		}
		for _, other := range []string{prefix[:len(prefix)-1] + "0/", prefix[:len(prefix)-1] + " /"} {
			if strings.HasPrefix(other, prefix) {
				t.Fatalf("%q is under %q", other, prefix)
			}
		}
	})
}

// A session of the version that knew no sweeps has no time at which one comes:
// it is open no longer than others.
func TestSessionsThatNoSweepEndsAreOver(t *testing.T) {
	f := newFixture(t)
	s := f.begin(t, jpeg())
	f.store.mu.Lock()
	old := f.store.sessions[s.ID]
	old.Wake = time.Time{}
	f.store.sessions[s.ID] = old
	f.store.mu.Unlock()
	for _, c := range []struct {
		at   time.Time
		want Status
	}{{s.ConfirmBy, Issued}, {s.over().Add(time.Second), Expired}} {
		f.set(c.at)
		got, err := f.Lookup(t.Context(), s.Namespace, s.UID, s.ID)
		if err != nil || got.Status != c.want {
			t.Errorf("at %v: %+v, %v", c.at, got, err)
		}
		byKey, err := f.LookupKey(t.Context(), s.Namespace, s.UID, s.Key)
		if err != nil || byKey.Status != c.want {
			t.Errorf("at %v, by its key: %+v, %v", c.at, byKey, err)
		}
		list, _, err := f.Uploads.List(t.Context(), s.Namespace, s.UID, "", 10)
		if err != nil || len(list) != 1 || list[0].Status != c.want {
			t.Errorf("at %v, listed: %+v, %v", c.at, list, err)
		}
	}
	got, err := f.Lookup(t.Context(), s.Namespace, s.UID, s.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Confirm(t.Context(), got); !errors.Is(err, ErrExpired) {
		t.Errorf("confirmed: %v", err)
	}
}
