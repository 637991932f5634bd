package upload

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// in brings a session of the request into a state, by the front door.
func (f *fixture) in(t *testing.T, status Status, r Request, many bool) *Session {
	t.Helper()
	ctx := t.Context()
	var s *Session
	var err error
	if many && status != Issued {
		s, err = f.BeginMultipart(ctx, r)
	} else if many {
		s, _, err = f.SignCreate(ctx, r)
	} else {
		s = f.begin(t, r)
	}
	if err != nil {
		t.Fatal(err)
	}
	object := Object{Size: r.Size, ContentType: r.ContentType}
	switch status {
	case Issued, Uploading:
	case Ready:
		if !many {
			f.bucket.put(r.Key, object, false)
			s, err = f.Confirm(ctx, s)
			break
		}
		for i, size := range videoParts {
			f.bucket.part(s.UploadID, i+1, size)
		}
		s, err = f.Complete(ctx, s, nil)
	case Rejected:
		if !many {
			object.Size++
			f.bucket.put(r.Key, object, false)
			s, err = f.Confirm(ctx, s)
		} else {
			f.bucket.part(s.UploadID, 1, 1)
			s, err = f.Complete(ctx, s, nil)
		}
		if isMismatch(err) {
			err = nil
		}
	case Failed:
		if err = f.bucket.AbortMultipart(ctx, s.Key, s.UploadID); err == nil {
			if s, err = f.Complete(ctx, s, nil); errors.Is(err, ErrNoUpload) {
				err = nil
			}
		}
	case Aborted:
		s, err = f.Abort(ctx, s)
	case Expired:
		f.set(s.ConfirmBy.Add(time.Second))
		if s, err = f.Confirm(ctx, s); errors.Is(err, ErrExpired) {
			err = nil
		}
		f.set(start)
	}
	if err != nil || s.Status != status {
		t.Fatalf("brought to %v, %v, want %s", s, err, status)
	}
	return s
}

