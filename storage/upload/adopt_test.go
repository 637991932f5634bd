package upload

import (
	"errors"
	"testing"
	"time"
)

// Attack: a multipart upload that an earlier session opened under a shared key
// is brought into a later one. Its object is as old as the upload, so that none
// of both sessions would see it as its own: both would be given back.
func TestAttackUploadOfAnEarlierSession(t *testing.T) {
	f, r := newEmpty(t), video()
	r.Key, r.Overwrite, r.Quota = "users/u1/film", true, &Quota{Objects: 2, Window: 24 * time.Hour}
	first := f.in(t, Issued, r, true)
	id := f.bucket.create(Put{Key: r.Key, ContentType: r.ContentType})
	f.set(start.Add(10 * time.Minute))
	r.ID = NewID()
	second := f.in(t, Issued, r, true)
	adopted, err := f.Adopt(t.Context(), second, id)
	if !errors.Is(err, ErrNoUpload) {
		t.Errorf("adopted: %v", err)
	}
	if err == nil {
		part := f.bucket.part(id, 1, r.Size)
		if err := f.bucket.complete(Put{Key: r.Key, Overwrite: true}, id, []Part{part}); err != nil {
			t.Fatal(err)
		}
		sweeper, l := f.sweeper()
		f.swept(t, adopted.over(), sweeper, l)
		if !f.stored(t, second.ID).Held && !f.stored(t, first.ID).Held {
			t.Errorf("what is there counts nowhere: %+v", f.bucket.objects)
		}
	}
	// The session's own is, whatever the seconds say.
	own := f.bucket.create(Put{Key: r.Key})
	if got, err := f.Adopt(t.Context(), second, own); err != nil || got.UploadID != own {
		t.Errorf("its own: %v", err)
	}
}
