package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// A Checkpoint says which line a chain had in which place, and with it, since
// each line holds the hash of the one before, what all lines up to there were.
// It is kept as a signed note (golang.org/x/mod/sumdb/note) whose text is Text.
type Checkpoint struct {
	Chain string
	Seq   uint64            // of the line
	Hash  [sha256.Size]byte // of the line, without its line feed
	Time  time.Time         // when it was signed; whole seconds, UTC
}

const (
	checkpointHeader = "sidegate audit checkpoint v1"
	// maxNote bounds a file with a note, in bytes.
	maxNote = 64 << 10
)

var checkpointChain = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// Text is the one form of the checkpoint: docs/audit.md shows it.
func (c Checkpoint) Text() string {
	return fmt.Sprintf("%s\nchain %s\nseq %d\nhash %x\ntime %s\n",
		checkpointHeader, c.Chain, c.Seq, c.Hash, c.Time.UTC().Format(time.RFC3339))
}

// ParseCheckpoint reads what Text writes, and nothing else: whatever it takes
// has that very text.
func ParseCheckpoint(text string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 6 || lines[0] != checkpointHeader {
		return Checkpoint{}, fmt.Errorf("it does not have the five lines of a checkpoint, of which the first is %q", checkpointHeader)
	}
	var c Checkpoint
	for i, field := range []struct {
		name string
		read func(string) error
	}{
		{"chain", func(s string) error {
			c.Chain = s
			if !checkpointChain.MatchString(s) {
				return errors.New("is no chain's id")
			}
			return nil
		}},
		{"seq", func(s string) (err error) {
			c.Seq, err = strconv.ParseUint(s, 10, 63)
			return err
		}},
		{"hash", func(s string) error {
			if len(s) != 2*sha256.Size {
				return errors.New("is no SHA-256 in hex")
			}
			_, err := hex.Decode(c.Hash[:], []byte(s))
			return err
		}},
		{"time", func(s string) (err error) {
			c.Time, err = time.Parse(time.RFC3339, s)
			return err
		}},
	} {
		value, ok := strings.CutPrefix(lines[i+1], field.name+" ")
		if !ok {
			return Checkpoint{}, fmt.Errorf("line %d of the checkpoint is not its %s", i+2, field.name)
		}
		if err := field.read(value); err != nil {
			return Checkpoint{}, fmt.Errorf("the checkpoint's %s: %w", field.name, err)
		}
	}
	if c.Seq == 0 || c.Text() != text {
		return Checkpoint{}, errors.New("it is not written as a checkpoint is")
	}
	return c, nil
}

// sign makes the note of a checkpoint.
func (c Checkpoint) sign(by note.Signer) ([]byte, error) {
	if !checkpointChain.MatchString(c.Chain) {
		return nil, fmt.Errorf("the chain %s has no id that a checkpoint can name", Printable(c.Chain))
	}
	return note.Sign(&note.Note{Text: c.Text()}, by)
}

// A Note is a signed checkpoint as it was found: nothing in it is checked yet.
type Note struct {
	Name string // where it was found
	Data []byte
	// Expires is when the line that it is about may be deleted from where the
	// lines are; zero: never.
	Expires time.Time
}

// open verifies a note by one of the keys.
func (n Note) open(keys note.Verifiers) (Checkpoint, error) {
	opened, err := note.Open(n.Data, keys)
	var unknown *note.UnverifiedNoteError
	switch {
	case errors.As(err, &unknown):
		signers := make([]string, 0, len(unknown.Note.UnverifiedSigs))
		for _, s := range unknown.Note.UnverifiedSigs {
			signers = append(signers, fmt.Sprintf("%s+%08x", s.Name, s.Hash))
		}
		return Checkpoint{}, fmt.Errorf("%s is signed by %s only, which is no key that was given", n.Name, strings.Join(signers, ", "))
	case err != nil:
		return Checkpoint{}, fmt.Errorf("%s has no valid signature: %w", n.Name, err)
	}
	c, err := ParseCheckpoint(opened.Text)
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%s: %w", n.Name, err)
	}
	return c, nil
}

