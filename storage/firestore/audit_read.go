package firestore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"time"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"sidegate/storage/audit"
)

// auditPage is how many documents one query asks for: a page is read in far
// less than the minute that a query may take.
const auditPage = 500

// Lines yields every line of the collection in the order of chain and seq. A
// document that is not as it was stored is an *audit.CorruptError, and the
// lines go on behind it. Any other error is the last.
func (a *Audit) Lines(ctx context.Context) iter.Seq2[audit.Line, error] {
	return func(yield func(audit.Line, error) bool) {
		var shards [auditShards]shard
		for i := range shards {
			shards[i] = shard{a: a, number: int64(i)}
		}
		for {
			var first *shard
			for i := range shards {
				doc, err := shards[i].peek(ctx)
				if err != nil {
					yield(audit.Line{}, err)
					return
				}
				if doc != nil && (first == nil || before(doc, first.page[0])) {
					first = &shards[i]
				}
			}
			if first == nil {
				return
			}
			if !yield(a.line(first.pop())) {
				return
			}
		}
	}
}

func before(x, y *firestorepb.Document) bool {
	cx, cy := x.Fields["chain"].GetStringValue(), y.Fields["chain"].GetStringValue()
	if cx != cy {
		return cx < cy
	}
	return x.Fields["seq"].GetIntegerValue() < y.Fields["seq"].GetIntegerValue()
}

// A shard reads the documents of one shard, page by page.
type shard struct {
	a      *Audit
	number int64
	page   []*firestorepb.Document
	last   *firestorepb.Document
	over   bool
}

func (s *shard) peek(ctx context.Context) (*firestorepb.Document, error) {
	if len(s.page) == 0 && !s.over {
		q := s.query(auditPage)
		if s.last != nil {
			q.StartAt = &firestorepb.Cursor{Values: []*firestorepb.Value{
				s.last.Fields["chain"], s.last.Fields["seq"], reference(s.last.Name)}}
		}
		var err error
		if s.page, err = s.a.run(ctx, q); err != nil {
			return nil, err
		}
		s.over = len(s.page) < auditPage
	}
	if len(s.page) == 0 {
		return nil, nil
	}
	return s.page[0], nil
}

func (s *shard) query(limit int) *firestorepb.StructuredQuery {
	return s.a.query(s.number, limit, ascending("chain"), ascending("seq"), ascending("__name__"))
}

func (s *shard) pop() *firestorepb.Document {
	s.last = s.page[0]
	s.page = s.page[1:]
	return s.last
}

// Tail yields the newest n lines that are not older than since, by their own
// time, the oldest first. A document that is not as it was stored is an
// *audit.CorruptError with the line that it is about, as far as that is known,
// and the lines go on behind it. Any other error is the only one.
func (a *Audit) Tail(ctx context.Context, n int, since time.Time) iter.Seq2[audit.Line, error] {
	return func(yield func(audit.Line, error) bool) {
		if n == 0 {
			return
		}
		var docs []*firestorepb.Document
		for i := range int64(auditShards) {
			q := a.query(i, n, descending("time"))
			if !since.IsZero() {
				q.Where = and(q.Where, compare("time", firestorepb.StructuredQuery_FieldFilter_GREATER_THAN_OR_EQUAL, instant(since)))
			}
			page, err := a.run(ctx, q)
			if err != nil {
				yield(audit.Line{}, err)
				return
			}
			docs = append(docs, page...)
		}
		slices.SortStableFunc(docs, func(x, y *firestorepb.Document) int {
			return cmp.Or(timeOf(x).Compare(timeOf(y)), cmp.Compare(x.Fields["seq"].GetIntegerValue(), y.Fields["seq"].GetIntegerValue()))
		})
		for _, d := range docs[max(0, len(docs)-n):] {
			if !yield(a.line(d)) {
				return
			}
		}
	}
}

// HasBefore implements audit.AgedStore.
func (a *Audit) HasBefore(ctx context.Context, t time.Time) (bool, error) {
	for i := range int64(auditShards) {
		q := a.query(i, 1, descending("time"))
		q.Where = and(q.Where, compare("time", firestorepb.StructuredQuery_FieldFilter_LESS_THAN, instant(t)))
		docs, err := a.run(ctx, q)
		if err != nil || len(docs) > 0 {
			return len(docs) > 0, err
		}
	}
	return false, nil
}

var _ audit.AgedStore = (*Audit)(nil)

