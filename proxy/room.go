package proxy

import "sidegate/proxy/leash"

// A room is what most requests need beside their exchange, in the same piece of
// memory. It is used once: an upstream's transport may look at its part when the
// request is long over.
type room struct {
	w      responseWriter
	leash  leash.Leash
	answer answerBody
	lines  [forwardedLines]string // values of headers
	used   int
}

// line is a header's one value, without room for more: who adds a value gets a
// slice of its own.
func (r *room) line(value string) []string {
	if r.used == len(r.lines) {
		return []string{value}
	}
	i := r.used
	r.used++
	r.lines[i] = value
	return r.lines[i:r.used:r.used]
}
