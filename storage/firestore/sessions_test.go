package firestore

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sidegate/storage/upload"
)

// sessionServer is as much of Firestore as sessions need, with faults.
type sessionServer struct {
	firestorepb.UnimplementedFirestoreServer
	mu         sync.Mutex
	docs       map[string]*firestorepb.Document
	time       int64
	commits    int
	failBefore error  // of the next commit, which does nothing
	failAfter  error  // of the next commit, which was done
	readFails  error  // of every read
	cutReads   int    // how many reads are cut before their answer
	meanwhile  func() // before the next commit, with the lock held
}

func (s *sessionServer) BatchGetDocuments(r *firestorepb.BatchGetDocumentsRequest, out firestorepb.Firestore_BatchGetDocumentsServer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.readFails != nil {
		return s.readFails
	}
	if s.cutReads > 0 {
		s.cutReads--
		return status.Error(codes.Unavailable, "cut")
	}
	for _, name := range r.Documents {
		answer := &firestorepb.BatchGetDocumentsResponse{Result: &firestorepb.BatchGetDocumentsResponse_Missing{Missing: name}}
		if doc := s.docs[name]; doc != nil {
			answer.Result = &firestorepb.BatchGetDocumentsResponse_Found{Found: doc}
		}
		if err := out.Send(answer); err != nil {
			return err
		}
	}
	return nil
}

func (s *sessionServer) Commit(_ context.Context, r *firestorepb.CommitRequest) (*firestorepb.CommitResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commits++
	if f := s.meanwhile; f != nil {
		s.meanwhile = nil
		f()
	}
	if err := s.failBefore; err != nil {
		s.failBefore = nil
		return nil, err
	}
	for _, w := range r.Writes {
		if err := s.allows(w); err != nil {
			return nil, err
		}
	}
	for _, w := range r.Writes {
		s.put(w.GetUpdate())
	}
	if err := s.failAfter; err != nil {
		s.failAfter = nil
		return nil, err
	}
	return &firestorepb.CommitResponse{WriteResults: []*firestorepb.WriteResult{{}}}, nil
}

// allows holds the condition of a write against what is there.
func (s *sessionServer) allows(w *firestorepb.Write) error {
	was := s.docs[w.GetUpdate().GetName()]
	switch c := w.GetCurrentDocument().GetConditionType().(type) {
	case *firestorepb.Precondition_Exists:
		if was != nil {
			return status.Error(codes.AlreadyExists, "exists")
		}
	case *firestorepb.Precondition_UpdateTime:
		if was == nil {
			return status.Error(codes.NotFound, "no document")
		}
		if !was.UpdateTime.AsTime().Equal(c.UpdateTime.AsTime()) {
			return status.Error(codes.FailedPrecondition, "changed")
		}
	default:
		return status.Error(codes.InvalidArgument, "a write without condition")
	}
	return nil
}

func (s *sessionServer) put(doc *firestorepb.Document) {
	s.time++
	doc.UpdateTime = &timestamppb.Timestamp{Seconds: s.time}
	s.docs[doc.Name] = doc
}

func faultySessions(t *testing.T) (*Sessions, *sessionServer) {
	t.Helper()
	fake := &sessionServer{docs: map[string]*firestorepb.Document{}}
	l := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	firestorepb.RegisterFirestoreServer(server, fake)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///fake",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	client, err := Connect(t.Context(), Options{Project: "demo-sessions", conn: conn})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	s, err := NewSessions(client, "uploadSessions")
	if err != nil {
		t.Fatal(err)
	}
	s.firstPause = time.Microsecond
	return s, fake
}

func aSession() *upload.Session {
	at := time.Date(2026, 3, 2, 10, 0, 0, 0, time.UTC)
	return &upload.Session{
		ID: upload.NewID(), UID: "u1", Namespace: "users", Identity: "users", Key: "users/u1/é.jpg", Bucket: "default",
		ContentType: "image/jpeg", Size: -1, Checksum: "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", Status: upload.Issued, Record: "r1",
		CreatedAt: at, ExpiresAt: at.Add(15 * time.Minute), ConfirmBy: at.Add(time.Hour),
	}
}

