package upload

import (
	"context"
	"testing"
	"time"
)

// free is a Store and a Bucket that cost nothing: what is measured is this
// package.
type free struct{ Bucket }

func (free) Create(context.Context, *Session, *Quota) error     { return nil }
func (free) Get(context.Context, string) (*Session, error)      { return nil, ErrNotFound }
func (free) Transition(context.Context, Status, *Session) error { return nil }

func (free) SignPut(_ context.Context, p Put) (Signed, error) {
	return Signed{Expires: p.At.Add(p.Expires)}, nil
}

func (free) SignMultipart(_ context.Context, calls []MultipartCall) ([]Signed, error) {
	return make([]Signed, len(calls)), nil
}

func BenchmarkBegin(b *testing.B) {
	u := &Uploads{Store: free{}, Buckets: map[string]Bucket{"default": free{}}, Now: func() time.Time { return start }}
	for name, r := range map[string]Request{"random": owned(jpeg()), "idempotent": idempotent(jpeg(), "0f8fad5b-d9cb-469f-a165-70867728950e")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := u.Begin(b.Context(), r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSignParts1000(b *testing.B) {
	u := &Uploads{Store: free{}, Buckets: map[string]Bucket{"default": free{}}, Now: func() time.Time { return start }}
	r := video()
	r.Size, r.MaxBytes = -1, 0
	s := r.session(multipart, start)
	s.Status, s.UploadID = Uploading, "u"
	parts := make([]PartRequest, 1000)
	for i := range parts {
		parts[i] = PartRequest{Number: i + 1, Size: 5 << 20}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := u.SignParts(b.Context(), s, parts, time.Minute); err != nil {
			b.Fatal(err)
		}
	}
}
