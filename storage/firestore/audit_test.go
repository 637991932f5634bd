package firestore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	rpccode "google.golang.org/genproto/googleapis/rpc/code"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"sidegate/storage/audit"
)

// A fakeServer is a Firestore that takes batches and fails on demand: a whole
// call or one write, before and after it stored.
type fakeServer struct {
	firestorepb.UnimplementedFirestoreServer
	mu     sync.Mutex
	docs   map[string]*firestorepb.Document
	calls  int
	writes int // of the call that is asked about
	call   func(n int) (code codes.Code, stored bool)
	write  func(d *firestorepb.Document) codes.Code
	doubts int // writes that did not ask that the document be new

	answer func(n int, r *firestorepb.BatchWriteResponse) (hang bool) // changes the answer; nil: none
}

func (s *fakeServer) BatchWrite(ctx context.Context, req *firestorepb.BatchWriteRequest) (*firestorepb.BatchWriteResponse, error) {
	s.mu.Lock()
	n := s.calls + 1
	resp, err := s.batchWrite(req)
	hang := s.answer != nil && err == nil && s.answer(n, resp)
	s.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return resp, err
}

func (s *fakeServer) batchWrite(req *firestorepb.BatchWriteRequest) (*firestorepb.BatchWriteResponse, error) {
	s.calls++
	s.writes = len(req.Writes)
	code, stored := s.call(s.calls)
	resp := &firestorepb.BatchWriteResponse{}
	for _, w := range req.Writes {
		doc := w.GetUpdate()
		c := codes.OK
		if s.write != nil {
			c = s.write(doc)
		}
		if p, ok := w.GetCurrentDocument().GetConditionType().(*firestorepb.Precondition_Exists); !ok || p.Exists {
			s.doubts++
		}
		if _, ok := s.docs[doc.Name]; ok && c == codes.OK {
			c = codes.AlreadyExists
		}
		if c == codes.OK && (code == codes.OK || stored) {
			s.docs[doc.Name] = doc
		}
		resp.Status = append(resp.Status, &rpcstatus.Status{Code: int32(c)})
		resp.WriteResults = append(resp.WriteResults, &firestorepb.WriteResult{})
	}
	if code != codes.OK {
		return nil, status.Error(code, "as asked")
	}
	return resp, nil
}

// RunQuery has every page full once, so that the next is asked for.
func (s *fakeServer) RunQuery(req *firestorepb.RunQueryRequest, stream firestorepb.Firestore_RunQueryServer) error {
	q := req.GetStructuredQuery()
	if q.StartAt != nil {
		return nil
	}
	for i := range q.Limit.GetValue() {
		d := &firestorepb.Document{Name: fmt.Sprintf("%s/auditLog/%08d", req.Parent, i), Fields: map[string]*firestorepb.Value{
			"size": integer(1), "chain": text("c"), "seq": integer(int64(i)), "time": instant(time.Now()), "sha256": text(strings.Repeat("00", 32))}}
		if err := stream.Send(&firestorepb.RunQueryResponse{Document: d}); err != nil {
			return err
		}
	}
	return nil
}

func serve(t *testing.T, s *fakeServer) *Client {
	t.Helper()
	return serveWatched(t, s, nil)
}

func serveWatched(t *testing.T, s *fakeServer, seen func(*firestorepb.StructuredQuery)) *Client {
	t.Helper()
	s.docs = map[string]*firestorepb.Document{}
	return serveAny(t, s, seen)
}

