package firestore

import (
	"context"
	"net"
	"sync"
	"testing"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
)

// forgetfulServer does what it is asked and says that it does not.
type forgetfulServer struct {
	firestorepb.UnimplementedFirestoreServer
	mu   sync.Mutex
	docs map[string]bool
}

func (s *forgetfulServer) Commit(_ context.Context, r *firestorepb.CommitRequest) (*firestorepb.CommitResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range r.Writes {
		if w.CurrentDocument.GetExists() {
			return nil, status.Error(codes.PermissionDenied, "no")
		}
		if name := w.GetDelete(); name != "" {
			delete(s.docs, name)
			continue
		}
		s.docs[w.GetUpdate().GetName()] = true
		return nil, status.Error(codes.Unavailable, "it may have been done")
	}
	return &firestorepb.CommitResponse{}, nil
}

// TestStrangersDocumentGoes: a document that a client could create is deleted,
// also where its answer was lost.
func TestStrangersDocumentGoes(t *testing.T) {
	fake := &forgetfulServer{docs: map[string]bool{}}
	l := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	firestorepb.RegisterFirestoreServer(server, fake)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient("passthrough:///fake", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	i, err := Inspect(t.Context(), Options{Project: "demo-inspect", conn: conn})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := i.ClientMay(t.Context(), "audit"); err == nil {
		t.Error("no error, though nothing could be told")
	}
	if len(fake.docs) > 0 {
		t.Errorf("left: %v", fake.docs)
	}
}
