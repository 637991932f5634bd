package audit

import "sync"

// A Kept is a part of an event as its line has it, made once for all the events
// that have the same. It is never changed. The zero Kept is none.
type Kept struct {
	Text string // JSON, with its name
	free int    // what it takes of maxFree
}

// maxKeptText bounds what is worth its memory.
const maxKeptText = 2 << 10

// KeepIdentity is what lines say of an identity; none where they cannot say all
// of it.
func KeepIdentity(i *Identity) Kept { return encoded(func(e *encoder) { e.identity(i) }) }

// KeepInputs is what lines say of a decision's inputs; none where they cannot say
// all of them, or there are none.
func KeepInputs(inputs map[string]any) Kept {
	if len(inputs) == 0 {
		return Kept{}
	}
	return encoded(func(e *encoder) { e.inputs(inputs) })
}

var keeping = sync.Pool{New: func() any { return new(encoder) }}

func encoded(write func(*encoder)) Kept {
	e := keeping.Get().(*encoder)
	defer keeping.Put(e)
	e.buf, e.cut, e.keys, e.free = append(e.buf[:0], '{'), e.cut[:0], e.keys[:0], maxFree
	write(e)
	if len(e.cut) > 0 || len(e.buf) > maxKeptText {
		return Kept{}
	}
	return Kept{Text: string(e.buf[1:]), free: maxFree - e.free}
}

// kept writes what was made before.
func (e *encoder) kept(k *Kept) {
	e.comma()
	e.buf = append(e.buf, k.Text...)
	e.free -= k.free
}

// keptInputs writes them as they would have been written now, where what stands
// before them in the event left the room for all of them.
func (e *encoder) keptInputs(k *Kept) {
	if e.free <= k.free {
		e.key("inputs")
		e.buf = append(e.buf, "{}"...)
		e.wasCut("inputs")
		return
	}
	e.kept(k)
}
