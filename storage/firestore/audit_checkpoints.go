package firestore

import (
	"context"
	"fmt"
	"path"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidegate/storage/audit"
)

// CheckpointCollection is where the checkpoints of the chains of a log, which is
// in that collection, are. Each log
// has its own: whoever verifies one asks for all of them. The rules of configs
// name the default's.
func CheckpointCollection(log string) string {
	if log == "auditLog" {
		return "auditCheckpoints"
	}
	return log + "_checkpoints"
}

// checkpointTries is how often a head document is written that others write,
// too: nobody does but a second try whose first one came late.
const checkpointTries = 3

// StoreCheckpoint implements audit.CheckpointStore with one document a chain,
// which only ever moves forward: it is written where it still is as it was read.
func (a *Audit) StoreCheckpoint(ctx context.Context, h audit.Head) error {
	var err error
	for range checkpointTries {
		if err = a.moveHead(ctx, &h); !changedMeanwhile(err) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("firestore collection %s: %w", CheckpointCollection(a.collection), err)
	}
	return nil
}

func changedMeanwhile(err error) bool {
	switch status.Code(err) {
	case codes.FailedPrecondition, codes.AlreadyExists, codes.NotFound, codes.Aborted:
		return true
	}
	return false
}

func (a *Audit) moveHead(ctx context.Context, h *audit.Head) error {
	name := a.client.documents() + "/" + CheckpointCollection(a.collection) + "/" + h.Chain
	found, err := a.head(ctx, name)
	if err != nil {
		return err
	}
	only := &firestorepb.Precondition{ConditionType: &firestorepb.Precondition_Exists{}}
	if found != nil {
		switch seq := uint64(found.Fields["seq"].GetIntegerValue()); {
		case seq > h.Seq:
			return fmt.Errorf("its head is at seq %d already, and this log at seq %d: an older copy of the folder is in use, or lines were removed from it", seq, h.Seq)
		case seq == h.Seq && found.Fields["hash"].GetStringValue() != fmt.Sprintf("%x", h.Hash):
			return fmt.Errorf("its head has another line of seq %d: the folder was copied and both copies were used, or lines were changed", seq)
		case seq == h.Seq:
			return nil
		}
		only = &firestorepb.Precondition{ConditionType: &firestorepb.Precondition_UpdateTime{UpdateTime: found.UpdateTime}}
	}
	doc := a.headDocument(name, h)
	_, err = a.client.api.Commit(ctx, &firestorepb.CommitRequest{
		Database: a.client.database,
		Writes:   []*firestorepb.Write{{Operation: &firestorepb.Write_Update{Update: doc}, CurrentDocument: only}},
	})
	return err
}

func (a *Audit) headDocument(name string, h *audit.Head) *firestorepb.Document {
	doc := &firestorepb.Document{Name: name, Fields: map[string]*firestorepb.Value{
		"chain": text(h.Chain),
		"seq":   integer(int64(h.Seq)),
		"hash":  text(fmt.Sprintf("%x", h.Hash)),
		"time":  instant(h.Time),
		"note":  text(string(h.Note)),
	}}
	if a.ttl > 0 {
		doc.Fields["expireAt"] = instant(h.Event.Add(a.ttl))
	}
	return doc
}

// head reads a head document; nil: there is none. BatchGetDocuments tells that
// from a database that is missing.
func (a *Audit) head(ctx context.Context, name string) (*firestorepb.Document, error) {
	ctx, cancel := context.WithCancel(ctx) // lets go of the stream
	defer cancel()
	stream, err := a.client.api.BatchGetDocuments(ctx, &firestorepb.BatchGetDocumentsRequest{Database: a.client.database, Documents: []string{name}})
	if err != nil {
		return nil, err
	}
	for {
		answer, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		switch {
		case answer.GetFound().GetName() == name:
			return answer.GetFound(), nil
		case answer.GetMissing() == name:
			return nil, nil
		}
	}
}

// Checkpoints reads the newest checkpoint of every chain. They are only ever
// about lines that are stored: read them before the lines.
func (a *Audit) Checkpoints(ctx context.Context) ([]audit.Note, error) {
	var notes []audit.Note
	var last *firestorepb.Document
	for {
		q := &firestorepb.StructuredQuery{
			From:    []*firestorepb.StructuredQuery_CollectionSelector{{CollectionId: CheckpointCollection(a.collection)}},
			OrderBy: []*firestorepb.StructuredQuery_Order{ascending("__name__")},
			Limit:   wrapperspb.Int32(auditPage),
		}
		if last != nil {
			q.StartAt = &firestorepb.Cursor{Values: []*firestorepb.Value{reference(last.Name)}}
		}
		docs, err := a.run(ctx, q)
		if err != nil {
			return nil, err
		}
		for _, d := range docs {
			notes = append(notes, audit.Note{
				Name: CheckpointCollection(a.collection) + "/" + path.Base(d.Name), Data: []byte(d.Fields["note"].GetStringValue()), Expires: expires(d),
			})
			last = d
		}
		if len(docs) < auditPage {
			return notes, nil
		}
	}
}

var _ audit.CheckpointStore = (*Audit)(nil)
