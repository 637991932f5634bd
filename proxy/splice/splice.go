// Package splice passes large bodies from one TCP connection to another without
// bringing them into the process (splice(2)).
//
// Whoever reads such a body goes on reading it the way it always does, through
// all of net/http's layers, which count it, and find its end: only the buffer is
// a Pipe's. A connection of Conn that is to read into that very buffer fills the
// Pipe instead. Any other read, also one ahead into a buffer of somebody in
// between, is as it always was, so that no byte but the body's can get there.
package splice

import "errors"

const (
	// MinRead is how much must be left of a body for a Pipe to be worth it. A
	// buffer in between that is not smaller than what is read would be filled in
	// the Pipe's place; net/http's have 4 KiB.
	MinRead = 64 << 10
	// pipeSize is a Pipe's room, in the kernel; larger ones save little.
	pipeSize = 256 << 10
	// maxPipes bounds what callers who take their time can hold of the kernel's
	// memory, and of descriptors (two each). Who gets none copies.
	maxPipes = 64
)

var errNotEmpty = errors.New("splice: what was read before is not written yet")
