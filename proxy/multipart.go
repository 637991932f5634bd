package proxy

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"sidegate/storage/upload"
)

// smallestPart is the least that S3 takes of a part but the last, in bytes.
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
const smallestPart = 5 << 20

const (
	maxSignedParts = 1000 // of one request
	maxETag        = 256  // in bytes; a store's is less
)

// A multipartOp is one of the operations below the path of `serve: multipart`.
type multipartOp uint8

const (
	multipartCreate multipartOp = iota + 1
	multipartSign
	multipartList
	multipartComplete
	multipartAbort
)

// readMultipartPath tells the operation by the path's rest and the method, and of
// which session it is.
func readMultipartPath(method, rest string) (op multipartOp, session string, pr *problem) {
	session, what, deeper := strings.Cut(rest, "/")
	var ops map[string]multipartOp
	switch {
	case rest == "":
		ops = map[string]multipartOp{http.MethodPost: multipartCreate}
	case !deeper:
		ops = map[string]multipartOp{http.MethodDelete: multipartAbort}
	case what == "parts":
		ops = map[string]multipartOp{http.MethodPost: multipartSign, http.MethodGet: multipartList, http.MethodHead: multipartList}
	case what == "complete":
		ops = map[string]multipartOp{http.MethodPost: multipartComplete}
	default:
		return 0, "", &problem{status: http.StatusNotFound, code: codeNoRoute, detail: "nothing is here"}
	}
	if op = ops[method]; op == 0 {
		var allowed []string
		for m := range ops {
			allowed = append(allowed, m)
		}
		slices.Sort(allowed)
		return 0, "", &problem{status: http.StatusMethodNotAllowed, code: codeMethod, detail: "the method is not allowed here", allow: allowed}
	}
	return op, session, nil
}

// decideMultipart decides on an operation of an upload in parts.
func (p *Proxy) decideMultipart(x *exchange) (decision, action) {
	op, id, pr := readMultipartPath(x.r.Method, x.rest())
	if pr != nil {
		d, ok := p.planSession(x, opMultipartCreate, noSession, pr)
		x.object = nil
		if ok { // only in a trial
			d = refuse(pr.code, pr).by(d)
		}
		return d, nil
	}
	switch op {
	case multipartSign:
		return p.decideSignParts(x, id)
	case multipartComplete:
		return p.decideComplete(x, id)
	case multipartList:
		d, ok := p.planSession(x, opMultipartList, x.routeSession(id), noQuery(x))
		if !ok {
			return d, nil
		}
		return d, p.listParts
	case multipartAbort:
		d, ok := p.planSession(x, opMultipartAbort, x.routeSession(id), noQuery(x))
		if !ok {
			return d, nil
		}
		return d, p.abortMultipart
	}
	w := wish{operation: opMultipartCreate, multipart: true}
	x.readWish(&w, maxRequest)
	d, ok := p.planUpload(x, &w)
	if !ok {
		return d, nil
	}
	return d, p.createMultipart
}

func noSession() (*upload.Session, error) { return nil, upload.ErrNotFound }

// rest is what the path has below the route's own.
func (x *exchange) rest() string { return x.input.Params.Rest() }

// noQuery refuses a query where none is read.
func noQuery(x *exchange) *problem {
	return readQuery(x.target.query, func(string, string) (*problem, bool) { return nil, false })
}

// begunMultipart is the answer to the beginning of an upload in parts.
type begunMultipart struct {
	Session     string    `json:"session"`
	Key         string    `json:"key"`
	Status      string    `json:"status"`
	ExpiresAt   time.Time `json:"expiresAt"`
	ConfirmBy   time.Time `json:"confirmBy"`
	MinPartSize int64     `json:"minPartSize"`
	MaxPartSize int64     `json:"maxPartSize"`
	MaxParts    int       `json:"maxParts"`
}

func (p *Proxy) createMultipart(x *exchange) error {
	s, err := p.o.Uploads.BeginMultipart(x.ctx, x.upload.request)
	if err != nil {
		return storeFailure(err)
	}
	return x.answer(begunMultipart{s.ID, s.Key, string(s.Status), s.ExpiresAt.UTC(), s.ConfirmBy.UTC(), smallestPart, upload.MaxPut, upload.MaxParts})
}

// decideSignParts decides on URLs for parts.
func (p *Proxy) decideSignParts(x *exchange, id string) (decision, action) {
	o := x.match.Route.Object
	data, pr := x.readBody(maxBatchRequest)
	var parts []upload.PartRequest
	var seconds *int64
	if pr == nil {
		parts, seconds, pr = readPartRequests(data)
	}
	if pr == nil {
		pr = noQuery(x)
	}
	if pr == nil {
		pr = checkPartSizes(parts, boundOf(o.MaxBytes), "here")
	}
	expires, v := o.Expiry(seconds)
	if pr == nil && v != nil {
		pr = violated(v)
	}
	d, ok := p.planSession(x, opMultipartSign, x.routeSession(id), pr)
	if !ok {
		return d, nil
	}
	if s := x.upload.session; s != nil {
		bound := boundOf(s.MaxBytes)
		if s.Size >= 0 {
			bound = s.Size
		}
		if pr := checkPartSizes(parts, bound, "of this upload"); pr != nil {
			return refuse(pr.code, pr).by(d), nil
		}
		if pr := checkPartSums(parts, s.PartChecksums); pr != nil {
			return refuse(pr.code, pr).by(d), nil
		}
	}
	x.upload.parts, x.upload.expires = parts, expires
	x.object.Parts, x.object.Expires = partRanges(parts), x.start.Add(expires)
	return d, p.signParts
}

