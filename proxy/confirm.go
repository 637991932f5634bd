package proxy

import "sidegate/storage/upload"

// decideConfirm finds the session, which must be the caller's own.
func (p *Proxy) decideConfirm(x *exchange) (decision, action) {
	id, _ := x.input.Params.Get("session")
	d, ok := p.planSession(x, opConfirm, x.ownSession(id), noQuery(x))
	if !ok {
		return d, nil
	}
	return d, p.confirm
}

// confirmed is the answer of confirm_upload.
type confirmed struct {
	Key            string `json:"key"`
	Status         string `json:"status"`
	Size           int64  `json:"size"`
	ContentType    string `json:"contentType"`
	ETag           string `json:"etag"`
	VersionID      string `json:"versionId,omitempty"`
	ChecksumSHA256 string `json:"checksumSha256,omitempty"`
	ChecksumCRC64  string `json:"checksumCrc64nvme,omitempty"`
}

func confirmedOf(s *upload.Session) confirmed {
	return confirmed{s.Key, string(s.Status), s.Size, s.ContentType, s.ETag, s.VersionID, s.Checksum, s.Checksum64}
}

func (p *Proxy) confirm(x *exchange) error {
	s, err := p.o.Uploads.Confirm(x.ctx, x.upload.session)
	if err != nil {
		return storeFailure(err)
	}
	return x.answer(confirmedOf(s))
}