func readied(s *upload.Session) *upload.Session {
	next := *s
	next.Status, next.Size, next.ETag, next.VersionID = upload.Ready, 5, `"e"`, "v"
	next.ReadyAt = s.CreatedAt.Add(time.Minute + 123*time.Millisecond)
	return &next
}

// F29: the first attempt was done and its answer lost; the SDK repeats it.
func TestSessionLostAnswers(t *testing.T) {
	lost := status.Error(codes.Unavailable, "cut")
	s, fake := faultySessions(t)
	one := aSession()
	fake.failAfter = lost
	if err := s.Create(t.Context(), one, nil); err != nil || fake.commits != 2 {
		t.Errorf("Create: %v after %d commits", err, fake.commits)
	}
	if err := s.Create(t.Context(), one, nil); err != nil {
		t.Errorf("Create again by the caller: %v", err)
	}
	other := *one
	other.UID = "u2"
	if err := s.Create(t.Context(), &other, nil); err != upload.ErrExists {
		t.Errorf("somebody else's Create: %v", err)
	}
	fake.failAfter = lost
	next := readied(one)
	if err := s.Transition(t.Context(), upload.Issued, next); err != nil || next.Changes != 1 {
		t.Errorf("Transition: %v", err)
	}
	if got, err := s.Get(t.Context(), one.ID); err != nil || *got != *next {
		t.Errorf("stored %+v, %v", got, err)
	}
	// The same transition by another gateway is not this one's.
	if err := s.Transition(t.Context(), upload.Issued, readied(one)); err != upload.ErrConflict {
		t.Errorf("Transition again: %v", err)
	}
}

// A connection that ends under a read costs nobody his upload.
func TestSessionReadsAreRepeated(t *testing.T) {
	s, fake := faultySessions(t)
	one := aSession()
	if err := s.Create(t.Context(), one, nil); err != nil {
		t.Fatal(err)
	}
	fake.cutReads = 2
	if got, err := s.Get(t.Context(), one.ID); err != nil || *got != *one {
		t.Errorf("Get: %v, %v", got, err)
	}
	fake.cutReads = 2
	if err := s.Transition(t.Context(), upload.Issued, readied(one)); err != nil {
		t.Errorf("Transition: %v", err)
	}
	fake.cutReads = 2
	if err := s.Create(t.Context(), held(1), hourly); err != nil {
		t.Errorf("Create: %v", err)
	}
	fake.readFails = status.Error(codes.Unavailable, "away")
	if _, err := s.Get(t.Context(), one.ID); status.Code(err) != codes.Unavailable {
		t.Errorf("Get for ever: %v", err)
	}
}

