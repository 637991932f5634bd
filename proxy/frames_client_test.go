package proxy

import (
	"bytes"

	"golang.org/x/net/http2/hpack"
)

// A headerEncoder writes header blocks as they are given, whatever HTTP/2 says
// of them.
type headerEncoder struct {
	out bytes.Buffer
	enc *hpack.Encoder
}

func newHeaderEncoder() *headerEncoder {
	e := &headerEncoder{}
	e.enc = hpack.NewEncoder(&e.out)
	return e
}

// encode takes names and values in turn.
func (e *headerEncoder) encode(pairs ...string) []byte {
	e.out.Reset()
	for i := 0; i+1 < len(pairs); i += 2 {
		e.enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return bytes.Clone(e.out.Bytes())
}
