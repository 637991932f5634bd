package proxy

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	"sidegate/storage/upload"
)

// fakeStore is an upload.Store and an upload.Index that fails both ways.
type fakeStore struct {
	mu       sync.Mutex
	sessions map[string]upload.Session
	used     map[string][2]int64 // objects and bytes, by account and window
	before   error
	after    error
	calls    []string
}

func account(s *upload.Session) string {
	return fmt.Sprintf("%q %q %q %d", s.Namespace, s.UID, s.Quota, s.QuotaWindow.Unix())
}

func (s *fakeStore) Create(_ context.Context, n *upload.Session, q *upload.Quota) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "create")
	if s.before != nil {
		return s.before
	}
	if _, ok := s.sessions[n.ID]; ok {
		return upload.ErrExists
	}
	if n.Held && q != nil {
		used := s.used[account(n)]
		switch {
		case q.Objects > 0 && used[0]+1 > q.Objects:
			return &upload.QuotaError{What: "objects"}
		case q.Bytes > 0 && used[1]+n.Counted > q.Bytes:
			return &upload.QuotaError{What: "bytes"}
		}
		s.used[account(n)] = [2]int64{used[0] + 1, used[1] + n.Counted}
	}
	s.sessions[n.ID] = *n
	return s.after
}

func (s *fakeStore) Get(_ context.Context, id string) (*upload.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "get")
	if s.before != nil {
		return nil, s.before
	}
	n, ok := s.sessions[id]
	if !ok {
		return nil, upload.ErrNotFound
	}
	return &n, nil
}

func (s *fakeStore) Transition(_ context.Context, from upload.Status, next *upload.Session) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "transition")
	if s.before != nil {
		return s.before
	}
	have, ok := s.sessions[next.ID]
	switch {
	case !ok:
		return upload.ErrNotFound
	case have.Status != from || have.Changes != next.Changes:
		return upload.ErrConflict
	}
	if have.Held && !next.Held {
		used := s.used[account(&have)]
		s.used[account(&have)] = [2]int64{used[0] - 1, used[1] - have.Counted}
	}
	next.Changes++
	s.sessions[next.ID] = *next
	return s.after
}

func (s *fakeStore) List(_ context.Context, namespace, uid, cursor string, limit int) ([]*upload.Session, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "list")
	if s.before != nil {
		return nil, "", s.before
	}
	var all []*upload.Session
	for _, one := range s.sessions {
		if one.Namespace == namespace && one.UID == uid {
			all = append(all, &one)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].ID < all[j].ID })
	from := 0
	if cursor != "" {
		n, err := strconv.Atoi(cursor)
		if err != nil || n < 0 || n > len(all) {
			return nil, "", upload.ErrCursor
		}
		from = n
	}
	to, next := min(from+limit, len(all)), ""
	if to < len(all) {
		next = strconv.Itoa(to)
	}
	return all[from:to], next, nil
}

func (s *fakeStore) Find(_ context.Context, namespace, uid, key string) (*upload.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, "find")
	if s.before != nil {
		return nil, s.before
	}
	for _, one := range s.sessions {
		if one.Namespace == namespace && one.UID == uid && one.Key == key {
			return &one, nil
		}
	}
	return nil, upload.ErrNotFound
}

func (s *fakeStore) Due(context.Context, time.Time, int) ([]*upload.Session, error) {
	return nil, nil
}

func (s *fakeStore) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

func (s *fakeStore) session(id string) upload.Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sessions[id]
}

func (s *fakeStore) set(change func(*fakeStore)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s)
}

// fakeBucket is an upload.Bucket. It fails as it is told: by kinds of calls, or
// at each.
type fakeBucket struct {
	mu     sync.Mutex
	store  *fakeStore
	object upload.Object // that Head finds, whatever the key
	head   error
	sign   error
	fail   map[string]error // by the call's name
	after  map[string]error // it is done, and this is said
	panics bool
	breaks string // panics at an upload of that type
	signed int
	urls   []string
	late   bool                     // something was signed before its session was on record
	parts  map[string][]upload.Part // by the multipart upload's id
	of     map[string]string        // its key
	made   map[string]upload.Object // of parts, or listed
	whole  upload.Object            // what else the store says of one made of parts
	gone   []string                 // keys that were deleted
	puts   []upload.Put
	next   int
	calls  []string
	keys   []struct{ call, key string } // or prefixes, that were asked about
}

