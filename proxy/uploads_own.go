package proxy

import (
	"time"

	"sidegate/storage/audit"
	"sidegate/storage/upload"
)

// uploadState is what its owner is told of an upload.
type uploadState struct {
	Session        string     `json:"session"`
	Key            string     `json:"key"`
	Status         string     `json:"status"`
	ContentType    string     `json:"contentType"`
	Size           *int64     `json:"size,omitempty"` // absent where it is not bound
	ChecksumSHA256 string     `json:"checksumSha256,omitempty"`
	ChecksumCRC64  string     `json:"checksumCrc64nvme,omitempty"`
	PartChecksums  string     `json:"partChecksums,omitempty"`
	ETag           string     `json:"etag,omitempty"`
	VersionID      string     `json:"versionId,omitempty"`
	CreatedAt      time.Time  `json:"createdAt"`
	ExpiresAt      time.Time  `json:"expiresAt"`
	ConfirmBy      time.Time  `json:"confirmBy"`
	ReadyAt        *time.Time `json:"readyAt,omitempty"`
	Reason         string     `json:"reason,omitempty"`
}

func stateOf(s *upload.Session) uploadState {
	out := uploadState{
		Session: s.ID, Key: s.Key, Status: string(s.Status), ContentType: s.ContentType, ChecksumSHA256: s.Checksum, ChecksumCRC64: s.Checksum64,
		ETag: s.ETag, VersionID: s.VersionID, CreatedAt: s.CreatedAt.UTC(), ExpiresAt: s.ExpiresAt.UTC(), ConfirmBy: s.ConfirmBy.UTC(), Reason: s.Reason,
	}
	if s.PartChecksums {
		out.PartChecksums = "sha256"
	}
	if s.Size >= 0 {
		out.Size = &s.Size
	}
	if !s.ReadyAt.IsZero() {
		at := s.ReadyAt.UTC()
		out.ReadyAt = &at
	}
	return out
}

// decideGetUpload finds the session, which must be the caller's own.
func (p *Proxy) decideGetUpload(x *exchange) (decision, action) {
	id, _ := x.input.Params.Get("session")
	d, ok := p.planSession(x, opGetUpload, x.ownSession(id), noQuery(x))
	if !ok {
		return d, nil
	}
	return d, func(x *exchange) error { return x.answer(stateOf(x.upload.session)) }
}

// Pages of a user's uploads.
const (
	usualUploads = 20
	mostUploads  = 100
)

func (p *Proxy) decideListUploads(x *exchange) (decision, action) {
	x.object = &audit.Object{Operation: opListUploads, Size: -1}
	d := x.judged(x.ask())
	if !d.allow {
		return d, nil
	}
	x.upload.page.size = usualUploads
	pr := readQuery(x.target.query, func(name, value string) (*problem, bool) { return x.upload.page.set(name, value, mostUploads) })
	if pr != nil {
		return refuse(pr.code, pr).by(d), nil
	}
	if d, ok := x.spend(d); !ok {
		return d, nil
	}
	return d, p.listUploads
}

func (p *Proxy) listUploads(x *exchange) error {
	sessions, next, err := p.o.Uploads.List(x.ctx, x.identity.Namespace, x.identity.UID, x.upload.page.token, x.upload.page.size)
	if err != nil {
		return storeFailure(err)
	}
	states := make([]uploadState, len(sessions))
	for i, s := range sessions {
		states[i] = stateOf(s)
	}
	return x.answer(struct {
		Uploads       []uploadState `json:"uploads"`
		NextPageToken string        `json:"nextPageToken,omitempty"`
	}{states, next})
}
