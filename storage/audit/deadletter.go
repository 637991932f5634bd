package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// deadFile gets the lines that the Sink will never take.
const deadFile = "dead-letter.jsonl"

// deadLetters writes each line to the dead-letter file once, also where the
// process dies before the resume point has passed it.
type deadLetters struct {
	dir  string
	have map[uint64]bool // seqs of lines that are there and not shipped yet
}

// openDeadLetters finds what is in the file of a chain's lines behind after.
// The end of a line that a crash tore is cut off: the ledger has it whole.
func openDeadLetters(dir, chain string, after uint64) (deadLetters, error) {
	d := deadLetters{dir: dir, have: map[uint64]bool{}}
	f, err := openRegular(filepath.Join(dir, deadFile), os.O_RDWR)
	if errors.Is(err, os.ErrNotExist) {
		return d, nil
	}
	if err != nil {
		return d, fmt.Errorf("the dead-letter file: %w", err)
	}
	defer f.Close()
	if err := cutTorn(f); err != nil {
		return d, fmt.Errorf("the dead-letter file: %w", err)
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, MaxLine+2)
	for lines.Scan() {
		// What is no line of a ledger is somebody's note, and none of ours.
		if l, err := ParseLine(lines.Bytes()); err == nil && l.Chain == chain && l.Seq > after {
			d.have[l.Seq] = true
		}
	}
	if err := lines.Err(); err != nil {
		return d, fmt.Errorf("%s is not what was written to it: move it out of the folder: %w", deadFile, err)
	}
	return d, nil
}

// cutTorn cuts a file behind its last line feed.
func cutTorn(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	end := info.Size()
	buf := make([]byte, 4096)
	for end > 0 {
		n := min(end, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], end-n); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if i := bytes.LastIndexByte(buf[:n], '\n'); i >= 0 {
			end -= n - int64(i) - 1
			break
		}
		end -= n
	}
	if end == info.Size() {
		return nil
	}
	return errors.Join(f.Truncate(end), f.Sync())
}

// add puts a line into the file, fsynced.
func (d *deadLetters) add(l *Line) error {
	if d.have[l.Seq] {
		return nil
	}
	f, err := openRegular(filepath.Join(d.dir, deadFile), os.O_RDWR|os.O_CREATE|os.O_APPEND)
	if err != nil {
		return fmt.Errorf("the dead-letter file: %w", err)
	}
	err = cutTorn(f) // what a try left that could not even be cut off
	var info os.FileInfo
	if err == nil {
		info, err = f.Stat()
	}
	if err == nil {
		_, err = f.Write(append(l.Raw[:len(l.Raw):len(l.Raw)], '\n'))
		if err = errors.Join(err, f.Sync()); err != nil {
			_ = f.Truncate(info.Size()) // else the next try would end a half line
		}
	}
	if err = errors.Join(err, f.Close(), syncDir(d.dir)); err != nil {
		return fmt.Errorf("the dead-letter file: %w", err)
	}
	d.have[l.Seq] = true
	return nil
}

// forget drops what can no longer be sent again.
func (d *deadLetters) forget(shipped uint64) {
	for seq := range d.have {
		if seq <= shipped {
			delete(d.have, seq)
		}
	}
}
