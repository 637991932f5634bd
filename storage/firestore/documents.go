package firestore

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"cloud.google.com/go/firestore/apiv1/firestorepb"

	"sidegate/policy"
)

// maxSegment bounds each part of a document's path, in bytes
// (firebase.google.com/docs/firestore/quotas).
const maxSegment = 1500

// plainField is a field's name that is its own path: it needs no quotes, and
// reaches into no map.
var plainField = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// Documents reads documents for the policy's lookups. It keeps nothing and is
// safe for concurrent use.
type Documents struct{ client *Client }

// NewDocuments reads from the client's database.
func NewDocuments(c *Client) *Documents { return &Documents{client: c} }

// ReadDocument reads those fields of the document at path, which is relative
// to the database's root, such as shares/abc. A document that does not exist
// is no error; a database that does not exist, or may not be read, is one. The
// call takes as long as ctx lets it: the SDK tries a connection that fails
// again and again until then.
func (d *Documents) ReadDocument(ctx context.Context, path string, fields []string) (policy.Document, error) {
	doc, err := d.read(ctx, path, fields)
	if err != nil {
		return policy.Document{}, fmt.Errorf("firestore: document %.256q: %w", path, err)
	}
	return doc, nil
}

// read asks with BatchGetDocuments, which tells a document that is missing
// (an answer) from a database that is (an error).
func (d *Documents) read(ctx context.Context, path string, fields []string) (policy.Document, error) {
	if err := checkPath(path); err != nil {
		return policy.Document{}, err
	}
	for _, f := range fields {
		if !plainField.MatchString(f) {
			return policy.Document{}, fmt.Errorf("%.64q is not the plain name of a field", f)
		}
	}
	name := d.client.documents() + "/" + path
	ctx, cancel := context.WithCancel(ctx) // lets go of the stream
	defer cancel()
	stream, err := d.client.api.BatchGetDocuments(ctx, &firestorepb.BatchGetDocumentsRequest{
		Database:  d.client.database,
		Documents: []string{name},
		Mask:      &firestorepb.DocumentMask{FieldPaths: fields}, // one that is there but empty: no fields
	})
	if err != nil {
		return policy.Document{}, err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return policy.Document{}, fmt.Errorf("no answer about the document: %w", err)
		}
		switch result := answer.GetResult().(type) {
		case nil: // the stream's progress
		case *firestorepb.BatchGetDocumentsResponse_Missing:
			if result.Missing != name {
				return policy.Document{}, fmt.Errorf("the answer is about another document, %.256q", result.Missing)
			}
			return policy.Document{}, nil
		case *firestorepb.BatchGetDocumentsResponse_Found:
			if got := result.Found.GetName(); got != name {
				return policy.Document{}, fmt.Errorf("the answer is about another document, %.256q", got)
			}
			return decodeDocument(result.Found, fields), nil
		default:
			return policy.Document{}, fmt.Errorf("the answer is of an unknown kind, %T", result)
		}
	}
}

// checkPath refuses what names no document, or could name another one than
// whoever made the path from its parts meant.
func checkPath(path string) error {
	segments := strings.Split(path, "/")
	if len(segments)%2 != 0 {
		return fmt.Errorf("a document's path has an even number of segments, not %d", len(segments))
	}
	for _, s := range segments {
		switch {
		case s == "" || s == "." || s == "..":
			return fmt.Errorf("a segment cannot be %q", s)
		case len(s) >= 4 && strings.HasPrefix(s, "__") && strings.HasSuffix(s, "__"):
			return fmt.Errorf("the segment %.64q is reserved by Firestore", s)
		case len(s) > maxSegment:
			return fmt.Errorf("a segment has %d bytes; at most %d are allowed", len(s), maxSegment)
		case !utf8.ValidString(s): // which the SDK would try to send until ctx ends
			return fmt.Errorf("the segment %.64q is not UTF-8", s)
		}
	}
	return nil
}

// decodeDocument takes of the document what was asked for.
func decodeDocument(doc *firestorepb.Document, fields []string) policy.Document {
	out := policy.Document{Exists: true, Fields: make(map[string]any, len(doc.GetFields()))}
	for name, v := range doc.GetFields() {
		if slices.Contains(fields, name) {
			out.Fields[name] = decodeValue(v)
		}
	}
	return out
}

// unreadable stands for a value that no policy can read: null, bytes, a
// reference, a place, and whatever Firestore will have one day. It is a struct
// so that nobody takes it for absent, as a nil could be, nor for a string or a
// number by looking at its underlying type.
type unreadable struct{}

// decodeValue gives a value as policy.Document promises it. Firestore nests
// maps and arrays at most 20 deep.
func decodeValue(v *firestorepb.Value) any {
	switch v := v.GetValueType().(type) {
	case *firestorepb.Value_StringValue:
		return v.StringValue
	case *firestorepb.Value_BooleanValue:
		return v.BooleanValue
	case *firestorepb.Value_IntegerValue:
		return v.IntegerValue
	case *firestorepb.Value_DoubleValue:
		return v.DoubleValue
	case *firestorepb.Value_TimestampValue:
		if v.TimestampValue.IsValid() {
			return v.TimestampValue.AsTime()
		}
	case *firestorepb.Value_ArrayValue:
		list := make([]any, 0, len(v.ArrayValue.GetValues()))
		for _, one := range v.ArrayValue.GetValues() {
			list = append(list, decodeValue(one))
		}
		return list
	case *firestorepb.Value_MapValue:
		m := make(map[string]any, len(v.MapValue.GetFields()))
		for name, one := range v.MapValue.GetFields() {
			m[name] = decodeValue(one)
		}
		return m
	}
	return unreadable{}
}
