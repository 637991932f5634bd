package proxy

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"sidegate/policy"
	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

// maxBatch is how many uploads or downloads one request may ask for.
const maxBatch = 100

// An item is one of the things that a request asks for at once. Each is decided,
// taken from the budgets and put on record as a request of its own would be: none
// rides on another's permission.
type item struct {
	record   string
	decision decision
	passed   bool         // the policy allows it, whatever is said of it then
	event    *audit.Event // the decision, as it goes on record
	absent   bool         // it is in no log, but for a count
	request  upload.Request
	download upload.Download
	status   int    // that its part of the answer has; 0: there is none
	code     string // of what went wrong with it
}

// decideUploads decides on up to a hundred uploads.
func (p *Proxy) decideUploads(x *exchange) (decision, action) {
	key, complaint := idempotencyKey(x.r.Header)
	uploads, pr := x.readUploads()
	if pr == nil {
		pr = complaint
	}
	if pr == nil {
		pr = noQuery(x)
	}
	if pr != nil {
		w := wish{operation: opBatch, complaint: pr}
		if len(uploads) > 0 {
			w.UploadRequest = uploads[0]
		}
		d, _ := p.planUpload(x, &w)
		x.object = &audit.Object{Bucket: x.object.Bucket, Operation: opBatch, Size: -1}
		return d, nil
	}
	for i := range uploads {
		w := wish{UploadRequest: uploads[i], operation: x.opUpload()}
		if key != "" {
			w.idempotency = key + "/" + strconv.Itoa(i)
		}
		p.decideItem(x, func(one *item) {
			one.decision, _ = p.planUpload(x, &w)
			one.request = x.upload.request
		})
	}
	return x.decideBatch(p.signUploads)
}

// readUploads reads the body of presign_uploads.
func (x *exchange) readUploads() (uploads []policy.UploadRequest, pr *problem) {
	data, pr := x.readBody(maxBatchRequest)
	if pr != nil {
		return nil, pr
	}
	return readUploadRequests(data)
}

func readUploadRequests(data []byte) (uploads []policy.UploadRequest, pr *problem) {
	pr = readBatch(data, "uploads", func(j *jsonReader) *problem {
		uploads = append(uploads, policy.UploadRequest{})
		u := &uploads[len(uploads)-1]
		return j.object(func(name string) *problem { return j.uploadField(name, u) })
	})
	return uploads, pr
}

// readBatch reads an object with one list.
func readBatch(data []byte, list string, one func(j *jsonReader) *problem) *problem {
	n, there := 0, false
	pr := readJSON(data, func(j *jsonReader, name string) *problem {
		if name != list {
			return unknownMember(name)
		}
		there = true
		return j.list(name, maxBatch, func() *problem {
			pr := one(j)
			if pr != nil && pr.field != "" {
				pr.field = fmt.Sprintf("%s[%d].%s", list, n, pr.field)
			}
			n++
			return pr
		})
	})
	if pr == nil && !there {
		return wrongField(list, list+" is a list of 1 to "+strconv.Itoa(maxBatch))
	}
	return pr
}

// decideItem decides on one item. It leaves x as if nothing had been decided, but
// for the budgets.
func (p *Proxy) decideItem(x *exchange, decide func(*item)) {
	one := &item{record: audit.NewID()}
	request, before := x.id, x.input
	x.id, x.further = one.record, len(x.batch) > 0
	decide(one)
	one.passed = x.passed
	x.decision = one.decision
	one.event = x.decisionEvent(new(papers))
	one.event.Request.Batch = request
	x.batch = append(x.batch, one)
	x.decision, x.id, x.object, *x.upload = decision{}, request, nil, uploadPlan{}
	if x.given == nil { // a trial explains what the policy was asked
		x.input.Restore(before)
	}
}

// decideBatch is the decision on the request itself: it is allowed where the
// policy allows any of its items. Where it allows none the answer is not a list,
// but the refusal: of the first that could not be told, else of the first.
func (x *exchange) decideBatch(act action) (decision, action) {
	x.object = &audit.Object{Bucket: x.match.Route.Object.Bucket, Operation: opBatch, Size: -1}
	refused := x.batch[0].decision
	for _, one := range x.batch {
		if x.given != nil && len(x.batch) == 1 { // a trial of one is about that one
			x.object = one.event.Object
			return one.decision, act
		}
		if one.passed {
			return decision{allow: true, reason: policy.ReasonEntry, rule: one.decision.rule, shadow: one.decision.shadow}, act
		}
		if pr := one.decision.problem; refused.problem != nil && refused.problem.status != http.StatusServiceUnavailable && pr != nil && pr.status == http.StatusServiceUnavailable {
			refused = one.decision
		}
	}
	return refused, nil
}