func (b *fakeBucket) begin(call, key string) error {
	b.calls = append(b.calls, call)
	b.keys = append(b.keys, struct{ call, key string }{call, key})
	return b.fail[call]
}

func (b *fakeBucket) url(method, key, query string) string {
	u := "https://bucket.test/" + key + "?method=" + method + query + "&X-Amz-Signature=secret"
	b.signed++
	b.urls = append(b.urls, u)
	return u
}

func (b *fakeBucket) SignPut(_ context.Context, p upload.Put) (upload.Signed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.panics || b.breaks != "" && b.breaks == p.ContentType {
		panic("the bucket broke")
	}
	if err := b.begin("sign_put", p.Key); err != nil {
		return upload.Signed{}, err
	}
	if b.sign != nil {
		return upload.Signed{}, b.sign
	}
	b.puts = append(b.puts, p)
	b.late = b.late || b.store.count() == 0
	end := p.At.Add(p.Expires)
	if p.Form {
		b.url("POST", p.Key, "")
		return upload.Signed{
			URL: "https://bucket.test/", Method: "POST", Headers: http.Header{}, Expires: end,
			Fields: map[string]string{"key": p.Key, "Content-Type": p.ContentType, "x-amz-signature": "secret"},
		}, nil
	}
	headers := http.Header{"Content-Type": {p.ContentType}}
	if !p.Overwrite {
		headers["If-None-Match"] = []string{"*"}
	}
	if p.Checksum != "" {
		headers["X-Amz-Checksum-Sha256"] = []string{p.Checksum}
	}
	for name, value := range p.Metadata {
		headers.Set("x-amz-meta-"+name, value)
	}
	return upload.Signed{URL: b.url("PUT", p.Key, "&a=1"), Method: "PUT", Headers: headers, Expires: end}, nil
}

func (b *fakeBucket) SignGet(_ context.Context, get upload.Get) (upload.Signed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.begin("sign_get", get.Key); err != nil {
		return upload.Signed{}, err
	}
	if b.sign != nil {
		return upload.Signed{}, b.sign
	}
	method := "GET"
	if get.Head {
		method = "HEAD"
	}
	query := ""
	if get.ContentType != "" {
		query = "&response-content-type=" + get.ContentType
	}
	return upload.Signed{URL: b.url(method, get.Key, query), Method: method, Expires: time.Now().Truncate(time.Second).Add(get.Expires)}, nil
}

func (b *fakeBucket) SignMultipart(_ context.Context, calls []upload.MultipartCall) ([]upload.Signed, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.begin("sign_multipart", calls[0].Key); err != nil {
		return nil, err
	}
	if b.sign != nil {
		return nil, b.sign
	}
	var out []upload.Signed
	for _, c := range calls {
		headers := http.Header{}
		if c.Checksum != "" {
			headers["X-Amz-Checksum-Sha256"] = []string{c.Checksum}
		}
		out = append(out, upload.Signed{
			URL:    b.url("PUT", c.Key, fmt.Sprintf("&uploadId=%s&partNumber=%d", c.UploadID, c.Part)),
			Method: "PUT", Headers: headers, Expires: c.At.Add(c.Expires),
		})
	}
	return out, nil
}

func (b *fakeBucket) Head(_ context.Context, key string) (upload.Object, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.begin("head", key); err != nil {
		return upload.Object{}, err
	}
	if o, ok := b.made[key]; ok {
		return o, nil
	}
	return b.object, b.head
}

func (b *fakeBucket) Delete(_ context.Context, key, _ string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.begin("delete", key); err != nil {
		return err
	}
	delete(b.made, key)
	b.gone = append(b.gone, key)
	return b.after["delete"]
}

