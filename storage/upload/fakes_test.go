package upload

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A mode is how a call of a store or bucket goes wrong.
type mode string

const (
	refused     mode = "refused"      // an error, and nothing was done
	lost        mode = "lost"         // an error, and it was done
	killedFirst mode = "killed first" // the process dies before it is done
	killedThen  mode = "killed then"  // the process dies when it was done
	deadFirst   mode = "dead first"   // as killed, of a process with many goroutines:
	deadThen    mode = "dead then"    // nothing that it does from here on is done
)

var modes = []mode{refused, lost, killedFirst, killedThen}

// killed is what the process dies of.
type killed struct{}

// faults make the n-th call of store and bucket go wrong.
type faults struct {
	mu    sync.Mutex
	calls []string
	at    int // 0: none does
	mode  mode
	err   error
	dead  bool
}

// reset forgets the calls that were made, and sets which one goes wrong.
func (f *faults) reset(at int, m mode, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls, f.at, f.mode, f.err, f.dead = nil, at, m, err, false
}

// call runs do as one call, whose error it returns.
func (f *faults) call(name string, do func() error) error {
	f.mu.Lock()
	f.calls = append(f.calls, name)
	hit := f.at != 0 && len(f.calls) == f.at
	m, err, dead := f.mode, f.err, f.dead
	f.dead = dead || hit && (m == deadFirst || m == deadThen)
	f.mu.Unlock()
	if dead || hit && m == deadFirst {
		return errors.New("the process is dead")
	}
	if !hit {
		return do()
	}
	switch m {
	case refused:
		return err
	case killedFirst:
		panic(killed{})
	}
	if done := do(); done != nil {
		return done
	}
	if m == killedThen {
		panic(killed{})
	}
	return err
}

type account struct {
	namespace, uid, name string
	window               int64
}

type usage struct{ objects, bytes int64 }

// memory is a Store and an Index that fail on demand: before the write, or
// after it.
type memory struct {
	*faults
	mu          sync.Mutex
	sessions    map[string]Session
	used        map[account]usage
	failBefore  error
	failAfter   error
	transitions int
	moves       map[string][]Status // of each session
	meanwhile   func()              // runs once before a transition, unlocked
}

func newMemory(f *faults) *memory {
	return &memory{faults: f, sessions: map[string]Session{}, used: map[account]usage{}, moves: map[string][]Status{}}
}

func (s *Session) account() account {
	return account{s.Namespace, s.UID, s.Quota, s.QuotaWindow.UnixNano()}
}

func (m *memory) Create(_ context.Context, s *Session, q *Quota) error {
	return m.call("Create", func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.failBefore != nil {
			return m.failBefore
		}
		if _, ok := m.sessions[s.ID]; ok {
			return ErrExists
		}
		if s.Held {
			u := m.used[s.account()]
			u.objects, u.bytes = u.objects+1, u.bytes+s.Counted
			if q.Objects > 0 && u.objects > q.Objects {
				return &QuotaError{What: "objects"}
			}
			if q.Bytes > 0 && u.bytes > q.Bytes {
				return &QuotaError{What: "bytes"}
			}
			m.used[s.account()] = u
		}
		m.sessions[s.ID] = *s
		return m.failAfter
	})
}

func (m *memory) Get(_ context.Context, id string) (out *Session, err error) {
	return out, m.call("Get", func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.failBefore != nil {
			return m.failBefore
		}
		s, ok := m.sessions[id]
		if !ok {
			return ErrNotFound
		}
		out = &s
		return nil
	})
}

func (m *memory) Transition(_ context.Context, from Status, next *Session) error {
	if f := m.meanwhile; f != nil {
		m.meanwhile = nil
		f()
	}
	return m.call("Transition", func() error {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.failBefore != nil {
			return m.failBefore
		}
		s, ok := m.sessions[next.ID]
		if !ok {
			return ErrNotFound
		}
		if s.Status != from || s.Changes != next.Changes {
			return ErrConflict
		}
		next.Changes++
		if s.Held && !next.Held {
			u := m.used[s.account()]
			u.objects, u.bytes = u.objects-1, u.bytes-s.Counted
			m.used[s.account()] = u
		}
		m.sessions[next.ID] = *next
		m.transitions++
		if s.Status != next.Status {
			m.moves[next.ID] = append(m.moves[next.ID], next.Status)
		}
		return m.failAfter
	})
}

func (m *memory) sorted(keep func(*Session) bool, order func(a, b *Session) int) []*Session {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*Session
	for _, s := range m.sessions {
		if keep(&s) {
			out = append(out, &s)
		}
	}
	slices.SortFunc(out, order)
	return out
}

