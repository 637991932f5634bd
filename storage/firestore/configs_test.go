package firestore

import (
	"context"
	"encoding/base64"
	"path"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sidegate/storage/audit"
	"sidegate/storage/firestore/indextest"
	"sidegate/storage/upload"
)

func readIndexes(t testing.TB) *indextest.File {
	t.Helper()
	f, err := indextest.Read("../../configs/firestore.indexes.json")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestEveryFieldIsExempt: a field with an index of its own costs every write,
// and a rising one bounds the rate. Only record has one: its values are random.
func TestEveryFieldIsExempt(t *testing.T) {
	a := (&Client{}).Audit("auditLog", time.Hour)
	line := audit.Line{ID: "1", Raw: []byte(`{"type":"t","record":"r","request":{"method":"m"},"identity":{"namespace":"n","uid":"u"},
		"decision":{"effect":"e","route":"r","code":"c","status":403},"object":{"bucket":"b","key":"k","operation":"o"}}`)}
	event, err := a.document(&line)
	if err != nil {
		t.Fatal(err)
	}
	stub, err := a.document(&audit.Line{ID: "1", Stub: true})
	if err != nil {
		t.Fatal(err)
	}
	exempt := map[string]bool{}
	for _, o := range readIndexes(t).FieldOverrides {
		exempt[o.CollectionGroup+"."+o.FieldPath] = len(o.Indexes) == 0 || o.CollectionGroup+o.FieldPath == "auditLogrecord"
		if o.TTL != (o.CollectionGroup != "uploadSessions" && o.FieldPath == "expireAt") {
			t.Errorf("ttl of %s.%s is %v", o.CollectionGroup, o.FieldPath, o.TTL)
		}
	}
	head := a.headDocument("", &audit.Head{})
	var session upload.Session
	count, err := (&Sessions{}).decodeCount(&session, nil)
	if err != nil {
		t.Fatal(err)
	}
	for collection, names := range map[string][]string{
		"auditLog":             append(keys(event.Fields), keys(stub.Fields)...),
		"auditCheckpoints":     keys(head.Fields),
		"uploadSessions":       sessionMask().FieldPaths,
		"uploadSessionsQuotas": keys(count.sub(&session).GetUpdate().Fields),
	} {
		for _, name := range names {
			if !exempt[collection+"."+name] {
				t.Errorf("%s.%s has a single-field index", collection, name)
			}
		}
	}
}

func keys[V any](m map[string]V) []string {
	var list []string
	for k := range m {
		list = append(list, k)
	}
	return list
}

// TestRulesKeepClientsOut asks as an app's client does, signed in and not, in
// every way in which documents are read, found and changed.
func TestRulesKeepClientsOut(t *testing.T) {
	host := emulator(t)
	conn, err := grpc.NewClient(host, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	client := connect(t, Options{conn: conn})
	b64 := base64.RawURLEncoding.EncodeToString
	token := b64([]byte(`{"alg":"none"}`)) + "." + b64([]byte(`{"sub":"u1","user_id":"u1"}`)) + "."
	for who, ctx := range map[string]context.Context{
		"anybody":   context.Background(),
		"signed in": metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token),
	} {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		for _, collection := range []string{"auditLog", "auditCheckpoints", "uploadSessions", "uploadSessionsQuotas"} {
			for _, under := range []string{"", "/x/sub"} {
				for what, err := range tries(ctx, client, collection+under) {
					if status.Code(err) != codes.PermissionDenied {
						t.Errorf("%s may %s %s: %v", who, what, collection+under, err)
					}
				}
			}
		}
	}
}

// tries reads, finds and changes documents of a collection.
func tries(ctx context.Context, c *Client, collection string) map[string]error {
	name := c.documents() + "/" + collection + "/y"
	parent, id := path.Split(c.documents() + "/" + collection)
	parent = strings.TrimSuffix(parent, "/")
	errs := map[string]error{}
	_, errs["get"] = c.api.GetDocument(ctx, &firestorepb.GetDocumentRequest{Name: name})
	_, errs["list"] = c.api.ListDocuments(ctx, &firestorepb.ListDocumentsRequest{Parent: parent, CollectionId: id}).Next()
	for what, deep := range map[string]bool{"query": false, "query as a group": true} {
		stream, err := c.api.RunQuery(ctx, &firestorepb.RunQueryRequest{Parent: parent, QueryType: &firestorepb.RunQueryRequest_StructuredQuery{
			StructuredQuery: &firestorepb.StructuredQuery{From: []*firestorepb.StructuredQuery_CollectionSelector{{CollectionId: id, AllDescendants: deep}}}}})
		if err == nil {
			_, err = stream.Recv()
		}
		errs[what] = err
	}
	doc := &firestorepb.Document{Name: name}
	_, errs["create in"] = c.api.CreateDocument(ctx, &firestorepb.CreateDocumentRequest{Parent: parent, CollectionId: id, Document: &firestorepb.Document{}})
	_, errs["update"] = c.api.UpdateDocument(ctx, &firestorepb.UpdateDocumentRequest{Document: doc})
	errs["delete"] = c.api.DeleteDocument(ctx, &firestorepb.DeleteDocumentRequest{Name: name})
	_, errs["commit to"] = c.api.Commit(ctx, &firestorepb.CommitRequest{Database: c.database, Writes: []*firestorepb.Write{
		{Operation: &firestorepb.Write_Update{Update: doc}}}})
	return errs
}
