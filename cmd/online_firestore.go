package cmd

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"sidegate/policy"
	"sidegate/storage/firestore"
)

const (
	firestoreRole  = "roles/datastore.user" // what the gateway's account needs
	firestoreFiles = "configs/firestore.indexes.json (a database of the gateway's own: `firebase deploy --only firestore`; else merge it into yours)"
)

// A firestoreUse is what one database is for.
type firestoreUse struct {
	o        firestore.Options
	sections []string // of sidegate.yaml
	log      string   // the collection of the audit log; empty: not here
	sessions string
	expire   []string // collections whose documents TTL deletes
	closed   []string // collections that no client may touch
	readable []string // collections that no client may write: those of lookups
}

// collections are all that clients are tried on.
func (u *firestoreUse) collections() []string {
	return slices.Concat(u.closed, u.readable)
}

// firestoreProbes look at each database that the config names.
func firestoreProbes(s settings, pol *policy.Policy) (out []probe) {
	for _, u := range firestoreUses(s, pol) {
		b := probe{id: "firestore.reach", subject: u.o.Project + "/" + u.o.Database}
		out = append(out, probe{b.id, b.subject, func(ctx context.Context) []check {
			var err error
			if u.o.Credentials, err = googleFromAWS(ctx, s.env); err != nil {
				return []check{b.skip("without credentials Firestore cannot be asked: see credentials.google")}
			}
			return u.look(ctx, b)
		}})
	}
	return out
}

func firestoreUses(s settings, pol *policy.Policy) (uses []*firestoreUse) {
	use := func(section string, f *FirestoreConfig) *firestoreUse {
		o := firestore.Options{Project: f.Project, Database: f.Database, Emulator: s.insecure.firestoreEmulator}
		i := slices.IndexFunc(uses, func(u *firestoreUse) bool { return u.o == o })
		if i < 0 {
			i, uses = len(uses), append(uses, &firestoreUse{o: o})
		}
		uses[i].sections = append(uses[i].sections, section)
		return uses[i]
	}
	c := s.config
	if f := c.Audit.Firestore; f != nil {
		u := use("audit.firestore", f)
		checkpoints := firestore.CheckpointCollection(f.Collection)
		u.log, u.closed = f.Collection, append(u.closed, f.Collection, checkpoints)
		if c.Audit.TTL > 0 {
			u.expire = append(u.expire, f.Collection, checkpoints)
		}
	}
	if f := c.Storage.Firestore; f != nil {
		u := use("storage.firestore", f)
		quotas := firestoreQuotas(f).Collection
		u.sessions, u.closed, u.expire = f.Collection, append(u.closed, f.Collection, quotas), append(u.expire, quotas)
	}
	if f := c.Lookups; f != nil {
		u := use("lookups.firestore", f)
		for _, name := range slices.Sorted(maps.Keys(pol.Lookups())) {
			if collection := collectionOf(pol.Lookups()[name]); collection != "" && !slices.Contains(u.collections(), collection) {
				u.readable = append(u.readable, collection)
			}
		}
	}
	return uses
}

// collectionOf is the collection in which a lookup's documents are, at the root
// of the database; empty where that depends on the request.
func collectionOf(l *policy.Lookup) string {
	a, err := l.Named("a")
	if err != nil {
		return ""
	}
	b, err := l.Named("b")
	if err != nil {
		return ""
	}
	first, rest, _ := strings.Cut(a, "/")
	if again, _, _ := strings.Cut(b, "/"); again != first || rest == "" {
		return ""
	}
	return first
}

// look connects, and goes on only where the database answers: all else would
// say the same again.
func (u *firestoreUse) look(ctx context.Context, b probe) []check {
	f, err := firestore.Inspect(ctx, u.o)
	if err == nil {
		defer f.Close()
		err = f.Reach(ctx)
	}
	if err != nil {
		return []check{u.unreached(ctx, b, err)}
	}
	out := []check{b.pass("it answers, for %s%s", strings.Join(u.sections, ", "), u.where())}
	if u.o.Emulator == "" {
		out = append(out, u.location(ctx, b.named("firestore.database"), f))
	}
	if u.log+u.sessions != "" {
		for _, collection := range []string{u.log, u.sessions} {
			if collection != "" {
				out = append(out, u.try(ctx, b, f, collection)...)
			}
		}
		out = append(out, u.indexes(ctx, b.named("firestore.index"), f)...)
		out = append(out, u.ttl(ctx, b.named("firestore.ttl"), f)...)
	}
	return append(out, u.rules(ctx, b.named("firestore.rules"), f)...)
}

