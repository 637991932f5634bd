package audit

import (
	"os"
	"path/filepath"
	"testing"
)

// TestARepairFollowsNoLink: who can write the folder must not have the one who
// repairs it, root perhaps, put files elsewhere.
func TestARepairFollowsNoLink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	fill(t, Options{Dir: dir}, 3)
	if err := os.Symlink(elsewhere, filepath.Join(dir, "damaged-x")); err != nil {
		t.Fatal(err)
	}
	plan := `{"evidence": "damaged-x", "files": ["` + segmentName(1) + `"], "new_chain": "c"}`
	if err := os.WriteFile(filepath.Join(dir, repairFile), []byte(plan), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := RepairFolder(t.Context(), RepairOptions{Dir: dir})
	if there, rerr := os.ReadDir(elsewhere); err == nil || rerr != nil || len(there) > 0 {
		t.Errorf("%v, %v, %v", err, rerr, there)
	}
}
