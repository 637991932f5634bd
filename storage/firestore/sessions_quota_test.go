package firestore

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"sidegate/storage/upload"
)

var hourly = &upload.Quota{Bytes: 100, Objects: 3, Window: time.Hour}

func held(bytes int64) *upload.Session {
	s := aSession()
	s.Quota, s.QuotaWindow, s.Counted, s.Held = "uploads", s.CreatedAt.Truncate(time.Hour), bytes, true
	return s
}

func released(s *upload.Session) *upload.Session {
	next := *s
	next.Status, next.Held = upload.Aborted, false
	return &next
}

// usageOf is what the fake has counted of the session's account.
func (s *sessionServer) usageOf(t *testing.T, of *Sessions, x *upload.Session) upload.Usage {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	count, err := of.decodeCount(x, s.docs[of.countName(x)])
	if err != nil {
		t.Error(err)
		return upload.Usage{}
	}
	return count.Usage
}

func TestSessionQuota(t *testing.T) {
	s, fake := faultySessions(t)
	first := held(60)
	if err := s.Create(t.Context(), first, hourly); err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), held(40), hourly); err != nil {
		t.Fatal(err)
	}
	var over *upload.QuotaError
	late := held(1)
	late.CreatedAt = late.CreatedAt.Add(15 * time.Minute)
	if err := s.Create(t.Context(), late, hourly); !errors.As(err, &over) || over.What != "bytes" || over.Retry != 45*time.Minute {
		t.Errorf("%v", err)
	}
	if _, err := s.Get(t.Context(), late.ID); err != upload.ErrNotFound {
		t.Errorf("stored all the same: %v", err)
	}
	other := *first
	other.UID = "u2"
	if err := s.Create(t.Context(), &other, hourly); err != upload.ErrExists {
		t.Errorf("another's session: %v", err)
	}
	again := *first
	again.Record = "r2"
	if err := s.Create(t.Context(), &again, hourly); err != upload.ErrExists {
		t.Errorf("a full quota hides the session that is there: %v", err)
	}
	if err := s.Transition(t.Context(), upload.Issued, released(first)); err != nil {
		t.Error(err)
	}
	if err := s.Transition(t.Context(), upload.Issued, released(first)); err != upload.ErrConflict {
		t.Errorf("given back twice: %v", err)
	}
	if got := fake.usageOf(t, s, first); got != (upload.Usage{Objects: 1, Bytes: 40}) {
		t.Errorf("counted %+v", got)
	}
	// Its TTL is the window's end and a day; a shorter window does not cut it.
	name := s.countName(first)
	if got := fake.docs[name].Fields["expireAt"].GetTimestampValue().AsTime(); !got.Equal(first.QuotaWindow.Add(25 * time.Hour)) {
		t.Errorf("expireAt %v", got)
	}
	if err := s.Create(t.Context(), held(1), &upload.Quota{Objects: 9, Window: time.Minute}); err != nil {
		t.Error(err)
	}
	if got := fake.docs[name].Fields["expireAt"].GetTimestampValue().AsTime(); !got.Equal(first.QuotaWindow.Add(25 * time.Hour)) {
		t.Errorf("expireAt %v", got)
	}
	// What TTL deleted is no longer to be given back.
	last := held(1)
	if err := s.Create(t.Context(), last, hourly); err != nil {
		t.Fatal(err)
	}
	delete(fake.docs, name)
	if err := s.Transition(t.Context(), upload.Issued, released(last)); err != nil || fake.docs[name] != nil {
		t.Errorf("%v, %v", err, fake.docs[name])
	}
}

// F29: what was done and not heard of is done once, whichever error came of it.
func TestQuotaLostAnswers(t *testing.T) {
	for _, code := range []codes.Code{codes.Unavailable, codes.Aborted, codes.AlreadyExists, codes.FailedPrecondition} {
		t.Run(code.String(), func(t *testing.T) {
			s, fake := faultySessions(t)
			one, lost := held(60), status.Error(code, "cut")
			fake.failAfter = lost
			if err := s.Create(t.Context(), one, hourly); err != nil {
				t.Errorf("Create: %v", err)
			}
			if got := fake.usageOf(t, s, one); got != (upload.Usage{Objects: 1, Bytes: 60}) {
				t.Errorf("counted %+v", got)
			}
			next := released(one)
			fake.failAfter = lost
			if err := s.Transition(t.Context(), upload.Issued, next); err != nil || next.Changes != 1 {
				t.Errorf("Transition: %v, changes %d", err, next.Changes)
			}
			if got := fake.usageOf(t, s, one); got != (upload.Usage{}) {
				t.Errorf("given back, %+v", got)
			}
		})
	}
}