// Every call in every state: what it answers, and where the session is then.
func TestCallsInStates(t *testing.T) {
	mismatch := errors.New("a mismatch")
	type want struct {
		err   error
		state Status // empty: unchanged
	}
	calls := map[string]func(ctx context.Context, f *fixture, s *Session) error{
		"confirm":  func(ctx context.Context, f *fixture, s *Session) error { _, err := f.Confirm(ctx, s); return err },
		"complete": func(ctx context.Context, f *fixture, s *Session) error { _, err := f.Complete(ctx, s, nil); return err },
		"abort":    func(ctx context.Context, f *fixture, s *Session) error { _, err := f.Abort(ctx, s); return err },
		"parts":    func(ctx context.Context, f *fixture, s *Session) error { _, err := f.Parts(ctx, s); return err },
		"sign": func(ctx context.Context, f *fixture, s *Session) error {
			_, err := f.SignParts(ctx, s, []PartRequest{{Number: 1, Size: 1}}, time.Minute)
			return err
		},
		"call": func(ctx context.Context, f *fixture, s *Session) error {
			_, err := f.SignCall(ctx, s, ListParts, time.Minute)
			return err
		},
		"adopt": func(ctx context.Context, f *fixture, s *Session) error {
			_, err := f.Adopt(ctx, s, s.UploadID)
			return err
		},
	}
	for _, c := range []struct {
		state Status
		many  bool
		want  map[string]want
	}{
		{Issued, false, map[string]want{
			"confirm": {err: ErrNotUploaded}, "complete": {err: ErrState}, "abort": {state: Aborted},
			"parts": {err: ErrState}, "sign": {err: ErrState}, "call": {err: ErrState}, "adopt": {err: ErrNoUpload}}},
		{Ready, false, map[string]want{
			"confirm": {}, "complete": {err: ErrState}, "abort": {err: ErrState},
			"parts": {err: ErrState}, "sign": {err: ErrState}, "call": {err: ErrState}, "adopt": {err: ErrNoUpload}}},
		{Rejected, false, map[string]want{"confirm": {err: mismatch}, "complete": {err: ErrState}, "abort": {err: ErrState}}},
		{Aborted, false, map[string]want{"confirm": {err: ErrState}, "complete": {err: ErrState}, "abort": {}}},
		{Expired, false, map[string]want{"confirm": {err: ErrExpired}, "complete": {err: ErrState}, "abort": {err: ErrState}}},
		{Issued, true, map[string]want{
			"confirm": {err: ErrNotUploaded}, "complete": {err: ErrState}, "abort": {state: Aborted},
			"parts": {err: ErrState}, "sign": {err: ErrState}, "call": {err: ErrState}, "adopt": {err: ErrNoUpload}}},
		{Uploading, true, map[string]want{
			"confirm": {err: ErrNotUploaded}, "complete": {err: ErrParts}, "abort": {state: Aborted},
			"parts": {}, "sign": {}, "call": {}, "adopt": {}}},
		{Ready, true, map[string]want{
			"confirm": {}, "complete": {}, "abort": {err: ErrState},
			"parts": {err: ErrState}, "sign": {err: ErrState}, "call": {err: ErrState}, "adopt": {err: ErrState}}},
		{Rejected, true, map[string]want{
			"confirm": {err: mismatch}, "complete": {err: mismatch}, "abort": {err: ErrState},
			"parts": {err: ErrState}, "sign": {err: ErrState}, "call": {err: ErrState}, "adopt": {err: ErrState}}},
		{Failed, true, map[string]want{
			"confirm": {err: ErrNoUpload}, "complete": {err: ErrNoUpload}, "abort": {err: ErrState},
			"parts": {err: ErrState}, "sign": {err: ErrState}, "call": {err: ErrState}, "adopt": {err: ErrState}}},
		{Aborted, true, map[string]want{
			"confirm": {err: ErrState}, "complete": {err: ErrState}, "abort": {},
			"parts": {err: ErrState}, "sign": {err: ErrState}, "call": {err: ErrState}, "adopt": {err: ErrState}}},
		{Expired, true, map[string]want{
			"confirm": {err: ErrExpired}, "complete": {err: ErrExpired}, "abort": {err: ErrState},
			"parts": {err: ErrExpired}, "sign": {err: ErrExpired}, "call": {err: ErrExpired}, "adopt": {err: ErrExpired}}},
	} {
		for name, want := range c.want {
			f, r := newEmpty(t), owned(jpeg())
			if c.many {
				r = video()
			}
			s := f.in(t, c.state, r, c.many)
			for range 2 { // asking again gives the same answer
				err := calls[name](t.Context(), f, s)
				if want.err == mismatch && isMismatch(err) {
					err = mismatch
				}
				if !errors.Is(err, want.err) || (err == nil) != (want.err == nil) {
					t.Errorf("%s of %s (multipart %t): %v, want %v", name, c.state, c.many, err, want.err)
				}
				state := want.state
				if state == "" {
					state = c.state
				}
				if s = f.stored(t, s.ID); s.Status != state {
					t.Errorf("%s of %s (multipart %t): now %s, want %s", name, c.state, c.many, s.Status, state)
				}
			}
		}
	}
}

// Whoever asks later than ConfirmBy is told so by every call.
func TestCallsTooLate(t *testing.T) {
	f := newEmpty(t)
	s := f.in(t, Uploading, video(), true)
	f.bucket.part(s.UploadID, 1, 12<<20)
	f.set(s.ConfirmBy.Add(time.Second))
	_, signing := f.SignParts(t.Context(), s, []PartRequest{{Number: 1}}, time.Minute)
	_, calling := f.SignCall(t.Context(), s, CompleteUpload, time.Minute)
	_, listing := f.Parts(t.Context(), s)
	_, adopting := f.Adopt(t.Context(), s, s.UploadID)
	got, completing := f.Complete(t.Context(), s, nil)
	for name, err := range map[string]error{"sign": signing, "call": calling, "list": listing, "adopt": adopting, "complete": completing} {
		if err != ErrExpired {
			t.Errorf("%s: %v", name, err)
		}
	}
	if got.Status != Expired || len(f.bucket.calls) != 0 || len(f.bucket.objects[s.Key]) != 0 {
		t.Errorf("%+v, signed %d", got, len(f.bucket.calls))
	}
}

// What the client itself completed at the store becomes ready by a confirmation,
// and not before: an object of somebody else under the same key is none of it.
func TestConfirmOfMultipart(t *testing.T) {
	f := newEmpty(t)
	r := video()
	r.Overwrite = true
	s := f.in(t, Uploading, r, true)
	f.bucket.put(s.Key, Object{Size: 12 << 20, ContentType: "video/mp4"}, true)
	if got, err := f.Confirm(t.Context(), s); err != ErrNotUploaded || got.Status != Uploading {
		t.Errorf("a stranger's object: %v, %v", got, err)
	}
	part := f.bucket.part(s.UploadID, 1, 12<<20)
	if err := f.bucket.complete(Put{Key: s.Key, Overwrite: true}, s.UploadID, []Part{part}); err != nil {
		t.Fatal(err)
	}
	got, err := f.Confirm(t.Context(), s)
	if err != nil || got.Status != Ready || !strings.HasSuffix(got.ETag, `-1"`) {
		t.Errorf("completed: %+v, %v", got, err)
	}
}

