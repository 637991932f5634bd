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
		"uid":               &s.UID,
		"namespace":         &s.Namespace,
		"identity":          &s.Identity,
		"key":               &s.Key,
		"bucket":            &s.Bucket,
		"contentType":       &s.ContentType,
		"checksumSha256":    &s.Checksum,
		"checksumCrc64nvme": &s.Checksum64,
		"status":            (*string)(&s.Status),
		"record":            &s.Record,
		"etag":              &s.ETag,
		"versionId":         &s.VersionID,
		"reason":            &s.Reason,
		"route":             &s.Route,
		"uploadId":          &s.UploadID,
		"request":           &s.Request,
		"quota":             &s.Quota,
		"notice":            (*string)(&s.Notice),
	}
}

// sessionTimes are those that are timestamps, exact to the microsecond.
func sessionTimes(s *upload.Session) map[string]*time.Time {
	return map[string]*time.Time{
		"createdAt":    &s.CreatedAt,
		"expiresAt":    &s.ExpiresAt,
		"confirmBy":    &s.ConfirmBy,
		"readyAt":      &s.ReadyAt,
		"completingAt": &s.CompletingAt,
		"rejectedAt":   &s.RejectedAt,
		"quotaWindow":  &s.QuotaWindow,
		wakeField:      &s.Wake,
	}
}

// sessionFlags are those that are booleans.
func sessionFlags(s *upload.Session) map[string]*bool {
	return map[string]*bool{
		"multipart":   &s.Multipart,
		"overwrite":   &s.Overwrite,
		"deleteLate":  &s.DeleteLate,
		"autoConfirm": &s.AutoConfirm,
		"direct":      &s.Direct,
		"held":        &s.Held,

		"partChecksums": &s.PartChecksums,
	}
}

// sessionNumbers are those that are integers, but for the size: 0 is left out,
// and what is left out is 0.
func sessionNumbers(s *upload.Session) map[string]*int64 {
	return map[string]*int64{
		"maxBytes": &s.MaxBytes,
		"counted":  &s.Counted,
		"changes":  &s.Changes,
	}
}

// attemptsField is an int of a session, and so in none of the lists.
const attemptsField = "attempts"

// sessionFields is the document of a session; what is empty, zero or false is
// left out, and the ID is the document's name.
func sessionFields(s *upload.Session, revision string) map[string]*firestorepb.Value {
	fields := map[string]*firestorepb.Value{
		"size":     integer(s.Size),
		shardField: integer(shardOf(s.ID)),
	}
	texts := sessionTexts(s)
	texts[revisionField] = &revision
	for name, v := range texts {
		if *v != "" {
			fields[name] = text(*v)
		}
	}
	for name, v := range sessionTimes(s) {
		if !v.IsZero() {
			fields[name] = instant(v.Truncate(time.Microsecond))
		}
	}
	for name, v := range sessionFlags(s) {
		if *v {
			fields[name] = &firestorepb.Value{ValueType: &firestorepb.Value_BooleanValue{BooleanValue: true}}
		}
	}
	for name, v := range sessionNumbers(s) {
		if *v != 0 {
			fields[name] = integer(*v)
		}
	}
	if s.Attempts != 0 {
		fields[attemptsField] = integer(int64(s.Attempts))
	}
	return fields
}

// sessionMask names every field of ours, so that a transition clears those
// that are empty now and leaves alone what an app added.
func sessionMask() *firestorepb.DocumentMask {
	var s upload.Session
	mask := []string{"size", revisionField, shardField, attemptsField}
	mask = slices.AppendSeq(mask, maps.Keys(sessionTexts(&s)))
	mask = slices.AppendSeq(mask, maps.Keys(sessionTimes(&s)))
	mask = slices.AppendSeq(mask, maps.Keys(sessionFlags(&s)))
	mask = slices.AppendSeq(mask, maps.Keys(sessionNumbers(&s)))
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
	for name, v := range sessionFlags(s.session) {
		field, ok := doc.Fields[name]
		if !ok {
			continue
		}
		flag, ok := field.ValueType.(*firestorepb.Value_BooleanValue)
		if !ok {
			return nil, fmt.Errorf("field %s is not a boolean", name)
		}
		*v = flag.BooleanValue
	}
	var attempts int64
	numbers := sessionNumbers(s.session)
	numbers["size"], numbers[attemptsField] = &s.session.Size, &attempts
	for name, v := range numbers {
		field, ok := doc.Fields[name]
		if !ok && name != "size" { // which every version wrote
			continue
		}
		number, ok := field.GetValueType().(*firestorepb.Value_IntegerValue)
		if !ok {
			return nil, fmt.Errorf("field %s is not an integer", name)
		}
		*v = number.IntegerValue
	}
	s.session.Attempts = int(attempts)
	s.updated = updateTime(doc)
	return s, nil
}

// updateTime is when a document was written, as a condition has it: the
// emulator gives nanoseconds and takes none of them back.
func updateTime(doc *firestorepb.Document) *timestamppb.Timestamp {
	return timestamppb.New(doc.GetUpdateTime().AsTime().Truncate(time.Microsecond))
}

// sameSession tells whether two sessions make the same document.
func sameSession(a, b *upload.Session) bool {
	return a.ID == b.ID && maps.EqualFunc(sessionFields(a, ""), sessionFields(b, ""),
		func(x, y *firestorepb.Value) bool { return proto.Equal(x, y) })
}
