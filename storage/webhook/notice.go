package webhook

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"

	"sidegate/storage/upload"
)

// A payload is what is told. Its fields are a contract: docs/webhooks.md.
type payload struct {
	Type      string    `json:"type"`      // upload.ready or upload.rejected
	Timestamp time.Time `json:"timestamp"` // when it became so: the same in each attempt
	Data      data      `json:"data"`
}

// data holds what an app knows of its upload: no multipart upload's id, nothing
// of quotas, and no URL.
type data struct {
	Session     string        `json:"session"`
	UID         string        `json:"uid"`
	Namespace   string        `json:"namespace"`
	Key         string        `json:"key"`
	Bucket      string        `json:"bucket"`
	ContentType string        `json:"contentType"`
	Size        int64         `json:"size"` // -1: not known
	Checksum    string        `json:"checksumSha256,omitempty"`
	Checksum64  string        `json:"checksumCrc64nvme,omitempty"`
	ETag        string        `json:"etag,omitempty"`
	VersionID   string        `json:"versionId,omitempty"`
	Status      upload.Status `json:"status"`
	Reason      string        `json:"reason,omitempty"`
	CreatedAt   time.Time     `json:"createdAt"`
	ReadyAt     time.Time     `json:"readyAt,omitzero"`
}

// A notice is what one attempt sends.
type notice struct {
	id   string // the same for each attempt
	body []byte
}

func newNotice(s *upload.Session, now time.Time) (*notice, error) {
	if s.Status != upload.Ready && s.Status != upload.Rejected {
		return nil, fmt.Errorf("an upload that is %q is told to nobody", s.Status)
	}
	// A stop in the id would let the signed content be read in two ways.
	for _, c := range s.ID {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') {
			return nil, fmt.Errorf("the session's id %.64q cannot be told", s.ID)
		}
	}
	at := cmp.Or(s.ReadyAt, s.RejectedAt, now)
	body, err := json.Marshal(payload{
		Type:      "upload." + string(s.Status),
		Timestamp: at.UTC(),
		Data: data{
			Session: s.ID, UID: s.UID, Namespace: s.Namespace, Key: s.Key, Bucket: s.Bucket,
			ContentType: s.ContentType, Size: s.Size, Checksum: s.Checksum, Checksum64: s.Checksum64,
			ETag: s.ETag, VersionID: s.VersionID, Status: s.Status, Reason: s.Reason,
			CreatedAt: s.CreatedAt.UTC(), ReadyAt: s.ReadyAt,
		},
	})
	if err != nil {
		return nil, fmt.Errorf("tell of upload session %.64q: %w", s.ID, err)
	}
	return &notice{id: "msg_" + s.ID + "_" + string(s.Status), body: body}, nil
}
