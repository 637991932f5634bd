package proxy

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
)

// readQuery reads the query of a served route: its names are known and stand
// once each. set is told each name with its value; false: it does not know it.
func readQuery(query string, set func(name, value string) (*problem, bool)) *problem {
	if query == "" {
		return nil
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return malformed("the query is malformed")
	}
	for _, name := range slices.Sorted(maps.Keys(values)) { // of two mistakes always the same is told
		all := values[name]
		pr, known := set(name, all[0])
		switch {
		case !known:
			return unknownMember(name)
		case len(all) != 1:
			return wrongField(name, name+" stands once")
		case pr != nil:
			return pr
		}
	}
	return nil
}

// maxPageToken is the longest token of a page, in bytes: a store's are as long as
// a key and some more.
const maxPageToken = 4096

// A listPage is which part of a list is asked for.
type listPage struct {
	size  int
	token string
}

func (g *listPage) set(name, value string, most int) (*problem, bool) {
	switch name {
	case "pageSize":
		n, err := strconv.Atoi(value)
		if err != nil || n < 1 || n > most {
			return wrongField(name, "pageSize is 1 to "+strconv.Itoa(most)), true
		}
		g.size = n
		return nil, true
	case "pageToken":
		if len(value) > maxPageToken {
			return wrongField(name, "pageToken is none of this list's"), true
		}
		g.token = value
		return nil, true
	}
	return nil, false
}

func readSeconds(name, value string, to **int64) *problem {
	n, err := strconv.ParseInt(value, 10, 32)
	if err != nil {
		return wrongField(name, name+" is one whole number")
	}
	*to = &n
	return nil
}
