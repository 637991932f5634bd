package firestore

import (
	"context"
	"errors"
	"math"
	"net"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/genproto/googleapis/type/latlng"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sidegate/policy"
)

// documentServer answers as its test says.
type documentServer struct {
	firestorepb.UnimplementedFirestoreServer
	calls  atomic.Int64
	answer func(r *firestorepb.BatchGetDocumentsRequest, out firestorepb.Firestore_BatchGetDocumentsServer) error
}

func (s *documentServer) BatchGetDocuments(r *firestorepb.BatchGetDocumentsRequest, out firestorepb.Firestore_BatchGetDocumentsServer) error {
	s.calls.Add(1)
	return s.answer(r, out)
}

func found(doc *firestorepb.Document) *firestorepb.BatchGetDocumentsResponse {
	return &firestorepb.BatchGetDocumentsResponse{Result: &firestorepb.BatchGetDocumentsResponse_Found{Found: doc}}
}

func missing(name string) *firestorepb.BatchGetDocumentsResponse {
	return &firestorepb.BatchGetDocumentsResponse{Result: &firestorepb.BatchGetDocumentsResponse_Missing{Missing: name}}
}

// says answers each request with these messages and then err.
func says(err error, answers ...*firestorepb.BatchGetDocumentsResponse) func(*firestorepb.BatchGetDocumentsRequest, firestorepb.Firestore_BatchGetDocumentsServer) error {
	return func(_ *firestorepb.BatchGetDocumentsRequest, out firestorepb.Firestore_BatchGetDocumentsServer) error {
		for _, a := range answers {
			if err := out.Send(a); err != nil {
				return err
			}
		}
		return err
	}
}

func faultyDocuments(t *testing.T) (*Documents, *documentServer) {
	t.Helper()
	fake := &documentServer{}
	l := bufconn.Listen(1 << 16)
	server := grpc.NewServer()
	firestorepb.RegisterFirestoreServer(server, fake)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return documentsOver(t, l.DialContext), fake
}

func documentsOver(t *testing.T, dial func(context.Context) (net.Conn, error)) *Documents {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///fake", grpc.WithTransportCredentials(insecure.NewCredentials()), reconnect,
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }))
	if err != nil {
		t.Fatal(err)
	}
	return NewDocuments(connect(t, Options{Project: "demo-documents", conn: conn}))
}

const aDocument = "projects/demo-documents/databases/(default)/documents/shares/abc"

// unreadables are values that no policy can read.
func unreadables() map[string]*firestorepb.Value {
	return map[string]*firestorepb.Value{
		"null":      {ValueType: &firestorepb.Value_NullValue{NullValue: structpb.NullValue_NULL_VALUE}},
		"bytes":     {ValueType: &firestorepb.Value_BytesValue{BytesValue: []byte("abc")}},
		"reference": {ValueType: &firestorepb.Value_ReferenceValue{ReferenceValue: aDocument}},
		"place":     {ValueType: &firestorepb.Value_GeoPointValue{GeoPointValue: &latlng.LatLng{Latitude: 1}}},
	}
}

func str(s string) *firestorepb.Value {
	return &firestorepb.Value{ValueType: &firestorepb.Value_StringValue{StringValue: s}}
}

// readables are values of every kind that one can, and what is made of them.
func readables() (map[string]*firestorepb.Value, map[string]any) {
	at := time.Date(2026, 3, 2, 10, 0, 0, 123456000, time.UTC)
	null := unreadables()["null"]
	return map[string]*firestorepb.Value{
			"text":   str("é"),
			"yes":    {ValueType: &firestorepb.Value_BooleanValue{BooleanValue: true}},
			"whole":  {ValueType: &firestorepb.Value_IntegerValue{IntegerValue: math.MaxInt64}},
			"double": {ValueType: &firestorepb.Value_DoubleValue{DoubleValue: 2}},
			"at":     {ValueType: &firestorepb.Value_TimestampValue{TimestampValue: timestamppb.New(at)}},
			"list":   {ValueType: &firestorepb.Value_ArrayValue{ArrayValue: &firestorepb.ArrayValue{Values: []*firestorepb.Value{str("a"), null}}}},
			"none":   {ValueType: &firestorepb.Value_ArrayValue{ArrayValue: &firestorepb.ArrayValue{}}},
			"map": {ValueType: &firestorepb.Value_MapValue{MapValue: &firestorepb.MapValue{Fields: map[string]*firestorepb.Value{
				"a b": str("c"), "null": null,
				"in": {ValueType: &firestorepb.Value_MapValue{MapValue: &firestorepb.MapValue{}}},
			}}}},
		}, map[string]any{
			"text": "é", "yes": true, "whole": int64(math.MaxInt64), "double": 2.0, "at": at,
			"list": []any{"a", unreadable{}}, "none": []any{},
			"map": map[string]any{"a b": "c", "null": unreadable{}, "in": map[string]any{}},
		}
}

