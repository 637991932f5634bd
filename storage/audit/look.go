package audit

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/mod/sumdb/note"
)

// Look says why Open would not go on behind what is in the folder; nil: it would,
// also where nothing is there yet. It reads what Open reads, and changes nothing;
// a line that a crash tore is none of its business. While a ledger is open
// elsewhere the answer may be wrong.
func Look(dir string, signer note.Signer) error {
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := unfinishedRepair(dir); err != nil {
		return err
	}
	list, err := segments(dir)
	if err != nil {
		return err
	}
	shipped, err := readResume(dir)
	if err != nil {
		return err
	}
	l := &Ledger{opt: Options{Dir: dir, Signer: signer}}
	if len(list) == 0 {
		if shipped.Seq > 0 {
			return segmentsGone(shipped)
		}
		return l.checkHead()
	}
	if l.head, err = l.lookLast(list); err != nil {
		return err
	}
	return l.checkHead()
}

// segmentsGone is of a folder that shipped events and holds none.
func segmentsGone(shipped resume) error {
	return fmt.Errorf("its segments are gone, but %s says that %d events were shipped: restore them, or choose another folder", resumeFile, shipped.Seq)
}

// lookLast reads the chain's end as loadLast does.
func (l *Ledger) lookLast(list []uint64) (link, error) {
	last := list[len(list)-1]
	f, name, err := openSegment(l.opt.Dir, last)
	if err != nil {
		return link{}, err
	}
	defer f.Close()
	var text io.ReaderAt = f
	if plain, ok := f.(*os.File); ok { // behind which zeros can be, as behind one that Open cuts
		end, _, err := textEnd(plain)
		if err != nil {
			return link{}, err
		}
		text = io.NewSectionReader(plain, 0, end)
	}
	k, rest, size, err := readSegment(text, name, last)
	if err != nil {
		return link{}, err
	}
	_, compressed := f.(*gzipFile)
	switch {
	case compressed && (len(rest) > 0 || k.seq == 0):
		return link{}, &CorruptError{File: name, Seq: max(k.seq+1, last), Offset: size, Reason: "it does not end with a whole line, and is compressed"}
	case k.seq == 0 && len(list) > 1:
		return l.loadBefore(list[len(list)-2], last)
	case k.seq == 0 && last != 1:
		return link{}, &CorruptError{File: name, Seq: last, Reason: "it is empty, and the segment before it is missing"}
	}
	return k, nil
}
