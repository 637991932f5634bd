package policy

import (
	"strings"
	"sync/atomic"
)

// A Kept is what the requests that bring one token keep for the next of them: a
// value that can be made anew at any time, and what conditions said that look at
// nothing but the identity. The zero Kept holds nothing, and verdicts only where
// Identity.Keep made it. It is safe for concurrent use. A copy of an Identity has
// the same one: the value must say whose it is, verdicts are the first's alone.
type Kept struct {
	whose    *Identity
	verdicts [keptVerdicts]atomic.Uint64 // each a condition's number, and its verdict in the last byte
	value    atomic.Value
}

// keptVerdicts are as many as conditions that a user's requests meet again and
// again: guards of every request, and an entry and a guard for each of some
// routes. Their places are theirs by turns; what has none is judged anew.
const keptVerdicts = 12

// Keep gives the identity with a Kept of its own, both in one piece of memory: who
// brings one of many tokens in turn finds little of them in the processor's cache.
func (id *Identity) Keep() *Identity {
	one := &struct {
		identity Identity
		kept     Kept
	}{identity: *id}
	one.identity.Kept, one.kept.whose = &one.kept, &one.identity
	return &one.identity
}

// Load gives what was stored last; nil where nothing was.
func (k *Kept) Load() any {
	if k == nil {
		return nil
	}
	return k.value.Load()
}

// Store replaces it by another of its type. What is stored must not be changed
// any more.
func (k *Kept) Store(value any) {
	if k != nil {
		k.value.Store(value)
	}
}

// verdictOf is what a condition, by its number, said of the identity before; not
// ok where that is not kept.
func (k *Kept) verdictOf(id *Identity, number uint64) (v verdict, ok bool) {
	if k == nil || k.whose != id {
		return no, false
	}
	one := k.verdicts[number%keptVerdicts].Load()
	return verdict(one & 0xff), one>>8 == number
}

func (k *Kept) keepVerdict(id *Identity, number uint64, v verdict) {
	if k != nil && k.whose == id {
		k.verdicts[number%keptVerdicts].Store(number<<8 | uint64(v))
	}
}

// conditionNumber counts conditions, of all policies that this process loads, and
// the policies: a verdict is never taken for that of another policy's condition,
// nor for that of the same policy before a reload.
var conditionNumber atomic.Uint64

// settle finds the fields that look at nothing but the identity, which never
// changes: what they say of one holds for all of its requests. It comes when all
// fields are known.
func (c *condition) settle() {
	worth := false
	for i := range c.fields {
		f := &c.fields[i]
		f.lasting = f.lastsForIdentity()
		c.passing = c.passing || !f.lasting
		worth = worth || f.lasting && f.key != "who" // which costs as little as a look
	}
	if worth {
		c.number = conditionNumber.Add(1)
	}
}

// lastsForIdentity reports whether a field says the same of an identity whatever
// the request is and whenever it comes: all that it reads is the identity's.
func (f *field) lastsForIdentity() bool {
	if !f.identity || f.lookups != nil || len(f.reads) == 0 {
		return false
	}
	for _, name := range f.reads {
		if !strings.HasPrefix(name, "auth.") {
			return false
		}
	}
	return true
}

// ofIdentity is the AND of the lasting fields: what was kept, or what is kept
// from now on.
func (c *condition) ofIdentity(in *Input) verdict {
	id := in.Identity
	if v, ok := id.Kept.verdictOf(id, c.number); ok {
		return v
	}
	all := yes
	for i := range c.fields {
		f := &c.fields[i]
		if !f.lasting {
			continue
		}
		v := f.holds(in)
		if v == no {
			all = no
			break
		}
		all = max(all, v)
	}
	id.Kept.keepVerdict(id, c.number, all)
	return all
}
