package upload

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// The defects of other gateways, each as what a caller would do.

func invalidField(err error) string {
	var invalid *InvalidError
	if errors.As(err, &invalid) {
		return invalid.Field
	}
	return ""
}

// Companion signs whatever uploadId it is told: here what is signed is the
// session's own, and another's is none of it.
func TestAttackAnothersUploadID(t *testing.T) {
	f := newEmpty(t)
	victim := f.in(t, Uploading, video(), true)
	r := video()
	r.UID = "u2"
	mine := f.in(t, Issued, r, true)
	for _, id := range []string{victim.UploadID, "", "upload-99", strings.Repeat("u", 1<<20), "x&uploadId=" + victim.UploadID} {
		if got, err := f.Adopt(t.Context(), mine, id); err != ErrNoUpload {
			t.Errorf("adopted %.40q: %+v, %v", id, got, err)
		}
	}
	own := f.bucket.create(Put{Key: mine.Key})
	adopted, err := f.Adopt(t.Context(), mine, own)
	if err != nil || adopted.UploadID != own {
		t.Fatalf("its own: %+v, %v", adopted, err)
	}
	// The first holds: a second one under the same key is not this session's.
	second := f.bucket.create(Put{Key: mine.Key})
	if _, err := f.Adopt(t.Context(), adopted, second); err != ErrNoUpload {
		t.Errorf("a second: %v", err)
	}
	for _, id := range []string{second, victim.UploadID} {
		if _, err := f.Adopt(t.Context(), mine, id); err != ErrNoUpload {
			t.Errorf("by a stale session: %v", err)
		}
	}
	if got := f.stored(t, mine.ID); got.UploadID != own {
		t.Errorf("stored %+v", got)
	}
}

// A session is found for its user only; one that names another's id gets what
// one that does not exist gets.
func TestAttackCompleteByAStranger(t *testing.T) {
	f := newEmpty(t)
	s := f.in(t, Uploading, video(), true)
	f.bucket.part(s.UploadID, 1, 12<<20)
	for _, who := range [][2]string{{"users", "u2"}, {"agents", "u1"}} {
		if got, err := f.Lookup(t.Context(), who[0], who[1], s.ID); err != ErrNotFound {
			t.Errorf("%v: %+v, %v", who, got, err)
		}
		if got, err := f.LookupKey(t.Context(), who[0], who[1], s.Key); err != ErrNotFound {
			t.Errorf("%v: %+v, %v", who, got, err)
		}
	}
	// A stranger who completes it at the store is found out by what landed.
	other := s.UploadID
	if err := f.bucket.complete(Put{Key: s.Key}, other, f.bucket.open[other].list()); err != nil {
		t.Fatal(err)
	}
	f.bucket.objects[s.Key][0].Size++
	if _, err := f.Complete(t.Context(), s, nil); !isMismatch(err) {
		t.Errorf("completed by a stranger: %v", err)
	}
}

