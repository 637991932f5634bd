package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"sync"
)

const (
	traceBytes = 16 // of a trace's id, which is the record's
	spanBytes  = 8
)

// An idBlock is random bytes for the ids of many requests: asked for one by one
// they cost several times as much. Ids are told to callers, so that bytes which
// lie here for a while are no secret; whatever is one gets its own.
type idBlock struct {
	bytes [42 * (traceBytes + spanBytes)]byte
	used  int
}

var idBlocks = sync.Pool{New: func() any { b := new(idBlock); b.used = len(b.bytes); return b }}

// newTraceparent is that of a trace which begins here and is not sampled (W3C
// Trace Context, version 00).
func newTraceparent() string {
	b := idBlocks.Get().(*idBlock)
	if b.used == len(b.bytes) {
		rand.Read(b.bytes[:]) // never fails: crypto/rand ends the process instead
		b.used = 0
	}
	id := b.bytes[b.used:][:traceBytes+spanBytes]
	text := [55]byte{0: '0', 1: '0', 2: '-', 35: '-', 52: '-', 53: '0', 54: '0'}
	hex.Encode(text[3:35], id[:traceBytes])
	hex.Encode(text[36:52], id[traceBytes:])
	b.used += len(id)
	idBlocks.Put(b)
	return string(text[:])
}