// line reads a document, and checks that nothing in it but the line, which the
// chain protects, says anything else than the line.
func (a *Audit) line(d *firestorepb.Document) (audit.Line, error) {
	name := path.Base(d.Name)
	chain, seq := d.Fields["chain"].GetStringValue(), uint64(d.Fields["seq"].GetIntegerValue())
	bad := func(format string, args ...any) (audit.Line, error) {
		return audit.Line{Chain: chain, Seq: seq, File: name},
			&audit.CorruptError{File: name, Seq: seq, Reason: fmt.Sprintf(format, args...)}
	}
	if digest, ok := d.Fields["sha256"]; ok && d.Fields["line"] == nil {
		l := audit.Line{Stub: true, Chain: chain, Seq: seq, File: name,
			Time: d.Fields["time"].GetTimestampValue().AsTime(), Expires: expires(d)}
		if n, err := hex.Decode(l.SHA256[:], []byte(digest.GetStringValue())); err != nil || n != sha256.Size {
			return bad("its sha256 is not one")
		}
		return l, nil
	}
	l, err := audit.ParseLine([]byte(d.Fields["line"].GetStringValue()))
	if err != nil {
		return bad("%s", err)
	}
	l.File, l.Expires = name, expires(d)
	if err := l.OneLine(); err != nil {
		return l, err
	}
	want, err := a.document(&l)
	if err != nil {
		return bad("%s", err)
	}
	if path.Base(want.Name) != name {
		return bad("its id is not that of the event in its line")
	}
	for _, field := range slices.Sorted(maps.Keys(want.Fields)) {
		if field != "expireAt" && !proto.Equal(want.Fields[field], d.Fields[field]) {
			return bad("its field %s does not say what its line says", field)
		}
	}
	return l, nil
}

func expires(d *firestorepb.Document) time.Time {
	if t := d.Fields["expireAt"].GetTimestampValue(); t != nil {
		return t.AsTime()
	}
	return time.Time{}
}

// query asks for a shard's documents. What is asked here, and only that, has
// its index in configs/firestore.indexes.json.
func (a *Audit) query(shard int64, limit int, order ...*firestorepb.StructuredQuery_Order) *firestorepb.StructuredQuery {
	return &firestorepb.StructuredQuery{
		From:    []*firestorepb.StructuredQuery_CollectionSelector{{CollectionId: a.collection}},
		Where:   compare("shard", firestorepb.StructuredQuery_FieldFilter_EQUAL, integer(shard)),
		OrderBy: order,
		Limit:   wrapperspb.Int32(int32(limit)),
	}
}

// queryTime bounds one query: Firestore lets none run longer
// (firebase.google.com/docs/firestore/quotas).
const queryTime = time.Minute

// run asks for a page, again and again while Firestore cannot be reached, but
// not for ever: whoever reads the log is then told why not.
func (a *Audit) run(ctx context.Context, q *firestorepb.StructuredQuery) ([]*firestorepb.Document, error) {
	giveUp := time.Now().Add(a.client.patience)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 5*time.Second) {
		docs, err := a.ask(ctx, q)
		if err == nil {
			return docs, nil
		}
		if c := status.Code(err); c != codes.Unavailable && c != codes.Internal && c != codes.ResourceExhausted ||
			ctx.Err() != nil || time.Now().Add(pause).After(giveUp) {
			return nil, fmt.Errorf("firestore collection %s: %w", a.collection, err)
		}
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (a *Audit) ask(ctx context.Context, q *firestorepb.StructuredQuery) ([]*firestorepb.Document, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	return a.client.runQuery(ctx, q)
}

// runQuery asks once, for all that the query finds.
func (c *Client) runQuery(ctx context.Context, q *firestorepb.StructuredQuery) ([]*firestorepb.Document, error) {
	ctx, cancel := context.WithCancel(ctx) // lets go of the stream
	defer cancel()
	stream, err := c.api.RunQuery(ctx, &firestorepb.RunQueryRequest{
		Parent:    c.documents(),
		QueryType: &firestorepb.RunQueryRequest_StructuredQuery{StructuredQuery: q},
	})
	if err != nil {
		return nil, err
	}
	var docs []*firestorepb.Document
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		if resp.Document != nil {
			docs = append(docs, resp.Document)
		}
	}
}

func ascending(field string) *firestorepb.StructuredQuery_Order {
	return &firestorepb.StructuredQuery_Order{Field: fieldNamed(field), Direction: firestorepb.StructuredQuery_ASCENDING}
}

func descending(field string) *firestorepb.StructuredQuery_Order {
	return &firestorepb.StructuredQuery_Order{Field: fieldNamed(field), Direction: firestorepb.StructuredQuery_DESCENDING}
}

func fieldNamed(name string) *firestorepb.StructuredQuery_FieldReference {
	return &firestorepb.StructuredQuery_FieldReference{FieldPath: name}
}

func compare(field string, op firestorepb.StructuredQuery_FieldFilter_Operator, v *firestorepb.Value) *firestorepb.StructuredQuery_Filter {
	return &firestorepb.StructuredQuery_Filter{FilterType: &firestorepb.StructuredQuery_Filter_FieldFilter{
		FieldFilter: &firestorepb.StructuredQuery_FieldFilter{Field: fieldNamed(field), Op: op, Value: v}}}
}

func and(filters ...*firestorepb.StructuredQuery_Filter) *firestorepb.StructuredQuery_Filter {
	return &firestorepb.StructuredQuery_Filter{FilterType: &firestorepb.StructuredQuery_Filter_CompositeFilter{
		CompositeFilter: &firestorepb.StructuredQuery_CompositeFilter{
			Op: firestorepb.StructuredQuery_CompositeFilter_AND, Filters: filters}}}
}

func reference(name string) *firestorepb.Value {
	return &firestorepb.Value{ValueType: &firestorepb.Value_ReferenceValue{ReferenceValue: name}}
}
