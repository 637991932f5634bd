package firestore

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"

	"sidegate/storage/upload"
)

// gateways are two that share a collection, each with a connection of its own.
func gateways(t *testing.T, project string) (list [2]*Sessions) {
	t.Helper()
	host := emulator(t)
	for i := range list {
		c := connect(t, Options{Project: project, Emulator: host}) // whose queries must have their index
		s, err := NewSessions(c, "uploadSessions")
		if err != nil {
			t.Fatal(err)
		}
		// The first answer of a cold emulator takes longer than a session's time-out.
		if _, err := s.read(t.Context(), "warm"); err != upload.ErrNotFound {
			t.Fatal(err)
		}
		list[i] = s
	}
	return list
}

func created(t *testing.T, s *Sessions, uid string, after time.Duration, id string) *upload.Session {
	t.Helper()
	one := aSession()
	one.UID, one.CreatedAt = uid, one.CreatedAt.Add(after)
	if id != "" {
		one.ID = strings.Repeat(id, 32)
	}
	if err := s.Create(t.Context(), one, nil); err != nil {
		t.Fatal(err)
	}
	return one
}

func idsOf(list []*upload.Session) (ids string) {
	for _, s := range list {
		ids += s.ID[:1]
	}
	return ids
}

func TestSessionsAreListedAndFound(t *testing.T) {
	g := gateways(t, "demo-session-lists")
	for i, id := range []string{"c", "a", "x", "b", "d", "0"} {
		uid := "u1"
		if id == "x" {
			uid = "u2"
		}
		created(t, g[i%2], uid, []time.Duration{3 * time.Second, time.Second, 0, 2 * time.Second, 3 * time.Second, -time.Microsecond}[i], id)
	}
	other := aSession()
	other.Namespace = "partners"
	if err := g[0].Create(t.Context(), other, nil); err != nil {
		t.Fatal(err)
	}
	for limit := 1; limit <= 6; limit++ {
		var all, cursor string
		for page := 0; page == 0 || cursor != ""; page++ {
			list, next, err := g[page%2].List(t.Context(), "users", "u1", cursor, limit)
			if err != nil || len(list) > limit || page > 5 {
				t.Fatalf("limit %d: %d sessions, %v", limit, len(list), err)
			}
			all, cursor = all+idsOf(list), next
		}
		if all != "dcba0" {
			t.Errorf("limit %d: %s", limit, all)
		}
	}
	if list, next, err := g[0].List(t.Context(), "users", "nobody", "", 10); len(list) != 0 || next != "" || err != nil {
		t.Errorf("of nobody: %v, %q, %v", list, next, err)
	}
	if _, _, err := g[0].List(t.Context(), "users", "u1", "no cursor", 10); err != upload.ErrCursor {
		t.Errorf("cursor: %v", err)
	}
	if _, _, err := g[0].List(t.Context(), "users", "u1", "1.__x__", 10); err != upload.ErrCursor {
		t.Errorf("cursor: %v", err)
	}
	// Another's cursor is a place in time, and shows nothing of theirs.
	if list, _, err := g[0].List(t.Context(), "users", "u2", upload.CursorOf(&upload.Session{ID: "c", CreatedAt: other.CreatedAt.Add(time.Hour)}), 10); idsOf(list) != "x" || err != nil {
		t.Errorf("another's cursor: %s, %v", idsOf(list), err)
	}
	if got, err := g[1].Find(t.Context(), "users", "u1", other.Key); err != nil || got.ID[0] != 'd' {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := g[1].Find(t.Context(), "users", "u3", other.Key); err != upload.ErrNotFound {
		t.Errorf("%+v, %v", got, err)
	}
}

// A document of the version before has none of the fields of this one.
func TestSessionOfAnEarlierVersion(t *testing.T) {
	s := gateways(t, "demo-session-old")[0]
	one := aSession()
	fields := map[string]*firestorepb.Value{"size": integer(-1), "revision": text("r")}
	for name, v := range map[string]string{"uid": one.UID, "namespace": one.Namespace, "identity": one.Identity, "key": one.Key, "bucket": one.Bucket,
		"contentType": one.ContentType, "checksumSha256": one.Checksum, "status": "issued", "record": one.Record} {
		fields[name] = text(v)
	}
	for name, v := range map[string]time.Time{"createdAt": one.CreatedAt, "expiresAt": one.ExpiresAt, "confirmBy": one.ConfirmBy} {
		fields[name] = instant(v)
	}
	if err := s.commit(t.Context(), &firestorepb.Write{Operation: &firestorepb.Write_Update{Update: &firestorepb.Document{Name: s.parent + one.ID, Fields: fields}}}); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), one.ID); err != nil || *got != *one {
		t.Errorf("got %+v, %v, want %+v", got, err, one)
	}
	if list, _, err := s.List(t.Context(), one.Namespace, one.UID, "", 10); err != nil || len(list) != 1 || *list[0] != *one {
		t.Errorf("%v, %v", list, err)
	}
	if due, err := s.Due(t.Context(), time.Now().AddDate(100, 0, 0), 10); err != nil || len(due) != 0 {
		t.Errorf("due %v, %v", due, err)
	}
	next := readied(one)
	next.Wake, next.Notice = next.ReadyAt, upload.NoticeDue
	if err := s.Transition(t.Context(), upload.Issued, next); err != nil {
		t.Error(err)
	}
	if due, err := s.Due(t.Context(), next.Wake, 10); err != nil || len(due) != 1 || *due[0] != *next {
		t.Errorf("due %v, %v", due, err)
	}
}

