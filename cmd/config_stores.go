package cmd

import (
	"strings"
	"time"

	"sidegate/policy/document"
	"sidegate/storage/audit"
)

var (
	// firebase.google.com/docs/firestore/manage-databases
	databaseID = newForm(`^(\(default\)|[a-z0-9][a-z0-9-]{2,61}[a-z0-9])$`)
	// firebase.google.com/docs/firestore/quotas: no slash, not `.` or `..`,
	// not __x__; stricter here.
	collectionID = newForm(`^[A-Za-z][A-Za-z0-9_.-]{0,255}$`)
)

func (l *configLoader) secret(v document.Value) Secret {
	s, ok := v.Text()
	switch {
	case ok && s == "":
		v.Errorf("`%s` is empty", v.Path())
	case strings.ContainsAny(s, "\r\n\x00"):
		v.Errorf("`%s` holds a line break", v.Path())
	}
	return NewSecret(s)
}

// warnLiteral warns of a secret that is written into the file. One that could not
// be read from elsewhere has an error instead.
func (l *configLoader) warnLiteral(secret document.Value) {
	if secret.Present() && !secret.Failed() && secret.Literal() {
		l.warn(secret, "`%s` stands in the file; write ${env:NAME} or ${file:PATH}, so that the file holds no secret", secret.Path())
	}
}

func (l *configLoader) readStorage(m document.Map, c *Config) {
	local, firestore := m.Get("local"), m.Get("firestore")
	if local.Present() && firestore.Present() {
		firestore.Errorf("`storage.local` (%s) and `storage.firestore` exclude each other: upload sessions live in one place", local.Place())
		return
	}
	if firestore.Present() {
		c.Storage.Firestore = l.readFirestore(firestore.Map(l.keys["storage.firestore"]), "uploadSessions")
		return
	}
	c.Storage.LocalDir = l.path(local.Map(l.keys["storage.local"]).Get("dir"), "data")
}

func (l *configLoader) readFirestore(m document.Map, collection string) *FirestoreConfig {
	f := &FirestoreConfig{Project: l.env.get("GOOGLE_CLOUD_PROJECT"), Database: "(default)", Collection: collection}
	if v := m.Get("project"); v.Present() {
		f.Project = l.matching(v, projectID, "a Google Cloud project's id")
	} else if m.Present() && !projectID.matches(f.Project) {
		m.Errorf("`%s` is missing, and the variable GOOGLE_CLOUD_PROJECT names no project", v.Path())
	}
	if v := m.Get("database"); v.Present() {
		f.Database = l.matching(v, databaseID, "a database's id, or (default)")
	}
	if v := m.Get("collection"); v.Present() {
		f.Collection = l.matching(v, collectionID, "a collection's id: letters, digits and `_.-`")
	}
	return f
}

// firestoreQuotas is where a store of upload sessions counts quotas.
func firestoreQuotas(s *FirestoreConfig) FirestoreConfig {
	quotas := *s
	quotas.Collection += "Quotas"
	return quotas
}

func (l *configLoader) readLookups(m document.Map, c *Config) {
	if v := m.Get("firestore"); v.Present() {
		c.Lookups = l.readFirestore(v.Map(l.keys["lookups.firestore"]), "")
	}
}

func (l *configLoader) readAudit(m document.Map, c *Config) {
	c.Audit.Dir = l.path(m.Get("dir"), "data/audit")
	c.Audit.Survive = survives[l.oneOf(m.Get("survive"), "crash", "power", "machine")]
	c.Audit.MaxSize = l.size(m.Get("max_size"), 1<<30, 1<<20, 1<<50)
	c.Audit.Segment = l.size(m.Get("segment"), 64<<20, 64<<10, 16<<30)
	c.Audit.Stdout = m.Get("stdout").Bool()
	l.readAuditKeeping(m, c)
	if v := m.Get("firestore"); v.Present() {
		f := v.Map(l.keys["audit.firestore"])
		c.Audit.Firestore = l.readFirestore(f, "auditLog")
		c.Audit.TTL = l.duration(f.Get("ttl"), 400*24*time.Hour, time.Hour, 100*366*24*time.Hour)
		if s := c.Storage.Firestore; s != nil && (*s == *c.Audit.Firestore || firestoreQuotas(s) == *c.Audit.Firestore) {
			v.Errorf("`audit.firestore` and `storage.firestore` are one collection: the audit log needs its own")
		}
	} else if c.Audit.Survive == audit.Machine {
		m.Get("survive").Errorf("`audit.survive: machine` needs `audit.firestore`: nothing else outlives this machine")
	}
	if c.Storage.LocalDir != "" && c.Storage.LocalDir == c.Audit.Dir {
		m.Get("dir").Errorf("`audit.dir` and `storage.local.dir` are one folder: the audit log needs its own")
	}
}

var survives = map[string]audit.Survive{"crash": audit.Crash, "power": audit.Power, "machine": audit.Machine}
