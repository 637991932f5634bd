package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Repair is the end of a line that a crash had torn, cut off by Open. Nobody
// was told that this line is on record.
type Repair struct {
	File   string // the segment's name
	Offset int64  // where it was cut
	Text   []byte // what was cut off
	Zeros  int64  // bytes of zero behind it, cut off, too: see textEnd
}

// Open opens the ledger in a folder, or begins one, and starts its
// goroutines. It reads and verifies the last segment only; Verify reads all.
//
// A torn last line is cut off and reported: by Recovered, and in the log. An
// error is ErrLocked, a *CorruptError where anything else is not what was
// written, or the disk's.
func Open(o Options) (*Ledger, error) {
	l := &Ledger{opt: o.withDefaults(), wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	l.enc = newEncoder(o.Gateway)
	l.linger = time.AfterFunc(time.Hour, l.lingered)
	l.linger.Stop()
	l.next = &round{done: make(chan struct{})}
	if err := makeFolder(o.Dir, l.opt.syncDir); err != nil {
		return nil, fmt.Errorf("the audit log's folder: %w", err)
	}
	if o.Retention < 0 || o.Signer != nil && l.opt.Checkpoint <= 0 {
		return nil, errors.New("the audit log's retention and the time between its checkpoints cannot be negative")
	}
	var err error
	if l.lock, err = lockFolder(o.Dir); err != nil {
		return nil, fmt.Errorf("audit log %s: %w", o.Dir, err)
	}
	if err := l.load(); err != nil {
		l.lock.Close()
		if l.w.file != nil {
			l.w.file.Close()
		}
		return nil, fmt.Errorf("audit log %s: %w", o.Dir, err)
	}
	l.startKeepers()
	go l.run()
	if l.ship != nil {
		go l.ship.run()
	}
	if l.copy != nil {
		go l.copy.run()
	}
	if l.repaired != nil {
		l.report(l.repaired)
	}
	return l, nil
}

// makeFolder makes a folder whose name survives a power loss, as the fsynced
// files in it have to.
func makeFolder(dir string, sync func(dir string) error) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeFolder(parent, sync); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := sync(parent); err != nil && !errors.Is(err, os.ErrPermission) { // one that may be written, and not read
		return err
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.Segment <= 0 {
		o.Segment = segmentSize
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.passed == nil {
		o.passed = time.Now
	}
	if o.queue <= 0 {
		o.queue = queueSize
	}
	if o.Checkpoint == 0 {
		o.Checkpoint = time.Minute
	}
	if o.remove == nil {
		o.remove = os.Remove
	}
	if o.syncDir == nil {
		o.syncDir = syncDir
	}
	if o.pause <= 0 {
		o.pause = time.Second
	}
	if o.linger <= 0 {
		o.linger = lingerTime
	}
	if o.open == nil {
		o.open = func(name string, flag int) (file, error) { return os.OpenFile(name, flag, 0o600) }
	}
	return o
}

// report writes the repair to the log itself. If the disk refuses even that,
// the loss of this event is reported as any other is.
func (l *Ledger) report(r *Repair) {
	sum := sha256.Sum256(r.Text)
	l.Append(&Event{Type: TypeSystem, System: &System{Event: "repair", Detail: map[string]string{
		"problem": "a crash tore the last line; it was cut off",
		"file":    r.File,
		"offset":  strconv.FormatInt(r.Offset, 10),
		"bytes":   strconv.Itoa(len(r.Text)),
		"sha256":  hex.EncodeToString(sum[:]),
		"text":    string(r.Text),
		"zeros":   strconv.FormatInt(r.Zeros, 10),
	}}})
}

// load finds the chain's end, and where shipping stopped.
func (l *Ledger) load() error {
	if err := unfinishedRepair(l.opt.Dir); err != nil {
		return err
	}
	removeUnplaced(l.opt.Dir)
	list, err := segments(l.opt.Dir)
	if err != nil {
		return err
	}
	resume, err := readResume(l.opt.Dir)
	if err != nil {
		return err
	}
	switch {
	case len(list) > 0:
		err = l.loadLast(list)
	case resume.Seq > 0:
		err = segmentsGone(resume)
	default:
		l.head = link{chain: NewID()}
		l.w.first = 1
		l.w.file, err = l.create(segmentName(1))
	}
	if err != nil {
		return err
	}
	l.written = l.head
	if err := l.checkHead(); err != nil {
		return err
	}
	if l.opt.Copy != nil {
		l.copy = newCopier(l)
	}
	if l.opt.Sink != nil {
		l.ship, err = newShipper(l, list, resume)
	}
	return err
}

// loadLast opens the last segment. It can be empty, when the process died
// after it was made: then the one before it holds the chain's end.
func (l *Ledger) loadLast(list []uint64) error {
	last := list[len(list)-1]
	if _, err := os.Stat(filepath.Join(l.opt.Dir, segmentName(last))); errors.Is(err, os.ErrNotExist) {
		return l.loadCompressed(last)
	}
	name := filepath.Join(l.opt.Dir, segmentName(last))
	os.Remove(name + rewriteSuffix) // of a rewrite that did not get to its end
	f, err := l.opt.open(name, os.O_RDWR)
	if err != nil {
		return err
	}
	l.w.file, l.w.first = f, last
	end, zeros, err := textEnd(f)
	if err != nil {
		return err
	}
	k, rest, size, err := readSegment(io.NewSectionReader(f, 0, end), segmentName(last), last)
	if err != nil {
		return err
	}
	l.w.size = size
	if k.seq == 0 && len(list) > 1 {
		before := list[len(list)-2]
		if k, err = l.loadBefore(before, last); err != nil {
			return err
		}
	}
	if k.seq == 0 && last != 1 {
		return &CorruptError{File: segmentName(last), Seq: last, Reason: "it is empty, and the segment before it is missing"}
	}
	if len(rest) > 0 || zeros > 0 {
		l.repaired = &Repair{File: segmentName(last), Offset: size, Text: rest, Zeros: zeros}
		if err := f.Truncate(size); err != nil {
			return fmt.Errorf("cutting off a torn line: %w", err)
		}
	}
	if k.chain == "" {
		k.chain = NewID()
	}
	l.head = k
	// What is there was perhaps never fsynced: do so before it counts.
	if err := f.Sync(); err != nil {
		return err
	}
	l.synced, l.sealed = k.seq, k
	return nil
}

// textEnd is where a segment's text ends, and how many zeros are behind it: a
// loss of power can leave a file as long as it was, without what was not yet on
// the disk. No line holds a zero.
func textEnd(f file) (end, zeros int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return 0, 0, err
	}
	size := info.Size()
	buf := make([]byte, readSize)
	for end = size; end > 0; {
		n := min(end, int64(len(buf)))
		if _, err := f.ReadAt(buf[:n], end-n); err != nil {
			return 0, 0, err
		}
		text := len(bytes.TrimRight(buf[:n], "\x00"))
		if end -= n - int64(text); text > 0 {
			break
		}
	}
	return end, size - end, nil
}

// loadCompressed goes on behind a last segment that was compressed while no
// ledger was open: in a new one.
func (l *Ledger) loadCompressed(last uint64) error {
	f, name, err := openSegment(l.opt.Dir, last)
	if err != nil {
		return err
	}
	defer f.Close()
	k, rest, size, err := readSegment(f, name, last)
	switch {
	case err != nil:
		return err
	case len(rest) > 0 || k.seq == 0:
		return &CorruptError{File: name, Seq: max(k.seq+1, last), Offset: size, Reason: "it does not end with a whole line, and is compressed"}
	}
	l.head, l.sealed, l.synced = k, k, k.seq
	l.w.first = k.seq + 1
	l.w.file, err = l.create(segmentName(k.seq + 1))
	return err
}

func (l *Ledger) loadBefore(before, last uint64) (link, error) {
	f, name, err := openSegment(l.opt.Dir, before)
	if err != nil {
		return link{}, err
	}
	defer f.Close()
	k, rest, size, err := readSegment(f, name, before)
	if err != nil {
		return link{}, err
	}
	if len(rest) > 0 {
		return link{}, &CorruptError{File: name, Seq: k.seq + 1, Offset: size, Reason: "its last line is not whole, and a later segment exists"}
	}
	if k.seq+1 != last {
		return link{}, &CorruptError{File: segmentName(last), Seq: k.seq + 1, Reason: "it does not continue " + name}
	}
	return k, nil
}

// readSegment verifies one segment: the end of its chain, what is behind its
// last line feed, and the size without that.
func readSegment(f io.ReaderAt, name string, first uint64) (k link, rest []byte, size int64, err error) {
	r := lineReader{file: f, name: name, number: 1}
	var last Line
	for {
		line, err := r.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && k.seq == 0 && line.Seq != first {
			err = &CorruptError{File: r.name, Line: 1, Seq: line.Seq, Reason: "the file's name is not the seq of its first line"}
		}
		if err == nil {
			err = k.check(&line)
		}
		if corrupt := (*CorruptError)(nil); errors.As(err, &corrupt) && corrupt.Seq == 0 {
			corrupt.Seq = max(k.seq+1, first)
		}
		if err != nil {
			return link{}, nil, 0, err
		}
		last = line
		last.Raw = nil
	}
	if k.seq > 0 {
		if err := validLast(f, &last, r.offset); err != nil {
			return link{}, nil, 0, err
		}
	}
	return k, r.rest(), r.offset, nil
}

// validLast checks the last line, for which no later one vouches.
func validLast(f io.ReaderAt, last *Line, end int64) error {
	raw := make([]byte, end-last.Offset-1)
	if _, err := f.ReadAt(raw, last.Offset); err != nil {
		return err
	}
	if !json.Valid(raw) {
		return &CorruptError{File: last.File, Line: last.Number, Offset: last.Offset, Seq: last.Seq, Reason: "it is not valid JSON"}
	}
	return nil
}

// lockName is the file whose lock makes a process the folder's only writer.
const lockName = "lock"

// resumeFile holds how far shipping came.
const resumeFile = "shipped.json"

// A resume is the place behind the last line that the Sink has.
type resume struct {
	Chain   string `json:"chain"`
	Seq     uint64 `json:"seq"`
	Segment uint64 `json:"segment"` // its first seq
	Offset  int64  `json:"offset"`  // of the next line in it

	// Since is when the folder's first event was stored: see ramp. Zero: so long
	// ago that nobody noted it.
	Since time.Time `json:"since,omitzero"`
}

// cursor reads on from there.
func (r resume) cursor(dir string) cursor {
	c := cursor{dir: dir}
	if r.Seq > 0 {
		c.start(r.Segment)
		c.lines.offset, c.last = r.Offset, r.Seq
	}
	return c
}

func readResume(dir string) (resume, error) {
	data, err := readSmall(dir, resumeFile)
	if errors.Is(err, os.ErrNotExist) {
		return resume{}, nil
	}
	if err != nil {
		return resume{}, err
	}
	var r resume
	dec := json.NewDecoder(strings.NewReader(string(data)))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil || r.Offset < 0 || r.Segment == 0 || r.Segment > r.Seq+1 {
		return resume{}, fmt.Errorf("%s is damaged: remove it to ship everything again; what the sink has is not stored twice", resumeFile)
	}
	return r, nil
}

// openRegular opens a file of the folder, and never waits: a pipe in its place
// would let the start, or verify, wait for ever.
func openRegular(name string, flag int) (*os.File, error) {
	f, err := os.OpenFile(name, flag|syscall.O_NONBLOCK, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file: move it away", name)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// readSmall reads one of the folder's own notes of state.
func readSmall(dir, name string) ([]byte, error) {
	f, err := openRegular(filepath.Join(dir, name), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// tempInfix is between the name of a file that writeFile has not put in its
// place yet, and a number.
const tempInfix = ".tmp"

// removeUnplaced deletes such files that a kill left, one each time: nobody else
// would. What cannot be deleted does no harm. The folder is locked.
func removeUnplaced(dir string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		name, number, found := strings.Cut(e.Name(), tempInfix)
		segment, note := strings.CutSuffix(name, noteSuffix)
		own := name == headNote || name == resumeFile || name == repairFile || note && len(segment) == 20 && onlyDigits(segment)
		if found && own && number != "" && onlyDigits(number) && e.Type().IsRegular() {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
}

// writeFile replaces one of the ledger's notes of state.
func (l *Ledger) writeFile(name string, data []byte) error {
	if err := l.lock.at(l.opt.Dir); err != nil {
		return err
	}
	return writeFile(l.opt.Dir, name, data)
}

// writeFile replaces a file so that after a power loss it is the old or the new.
func writeFile(dir, name string, data []byte) error {
	f, err := os.CreateTemp(dir, name+tempInfix)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(dir)
}
