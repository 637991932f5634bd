package upload

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// summed is a multipart upload whose parts come with their checksums.
func summed() Request {
	r := video()
	r.PartChecksums = true
	return r
}

var someSum = strings.Repeat("A", 43) + "="

func TestPartsComeWithTheirChecksumsOrNone(t *testing.T) {
	f := newEmpty(t)
	s, err := f.BeginMultipart(t.Context(), summed())
	if err != nil || !s.PartChecksums || !f.stored(t, s.ID).PartChecksums || !f.bucket.open[s.UploadID].put.PartChecksums {
		t.Fatalf("%+v, %v", s, err)
	}
	with, without := PartRequest{Number: 1, Size: 1, Checksum: someSum}, PartRequest{Number: 7, Size: 1}
	if _, err := f.SignParts(t.Context(), s, []PartRequest{with, without}, time.Minute); invalidField(err) != "checksumSha256" || !strings.Contains(err.Error(), "part 7") {
		t.Errorf("a part without: %v", err)
	}
	if _, err := f.SignParts(t.Context(), s, []PartRequest{with}, time.Minute); err != nil || f.bucket.calls[0].Checksum != someSum {
		t.Errorf("%+v, %v", f.bucket.calls, err)
	}
	plain, err := f.BeginMultipart(t.Context(), video())
	if err != nil || plain.PartChecksums || f.bucket.open[plain.UploadID].put.PartChecksums {
		t.Fatalf("%+v, %v", plain, err)
	}
	if _, err := f.SignParts(t.Context(), plain, []PartRequest{without, with}, time.Minute); invalidField(err) != "checksumSha256" || !strings.Contains(err.Error(), "part 1") {
		t.Errorf("a part with: %v", err)
	}
}

func TestPartChecksumsOfWhatHasNone(t *testing.T) {
	f, r := newEmpty(t), summed()
	if _, _, err := f.Begin(t.Context(), r); invalidField(err) != "partChecksums" {
		t.Errorf("one PUT: %v", err)
	}
	if _, _, err := f.SignCreate(t.Context(), r); invalidField(err) != "partChecksums" {
		t.Errorf("an upload that the client opens: %v", err)
	}
	repeated := idempotent(summed(), "k1")
	if _, err := f.BeginMultipart(t.Context(), repeated); err != nil {
		t.Fatal(err)
	}
	repeated.PartChecksums = false
	if _, err := f.BeginMultipart(t.Context(), repeated); err != ErrOtherRequest {
		t.Errorf("repeated without them: %v", err)
	}
	r.Checksum64 = "AAAAAAAAAAA="
	if _, err := f.BeginMultipart(t.Context(), r); invalidField(err) != "partChecksums" {
		t.Errorf("beside another checksum of the whole: %v", err)
	}
}

// What the store does not say was checked against nothing: no object is made of
// it, and the part can be sent again.
func TestPartWithoutAChecksumMakesNoObject(t *testing.T) {
	f := newEmpty(t)
	s := f.in(t, Uploading, summed(), true)
	parts := f.bucket.open[s.UploadID].parts
	for i, size := range videoParts {
		p := f.bucket.part(s.UploadID, i+1, size)
		if p.Checksum = someSum; i != 1 {
			parts[i+1] = p
		}
	}
	if got, err := f.Complete(t.Context(), s, nil); !errors.Is(err, ErrParts) || !strings.Contains(err.Error(), "part 2") || got.Status != Uploading {
		t.Fatalf("%+v, %v", got, err)
	}
	again := parts[2]
	again.Checksum = someSum
	parts[2] = again
	if got, err := f.Complete(t.Context(), s, nil); err != nil || got.Status != Ready {
		t.Fatalf("%+v, %v", got, err)
	}
}
