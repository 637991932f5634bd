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
		single("audit.key", "", func(_ context.Context, b probe) check { return checkAuditKey(b, s) }),
	}
	if c.Storage.LocalDir != "" {
		out = append(out, single("storage.dir", "", func(_ context.Context, b probe) check {
			return checkFolder(b, "storage.local.dir", c.Storage.LocalDir, leastFree, slowWrite)
		}))
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
		return b.skip("the lock of audit.dir cannot be looked at: %v", innermost(err))
	case used && running(ctx):
		return b.warn("nothing, if these are that gateway's files; another gateway needs an audit.dir of its own", "audit.dir is in use: a gateway runs here")
	case used:
		return b.fails("see which process has it (`fuser -v "+quotedPaths([]string{filepath.Join(s.config.Audit.Dir, "lock")})[0]+"`), and stop it; each gateway needs an audit.dir of its own",
			"audit.dir is in use by another process, and no gateway answers at %s", s.config.AdminAddress)
	}
	return b.pass("nobody else uses audit.dir")
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