func TestDocumentIsRead(t *testing.T) {
	d, fake := faultyDocuments(t)
	stored, want := readables()
	fields := []string{"absent"}
	for name := range stored {
		fields = append(fields, name)
	}
	slices.Sort(fields)
	stored["unasked"] = str("x") // a server that gives more than it was asked for
	var asked *firestorepb.BatchGetDocumentsRequest
	fake.answer = func(r *firestorepb.BatchGetDocumentsRequest, out firestorepb.Firestore_BatchGetDocumentsServer) error {
		asked = r
		return says(nil, &firestorepb.BatchGetDocumentsResponse{}, found(&firestorepb.Document{Name: aDocument, Fields: stored}))(r, out)
	}
	got, err := d.ReadDocument(t.Context(), "shares/abc", fields)
	if err != nil || !reflect.DeepEqual(got, policy.Document{Exists: true, Fields: want}) {
		t.Errorf("got %#v, %v\nwant %#v", got, err, want)
	}
	if asked.Database != "projects/demo-documents/databases/(default)" || !slices.Equal(asked.Documents, []string{aDocument}) || !slices.Equal(asked.Mask.GetFieldPaths(), fields) {
		t.Errorf("asked for %v", asked)
	}
	// Without fields a mask must be there, or all would be read.
	if got, err = d.ReadDocument(t.Context(), "shares/abc", nil); err != nil || !got.Exists || len(got.Fields) != 0 || asked.Mask == nil {
		t.Errorf("no fields: %#v, %v, mask %v", got, err, asked.Mask)
	}
}

func TestDocumentMissing(t *testing.T) {
	d, fake := faultyDocuments(t)
	fake.answer = says(nil, missing(aDocument))
	if got, err := d.ReadDocument(t.Context(), "shares/abc", []string{"a"}); err != nil || got.Exists || got.Fields != nil {
		t.Errorf("%#v, %v", got, err)
	}
}

func TestDocumentValueOfNoUse(t *testing.T) {
	values := unreadables()
	values["of a later kind"] = &firestorepb.Value{}
	values["no time"] = &firestorepb.Value{ValueType: &firestorepb.Value_TimestampValue{TimestampValue: &timestamppb.Timestamp{Nanos: -1}}}
	for name, v := range values {
		if got := decodeValue(v); got != (unreadable{}) {
			t.Errorf("%s: %#v", name, got)
		}
	}
}