// recordItems puts the items' decisions on record, all at once, beside own, which
// does so with the request's. A refusal may be counted instead.
func (p *Proxy) recordItems(ctx context.Context, x *exchange, own func() error) error {
	var kept []*item
	for _, one := range x.batch {
		if !one.decision.allow && p.summarise(x, one.decision.reason) {
			one.absent = true
			continue
		}
		kept = append(kept, one)
	}
	errs := make([]error, len(kept)+1)
	inParallel(len(errs), len(errs), func(i int) {
		if i == len(kept) {
			errs[i] = own()
			return
		}
		errs[i] = p.o.Recorder.Record(ctx, kept[i].event, x.survive())
		kept[i].absent = errors.Is(errs[i], ErrNotRecorded)
	})
	for i := range errs { // the request's own says whether that one is on record
		if err := errs[(i+len(kept))%len(errs)]; err != nil {
			return err
		}
	}
	return nil
}

// itemOutcomes are the second events of the items.
func (x *exchange) itemOutcomes() []*audit.Event {
	var out []*audit.Event
	for _, one := range x.batch {
		if one.absent {
			continue
		}
		o := &audit.Outcome{Status: one.status, Error: one.code, MS: float64(x.duration()) / float64(time.Millisecond)}
		if one.status == 0 || x.w.status != http.StatusOK { // there was no answer that it had a part of
			o.Status, o.Error = x.w.status, ""
		}
		if x.failure != nil && o.Error == "" {
			o.Error = failureCode(x.failure)
		}
		out = append(out, &audit.Event{Type: audit.TypeOutcome, Record: one.record, Time: x.p.o.Now(), Outcome: o})
	}
	return out
}

// A part of a batch's answer, of an item that something is wrong with.
type refusedItem struct {
	Status int    `json:"status"`
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Field  string `json:"field,omitempty"`
	// RetryAfter is there where it would be in a header of an answer alone, in
	// seconds.
	RetryAfter int64 `json:"retryAfterSeconds,omitempty"`
}

func (one *item) refused(pr *problem) refusedItem {
	one.status, one.code = pr.status, pr.code
	return refusedItem{pr.status, pr.code, pr.detail, pr.field, pr.retrySeconds()}
}

// signItems makes each item's part of the answer; the work of those that are
// allowed is done at once for several.
func (x *exchange) signItems(sign func(one *item) (any, error)) []any {
	parts := make([]any, len(x.batch))
	inParallel(len(x.batch), batchAtOnce, func(i int) {
		one := x.batch[i]
		if !one.decision.allow {
			var pr *problem
			if !errors.As(one.decision.refused(), &pr) {
				return
			}
			parts[i] = one.refused(pr)
			if one.decision.problem.cause == nil {
				return
			}
			x.p.logItem(x, one, one.decision.problem)
			return
		}
		part, err := sign(one)
		if err != nil {
			pr := storeFailure(err)
			x.sawQuota(pr)
			x.p.logItem(x, one, pr)
			parts[i] = one.refused(pr)
			return
		}
		one.status, parts[i] = http.StatusOK, part
	})
	return parts
}

// batchAtOnce is how many items of a request are at the store at once.
const batchAtOnce = 8

func (p *Proxy) signUploads(x *exchange) error {
	return x.answer(struct {
		Uploads []any `json:"uploads"`
	}{x.signItems(func(one *item) (any, error) {
		s, signed, err := p.o.Uploads.Begin(x.ctx, one.request)
		if err != nil {
			return nil, err
		}
		return struct {
			Status int `json:"status"`
			presigned
		}{http.StatusOK, x.presignedOf(&one.request, s, signed)}, nil
	})})
}

// inParallel calls do for 0 to n-1, at most so many at once. A panic of one is
// the caller's.
func inParallel(n, most int, do func(i int)) {
	var all sync.WaitGroup
	var once sync.Once
	var broken any
	next := make(chan int)
	for range min(n, most) {
		all.Go(func() {
			for i := range next {
				func() {
					defer func() {
						if p := recover(); p != nil {
							once.Do(func() { broken = p })
						}
					}()
					do(i)
				}()
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	all.Wait()
	if broken != nil {
		panic(broken)
	}
}
