package proxy

import (
	"container/list"
	"sync"
)

const (
	// maxKeptDocuments bounds the documents that are kept.
	maxKeptDocuments = 100_000
	// keptShare is the part of all bytes that one document may take: else a
	// few large ones push out all others.
	keptShare = 64
)

// What a kept document is estimated to take beside its texts, in bytes; the
// values are those of Go 1.26's maps and interfaces on 64 bits, rounded up.
const (
	entryBytes    = 512 // its entry in the cache, and its key's
	mapBytes      = 384 // of a map with up to eight entries
	mapEntryBytes = 80  // of each entry
	listBytes     = 64
	valueBytes    = 48 // in a list or map, with what the interface points to
)

// keptDocuments are documents that were read, with no bound of age: whoever
// takes one knows how old it may be. The least recently used go first. It is
// safe for concurrent use.
type keptDocuments struct {
	mu       sync.Mutex
	entries  map[string]*list.Element // of *keptDocument
	recent   *list.List               // the last used first
	bytes    int64
	maxBytes int64
}

type keptDocument struct {
	key      string
	document datedDocument
	bytes    int64
}

func newKeptDocuments(maxBytes int64) *keptDocuments {
	return &keptDocuments{entries: map[string]*list.Element{}, recent: list.New(), maxBytes: maxBytes}
}

func (k *keptDocuments) get(key string) (datedDocument, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.entries[key]
	if e == nil {
		return datedDocument{}, false
	}
	k.recent.MoveToFront(e)
	return e.Value.(*keptDocument).document, true
}

// put keeps the document, unless a later read of it is there.
func (k *keptDocuments) put(key string, d datedDocument) {
	kept := &keptDocument{key: key, document: d, bytes: entryBytes + int64(len(key)) + sizeOf(d.Fields)}
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.entries[key]; e != nil {
		if e.Value.(*keptDocument).document.began.After(d.began) {
			return
		}
		k.remove(e) // also where the new one is too large: the old one is outdated
	}
	if kept.bytes > k.maxBytes/keptShare {
		return
	}
	k.entries[key] = k.recent.PushFront(kept)
	k.bytes += kept.bytes
	for k.bytes > k.maxBytes || len(k.entries) > maxKeptDocuments {
		k.remove(k.recent.Back())
	}
}

// size is how many documents are kept, and about how many bytes they take.
func (k *keptDocuments) size() (entries int, bytes int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.entries), k.bytes
}

func (k *keptDocuments) remove(e *list.Element) {
	kept := k.recent.Remove(e).(*keptDocument)
	delete(k.entries, kept.key)
	k.bytes -= kept.bytes
}

// sizeOf estimates the bytes of a document's value.
func sizeOf(v any) int64 {
	switch v := v.(type) {
	case string:
		return valueBytes + int64(len(v))
	case []any:
		n := int64(listBytes + valueBytes)
		for _, one := range v {
			n += sizeOf(one)
		}
		return n
	case map[string]any:
		n := int64(mapBytes + valueBytes)
		for name, one := range v {
			n += mapEntryBytes + int64(len(name)) + sizeOf(one)
		}
		return n
	}
	return valueBytes
}
