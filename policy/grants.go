package policy

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// A Grant is what a policy lets somebody do in a bucket, below a prefix: by a URL
// that the gateway signs, or by a call that it makes itself. The policy narrows
// it further; these are the bounds that hold whatever a caller sends.
type Grant struct {
	Bucket string // its name in sidegate.yaml
	Does   string // one of the Grant constants
	// Prefix is what every key begins with, before anything that differs from
	// request to request; empty: the whole bucket.
	Prefix string
	// Exact: the prefix is the only key.
	Exact bool
	// Overwrite: objects may be replaced. Form: they are sent by a form, which
	// cannot be held to a key that is free.
	Overwrite, Form bool
	Expires         time.Duration // the longest that a URL can hold; 0: none is signed
	Route           string        // the id of the route
}

// What grants let somebody do.
const (
	GrantPut       = "put"       // in one piece, and look at what landed
	GrantMultipart = "multipart" // in parts, and look at what landed
	GrantGet       = "get"       // and look whether it is there
	GrantDelete    = "delete"
	GrantPurge     = "purge" // delete the version that came too late, or is too large
	GrantList      = "list"
)

// Grants are what the policy lets anybody do in buckets, by bucket, prefix and
// what it is. Entries in dry_run let nobody in, and count for nothing.
func (p *Policy) Grants() []Grant {
	var out []Grant
	for _, r := range p.Routes {
		if r.Object == nil || !slices.ContainsFunc(r.entries, func(e *condition) bool { return !e.dryRun }) {
			continue
		}
		out = append(out, r.grants()...)
	}
	slices.SortStableFunc(out, func(a, b Grant) int {
		return cmp.Or(cmp.Compare(a.Bucket, b.Bucket), cmp.Compare(a.Prefix, b.Prefix), cmp.Compare(a.Does, b.Does), cmp.Compare(a.Route, b.Route))
	})
	return out
}

func (r *Route) grants() (out []Grant) {
	o := r.Object
	for _, at := range r.prefixes() {
		at.Bucket, at.Route = o.Bucket, r.ID
		add := func(does string, signs, form bool) {
			g := at
			g.Does, g.Form = does, form
			if g.Overwrite = o.Overwrite && r.BeginsUploads(); signs {
				g.Expires = o.MaxExpiry
			}
			out = append(out, g)
		}
		switch r.Serve {
		case PresignUpload, PresignUploads:
			add(GrantPut, true, o.Form)
		case Multipart:
			add(GrantMultipart, true, false)
		case Uppy:
			add(GrantPut, true, o.Form)
			add(GrantMultipart, true, false)
		case PresignDownload, PresignDownloads:
			add(GrantGet, true, false)
		case DeleteObject:
			add(GrantDelete, false, false)
		case ListObjects:
			add(GrantList, false, false)
		}
		// What a client of Uppy completes itself, and larger than it may be, goes too.
		if o.DeleteLate || r.Serve == Uppy && o.key.uses(sourceUUID) {
			add(GrantPurge, false, false)
		}
	}
	return out
}

// prefixes are what the keys of the route begin with. Where callers name the key
// its entries say which: by their prefixes, or, where one has none, by documents
// that may name any key.
func (r *Route) prefixes() []Grant {
	if r.Serve == ListObjects {
		prefix, whole := r.Object.prefix.static()
		if whole {
			prefix += "/"
		}
		return []Grant{{Prefix: prefix}}
	}
	if !r.Object.key.named {
		prefix, exact := r.Object.key.static()
		return []Grant{{Prefix: prefix, Exact: exact}}
	}
	var all []Grant
	for _, e := range r.entries {
		if e.dryRun {
			continue
		}
		t, _ := parseTemplate(e.facts.keyPrefix) // of the entry, that has loaded; empty: of the bucket
		prefix, _ := t.static()
		all = append(all, Grant{Prefix: prefix})
	}
	var out []Grant
	for _, g := range all {
		covered := slices.ContainsFunc(all, func(o Grant) bool { return o.Prefix != g.Prefix && strings.HasPrefix(g.Prefix, o.Prefix) })
		if !covered && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}

// static is the text that a template begins with whatever it reads; whole where
// it reads nothing, so that there is no more.
func (t template) static() (prefix string, whole bool) {
	for _, p := range t.parts {
		if p.source != sourceLiteral {
			return prefix, false
		}
		prefix += p.literal
	}
	return prefix, true
}
