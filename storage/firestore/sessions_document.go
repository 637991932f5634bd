package firestore

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sidegate/storage/upload"
)

// revisionField holds a random word of the write that made the document, by
// which that write is known again when its answer was lost.
const revisionField = "revision"

// sessionTexts are the fields of a session's document that are strings.
func sessionTexts(s *upload.Session) map[string]*string {
	return map[string]*string{
		"uid":            &s.UID,
		"namespace":      &s.Namespace,
		"identity":       &s.Identity,
		"key":            &s.Key,
		"bucket":         &s.Bucket,
		"contentType":    &s.ContentType,
		"checksumSha256": &s.Checksum,
		"status":         (*string)(&s.Status),
		"record":         &s.Record,
		"etag":           &s.ETag,
		"versionId":      &s.VersionID,
		"reason":         &s.Reason,
	}
}

// sessionTimes are those that are timestamps, exact to the microsecond.
func sessionTimes(s *upload.Session) map[string]*time.Time {
	return map[string]*time.Time{
		"createdAt": &s.CreatedAt,
		"expiresAt": &s.ExpiresAt,
		"confirmBy": &s.ConfirmBy,
		"readyAt":   &s.ReadyAt,
	}
}

// sessionFields is the document of a session; empty texts and zero times are
// left out, and the ID is the document's name.
func sessionFields(s *upload.Session, revision string) map[string]*firestorepb.Value {
	fields := map[string]*firestorepb.Value{
		"size": {ValueType: &firestorepb.Value_IntegerValue{IntegerValue: s.Size}},
	}
	texts := sessionTexts(s)
	texts[revisionField] = &revision
	for name, v := range texts {
		if *v != "" {
			fields[name] = &firestorepb.Value{ValueType: &firestorepb.Value_StringValue{StringValue: *v}}
		}
	}
	for name, v := range sessionTimes(s) {
		if !v.IsZero() {
			fields[name] = &firestorepb.Value{ValueType: &firestorepb.Value_TimestampValue{
				TimestampValue: timestamppb.New(v.Truncate(time.Microsecond)),
			}}
		}
	}
	return fields
}

// sessionMask names every field of ours, so that a transition clears those
// that are empty now and leaves alone what an app added.
func sessionMask() *firestorepb.DocumentMask {
	var s upload.Session
	mask := []string{"size", revisionField}
	mask = slices.AppendSeq(mask, maps.Keys(sessionTexts(&s)))
	mask = slices.AppendSeq(mask, maps.Keys(sessionTimes(&s)))
	return &firestorepb.DocumentMask{FieldPaths: mask}
}

// decodeSession reads a document back. A field of another type is an error;
// one that is unknown is a later version's, or an app's own.
func decodeSession(id string, doc *firestorepb.Document) (*storedSession, error) {
	s := &storedSession{session: &upload.Session{ID: id}}
	texts := sessionTexts(s.session)
	texts[revisionField] = &s.revision
	for name, v := range texts {
		field, ok := doc.Fields[name]
		if !ok {
			continue
		}
		text, ok := field.ValueType.(*firestorepb.Value_StringValue)
		if !ok {
			return nil, fmt.Errorf("field %s is not a string", name)
		}
		*v = text.StringValue
	}
	for name, v := range sessionTimes(s.session) {
		field, ok := doc.Fields[name]
		if !ok {
			continue
		}
		at, ok := field.ValueType.(*firestorepb.Value_TimestampValue)
		if !ok {
			return nil, fmt.Errorf("field %s is not a timestamp", name)
		}
		*v = at.TimestampValue.AsTime()
	}
	size, ok := doc.Fields["size"].GetValueType().(*firestorepb.Value_IntegerValue)
	if !ok {
		return nil, fmt.Errorf("field size is not an integer")
	}
	s.session.Size = size.IntegerValue
	// The emulator gives nanoseconds and takes none of them back.
	s.updated = timestamppb.New(doc.GetUpdateTime().AsTime().Truncate(time.Microsecond))
	return s, nil
}

// sameSession tells whether two sessions make the same document.
func sameSession(a, b *upload.Session) bool {
	return a.ID == b.ID && maps.EqualFunc(sessionFields(a, ""), sessionFields(b, ""),
		func(x, y *firestorepb.Value) bool { return proto.Equal(x, y) })
}
