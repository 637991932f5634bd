package cmd

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// openTestStores opens the stores of a config, and tells how many things are
// to be closed.
func openTestStores(t *testing.T, in insecure, text string) (stores, int) {
	t.Helper()
	c := mustLoad(t, place{insecure: in}, text)
	c.Audit.Dir = t.TempDir()
	g := &gateway{s: settings{config: c, insecure: in, stdout: io.Discard}, log: zerolog.Nop()}
	t.Cleanup(func() {
		if err := g.close(); err != nil {
			t.Error(err)
		}
	})
	s, err := g.openStores(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s, len(g.closers)
}

func TestLookupsOpen(t *testing.T) {
	in := insecure{emulator: true, firestoreEmulator: "127.0.0.1:1"}
	const sessions = "storage: {firestore: {project: p1}}\n"
	none, alone := openTestStores(t, in, sessions)
	if none.lookups != nil {
		t.Errorf("without lookups.firestore: %#v", none.lookups)
	}
	for text, more := range map[string]int{
		"lookups: {firestore: {project: p1}}":                  0, // one connection for both
		"lookups: {firestore: {project: p1, database: facts}}": 1,
		"lookups: {firestore: {project: p2}}":                  1,
	} {
		if s, closers := openTestStores(t, in, sessions+text); s.lookups == nil || closers != alone+more {
			t.Errorf("%s: %v, %d clients more, not %d", text, s.lookups, closers-alone, more)
		}
	}
}

// A documents' emulator is asked, and nobody else.
func TestLookupsAskTheEmulator(t *testing.T) {
	emulator, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer emulator.Close()
	in := insecure{emulator: true, firestoreEmulator: emulator.Addr().String()}
	s, _ := openTestStores(t, in, "storage: {firestore: {project: p1}}\nlookups: {firestore: {project: p2}}")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() {
		if conn, err := emulator.Accept(); err == nil {
			cancel()
			conn.Close()
		}
	}()
	if d, err := s.lookups.ReadDocument(ctx, "shares/a", []string{"a"}); err == nil || d.Exists || ctx.Err() != context.Canceled {
		t.Errorf("%v, %v, %v", d, err, ctx.Err())
	}
}
