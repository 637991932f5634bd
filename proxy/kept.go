package proxy

import (
	"sidegate/policy"
	"sidegate/storage/audit"
)

// What is kept with an identity for the next requests that bring its token: what
// upstreams are told of it, and what the audit log's lines say of it. It is not
// changed after it was kept: another one takes its place.
type keptThings struct {
	told [keptTellings]*telling

	whose    *policy.Identity // what follows is of it
	identity audit.Kept
	inputs   audit.Kept
	inputsOf uint64 // by policy.LastingInputs; 0: of none
}

var nothingKept keptThings

func keptOf(id *policy.Identity) *keptThings {
	if kept, ok := id.Kept.Load().(*keptThings); ok {
		return kept
	}
	return &nothingKept
}

// keep makes it what is kept. Another request may have been as fast, and what it
// kept is lost then: it is made anew when it is asked for.
func (k *keptThings) keep(id *policy.Identity) { id.Kept.Store(k) }

// onRecord is what is kept of the exchange's caller for the audit log, made where
// it is not there; nil: nothing is kept with this identity. whole says that its
// inputs are all that the policy read for this request.
func (x *exchange) onRecord(s *papers) (kept *keptThings, whole bool) {
	id := x.identity
	if id == nil || id.Kept == nil {
		return nil, false
	}
	var number uint64
	if x.input.Identity == id {
		number = x.policy.LastingInputs(&x.input)
	}
	kept = keptOf(id)
	if kept.whose != id || number != 0 && kept.inputsOf != number {
		next := *kept
		next.whose, next.inputsOf, next.inputs = id, number, audit.Kept{}
		next.identity = audit.KeepIdentity(&s.identity)
		if number != 0 {
			next.inputs = audit.KeepInputs(x.policy.InputsIn(&s.inputs, &x.input))
			s.inputs.Clear()
		}
		kept = &next
		kept.keep(id)
	}
	return kept, number != 0 && kept.inputs.Text != ""
}
