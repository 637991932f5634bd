package cmd

import (
	"bytes"
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// openTestStores opens the stores of a config, and tells how many things are
// to be closed.
func openTestStores(t *testing.T, in insecure, text string) (stores, int) {
	t.Helper()
	c := mustLoad(t, place{insecure: in}, text)
	c.Audit.Dir = t.TempDir()
	g := &gateway{s: settings{config: c, insecure: in, stdout: io.Discard}, log: zerolog.Nop(), metrics: prometheus.NewRegistry()}
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

// TestGatewayWithSignedAuditLog: checkpoints are signed, the key is nowhere, and
// a log that is not what was written stops the start with what to do.
func TestGatewayWithSignedAuditLog(t *testing.T) {
	dir := t.TempDir()
	secret := auditKey(t)
	var log bytes.Buffer
	start := func(key string) (*gateway, error) {
		c := mustLoad(t, place{}, "storage: {local: {dir: x}}\naudit: {retention: 90d}")
		c.Audit.Dir, c.Storage.LocalDir = dir, t.TempDir()
		c.Audit.Key = NewSecret(key)
		g := &gateway{s: settings{config: c, stdout: io.Discard}, log: zerolog.New(&log), metrics: prometheus.NewRegistry()}
		_, err := g.openStores(t.Context())
		return g, err
	}
	g, err := start("")
	if err != nil {
		t.Fatal(err)
	}
	if err := g.close(); err != nil || !strings.Contains(log.String(), "no signed checkpoints") {
		t.Errorf("without a key: %s%v", &log, err)
	}
	log.Reset()
	g, err = start(secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := g.recordSystem(t.Context(), "start", nil); err != nil {
		t.Fatal(err)
	}
	if err := g.close(); err != nil || log.Len() > 0 {
		t.Errorf("with a key: %s%v", &log, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "head.note")); err != nil {
		t.Error(err)
	}
	if at := auditNumbers(t, g); at["sidegate_audit_checkpoint_seq"] == 0 || at["sidegate_audit_checkpoint_seq"] != at["sidegate_audit_chain_seq"] ||
		at["sidegate_audit_checkpoint_failing"]+at["sidegate_audit_retention_failing"]+at["sidegate_audit_checkpoint_shipped_seq"] != 0 {
		t.Errorf("%v", at)
	}
	name := filepath.Join(dir, "00000000000000000001.jsonl")
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
	g, err = start(secret)
	if err == nil || !strings.Contains(err.Error(), "`sidegate audit repair --dir "+dir+"`") || strings.Contains(err.Error(), secret) {
		t.Errorf("after its lines were removed: %v", err)
	}
	if err := g.close(); err != nil {
		t.Error(err)
	}
	if out, err := runAudit(t.Context(), "repair", "--dir", dir); err != nil || !strings.Contains(out, "chain") {
		t.Errorf("%s%v", out, err)
	}
	if g, err = start(secret); err != nil {
		t.Fatal(err)
	}
	if err := g.close(); err != nil {
		t.Error(err)
	}
}

// auditNumbers are the audit log's metrics that have no label.
func auditNumbers(t *testing.T, g *gateway) map[string]float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(auditMetrics{ledger: g.ledger})
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		if m := f.Metric[0]; len(m.Label) == 0 {
			out[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}