func newest(a, b *Session) int {
	return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.ID, a.ID))
}

func (m *memory) List(_ context.Context, namespace, uid, cursor string, limit int) (page []*Session, next string, err error) {
	return page, next, m.call("List", func() error {
		page = m.sorted(func(s *Session) bool { return s.Namespace == namespace && s.UID == uid }, newest)
		if cursor != "" {
			i := slices.IndexFunc(page, func(s *Session) bool { return s.ID == cursor })
			if i < 0 {
				return ErrCursor
			}
			page = page[i+1:]
		}
		if len(page) > limit {
			page = page[:limit]
			next = page[limit-1].ID
		}
		return nil
	})
}

func (m *memory) Find(_ context.Context, namespace, uid, key string) (found *Session, err error) {
	return found, m.call("Find", func() error {
		all := m.sorted(func(s *Session) bool { return s.Namespace == namespace && s.UID == uid && s.Key == key }, newest)
		if len(all) == 0 {
			return ErrNotFound
		}
		found = all[0]
		return nil
	})
}

func (m *memory) Due(_ context.Context, now time.Time, limit int) (due []*Session, err error) {
	return due, m.call("Due", func() error {
		due = m.sorted(func(s *Session) bool { return !s.Wake.IsZero() && !s.Wake.After(now) },
			func(a, b *Session) int { return a.Wake.Compare(b.Wake) })
		due = due[:min(limit, len(due))]
		return nil
	})
}

// minPart is S3's: every part but the last has as much at least.
const minPart = 5 << 20

// an upload that is open at a shelf.
type openUpload struct {
	put   Put
	parts map[int]Part
	begun time.Time
}

// shelf is a Bucket. It holds no bytes, only what is known of them.
type shelf struct {
	*faults
	t         *testing.T
	store     *memory
	now       func() time.Time
	versioned bool

	mu      sync.Mutex
	object  *Object // under every key that has nothing else; nil: nothing
	objects map[string][]Object
	open    map[string]*openUpload
	made    int // uploads and versions, for their names

	headErr error
	signErr error
	longer  time.Duration // signs beyond what was asked
	puts    []Put
	gets    []Get
	calls   []MultipartCall
	deleted []string
	aborted []string
	hook    func(op string) // runs within a call, unlocked
}

func (b *shelf) run(op string) {
	if b.hook != nil {
		b.hook(op)
	}
}

// onRecord fails the test where nothing on record allows a URL.
func (b *shelf) onRecord(what string, allows func(s *Session) bool) {
	b.store.mu.Lock()
	defer b.store.mu.Unlock()
	for _, s := range b.store.sessions {
		if allows(&s) {
			return
		}
	}
	b.t.Errorf("signed %s, which is not on record", what)
}

func (b *shelf) SignPut(_ context.Context, p Put) (signed Signed, err error) {
	return signed, b.faults.call("SignPut", func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.onRecord("a put of "+p.Key, func(s *Session) bool {
			return s.Key == p.Key && !s.Multipart && !p.At.Add(p.Expires).After(s.ExpiresAt)
		})
		b.puts = append(b.puts, p)
		signed = Signed{URL: fmt.Sprintf("https://store.test/%s?%+v", p.Key, p), Method: http.MethodPut, Expires: p.At.Add(p.Expires + b.longer)}
		if p.Form {
			signed.Method = http.MethodPost
		}
		return b.signErr
	})
}

func (b *shelf) SignGet(_ context.Context, g Get) (signed Signed, err error) {
	return signed, b.faults.call("SignGet", func() error {
		b.gets = append(b.gets, g)
		signed = Signed{URL: "https://store.test/" + g.Key, Method: http.MethodGet}
		return b.signErr
	})
}

func (b *shelf) SignMultipart(_ context.Context, calls []MultipartCall) (signed []Signed, err error) {
	return signed, b.faults.call("SignMultipart", func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, c := range calls {
			end := c.At.Add(c.Expires)
			b.onRecord(fmt.Sprintf("call %d of %s", c.Op, c.Key), func(s *Session) bool {
				if c.Op == CreateUpload {
					return s.Key == c.Key && s.Multipart && !end.After(s.ExpiresAt)
				}
				return s.Key == c.Key && s.UploadID == c.UploadID && c.UploadID != "" && !end.After(s.ConfirmBy)
			})
			b.calls = append(b.calls, c)
			signed = append(signed, Signed{URL: fmt.Sprintf("https://store.test/%s?%+v", c.Key, c), Expires: end.Add(b.longer)})
		}
		return b.signErr
	})
}

