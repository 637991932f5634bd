package audit

import (
	"context"
	"testing"
)

func request() *Event {
	return &Event{
		Type: TypeDecision, Record: "0123456789abcdef0123456789abcdef", Time: noon,
		Request:  &Request{Method: "POST", Host: "photos.acme.dev", Path: "/v1/uploads/photos", IP: "203.0.113.7", UserAgent: "curl/8.5.0", QueryKeys: []string{"page"}},
		Identity: &Identity{Name: "users", Namespace: "users", UID: "u1", Issuer: "https://securetoken.google.com/acme-prod", AuthTime: noon, TokenHash: "ab"},
		Decision: &Decision{Effect: "allow", Route: "upload", Rule: "owner", Code: "entry", Policy: Policy{Name: "photos", SHA256: "cd"}},
	}
}

// BenchmarkAppend is the cost on a request's path: the queue is emptied, and
// the disk written, by another goroutine.
func BenchmarkAppend(b *testing.B) {
	l, err := Open(Options{Dir: b.TempDir(), Gateway: Gateway{Name: "photos"}, queue: 64 << 20})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close(context.Background())
	e := request()
	b.ReportAllocs()
	var t Ticket
	for b.Loop() {
		for {
			if t, err = l.Append(e); err == nil {
				break
			}
			b.StopTimer()
			t.Wait(context.Background(), Crash)
			b.StartTimer()
		}
	}
	t.Wait(context.Background(), Crash)
}

// BenchmarkEncode is Append without queue and disk.
func BenchmarkEncode(b *testing.B) {
	enc := newEncoder(Gateway{Name: "photos"})
	e := request()
	var prev [32]byte
	b.ReportAllocs()
	for b.Loop() {
		enc.buf = enc.buf[:0]
		enc.line(e, noon, "0123456789abcdef0123456789abcdef", 1, &prev)
		prev = hash(enc.buf)
	}
	b.SetBytes(int64(len(enc.buf)))
}