func TestAttackPartsOutsideTheSession(t *testing.T) {
	many := make([]PartRequest, 10_001)
	for i := range many {
		many[i] = PartRequest{Number: i + 1, Size: -1}
	}
	for _, c := range []struct {
		name, field string
		parts       []PartRequest
	}{
		{"none", "parts", nil},
		{"number 0", "partNumber", []PartRequest{{Number: 0, Size: 1}}},
		{"number -1", "partNumber", []PartRequest{{Number: -1, Size: 1}}},
		{"number 10001", "partNumber", []PartRequest{{Number: 10_001, Size: 1}}},
		{"twice", "partNumber", []PartRequest{{Number: 1, Size: 1}, {Number: 1, Size: 1}}},
		{"10001 parts", "parts", many},
		{"size -2", "size", []PartRequest{{Number: 1, Size: -2}}},
		{"size beyond a part's", "size", []PartRequest{{Number: 1, Size: 5<<30 + 1}}},
		{"size beyond the session's", "size", []PartRequest{{Number: 1, Size: 12<<20 + 1}}},
		{"sum beyond the session's", "size", []PartRequest{{Number: 1, Size: 12 << 20}, {Number: 2, Size: 1}}},
		{"sum that overflows", "size", []PartRequest{{Number: 1, Size: 1<<63 - 1}, {Number: 2, Size: 1<<63 - 1}}},
		{"checksum", "checksumSha256", []PartRequest{{Number: 1, Size: 1, Checksum: "x"}}},
		{"checksum of nothing", "checksumSha256", []PartRequest{{Number: 1, Size: 0, Checksum: strings.Repeat("A", 43) + "="}}},
	} {
		f := newEmpty(t)
		s := f.in(t, Uploading, video(), true)
		_, err := f.SignParts(t.Context(), s, c.parts, time.Minute)
		if invalidField(err) != c.field || len(f.bucket.calls) != 0 {
			t.Errorf("%s: %v, %d signed", c.name, err, len(f.bucket.calls))
		}
	}
	f := newEmpty(t)
	r := video()
	r.Size = -1
	s := f.in(t, Uploading, r, true)
	for size, field := range map[int64]string{20 << 20: "", 20<<20 + 1: "size"} {
		if _, err := f.SignParts(t.Context(), s, []PartRequest{{Number: 1, Size: size}}, time.Minute); invalidField(err) != field {
			t.Errorf("%d of max_bytes: %v", size, err)
		}
	}
	r.ID, r.MaxBytes = NewID(), 0
	s = f.in(t, Uploading, owned(r), true)
	if _, err := f.SignParts(t.Context(), s, []PartRequest{{Number: 1, Size: 5 << 30}}, time.Minute); err != nil {
		t.Errorf("without a bound: %v", err)
	}
	f.bucket.calls = nil
	if signed, err := f.SignParts(t.Context(), s, many[:10_000], time.Minute); err != nil || len(signed) != 10_000 {
		t.Errorf("10000 parts: %d, %v", len(signed), err)
	}
	for i, c := range f.bucket.calls {
		if c.Op != UploadPart || c.Part != i+1 || c.UploadID != s.UploadID || c.Key != s.Key || c.Size != -1 {
			t.Fatalf("call %d: %+v", i, c)
		}
	}
}

// A URL of a session is over when the session is.
func TestAttackSigningBeyondTheSession(t *testing.T) {
	f := newEmpty(t)
	s := f.in(t, Uploading, video(), true)
	f.set(s.ConfirmBy.Add(-90 * time.Second))
	signed, err := f.SignParts(t.Context(), s, []PartRequest{{Number: 1, Size: 1}}, time.Hour)
	if err != nil || signed[0].Expires.After(s.ConfirmBy) || f.bucket.calls[0].Expires != 90*time.Second {
		t.Errorf("%v, %v, %v", signed, err, f.bucket.calls)
	}
	f.bucket.longer = time.Second
	if _, err := f.SignParts(t.Context(), s, []PartRequest{{Number: 1, Size: 1}}, time.Minute); !errors.Is(err, ErrUnavailable) {
		t.Errorf("the bucket signed for longer: %v", err)
	}
	f.bucket.longer = 0
	f.set(s.ConfirmBy)
	if _, err := f.SignParts(t.Context(), s, []PartRequest{{Number: 1, Size: 1}}, time.Minute); err != ErrExpired {
		t.Errorf("at its end: %v", err)
	}
	for _, d := range []time.Duration{0, -time.Second, 1500 * time.Millisecond} {
		if _, err := f.SignParts(t.Context(), s, []PartRequest{{Number: 1, Size: 1}}, d); invalidField(err) != "expiresSeconds" {
			t.Errorf("%v: %v", d, err)
		}
	}
}

