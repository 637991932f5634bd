package firestore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	mathrand "math/rand/v2"
	"slices"
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

// Sessions is an upload.Store and an upload.Index in one collection: a document
// for each session, named by its ID. What users have counted is in a second
// collection (see sessions_quota.go). Gateways share both. It is safe for
// concurrent use.
type Sessions struct {
	client     *Client
	collection string
	parent     string // of the documents, with the final slash
	quotas     string // the same of the counts
	firstPause time.Duration
}

// NewSessions keeps sessions in the collection of that name, and what is
// counted in the one whose name ends in Quotas.
func NewSessions(c *Client, collection string) (*Sessions, error) {
	if collection == "" || collection == "." || collection == ".." || strings.Contains(collection, "/") ||
		strings.HasPrefix(collection, "__") && strings.HasSuffix(collection, "__") {
		return nil, fmt.Errorf("firestore: %q is not the name of a collection at the root", collection)
	}
	return &Sessions{client: c, collection: collection,
		parent: c.documents() + "/" + collection + "/",
		quotas: c.documents() + "/" + collection + quotasSuffix + "/", firstPause: firstPause}, nil
}

// Create stores a new session and counts it, in one commit. Where the document
// exists, it may be this call's own, whose first answer was lost: what it holds
// tells.
func (s *Sessions) Create(ctx context.Context, next *upload.Session, q *upload.Quota) error {
	if err := upload.CheckCreate(next, q); err != nil {
		return wrapSession(next.ID, err)
	}
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	session, err := s.write(next, rand.Text(), nil, absent())
	if err != nil {
		return wrapSession(next.ID, err)
	}
	var lost error
	for round := range rounds {
		writes := []*firestorepb.Write{session}
		if q != nil || round > 0 { // the first commit of what is not counted goes without a look
			stored, count, err := s.readBoth(ctx, next)
			switch {
			case err != nil:
				return wrapSession(next.ID, err)
			case stored != nil && sameSession(stored.session, next):
				return nil
			case stored != nil:
				return upload.ErrExists
			}
			if q != nil {
				w, err := count.add(next, q)
				if err != nil {
					return wrapSession(next.ID, err)
				}
				writes = append(writes, w)
			}
		}
		if lost = s.commit(ctx, writes...); lost == nil || !contended(lost) {
			break
		}
		s.pause(ctx, round)
	}
	return wrapSession(next.ID, lost)
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

// Transition replaces a session that is still in the state from, and that has
// not changed since next was read. What it counted is given back in the same
// commit.
func (s *Sessions) Transition(ctx context.Context, from upload.Status, next *upload.Session) error {
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	changed, revision := *next, rand.Text()
	changed.Changes++
	var lost error
	for round := range rounds {
		was, err := s.read(ctx, next.ID)
		switch {
		case err != nil:
			return wrapSession(next.ID, err)
		case was.revision == revision: // done, and the answer was lost
			next.Changes = changed.Changes
			return nil
		case was.session.Status != from || was.session.Changes != next.Changes:
			return upload.ErrConflict
		case lost != nil && !contended(lost):
			return wrapSession(next.ID, lost)
		}
		writes, err := s.transition(ctx, was, &changed, revision)
		if err != nil {
			return wrapSession(next.ID, err)
		}
		lost = s.commit(ctx, writes...)
		switch {
		case lost == nil:
			next.Changes = changed.Changes
			return nil
		case !contended(lost) && status.Code(lost) != codes.NotFound:
			return wrapSession(next.ID, lost)
		}
		// Somebody else was first, or this call's own first attempt was, whose
		// answer was lost and which the SDK repeated: the next look tells.
		s.pause(ctx, round)
	}
	return wrapSession(next.ID, lost)
}

// transition are the writes that bring a session from was to next.
func (s *Sessions) transition(ctx context.Context, was *storedSession, next *upload.Session, revision string) ([]*firestorepb.Write, error) {
	if err := upload.CheckTransition(was.session, next); err != nil {
		return nil, err
	}
	w, err := s.write(next, revision, sessionMask(), unchanged(was.updated))
	if err != nil {
		return nil, err
	}
	writes := []*firestorepb.Write{w}
	if was.session.Held && !next.Held {
		docs, err := s.get(ctx, s.countName(next))
		if err != nil {
			return nil, err
		}
		// Of a window long over nothing is kept, and nothing to be given back.
		if doc := docs[s.countName(next)]; doc != nil {
			count, err := s.decodeCount(next, doc)
			if err != nil {
				return nil, err
			}
			writes = append(writes, count.sub(was.session))
		}
	}
	return writes, nil
}

const (
	// rounds is how often a commit is tried that others are in the way of: a
	// user's uploads change one count, and of those that meet one at least
	// gets through.
	rounds = 16
	// firstPause and maxPause bound the random time between two tries.
	firstPause = 20 * time.Millisecond
	maxPause   = 640 * time.Millisecond
)

// contended says that nothing was done, since a document was not as the commit
// took it to be, or since another transaction held it.
func contended(err error) bool {
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.AlreadyExists, codes.Aborted:
		return true
	}
	return false
}

