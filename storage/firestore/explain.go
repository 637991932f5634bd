package firestore

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A Reason is why Firestore did not do what it was asked.
type Reason int

const (
	Other         Reason = iota // see the code
	NoCredentials               // there are none, or no token came of them
	Unreachable                 // no answer, or none in time
	Denied                      // the account may not
	APIDisabled                 // the project does not use Firestore
	NoDatabase                  // the project has no database of that name
	DatastoreMode               // the database has another API
	NoIndex                     // the query needs an index that is not there
	IndexBuilding               // the index of the query is not complete yet
)

// An Explanation is what an error of Firestore's means. Link is where Firestore
// says that the missing index can be made, an address of Google's consoles; Code
// is gRPC's name of the error.
type Explanation struct {
	Reason     Reason
	Code, Link string
}

// consoleLink is all that is taken over from the text of an error. Anything else
// would be whatever a server, or who stands in for it, likes to print. Most processes never need it, and its bound takes half a megabyte.
var consoleLink = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`https://console\.(?:firebase|cloud)\.google\.com/[A-Za-z0-9._~/?=&%()-]{1,1000}`)
})

// Explain tells what an error of this package means. Where Firestore has no code
// of its own for it, its text decides: those are its words, as seen in reports
// of them (github.com/firebase, search for each).
func Explain(err error) Explanation {
	s, _ := status.FromError(err)
	e := Explanation{Code: codedError{code: s.Code()}.Kind()}
	text := s.Message()
	switch code := s.Code(); {
	case strings.Contains(err.Error(), "could not find default credentials"), strings.Contains(text, "per-RPC creds failed"), code == codes.Unauthenticated:
		e.Reason = NoCredentials
	case errors.Is(err, context.DeadlineExceeded), code == codes.Unavailable, code == codes.DeadlineExceeded:
		e.Reason = Unreachable
	case code == codes.PermissionDenied && disabled(s):
		e.Reason = APIDisabled
	case code == codes.PermissionDenied:
		e.Reason = Denied
	case code == codes.NotFound && strings.Contains(text, "database"):
		e.Reason = NoDatabase
	case code == codes.FailedPrecondition && strings.Contains(text, "Datastore Mode"):
		e.Reason = DatastoreMode
	case code == codes.FailedPrecondition && strings.Contains(text, "currently building"):
		e.Reason, e.Link = IndexBuilding, consoleLink().FindString(text)
	case code == codes.FailedPrecondition && strings.Contains(text, "index"):
		e.Reason, e.Link = NoIndex, consoleLink().FindString(text)
	}
	return e
}

// disabled: cloud.google.com/apis/design/errors and google.api.ErrorReason.
func disabled(s *status.Status) bool {
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetReason() == "SERVICE_DISABLED" {
			return true
		}
	}
	return false
}
