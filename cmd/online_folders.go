package cmd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/mod/sumdb/note"

	"sidegate/policy/document"
	"sidegate/storage/audit"
	"sidegate/storage/local"
)

const (
	// fsyncs are timed, and the middle one counts.
	fsyncs = 5
	// slowFsync is when requests that wait for the disk begin to notice; nobody
	// waits for slowWrite, but such a disk has a fault.
	slowFsync, slowWrite = 50 * time.Millisecond, time.Second
	// leastFree is what a folder needs at least.
	leastFree = 16 << 20
)

// folderProbes look at the folders that the gateway writes to, and at the key of
// the audit log.
func folderProbes(s settings, running func(context.Context) bool) []probe {
	c := s.config
	out := []probe{
		single("audit.dir", "", func(_ context.Context, b probe) check { return checkAuditFolder(b, s) }),
		single("audit.lock", "", func(ctx context.Context, b probe) check { return checkAuditLock(ctx, b, s, running) }),
		single("audit.ledger", "", func(_ context.Context, b probe) check { return checkLedger(b, s) }),
		single("audit.key", "", func(_ context.Context, b probe) check { return checkAuditKey(b, s) }),
	}
	if c.Storage.LocalDir != "" {
		out = append(out, single("storage.dir", "", func(_ context.Context, b probe) check {
			return checkFolder(b, "storage.local.dir", c.Storage.LocalDir, leastFree, slowWrite)
		}))
		out = append(out, single("storage.lock", "", func(ctx context.Context, b probe) check { return checkSessions(ctx, b, s, running) }))
	}
	if c.KeysCache != "" {
		out = append(out, single("keys_cache", "", func(_ context.Context, b probe) check { return checkKeysCache(b, c.KeysCache) }))
	}
	return out
}

// checkAuditFolder asks more of a disk that requests wait for, and that keeps
// what Firestore does not take.
func checkAuditFolder(b probe, s settings) check {
	c := s.config.Audit
	slow, room := slowWrite, c.Segment
	if c.Survive >= audit.Power {
		slow = slowFsync
	}
	if c.Firestore != nil {
		room = max(room, c.MaxSize)
	}
	return checkFolder(b, "audit.dir", c.Dir, room, slow)
}

// checkFolder writes a file into the folder, or, where the gateway will make the
// folder, into the one that it will make it in.
func checkFolder(b probe, key, dir string, room int64, slow time.Duration) check {
	at := dir
	for {
		info, err := os.Stat(at)
		if err == nil && !info.IsDir() {
			return b.fails("move it away, or name another folder by "+key, "%s: %s is no folder", key, shortPath(at))
		}
		missing := errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
		if !missing || at == filepath.Dir(at) {
			break
		}
		at = filepath.Dir(at)
	}
	took, err := timeWrites(at)
	if err != nil {
		return b.fails(folderAdvice(err, key, at), "%s: this user cannot write to %s: %v", key, shortPath(at), innermost(err))
	}
	free, known := freeSpace(at)
	space := ""
	if known {
		space = ", " + sizeText(free) + " free"
	}
	what := shortPath(dir)
	if at != dir {
		what += " can be made, which"
	}
	switch {
	case known && free < leastFree:
		return b.fails("free space there, or name a folder on another disk by "+key+": a gateway that cannot write its audit log answers 503", "%s: %s is full%s", key, shortPath(at), space)
	case known && free < room:
		return b.warn(fmt.Sprintf("free space there, name a folder on a larger disk, or lower audit.max_size and audit.segment in sidegate.yaml (up to %s may be kept)", sizeText(room)),
			"%s: %s has little room%s", key, shortPath(at), space)
	case took > slow:
		return b.warn("use a local disk with a power-safe cache, and no network file system", "%s: an fsync takes %s in %s", key, took.Round(time.Millisecond), shortPath(at))
	}
	return b.pass("%s can be written (fsync %s%s)", what, took.Round(10*time.Microsecond), space)
}