func (b *shelf) Head(_ context.Context, key string) (o Object, err error) {
	return o, b.faults.call("Head", func() error {
		b.run("Head")
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.headErr != nil {
			return b.headErr
		}
		if all := b.objects[key]; len(all) > 0 {
			o = all[len(all)-1]
			return nil
		}
		if b.object == nil {
			return ErrNoObject
		}
		o = *b.object
		return nil
	})
}

// put is what a client does with a URL; it says whether the store took it.
func (b *shelf) put(key string, o Object, overwrite bool) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.place(key, o, overwrite)
}

func (b *shelf) place(key string, o Object, overwrite bool) bool {
	if !overwrite && len(b.objects[key]) > 0 {
		return false
	}
	b.made++
	o.Key, o.Modified = key, b.now()
	if o.ETag == "" {
		o.ETag = fmt.Sprintf(`"e%d"`, b.made)
	}
	if b.versioned {
		o.VersionID = fmt.Sprintf("v%d", b.made)
		b.objects[key] = append(b.objects[key], o)
	} else {
		b.objects[key] = []Object{o}
	}
	return true
}

func (b *shelf) Delete(_ context.Context, key, version string) error {
	return b.faults.call("Delete", func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.deleted = append(b.deleted, key+"@"+version)
		if version == "" {
			delete(b.objects, key)
			return nil
		}
		b.objects[key] = slices.DeleteFunc(b.objects[key], func(o Object) bool { return o.VersionID == version })
		return nil
	})
}

func (b *shelf) List(_ context.Context, prefix, token string, limit int) (page []Object, next string, err error) {
	return page, next, b.faults.call("ListObjects", func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		from := 0
		if token != "" {
			if from, err = strconv.Atoi(token); err != nil {
				return ErrCursor
			}
		}
		var all []Object
		for key, versions := range b.objects {
			if strings.HasPrefix(key, prefix) && len(versions) > 0 {
				all = append(all, versions[len(versions)-1])
			}
		}
		slices.SortFunc(all, func(a, b Object) int { return cmp.Compare(a.Key, b.Key) })
		page = all[min(from, len(all)):min(from+limit, len(all))]
		if from+limit < len(all) {
			next = strconv.Itoa(from + limit)
		}
		return nil
	})
}

func (b *shelf) CreateMultipart(_ context.Context, p Put) (id string, err error) {
	return id, b.faults.call("CreateMultipart", func() error {
		b.run("CreateMultipart")
		b.onRecord("a multipart upload of "+p.Key, func(s *Session) bool { return s.Key == p.Key && s.Multipart })
		id = b.create(p)
		return nil
	})
}

// create is also what a client does with a URL.
func (b *shelf) create(p Put) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.made++
	id := fmt.Sprintf("upload-%d", b.made)
	b.open[id] = &openUpload{put: p, parts: map[int]Part{}, begun: b.now()}
	return id
}

// part is what a client does with a part's URL.
func (b *shelf) part(id string, number int, size int64) Part {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := Part{Number: number, Size: size, ETag: fmt.Sprintf(`"p%d-%d"`, number, size)}
	if u := b.open[id]; u != nil {
		u.parts[number] = p
	}
	return p
}

func (u *openUpload) list() []Part {
	var out []Part
	for _, p := range u.parts {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Part) int { return a.Number - b.Number })
	return out
}

func (b *shelf) ListParts(_ context.Context, key, id string) (parts []Part, err error) {
	return parts, b.faults.call("ListParts", func() error {
		b.run("ListParts")
		b.mu.Lock()
		defer b.mu.Unlock()
		u := b.open[id]
		if u == nil || u.put.Key != key {
			return ErrNoUpload
		}
		parts = u.list()
		return nil
	})
}

func (b *shelf) CompleteMultipart(_ context.Context, p Put, id string, parts []Part) error {
	return b.faults.call("CompleteMultipart", func() error {
		b.run("CompleteMultipart")
		return b.complete(p, id, parts)
	})
}

