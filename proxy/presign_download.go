package proxy

import (
	"net/http"
	"time"

	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

// decideDownload holds the query's wishes against the object's limits.
func (p *Proxy) decideDownload(x *exchange) (decision, action) {
	head := x.r.Method == http.MethodHead
	operation := opGet
	if head {
		operation = opHead
	}
	seconds, redirect, complaint := readDownloadQuery(x.target.query)
	d, ok := p.planDownload(x, operation, seconds, complaint)
	switch {
	case !ok:
		return d, nil
	case head && !redirect:
		x.object.Expires = time.Time{}
		return d, signNothing
	case redirect:
		return d, p.redirectDownload
	}
	return d, p.signDownload
}

// planDownload decides on a download: the policy, then the object's limits, then
// the budgets. Where that is a yes, x.upload.download is what to sign.
func (p *Proxy) planDownload(x *exchange, operation string, seconds *int64, complaint *problem) (decision, bool) {
	asked := x.ask()
	d := x.judged(asked)
	o := x.match.Route.Object
	x.object = &audit.Object{Bucket: o.Bucket, Key: asked.Key, Operation: operation, Size: -1}
	if !d.allow {
		x.object.Key = asked.AskedKey
		return d, false
	}
	if complaint == nil {
		complaint = x.slashed(asked.Key)
	}
	if complaint != nil {
		return refuse(complaint.code, complaint).by(d), false
	}
	expires, v := o.Expiry(seconds)
	if v != nil {
		return refuse(v.Code, violated(v)).by(d), false
	}
	if d, ok := x.spend(d); !ok {
		return d, false
	}
	x.object.Expires = x.start.Add(expires)
	x.upload.download = upload.Download{Bucket: o.Bucket, Key: asked.Key, Head: operation == opHead, Expires: expires}
	if o.Inline {
		x.upload.download.Disposition = upload.Inline
	}
	return d, true
}

// signNothing answers a HEAD that asks for no redirect: there is something to
// sign, and that is all it asked. A length would be that of GET's answer.
func signNothing(x *exchange) error {
	h := x.w.Header()
	ownAnswer(h, x.id)
	h.Set("Content-Type", "application/json")
	x.w.WriteHeader(http.StatusOK)
	return nil
}

func readDownloadQuery(query string) (seconds *int64, redirect bool, pr *problem) {
	pr = readQuery(query, func(name, value string) (*problem, bool) {
		switch name {
		case "expiresSeconds":
			return readSeconds(name, value, &seconds), true
		case "redirect":
			if redirect = value == "1"; !redirect {
				return wrongField(name, "redirect can only be 1"), true
			}
			return nil, true
		}
		return nil, false
	})
	return seconds, redirect, pr
}

// downloadable is the answer of presign_download.
type downloadable struct {
	GetURL         string    `json:"getUrl"`
	ExpiresSeconds int64     `json:"expiresSeconds"`
	ExpiresAt      time.Time `json:"expiresAt"`
}

func (x *exchange) downloadableOf(d *upload.Download, signed upload.Signed) downloadable {
	return downloadable{signed.URL, x.remaining(signed.Expires, d.Expires), signed.Expires.UTC()}
}

func (p *Proxy) signDownload(x *exchange) error {
	d := &x.upload.download
	signed, err := p.o.Uploads.Download(x.ctx, *d)
	if err != nil {
		return storeFailure(err)
	}
	out := x.downloadableOf(d, signed)
	return x.answer(&out)
}

func (p *Proxy) redirectDownload(x *exchange) error {
	signed, err := p.o.Uploads.Download(x.ctx, x.upload.download)
	if err != nil {
		return storeFailure(err)
	}
	h := x.w.Header()
	ownAnswer(h, x.id)
	h.Set("Location", signed.URL)
	h.Set("Content-Length", "0")
	x.w.WriteHeader(http.StatusFound)
	return nil
}

// A downloadWish is a download that a batch asks for.
type downloadWish struct {
	key     string
	expires *int64 // seconds
}

// decideDownloads decides on up to a hundred downloads, whose keys the body names.
func (p *Proxy) decideDownloads(x *exchange) (decision, action) {
	data, pr := x.readBody(maxBatchRequest)
	var wishes []downloadWish
	if pr == nil {
		wishes, pr = readDownloadWishes(data)
	}
	if pr == nil {
		pr = noQuery(x)
	}
	if pr != nil {
		if len(wishes) == 0 || wishes[0].key == "" { // there is no key that the policy could be asked of
			x.object = &audit.Object{Bucket: x.match.Route.Object.Bucket, Operation: opBatch, Size: -1}
			return refuse(pr.code, pr), nil
		}
		x.input.BodyKey = wishes[0].key
		d, _ := p.planDownload(x, opBatch, nil, pr)
		x.object = &audit.Object{Bucket: x.object.Bucket, Operation: opBatch, Size: -1}
		return d, nil
	}
	for i := range wishes {
		p.decideItem(x, func(one *item) {
			x.input.BodyKey = wishes[i].key
			one.decision, _ = p.planDownload(x, opGet, wishes[i].expires, nil)
			one.download = x.upload.download
		})
	}
	return x.decideBatch(p.signDownloads)
}

// readDownloadWishes reads the body of presign_downloads.
func readDownloadWishes(data []byte) (wishes []downloadWish, pr *problem) {
	pr = readBatch(data, "downloads", func(j *jsonReader) *problem {
		wishes = append(wishes, downloadWish{})
		w := &wishes[len(wishes)-1]
		pr := j.object(func(name string) *problem {
			switch name {
			case "key":
				return j.text(name, &w.key)
			case "expiresSeconds":
				return j.number(name, &w.expires)
			}
			return unknownMember(name)
		})
		if pr == nil && w.key == "" {
			return wrongField("key", "key is needed here")
		}
		return pr
	})
	return wishes, pr
}

func (p *Proxy) signDownloads(x *exchange) error {
	return x.answer(struct {
		Downloads []any `json:"downloads"`
	}{x.signItems(func(one *item) (any, error) {
		signed, err := p.o.Uploads.Download(x.ctx, one.download)
		if err != nil {
			return nil, err
		}
		return struct {
			Status int    `json:"status"`
			Key    string `json:"key"`
			downloadable
		}{http.StatusOK, one.download.Key, x.downloadableOf(&one.download, signed)}, nil
	})})
}