// Only calls of the session's own open upload are signed for a client: nothing
// that it names itself.
func TestAttackSigningACallersCall(t *testing.T) {
	f := newEmpty(t)
	s := f.in(t, Uploading, video(), true)
	r := video()
	r.Overwrite = true
	again := f.in(t, Uploading, r, true)
	for _, s := range []*Session{s, again} {
		f.bucket.part(s.UploadID, 1, 12<<20)
		for _, op := range []MultipartOp{ListParts, CompleteUpload, AbortUpload} {
			if _, err := f.SignCall(t.Context(), s, op, time.Minute); err != nil {
				t.Errorf("call %d: %v", op, err)
			}
			c := f.bucket.calls[len(f.bucket.calls)-1]
			if c.Op != op || c.Key != s.Key || c.UploadID != s.UploadID || c.Overwrite != s.Overwrite || c.Expires != time.Minute {
				t.Errorf("call %d: signed %+v", op, c)
			}
		}
	}
	for _, op := range []MultipartOp{0, CreateUpload, UploadPart, 9} {
		if signed, err := f.SignCall(t.Context(), s, op, time.Minute); err == nil || signed.URL != "" {
			t.Errorf("call %d: %v, %v", op, signed, err)
		}
	}
}

// What the parts add up to is looked at before there is an object of them.
func TestAttackTotalOverMaxBytes(t *testing.T) {
	for name, c := range map[string]struct {
		size, max int64
		parts     []int64
		ok        bool
	}{
		"over max_bytes":   {-1, 20 << 20, []int64{15 << 20, 5<<20 + 1}, false},
		"just max_bytes":   {-1, 20 << 20, []int64{15 << 20, 5 << 20}, true},
		"over the size":    {12 << 20, 20 << 20, []int64{12 << 20, 1}, false},
		"under the size":   {12 << 20, 20 << 20, []int64{12<<20 - 1}, false},
		"no bound":         {-1, 0, []int64{5 << 30, 5 << 30}, true},
		"the size exactly": {12 << 20, 0, []int64{12 << 20}, true},
	} {
		for _, byClient := range []bool{false, true} {
			f, r := newEmpty(t), video()
			r.Size, r.MaxBytes = c.size, c.max
			s := f.in(t, Uploading, r, true)
			for i, size := range c.parts {
				f.bucket.part(s.UploadID, i+1, size)
			}
			var err error
			if byClient {
				_, err = f.SignCall(t.Context(), s, CompleteUpload, time.Minute)
			} else {
				_, err = f.Complete(t.Context(), s, nil)
			}
			if c.ok {
				if err != nil {
					t.Errorf("%s: %v", name, err)
				}
				continue
			}
			if got := f.stored(t, s.ID); !isMismatch(err) || got.Status != Rejected || !got.Wake.IsZero() {
				t.Errorf("%s: %v, %+v", name, err, got)
			}
			if len(f.bucket.open) != 0 || len(f.bucket.objects) != 0 || len(f.bucket.calls) != 0 {
				t.Errorf("%s: open %v, objects %v, signed %v", name, f.bucket.open, f.bucket.objects, f.bucket.calls)
			}
		}
	}
}

// Only the last part may be small, and what the store refuses stays open.
func TestAttackTinyParts(t *testing.T) {
	f, r := newEmpty(t), video()
	r.Size = -1
	s := f.in(t, Uploading, r, true)
	f.bucket.part(s.UploadID, 1, 1)
	f.bucket.part(s.UploadID, 2, 5<<20)
	if got, err := f.Complete(t.Context(), s, nil); err != ErrParts || got.Status != Uploading {
		t.Errorf("a tiny first part: %v, %v", got, err)
	}
	f.bucket.part(s.UploadID, 1, 5<<20)
	f.bucket.part(s.UploadID, 2, 1)
	if got, err := f.Complete(t.Context(), s, nil); err != nil || got.Size != 5<<20+1 {
		t.Errorf("a tiny last part: %v, %v", got, err)
	}
}