// complete is also what a client does with a URL.
func (b *shelf) complete(p Put, id string, parts []Part) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	u := b.open[id]
	if u == nil || u.put.Key != p.Key {
		if !p.Overwrite && len(b.objects[p.Key]) > 0 {
			return ErrTaken // S3 looks at the condition first
		}
		return ErrNoUpload
	}
	if len(parts) == 0 {
		return ErrParts
	}
	var size int64
	for i, part := range parts {
		if u.parts[part.Number] != part || i > 0 && parts[i-1].Number >= part.Number || i < len(parts)-1 && part.Size < minPart {
			return ErrParts
		}
		size += part.Size
	}
	if !p.Overwrite && len(b.objects[p.Key]) > 0 {
		return ErrTaken
	}
	b.place(p.Key, Object{Size: size, ContentType: u.put.ContentType, Checksum64: u.put.Checksum64,
		ETag: fmt.Sprintf(`"%s-%d"`, id, len(parts))}, true)
	// S3's word for an object of parts is when its upload began
	// (docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html).
	b.objects[p.Key][len(b.objects[p.Key])-1].Modified = u.begun
	delete(b.open, id)
	return nil
}

func (b *shelf) AbortMultipart(_ context.Context, key, id string) error {
	return b.faults.call("AbortMultipart", func() error {
		b.run("AbortMultipart")
		b.mu.Lock()
		defer b.mu.Unlock()
		if u := b.open[id]; u != nil && u.put.Key == key {
			b.aborted = append(b.aborted, id)
			delete(b.open, id)
		}
		return nil
	})
}

func (b *shelf) OpenMultiparts(_ context.Context, key string) (open []OpenMultipart, err error) {
	return open, b.faults.call("OpenMultiparts", func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		for id, u := range b.open {
			if u.put.Key == key {
				open = append(open, OpenMultipart{id, u.begun})
			}
		}
		slices.SortFunc(open, func(a, b OpenMultipart) int { return cmp.Compare(a.ID, b.ID) })
		return nil
	})
}

// A fixture is a gateway's Uploads over a store and a bucket; others can be
// made over the same.
type fixture struct {
	*Uploads
	faults *faults
	store  *memory
	bucket *shelf

	clock sync.Mutex
	now   time.Time
}

var start = time.Date(2026, 3, 2, 10, 0, 0, 500e6, time.UTC)

// newFixture has the object of jpeg() under every key.
func newFixture(t *testing.T) *fixture {
	f := newEmpty(t)
	f.bucket.object = &Object{Size: 5, ContentType: "image/jpeg", ETag: `"e"`, VersionID: "v"}
	return f
}

// newEmpty has nothing in its bucket.
func newEmpty(t *testing.T) *fixture {
	f := &fixture{faults: &faults{}, now: start}
	f.store = newMemory(f.faults)
	f.bucket = &shelf{faults: f.faults, t: t, store: f.store, now: f.time, objects: map[string][]Object{}, open: map[string]*openUpload{}}
	f.Uploads = f.gateway()
	return f
}

// gateway is one more over the same store and bucket.
func (f *fixture) gateway() *Uploads {
	return &Uploads{Store: f.store, Index: f.store, Buckets: map[string]Bucket{"default": f.bucket}, Now: f.time}
}

func (f *fixture) time() time.Time {
	f.clock.Lock()
	defer f.clock.Unlock()
	return f.now
}

func (f *fixture) set(now time.Time) {
	f.clock.Lock()
	defer f.clock.Unlock()
	f.now = now
}

func (f *fixture) stored(t *testing.T, id string) *Session {
	t.Helper()
	f.store.mu.Lock()
	defer f.store.mu.Unlock()
	s, ok := f.store.sessions[id]
	if !ok {
		t.Fatalf("no session %s", id)
	}
	return &s
}

func (f *fixture) begin(t *testing.T, r Request) *Session {
	t.Helper()
	s, _, err := f.Begin(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func jpeg() Request {
	return Request{
		ID: NewID(), Namespace: "users", UID: "u1", Identity: "users", Record: "r1", Route: "photos",
		Bucket: "default", Key: "users/u1/a.jpg", ContentType: "image/jpeg", Size: 5,
		Expires: 15 * time.Minute, ConfirmWithin: time.Hour,
	}
}

// owned gives the request a key that is its session's alone.
func owned(r Request) Request {
	r.Key = "users/u1/uploads/" + UUIDOf(r.ID) + ".jpg"
	return r
}

// idempotent gives the request an Idempotency-Key.
func idempotent(r Request, key string) Request {
	r.Idempotency = key
	r.ID, _ = IdempotentID(r.Namespace, r.UID, r.Route, key)
	return owned(r)
}

// video is a multipart upload of 12 MiB in parts of 5.
func video() Request {
	r := jpeg()
	r.ContentType, r.Size, r.MaxBytes = "video/mp4", 12<<20, 20<<20
	return owned(r)
}

var videoParts = []int64{5 << 20, 5 << 20, 2 << 20}

func errorsIsAny(err error, targets ...error) bool {
	return slices.ContainsFunc(targets, func(t error) bool { return errors.Is(err, t) })
}
