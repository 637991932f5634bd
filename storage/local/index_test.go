package local

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	bolt "go.etcd.io/bbolt"

	"sidegate/storage/upload"
)

var start = time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)

func create(t *testing.T, s *Store, one *upload.Session) {
	t.Helper()
	if err := s.Create(t.Context(), one, nil); err != nil {
		t.Fatal(err)
	}
}

// sessionOf is one of that user, created so many seconds after start.
func sessionOf(uid string, at int, id byte) *upload.Session {
	s := session()
	s.ID, s.UID = strings.Repeat(string(id), 32), uid
	s.CreatedAt = start.Add(time.Duration(at) * time.Second)
	return s
}

func idsOf(list []*upload.Session) (ids string) {
	for _, s := range list {
		ids += s.ID[:1]
	}
	return ids
}

func TestListIsNewestFirstAndOnesOwn(t *testing.T) {
	s := open(t, t.TempDir())
	for _, one := range []*upload.Session{
		sessionOf("u1", 3, 'c'), sessionOf("u1", 1, 'a'), sessionOf("u2", 2, 'x'), sessionOf("u1", 2, 'b'),
		sessionOf("u1", 3, 'd'), sessionOf("u1", -1<<32, '0'), sessionOf("u", 5, 'y'),
	} {
		create(t, s, one)
	}
	other := sessionOf("u1", 4, 'z') // the same uid of another identity
	other.Namespace = "partners"
	create(t, s, other)
	for limit := 1; limit <= 6; limit++ {
		var all, cursor string
		for page := 0; page == 0 || cursor != ""; page++ {
			list, next, err := s.List(t.Context(), "users", "u1", cursor, limit)
			if err != nil || len(list) > limit || page > 5 {
				t.Fatalf("limit %d: %d sessions, %v", limit, len(list), err)
			}
			all, cursor = all+idsOf(list), next
		}
		if all != "dcba0" {
			t.Errorf("limit %d: %s", limit, all)
		}
	}
	if list, next, err := s.List(t.Context(), "users", "nobody", "", 10); len(list) != 0 || next != "" || err != nil {
		t.Errorf("of nobody: %v, %q, %v", list, next, err)
	}
	if _, _, err := s.List(t.Context(), "users", "u1", "no cursor", 10); err != upload.ErrCursor {
		t.Errorf("cursor: %v", err)
	}
	// Another's cursor is a place in time, and shows nothing of theirs.
	list, _, err := s.List(t.Context(), "users", "u2", upload.CursorOf(sessionOf("u1", 3, 'c')), 10)
	if idsOf(list) != "x" || err != nil {
		t.Errorf("another's cursor: %s, %v", idsOf(list), err)
	}
}

func TestFindIsTheNewestOfTheKey(t *testing.T) {
	s := open(t, t.TempDir())
	for _, one := range []*upload.Session{sessionOf("u1", 1, 'a'), sessionOf("u1", 3, 'c'), sessionOf("u1", 2, 'b'), sessionOf("u2", 4, 'd')} {
		create(t, s, one)
	}
	if got, err := s.Find(t.Context(), "users", "u1", session().Key); err != nil || got.ID[0] != 'c' {
		t.Errorf("%+v, %v", got, err)
	}
	for _, who := range [][3]string{{"users", "u1", "other"}, {"partners", "u1", session().Key}, {"users", "u3", session().Key}, {"user", "su1", session().Key}} {
		if got, err := s.Find(t.Context(), who[0], who[1], who[2]); err != upload.ErrNotFound {
			t.Errorf("%v: %+v, %v", who, got, err)
		}
	}
}

