package upload

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A model is some uploads that clients, gateways, a store that fails and a clock
// that jumps do everything to, in an order that a seed says.
type model struct {
	*fixture
	t        *testing.T
	rnd      *rand.Rand
	away     *rand.Rand
	quota    *Quota
	log      []string
	ids      []string
	requests map[string]Request
	client   map[string]*holder
	recorded map[string]bool // session and what
	told     map[string]bool
	depth    int
	keys     int
	back     int
	shared   bool
	words    sync.Mutex // of log, recorded, told
	turn     sync.Mutex // within a call
}

// A holder is what the client of one upload has in hand.
type holder struct {
	opened    string      // the id of the upload that it opened itself
	complete  time.Time   // until when it may call to complete; zero: it has no such call
	slow      bool        // a PUT that began in time is on its way
	under     *openUpload // is being completed
	overwrote bool
}

// guarded is the bucket, which looks whether a deletion is allowed.
type guarded struct {
	*shelf
	m *model
}

func (g guarded) Delete(ctx context.Context, key, version string) error {
	g.m.mayDelete(key)
	return g.shelf.Delete(ctx, key, version)
}

func (m *model) mayDelete(key string) {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	for _, s := range m.store.sessions {
		if s.Key != key {
			continue
		}
		if !s.sole() || s.Status == Ready || s.Status.Open() {
			m.fail("deleted %s of %s", key, s.Status)
		}
		m.words.Lock()
		on := m.recorded[s.ID+" "+SweptLateDeleted] || m.recorded[s.ID+" "+SweptMisfitDeleted]
		m.words.Unlock()
		if !on {
			m.fail("deleted %s, which is not on record", key)
		}
	}
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	m.words.Lock()
	defer m.words.Unlock()
	m.t.Errorf(format+"\n%s", append(args, strings.Join(m.log, "\n"))...)
}

func (m *model) note(format string, args ...any) {
	m.words.Lock()
	defer m.words.Unlock()
	m.log = append(m.log, fmt.Sprintf("%s%s ", strings.Repeat("  ", m.depth), m.time().Sub(start))+fmt.Sprintf(format, args...))
}

func (m *model) deeper(by int) {
	m.words.Lock()
	defer m.words.Unlock()
	m.depth += by
}

func (m *model) chance(n int) bool { return m.rnd.IntN(n) == 0 }

func (m *model) uploads() *Uploads {
	u := m.gateway()
	u.Buckets = map[string]Bucket{"default": guarded{m.bucket, m}}
	u.Notices = true
	return u
}

func (m *model) sweepBy(notify Notifier) {
	s := &Sweeper{Uploads: m.uploads(), Notify: notify, Record: func(_ context.Context, s *Session, what string) error {
		return m.faults.call("Record", func() error {
			m.words.Lock()
			defer m.words.Unlock()
			m.recorded[s.ID+" "+what] = true
			return nil
		})
	}}
	s.Report = func(w Swept) { m.note("swept %.4s %s %v", w.Session.ID, w.What, w.Err) }
	m.faults.mu.Lock()
	before := len(m.faults.calls)
	m.faults.mu.Unlock()
	_, err := s.Sweep(context.Background())
	if err != nil && !errors.Is(err, ErrUnavailable) {
		m.fail("sweep: %v", err)
	}
	m.faults.mu.Lock()
	calls := m.faults.calls[min(before, len(m.faults.calls)):]
	m.faults.mu.Unlock()
	if m.depth == 0 && len(calls) > 60*(1+len(m.ids)) {
		m.fail("a sweep made %d calls: %q", len(calls), calls)
	}
}

type tells struct{ m *model }

func (n tells) Notify(_ context.Context, s *Session) error {
	return n.m.faults.call("Notify", func() error {
		n.m.words.Lock()
		defer n.m.words.Unlock()
		if n.m.away.IntN(3) == 0 && n.m.time().Before(start.Add(48*time.Hour)) {
			return errors.New("the receiver is away")
		}
		n.m.told[s.ID+" "+string(s.Status)] = true
		return nil
	})
}

