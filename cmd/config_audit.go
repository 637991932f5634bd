package cmd

import (
	"time"

	"golang.org/x/mod/sumdb/note"

	"sidegate/policy/document"
)

// readAuditKeeping reads what is signed and what is deleted of the audit log.
func (l *configLoader) readAuditKeeping(m document.Map, c *Config) {
	c.Audit.Retention = l.duration(m.Get("retention"), 90*24*time.Hour, time.Hour, 100*366*24*time.Hour)
	every := m.Get("checkpoint")
	c.Audit.Checkpoint = l.duration(every, time.Minute, time.Second, longest)
	key := m.Get("key")
	if !key.Present() {
		if every.Present() {
			l.warn(every, "`%s` does nothing without `audit.key`: nothing is signed", every.Path())
		}
		return
	}
	c.Audit.Key = l.secret(key)
	if !c.Audit.Key.IsSet() {
		return
	}
	if key.Literal() {
		l.warn(key, "`%s` stands in the file; write ${file:PATH}, so that the file holds no secret", key.Path())
	}
	// The library's errors say nothing of the key, and nothing that helps.
	if _, err := note.NewSigner(c.Audit.Key.Reveal()); err != nil {
		key.Errorf("`%s` is no key to sign with: make one by `sidegate audit keygen`", key.Path())
		c.Audit.Key = Secret{}
	}
}