// A client that opened no upload of the session made no object of it.
func TestConfirmOfWhatWasNeverOpened(t *testing.T) {
	f := newEmpty(t)
	s := f.in(t, Issued, video(), true)
	f.bucket.put(s.Key, Object{Size: 12 << 20, ContentType: "video/mp4"}, true)
	if got, err := f.Confirm(t.Context(), s); err != ErrNotUploaded || got.Status != Issued {
		t.Errorf("%+v, %v", got, err)
	}
}

// What lands after it was given up is deleted where what is late is.
func TestAbortedPutThatLands(t *testing.T) {
	f, r := newEmpty(t), owned(jpeg())
	r.DeleteLate = true
	s := f.begin(t, r)
	if _, err := f.Abort(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	f.bucket.put(r.Key, Object{Size: 5, ContentType: "image/jpeg"}, false)
	f.set(start.Add(21 * time.Minute))
	sweepAll(t, f)
	if s = f.stored(t, s.ID); s.Status != Aborted || s.Reason != lateDeleted || len(f.bucket.objects[r.Key]) != 0 {
		t.Errorf("%+v", s)
	}
}

// Nobody looks again at what ended and left nothing.
func TestEndedSessionsSleep(t *testing.T) {
	for _, many := range []bool{false, true} {
		for _, status := range []Status{Ready, Rejected, Aborted, Failed} {
			if status == Failed && !many {
				continue
			}
			f, r := newEmpty(t), owned(jpeg())
			if many {
				r = video()
			}
			once := status == Failed || status == Aborted && many // for what is under way
			if s := f.in(t, status, r, many); !s.Wake.IsZero() && !once || !f.stored(t, s.ID).Wake.Equal(s.Wake) {
				t.Errorf("%s (multipart %t): wakes %v", status, many, s.Wake)
			}
		}
	}
}

// An aborted PUT's URL lives on: what it counted is given back when it is sure
// that nothing came of it, and only then.
func TestAbortedPutCountsUntilItsEnd(t *testing.T) {
	for _, landed := range []bool{false, true} {
		f, r := newEmpty(t), owned(jpeg())
		r.Quota = &Quota{Objects: 1, Window: time.Hour}
		s := f.begin(t, r)
		if _, err := f.Abort(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		var full *QuotaError
		if _, _, err := f.Begin(t.Context(), func() Request { r := r; r.ID = NewID(); return owned(r) }()); !errors.As(err, &full) {
			t.Errorf("given back at once: %v", err)
		}
		if landed {
			f.bucket.put(r.Key, Object{Size: 5, ContentType: "image/jpeg"}, false)
		}
		f.set(start.Add(21 * time.Minute))
		sweepAll(t, f)
		if s = f.stored(t, s.ID); s.Status != Aborted || s.Held != landed || !s.Wake.IsZero() {
			t.Errorf("landed %t: %+v", landed, s)
		}
	}
}

// A session of before a change of its route's name, or of a version that knew
// no sweeps, is still confirmed.
func TestOldSessionsConfirm(t *testing.T) {
	f := newFixture(t)
	s := f.begin(t, jpeg())
	old := *s
	old.Wake, old.Route = time.Time{}, ""
	f.store.sessions[s.ID] = old
	if got, err := f.Confirm(t.Context(), &old); err != nil || got.Status != Ready {
		t.Errorf("%+v, %v", got, err)
	}
}

// A sweep that puts a session off meanwhile is no reason to fail.
func TestConfirmWhileItIsPutOff(t *testing.T) {
	f := newFixture(t)
	s := f.begin(t, jpeg())
	f.store.meanwhile = func() {
		next := *s
		next.Wake = next.Wake.Add(time.Hour)
		if err := f.store.Transition(t.Context(), Issued, &next); err != nil {
			t.Error(err)
		}
	}
	if got, err := f.Confirm(t.Context(), s); err != nil || got.Status != Ready || got.Changes != 2 {
		t.Errorf("%+v, %v", got, err)
	}
}
