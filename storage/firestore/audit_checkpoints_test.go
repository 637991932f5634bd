package firestore

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sidegate/storage/audit"
)

// A headServer is a Firestore of single documents, whose Commit can fail before
// and after it stored.
type headServer struct {
	firestorepb.UnimplementedFirestoreServer
	mu      sync.Mutex
	docs    map[string]*firestorepb.Document
	commits int
	fail    func(n int) (code codes.Code, stored bool)
}

func (s *headServer) BatchGetDocuments(r *firestorepb.BatchGetDocumentsRequest, stream firestorepb.Firestore_BatchGetDocumentsServer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := r.Documents[0]
	if d := s.docs[name]; d != nil {
		return stream.Send(&firestorepb.BatchGetDocumentsResponse{Result: &firestorepb.BatchGetDocumentsResponse_Found{Found: d}})
	}
	return stream.Send(&firestorepb.BatchGetDocumentsResponse{Result: &firestorepb.BatchGetDocumentsResponse_Missing{Missing: name}})
}

func (s *headServer) Commit(_ context.Context, r *firestorepb.CommitRequest) (*firestorepb.CommitResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	code, stored := codes.OK, true
	if s.fail != nil {
		code, stored = s.fail(s.commits)
	}
	w := r.Writes[0]
	doc := w.GetUpdate()
	have := s.docs[doc.Name]
	switch p := w.GetCurrentDocument().GetConditionType().(type) {
	case *firestorepb.Precondition_Exists:
		if have != nil {
			return nil, status.Error(codes.AlreadyExists, "it exists")
		}
	case *firestorepb.Precondition_UpdateTime:
		if have == nil || !have.UpdateTime.AsTime().Equal(p.UpdateTime.AsTime()) {
			return nil, status.Error(codes.FailedPrecondition, "it has changed")
		}
	default:
		return nil, status.Error(codes.InvalidArgument, "no precondition")
	}
	if stored {
		doc.UpdateTime = timestamppb.New(time.Unix(int64(s.commits), 0))
		s.docs[doc.Name] = doc
	}
	if code != codes.OK {
		return nil, status.Error(code, "as asked")
	}
	return &firestorepb.CommitResponse{WriteResults: []*firestorepb.WriteResult{{}}}, nil
}

func head(seq uint64, hash byte) audit.Head {
	return audit.Head{Checkpoint: audit.Checkpoint{Chain: "c1", Seq: seq, Hash: [32]byte{hash}, Time: time.Unix(1, 0)}, Note: []byte("note"), Event: time.Unix(0, 0)}
}

func TestHeadsOnlyMoveForward(t *testing.T) {
	s := &headServer{docs: map[string]*firestorepb.Document{}}
	a := serveAny(t, s, nil).Audit("auditLog", time.Hour)
	for _, c := range []struct {
		head audit.Head
		says string
	}{
		{head(5, 1), ""},
		{head(5, 1), ""}, // again: nothing is to be done
		{head(9, 2), ""},
		{head(8, 3), "at seq 9 already"},
		{head(9, 9), "another line of seq 9"},
		{head(10, 4), ""},
	} {
		err := a.StoreCheckpoint(t.Context(), c.head)
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("seq %d: %v", c.head.Seq, err)
		}
	}
	d := s.docs[a.client.documents()+"/auditCheckpoints/c1"]
	if d.Fields["seq"].GetIntegerValue() != 10 || !expires(d).Equal(time.Unix(3600, 0)) || d.Fields["note"].GetStringValue() != "note" || s.commits != 3 {
		t.Errorf("%v after %d commits", d, s.commits)
	}
}

// TestHeadsThatFail: failed, and failed but stored, with every code.
func TestHeadsThatFail(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		for _, stored := range []bool{false, true} {
			s := &headServer{docs: map[string]*firestorepb.Document{}, fail: func(n int) (codes.Code, bool) {
				if n == 1 {
					return code, stored
				}
				return codes.OK, true
			}}
			a := serveAny(t, s, nil).Audit("log", 0)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if a.StoreCheckpoint(ctx, head(1, 1)) != nil {
				if err := a.StoreCheckpoint(ctx, head(1, 1)); err != nil {
					t.Errorf("%v, stored %v: the next one says %v", code, stored, err)
				}
			}
			cancel()
			if d := s.docs[a.client.documents()+"/log_checkpoints/c1"]; d.GetFields()["seq"].GetIntegerValue() != 1 {
				t.Errorf("%v, stored %v: %v is there", code, stored, d)
			}
		}
	}
}