// begin makes one more upload.
func (m *model) begin() {
	r := owned(jpeg())
	r.Expires = []time.Duration{time.Minute, 15 * time.Minute, time.Hour}[m.rnd.IntN(3)]
	r.ConfirmWithin = []time.Duration{0, time.Minute, time.Hour}[m.rnd.IntN(3)]
	r.AutoConfirm, r.DeleteLate, r.Overwrite = m.chance(2), m.chance(2), m.chance(3)
	if m.chance(2) {
		r.Quota = m.quota
	}
	if m.chance(3) {
		m.keys++
		r = idempotent(r, strconv.Itoa(m.keys))
	}
	how := single
	switch m.rnd.IntN(3) {
	case 0:
		how = multipart
		r.Size, r.MaxBytes, r.ContentType = 12<<20, 20<<20, "video/mp4"
		r.PartChecksums = m.chance(3)
	case 1:
		how = direct
		r.AutoConfirm, r.Size, r.MaxBytes, r.ContentType = true, -1, 10<<20, "video/mp4"
		if r.Quota != nil || m.chance(2) {
			r.Size = 6 << 20
		}
	}
	if m.shared && m.chance(4) {
		r.Key, r.DeleteLate = "shared/one", false
	}
	m.ask(r, how)
}

func (m *model) ask(r Request, how kind) {
	u := m.uploads()
	var err error
	switch how {
	case multipart:
		_, err = u.BeginMultipart(context.Background(), r)
	case direct:
		_, _, err = u.SignCreate(context.Background(), r)
	default:
		_, _, err = u.Begin(context.Background(), r)
	}
	m.note("begin %.4s %s auto=%t late=%t over=%t quota=%t %v+%v size=%d: %v", r.ID, how, r.AutoConfirm, r.DeleteLate, r.Overwrite, r.Quota != nil, r.Expires, r.ConfirmWithin, r.Size, err)
	if _, known := m.requests[r.ID]; !known {
		m.store.mu.Lock()
		_, there := m.store.sessions[r.ID]
		m.store.mu.Unlock()
		if there {
			m.ids = append(m.ids, r.ID)
			m.requests[r.ID], m.client[r.ID] = r, &holder{}
		}
	}
}

func (m *model) get(id string) *Session {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	s := m.store.sessions[id]
	return &s
}

// step does one thing.
func (m *model) step() {
	if len(m.ids) == 0 || len(m.ids) < 6 && m.chance(8) {
		m.begin()
		return
	}
	id := m.ids[m.rnd.IntN(len(m.ids))]
	s, h, r := m.get(id), m.client[id], m.requests[id]
	u, ctx := m.uploads(), context.Background()
	var err error
	var what string
	switch m.rnd.IntN(12) {
	case 0, 1:
		what = "client"
		m.send(s, h, r)
		return
	case 2:
		what = "confirm"
		_, err = u.Confirm(ctx, s)
	case 3:
		what = "complete"
		_, err = u.Complete(ctx, s, nil)
	case 4:
		what = "abort"
		_, err = u.Abort(ctx, s)
	case 5, 6:
		var n Notifier = tells{m}
		if m.chance(6) {
			n = nil
		}
		m.note("sweep")
		m.sweepBy(n)
		return
	case 7, 8:
		m.tick()
		return
	case 9:
		if r.Idempotency != "" {
			how := single
			if s.Direct {
				how = direct
			} else if s.Multipart {
				how = multipart
			}
			m.ask(r, how)
		}
		return
	case 10:
		if m.depth == 0 && m.chance(2) {
			mode := []mode{refused, lost}[m.rnd.IntN(2)]
			m.faults.reset(1+m.rnd.IntN(6), mode, unavailable("test", errors.New("away")))
			m.note("fault %s at %d", mode, m.faults.at)
		}
		return
	case 11:
		m.direct(u, s, h)
		return
	}
	m.note("%s %.4s (%s): %v", what, id, s.Status, err)
}

// tick lets time go by, or back a little.
func (m *model) tick() {
	by := []time.Duration{time.Second, 5 * time.Second, 50 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, -3 * time.Second}[m.rnd.IntN(7)]
	for _, id := range m.ids {
		h := m.client[id]
		if h.under != nil && by > 50*time.Second {
			m.land(id, h)
		}
		if s := m.get(id); h.slow && by > 0 && m.time().Add(by).After(s.ExpiresAt.Add(min(lateGrace, s.ExpiresAt.Sub(s.CreatedAt)))) && !s.DeleteLate {
			m.put(s, h) // else it would be later than is waited for
		}
	}
	if m.depth > 0 {
		by = min(by, 50*time.Second) // nobody waits longer for a call
	}
	if by < 0 {
		if m.back++; m.back > 3 {
			return // clocks do not differ by more than is tolerated
		}
	}
	m.set(m.time().Add(by))
	m.note("tick %v", by)
}

