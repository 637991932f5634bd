package firestore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestExplain(t *testing.T) {
	const link = "https://console.firebase.google.com/v1/r/project/p/firestore/indexes?create_composite=Ckl_wcm-9q"
	for text, c := range map[string]struct {
		err  error
		want Explanation
	}{
		"an index":         {status.Error(codes.FailedPrecondition, "The query requires an index. You can create it here: "+link), Explanation{NoIndex, "FAILED_PRECONDITION", link}},
		"a field's index":  {status.Error(codes.FailedPrecondition, "The query requires a COLLECTION_ASC index for collection auditLog and field record. You can create it here: "+link), Explanation{NoIndex, "FAILED_PRECONDITION", link}},
		"being built":      {status.Error(codes.FailedPrecondition, "The query requires an index. That index is currently building and cannot be used yet. See its status here: "+link), Explanation{IndexBuilding, "FAILED_PRECONDITION", link}},
		"a link elsewhere": {status.Error(codes.FailedPrecondition, "The query requires an index: https://console.firebase.google.com.evil.example/"), Explanation{NoIndex, "FAILED_PRECONDITION", ""}},
		"a precondition":   {status.Error(codes.FailedPrecondition, "no entity to update"), Explanation{Other, "FAILED_PRECONDITION", ""}},
		"no document":      {status.Error(codes.NotFound, "No document to update"), Explanation{Other, "NOT_FOUND", ""}},
		"wrapped":          {fmt.Errorf("firestore: %w", status.Error(codes.Unavailable, "x")), Explanation{Unreachable, "UNAVAILABLE", ""}},
		"no time":          {fmt.Errorf("firestore: %w", context.DeadlineExceeded), Explanation{Unreachable, "UNKNOWN", ""}},
		"no token":         {status.Error(codes.Unauthenticated, "transport: per-RPC creds failed due to error: x"), Explanation{NoCredentials, "UNAUTHENTICATED", ""}},
		"none found":       {errors.New("credentials: could not find default credentials. See x"), Explanation{NoCredentials, "UNKNOWN", ""}},
	} {
		if got := Explain(c.err); got != c.want {
			t.Errorf("%s: %+v, want %+v", text, got, c.want)
		}
	}
}

// FuzzExplain: of what a server says nothing is taken over but an address of
// Google's consoles.
func FuzzExplain(f *testing.F) {
	f.Add("The query requires an index. You can create it here: https://console.firebase.google.com/x?y=z", uint32(codes.FailedPrecondition))
	f.Add("index https://console.cloud.google.com/\x1b[31m https://user@console.cloud.google.com/", uint32(codes.FailedPrecondition))
	f.Fuzz(func(t *testing.T, text string, code uint32) {
		if code == uint32(codes.OK) {
			return // no error
		}
		e := Explain(status.Error(codes.Code(code), text))
		if e.Link == "" {
			return
		}
		host, rest, ok := strings.Cut(strings.TrimPrefix(e.Link, "https://"), "/")
		if !ok || host != "console.firebase.google.com" && host != "console.cloud.google.com" || len(rest) > 1000 || strings.ContainsFunc(rest, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune("\"'<>\\`@", r) }) {
			t.Errorf("the link %q", e.Link)
		}
	})
}