func TestDueFollowsWake(t *testing.T) {
	s := open(t, t.TempDir())
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	for i, wake := range []int{30, 10, 20} {
		one := sessionOf("u1", 0, byte('a'+i))
		one.Wake = at(wake)
		create(t, s, one)
	}
	create(t, s, sessionOf("u1", 0, 'z')) // never
	due := func(now time.Time, limit int, want string) {
		t.Helper()
		if list, err := s.Due(t.Context(), now, limit); err != nil || idsOf(list) != want {
			t.Errorf("%s, %v, want %s", idsOf(list), err, want)
		}
	}
	due(at(9), 10, "")
	due(at(10), 10, "b")
	due(at(30).Add(-1), 10, "bc")
	due(at(30), 10, "bca")
	due(at(30), 2, "bc")
	b, err := s.Get(t.Context(), strings.Repeat("b", 32))
	if err != nil {
		t.Fatal(err)
	}
	b.Wake = at(25)
	if err := s.Transition(t.Context(), b.Status, b); err != nil {
		t.Fatal(err)
	}
	due(at(30), 10, "cba")
	b.Wake, b.Status = time.Time{}, upload.Expired
	if err := s.Transition(t.Context(), upload.Issued, b); err != nil {
		t.Fatal(err)
	}
	due(at(30), 10, "ca")
}

// One that cannot be read does not hide those behind it from the sweep.
func TestDueGoesOnBehindADamagedSession(t *testing.T) {
	s := open(t, t.TempDir())
	for i := range 3 {
		one := sessionOf("u1", 0, byte('a'+i))
		one.Wake = start.Add(time.Duration(i) * time.Second)
		create(t, s, one)
	}
	for what, damage := range map[string]func(b *bolt.Bucket) error{
		"no JSON": func(b *bolt.Bucket) error { return b.Put(sessionKey(strings.Repeat("a", 32)), []byte("{")) },
		"gone":    func(b *bolt.Bucket) error { return b.Delete(sessionKey(strings.Repeat("a", 32))) },
	} {
		if err := s.db.Update(func(tx *bolt.Tx) error { return damage(tx.Bucket(sessions)) }); err != nil {
			t.Fatal(err)
		}
		if list, err := s.Due(t.Context(), start.Add(time.Hour), 2); idsOf(list) != "bc" || err == nil {
			t.Errorf("%s: %s, %v", what, idsOf(list), err)
		}
		if _, _, err := s.List(t.Context(), "users", "u1", "", 10); err == nil {
			t.Errorf("%s: List says nothing", what)
		}
	}
}

// A transition counts from the state that was read, and not from the status alone.
func TestTransitionFromAnOldReading(t *testing.T) {
	s, one := open(t, t.TempDir()), session()
	create(t, s, one)
	first, second := *one, *one
	first.Attempts, second.Attempts = 1, 2
	if err := s.Transition(t.Context(), upload.Issued, &first); err != nil || first.Changes != 1 {
		t.Errorf("%v, changes %d", err, first.Changes)
	}
	if err := s.Transition(t.Context(), upload.Issued, &second); err != upload.ErrConflict || second.Changes != 0 {
		t.Errorf("%v, changes %d", err, second.Changes)
	}
	if got, err := s.Get(t.Context(), one.ID); err != nil || *got != first {
		t.Errorf("stored %+v, %v", got, err)
	}
	for what, change := range map[string]func(n *upload.Session){
		"uid": func(n *upload.Session) { n.UID = "u2" }, "namespace": func(n *upload.Session) { n.Namespace = "x" },
		"key": func(n *upload.Session) { n.Key = "x" }, "created": func(n *upload.Session) { n.CreatedAt = start.Add(1) },
		"held": func(n *upload.Session) { n.Held = true },
	} {
		next := first
		change(&next)
		if err := s.Transition(t.Context(), upload.Issued, &next); err == nil || errors.Is(err, upload.ErrConflict) {
			t.Errorf("another %s: %v", what, err)
		}
	}
}