func (m *model) put(s *Session, h *holder) {
	h.slow = false
	size := s.Size
	if r := m.requests[s.ID]; s.Status == Ready {
		size = r.Size
	}
	ok := m.bucket.put(s.Key, Object{Size: size, ContentType: s.ContentType}, s.Overwrite)
	h.overwrote = h.overwrote || ok && s.Status == Ready
	m.note("put %.4s (%s) %t", s.ID, s.Status, ok)
}

// land makes the object of a completion that is under way.
func (m *model) land(id string, h *holder) {
	u, key := h.under, m.requests[id].Key
	h.under = nil
	m.bucket.mu.Lock()
	defer m.bucket.mu.Unlock()
	var size int64
	for _, p := range u.parts {
		size += p.Size
	}
	if m.bucket.place(key, Object{Size: size, ContentType: u.put.ContentType}, m.requests[id].Overwrite) {
		m.bucket.objects[key][len(m.bucket.objects[key])-1].Modified = u.begun
	}
	m.note("landed %.4s %d", id, size)
}

// send is what a client does at the store.
func (m *model) send(s *Session, h *holder, r Request) {
	now := m.time()
	switch {
	case h.under != nil:
		m.land(s.ID, h)
	case h.slow:
		m.put(s, h)
	case !s.Multipart:
		if now.Before(s.ExpiresAt) {
			if h.slow = true; m.chance(2) {
				m.put(s, h)
			}
		}
	case s.Direct && h.opened == "":
		if now.Before(s.ExpiresAt) {
			h.opened = m.bucket.create(Put{Key: s.Key, ContentType: s.ContentType})
			m.note("opened %.4s", s.ID)
		}
	case s.UploadID != "" && !s.Direct:
		if now.Before(s.ConfirmBy) {
			for i, size := range videoParts {
				p := m.bucket.part(s.UploadID, i+1, size)
				m.bucket.mu.Lock()
				if open := m.bucket.open[s.UploadID]; open != nil && s.PartChecksums {
					p.Checksum = someSum
					open.parts[i+1] = p
				}
				m.bucket.mu.Unlock()
			}
			m.note("parts %.4s", s.ID)
		}
	case s.UploadID != "":
		if now.Before(s.ConfirmBy) && m.chance(2) {
			size := []int64{6 << 20, 60 << 20}[m.rnd.IntN(2)]
			m.bucket.part(s.UploadID, 1, size)
			m.note("part %.4s %d", s.ID, size)
			return
		}
		if !now.After(h.complete.Add(20 * time.Second)) { // or its body is sent slowly
			m.bucket.mu.Lock()
			open := m.bucket.open[s.UploadID]
			if open != nil && len(open.parts) > 0 && (r.Overwrite || len(m.bucket.objects[s.Key]) == 0) {
				delete(m.bucket.open, s.UploadID)
				h.under = open
			}
			m.bucket.mu.Unlock()
			if h.under != nil {
				m.note("completes %.4s", s.ID)
				if m.chance(2) {
					m.land(s.ID, h)
				}
			}
		}
	}
}

// direct asks for what a client needs that does it all itself.
func (m *model) direct(u *Uploads, s *Session, h *holder) {
	if !s.Direct || h.opened == "" {
		return
	}
	s, err := u.Adopt(context.Background(), s, h.opened)
	if err == nil {
		op := []MultipartOp{CompleteUpload, CompleteUpload, AbortUpload}[m.rnd.IntN(3)]
		var signed Signed
		signed, err = u.SignCall(context.Background(), s, op, time.Hour)
		if err == nil && op == CompleteUpload {
			h.complete = signed.Expires
		}
		if err == nil && op == AbortUpload {
			_, err = u.Abort(context.Background(), s)
		}
		m.note("sign %d: ", op)
	}
	m.note("direct %.4s (%s): %v", s.ID, s.Status, err)
}

// invariants hold at any time.
func (m *model) invariants() {
	m.store.mu.Lock()
	defer m.store.mu.Unlock()
	used := map[account]usage{}
	for _, s := range m.store.sessions {
		if s.Held {
			u := used[s.account()]
			used[s.account()] = usage{u.objects + 1, u.bytes + s.Counted}
		}
		if !lawful(m.store.moves[s.ID]) {
			m.fail("%s moved %s", s.ID, m.store.moves[s.ID])
		}
		if h := m.client[s.ID]; s.Status == Ready && s.sole() && !(h != nil && (h.overwrote || s.Overwrite)) {
			there := false
			for _, o := range m.bucket.objects[s.Key] {
				there = there || o.ETag == s.ETag
			}
			if !there {
				m.fail("%s is ready and its object is gone", s.ID)
			}
		}
	}
	for a, u := range m.store.used {
		if used[a] != u || u.objects > m.quota.Objects || u.bytes > m.quota.Bytes || u.objects < 0 {
			m.fail("counted %+v, held %+v", u, used[a])
		}
	}
}