// Every field of a session comes back, whatever is added to it.
func TestEveryFieldOfASessionIsKept(t *testing.T) {
	s := gateways(t, "demo-session-fields")[0]
	one := held(7)
	one.Checksum64, one.Route, one.Multipart, one.UploadID, one.MaxBytes, one.Overwrite = "AAAAAAAAAAA=", "r", true, "u", 9, true
	one.DeleteLate, one.AutoConfirm, one.Direct, one.Request, one.Wake, one.Notice, one.Attempts = true, true, true, "q", one.ExpiresAt, upload.NoticeGivenUp, 3
	one.ETag, one.VersionID, one.ReadyAt, one.CompletingAt, one.RejectedAt, one.Reason, one.Changes = "e", "v", one.ConfirmBy, one.ConfirmBy, one.ConfirmBy, "size: 1", 5
	one.PartChecksums = true
	everyFieldIsSet(t, one)
	if err := s.Create(t.Context(), one, hourly); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get(t.Context(), one.ID); err != nil || *got != *one {
		t.Errorf("got %+v, %v, want %+v", got, err, one)
	}
	// What a transition clears is gone.
	next := *one
	next.Held, next.Multipart, next.Overwrite, next.DeleteLate, next.AutoConfirm = false, false, false, false, false
	next.Wake, next.Notice, next.Attempts, next.UploadID, next.MaxBytes = time.Time{}, "", 0, "", 0
	if err := s.Transition(t.Context(), one.Status, &next); err != nil || next.Changes != 6 {
		t.Error(next.Changes, err)
	}
	if got, err := s.Get(t.Context(), one.ID); err != nil || *got != next {
		t.Errorf("got %+v, %v, want %+v", got, err, next)
	}
}

func everyFieldIsSet(t *testing.T, s *upload.Session) {
	t.Helper()
	v := reflect.ValueOf(*s)
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			t.Errorf("the test sets no %s", v.Type().Field(i).Name)
		}
	}
}