func serveAny(t *testing.T, s firestorepb.FirestoreServer, seen func(*firestorepb.StructuredQuery)) *Client {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	srv := grpc.NewServer()
	firestorepb.RegisterFirestoreServer(srv, s)
	go srv.Serve(l)
	t.Cleanup(srv.Stop)
	conn, err := grpc.NewClient("passthrough:bufnet", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStreamInterceptor(watchQueries(t, seen)), grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	return connect(t, Options{conn: conn})
}

// ship appends ten events and closes; Close ships them all.
func ship(t *testing.T, dir string, sink audit.Sink) *audit.Ledger {
	t.Helper()
	l := open(t, audit.Options{Dir: dir, Sink: sink})
	for i := range 10 {
		if _, err := l.Append(decision(i)); err != nil {
			t.Fatal(err)
		}
	}
	closed(t, l)
	return l
}

// TestF3EveryCode fails the first two calls with each status code, before and
// after the batch was stored: all events arrive, once.
func TestF3EveryCode(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		for _, stored := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s stored %v", code, stored), func(t *testing.T) {
				t.Parallel()
				s := &fakeServer{}
				s.call = func(n int) (codes.Code, bool) {
					// An argument that is invalid alone is the event's own fault.
					if n <= 2 && (code != codes.InvalidArgument || (n == 1 && s.writes > 1)) {
						return code, stored
					}
					return codes.OK, true
				}
				l := ship(t, t.TempDir(), serve(t, s).Audit("auditLog", 0))
				// One failure of a batch that is invalid shows which of its events are.
				failures := map[string]uint64{code2name(code): 2}
				if code == codes.InvalidArgument {
					failures = map[string]uint64{}
				}
				if got := l.Stats(); len(s.docs) != 10 || got.Shipped != 10 || got.Unstorable != 0 || s.doubts > 0 || !maps.Equal(got.Failures, failures) {
					t.Errorf("%d documents, %d writes without precondition, %+v", len(s.docs), s.doubts, got)
				}
			})
		}
	}
}

// TestF3EveryCodeOfOneWrite fails one write of the first batch.
func TestF3EveryCodeOfOneWrite(t *testing.T) {
	for code := codes.Canceled; code <= codes.Unauthenticated; code++ {
		if code == codes.AlreadyExists { // it says that the line is there
			continue
		}
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			failed := 0
			s := &fakeServer{call: func(int) (codes.Code, bool) { return codes.OK, true }}
			s.write = func(d *firestorepb.Document) codes.Code {
				if d.Fields["seq"].GetIntegerValue() != 4 || d.Fields["line"] == nil || failed == 2 && code != codes.InvalidArgument {
					return codes.OK
				}
				failed++
				return code
			}
			l := ship(t, t.TempDir(), serve(t, s).Audit("auditLog", 0))
			want := 0
			if code == codes.InvalidArgument {
				want = 1
			}
			if got := l.Stats(); len(s.docs) != 10 || got.Shipped != 10 || got.Unstorable != want {
				t.Errorf("%d documents, %+v", len(s.docs), got)
			}
		})
	}
}

// code2name is the code's name in Google's documents: DEADLINE_EXCEEDED.
func code2name(c codes.Code) string { return rpccode.Code(c).String() }

func TestOnlyInvalidArgumentIsUnstorable(t *testing.T) {
	for code := codes.OK; code <= codes.Unauthenticated; code++ {
		err := storeError(code, errors.New("x"))
		if got := errors.Is(err, audit.ErrUnstorable); got != (code == codes.InvalidArgument) {
			t.Errorf("%s: %v", code, got)
		}
		var coded codedError
		if !errors.As(fmt.Errorf("wrapped: %w", err), &coded) || coded.Kind() != code2name(code) {
			t.Errorf("%s is counted as %q", code, coded.Kind())
		}
	}
	if got := (codedError{code: 4711}).Kind(); got != "UNKNOWN" { // a label of a metric is one of few
		t.Errorf("a code that there is not is counted as %q", got)
	}
}

func TestExpiry(t *testing.T) {
	l := audit.Line{ID: "1", Raw: []byte("{}"), Time: time.Unix(1e9, 0)}
	for ttl, want := range map[time.Duration]int64{0: 0, time.Hour: 1e9 + 3600} {
		d, err := (&Client{}).Audit("auditLog", ttl).document(&l)
		if err != nil || d.Fields["expireAt"].GetTimestampValue().GetSeconds() != want {
			t.Errorf("ttl %v: %v, %v", ttl, d.Fields["expireAt"], err)
		}
	}
}

func TestDocumentIDsSpread(t *testing.T) {
	if id := documentID("abc"); id != "ba7816bf-abc" { // FIPS 180-2, B.1
		t.Error(id)
	}
}
