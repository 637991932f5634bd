package upload

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestBeginRecordsThenSigns(t *testing.T) {
	f := newFixture(t)
	r := jpeg()
	s, signed, err := f.Begin(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	second := start.Truncate(time.Second)
	want := Session{
		ID: r.ID, UID: "u1", Namespace: "users", Identity: "users", Key: r.Key, Bucket: "default",
		ContentType: "image/jpeg", Size: 5, Status: Issued, Record: "r1",
		CreatedAt: second, ExpiresAt: second.Add(15 * time.Minute), ConfirmBy: second.Add(75 * time.Minute),
		Route: "photos", Wake: second.Add(80 * time.Minute),
	}
	if *s != want || f.store.sessions[r.ID] != want {
		t.Errorf("session\n%+v, stored\n%+v, want\n%+v", *s, f.store.sessions[r.ID], want)
	}
	if !signed.Expires.Equal(s.ExpiresAt) {
		t.Errorf("signed until %v, recorded %v", signed.Expires, s.ExpiresAt)
	}
	put := Put{Key: r.Key, ContentType: "image/jpeg", Size: 5, At: second, Expires: 15 * time.Minute}
	if !reflect.DeepEqual(f.bucket.puts[0], put) {
		t.Errorf("signed %+v, want %+v", f.bucket.puts[0], put)
	}
}

func TestBeginSignsNothingUnrecorded(t *testing.T) {
	broken := errors.New("disk full")
	for name, set := range map[string]func(*fixture){
		"failed":                func(f *fixture) { f.store.failBefore = broken },
		"failed but stored":     func(f *fixture) { f.store.failAfter = broken },
		"signing failed":        func(f *fixture) { f.bucket.signErr = broken },
		"signed for too long":   func(f *fixture) { f.bucket.longer = time.Second },
		"bucket is not in yaml": func(f *fixture) { f.Buckets = nil },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			set(f)
			s, signed, err := f.Begin(t.Context(), jpeg())
			if !errors.Is(err, ErrUnavailable) || s != nil || signed.URL != "" {
				t.Errorf("Begin = %v, %v, %v", s, signed, err)
			}
		})
	}
}

func TestBeginRefuses(t *testing.T) {
	for _, c := range []struct {
		field string
		edit  func(*Request)
	}{
		{"session", func(r *Request) { r.ID = "../x" }},
		{"uid", func(r *Request) { r.UID = "" }},
		{"uid", func(r *Request) { r.Namespace = "" }},
		{"key", func(r *Request) { r.Key = "users/u1/../u2/a" }},
		{"size", func(r *Request) { r.Size = -2 }},
		{"contentType", func(r *Request) { r.ContentType = "" }},
		{"contentType", func(r *Request) { r.ContentType = "image/jpeg\r\nX-Amz-Acl: public-read" }},
		{"contentType", func(r *Request) { r.ContentType = "image/jpeg;  charset=x" }},
		{"contentType", func(r *Request) { r.ContentType = " image/jpeg" }},
		{"contentType", func(r *Request) { r.ContentType = "image/jpeg; a=\"\u00e9\"" }},
		{"contentType", func(r *Request) { r.ContentType = "a/" + strings.Repeat("b", maxContentType) }},
		{"contentType", func(r *Request) { r.ContentType = "no type" }},
		{"checksumSha256", func(r *Request) { r.Checksum = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuF" }},
		{"checksumSha256", func(r *Request) { r.Checksum = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=" }},
		{"checksumSha256", func(r *Request) { r.Size, r.Checksum = 0, strings.Repeat("A", 43)+"=" }},
		{"expiresSeconds", func(r *Request) { r.Expires = 0 }},
		{"expiresSeconds", func(r *Request) { r.Expires = 1500 * time.Millisecond }},
	} {
		f, r := newFixture(t), jpeg()
		c.edit(&r)
		_, _, err := f.Begin(t.Context(), r)
		var invalid *InvalidError
		if !errors.As(err, &invalid) || invalid.Field != c.field {
			t.Errorf("%+v: %v, want an InvalidError of %s", r, err, c.field)
		}
		if len(f.store.sessions) != 0 {
			t.Errorf("%+v: stored", r)
		}
	}
}

func TestLookupTellsNobodyOfOthers(t *testing.T) {
	f := newFixture(t)
	s := f.begin(t, jpeg())
	if got, err := f.Lookup(t.Context(), "users", "u1", s.ID); err != nil || *got != *s {
		t.Fatalf("own: %v, %v", got, err)
	}
	for _, c := range [][3]string{
		{"users", "u2", s.ID}, {"agents", "u1", s.ID}, {"users", "u1", NewID()}, {"", "", s.ID},
		{"users", "u1", ""}, {"users", "u1", s.ID[:31]}, {"users", "u1", strings.ToUpper(s.ID)}, {"users", "u1", "../" + s.ID[3:]},
	} {
		if got, err := f.Lookup(t.Context(), c[0], c[1], c[2]); err != ErrNotFound || got != nil {
			t.Errorf("%q: %v, %v", c, got, err)
		}
	}
	f.store.failBefore = errors.New("down")
	if _, err := f.Lookup(t.Context(), "users", "u1", s.ID); !errors.Is(err, ErrUnavailable) || errors.Is(err, ErrNotFound) {
		t.Errorf("store down: %v", err)
	}
}

func TestDownload(t *testing.T) {
	f := newFixture(t)
	d := Download{Bucket: "default", Key: "users/u1/a.jpg", Expires: time.Minute}
	if _, err := f.Download(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	want := Get{Key: d.Key, Disposition: `attachment; filename="a.jpg"; filename*=UTF-8''a.jpg`, Expires: time.Minute}
	if f.bucket.gets[0] != want {
		t.Errorf("signed %+v, want %+v", f.bucket.gets[0], want)
	}
	d.Key = "users/u1/a.svg"
	if _, err := f.Download(t.Context(), d); err != nil || f.bucket.gets[1].ContentType != "application/octet-stream" {
		t.Errorf("what a browser runs: %+v, %v", f.bucket.gets, err)
	}
	d.Key = "users/u1/../u2/a.jpg"
	var invalid *InvalidError
	if _, err := f.Download(t.Context(), d); !errors.As(err, &invalid) {
		t.Errorf("traversal: %v", err)
	}
	d.Key, f.bucket.signErr = "a", errors.New("no credentials")
	if _, err := f.Download(t.Context(), d); !errors.Is(err, ErrUnavailable) {
		t.Errorf("cannot sign: %v", err)
	}
}