// settle lets all end, without faults.
func (m *model) settleAll() {
	m.faults.reset(0, refused, nil)
	m.bucket.hook = nil
	for _, id := range m.ids {
		if h := m.client[id]; h.under != nil {
			m.land(id, h)
		}
		if s, h := m.get(id), m.client[id]; h.slow {
			m.put(s, h)
		}
	}
	for range 200 {
		m.sweepBy(tells{m})
		m.set(m.time().Add(30 * time.Minute))
	}
	m.invariants()
	for _, id := range m.ids {
		s, r := m.get(id), m.requests[id]
		there := len(m.bucket.objects[s.Key]) > 0
		bad := func(why string) {
			m.fail("%s: %s\n%+v\nobject: %+v open: %v", id, why, *s, m.bucket.objects[s.Key], m.bucket.open)
		}
		if s.Status.Open() || !s.Wake.IsZero() {
			bad("has not ended")
		}
		if s.Multipart && m.bucket.open[s.UploadID] != nil {
			bad("open")
		}
		if s.Status == Ready || s.Status == Rejected {
			if s.Notice == NoticeDue || s.Notice == NoticeSent && !m.told[id+" "+string(s.Status)] {
				bad("not told")
			}
		}
		if !s.sole() {
			continue
		}
		if r.Quota != nil && there && !s.Held {
			bad("is there and counts nowhere")
		}
		if r.Quota != nil && !there && s.Held && s.Status != Rejected {
			bad("counts and is not there")
		}
		if s.DeleteLate && there && (s.Status == Expired || !s.Multipart && s.Status == Aborted) {
			bad("late and not deleted")
		}
		if s.Direct && there && s.Status != Ready && s.compareSize(m.bucket.objects[s.Key][len(m.bucket.objects[s.Key])-1]) != nil {
			bad("larger than allowed")
		}
		for _, open := range m.bucket.open {
			if open.put.Key == s.Key {
				bad("left open")
			}
		}
	}
}

func runModel(t *testing.T, seed uint64) {
	m := &model{fixture: newEmpty(t), t: t, rnd: rand.New(rand.NewPCG(seed, 1)), away: rand.New(rand.NewPCG(seed, 2)), quota: &Quota{Objects: 3, Bytes: 40 << 20, Window: 24 * time.Hour},
		requests: map[string]Request{}, client: map[string]*holder{}, recorded: map[string]bool{}, told: map[string]bool{}}
	m.bucket.versioned = m.chance(2)
	m.shared = m.chance(3)
	m.bucket.hook = func(op string) {
		if !m.turn.TryLock() {
			return
		}
		defer m.turn.Unlock()
		if !m.chance(4) {
			return
		}
		m.deeper(1)
		m.note("within %s:", op)
		if op == "CompleteMultipart" && m.chance(2) { // it knows neither for a while
			hidden := map[string]*openUpload{}
			for _, id := range m.ids {
				if s := m.get(id); s.completing(m.time()) && s.Status.Open() {
					m.bucket.mu.Lock()
					if u := m.bucket.open[s.UploadID]; u != nil {
						hidden[s.UploadID] = u
						delete(m.bucket.open, s.UploadID)
					}
					m.bucket.mu.Unlock()
				}
			}
			defer func() {
				m.bucket.mu.Lock()
				defer m.bucket.mu.Unlock()
				for id, u := range hidden {
					m.bucket.open[id] = u
				}
			}()
		}
		for range 1 + m.rnd.IntN(2) {
			m.step()
		}
		m.deeper(-1)
	}
	for range 60 {
		m.step()
		m.invariants()
		if t.Failed() {
			return
		}
	}
	m.settleAll()
}

// Whatever happens in whatever order: nothing that is ready is deleted, nothing
// is deleted that is not on record, quotas are exact, each session ends and
// leaves nothing open, and each end is told. SIDEGATE_SCHEDULES is how many
// orders are tried.
func TestModel(t *testing.T) {
	n := 200
	if s := os.Getenv("SIDEGATE_SCHEDULES"); s != "" {
		var err error
		if n, err = strconv.Atoi(s); err != nil {
			t.Fatalf("SIDEGATE_SCHEDULES: %v", err)
		}
	}
	for seed := range uint64(n) {
		if !t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) { runModel(t, seed) }) {
			return
		}
	}
}
