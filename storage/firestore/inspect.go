package firestore

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	apiv1 "cloud.google.com/go/firestore/apiv1"
	admin "cloud.google.com/go/firestore/apiv1/admin"
	"cloud.google.com/go/firestore/apiv1/admin/adminpb"
	"cloud.google.com/go/firestore/apiv1/firestorepb"
	"google.golang.org/api/iterator"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"sidegate/storage/audit"
)

// An Inspector looks at a database before a gateway needs it: it asks what
// gateways ask, each once, and what none asks. It is safe for concurrent use.
// Its errors are for Explain; their texts can hold what a server said.
type Inspector struct {
	client   *Client
	anyone   *apiv1.Client               // without credentials, as an app's client
	admin    *admin.FirestoreAdminClient // nil: an emulator, which has none
	emulator string
}

// Inspect connects as Connect does, three times: as a gateway, as a client of
// an app that is not signed in, and to the database's administration.
func Inspect(ctx context.Context, o Options) (*Inspector, error) {
	client, err := Connect(ctx, o)
	if err != nil {
		return nil, err
	}
	i := &Inspector{client: client, emulator: o.Emulator}
	*client.api.CallOptions = apiv1.CallOptions{} // what fails once is what is to be told
	opts := []option.ClientOption{option.WithoutAuthentication()}
	switch {
	case o.conn != nil:
		opts = append(opts, option.WithGRPCConn(o.conn))
	case o.Emulator != "":
		conn, err := grpc.NewClient(o.Emulator, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, errors.Join(err, i.Close())
		}
		opts = append(opts, option.WithGRPCConn(conn))
	default:
		var as []option.ClientOption
		if o.Credentials != nil {
			as = append(as, option.WithAuthCredentials(o.Credentials))
		}
		if i.admin, err = admin.NewFirestoreAdminClient(ctx, as...); err != nil {
			return nil, errors.Join(err, i.Close())
		}
		*i.admin.CallOptions = admin.FirestoreAdminCallOptions{}
	}
	if i.anyone, err = apiv1.NewClient(ctx, opts...); err != nil {
		return nil, errors.Join(err, i.Close())
	}
	*i.anyone.CallOptions = apiv1.CallOptions{}
	return i, nil
}

// Close ends the connections.
func (i *Inspector) Close() error {
	err := i.client.Close()
	if i.anyone != nil {
		err = errors.Join(err, i.anyone.Close())
	}
	if i.admin != nil {
		err = errors.Join(err, i.admin.Close())
	}
	return err
}

// Reach reads a document, whether or not it exists.
func (i *Inspector) Reach(ctx context.Context) error {
	_, err := NewDocuments(i.client).ReadDocument(ctx, "sidegateCheck/reach", nil)
	return err
}

// checkName is the name of a document that is nobody's: gateways find theirs by
// fields that it does not have.
func (i *Inspector) checkName(collection string) string {
	return i.client.documents() + "/" + collection + "/sidegate-check-" + rand.Text()
}

// checkDocument deletes itself in the end where a TTL policy is on.
func checkDocument(name string) *firestorepb.Document {
	return &firestorepb.Document{Name: name, Fields: map[string]*firestorepb.Value{"expireAt": instant(time.Now().Add(time.Hour))}}
}

// A Trial is what came of a document that was tried.
type Trial struct {
	Write, Read error
	Left        string // the document's name, where it may still be there
}

// Try creates a document in the collection, changes it, reads it, and deletes
// it again, also after ctx has ended.
func (i *Inspector) Try(ctx context.Context, collection string) (t Trial) {
	name := i.checkName(collection)
	t.Write = i.write(ctx, name)
	if t.Write == nil {
		var doc *firestorepb.Document
		if doc, t.Read = i.client.Audit(collection, 0).head(ctx, name); t.Read == nil && doc == nil {
			t.Read = errors.New("the document that was written is not there")
		}
	}
	if c := status.Code(t.Write); t.Write == nil || c != codes.PermissionDenied && c != codes.Unauthenticated {
		if i.remove(ctx, name) != nil {
			t.Left = name
		}
	}
	return t
}

// write creates as the audit log does, and changes as sessions do.
func (i *Inspector) write(ctx context.Context, name string) error {
	create := &firestorepb.Write{Operation: &firestorepb.Write_Update{Update: checkDocument(name)}, CurrentDocument: absent()}
	resp, err := i.client.api.BatchWrite(ctx, &firestorepb.BatchWriteRequest{Database: i.client.database, Writes: []*firestorepb.Write{create}})
	if err != nil {
		return err
	}
	if len(resp.Status) != 1 || len(resp.WriteResults) != 1 {
		return fmt.Errorf("firestore answered for %d writes of 1", len(resp.Status))
	}
	if err := status.ErrorProto(resp.Status[0]); err != nil {
		return err
	}
	_, err = i.client.api.Commit(ctx, &firestorepb.CommitRequest{Database: i.client.database, Writes: []*firestorepb.Write{
		{Operation: &firestorepb.Write_Update{Update: checkDocument(name)}, CurrentDocument: unchanged(resp.WriteResults[0].UpdateTime)}}})
	return err
}

// removeTime is for undoing what was done, after the time for doing it is over.
const removeTime = 5 * time.Second

func (i *Inspector) remove(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeTime)
	defer cancel()
	_, err := i.client.api.Commit(ctx, &firestorepb.CommitRequest{Database: i.client.database, Writes: []*firestorepb.Write{
		{Operation: &firestorepb.Write_Delete{Delete: name}}}})
	return err
}