// Every other code is neither yes nor no: and whether it was done or not, the
// session and its count are as one.
func TestQuotaFaultsAreUnknown(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		switch code {
		case codes.Unavailable, codes.ResourceExhausted, // the SDK asks again
			codes.Aborted, codes.AlreadyExists, codes.FailedPrecondition: // and so does this
			continue
		}
		t.Run(code.String(), func(t *testing.T) {
			fault := status.Error(code, "fault")
			unknown := func(what string, err error) {
				t.Helper()
				var over *upload.QuotaError
				if err == nil || errors.As(err, &over) || errors.Is(err, upload.ErrNotFound) || errors.Is(err, upload.ErrExists) || errors.Is(err, upload.ErrConflict) {
					t.Errorf("%s: %v", what, err)
				}
			}
			for _, done := range []bool{false, true} {
				s, fake := faultySessions(t)
				fail := &fake.failBefore
				if done {
					fail = &fake.failAfter
				}
				one := held(60)
				*fail = fault
				unknown("Create", s.Create(t.Context(), one, hourly))
				if got := fake.usageOf(t, s, one); (got.Objects == 1) != done || (fake.docs[s.parent+one.ID] != nil) != done {
					t.Errorf("done %v: counted %+v", done, got)
				}
				if err := s.Create(t.Context(), one, hourly); err != nil { // by the caller, again
					t.Error(err)
				}
				*fail = fault
				if err := s.Transition(t.Context(), upload.Issued, released(one)); code != codes.NotFound || !done {
					unknown("Transition", err)
				}
				if got := fake.usageOf(t, s, one); (got.Objects == 0) != done {
					t.Errorf("done %v: given back, %+v", done, got)
				}
				fake.readFails = fault
				unknown("Create, reading", s.Create(t.Context(), held(1), hourly))
			}
		})
	}
}

// Another gateway counts between the look and the commit.
func TestQuotaRaces(t *testing.T) {
	s, fake := faultySessions(t)
	one, two := held(60), held(60)
	count := func(x *upload.Session, q *upload.Quota) {
		c, err := s.decodeCount(x, fake.docs[s.countName(x)])
		if err != nil {
			t.Error(err)
			return
		}
		w, err := c.add(x, q)
		if err != nil {
			t.Error(err)
			return
		}
		fake.put(w.GetUpdate())
	}
	fake.meanwhile = func() { count(two, hourly) }
	var over *upload.QuotaError
	if err := s.Create(t.Context(), one, hourly); !errors.As(err, &over) {
		t.Errorf("the first of its window: %v", err)
	}
	small := held(10)
	fake.meanwhile = func() { count(held(1), hourly) }
	if err := s.Create(t.Context(), small, hourly); err != nil {
		t.Errorf("while there is room: %v", err)
	}
	if got := fake.usageOf(t, s, one); got != (upload.Usage{Objects: 3, Bytes: 71}) {
		t.Errorf("counted %+v", got)
	}
	fake.meanwhile = func() { count(held(1), &upload.Quota{Objects: 9, Window: time.Hour}) }
	if err := s.Transition(t.Context(), upload.Issued, released(small)); err != nil {
		t.Errorf("while it is given back: %v", err)
	}
	if got := fake.usageOf(t, s, one); got != (upload.Usage{Objects: 3, Bytes: 62}) {
		t.Errorf("counted %+v", got)
	}
}

func TestDamagedCount(t *testing.T) {
	s, fake := faultySessions(t)
	one := held(1)
	if err := s.Create(t.Context(), one, hourly); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"objects", "bytes", "expireAt"} {
		doc := fake.docs[s.countName(one)]
		was := doc.Fields[field]
		for _, v := range []int64{-1, 1} {
			doc.Fields[field] = integer(v)
			if v > 0 {
				doc.Fields[field] = text("1")
			}
			var over *upload.QuotaError
			if err := s.Create(t.Context(), held(1), hourly); err == nil || errors.As(err, &over) {
				t.Errorf("%s: Create: %v", field, err)
			}
			if err := s.Transition(t.Context(), upload.Issued, released(one)); err == nil || errors.Is(err, upload.ErrConflict) {
				t.Errorf("%s: Transition: %v", field, err)
			}
		}
		doc.Fields[field] = was
	}
}

func TestNoTwoCountsAreOne(t *testing.T) {
	s, _ := faultySessions(t)
	seen := map[string]bool{}
	for _, x := range []upload.Session{
		{Namespace: "a", UID: "b", Quota: "c"}, {Namespace: "ab", UID: "", Quota: "c"}, {Namespace: "a", UID: "bc"},
		{Namespace: "a", UID: "1:b", Quota: "c"}, {Namespace: "a1:", UID: "b", Quota: "c"},
		{Namespace: "a", UID: "b", Quota: "c", QuotaWindow: time.Unix(60, 0)}, {Namespace: "a", UID: "b", Quota: "c1:0", QuotaWindow: time.Unix(60, 0)},
		{Namespace: "a/b", UID: "..", Quota: "\xff"},
	} {
		name := s.countName(&x)
		if seen[name] || len(name) != len(s.quotas)+64 {
			t.Errorf("%+v: %s", x, name)
		}
		seen[name] = true
	}
}
