package firestore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sidegate/storage/audit"
)

// auditShards spreads the indexes that hold rising values over this many
// ranges: one range takes about 500 writes a second
// (firebase.google.com/docs/firestore/solutions/shard-timestamp).
const auditShards = 8

// An Audit keeps audit events in a collection: one document an event. It is an
// audit.Sink and is safe for concurrent use, also by several gateways.
type Audit struct {
	client     *Client
	collection string
	ttl        time.Duration
}

// Audit is the audit log in a collection. With ttl above zero documents say
// when a TTL policy on expireAt may delete them.
func (c *Client) Audit(collection string, ttl time.Duration) *Audit {
	return &Audit{client: c, collection: collection, ttl: ttl}
}

// Store implements audit.Sink with one BatchWrite. A document that exists
// already is a line that was stored by a try whose answer got lost.
func (a *Audit) Store(ctx context.Context, lines []audit.Line) ([]error, error) {
	req := &firestorepb.BatchWriteRequest{Database: a.client.database}
	for i := range lines {
		doc, err := a.document(&lines[i])
		if err != nil {
			return nil, err
		}
		req.Writes = append(req.Writes, &firestorepb.Write{
			Operation:       &firestorepb.Write_Update{Update: doc},
			CurrentDocument: &firestorepb.Precondition{ConditionType: &firestorepb.Precondition_Exists{}},
		})
	}
	resp, err := a.client.api.BatchWrite(ctx, req)
	if err != nil {
		return nil, storeError(status.Code(err), err)
	}
	each := make([]error, len(lines))
	if len(resp.Status) != len(lines) {
		return nil, fmt.Errorf("firestore answered for %d writes of %d", len(resp.Status), len(lines))
	}
	for i, s := range resp.Status {
		if c := codes.Code(s.GetCode()); c != codes.OK && c != codes.AlreadyExists {
			each[i] = storeError(c, fmt.Errorf("firestore: %s: %s", c, s.GetMessage()))
		}
	}
	return each, nil
}

// storeError names the code, and marks the one that means that a write will
// never be taken.
func storeError(c codes.Code, err error) error {
	if c == codes.InvalidArgument {
		err = fmt.Errorf("%w: %w", audit.ErrUnstorable, err)
	}
	return codedError{error: err, code: c}
}

// A codedError says for metrics which of gRPC's codes it is.
type codedError struct {
	error
	code codes.Code
}

func (e codedError) Unwrap() error { return e.error }

// Kind is the code's name as gRPC's documents and Google's write it.
func (e codedError) Kind() string {
	if name, ok := code.Code_name[int32(e.code)]; ok {
		return name
	}
	return code.Code_UNKNOWN.String()
}

// documentID begins with random digits, so that writes spread over the
// collection whatever the ids are.
func documentID(event string) string {
	sum := sha256.Sum256([]byte(event))
	return hex.EncodeToString(sum[:4]) + "-" + event
}

func (a *Audit) document(l *audit.Line) (*firestorepb.Document, error) {
	fields := map[string]*firestorepb.Value{
		"chain": text(l.Chain),
		"seq":   integer(int64(l.Seq)),
		"shard": integer(int64(l.Seq % auditShards)),
		"time":  instant(l.Time),
	}
	if a.ttl > 0 {
		fields["expireAt"] = instant(l.Time.Add(a.ttl))
	}
	if l.Stub {
		fields["sha256"] = text(hex.EncodeToString(l.SHA256[:]))
	} else {
		fields["line"] = text(string(l.Raw))
		if err := queried(l, fields); err != nil {
			return nil, err
		}
	}
	return &firestorepb.Document{
		Name:   a.client.documents() + "/" + a.collection + "/" + documentID(l.ID),
		Fields: fields,
	}, nil
}

// queried adds what is asked for beside the line. The values are the escaped
// ones: Firestore takes no text that is not UTF-8.
func queried(l *audit.Line, fields map[string]*firestorepb.Value) error {
	var e struct {
		Type, Record string
		Request      struct{ Method string }
		Identity     struct{ Namespace, UID string }
		Decision     struct {
			Effect, Route, Code string
			Status              int64
		}
		Object  struct{ Bucket, Key, Operation string }
		Outcome struct{ Status int64 }
		Summary *struct{}
	}
	err := json.Unmarshal(l.Raw, &e)
	if err == nil && !utf8.Valid(l.Raw) { // gRPC cannot send it, however often it is tried
		err = errors.New("it is not UTF-8")
	}
	if err != nil {
		return fmt.Errorf("%w: line %d of %s: %w", audit.ErrUnstorable, l.Number, l.File, err)
	}
	if e.Summary != nil && e.Decision.Route == "" {
		e.Decision.Route = severalRoutes
	}
	for name, v := range map[string]string{
		"type": e.Type, "record": e.Record, "method": e.Request.Method,
		"namespace": e.Identity.Namespace, "uid": e.Identity.UID,
		"effect": e.Decision.Effect, "route": e.Decision.Route, "code": e.Decision.Code,
		"bucket": e.Object.Bucket, "key": e.Object.Key, "operation": e.Object.Operation,
	} {
		if v != "" {
			fields[name] = text(v)
		}
	}
	if s := max(e.Decision.Status, e.Outcome.Status); s != 0 {
		fields["status"] = integer(s)
	}
	return nil
}

func text(s string) *firestorepb.Value {
	return &firestorepb.Value{ValueType: &firestorepb.Value_StringValue{StringValue: s}}
}

func integer(n int64) *firestorepb.Value {
	return &firestorepb.Value{ValueType: &firestorepb.Value_IntegerValue{IntegerValue: n}}
}

func instant(t time.Time) *firestorepb.Value {
	return &firestorepb.Value{ValueType: &firestorepb.Value_TimestampValue{TimestampValue: timestamppb.New(t)}}
}