func (u *firestoreUse) where() string {
	if u.o.Emulator != "" {
		return ", at the emulator " + u.o.Emulator
	}
	return ""
}

// unreached tells why the first question had no answer. What credentials there
// are is another check's.
func (u *firestoreUse) unreached(ctx context.Context, b probe, err error) check {
	e := firestore.Explain(err)
	needy := strings.Join(u.sections, ", ")
	switch {
	case e.Reason == firestore.NoCredentials && u.o.Emulator == "":
		return b.skip("without credentials Firestore cannot be asked: see credentials.google")
	case e.Reason == firestore.Unreachable || ctx.Err() != nil:
		do := "let this machine reach firestore.googleapis.com:443 (firewall, egress settings, HTTPS_PROXY)"
		if u.o.Emulator != "" {
			do = "start the emulator, or unset FIRESTORE_EMULATOR_HOST"
		}
		return b.fails(do, "no answer, which %s needs%s (%s)", needy, u.where(), e.Code)
	}
	text, do := u.explain(e)
	return b.fails(do, "%s; %s needs it", text, needy)
}

// explain says what an answer means and what to do, wherever it was given.
func (u *firestoreUse) explain(e firestore.Explanation) (text, do string) {
	switch e.Reason {
	case firestore.Denied:
		return "the gateway's account may not use the database, or the project has another name (PERMISSION_DENIED)",
			fmt.Sprintf("see that project %s is the right one, and give the account its role: gcloud projects add-iam-policy-binding %s --member=serviceAccount:ACCOUNT --role=%s", u.o.Project, u.o.Project, firestoreRole)
	case firestore.APIDisabled:
		return "Firestore's API is not enabled in the project", "gcloud services enable firestore.googleapis.com --project=" + u.o.Project
	case firestore.NoDatabase:
		return fmt.Sprintf("project %s has no database %s", u.o.Project, u.o.Database),
			fmt.Sprintf("name another one by `database`, or: gcloud firestore databases create --project=%s --database='%s' --location=LOCATION", u.o.Project, u.o.Database)
	case firestore.DatastoreMode:
		return "the database is in Datastore mode, which has another API",
			"make a database in native mode and name it by `database`: gcloud firestore databases create --type=firestore-native --database=NAME --location=LOCATION"
	case firestore.NoCredentials:
		return "the account's token was refused (" + e.Code + ")", "see credentials.google"
	case firestore.Unreachable:
		return "no answer (" + e.Code + ")", "try again; where that lasts, see https://status.cloud.google.com"
	}
	return "Firestore answers " + e.Code, "look the code up at https://cloud.google.com/firestore/docs/understand-error-codes"
}

func (u *firestoreUse) location(ctx context.Context, b probe, f *firestore.Inspector) check {
	where, err := f.Location(ctx)
	if err != nil {
		return b.skip("where it is cannot be told (%s); that takes datastore.databases.getMetadata", firestore.Explain(err).Code)
	}
	return b.pass("in native mode, in %s", where)
}

// try writes and reads as the gateway does.
func (u *firestoreUse) try(ctx context.Context, b probe, f *firestore.Inspector, collection string) (out []check) {
	t := f.Try(ctx, collection)
	b.subject = collection
	write, read := b.named("firestore.write"), b.named("firestore.read")
	if t.Write != nil {
		text, do := u.explain(firestore.Explain(t.Write))
		out = append(out, write.fails(do, "a document in %s could not be written: %s", collection, text))
	} else {
		out = append(out, write.pass("a document in %s can be created and changed", collection))
		if t.Read != nil {
			text, do := u.explain(firestore.Explain(t.Read))
			out = append(out, read.fails(do, "a document in %s could not be read: %s", collection, text))
		} else {
			out = append(out, read.pass("a document in %s can be read", collection))
		}
	}
	if t.Left != "" {
		out = append(out, b.named("firestore.delete").warn("delete it by hand; it does no harm", "the document of this check may still be there: %s", t.Left))
	}
	return out
}

