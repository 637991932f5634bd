package audit

import (
	"compress/flate"
	"compress/gzip"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// gzipSuffix is behind the name of a segment that the operator compressed.
const gzipSuffix = ".gz"

// A segmentFile is a segment that is read: offsets are those of its text.
type segmentFile interface {
	io.ReaderAt
	io.Closer
}

// openSegment opens a segment to be read, and says under which name it is
// there. While gzip works both are: then the plain one counts.
func openSegment(dir string, first uint64) (segmentFile, string, error) {
	name := segmentName(first)
	f, err := openRegular(filepath.Join(dir, name), os.O_RDONLY)
	if err == nil {
		return f, name, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	z, zerr := openRegular(filepath.Join(dir, name+gzipSuffix), os.O_RDONLY)
	if zerr == nil {
		return &gzipFile{file: z}, name + gzipSuffix, nil
	}
	if !errors.Is(zerr, fs.ErrNotExist) {
		err = zerr
	}
	return nil, "", err
}

// textSize is the size of a segment's text, in bytes.
func textSize(dir string, first uint64) (int64, error) {
	f, name, err := openSegment(dir, first)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	switch f := f.(type) {
	case *os.File:
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		return info.Size(), nil
	case *gzipFile:
		n, err := io.Copy(io.Discard, io.NewSectionReader(f, 0, 1<<62))
		if bad := (*gzipError)(nil); errors.As(err, &bad) {
			return 0, &CorruptError{File: name, Offset: n, Seq: first, Reason: "it cannot be decompressed: " + bad.err.Error()}
		}
		return n, err
	}
	return 0, errors.ErrUnsupported
}

// A gzipFile reads the text of a compressed file at offsets that rise; going
// back costs a start from the beginning. It keeps nothing of what it read. It
// belongs to one goroutine.
type gzipFile struct {
	file *os.File
	text *gzip.Reader
	at   int64 // of the text
}

// A gzipError says that a file is not what gzip had written.
type gzipError struct{ err error }

func (e *gzipError) Error() string { return e.err.Error() }
func (e *gzipError) Unwrap() error { return e.err }

// ReadAt implements io.ReaderAt.
func (g *gzipFile) ReadAt(p []byte, offset int64) (int, error) {
	if g.text == nil || offset < g.at {
		if err := g.rewind(); err != nil {
			return 0, err
		}
	}
	for g.at < offset {
		n, err := io.CopyN(io.Discard, g.text, offset-g.at)
		g.at += n
		if err != nil {
			return 0, gzipFailure(err)
		}
	}
	n := 0
	for n < len(p) {
		m, err := g.text.Read(p[n:])
		n += m
		g.at += int64(m)
		if err != nil {
			return n, gzipFailure(err)
		}
	}
	return n, nil
}

func (g *gzipFile) rewind() error {
	if _, err := g.file.Seek(0, io.SeekStart); err != nil {
		return err
	}
	g.at, g.text = 0, nil
	text, err := gzip.NewReader(g.file)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // an empty file is no end of a text
	}
	if err != nil {
		return gzipFailure(err)
	}
	g.text = text
	return nil
}

// gzipFailure tells a damaged file from a disk that fails.
func gzipFailure(err error) error {
	if damaged := flate.CorruptInputError(0); errors.As(err, &damaged) || errors.Is(err, gzip.ErrChecksum) ||
		errors.Is(err, gzip.ErrHeader) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &gzipError{err}
	}
	return err
}

// Close implements io.Closer.
func (g *gzipFile) Close() error { return g.file.Close() }
