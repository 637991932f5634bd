package firestore

import (
	"context"
	"crypto/rand"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"

	"sidegate/policy"
)

func TestDocumentsOnTheEmulator(t *testing.T) {
	client := connect(t, Options{Project: "demo-documents", Emulator: emulator(t)})
	d := NewDocuments(client)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // a cold emulator's first answer is slow
	defer cancel()
	stored, want := readables()
	maps.Copy(stored, unreadables())
	for name := range unreadables() {
		want[name] = unreadable{}
	}
	fields := append(slices.Sorted(maps.Keys(want)), "absent")
	stored["unasked"] = str("x")
	root := "shares/" + rand.Text()
	for _, path := range []string{root, root + "/files/f 1:é"} {
		if got, err := d.ReadDocument(ctx, path, fields); err != nil || got.Exists {
			t.Fatalf("%s before: %#v, %v", path, got, err)
		}
		if _, err := client.api.Commit(ctx, &firestorepb.CommitRequest{
			Database: client.database,
			Writes: []*firestorepb.Write{{Operation: &firestorepb.Write_Update{Update: &firestorepb.Document{
				Name: client.documents() + "/" + path, Fields: stored,
			}}}},
		}); err != nil {
			t.Fatal(err)
		}
		if got, err := d.ReadDocument(ctx, path, fields); err != nil || !reflect.DeepEqual(got, policy.Document{Exists: true, Fields: want}) {
			t.Errorf("%s: %#v, %v", path, got, err)
		}
	}
	for _, none := range [][]string{nil, {"absent"}} {
		if got, err := d.ReadDocument(ctx, root, none); err != nil || !got.Exists || len(got.Fields) != 0 {
			t.Errorf("fields %v: %#v, %v", none, got, err)
		}
	}
	if got, err := d.ReadDocument(ctx, root+"2", fields); err != nil || got.Exists {
		t.Errorf("another: %#v, %v", got, err)
	}
}
