package oidc

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
	"syscall"
	"time"
)

// maxKept is how old kept keys may be to count after a restart. While a gateway
// runs it keeps its keys for as long as the issuer is away; one that was stopped
// may have missed that a key was withdrawn, and issuers rotate theirs within
// days.
const maxKept = 7 * 24 * time.Hour

// keptVersion marks the file's form.
const keptVersion = "sidegate-keys/v1"

// kept is the file of a key set's last good keys.
type kept struct {
	Version string          `json:"version"`
	Source  string          `json:"source"` // whose keys these are
	Fetched time.Time       `json:"fetched"`
	Keys    json.RawMessage `json:"keys"` // the issuer's answer
}

func (k *KeySet) keptFile() string {
	sum := sha256.Sum256([]byte(k.source()))
	return filepath.Join(k.folder, hex.EncodeToString(sum[:])+".json")
}

// keep writes the keys beside the old file and puts them in its place: half a
// file is never read. The keys in use do not depend on it.
func (k *KeySet) keep(answer []byte, fetched time.Time) {
	k.keeping.Lock()
	defer k.keeping.Unlock()
	if fetched.Before(k.keptAt) {
		return // a later answer overtook this one
	}
	err := k.write(answer, fetched)
	if err != nil {
		err = fmt.Errorf("keep the keys of %s: %w", k.url, err)
	} else {
		k.keptAt = fetched
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unkept = err
}

func (k *KeySet) write(answer []byte, fetched time.Time) error {
	var data bytes.Buffer
	enc := json.NewEncoder(&data)
	enc.SetEscapeHTML(false) // which would make six bytes of one, and a longer file than is read
	if err := enc.Encode(kept{keptVersion, k.source(), fetched.UTC(), answer}); err != nil {
		return err
	}
	f, err := os.CreateTemp(k.folder, ".keys-*") // mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // of what went wrong
	if _, err = f.Write(data.Bytes()); err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), k.keptFile())
}

// restore begins with what an earlier process kept. They are due at once, so
// that they are in use only until the issuer answers. What is no good is as if
// it were not there.
func (k *KeySet) restore() {
	set, err := k.read()
	if err == nil {
		k.current.Store(set)
	} else if !errors.Is(err, os.ErrNotExist) {
		k.unkept = fmt.Errorf("kept keys of %s are not used: %w", k.url, err)
	}
}

func (k *KeySet) read() (set *snapshot, err error) {
	defer func() {
		if p := recover(); p != nil {
			set, err = nil, errors.New("the file made a parser panic")
		}
	}()
	f, err := os.OpenFile(k.keptFile(), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is not a file")
	case info.Mode().Perm()&0o022 != 0:
		return nil, errors.New("others than its owner can write the file")
	}
	// In a folder that others can write the file may be theirs.
	if of, ok := info.Sys().(*syscall.Stat_t); !ok || int(of.Uid) != os.Geteuid() {
		return nil, errors.New("the file belongs to another user")
	}
	data, err := io.ReadAll(io.LimitReader(f, 2*maxKeysBytes))
	if err != nil {
		return nil, err
	}
	var file kept
	if json.Unmarshal(data, &file) != nil || file.Version != keptVersion || file.Source != k.source() {
		return nil, errors.New("it is not a file of these keys")
	}
	if age := k.now().Sub(file.Fetched); age < -MaxLeeway || age > maxKept {
		return nil, fmt.Errorf("they are of %s, which is not within the last %s", file.Fetched.Format(time.RFC3339), maxKept)
	}
	keys, err := parseKeys(file.Keys, k.noKeyID)
	if err != nil {
		return nil, err
	}
	return &snapshot{keys: keys, fetched: file.Fetched, stored: true}, nil
}
