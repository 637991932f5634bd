package proxy

import (
	"errors"
	"net/http"

	"sidegate/storage/upload"
)

// storeFailure says what of an upload's errors the caller is told.
func storeFailure(err error) *problem {
	var mismatch *upload.Mismatch
	var invalid *upload.InvalidError
	var quota *upload.QuotaError
	tell := func(status int, code, detail string) *problem {
		return &problem{status: status, code: code, detail: detail, cause: err}
	}
	switch {
	case errors.As(err, &mismatch):
		pr := tell(http.StatusUnprocessableEntity, codeMismatch, "the object that was uploaded is not what was signed")
		pr.field = mismatch.Field
		return pr
	case errors.As(err, &quota):
		pr := tell(http.StatusTooManyRequests, codeQuota, "the quota of "+quota.What+" is used up; try again later")
		pr.retry = quota.Retry
		return pr
	case errors.As(err, &invalid): // the policy's checks come first and are no weaker
		return tell(http.StatusInternalServerError, codeInternal, "something went wrong here")
	case errors.Is(err, upload.ErrUnavailable): // whatever else it wraps: it is not known
	case errors.Is(err, upload.ErrNotFound):
		return &problem{status: http.StatusNotFound, code: codeNoSession, detail: "there is no such upload session"}
	case errors.Is(err, upload.ErrNotUploaded):
		return tell(http.StatusConflict, codeNotUploaded, "the object is not there yet")
	case errors.Is(err, upload.ErrExpired):
		return tell(http.StatusGone, codeExpired, "the upload's time is over")
	case errors.Is(err, upload.ErrTaken):
		return tell(http.StatusConflict, codeExists, "an object is there already, and must not be overwritten")
	case errors.Is(err, upload.ErrParts):
		pr := tell(http.StatusUnprocessableEntity, codeMismatch, "the parts are not what the store has, or make no object")
		pr.field = "parts"
		return pr
	case errors.Is(err, upload.ErrState), errors.Is(err, upload.ErrNoUpload):
		return tell(http.StatusConflict, codeState, "the upload is in no state for this")
	case errors.Is(err, upload.ErrOtherRequest):
		return tell(http.StatusUnprocessableEntity, codeIdempotencyKey, "the Idempotency-Key came with another request before")
	case errors.Is(err, upload.ErrCursor):
		pr := wrongField("pageToken", "pageToken is none of this list's")
		pr.cause = err
		return pr
	}
	return unavailable("the store cannot be asked now", err)
}