func TestSessionsThatAreDue(t *testing.T) {
	g := gateways(t, "demo-session-due")
	at := aSession().CreatedAt
	want := map[string]bool{}
	for i := range 40 {
		one := aSession()
		one.Wake = at.Add(time.Duration(i) * time.Second)
		want[one.ID] = i < 30
		if err := g[i%2].Create(t.Context(), one, nil); err != nil {
			t.Fatal(err)
		}
	}
	created(t, g[0], "u1", 0, "") // never
	now := at.Add(29 * time.Second)
	if due, err := g[0].Due(t.Context(), at.Add(-time.Microsecond), 100); err != nil || len(due) != 0 {
		t.Errorf("too early: %d, %v", len(due), err)
	}
	due, err := g[0].Due(t.Context(), now, 1000)
	if err != nil || len(due) != 30 {
		t.Fatalf("%d due, %v", len(due), err)
	}
	for i, s := range due {
		if !want[s.ID] || i > 0 && s.Wake.Before(due[i-1].Wake) {
			t.Errorf("due %+v", s)
		}
	}
	// Two gateways sweep, a few at a time: each is ended once, and then none is due.
	var ended atomic.Int32
	var wg sync.WaitGroup
	for _, s := range g {
		wg.Go(func() {
			for {
				due, err := s.Due(t.Context(), now, 3)
				if err != nil || len(due) > 3 {
					t.Errorf("%d due, %v", len(due), err)
					return
				}
				if len(due) == 0 {
					return
				}
				for _, one := range due {
					one.Status, one.Wake = upload.Expired, time.Time{}
					switch err := s.Transition(t.Context(), upload.Issued, one); err {
					case nil:
						ended.Add(1)
					case upload.ErrConflict:
					default:
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if ended.Load() != 30 {
		t.Errorf("%d ended, want 30", ended.Load())
	}
}

// One that cannot be read does not hide those behind it from the sweep.
func TestDueGoesOnBehindADamagedSession(t *testing.T) {
	s := gateways(t, "demo-session-damaged")[0]
	at := aSession().CreatedAt
	for i := range 5 {
		fields := sessionFields(aSession(), "r")
		fields["wake"], fields["size"], fields["shard"] = instant(at.Add(time.Duration(i))), text("no number"), integer(shardOf("a"))
		err := s.commit(t.Context(), &firestorepb.Write{Operation: &firestorepb.Write_Update{
			Update: &firestorepb.Document{Name: fmt.Sprint(s.parent, "damaged", i), Fields: fields}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	one := aSession()
	one.ID, one.Wake = "a", at.Add(time.Second)
	if err := s.Create(t.Context(), one, nil); err != nil {
		t.Fatal(err)
	}
	if due, err := s.Due(t.Context(), at.Add(time.Hour), 8); idsOf(due) != "a" || err == nil || !strings.Contains(err.Error(), "damaged0") {
		t.Errorf("%s, %v", idsOf(due), err)
	}
	if list, _, err := s.List(t.Context(), one.Namespace, one.UID, "", 10); err == nil {
		t.Errorf("List says nothing: %s", idsOf(list))
	}
}

// Two gateways create at once for one user: never more than the quota, and as
// much as that, and nothing is held that was given back.
func TestQuotaIsExactOverGateways(t *testing.T) {
	g := gateways(t, "demo-session-quota")
	q := &upload.Quota{Bytes: 100, Objects: 50, Window: time.Hour}
	var made, refused atomic.Int32
	var wg sync.WaitGroup
	create := func(s *Sessions, give bool) {
		one := held(10)
		var over *upload.QuotaError
		switch err := s.Create(t.Context(), one, q); {
		case errors.As(err, &over):
			refused.Add(1)
			return
		case err != nil:
			t.Error(err)
			return
		}
		made.Add(1)
		if give {
			if err := s.Transition(t.Context(), upload.Issued, released(one)); err != nil {
				t.Error(err)
			}
			made.Add(-1)
		}
	}
	for i := range 16 {
		wg.Go(func() { create(g[i%2], i%4 == 0) })
	}
	wg.Wait()
	for refused.Store(0); refused.Load() == 0; {
		create(g[0], false)
	}
	docs, err := g[0].get(t.Context(), g[0].countName(held(1)))
	if err != nil {
		t.Fatal(err)
	}
	count, err := g[0].decodeCount(held(1), docs[g[0].countName(held(1))])
	if err != nil || made.Load() != 10 || count.Usage != (upload.Usage{Objects: 10, Bytes: 100}) {
		t.Errorf("%d are held, want 10; counted %+v, %v", made.Load(), count, err)
	}
}
