package firestore

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"os"
	"slices"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

type indexFile struct {
	Indexes []struct {
		CollectionGroup, QueryScope string
		Fields                      []struct{ FieldPath, Order string }
	}
	FieldOverrides []struct {
		CollectionGroup, FieldPath string
		TTL                        bool
		Indexes                    []any
	}
}

func readIndexes(t *testing.T) indexFile {
	t.Helper()
	data, err := os.ReadFile("../../configs/firestore.indexes.json")
	if err != nil {
		t.Fatal(err)
	}
	var f indexFile
	if err := json.Unmarshal(data, &f); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestEveryFieldIsExempt: a field with an index of its own costs every write,
// and a rising one bounds the rate.
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
		exempt[o.CollectionGroup+"."+o.FieldPath] = len(o.Indexes) == 0
		if o.TTL != (o.CollectionGroup == "auditLog" && o.FieldPath == "expireAt") {
			t.Errorf("ttl of %s.%s is %v", o.CollectionGroup, o.FieldPath, o.TTL)
		}
	}
	var session upload.Session
	for collection, names := range map[string][]string{
		"auditLog":       append(keys(event.Fields), keys(stub.Fields)...),
		"uploadSessions": append(append(keys(sessionTexts(&session)), keys(sessionTimes(&session))...), "size", revisionField),
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

// TestEveryQueryHasItsIndex holds the queries of this package against the file.
func TestEveryQueryHasItsIndex(t *testing.T) {
	var have []string
	for _, x := range readIndexes(t).Indexes {
		s := x.CollectionGroup + " " + x.QueryScope
		for _, f := range x.Fields {
			s += " " + f.FieldPath + ":" + f.Order
		}
		have = append(have, s)
	}
	for _, want := range []string{
		"auditLog COLLECTION shard:ASCENDING chain:ASCENDING seq:ASCENDING", // Lines
		"auditLog COLLECTION shard:ASCENDING time:DESCENDING",               // Tail
	} {
		if !slices.Contains(have, want) {
			t.Errorf("no index %s", want)
		}
	}
}

// TestRulesKeepClientsOut asks as an app's client does, signed in and not.
func TestRulesKeepClientsOut(t *testing.T) {
	conn, err := grpc.NewClient(emulator(t), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	client := connect(t, Options{conn: conn})
	b64 := base64.RawURLEncoding.EncodeToString
	token := b64([]byte(`{"alg":"none"}`)) + "." + b64([]byte(`{"sub":"u1","user_id":"u1"}`)) + "."
	for _, ctx := range []context.Context{
		context.Background(),
		metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+token),
	} {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		for _, collection := range []string{"auditLog", "auditCheckpoints", "uploadSessions"} {
			name := client.documents() + "/" + collection + "/x"
			_, err := client.api.GetDocument(ctx, &firestorepb.GetDocumentRequest{Name: name})
			if status.Code(err) != codes.PermissionDenied {
				t.Errorf("reading %s: %v", collection, err)
			}
			_, err = client.api.CreateDocument(ctx, &firestorepb.CreateDocumentRequest{
				Parent: client.documents(), CollectionId: collection, Document: &firestorepb.Document{}})
			if status.Code(err) != codes.PermissionDenied {
				t.Errorf("writing %s: %v", collection, err)
			}
		}
	}
}