// The parts that a caller names must be those that the store has.
func TestAttackPartsThatAreNotThere(t *testing.T) {
	f := newEmpty(t)
	s := f.in(t, Uploading, video(), true)
	if _, err := f.Complete(t.Context(), s, nil); err != ErrParts {
		t.Errorf("no parts at all: %v", err)
	}
	one, two := f.bucket.part(s.UploadID, 1, 5<<20), f.bucket.part(s.UploadID, 2, 7<<20)
	for name, parts := range map[string][]Part{
		"none":         {},
		"one missing":  {one},
		"one twice":    {one, one},
		"one more":     {one, two, {Number: 3, ETag: `"x"`}},
		"other etag":   {one, {Number: 2, ETag: one.ETag}},
		"other number": {one, {Number: 3, ETag: two.ETag}},
		"no etag":      {one, {Number: 2}},
		"number 0":     {{Number: 0, ETag: one.ETag}, two},
	} {
		if got, err := f.Complete(t.Context(), s, parts); err != ErrParts || got.Status != Uploading {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	// Uppy 6 leaves the quotes out; the order is the store's.
	parts := []Part{{Number: 2, ETag: strings.Trim(two.ETag, `"`)}, {Number: 1, ETag: one.ETag}}
	if got, err := f.Complete(t.Context(), s, parts); err != nil || got.Status != Ready {
		t.Errorf("%v, %v", got, err)
	}
	if parts[0].Number != 2 {
		t.Error("the caller's parts were sorted")
	}
}

// `..` in a key, a prefix without its slash: nothing is signed, listed or
// deleted for them.
func TestAttackDotSegments(t *testing.T) {
	f := newEmpty(t)
	for _, key := range []string{"users/u1/../u2/a", "..", "users/u1/..", "users/u1//a", "users/u1/./a", "/etc", `users\u1`, "", "a\n", "a/"} {
		r := jpeg()
		r.Key = key
		many := video()
		many.Key = key
		_, _, begin := f.Begin(t.Context(), r)
		_, multi := f.BeginMultipart(t.Context(), many)
		_, _, create := f.SignCreate(t.Context(), many)
		del := f.Delete(t.Context(), "default", key)
		_, _, list := f.ListObjects(t.Context(), "default", key, "", 10)
		for name, err := range map[string]error{"begin": begin, "multipart": multi, "create": create, "delete": del} {
			if invalidField(err) != "key" {
				t.Errorf("%s %q: %v", name, key, err)
			}
		}
		if key != "a/" && invalidField(list) != "prefix" {
			t.Errorf("list %q: %v", key, list)
		}
		if _, err := f.LookupKey(t.Context(), "users", "u1", key); err != ErrNotFound {
			t.Errorf("look up %q: %v", key, err)
		}
	}
	if len(f.faults.calls) > 1 || len(f.store.sessions) != 0 {
		t.Errorf("calls %q", f.faults.calls)
	}
}

// Complete and Abort end at the store what the session opened, and no upload of
// another session with the same key.
func TestAttackAbortOfASharedKey(t *testing.T) {
	f := newEmpty(t)
	shared := func() Request {
		r := video()
		r.Key, r.Overwrite = "shared/film.mp4", true
		return r
	}
	other := f.in(t, Uploading, shared(), true)
	mine := f.in(t, Uploading, shared(), true)
	if _, err := f.Abort(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	issued := f.in(t, Issued, shared(), true)
	if _, err := f.Abort(t.Context(), issued); err != nil {
		t.Fatal(err)
	}
	if len(f.bucket.open) != 1 || f.bucket.open[other.UploadID] == nil {
		t.Errorf("open: %v", f.bucket.open)
	}
}

// A whole that is checked by SHA-256 cannot be promised for a multipart upload.
func TestMultipartRefusesAWholesSHA256(t *testing.T) {
	f, r := newEmpty(t), video()
	r.Checksum = strings.Repeat("A", 43) + "="
	if _, err := f.BeginMultipart(t.Context(), r); invalidField(err) != "checksumSha256" {
		t.Error(err)
	}
	r.Checksum, r.Checksum64 = "", "AAAAAAAAAAA="
	s := f.in(t, Uploading, r, true)
	for i, size := range videoParts {
		f.bucket.part(s.UploadID, i+1, size)
	}
	if got, err := f.Complete(t.Context(), s, nil); err != nil || got.Checksum64 != r.Checksum64 {
		t.Errorf("%+v, %v", got, err)
	}
}