// timeWrites writes a file, removes it, and gives what an fsync takes.
func timeWrites(dir string) (took time.Duration, err error) {
	f, err := os.CreateTemp(dir, ".sidegate-check-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	line := []byte(strings.Repeat("x", 1<<10))
	var times []time.Duration
	for range fsyncs {
		begin := time.Now()
		if _, err := f.Write(line); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	return times[len(times)/2], nil
}

func folderAdvice(err error, key, at string) string {
	switch {
	case errors.Is(err, syscall.EROFS):
		return "the file system is read-only: mount a volume that can be written at " + key + " (in Kubernetes a volumeMount, in Docker -v)"
	case errors.Is(err, os.ErrPermission):
		return fmt.Sprintf("chown %d %s, or let the group write (in Kubernetes securityContext.fsGroup)", os.Geteuid(), quotedPaths([]string{at})[0])
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free space there, or name a folder on another disk by " + key + ": a gateway that cannot write its audit log answers 503"
	}
	return "name a folder that can be written by " + key
}

// innermost is the last cause of an error: lines name the folder themselves.
func innermost(err error) error {
	var number syscall.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}

func sizeText(n int64) string {
	for _, u := range []struct {
		size int64
		name string
	}{{1 << 40, "TiB"}, {1 << 30, "GiB"}, {1 << 20, "MiB"}} {
		if n >= u.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(u.size), u.name)
		}
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

// checkAuditLock says whether the folder is another process's.
func checkAuditLock(ctx context.Context, b probe, s settings, running func(context.Context) bool) check {
	used, err := audit.InUse(s.config.Audit.Dir)
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return b.skip("not looked at: first mend audit.dir")
	case err != nil:
		at := filepath.Join(s.config.Audit.Dir, "lock")
		return b.fails(folderAdvice(err, "audit.dir", at), "the lock of audit.dir cannot be taken: %s: %v", shortPath(at), innermost(err))
	case used && running(ctx):
		return b.warn("nothing, if these are that gateway's files; another gateway needs an audit.dir of its own", "audit.dir is in use: a gateway runs here")
	case used:
		return b.fails("see which process has it (`fuser -v "+quotedPaths([]string{filepath.Join(s.config.Audit.Dir, "lock")})[0]+"`), and stop it; each gateway needs an audit.dir of its own",
			"audit.dir is in use by another process, and no gateway answers at %s", s.config.AdminAddress)
	}
	return b.pass("nobody else uses audit.dir")
}

// checkLedger says whether the gateway can go on behind what is in the folder. It
// reads what the gateway reads at its start, and repairs nothing.
func checkLedger(b probe, s settings) check {
	c := s.config.Audit
	switch used, err := audit.InUse(c.Dir); {
	case err != nil:
		return b.skip("not looked at: first mend audit.lock")
	case used:
		return b.skip("not looked at while another process writes it: a gateway read it at its start")
	}
	var signer note.Signer
	if c.Key.IsSet() {
		signer, _ = note.NewSigner(c.Key.Reveal()) // that it is none is told by audit.key
	}
	err := audit.Look(c.Dir, signer)
	var corrupt *audit.CorruptError
	dir := quotedPaths([]string{shortPath(c.Dir)})[0]
	switch {
	case err == nil:
		return b.pass("what is in audit.dir can be gone on with")
	case errors.Is(err, syscall.ENOTDIR):
		return b.skip("not looked at: first mend audit.dir")
	case errors.As(err, &corrupt):
		return b.fails("look at all of it by `sidegate audit verify --dir "+dir+"`; `sidegate audit repair --dir "+dir+"` keeps everything as evidence and begins a new chain",
			"the gateway does not start: the audit log is not what was written: %v", err)
	}
	return b.fails("see who owns the files of audit.dir: the gateway's user reads and writes them", "the gateway does not start: the audit log cannot be read: %v", err)
}

// checkSessions says whether the gateway gets its file of upload sessions.
func checkSessions(ctx context.Context, b probe, s settings, running func(context.Context) bool) check {
	dir := s.config.Storage.LocalDir
	err := local.Look(dir)
	switch {
	case err == nil:
		return b.pass("nobody else uses the upload sessions in storage.local.dir")
	case errors.Is(err, local.ErrInUse) && running(ctx):
		return b.warn("nothing, if these are that gateway's files; another gateway needs a storage.local.dir of its own", "storage.local.dir is in use: a gateway runs here")
	case errors.Is(err, local.ErrInUse):
		return b.fails("see which process has it (`fuser -v "+quotedPaths([]string{filepath.Join(dir, "sidegate.db")})[0]+"`), and stop it; each gateway needs a storage.local.dir of its own",
			"storage.local.dir is in use by another process, and no gateway answers at %s", s.config.AdminAddress)
	case errors.Is(err, syscall.ENOTDIR):
		return b.skip("not looked at: first mend storage.dir")
	}
	return b.fails("let the gateway's user read and write the file sidegate.db there; if it is no store, move it away: uploads that are under way are then unknown",
		"the gateway does not start: the upload sessions in storage.local.dir cannot be opened: %v", innermost(err))
}

// checkKeysCache: the gateway only needs the folder to be there or to be made;
// what it cannot keep there it fetches again.
func checkKeysCache(b probe, dir string) check {
	c := checkFolder(b, "keys_cache", dir, leastFree, slowWrite)
	info, err := os.Stat(dir)
	if c.Status != statusFail || err != nil || !info.IsDir() {
		return c
	}
	return b.warn(c.Do, "the gateway starts, and keeps no keys for when an issuer is away: %s", c.Text)
}

// checkAuditKey says whether a removed end of the audit log would show.
func checkAuditKey(b probe, s settings) check {
	key := s.config.Audit.Key
	if !key.IsSet() {
		return b.warn("make one by `sidegate audit keygen`, and name it in audit.key as ${file:...}", "audit.key is not set: checkpoints are not signed, so that a removed end of the audit log does not show")
	}
	signer, err := note.NewSigner(key.Reveal())
	if err != nil {
		return b.fails("make one by `sidegate audit keygen`", "audit.key is no key to sign with")
	}
	return b.pass("checkpoints are signed as %s, every %s", signer.Name(), document.FormatDuration(s.config.Audit.Checkpoint))
}