// readPartRequests reads the body of a request for parts' URLs.
func readPartRequests(data []byte) (parts []upload.PartRequest, seconds *int64, pr *problem) {
	seen := map[int]bool{}
	pr = readJSON(data, func(j *jsonReader, name string) *problem {
		switch name {
		case "expiresSeconds":
			return j.number(name, &seconds)
		case "parts":
			return j.list(name, maxSignedParts, func() *problem {
				part, pr := j.partRequest()
				if pr == nil && seen[part.Number] {
					pr = wrongField("partNumber", "partNumber is there twice")
				}
				if pr != nil && pr.field != "" {
					pr.field = fmt.Sprintf("parts[%d].%s", len(parts), pr.field)
				}
				seen[part.Number] = true
				parts = append(parts, part)
				return pr
			})
		}
		return unknownMember(name)
	})
	if pr == nil && len(parts) == 0 {
		pr = wrongField("parts", "parts is a list of 1 to "+strconv.Itoa(maxSignedParts))
	}
	return parts, seconds, pr
}

func (j *jsonReader) partRequest() (part upload.PartRequest, pr *problem) {
	var number, size *int64
	pr = j.object(func(name string) *problem {
		switch name {
		case "partNumber":
			return j.number(name, &number)
		case "size":
			return j.number(name, &size)
		case "checksumSha256":
			return j.text(name, &part.Checksum)
		}
		return unknownMember(name)
	})
	part.Size = -1
	switch {
	case pr != nil:
	case number == nil || *number < 1 || *number > upload.MaxParts:
		pr = wrongField("partNumber", "partNumber is 1 to "+strconv.Itoa(upload.MaxParts))
	case size != nil && (*size < 0 || *size > upload.MaxPut):
		pr = wrongField("size", "size is a number of bytes, at most 5 GiB")
	case part.Checksum != "" && !isSHA256(part.Checksum):
		pr = wrongField("checksumSha256", "checksumSha256 is the SHA-256 of the part in base64, 44 characters")
	case size != nil && *size == 0 && part.Checksum != "" && part.Checksum != emptySHA256:
		pr = wrongField("checksumSha256", "checksumSha256 is not that of an empty part, and size is 0")
	default:
		part.Number = int(*number)
		if size != nil {
			part.Size = *size
		}
	}
	return part, pr
}

// emptySHA256 is the SHA-256 of no bytes, in base64.
const emptySHA256 = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

func isSHA256(sum string) bool {
	raw, err := base64.StdEncoding.Strict().DecodeString(sum)
	return err == nil && len(raw) == 32 && len(sum) == 44
}

// boundOf is a bound whose 0 is none, as one whose -1 is.
func boundOf(bytes int64) int64 {
	if bytes == 0 {
		return -1
	}
	return bytes
}

// checkPartSizes refuses what could never be completed: the parts of one request
// that say their sizes must not be more than the whole may have (-1: no bound).
func checkPartSizes(parts []upload.PartRequest, most int64, of string) *problem {
	sum := int64(0) // of 1000 parts of 5 GiB: it does not overflow
	for _, part := range parts {
		sum += max(part.Size, 0)
	}
	if most >= 0 && sum > most {
		return tooLarge(most, of)
	}
	return nil
}

// tooLarge is said of a size that is more than can be had.
func tooLarge(most int64, where string) *problem {
	return &problem{status: http.StatusRequestEntityTooLarge, code: codeTooLarge, field: "size", detail: fmt.Sprintf("at most %d bytes are accepted %s", most, where)}
}

// checkPartSums wants each part's checksum where the upload began with
// partChecksums, and only there: a store would refuse the part.
func checkPartSums(parts []upload.PartRequest, summed bool) *problem {
	for i, part := range parts {
		field := fmt.Sprintf("parts[%d].checksumSha256", i)
		switch {
		case summed && part.Checksum == "":
			return wrongField(field, fmt.Sprintf("checksumSha256 of part %d is needed: the upload began with partChecksums", part.Number))
		case !summed && part.Checksum != "":
			return wrongField(field, fmt.Sprintf("checksumSha256 of part %d cannot be checked: the upload began without partChecksums", part.Number))
		}
	}
	return nil
}

