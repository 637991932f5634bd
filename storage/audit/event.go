// Package audit keeps the log of every decision: append-only, chained files on
// this machine (the ledger), shipped from there to a Sink such as Firestore,
// and the tools that read and verify it. It decides nothing and knows no HTTP.
package audit

import "time"

// Survive says what an event outlives once Ticket.Wait returned.
type Survive uint8

const (
	Crash   Survive = iota // handed to the operating system: the process's death
	Power                  // fsynced: power loss
	Machine                // acknowledged by the Sink: loss of the machine
)

// Types of events.
const (
	TypeDecision = "decision"
	TypeOutcome  = "outcome"
	TypeSystem   = "system"
)

// An Event is one line of the ledger. Chain, Seq and Prev are the ledger's to
// set; ID is set by Append where it is empty. Absent parts are nil.
type Event struct {
	Type     string
	ID       string
	Record   string // the request's id, the same in its two events
	Time     time.Time
	Gateway  *Gateway
	Request  *Request
	Identity *Identity
	Decision *Decision
	Object   *Object
	Outcome  *Outcome
	System   *System
}

// The parts of an Event; their JSON names are the field names in snake case
// as in the audit log's reference (docs/audit.md). Empty values are left out.
type (
	Gateway struct{ Name, Version, Instance string }

	Request struct {
		Method, Host, Path string
		QueryKeys          []string // names, never values
		IP, UserAgent      string
		Trace              string // trace id of traceparent
	}

	Identity struct {
		Name, Namespace, UID, Actor, Tenant, Issuer, Provider string
		AuthTime                                              time.Time
		TokenHash                                             string
	}

	Decision struct {
		Effect string // allow, deny or preflight
		Status int    // of the refusal; 0 where allowed
		Route  string
		Rule   string // the entry or guard that decided
		Code   string // why: entry, public, no_entry, no_token, ...
		Policy Policy
		Inputs map[string]any // what the compiled policy reads, for replay
		Shadow map[string]string
	}

	Policy struct{ Name, SHA256 string }

	Object struct {
		Bucket, Key, Operation, ContentType string
		Size                                int64 // -1: unknown
		Expires                             time.Time
		Session                             string
	}

	Outcome struct {
		Status            int
		BytesIn, BytesOut int64
		MS                float64
		Upstream          string
		Error             string
		Truncated         bool
	}

	// System is an event of the gateway itself.
	System struct {
		Event  string // start, stop, policy_loaded, policy_refused, repair
		Detail map[string]string
	}
)
