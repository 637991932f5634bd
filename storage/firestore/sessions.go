package firestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"sidegate/storage/upload"
)

// sessionTimeout bounds one operation on a session, the SDK's repeats of its
// calls included.
const sessionTimeout = 10 * time.Second

// Sessions is an upload.Store in one collection: a document for each session,
// named by its ID. Gateways share it. It is safe for concurrent use.
type Sessions struct {
	client *Client
	parent string // of the documents, with the final slash
}

// NewSessions keeps sessions in the collection of that name.
func NewSessions(c *Client, collection string) (*Sessions, error) {
	if collection == "" || collection == "." || collection == ".." || strings.Contains(collection, "/") ||
		strings.HasPrefix(collection, "__") && strings.HasSuffix(collection, "__") {
		return nil, fmt.Errorf("firestore: %q is not the name of a collection at the root", collection)
	}
	return &Sessions{client: c, parent: c.documents() + "/" + collection + "/"}, nil
}

// Create stores a new session. Where the document exists, it may be this
// call's own, whose first answer was lost: what it holds tells.
func (s *Sessions) Create(ctx context.Context, next *upload.Session) error {
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	err := s.commit(ctx, next, rand.Text(), nil, &firestorepb.Precondition{
		ConditionType: &firestorepb.Precondition_Exists{Exists: false},
	})
	if status.Code(err) != codes.AlreadyExists {
		return wrapSession(next.ID, err)
	}
	stored, err := s.read(ctx, next.ID)
	if err != nil {
		if errors.Is(err, upload.ErrNotFound) {
			err = errors.New("it existed and is gone")
		}
		return wrapSession(next.ID, err)
	}
	if !sameSession(stored.session, next) {
		return upload.ErrExists
	}
	return nil
}

// Get is the session of that id.
func (s *Sessions) Get(ctx context.Context, id string) (*upload.Session, error) {
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	stored, err := s.read(ctx, id)
	if err != nil {
		return nil, wrapSession(id, err)
	}
	return stored.session, nil
}

// Transition replaces a session that is still in the state from, and that
// nobody changed since it was read here.
func (s *Sessions) Transition(ctx context.Context, from upload.Status, next *upload.Session) error {
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	was, err := s.read(ctx, next.ID)
	if err != nil {
		return wrapSession(next.ID, err)
	}
	if was.session.Status != from {
		return upload.ErrConflict
	}
	revision := rand.Text()
	lost := s.commit(ctx, next, revision, sessionMask(), &firestorepb.Precondition{
		ConditionType: &firestorepb.Precondition_UpdateTime{UpdateTime: was.updated},
	})
	switch status.Code(lost) {
	case codes.FailedPrecondition, codes.NotFound, codes.AlreadyExists, codes.Aborted:
	default:
		return wrapSession(next.ID, lost)
	}
	// Somebody else was first, or this call's own first attempt was, whose
	// answer was lost and which the SDK repeated: its revision tells.
	now, err := s.read(ctx, next.ID)
	switch {
	case err != nil:
		return wrapSession(next.ID, err)
	case now.revision == revision:
		return nil
	case now.session.Status != from:
		return upload.ErrConflict
	}
	return wrapSession(next.ID, lost)
}

// commit writes the document under the condition; with a mask only the fields
// that it names, else the whole.
func (s *Sessions) commit(ctx context.Context, next *upload.Session, revision string,
	mask *firestorepb.DocumentMask, when *firestorepb.Precondition) error {
	name, err := s.name(next.ID)
	if err != nil {
		return err
	}
	_, err = s.client.api.Commit(ctx, &firestorepb.CommitRequest{
		Database: s.client.database,
		Writes: []*firestorepb.Write{{
			Operation: &firestorepb.Write_Update{Update: &firestorepb.Document{
				Name:   name,
				Fields: sessionFields(next, revision),
			}},
			UpdateMask:      mask,
			CurrentDocument: when,
		}},
	})
	return err
}

// A storedSession is a session as it was read.
type storedSession struct {
	session  *upload.Session
	revision string                 // of the write that made it
	updated  *timestamppb.Timestamp // when that was, by Firestore's clock
}

// read asks with BatchGetDocuments, which tells a document that is missing
// (an answer) from a database that is (an error).
func (s *Sessions) read(ctx context.Context, id string) (*storedSession, error) {
	name, err := s.name(id)
	if err != nil {
		return nil, upload.ErrNotFound
	}
	ctx, cancel := context.WithCancel(ctx) // lets go of the stream
	defer cancel()
	stream, err := s.client.api.BatchGetDocuments(ctx, &firestorepb.BatchGetDocumentsRequest{
		Database:  s.client.database,
		Documents: []string{name},
	})
	if err != nil {
		return nil, err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return nil, fmt.Errorf("no answer about the document: %w", err)
		}
		if answer.GetMissing() == name {
			return nil, upload.ErrNotFound
		}
		if doc := answer.GetFound(); doc.GetName() == name {
			return decodeSession(id, doc)
		}
	}
}

// name is the full name of the session's document.
func (s *Sessions) name(id string) (string, error) {
	if id == "" || strings.ContainsAny(id, "/.") || strings.HasPrefix(id, "__") {
		return "", fmt.Errorf("%.64q cannot name a document", id)
	}
	return s.parent + id, nil
}

// wrapSession names the session in an error that is none of upload's.
func wrapSession(id string, err error) error {
	if err == nil || errors.Is(err, upload.ErrNotFound) {
		return err
	}
	return fmt.Errorf("firestore: upload session %.64q: %w", id, err)
}