// partRanges names parts as the audit log does: "1-3,7".
func partRanges(parts []upload.PartRequest) string {
	numbers := make([]int, len(parts))
	for i, part := range parts {
		numbers[i] = part.Number
	}
	slices.Sort(numbers)
	var b strings.Builder
	for i := 0; i < len(numbers); {
		last := i
		for last+1 < len(numbers) && numbers[last+1] == numbers[last]+1 {
			last++
		}
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(numbers[i]))
		if last > i {
			b.WriteByte('-')
			b.WriteString(strconv.Itoa(numbers[last]))
		}
		i = last + 1
	}
	return b.String()
}

// signedPart is one of the URLs of an upload's parts.
type signedPart struct {
	PartNumber int               `json:"partNumber"`
	URL        string            `json:"url"`
	Method     string            `json:"method"`
	Headers    map[string]string `json:"headers"`
}

func (p *Proxy) signParts(x *exchange) error {
	asked := x.upload.parts
	signed, err := p.o.Uploads.SignParts(x.ctx, x.upload.session, asked, x.upload.expires)
	if err != nil {
		return storeFailure(err)
	}
	if len(signed) != len(asked) {
		return unavailable("the store cannot be asked now", fmt.Errorf("%d parts were to be signed, %d are", len(asked), len(signed)))
	}
	parts := make([]signedPart, len(asked))
	until := signed[0].Expires // of the first that ends
	for i := range asked {
		parts[i] = signedPart{asked[i].Number, signed[i].URL, signed[i].Method, headersOf(signed[i])}
		if signed[i].Expires.Before(until) {
			until = signed[i].Expires
		}
	}
	return x.answer(struct {
		Parts          []signedPart `json:"parts"`
		ExpiresSeconds int64        `json:"expiresSeconds"`
		ExpiresAt      time.Time    `json:"expiresAt"`
	}{parts, x.remaining(until, x.upload.expires), until.UTC()})
}

// storedPart is a part that has arrived.
type storedPart struct {
	PartNumber int    `json:"partNumber"`
	Size       int64  `json:"size"`
	ETag       string `json:"etag"`
	Checksum   string `json:"checksumSha256,omitempty"`
}

func (p *Proxy) listParts(x *exchange) error {
	stored, err := p.o.Uploads.Parts(x.ctx, x.upload.session)
	if err != nil {
		return storeFailure(err)
	}
	parts := make([]storedPart, len(stored))
	for i, part := range stored {
		parts[i] = storedPart{part.Number, part.Size, part.ETag, part.Checksum}
	}
	return x.answer(struct {
		Parts []storedPart `json:"parts"`
	}{parts})
}

// decideComplete decides on making the object of its parts.
func (p *Proxy) decideComplete(x *exchange, id string) (decision, action) {
	data, pr := x.readBody(maxPartsComplete)
	var parts []upload.Part
	if pr == nil && len(data) > 0 {
		parts, pr = readParts(data)
	}
	if pr == nil {
		pr = noQuery(x)
	}
	d, ok := p.planSession(x, opMultipartDone, x.routeSession(id), pr)
	if !ok {
		return d, nil
	}
	x.upload.whole = parts
	return d, p.completeMultipart
}

// readParts reads which parts the object is to be made of; nil: all that arrived.
func readParts(data []byte) ([]upload.Part, *problem) {
	return readPartList(data, "partNumber", "etag")
}

// readPartList is readParts where the members of a part are called otherwise.
func readPartList(data []byte, numberName, etagName string) (parts []upload.Part, pr *problem) {
	seen := map[int]bool{}
	pr = readJSON(data, func(j *jsonReader, name string) *problem {
		if name != "parts" {
			return unknownMember(name)
		}
		return j.list(name, upload.MaxParts, func() *problem {
			var number *int64
			var part upload.Part
			pr := j.object(func(name string) *problem {
				switch name {
				case numberName:
					return j.number(name, &number)
				case etagName:
					return j.text(name, &part.ETag)
				}
				return unknownMember(name)
			})
			switch {
			case pr != nil:
			case number == nil || *number < 1 || *number > upload.MaxParts || seen[int(*number)]:
				pr = wrongField(numberName, numberName+" is 1 to "+strconv.Itoa(upload.MaxParts)+", each once")
			case part.ETag == "" || len(part.ETag) > maxETag || !visibleASCII(part.ETag):
				pr = wrongField(etagName, etagName+" is what the store answered to the part")
			default:
				part.Number, part.Size = int(*number), -1
				seen[part.Number] = true
			}
			if pr != nil && pr.field != "" {
				pr.field = fmt.Sprintf("parts[%d].%s", len(parts), pr.field)
			}
			parts = append(parts, part)
			return pr
		})
	})
	slices.SortFunc(parts, func(a, b upload.Part) int { return a.Number - b.Number })
	return parts, pr
}

func (p *Proxy) completeMultipart(x *exchange) error {
	s, err := p.o.Uploads.Complete(x.ctx, x.upload.session, x.upload.whole)
	if err != nil {
		return storeFailure(err)
	}
	return x.answer(confirmedOf(s))
}

func (p *Proxy) abortMultipart(x *exchange) error {
	if _, err := p.o.Uploads.Abort(x.ctx, x.upload.session); err != nil {
		return storeFailure(err)
	}
	return x.answerNothing()
}
