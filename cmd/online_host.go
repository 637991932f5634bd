package cmd

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sidegate/storage/audit"
)

// hostProbes ask what this machine, or container, is like.
func hostProbes(s settings) []probe {
	return []probe{
		single("host.root", "", checkRoot),
		single("host.secrets", "", func(_ context.Context, b probe) check { return checkSecretFiles(b, s) }),
		single("host.writable", "", func(_ context.Context, b probe) check { return checkWritable(b, s) }),
		single("host.ephemeral", "", func(_ context.Context, b probe) check { return checkEphemeral(b, s) }),
		insecureProbe("emulator", s.insecure.emulator, "tokens without a signature are good, or Firestore is an emulator"),
		insecureProbe("keys", s.insecure.keys != nil, "whoever answers at that URL decides which tokens are good"),
		insecureProbe("ephemeral", s.insecure.ephemeral, "sessions and audit log may end with this machine"),
	}
}

func checkRoot(_ context.Context, b probe) check {
	if os.Geteuid() != 0 {
		return b.pass("the process runs as uid %d", os.Geteuid())
	}
	return b.warn("run it as another user, who owns the folders of audit.dir and storage.local.dir: 65532 in the image (its default; "+
		"in Kubernetes securityContext.runAsNonRoot), User= in a systemd unit", "the process runs as root, which it never needs")
}

// checkSecretFiles looks who else on this machine may read what only the gateway
// should.
func checkSecretFiles(b probe, s settings) check {
	files := slices.Clone(s.config.SecretFiles)
	if key := s.config.Listen.TLS.Key; key != "" {
		files = append(files, key)
	}
	for _, u := range s.config.Upstreams {
		if u.TLS.Key != "" {
			files = append(files, u.TLS.Key)
		}
	}
	for _, name := range []string{"GOOGLE_APPLICATION_CREDENTIALS", "AWS_SHARED_CREDENTIALS_FILE"} {
		if file := s.env.get(name); file != "" {
			files = append(files, file)
		}
	}
	open, blind := filesWith(files, 0o004)
	switch {
	case len(open) > 0:
		return b.warn(fmt.Sprintf("chmod o-rwx %s; in Kubernetes give the volume defaultMode: 0440 and the pod an fsGroup", strings.Join(quotedPaths(open), " ")),
			"every user of this machine may read %s: %s", countOf(len(open), "file that holds a secret", "files that hold secrets"), strings.Join(shortPaths(open), ", "))
	case len(blind) > 0:
		return b.skip("who may read them is not known of %s", strings.Join(shortPaths(blind), ", "))
	case len(files) == 0:
		return b.pass("sidegate.yaml reads no secret from a file")
	}
	return b.pass("%s only by their owner and group", countOf(len(files), "file that holds a secret can be read", "files that hold secrets can be read"))
}

// checkWritable looks who else may change what decides: policy, config, and the
// keys that are kept.
func checkWritable(b probe, s settings) check {
	files := []string{s.config.File, s.policy}
	for _, f := range slices.Clone(files) {
		files = append(files, filepath.Dir(f))
	}
	if s.config.KeysCache != "" {
		files = append(files, s.config.KeysCache)
	}
	slices.Sort(files)
	open, blind := filesWith(slices.Compact(files), 0o002)
	open = slices.DeleteFunc(open, func(f string) bool { // only who owns a file there may replace it, as in /tmp
		info, err := os.Stat(f)
		return err == nil && info.IsDir() && info.Mode()&fs.ModeSticky != 0
	})
	if len(open) > 0 {
		return b.warn("chmod o-w "+strings.Join(quotedPaths(open), " "), "every user of this machine may change what the gateway obeys: %s", strings.Join(shortPaths(open), ", "))
	}
	if len(blind) > 0 {
		return b.skip("who may change them is not known of %s", strings.Join(shortPaths(blind), ", "))
	}
	return b.pass("config, policy and kept keys can be changed only by their owner and group")
}

// filesWith are those that have one of the mode's bits, and those that cannot
// be looked at. Pipes and devices say nothing; what does not exist yet neither.
func filesWith(files []string, bits fs.FileMode) (open, blind []string) {
	for _, f := range files {
		info, err := os.Stat(f)
		switch {
		case os.IsNotExist(err):
		case err != nil:
			blind = append(blind, f)
		case (info.Mode().IsRegular() || info.IsDir()) && info.Mode().Perm()&bits != 0 && !shielded(f):
			open = append(open, f)
		}
	}
	return open, blind
}

// shielded says that no other user gets as far as the file: a folder above it
// may be entered only by its owner and group.
func shielded(file string) bool {
	for dir := filepath.Dir(file); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err == nil && info.Mode().Perm()&0o001 == 0 {
			return true
		}
		if dir == filepath.Dir(dir) {
			return false
		}
	}
}

func shortPaths(files []string) []string {
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = shortPath(f)
	}
	return out
}

// quotedPaths are paths as a shell takes them.
func quotedPaths(files []string) []string {
	out := make([]string, len(files))
	for i, f := range files {
		out[i] = "'" + strings.ReplaceAll(f, "'", `'\''`) + "'"
	}
	return out
}

func countOf(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// checkEphemeral looks whether what must outlive this process lies where it does.
func checkEphemeral(b probe, s settings) check {
	c := s.config
	places := map[string]string{}
	if c.Storage.LocalDir != "" {
		places["storage.local.dir"] = c.Storage.LocalDir
	}
	if c.Audit.Survive < audit.Machine {
		places["audit.dir"] = c.Audit.Dir
	}
	var lost []string
	for key, dir := range places {
		switch {
		case s.env.get(cloudRunVariable) != "":
			lost = append(lost, key+" lies in Cloud Run's memory")
		case diskOf(dir) == diskMemory:
			lost = append(lost, key+" lies in memory (tmpfs)")
		case diskOf(dir) == diskContainer:
			lost = append(lost, key+" lies in the container's own layer, which a new container does not have")
		}
	}
	slices.Sort(lost)
	switch {
	case len(lost) > 0:
		return b.warn("mount a volume there, or keep both in Firestore: storage.firestore, and audit.firestore with audit.survive: machine", "%s", strings.Join(lost, "; "))
	case len(places) == 0:
		return b.pass("what must outlive this machine is kept in Firestore")
	}
	return b.pass("sessions and audit log lie on a disk that outlives this process")
}

func insecureProbe(name string, on bool, effect string) probe {
	return single("insecure."+name, "", func(_ context.Context, b probe) check {
		if on {
			return b.warn("start it without --insecure-"+name+" in production", "--insecure-%s is given: %s", name, effect)
		}
		return b.pass("--insecure-%s is not given", name)
	})
}