func TestSessionFaultsAreUnknown(t *testing.T) {
	unknown := func(t *testing.T, what string, err error) {
		t.Helper()
		if err == nil || errors.Is(err, upload.ErrNotFound) || errors.Is(err, upload.ErrExists) || errors.Is(err, upload.ErrConflict) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, code := range []codes.Code{codes.Internal, codes.PermissionDenied, codes.NotFound, codes.DeadlineExceeded} {
		t.Run(code.String(), func(t *testing.T) {
			s, fake := faultySessions(t)
			one, fault := aSession(), status.Error(code, "fault")
			fake.failBefore = fault
			unknown(t, "Create", s.Create(t.Context(), one, nil))
			if _, err := s.Get(t.Context(), one.ID); err != upload.ErrNotFound {
				t.Errorf("Get: %v", err)
			}
			fake.failAfter = fault
			unknown(t, "Create, but stored", s.Create(t.Context(), one, nil))
			if got, err := s.Get(t.Context(), one.ID); err != nil || *got != *one {
				t.Errorf("Get: %+v, %v", got, err)
			}
			fake.failBefore = fault
			unknown(t, "Transition", s.Transition(t.Context(), upload.Issued, readied(one)))
			fake.readFails = fault
			_, err := s.Get(t.Context(), one.ID)
			unknown(t, "Get", err)
			unknown(t, "Transition, reading", s.Transition(t.Context(), upload.Issued, readied(one)))
			unknown(t, "Create, reading", s.Create(t.Context(), one, nil))
		})
	}
}

// The document changes between a transition's read and its write.
func TestSessionTransitionRaces(t *testing.T) {
	s, fake := faultySessions(t)
	for name, c := range map[string]struct {
		meanwhile func(name string, one *upload.Session)
		want      error
	}{
		"moved by another": {func(name string, one *upload.Session) {
			fake.put(&firestorepb.Document{Name: name, Fields: sessionFields(readied(one), "another")})
		}, upload.ErrConflict},
		"deleted": {func(name string, _ *upload.Session) { delete(fake.docs, name) }, upload.ErrNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			one := aSession()
			if err := s.Create(t.Context(), one, nil); err != nil {
				t.Fatal(err)
			}
			fake.meanwhile = func() { c.meanwhile(s.parent+one.ID, one) }
			if err := s.Transition(t.Context(), upload.Issued, readied(one)); err != c.want {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	// It is still what the transition starts from: once it is tried again, and
	// where that has no end it is no conflict.
	t.Run("touched by an app", func(t *testing.T) {
		one := aSession()
		if err := s.Create(t.Context(), one, nil); err != nil {
			t.Fatal(err)
		}
		touch := func() { fake.put(fake.docs[s.parent+one.ID]) }
		var always func()
		always = func() { touch(); fake.meanwhile = always }
		fake.meanwhile, fake.commits = always, 0
		err := s.Transition(t.Context(), upload.Issued, readied(one))
		if err == nil || errors.Is(err, upload.ErrConflict) || fake.commits != rounds {
			t.Errorf("still issued, but %v after %d commits", err, fake.commits)
		}
		fake.meanwhile = touch
		if err := s.Transition(t.Context(), upload.Issued, readied(one)); err != nil {
			t.Errorf("touched once: %v", err)
		}
	})
}

func TestSessionDocumentOfAnotherShape(t *testing.T) {
	s, fake := faultySessions(t)
	text := &firestorepb.Value{ValueType: &firestorepb.Value_StringValue{StringValue: "1"}}
	for _, field := range []string{"size", "createdAt", "status", "wake", "held", "multipart", "attempts", "changes", "quota"} {
		one := aSession()
		fields := sessionFields(one, "r")
		fields[field] = text
		if field == "status" || field == "quota" {
			fields[field] = &firestorepb.Value{ValueType: &firestorepb.Value_BooleanValue{BooleanValue: true}}
		}
		fake.put(&firestorepb.Document{Name: s.parent + one.ID, Fields: fields})
		if got, err := s.Get(t.Context(), one.ID); err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %+v, %v", field, got, err)
		}
	}
}

// An id never reaches another collection's documents.
func TestSessionIDNamesNoOtherDocument(t *testing.T) {
	s, fake := faultySessions(t)
	one := aSession()
	for _, id := range []string{"", ".", "..", "a/b/c", "../x", "__x__"} {
		if _, err := s.Get(t.Context(), id); err != upload.ErrNotFound {
			t.Errorf("%q: Get: %v", id, err)
		}
		one.ID = id
		if err := s.Create(t.Context(), one, nil); err == nil {
			t.Errorf("%q: created", id)
		}
	}
	if len(fake.docs) != 0 || fake.commits != 0 {
		t.Errorf("%d documents, %d commits", len(fake.docs), fake.commits)
	}
	for _, collection := range []string{"", "a/b", ".", "__x__"} {
		if _, err := NewSessions(s.client, collection); err == nil {
			t.Errorf("collection %q", collection)
		}
	}
}