// unsigned reads a note without looking at its signatures.
func (n Note) unsigned() (Checkpoint, error) {
	text, _, ok := bytes.Cut(n.Data, []byte("\n\n"))
	if !ok {
		return Checkpoint{}, fmt.Errorf("%s is no signed note", n.Name)
	}
	c, err := ParseCheckpoint(string(text) + "\n")
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%s: %w", n.Name, err)
	}
	return c, nil
}

const (
	noteSuffix = ".note"
	// headNote is the newest checkpoint.
	headNote = "head" + noteSuffix
)

// noteName is the file of the checkpoint over a closed segment's last line.
func noteName(first uint64) string { return fmt.Sprintf("%020d%s", first, noteSuffix) }

// ReadNote reads a file that holds a note, or what a pipe brings.
func ReadNote(file string) (Note, error) {
	f, err := os.Open(file)
	if err != nil {
		return Note{}, err
	}
	return readNote(f, file)
}

// folderNote reads one of a folder's notes.
func folderNote(dir, name string) (Note, error) {
	name = filepath.Join(dir, name)
	f, err := openRegular(name, os.O_RDONLY)
	if err != nil {
		return Note{}, err
	}
	return readNote(f, name)
}

func readNote(f *os.File, file string) (Note, error) {
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxNote+1))
	if err != nil {
		return Note{}, err
	}
	if len(data) > maxNote {
		return Note{}, fmt.Errorf("%s is longer than any signed note (%d bytes)", file, maxNote)
	}
	return Note{Name: filepath.Base(file), Data: data}, nil
}

// noteNumbers lists the segments that a folder has checkpoints of, in order.
func noteNumbers(dir string) ([]uint64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var list []uint64
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), noteSuffix)
		if !ok || len(digits) != 20 || !e.Type().IsRegular() {
			continue
		}
		if first, err := strconv.ParseUint(digits, 10, 63); err == nil && first > 0 {
			list = append(list, first)
		}
	}
	return list, nil // ReadDir sorts, and the names have one length
}

// folderNotes reads all checkpoints of a folder, the head's last.
func folderNotes(dir string) ([]Note, error) {
	numbers, err := noteNumbers(dir)
	if err != nil {
		return nil, err
	}
	var notes []Note
	names := make([]string, 0, len(numbers)+1)
	for _, first := range numbers {
		names = append(names, noteName(first))
	}
	for _, name := range append(names, headNote) {
		n, err := folderNote(dir, name)
		if errors.Is(err, os.ErrNotExist) { // no head yet, or retention removed it meanwhile
			continue
		}
		if err != nil {
			return nil, err
		}
		notes = append(notes, n)
	}
	return notes, nil
}

// checkHead holds the log against the head.note that this key signed: its line
// was fsynced then, so that no crash and no loss of power takes it away. A note
// of another key is verify's to judge: keys change.
func (l *Ledger) checkHead() error {
	if l.opt.Signer == nil {
		return nil
	}
	n, err := folderNote(l.opt.Dir, headNote)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	c, err := n.unsigned()
	if err != nil {
		return nil
	}
	// Ed25519 signs the same text the same way.
	if own, err := c.sign(l.opt.Signer); err != nil || !bytes.Equal(own, n.Data) {
		return nil
	}
	bad := func(format string, args ...any) error {
		return &CorruptError{File: headNote, Seq: c.Seq, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case c.Chain != l.head.chain:
		return bad("it is about chain %s, and the log is of chain %s: the log was replaced", c.Chain, Printable(l.head.chain))
	case c.Seq > l.head.seq:
		return bad("it was signed when the log had this line, and the log ends with seq %d: lines were removed", l.head.seq)
	case c.Seq == l.head.seq && c.Hash != l.head.hash:
		return bad("the line of this seq is not the one that was signed: it was changed")
	}
	return nil
}