func (u *firestoreUse) indexes(ctx context.Context, b probe, f *firestore.Inspector) (out []check) {
	if u.o.Emulator != "" {
		return []check{b.skip("the emulator answers without indexes")}
	}
	failed := f.Queries(ctx, u.log, u.sessions)
	for _, what := range slices.Sorted(maps.Keys(failed)) {
		e := firestore.Explain(failed[what])
		switch e.Reason {
		case firestore.NoIndex:
			do := "deploy " + firestoreFiles
			if e.Link != "" {
				do += "\nor make this one: " + e.Link
			}
			out = append(out, b.fails(do, "an index is missing for %s", what))
		case firestore.IndexBuilding:
			out = append(out, b.fails("wait until it is built, and run this again "+e.Link, "an index is still being built for %s", what))
		default:
			text, do := u.explain(e)
			out = append(out, b.fails(do, "the query for %s failed: %s", what, text))
		}
	}
	if len(out) == 0 {
		out = append(out, b.pass("every query of the gateway has its index"))
	}
	return out
}

func (u *firestoreUse) ttl(ctx context.Context, b probe, f *firestore.Inspector) (out []check) {
	if len(u.expire) == 0 {
		return nil
	}
	if u.o.Emulator != "" {
		return []check{b.skip("the emulator deletes nothing by itself")}
	}
	var on []string
	for _, collection := range u.expire {
		has, err := f.HasTTL(ctx, collection)
		switch {
		case err != nil:
			return []check{b.warn("gcloud firestore fields ttls list --project="+u.o.Project+" --database='"+u.o.Database+"', or let the account ask (datastore.indexes.get) ",
				"whether TTL policies are on cannot be told (%s): without them documents of %s are kept for ever", firestore.Explain(err).Code, strings.Join(u.expire, ", "))}
		case !has:
			out = append(out, probe{b.id, collection, nil}.warn("deploy "+firestoreFiles+", or: gcloud firestore fields ttls update expireAt --collection-group="+collection+" --enable-ttl --project="+u.o.Project+" --database='"+u.o.Database+"'",
				"no TTL policy on expireAt of %s: its documents are kept for ever", collection))
		default:
			on = append(on, collection)
		}
	}
	if len(out) == 0 {
		out = append(out, b.pass("TTL policies delete what has expired in %s", strings.Join(on, ", ")))
	}
	return out
}

// rules asks as somebody who is not signed in. What somebody may who is, cannot
// be seen from here.
func (u *firestoreUse) rules(ctx context.Context, b probe, f *firestore.Inspector) (out []check) {
	if len(u.collections()) == 0 {
		return nil
	}
	if u.o.Emulator != "" {
		if has, err := f.HasRules(ctx, u.o.Project); err == nil && !has {
			return []check{b.skip("the emulator has no rules, and so keeps no client out")}
		}
	}
	for _, collection := range u.collections() {
		b := probe{b.id, collection, nil}
		may, err := f.ClientMay(ctx, collection)
		if slices.Contains(u.readable, collection) {
			may = slices.DeleteFunc(may, func(what string) bool { return what == "get" || what == "list" })
		}
		switch {
		case len(may) > 0 && slices.Contains(u.readable, collection):
			out = append(out, b.fails("change the database's rules: only service accounts may write what lookups read",
				"anybody may %s documents of %s, by which the policy decides", strings.Join(may, ", "), collection))
		case len(may) > 0:
			out = append(out, b.fails("deploy rules that keep clients out: configs/firestore.rules says which lines", "anybody may %s documents of %s", strings.Join(may, ", "), collection))
		case err != nil:
			out = append(out, b.fails("run it again; where that lasts, read the database's rules by hand", "what clients may do in %s could not be told (%s)", collection, firestore.Explain(err).Code))
		}
	}
	if len(out) == 0 {
		out = append(out, b.pass("who is not signed in gets at nothing in %s; who is signed in cannot be tried from here", strings.Join(u.collections(), ", ")))
	}
	return out
}
