package firestore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"slices"
	"sync"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidegate/storage/upload"
)

const (
	// sessionShards spread the sessions that are due over as many ranges of the
	// index: what rises with time bounds the rate at which documents are written
	// (firebase.google.com/docs/firestore/solutions/shard-timestamp).
	sessionShards = 8
	shardField    = "shard"
	wakeField     = "wake"
)

// shardOf is the shard of a session for all its life.
func shardOf(id string) int64 {
	h := fnv.New32a()
	io.WriteString(h, id)
	return int64(h.Sum32() % sessionShards)
}

// List is a user's sessions, newest first. Its index begins with the user: one
// range for each, that grows no faster than one user begins uploads.
func (s *Sessions) List(ctx context.Context, namespace, uid, cursor string, limit int) ([]*upload.Session, string, error) {
	q := s.listQuery(namespace, uid, limit+1)
	if cursor != "" {
		created, id, err := upload.ParseCursor(cursor)
		if err != nil {
			return nil, "", err
		}
		name, err := s.name(id)
		if err != nil {
			return nil, "", upload.ErrCursor
		}
		q.StartAt = &firestorepb.Cursor{Values: []*firestorepb.Value{instant(created), reference(name)}}
	}
	list, err := s.ask(ctx, q)
	if err != nil {
		return nil, "", fmt.Errorf("firestore: list upload sessions: %w", err)
	}
	if len(list) <= limit {
		return list, "", nil
	}
	list = list[:limit]
	return list, upload.CursorOf(list[limit-1]), nil
}

// Find is the newest of a user's sessions with that key.
func (s *Sessions) Find(ctx context.Context, namespace, uid, key string) (*upload.Session, error) {
	list, err := s.ask(ctx, s.findQuery(namespace, uid, key))
	if err != nil {
		return nil, fmt.Errorf("firestore: find an upload session by its key: %w", err)
	}
	if len(list) == 0 {
		return nil, upload.ErrNotFound
	}
	return list[0], nil
}

// Due are the sessions that are due: some of each shard, the longest due of it
// first. One that cannot be read keeps no other from being found: the error
// comes with those that can.
func (s *Sessions) Due(ctx context.Context, now time.Time, limit int) ([]*upload.Session, error) {
	var found [sessionShards][]*upload.Session
	var errs [sessionShards]error
	var all sync.WaitGroup
	for n := range found {
		all.Go(func() { found[n], errs[n] = s.dueIn(ctx, int64(n), now, (limit+sessionShards-1)/sessionShards) })
	}
	all.Wait()
	due := slices.Concat(found[:]...)
	slices.SortStableFunc(due, func(x, y *upload.Session) int { return cmp.Or(x.Wake.Compare(y.Wake), cmp.Compare(x.ID, y.ID)) })
	if err := errors.Join(errs[:]...); err != nil {
		return due[:min(limit, len(due))], fmt.Errorf("firestore: find upload sessions that are due: %w", err)
	}
	return due[:min(limit, len(due))], nil
}

// dueIn reads on where a page holds nothing that can be read.
func (s *Sessions) dueIn(ctx context.Context, shard int64, now time.Time, limit int) ([]*upload.Session, error) {
	q := s.dueQuery(shard, now, limit)
	var unread error
	for {
		docs, err := s.run(ctx, q)
		if err != nil {
			return nil, err
		}
		list, err := s.decode(docs)
		if unread == nil {
			unread = err
		}
		if len(list) > 0 || len(docs) < limit {
			return list, unread
		}
		last := docs[len(docs)-1]
		q.StartAt = &firestorepb.Cursor{Values: []*firestorepb.Value{last.Fields[wakeField], reference(last.Name)}}
	}
}

func ofUser(namespace, uid string) []*firestorepb.StructuredQuery_Filter {
	return []*firestorepb.StructuredQuery_Filter{equal("uid", text(uid)), equal("namespace", text(namespace))}
}

func equal(field string, v *firestorepb.Value) *firestorepb.StructuredQuery_Filter {
	return compare(field, firestorepb.StructuredQuery_FieldFilter_EQUAL, v)
}

func (s *Sessions) listQuery(namespace, uid string, limit int) *firestorepb.StructuredQuery {
	return s.query(limit, ofUser(namespace, uid), descending("createdAt"), descending("__name__"))
}

func (s *Sessions) findQuery(namespace, uid, key string) *firestorepb.StructuredQuery {
	return s.query(1, append(ofUser(namespace, uid), equal("key", text(key))), descending("createdAt"), descending("__name__"))
}

func (s *Sessions) dueQuery(shard int64, now time.Time, limit int) *firestorepb.StructuredQuery {
	return s.query(limit, []*firestorepb.StructuredQuery_Filter{
		equal(shardField, integer(shard)),
		compare(wakeField, firestorepb.StructuredQuery_FieldFilter_LESS_THAN_OR_EQUAL, instant(now)),
	}, ascending(wakeField), ascending("__name__"))
}

// query asks for sessions. What is asked here, and only that, has its index in
// configs/firestore.indexes.json.
func (s *Sessions) query(limit int, where []*firestorepb.StructuredQuery_Filter, order ...*firestorepb.StructuredQuery_Order) *firestorepb.StructuredQuery {
	return &firestorepb.StructuredQuery{
		From:    []*firestorepb.StructuredQuery_CollectionSelector{{CollectionId: s.collection}},
		Where:   and(where...),
		OrderBy: order,
		Limit:   wrapperspb.Int32(int32(limit)),
	}
}

// ask is a page; of one that cannot be read it is an error.
func (s *Sessions) ask(ctx context.Context, q *firestorepb.StructuredQuery) ([]*upload.Session, error) {
	docs, err := s.run(ctx, q)
	if err != nil {
		return nil, err
	}
	list, err := s.decode(docs)
	if err != nil {
		return nil, err
	}
	return list, nil
}

// run asks once: whoever waits here is a request, or comes again.
func (s *Sessions) run(ctx context.Context, q *firestorepb.StructuredQuery) ([]*firestorepb.Document, error) {
	ctx, cancel := context.WithTimeout(ctx, sessionTimeout)
	defer cancel()
	return s.client.runQuery(ctx, q)
}

// decode reads what can be read; the error is of the first that cannot.
func (s *Sessions) decode(docs []*firestorepb.Document) (list []*upload.Session, first error) {
	for _, doc := range docs {
		id := doc.Name[min(len(s.parent), len(doc.Name)):]
		stored, err := decodeSession(id, doc)
		if err != nil {
			first = cmp.Or(first, wrapSession(id, err))
			continue
		}
		list = append(list, stored.session)
	}
	return list, first
}