// earlier writes sessions as the version before did: without what they are
// found by.
func earlier(t *testing.T, dir string, list ...*upload.Session) {
	t.Helper()
	db, err := bolt.Open(filepath.Join(dir, fileName), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(oldSessions)
		for _, s := range list {
			value := fmt.Sprintf(`{"session":%q,"uid":%q,"namespace":"users","key":%q,"size":-1,"status":"issued","createdAt":%q}`,
				s.ID, s.UID, s.Key, s.CreatedAt.Format(time.RFC3339))
			err = errors.Join(err, b.Put([]byte(s.ID), []byte(value)))
		}
		return errors.Join(err, b.Put([]byte("damaged"), []byte("{")))
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSessionsOfAnEarlierVersionAreFound(t *testing.T) {
	dir := t.TempDir()
	var old []*upload.Session
	for i := range 26 {
		old = append(old, sessionOf("u1", i, byte('a'+i)))
	}
	earlier(t, dir, old...)
	s := open(t, dir)
	list, _, err := s.List(t.Context(), "users", "u1", "", 100)
	if err != nil || len(list) != 26 || list[0].ID[0] != 'z' {
		t.Errorf("%s, %v", idsOf(list), err)
	}
	if got, err := s.Find(t.Context(), "users", "u1", session().Key); err != nil || got.ID[0] != 'z' {
		t.Errorf("%+v, %v", got, err)
	}
	next := *list[0]
	next.Status, next.Wake = upload.Ready, start
	if err := s.Transition(t.Context(), upload.Issued, &next); err != nil {
		t.Error(err)
	}
	s.Close()

	// A version that was gone back to adds one, and takes nothing back.
	again := sessionOf("u1", 100, '0')
	earlier(t, dir, again, list[0])
	s = open(t, dir)
	if list, _, err := s.List(t.Context(), "users", "u1", "", 2); err != nil || idsOf(list) != "0z" {
		t.Errorf("%s, %v", idsOf(list), err)
	}
	if due, err := s.Due(t.Context(), start, 10); err != nil || idsOf(due) != "z" || *due[0] != next {
		t.Errorf("due %s, %v", idsOf(due), err)
	}
	if got, err := s.Get(t.Context(), "damaged"); err == nil || errors.Is(err, upload.ErrNotFound) {
		t.Errorf("damaged: %+v, %v", got, err)
	}
	err = s.db.View(func(tx *bolt.Tx) error {
		if tx.Bucket(oldSessions) != nil {
			return errors.New("the old bucket is there")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestManySessionsAreTakenOverInParts(t *testing.T) {
	dir := t.TempDir()
	var old []*upload.Session
	for i := range 2 * takenAtOnce {
		one := sessionOf("u1", i, 'a')
		one.ID = fmt.Sprintf("%032x", i)
		old = append(old, one)
	}
	earlier(t, dir, old...)
	s := open(t, dir)
	n := 0
	err := s.db.View(func(tx *bolt.Tx) error {
		return ofKind(tx, listed, &n)
	})
	if err != nil || n != len(old) {
		t.Errorf("%d, %v, want %d", n, err, len(old))
	}
	for _, one := range []*upload.Session{old[0], old[len(old)-1]} {
		if got, err := s.Get(t.Context(), one.ID); err != nil || got.Key != one.Key {
			t.Errorf("%+v, %v", got, err)
		}
	}
}

func held(uid string, at int, bytes int64) *upload.Session {
	s := session()
	s.UID, s.CreatedAt = uid, start.Add(time.Duration(at)*time.Second)
	s.Quota, s.QuotaWindow, s.Counted, s.Held = "uploads", s.CreatedAt.Truncate(time.Hour), bytes, true
	return s
}

func TestQuota(t *testing.T) {
	s := open(t, t.TempDir())
	q := &upload.Quota{Bytes: 100, Objects: 3, Window: time.Hour}
	over := func(one *upload.Session, what string, retry time.Duration) {
		t.Helper()
		var e *upload.QuotaError
		if err := s.Create(t.Context(), one, q); !errors.As(err, &e) || e.What != what || e.Retry != retry {
			t.Errorf("%v %+v, want %s, %v", err, e, what, retry)
		}
		if _, err := s.Get(t.Context(), one.ID); err != upload.ErrNotFound {
			t.Errorf("stored all the same: %v", err)
		}
	}
	fits := func(one *upload.Session) {
		t.Helper()
		if err := s.Create(t.Context(), one, q); err != nil {
			t.Error(err)
		}
	}
	first := held("u1", 0, 60)
	fits(first)
	if err := s.Create(t.Context(), first, q); err != upload.ErrExists {
		t.Errorf("again: %v", err) // and is counted once
	}
	over(held("u1", 60, 41), "bytes", 59*time.Minute)
	over(held("u1", 60, 1<<62), "bytes", 59*time.Minute)
	fits(held("u1", 61, 40))
	fits(held("u1", 62, 0))
	over(held("u1", 63, 0), "objects", 59*time.Minute-3*time.Second)
	if err := s.Create(t.Context(), first, q); err != upload.ErrExists {
		t.Errorf("a full quota hides the session that is there: %v", err)
	}
	fits(held("u2", 63, 100))   // another user
	fits(held("u1", 3600, 100)) // another window
	other := held("u1", 63, 100)
	other.Quota = "videos"
	fits(other)
	other = held("u1", 63, 100)
	other.Namespace = "partners"
	fits(other)

	first.Status, first.Held = upload.Aborted, false
	for range 2 {
		if err := s.Transition(t.Context(), upload.Issued, first); err != nil && err != upload.ErrConflict {
			t.Error(err)
		}
	}
	fits(held("u1", 64, 60)) // what was given back, once
	over(held("u1", 65, 0), "objects", 59*time.Minute-5*time.Second)
}

// Attack: a session that is held by no quota, or counts less than nothing,
// would make room for others.
func TestWhatCannotBeCountedIsNotStored(t *testing.T) {
	s := open(t, t.TempDir())
	q := &upload.Quota{Bytes: 10, Window: time.Hour}
	free, negative, nameless := session(), held("u1", 0, -5), held("u1", 0, 5)
	nameless.Quota = ""
	for _, c := range []struct {
		s *upload.Session
		q *upload.Quota
	}{{held("u1", 0, 5), nil}, {free, q}, {negative, q}, {nameless, q}, {held("u1", 0, 5), &upload.Quota{Bytes: 10}},
		{held("u1", 0, 5), &upload.Quota{Bytes: -1, Window: time.Hour}}} {
		if err := s.Create(t.Context(), c.s, c.q); err == nil || errors.Is(err, upload.ErrExists) {
			t.Errorf("%+v under %+v: %v", c.s, c.q, err)
		}
	}
}

func TestDamagedQuota(t *testing.T) {
	s := open(t, t.TempDir())
	q, one := &upload.Quota{Objects: 10, Window: time.Hour}, held("u1", 0, 5)
	if err := s.Create(t.Context(), one, q); err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"", "x", strings.Repeat("\xff", usageSize)} {
		err := s.db.Update(func(tx *bolt.Tx) error { return tx.Bucket(owners).Put(quotaKey(one), []byte(value)) })
		if err != nil {
			t.Fatal(err)
		}
		var over *upload.QuotaError
		if err := s.Create(t.Context(), held("u1", 1, 5), q); err == nil || errors.As(err, &over) {
			t.Errorf("%q: Create: %v", value, err)
		}
		next := *one
		next.Status, next.Held = upload.Aborted, false
		if err := s.Transition(t.Context(), upload.Issued, &next); err == nil || errors.Is(err, upload.ErrConflict) {
			t.Errorf("%q: Transition: %v", value, err)
		}
	}
}

// Windows that are over leave nothing behind, however many there were.
func TestCountsOfOldWindowsGo(t *testing.T) {
	s := open(t, t.TempDir())
	hour, minute := &upload.Quota{Objects: 10, Window: time.Hour}, &upload.Quota{Objects: 10, Window: time.Minute}
	for i := range 300 {
		one := held(fmt.Sprint("u", i%3), 60*i, 1)
		one.QuotaWindow = one.CreatedAt.Truncate(time.Minute)
		if err := s.Create(t.Context(), one, minute); err != nil {
			t.Fatal(err)
		}
	}
	if n := counts(t, s); n > 62 {
		t.Errorf("%d counts, though those older than an hour are over", n)
	}
	// A window that grew keeps its count until the longer one is over.
	grown := held("u9", 60*300, 1)
	if err := s.Create(t.Context(), grown, minute); err != nil {
		t.Fatal(err)
	}
	again := held("u9", 60*300, 1)
	if err := s.Create(t.Context(), again, hour); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := s.Create(t.Context(), held(fmt.Sprint("v", i), 60*300+3600+60*30, 1), hour); err != nil {
			t.Fatal(err)
		}
	}
	err := s.db.View(func(tx *bolt.Tx) error {
		u, err := decodeUsage(tx.Bucket(owners).Get(quotaKey(grown)))
		if err == nil && u.Objects != 2 {
			err = fmt.Errorf("%d objects", u.Objects)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	// To give back what is no longer counted is no fault.
	old := held("u0", 0, 1)
	old.QuotaWindow = old.CreatedAt.Truncate(time.Minute)
	err = s.db.Batch(func(tx *bolt.Tx) error { return giveBack(tx, old) })
	if err != nil {
		t.Error(err)
	}
}

func ofKind(tx *bolt.Tx, kind byte, n *int) error {
	return tx.Bucket(owners).ForEach(func(k, _ []byte) error {
		if k[hashSize] == kind {
			*n++
		}
		return nil
	})
}

func counts(t *testing.T, s *Store) (n int) {
	t.Helper()
	err := s.db.View(func(tx *bolt.Tx) error {
		ends := 0
		err := tx.Bucket(quotaEnds).ForEach(func(_, _ []byte) error { ends++; return nil })
		return errors.Join(err, ofKind(tx, counted, &n), func() error {
			if n != ends {
				return fmt.Errorf("%d counts, %d ends", n, ends)
			}
			return nil
		}())
	})
	if err != nil {
		t.Error(err)
	}
	return n
}

func TestQuotaIsExactAtOnce(t *testing.T) {
	s := open(t, t.TempDir())
	q := &upload.Quota{Bytes: 500, Objects: 60, Window: time.Hour}
	var made, refused atomic.Int64
	var wg sync.WaitGroup
	for i := range 200 {
		wg.Go(func() {
			one := held("u1", i, 10)
			var over *upload.QuotaError
			switch err := s.Create(t.Context(), one, q); {
			case err == nil:
				made.Add(1)
			case errors.As(err, &over):
				refused.Add(1)
				return
			default:
				t.Error(err)
			}
			if i%5 == 0 { // gives its place to another
				one.Status, one.Held = upload.Aborted, false
				if err := s.Transition(t.Context(), upload.Issued, one); err != nil {
					t.Error(err)
				}
				made.Add(-1)
			}
		})
	}
	wg.Wait()
	for s.Create(t.Context(), held("u1", 1, 10), q) == nil {
		made.Add(1)
	}
	if made.Load() != 50 || refused.Load() == 0 {
		t.Errorf("%d sessions are held, %d refused, want 50 held", made.Load(), refused.Load())
	}
}

// New sessions stand side by side, and no two in one place.
func TestSessionKeysRise(t *testing.T) {
	seen := map[string]bool{}
	for _, id := range []string{"", "a", "ab", strings.Repeat("a", 11) + "b", "b" + strings.Repeat("a", 11), strings.Repeat("a", 31) + "b", "b" + strings.Repeat("a", 31)} {
		if k := string(sessionKey(id)); seen[k] || len(k) != len(id) {
			t.Errorf("%q: %q", id, k)
		} else if seen[k] = true; idOf([]byte(k)) != id {
			t.Errorf("%q at %q is read as %q", id, k, idOf([]byte(k)))
		}
	}
	// Their times are whole seconds: within one they stand by their ids' time.
	places := func() [][]byte {
		one := &upload.Session{ID: upload.NewID(), CreatedAt: start, Wake: start}
		return [][]byte{sessionKey(one.ID), place(one), wakeKey(one)}
	}
	synctest.Test(t, func(t *testing.T) { // whose clock nobody sets back
		for range 100 {
			before := places()
			time.Sleep(time.Millisecond)
			for i, after := range places() {
				if bytes.Compare(before[i], after) >= 0 {
					t.Errorf("%x after %x", after, before[i])
				}
			}
		}
	})
}

// Whatever stands in the file is a session as it was stored, or an error.
func FuzzDamagedRecords(f *testing.F) {
	one := held("u1", 0, 1)
	one.ID = "a"
	for _, seed := range [][4]string{
		{"{", "", "", ""}, {`{"session":"a"}`, "a", "a", strings.Repeat("\x80", usageSize)},
		{`{"session":"a","uid":"u1","namespace":"users","wake":"9999-99-99"}`, strings.Repeat("\xff", 40), strings.Repeat("\x00", 40), "x"},
		{`null`, string(place(one)), string(wakeKey(one)), ""}, {`{"session":"a","held":1}`, "\x80", "\x80", ""}, {`[]`, "", "\x00", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	s, err := Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	s.db.NoSync = true
	f.Fuzz(func(t *testing.T, value, at, wake, count string) {
		owner := of(one.Namespace, one.UID, listed)
		if len(wake) > 1<<10 || len(at) > 1<<10 || wake == "" {
			t.Skip()
		}
		err := s.db.Update(func(tx *bolt.Tx) error {
			return errors.Join(
				tx.Bucket(sessions).Put([]byte("a"), []byte(value)), tx.Bucket(owners).Put(append(owner, at...), keyMark(one.Key)),
				tx.Bucket(wakes).Put([]byte(wake), nil),
				tx.Bucket(owners).Put(quotaKey(one), []byte(count)), tx.Bucket(quotaEnds).Put([]byte(wake), nil))
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(t.Context(), "a"); (got == nil) == (err == nil) || got != nil && got.ID != "a" {
			t.Errorf("Get: %+v, %v", got, err)
		}
		list, _, err := s.List(t.Context(), one.Namespace, one.UID, "", 10)
		if found, err2 := s.Find(t.Context(), one.Namespace, one.UID, one.Key); err2 == nil {
			list = append(list, found)
		}
		due, _ := s.Due(t.Context(), start.AddDate(100, 0, 0), 10)
		for _, x := range append(list, due...) {
			if x == nil || x.ID != "a" {
				t.Errorf("found %+v, %v", x, err)
			}
		}
		_ = s.Transition(t.Context(), upload.Issued, released(one))
		next := held("u1", 1, 1)
		if err := s.Create(t.Context(), next, &upload.Quota{Objects: 5, Window: time.Hour}); err == nil {
			if got, err := s.Get(t.Context(), next.ID); err != nil || *got != *next {
				t.Errorf("stored %+v, %v", got, err)
			}
		}
		err = s.db.Update(func(tx *bolt.Tx) error {
			for _, name := range [][]byte{sessions, owners, wakes, quotaEnds} {
				if err := errors.Join(tx.DeleteBucket(name), func() error { _, err := tx.CreateBucket(name); return err }()); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

func released(s *upload.Session) *upload.Session {
	next := *s
	next.Status, next.Held = upload.Aborted, false
	return &next
}

// Times sort as their bytes do.
func FuzzTimesSort(f *testing.F) {
	f.Add(int64(0), int64(0), int64(-1), int64(999999999))
	f.Fuzz(func(t *testing.T, s1, n1, s2, n2 int64) {
		const most = 1 << 40
		a, b := time.Unix(s1%most, n1%1e9), time.Unix(s2%most, n2%1e9)
		if got := bytes.Compare(appendTime(nil, a), appendTime(nil, b)); got != a.Compare(b) {
			t.Errorf("%v and %v: %d", a, b, got)
		}
	})
}

func TestNoTwoAccountsAreOne(t *testing.T) {
	var seen [][]byte
	for _, parts := range [][]string{{"a", "b"}, {"ab", ""}, {"", "ab"}, {"a", "b", ""}, {"a\x01b"}, {"ab"}} {
		h := hash(parts...)
		if slices.ContainsFunc(seen, func(x []byte) bool { return bytes.Equal(x, h) }) {
			t.Errorf("%q is another", parts)
		}
		seen = append(seen, h)
	}
}
