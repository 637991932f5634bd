package indextest

import (
	"slices"
	"strings"
	"testing"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/protobuf/encoding/protojson"
)

// feeds are queries as the FastAPI example sends them, without their limits.
func feeds(t *testing.T) []*firestorepb.StructuredQuery {
	t.Helper()
	const order = `"orderBy": [{"field": {"fieldPath": "createdAt"}, "direction": "DESCENDING"}, {"field": {"fieldPath": "__name__"}, "direction": "DESCENDING"}]`
	field := func(name, op string) string {
		return `{"fieldFilter": {"field": {"fieldPath": "` + name + `"}, "op": "` + op + `"}}`
	}
	var list []*firestorepb.StructuredQuery
	for _, q := range [][2]string{
		{"posts", field("orgId", "EQUAL")}, {"posts", field("authorId", "EQUAL")}, {"posts", field("visibility", "EQUAL")},
		{"posts", field("tags", "ARRAY_CONTAINS")},
		{"notifications", `{"compositeFilter": {"op": "AND", "filters": [` + field("uid", "EQUAL") + "," + field("read", "EQUAL") + `]}}`},
	} {
		m := &firestorepb.StructuredQuery{}
		if err := protojson.Unmarshal([]byte(`{"from": [{"collectionId": "`+q[0]+`"}], "where": `+q[1]+`, `+order+`}`), m); err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}

func exampleFile(t *testing.T) *File {
	t.Helper()
	f, err := Read("../../../examples/fastapi-sidecar/firestore.indexes.json")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// failing are the queries that the file has no index for.
func failing(f *File, queries []*firestorepb.StructuredQuery) (list []int) {
	for i, q := range queries {
		if f.Check(q) != nil {
			list = append(list, i)
		}
	}
	return list
}

// TestFaultsOfAFileAreFound: an index that is missing, of another order, scope,
// kind or collection fails its own query and no other; one too many is named.
func TestFaultsOfAFileAreFound(t *testing.T) {
	queries := feeds(t)
	if bad := failing(exampleFile(t), queries); bad != nil {
		t.Fatalf("the example's file fails %v", bad)
	}
	for i := range queries {
		for what, spoil := range map[string]func(*File, *Index){
			"missing":    func(f *File, x *Index) { f.Indexes = slices.Delete(f.Indexes, i, i+1) },
			"turned":     func(_ *File, x *Index) { x.Fields[len(x.Fields)-1].Order = "ASCENDING" },
			"of a group": func(_ *File, x *Index) { x.QueryScope = "COLLECTION_GROUP" },
			"of others":  func(_ *File, x *Index) { x.CollectionGroup = "drafts" },
			"too short":  func(_ *File, x *Index) { x.Fields = x.Fields[1:] },
			"too long":   func(_ *File, x *Index) { x.Fields = append(x.Fields, x.Fields[0]) },
			"of a field": func(_ *File, x *Index) { x.Fields[0].FieldPath = "owner" },
		} {
			f := exampleFile(t)
			spoil(f, &f.Indexes[i])
			if bad := failing(f, queries); !slices.Equal(bad, []int{i}) {
				t.Errorf("index %d %s: fails %v", i, what, bad)
			}
		}
		f := exampleFile(t)
		f.Indexes = f.Indexes[:len(queries)]
		f.FieldOverrides = nil // they are the gateway's as well
		if list := f.Unneeded(queries); list != nil {
			t.Fatalf("unneeded: %v", list)
		}
		rest := slices.Delete(slices.Clone(queries), i, i+1)
		if list := f.Unneeded(rest); len(list) != 1 || !strings.Contains(list[0], f.Indexes[i].Fields[0].FieldPath) {
			t.Errorf("without query %d: %v", i, list)
		}
	}
}