// A document is said to be missing only by an answer about it.
func TestDocumentFaultsAreUnknown(t *testing.T) {
	other := aDocument + "d"
	for name, answer := range map[string]func(*firestorepb.BatchGetDocumentsRequest, firestorepb.Firestore_BatchGetDocumentsServer) error{
		"may not":                    says(status.Error(codes.PermissionDenied, "fault")),
		"no database":                says(status.Error(codes.NotFound, "fault")),
		"broken":                     says(status.Error(codes.Internal, "fault")),
		"ends at once":               says(nil),
		"ends early":                 says(nil, &firestorepb.BatchGetDocumentsResponse{}),
		"breaks off":                 says(status.Error(codes.Unavailable, "fault"), &firestorepb.BatchGetDocumentsResponse{}),
		"another document":           says(nil, found(&firestorepb.Document{Name: other, Fields: map[string]*firestorepb.Value{"a": str("x")}})),
		"another is missing":         says(nil, missing(other)),
		"another, and then this one": says(nil, missing(other), found(&firestorepb.Document{Name: aDocument})),
		"a document without name":    says(nil, found(&firestorepb.Document{})),
	} {
		t.Run(name, func(t *testing.T) {
			d, fake := faultyDocuments(t)
			fake.answer = answer
			got, err := d.ReadDocument(t.Context(), "shares/abc", []string{"a"})
			if err == nil || got.Exists || got.Fields != nil || !strings.Contains(err.Error(), `"shares/abc"`) {
				t.Errorf("%#v, %v", got, err)
			}
			if n := fake.calls.Load(); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

func TestDocumentReadEndsWithItsContext(t *testing.T) {
	t.Run("an answer that does not come", func(t *testing.T) {
		d, fake := faultyDocuments(t)
		asked, ended := make(chan struct{}), make(chan struct{})
		fake.answer = func(_ *firestorepb.BatchGetDocumentsRequest, out firestorepb.Firestore_BatchGetDocumentsServer) error {
			close(asked)
			<-out.Context().Done()
			close(ended)
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-asked; cancel() }()
		if got, err := d.ReadDocument(ctx, "shares/abc", nil); status.Code(err) != codes.Canceled || got.Exists {
			t.Errorf("%#v, %v", got, err)
		}
		<-ended // the stream was let go of
	})
	t.Run("an answer that does not end", func(t *testing.T) {
		d, fake := faultyDocuments(t)
		ctx, cancel := context.WithCancel(t.Context())
		fake.answer = func(_ *firestorepb.BatchGetDocumentsRequest, out firestorepb.Firestore_BatchGetDocumentsServer) error {
			for n := 0; ; n++ {
				if err := out.Send(&firestorepb.BatchGetDocumentsResponse{}); err != nil {
					return err
				}
				if n == 100 {
					cancel()
				}
			}
		}
		if got, err := d.ReadDocument(ctx, "shares/abc", nil); err == nil || got.Exists {
			t.Errorf("%#v, %v", got, err)
		}
	})
	// Here the SDK's own repeats go on; they end as the context does.
	t.Run("a server that cannot be reached", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var dials atomic.Int64
		d := documentsOver(t, func(context.Context) (net.Conn, error) {
			if dials.Add(1) == 2 {
				cancel()
			}
			return nil, errors.New("nobody is there")
		})
		if got, err := d.ReadDocument(ctx, "shares/abc", nil); err == nil || got.Exists {
			t.Errorf("%#v, %v", got, err)
		}
	})
}

// A path never reaches another document than the one that it spells.
func TestDocumentPathNamesNoOtherDocument(t *testing.T) {
	d, fake := faultyDocuments(t)
	fake.answer = func(r *firestorepb.BatchGetDocumentsRequest, out firestorepb.Firestore_BatchGetDocumentsServer) error {
		return out.Send(missing(r.Documents[0]))
	}
	long := strings.Repeat("x", maxSegment)
	for _, path := range []string{"", "/", "shares", "shares/", "/shares", "/abc", "shares/abc/", "/shares/abc", "shares//abc", "shares/abc/files", "shares//",
		"shares/.", "shares/..", "./abc", "shares/../users/u1", "shares/__x__", "__x__/abc", "shares/____", "shares/" + long + "x", long + "x/abc", "shares/\xff"} {
		if got, err := d.ReadDocument(t.Context(), path, nil); err == nil || got.Exists {
			t.Errorf("%.64q: %#v, %v", path, got, err)
		}
	}
	for _, field := range []string{"", "a.b", "`a`", "a b", "1a", "é", "a\n", "*"} {
		if got, err := d.ReadDocument(t.Context(), "shares/abc", []string{"a", field}); err == nil || got.Exists {
			t.Errorf("field %q: %#v, %v", field, got, err)
		}
	}
	if n := fake.calls.Load(); n != 0 {
		t.Errorf("asked %d times", n)
	}
	for _, path := range []string{"shares/abc", "shares/abc/files/f", "shares/" + long, "shares/__", "shares/_x_", "shares/...", "shares/a%2Fb", "sh:ares/é ?#"} {
		if got, err := d.ReadDocument(t.Context(), path, nil); err != nil || got.Exists {
			t.Errorf("%.64q: %#v, %v", path, got, err)
		}
	}
}