// TestVerifyAgainstHeadDocument ships to the emulator, and then takes the end
// of one chain away, and of another one all.
func TestVerifyAgainstHeadDocument(t *testing.T) {
	c := connect(t, Options{Emulator: emulator(t)})
	log := c.Audit("auditLog", 24*time.Hour)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	secret, public, err := note.GenerateKey(rand.Reader, "test")
	if err != nil {
		t.Fatal(err)
	}
	by, err := note.NewSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	key, err := note.NewVerifier(public)
	if err != nil {
		t.Fatal(err)
	}
	var chains []string
	for range 2 {
		l := open(t, audit.Options{Dir: t.TempDir(), Sink: log, Signer: by})
		for i := range 30 {
			if _, err := l.Append(decision(i)); err != nil {
				t.Fatal(err)
			}
		}
		chains = append(chains, l.Stats().Chain)
		closed(t, l)
		if err := l.Stats().HeadError; err != nil {
			t.Fatal(err)
		}
	}
	verify := func(now time.Time) audit.Result {
		t.Helper()
		notes, err := log.Checkpoints(ctx)
		if err != nil {
			t.Fatal(err)
		}
		r, err := audit.Verification{Keys: note.VerifierList(key), Notes: notes, Now: now}.Lines(ctx, log.Lines(ctx))
		if err != nil || len(notes) != 2 {
			t.Fatal(len(notes), err)
		}
		return r
	}
	r := verify(time.Now())
	if r.Failure() != nil || len(r.Reports) != 2 || r.Reports[0].Newest.Seq != 30 || r.Reports[1].Checkpoints != 1 {
		t.Errorf("%+v", r)
	}
	var ends []*firestorepb.Write
	for l, err := range log.Lines(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if l.Chain == chains[0] && l.Seq > 25 || l.Chain == chains[1] {
			name := c.documents() + "/auditLog/" + documentID(l.ID)
			ends = append(ends, &firestorepb.Write{Operation: &firestorepb.Write_Delete{Delete: name}})
		}
	}
	if _, err := c.api.Commit(ctx, &firestorepb.CommitRequest{Database: c.database, Writes: ends}); err != nil {
		t.Fatal(err)
	}
	r = verify(time.Now())
	if b := r.Reports[0].Broken; b == nil || b.Seq != 26 || len(r.Missing) != 1 {
		t.Errorf("%+v", r)
	}
	// Once the events may have expired, nobody can tell.
	r = verify(time.Now().Add(48 * time.Hour))
	if r.Failure() != nil || len(r.Reports[0].Gaps) != 1 {
		t.Errorf("%+v", r)
	}
}

// TestRepairStoresInFirestore: what was not shipped before the log was damaged.
func TestRepairStoresInFirestore(t *testing.T) {
	c := connect(t, Options{Emulator: emulator(t)})
	log := c.Audit("auditLog", 24*time.Hour)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	dir := t.TempDir()
	for _, sink := range []audit.Sink{log, nil} {
		l := open(t, audit.Options{Dir: dir, Sink: sink})
		for i := range 10 {
			if _, err := l.Append(decision(i)); err != nil {
				t.Fatal(err)
			}
		}
		closed(t, l)
	}
	name := filepath.Join(dir, "00000000000000000001.jsonl")
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	lines[14] = []byte("not an event\n")
	if err := os.WriteFile(name, bytes.Join(lines, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := audit.RepairFolder(ctx, audit.RepairOptions{Dir: dir, Sink: log})
	if err != nil || r.Stored != 9 || r.Unreadable != 1 || r.Seq != 13 {
		t.Errorf("%+v, %v", r, err)
	}
	closed(t, open(t, audit.Options{Dir: dir, Sink: log}))
	seqs := map[string]int{}
	for l, err := range log.Lines(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		seqs[l.Chain]++
	}
	if seqs[r.Chain] != 19 || seqs[r.NewChain] != 1 {
		t.Errorf("%v", seqs)
	}
}
