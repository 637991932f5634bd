// Package indextest is for the tests that hold queries against a
// firestore.indexes.json: the emulator answers without any index, and
// production does not.
package indextest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"cloud.google.com/go/firestore/apiv1/firestorepb"
)

// A File is a firestore.indexes.json
// (firebase.google.com/docs/reference/firestore/indexes).
type File struct {
	Indexes        []Index
	FieldOverrides []FieldOverride
}

// An Index is a composite one.
type Index struct {
	CollectionGroup, QueryScope string
	Fields                      []struct{ FieldPath, Order, ArrayConfig string }
}

// A FieldOverride says which indexes a field has by itself, in place of those
// that Firestore makes of every field.
type FieldOverride struct {
	CollectionGroup, FieldPath string
	TTL                        bool
	Indexes                    []struct{ Order, ArrayConfig, QueryScope string }
}

// Read reads a file. What is not known here is an error: it could matter.
func Read(name string) (*File, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	f := &File{}
	if err := d.Decode(f); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return f, nil
}

// Check is nil where the file has the index that a query cannot do without. A
// query whose index is not known here is an error as well.
func (f *File) Check(q *firestorepb.StructuredQuery) error {
	n, err := needOf(q)
	if err != nil {
		return err
	}
	if !f.covers(n) {
		return fmt.Errorf("there is no index for %s", n)
	}
	return nil
}

// Unneeded says what of the file none of the queries needs: an index, the
// direction of its last field, or the index that an override leaves to a field.
// All of the queries must pass Check.
func (f *File) Unneeded(queries []*firestorepb.StructuredQuery) (list []string) {
	all := func(less File) bool {
		return !slices.ContainsFunc(queries, func(q *firestorepb.StructuredQuery) bool { return less.Check(q) != nil })
	}
	for i, x := range f.Indexes {
		less := *f
		less.Indexes = slices.Delete(slices.Clone(f.Indexes), i, i+1)
		if all(less) {
			list = append(list, fmt.Sprintf("the index %v", x))
			continue
		}
		less.Indexes = slices.Clone(f.Indexes)
		less.Indexes[i].Fields = slices.Clone(x.Fields)
		last := &less.Indexes[i].Fields[len(x.Fields)-1]
		last.Order = map[string]string{"ASCENDING": "DESCENDING", "DESCENDING": "ASCENDING"}[last.Order]
		if all(less) {
			list = append(list, fmt.Sprintf("the direction of the index %v", x))
		}
	}
	for i, o := range f.FieldOverrides {
		if len(o.Indexes) > 0 {
			less := *f
			less.FieldOverrides = slices.Clone(f.FieldOverrides)
			less.FieldOverrides[i].Indexes = nil
			if all(less) {
				list = append(list, fmt.Sprintf("the index of %s.%s", o.CollectionGroup, o.FieldPath))
			}
		}
	}
	return list
}

// A need is the index that a query cannot do without in production. The rules
// are Firestore's (firebase.google.com/docs/firestore/query-data/index-overview).
type need struct {
	collection string
	equal      []string // in any order; with :CONTAINS where an array must contain
	order      []string // behind them: field and direction
}

func (n need) String() string {
	return fmt.Sprintf("%s: %s, then %s", n.collection, strings.Join(n.equal, "+"), strings.Join(n.order, " "))
}

// needOf derives it. It fails at what no query asks so far, rather than to
// guess what that would need.
func needOf(q *firestorepb.StructuredQuery) (need, error) {
	n := need{}
	if len(q.From) != 1 || q.From[0].AllDescendants {
		return n, fmt.Errorf("not of one collection: %v", q.From)
	}
	n.collection = q.From[0].CollectionId
	ranges, err := n.filters(q.Where)
	if err != nil {
		return n, err
	}
	direction := "ASCENDING"
	for _, o := range q.OrderBy {
		direction = o.Direction.String()
		n.order = append(n.order, o.Field.FieldPath+":"+direction)
	}
	for _, field := range ranges {
		if len(n.order) == 0 || !strings.HasPrefix(n.order[0], field+":") {
			return n, fmt.Errorf("a range of %s, which is not first in the order %v", field, n.order)
		}
	}
	// Every index ends with the name, in the direction of what is before it.
	if last := len(n.order) - 1; last >= 0 && n.order[last] == "__name__:"+direction &&
		(last == 0 && direction == "ASCENDING" || last > 0 && strings.HasSuffix(n.order[last-1], ":"+direction)) {
		n.order = n.order[:last]
	}
	slices.Sort(n.equal)
	return n, nil
}

// filters notes what must be equal, and gives the fields of ranges.
func (n *need) filters(f *firestorepb.StructuredQuery_Filter) (ranges []string, err error) {
	if f == nil {
		return nil, nil
	}
	if c := f.GetCompositeFilter(); c != nil && c.Op == firestorepb.StructuredQuery_CompositeFilter_AND {
		for _, sub := range c.Filters {
			more, err := n.filters(sub)
			if err != nil {
				return nil, err
			}
			ranges = append(ranges, more...)
		}
		return ranges, nil
	}
	x := f.GetFieldFilter()
	switch x.GetOp() {
	case firestorepb.StructuredQuery_FieldFilter_EQUAL, firestorepb.StructuredQuery_FieldFilter_IN:
		n.equal = append(n.equal, x.Field.FieldPath)
	case firestorepb.StructuredQuery_FieldFilter_ARRAY_CONTAINS:
		n.equal = append(n.equal, x.Field.FieldPath+":CONTAINS")
	case firestorepb.StructuredQuery_FieldFilter_LESS_THAN, firestorepb.StructuredQuery_FieldFilter_LESS_THAN_OR_EQUAL, firestorepb.StructuredQuery_FieldFilter_GREATER_THAN_OR_EQUAL:
		return []string{x.Field.FieldPath}, nil
	default:
		return nil, fmt.Errorf("a filter whose index is not known here: %v", f)
	}
	return nil, nil
}

func (f *File) covers(n need) bool {
	switch len(n.equal) + len(n.order) {
	case 0:
		return true // by name alone, as documents are stored
	case 1:
		return f.single(n)
	}
	return slices.ContainsFunc(f.Indexes, func(x Index) bool {
		if x.CollectionGroup != n.collection || x.QueryScope != "COLLECTION" || len(x.Fields) != len(n.equal)+len(n.order) {
			return false
		}
		var equal, order []string
		for i, field := range x.Fields {
			switch {
			case i >= len(n.equal):
				order = append(order, field.FieldPath+":"+field.Order)
			case field.ArrayConfig != "":
				equal = append(equal, field.FieldPath+":"+field.ArrayConfig)
			default:
				equal = append(equal, field.FieldPath)
			}
		}
		slices.Sort(equal)
		return slices.Equal(equal, n.equal) && slices.Equal(order, n.order)
	})
}

// single: Firestore indexes each field by itself, unless an override says
// otherwise.
func (f *File) single(n need) bool {
	field, how := "", ""
	if len(n.equal) == 1 {
		field, how, _ = strings.Cut(n.equal[0], ":")
	} else {
		field, how, _ = strings.Cut(n.order[0], ":")
	}
	for _, o := range f.FieldOverrides {
		if o.CollectionGroup == n.collection && o.FieldPath == field {
			for _, x := range o.Indexes {
				if x.QueryScope == "COLLECTION" && (how == "" && x.Order != "" || how != "" && (x.Order == how || x.ArrayConfig == how)) {
					return true
				}
			}
			return false
		}
	}
	return true
}
