package audit

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"math"
	"time"
)

// salvage stores every line behind the resume point that can still be read: the
// Sink takes each once, whoever sends it. It repeats nothing for ever: who
// called it calls again.
func (o *RepairOptions) salvage(ctx context.Context, plan *repairPlan) error {
	at, err := readResume(o.Dir)
	if err != nil {
		return err
	}
	list, err := segments(o.Dir)
	if err != nil {
		return err
	}
	s := salvager{sink: o.Sink, chain: plan.Chain, progress: o.Progress}
	if at.Chain != "" {
		s.chain = at.Chain
	}
	for _, first := range list {
		if first < at.Segment {
			continue
		}
		from := int64(0)
		if first == at.Segment {
			from = at.Offset
		}
		if err := s.segment(ctx, o.Dir, first, from); err != nil {
			return err
		}
	}
	if err := s.flush(ctx); err != nil {
		return err
	}
	plan.Stored = map[string]int{"lines": s.stored, "stubs": s.stubs, "unreadable": s.unreadable}
	return nil
}

// A salvager reads damaged segments.
type salvager struct {
	sink     Sink
	chain    string
	progress func(int)

	batch []Line
	size  int

	stored, stubs, unreadable int
}

// segment reads what can be told apart as lines of it.
func (s *salvager) segment(ctx context.Context, dir string, first uint64, from int64) error {
	f, name, err := openSegment(dir, first)
	if err != nil {
		return err
	}
	defer f.Close()
	r := bufio.NewReaderSize(io.NewSectionReader(f, from, math.MaxInt64-from), MaxLine+1)
	whole := true // the part that is read next begins a line
	for {
		raw, err := r.ReadSlice('\n')
		switch {
		case err == nil && whole:
			if err := s.line(ctx, name, raw[:len(raw)-1]); err != nil {
				return err
			}
		case err == nil: // the end of one that is too long
			whole = true
		case errors.Is(err, bufio.ErrBufferFull):
			if whole {
				s.unreadable++
			}
			whole = false
		case errors.Is(err, io.EOF):
			if whole && len(raw) > 0 {
				s.unreadable++
			}
			return nil
		default:
			if bad := (*gzipError)(nil); errors.As(err, &bad) { // what is behind is lost
				s.unreadable++
				return nil
			}
			return err
		}
	}
}

func (s *salvager) line(ctx context.Context, name string, raw []byte) error {
	l, err := ParseLine(append([]byte(nil), raw...))
	if s.chain == "" { // nothing else tells which one it is
		s.chain = l.Chain
	}
	if err != nil || l.Seq == 0 || l.Chain != s.chain || !json.Valid(l.Raw) {
		s.unreadable++
		return nil
	}
	l.File = name
	s.batch = append(s.batch, l)
	s.size += len(l.Raw)
	if len(s.batch) < shipLines && s.size < shipBytes {
		return nil
	}
	return s.flush(ctx)
}

// salvageTries is how often a batch is sent.
const salvageTries = 5

func (s *salvager) flush(ctx context.Context) error {
	left := s.batch
	var err error
	for try := 0; len(left) > 0 && try < salvageTries; try++ {
		if try > 0 {
			timer := time.NewTimer(backoffMin << try)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return context.Cause(ctx)
			}
		}
		if left, err = s.send(ctx, left); len(left) > 0 && errors.Is(err, ErrUnstorable) {
			left, err = s.alone(ctx, left)
		}
	}
	if len(left) > 0 {
		return err
	}
	if s.progress != nil {
		s.progress(s.stored + s.stubs)
	}
	s.batch, s.size = s.batch[:0], 0
	return nil
}

// alone sends each by itself: so it shows which one is not taken.
func (s *salvager) alone(ctx context.Context, lines []Line) (left []Line, err error) {
	for i := range lines {
		one, e := s.send(ctx, lines[i:i+1])
		if len(one) > 0 && errors.Is(e, ErrUnstorable) && !one[0].Stub {
			one[0].Stub, one[0].SHA256 = true, sha256.Sum256(one[0].Raw)
			one, e = s.send(ctx, one)
		}
		if len(one) > 0 {
			left, err = append(left, one...), e
		}
	}
	return left, err
}

// send sends once; what is left is not known to be stored.
func (s *salvager) send(ctx context.Context, lines []Line) (left []Line, err error) {
	ctx, cancel := context.WithTimeout(ctx, shipTimeout)
	defer cancel()
	each, err := s.sink.Store(ctx, lines)
	if err == nil && len(each) != len(lines) {
		err = errors.New("the sink did not answer for every event")
	}
	if err != nil {
		return append(left, lines...), err
	}
	for i, e := range each {
		switch {
		case e != nil:
			left, err = append(left, lines[i]), e
		case lines[i].Stub:
			s.stubs++
		default:
			s.stored++
		}
	}
	return left, err
}
