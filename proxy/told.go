package proxy

import (
	"slices"
	"strings"

	"sidegate/policy"
)

// A teller makes the headers that say who calls. What they say follows from the
// identity and the claims that the policy declares, and from nothing else: it is
// made once, and kept with the identity for the requests that bring its token
// again. What depends on a request must not be in it.
type teller struct {
	say      func(t *telling, id *policy.Identity, declared []string)
	declares bool // the declared claims are looked at; else say gets none
}

// A telling is what one teller says of one identity. Requests share it: it is
// not changed after it was made.
type telling struct {
	by       *teller
	whose    *policy.Identity
	declared []string
	fits     bool // everything that must be told can be
	headers  []toldHeader
	room     [toldRoom]toldHeader // for headers, where these are not more
}

// toldRoom is for those of the native preset that most callers have.
const toldRoom = 5

// A toldHeader has one value, beside its name and not elsewhere: a thousand
// callers' headers are not in the processor's cache, and each place costs.
type toldHeader struct {
	name string
	only [1]string
}

// value is a slice without room for more: who adds a value to one request's
// header gets a slice of its own.
func (h *toldHeader) value() []string { return h.only[:1:1] }

// put adds a header that has a value.
func (t *telling) put(name, value string) {
	if value != "" {
		t.headers = append(t.headers, toldHeader{name, [1]string{value}})
	}
}

// pack brings what is said into one piece of text, in as much room as it takes.
func (t *telling) pack() {
	var all strings.Builder
	n := 0
	for i := range t.headers {
		n += len(t.headers[i].only[0])
	}
	all.Grow(n)
	for i := range t.headers {
		value, at := &t.headers[i].only[0], all.Len()
		all.WriteString(*value)
		*value = all.String()[at:]
	}
	if len(t.headers) > len(t.room) {
		clear(t.room[:])
	}
}

// keptTellings is how many are kept with an identity, the newest: upstreams
// that are told in different ways, and the claims of a policy and the next.
const keptTellings = 4

// of is what is said of the exchange's caller.
func (t *teller) of(x *exchange) *telling {
	var declared []string
	if t.declares {
		declared = x.policy.Claims()
	}
	id := x.identity
	kept := keptOf(id)
	for _, one := range kept.told {
		if one != nil && one.by == t && one.whose == id && slices.Equal(one.declared, declared) {
			return one
		}
	}
	one := &telling{by: t, whose: id, declared: declared, fits: true}
	one.headers = one.room[:0]
	t.say(one, id, declared)
	one.pack()
	next := *kept
	copy(next.told[1:], kept.told[:])
	next.told[0] = one
	next.keep(id)
	return one
}
