// Package audit keeps the log of every decision: append-only, chained files on
// this machine (the ledger), shipped from there to a Sink such as Firestore,
// and the tools that read and verify it. It decides nothing and knows no HTTP.
package audit

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"time"
)

// Survive says what an event outlives once Ticket.Wait returned.
type Survive uint8

const (
	Crash   Survive = iota // handed to the operating system: the process's death
	Power                  // fsynced: power loss
	Machine                // acknowledged by the Sink: loss of the machine
)

// String is what sidegate.yaml calls it.
func (s Survive) String() string {
	switch s {
	case Crash:
		return "crash"
	case Power:
		return "power"
	case Machine:
		return "machine"
	}
	return "unknown"
}

// Types of events.
const (
	TypeDecision = "decision"
	TypeOutcome  = "outcome"
	TypeSystem   = "system"
)

// Sources of a Summary.
const (
	SourceIP   = "ip"   // an address, or an IPv6 network of 64 bits; unknown where Request is nil
	SourceUID  = "uid"  // a verified user
	SourceRest = "rest" // all others
)

// NewID is a fresh random id of 128 bits in hex, for records.
func NewID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b[:])
}

// An Event is one line of the ledger. Absent parts are nil. docs/audit.md is
// the reference of every field.
type Event struct {
	Type   string    `json:"type"`
	ID     string    `json:"id"`               // empty: Append gives the line a random one
	Record string    `json:"record,omitempty"` // the request's id, the same in its two events
	Time   time.Time `json:"time"`             // zero: the time of Append; kept in microseconds

	// Chain, Seq and Prev are the ledger's: Append ignores what they hold.
	Chain string `json:"chain"`
	Seq   uint64 `json:"seq"`
	Prev  string `json:"prev"` // SHA-256 of the line before, in hex

	Gateway  *Gateway  `json:"gateway,omitempty"` // nil: the ledger's own
	Request  *Request  `json:"request,omitempty"`
	Identity *Identity `json:"identity,omitempty"`
	Decision *Decision `json:"decision,omitempty"`
	Object   *Object   `json:"object,omitempty"`
	Outcome  *Outcome  `json:"outcome,omitempty"`
	System   *System   `json:"system,omitempty"`
	// Summary makes of a decision without Record the place of many refusals
	// that have no events of their own.
	Summary *Summary `json:"summary,omitempty"`

	// KeptIdentity is what the line says of Identity, where it was made before.
	KeptIdentity *Kept `json:"-"`

	// Cut names the fields whose value was too long to be kept whole, or of a
	// kind that a line cannot hold. It is the ledger's too.
	Cut []string `json:"cut,omitempty"`
}

// The parts of an Event. Empty values are left out.
type (
	// Gateway is the process that wrote the event.
	Gateway struct {
		Name     string `json:"name,omitempty"`
		Version  string `json:"version,omitempty"`
		Instance string `json:"instance,omitempty"`
	}

	// Request is what was asked.
	Request struct {
		Method    string   `json:"method,omitempty"`
		Host      string   `json:"host,omitempty"`
		Path      string   `json:"path,omitempty"`       // canonical
		QueryKeys []string `json:"query_keys,omitempty"` // names, never values
		IP        string   `json:"ip,omitempty"`
		UserAgent string   `json:"user_agent,omitempty"`
		Trace     string   `json:"trace,omitempty"` // trace id of traceparent
		// ForwardAuth is the dialect in which another proxy asked about the
		// request, which was not here itself: what became of it is not known.
		ForwardAuth string `json:"forward_auth,omitempty"`
		// Batch is the record of the request that asked for this and other
		// things at once.
		Batch string `json:"batch,omitempty"`
	}

	// Identity is who asked, as far as it was verified.
	Identity struct {
		Name      string    `json:"name,omitempty"`
		Namespace string    `json:"namespace,omitempty"`
		UID       string    `json:"uid,omitempty"`
		Actor     string    `json:"actor,omitempty"`
		Tenant    string    `json:"tenant,omitempty"`
		Issuer    string    `json:"issuer,omitempty"`
		Provider  string    `json:"provider,omitempty"`
		AuthTime  time.Time `json:"auth_time,omitzero"`
		TokenHash string    `json:"token_hash,omitempty"`
	}

	// Decision is what was answered to it, and by which rule.
	Decision struct {
		Effect string `json:"effect,omitempty"` // allow, deny or preflight
		Status int    `json:"status,omitempty"` // of the refusal; 0 where allowed
		Route  string `json:"route,omitempty"`
		Rule   string `json:"rule,omitempty"` // the entry or guard that decided
		Code   string `json:"code,omitempty"` // why: entry, public, no_entry, no_token, ...
		Policy Policy `json:"policy,omitzero"`
		// Inputs is what the compiled policy reads, for replay. Values are nil,
		// string, bool, json.Number, int, int64, uint64, float64, time.Time,
		// []string, []any and map[string]any; any other type is written as a
		// string that names it, and Cut says so. A float64 stays one: 2 is
		// written as 2.0.
		Inputs map[string]any    `json:"inputs,omitempty"`
		Shadow map[string]string `json:"shadow,omitempty"`
		// KeptInputs stands in place of Inputs, where they were encoded before.
		// Shadow and the names of the query come first: with no room left beside
		// them nothing is kept of it.
		KeptInputs *Kept `json:"-"`
	}

	// Policy is the policy in force.
	Policy struct {
		Name   string `json:"name,omitempty"`
		SHA256 string `json:"sha256,omitempty"`
	}

	// Object is the stored object that the request is about.
	Object struct {
		Bucket      string    `json:"bucket,omitempty"`
		Key         string    `json:"key,omitempty"`
		Operation   string    `json:"operation,omitempty"`
		ContentType string    `json:"content_type,omitempty"`
		Size        int64     `json:"size"` // bytes; -1: unknown, and absent from the line
		Expires     time.Time `json:"expires,omitzero"`
		Session     string    `json:"session,omitempty"`
		Parts       string    `json:"parts,omitempty"` // numbers of an upload's parts, as 1-3,7
	}

	// Outcome is how the answer ended.
	Outcome struct {
		Status    int     `json:"status"`
		BytesIn   int64   `json:"bytes_in"`
		BytesOut  int64   `json:"bytes_out"`
		MS        float64 `json:"ms"` // milliseconds from the request's header to the answer's end
		Upstream  string  `json:"upstream,omitempty"`
		Error     string  `json:"error,omitempty"`
		Truncated bool    `json:"truncated,omitempty"` // the client saw a broken answer
	}

	// Summary counts refusals of one source. Request.IP or Identity says whose.
	Summary struct {
		Repeated int            `json:"repeated"`         // how many
		Source   string         `json:"source,omitempty"` // what they have in common: SourceIP, SourceUID or SourceRest
		From     time.Time      `json:"from,omitzero"`    // of the first
		To       time.Time      `json:"to,omitzero"`      // of the last
		Routes   map[string]int `json:"routes,omitempty"` // how many of which route
		Codes    map[string]int `json:"codes,omitempty"`  // how many for which Decision.Code
	}

	// System is an event of the gateway itself.
	System struct {
		Event  string            `json:"event,omitempty"` // start, stop, policy_loaded, ...: docs/audit.md
		Detail map[string]string `json:"detail,omitempty"`
	}
)

// UnmarshalJSON reads an absent size as unknown.
func (o *Object) UnmarshalJSON(data []byte) error {
	type plain Object
	p := plain{Size: -1}
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	*o = Object(p)
	return nil
}