// pause waits for others to get out of the way; after the context's end the
// next call says so.
func (s *Sessions) pause(ctx context.Context, round int) {
	timer := time.NewTimer(mathrand.N(min(s.firstPause<<round, maxPause)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

func absent() *firestorepb.Precondition {
	return &firestorepb.Precondition{ConditionType: &firestorepb.Precondition_Exists{Exists: false}}
}

func unchanged(since *timestamppb.Timestamp) *firestorepb.Precondition {
	return &firestorepb.Precondition{ConditionType: &firestorepb.Precondition_UpdateTime{UpdateTime: since}}
}

// write is that of a session's document under the condition; with a mask only
// of the fields that it names, else of the whole.
func (s *Sessions) write(next *upload.Session, revision string, mask *firestorepb.DocumentMask, when *firestorepb.Precondition) (*firestorepb.Write, error) {
	name, err := s.name(next.ID)
	if err != nil {
		return nil, err
	}
	return &firestorepb.Write{
		Operation: &firestorepb.Write_Update{Update: &firestorepb.Document{
			Name:   name,
			Fields: sessionFields(next, revision),
		}},
		UpdateMask:      mask,
		CurrentDocument: when,
	}, nil
}

// commit does all of the writes or none.
func (s *Sessions) commit(ctx context.Context, writes ...*firestorepb.Write) error {
	_, err := s.client.api.Commit(ctx, &firestorepb.CommitRequest{Database: s.client.database, Writes: writes})
	return err
}

// A storedSession is a session as it was read.
type storedSession struct {
	session  *upload.Session
	revision string                 // of the write that made it
	updated  *timestamppb.Timestamp // when that was, by Firestore's clock
}

// read is the session of that id.
func (s *Sessions) read(ctx context.Context, id string) (*storedSession, error) {
	name, err := s.name(id)
	if err != nil {
		return nil, upload.ErrNotFound
	}
	docs, err := s.get(ctx, name)
	if err != nil {
		return nil, err
	}
	if docs[name] == nil {
		return nil, upload.ErrNotFound
	}
	return decodeSession(id, docs[name])
}

// readBoth is the session that is stored where next is to be, nil where there
// is none, and the count that next belongs to.
func (s *Sessions) readBoth(ctx context.Context, next *upload.Session) (*storedSession, *storedCount, error) {
	name, err := s.name(next.ID)
	if err != nil {
		return nil, nil, err
	}
	countName := s.countName(next)
	docs, err := s.get(ctx, name, countName)
	if err != nil {
		return nil, nil, err
	}
	if docs[name] != nil {
		stored, err := decodeSession(next.ID, docs[name])
		return stored, nil, err
	}
	count, err := s.decodeCount(next, docs[countName])
	return nil, count, err
}

// get is what there is of the documents; nil where there is none. The SDK
// repeats a call that finds no connection, and not one whose connection ends
// before its answer: that is done here, as it is for commits.
func (s *Sessions) get(ctx context.Context, names ...string) (docs map[string]*firestorepb.Document, err error) {
	for round := range rounds {
		docs, err = s.getOnce(ctx, names...)
		if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
			break
		}
		s.pause(ctx, round)
	}
	return docs, err
}

// getOnce asks with BatchGetDocuments, which tells a document that is missing
// (an answer) from a database that is (an error).
func (s *Sessions) getOnce(ctx context.Context, names ...string) (map[string]*firestorepb.Document, error) {
	ctx, cancel := context.WithCancel(ctx) // lets go of the stream
	defer cancel()
	stream, err := s.client.api.BatchGetDocuments(ctx, &firestorepb.BatchGetDocumentsRequest{
		Database:  s.client.database,
		Documents: names,
	})
	if err != nil {
		return nil, err
	}
	docs := map[string]*firestorepb.Document{}
	for len(docs) < len(names) {
		answer, err := stream.Recv()
		if err != nil {
			return nil, fmt.Errorf("no answer about the document: %w", err)
		}
		if name := answer.GetMissing(); slices.Contains(names, name) {
			docs[name] = nil
		}
		if doc := answer.GetFound(); slices.Contains(names, doc.GetName()) {
			docs[doc.GetName()] = doc
		}
	}
	return docs, nil
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
	var over *upload.QuotaError
	if err == nil || errors.Is(err, upload.ErrNotFound) || errors.As(err, &over) {
		return err
	}
	return fmt.Errorf("firestore: upload session %.64q: %w", id, err)
}