func (b *fakeBucket) List(_ context.Context, prefix, token string, limit int) ([]upload.Object, string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.begin("list", prefix); err != nil {
		return nil, "", err
	}
	var keys []string
	for key := range b.made {
		if strings.HasPrefix(key, prefix) && key > token {
			keys = append(keys, key)
		}
	}
	if token != "" && !strings.HasPrefix(token, prefix) {
		return nil, "", upload.ErrCursor
	}
	slices.Sort(keys)
	next := ""
	if len(keys) > limit {
		keys = keys[:limit]
		next = keys[limit-1]
	}
	var out []upload.Object
	for _, key := range keys {
		o := b.made[key]
		o.Key = key
		out = append(out, o)
	}
	return out, next, nil
}

func (b *fakeBucket) CreateMultipart(_ context.Context, p upload.Put) (string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.begin("create_multipart", p.Key); err != nil {
		return "", err
	}
	b.next++
	b.late = b.late || b.store.count() == 0
	b.puts = append(b.puts, p)
	id := fmt.Sprintf("upload-%d", b.next)
	b.parts[id], b.of[id] = nil, p.Key
	return id, b.after["create_multipart"]
}

func (b *fakeBucket) CompleteMultipart(_ context.Context, p upload.Put, id string, parts []upload.Part) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.begin("complete_multipart", p.Key); err != nil {
		return err
	}
	if b.of[id] != p.Key {
		return upload.ErrNoUpload
	}
	if _, taken := b.made[p.Key]; taken && !p.Overwrite {
		return upload.ErrTaken
	}
	o := b.whole
	o.ContentType, o.ETag = "image/png", `"whole-`+strconv.Itoa(len(parts))+`"`
	for _, part := range parts {
		o.Size += part.Size
	}
	delete(b.parts, id)
	delete(b.of, id)
	b.made[p.Key] = o
	return b.after["complete_multipart"]
}

func (b *fakeBucket) AbortMultipart(_ context.Context, key, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.begin("abort_multipart", key); err != nil {
		return err
	}
	if b.of[id] == key {
		delete(b.parts, id)
		delete(b.of, id)
	}
	return b.after["abort_multipart"]
}

func (b *fakeBucket) ListParts(_ context.Context, key, id string) ([]upload.Part, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.begin("list_parts", key); err != nil {
		return nil, err
	}
	if b.of[id] != key {
		return nil, upload.ErrNoUpload
	}
	return slices.Clone(b.parts[id]), nil
}

func (b *fakeBucket) OpenMultiparts(_ context.Context, key string) ([]upload.OpenMultipart, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.begin("open_multiparts", key); err != nil {
		return nil, err
	}
	var out []upload.OpenMultipart
	for id, of := range b.of {
		if of == key {
			out = append(out, upload.OpenMultipart{ID: id})
		}
	}
	return out, nil
}

// send is what a client does with the URL of a part.
func (b *fakeBucket) send(id string, number int, size int64) upload.Part {
	b.mu.Lock()
	defer b.mu.Unlock()
	part := upload.Part{Number: number, Size: size, ETag: fmt.Sprintf(`"part-%d"`, number)}
	b.parts[id] = append(b.parts[id], part)
	return part
}

func (b *fakeBucket) set(change func(*fakeBucket)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
}

// sum is a SHA-256 in base64, of nothing in particular.
var sum = base64.StdEncoding.EncodeToString([]byte(strings.Repeat("s", 32)))

// withUploads adds presign routes' store and bucket.
func withUploads() (*fakeStore, *fakeBucket, func(*Options)) {
	store := &fakeStore{sessions: map[string]upload.Session{}, used: map[string][2]int64{}}
	bucket := &fakeBucket{
		store: store, head: upload.ErrNoObject, fail: map[string]error{}, after: map[string]error{},
		parts: map[string][]upload.Part{}, of: map[string]string{}, made: map[string]upload.Object{},
	}
	return store, bucket, func(o *Options) {
		o.Uploads = &upload.Uploads{
			Store: store, Index: store, Now: o.Now,
			Buckets: map[string]upload.Bucket{"default": bucket, "other": bucket},
		}
	}
}

// looseBucket lists everything.
type looseBucket struct{ *fakeBucket }

func (c looseBucket) List(ctx context.Context, _, token string, limit int) ([]upload.Object, string, error) {
	return c.fakeBucket.List(ctx, "", token, limit)
}