// Queries asks one of each kind of query that gateways send, for one document,
// and gives those that failed, by what they are for. A collection that is empty
// is not asked. The emulator answers without indexes.
func (i *Inspector) Queries(ctx context.Context, log, sessions string) map[string]error {
	var mu sync.Mutex
	failed := map[string]error{}
	var all sync.WaitGroup
	for what, q := range i.client.kinds(log, sessions) {
		all.Go(func() {
			if _, err := i.client.runQuery(ctx, q); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed[what] = err
			}
		})
	}
	all.Wait()
	return failed
}

// kinds are queries of each kind, by what they are for: no index of
// configs/firestore.indexes.json is needed by none of them.
func (c *Client) kinds(log, sessions string) map[string]*firestorepb.StructuredQuery {
	kinds := map[string]*firestorepb.StructuredQuery{}
	if log != "" {
		a := c.Audit(log, 0)
		for what, f := range map[string]audit.Filter{
			"newest events":          {},
			"events of a user":       {UID: []string{"x"}},
			"events about an object": {Key: []string{"x"}},
			"events of a route":      {Route: []string{"x"}, Effect: []string{"allow"}},
		} {
			kinds[log+": "+what] = (&newestFirst{a: a, f: &f, equal: branches(&f)[0], size: 1}).query()
		}
		kinds[log+": events of a request"] = a.ofRecords([]string{"x"})
		kinds[log+": events in their order"] = (&shard{a: a}).query(1)
	}
	if sessions != "" {
		s := &Sessions{client: c, collection: sessions}
		kinds[sessions+": a user's uploads"] = s.listQuery("x", "x", 1)
		kinds[sessions+": an upload by its key"] = s.findQuery("x", "x", "x")
		kinds[sessions+": uploads that are due"] = s.dueQuery(0, time.Now(), 1)
	}
	return kinds
}

// HasTTL says whether a TTL policy is on for the field expireAt of a
// collection's documents, or is being made. Not for an emulator.
func (i *Inspector) HasTTL(ctx context.Context, collection string) (bool, error) {
	f, err := i.admin.GetField(ctx, &adminpb.GetFieldRequest{Name: i.client.database + "/collectionGroups/" + collection + "/fields/expireAt"})
	if err != nil {
		return false, err
	}
	state := f.GetTtlConfig().GetState()
	return state == adminpb.Field_TtlConfig_ACTIVE || state == adminpb.Field_TtlConfig_CREATING, nil
}

// Location is where the database is. Not for an emulator.
func (i *Inspector) Location(ctx context.Context) (string, error) {
	d, err := i.admin.GetDatabase(ctx, &adminpb.GetDatabaseRequest{Name: i.client.database})
	return d.GetLocationId(), err
}

// ClientMay says what a client that is not signed in may do in the collection:
// of get, list, create, update and delete. Nothing is read but names and nothing
// is changed; a document that could be created is deleted again.
func (i *Inspector) ClientMay(ctx context.Context, collection string) (may []string, err error) {
	name, missing := i.checkName(collection), i.checkName(collection)
	names := &firestorepb.DocumentMask{FieldPaths: []string{"__name__"}}
	there := &firestorepb.Precondition{ConditionType: &firestorepb.Precondition_Exists{Exists: true}}
	tries := map[string]func() error{
		"get": func() error {
			_, err := i.anyone.GetDocument(ctx, &firestorepb.GetDocumentRequest{Name: missing, Mask: names})
			return err
		},
		"list": func() error {
			_, err := i.anyone.ListDocuments(ctx, &firestorepb.ListDocumentsRequest{
				Parent: i.client.documents(), CollectionId: collection, PageSize: 1, Mask: names}).Next()
			return err
		},
		"create": func() error {
			return i.anyoneWrites(ctx, &firestorepb.Write{
				Operation: &firestorepb.Write_Update{Update: checkDocument(name)}, CurrentDocument: absent()})
		},
		"update": func() error {
			return i.anyoneWrites(ctx, &firestorepb.Write{
				Operation: &firestorepb.Write_Update{Update: checkDocument(missing)}, CurrentDocument: there})
		},
		"delete": func() error {
			return i.anyoneWrites(ctx, &firestorepb.Write{
				Operation: &firestorepb.Write_Delete{Delete: missing}, CurrentDocument: there})
		},
	}
	created := false
	for what, try := range tries {
		e := try()
		denied := status.Code(e) == codes.PermissionDenied || status.Code(e) == codes.Unauthenticated
		created = created || what == "create" && !denied // as far as is known: the answer may be lost
		switch {
		case e == nil, e == iterator.Done, status.Code(e) == codes.NotFound, status.Code(e) == codes.FailedPrecondition:
			may = append(may, what)
		case !denied:
			err = e
		}
	}
	if created {
		err = errors.Join(err, i.remove(ctx, name))
	}
	slices.Sort(may)
	return may, err
}

func (i *Inspector) anyoneWrites(ctx context.Context, w *firestorepb.Write) error {
	_, err := i.anyone.Commit(ctx, &firestorepb.CommitRequest{Database: i.client.database, Writes: []*firestorepb.Write{w}})
	return err
}

// HasRules says whether rules were loaded into the emulator: one without any
// lets everybody do everything.
func (i *Inspector) HasRules(ctx context.Context, project string) (bool, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+i.emulator+"/emulator/v1/projects/"+project+":securityRules", nil)
	if err != nil {
		return false, err
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	var got struct {
		Rules struct{ Files []struct{ Name string } }
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&got); err != nil || resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("the emulator's rules: status %d: %w", resp.StatusCode, err)
	}
	return len(got.Rules.Files) > 0 && got.Rules.Files[0].Name != "OPEN_RULES", nil
}
