package proxy

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"sidegate/policy"
	"sidegate/storage/upload"
)

// A uppyOp is one of the calls that Uppy's S3 clients make. The zero uppyOp is
// none.
type uppyOp uint8

const (
	uppyParams   uppyOp = iota + 1 // one URL or form for the whole file
	uppyCreate                     // opens a multipart upload
	uppyList                       // what has arrived of it
	uppyPart                       // a URL for one part
	uppyBatch                      // URLs for many parts
	uppyComplete                   // makes the object of its parts
	uppyAbort                      // gives it up
	uppySTS                        // credentials for the browser, which nobody gets
	uppyConfirm                    // ours: the page says that the object is there
	uppySign                       // signRequest of version 6; becomes one of those below

	uppySignPut
	uppySignCreate
	uppySignPart
	uppySignList
	uppySignComplete
	uppySignAbort
)

const (
	// maxFilename is the longest name of a file, in bytes; it makes no key.
	maxFilename = 1024
	// maxUploadID is the longest id of a store's multipart upload that is looked
	// at, in bytes.
	maxUploadID = 1024
	// maxKeySought is the longest key that is looked for, in bytes.
	maxKeySought = 1024

	defaultContentType = "application/octet-stream" // as Uppy and Companion have it
)

// A uppyCall is what a client of Uppy asks for, read once and bounded. Nothing in
// it is believed: keys and ids are compared with the session's.
type uppyCall struct {
	op       uppyOp
	session  string // Companion's uploadId: the id of our session
	uploadID string // the store's own, where the client talks S3 itself
	key      string
	upload   policy.UploadRequest
	parts    []upload.PartRequest // to sign
	whole    []upload.Part        // that the object is made of
}

// begins reports whether the call makes a session.
func (c *uppyCall) begins() bool {
	switch c.op {
	case uppyParams, uppyCreate, uppySignPut, uppySignCreate:
		return true
	}
	return false
}

// readUppy reads a call from the path's rest below the route, the query and the
// body, which it reads where the call has one. What could be read before a mistake
// is given with it.
func readUppy(method, rest, query string, body func(limit int64) ([]byte, *problem)) (c uppyCall, pr *problem) {
	number, pr := c.readPath(method, rest)
	if pr != nil {
		return c, pr
	}
	if c.op == uppySTS {
		return c, &problem{status: http.StatusBadRequest, code: codeBadRequest, detail: "no credentials are given to browsers here: let each request be signed"}
	}
	if c.op == uppyPart {
		n, ok := readPartNumber(number)
		if !ok {
			return c, wrongField("partNumber", "partNumber is 1 to "+strconv.Itoa(upload.MaxParts))
		}
		c.parts = partsOf(n)
	}
	if pr := c.readQuery(query); pr != nil {
		return c, pr
	}
	limit, read := int64(maxRequest), c.readCreate
	switch c.op {
	case uppyCreate:
	case uppySign:
		read = c.readSign
	case uppyComplete:
		limit, read = maxPartsComplete, c.readCompletion
	default:
		return c, nil
	}
	data, pr := body(limit)
	if pr != nil {
		return c, pr
	}
	return c, read(data)
}

// readPath tells the call by its path and method; last is a part's number, as it
// was sent.
func (c *uppyCall) readPath(method, rest string) (last string, pr *problem) {
	segments := strings.Split(rest, "/")
	allowed := map[string]uppyOp{}
	switch {
	case rest == "params":
		allowed[http.MethodGet] = uppyParams
	case rest == "sts":
		allowed[http.MethodGet] = uppySTS
	case rest == "sign":
		allowed[http.MethodPost] = uppySign
	case rest == "confirm":
		allowed[http.MethodPost] = uppyConfirm
	case rest == "multipart":
		allowed[http.MethodPost] = uppyCreate
	case segments[0] != "multipart" || segments[1] == "":
	case len(segments) == 2:
		allowed[http.MethodGet], allowed[http.MethodDelete] = uppyList, uppyAbort
	case len(segments) != 3 || segments[2] == "":
	case segments[2] == "batch":
		allowed[http.MethodGet] = uppyBatch
	case segments[2] == "complete":
		allowed[http.MethodPost] = uppyComplete
	default:
		allowed[http.MethodGet] = uppyPart
	}
	if len(allowed) == 0 {
		return "", &problem{status: http.StatusNotFound, code: codeNoRoute, detail: "nothing is here"}
	}
	op, ok := allowed[method]
	if !ok {
		names := []string{}
		for name := range allowed {
			names = append(names, name)
		}
		slices.Sort(names)
		return "", &problem{status: http.StatusMethodNotAllowed, code: codeMethod, detail: "the method is not allowed here", allow: names}
	}
	c.op = op
	if len(segments) > 1 {
		c.session = segments[1]
	}
	return segments[len(segments)-1], nil
}

// readQuery reads the query as a form: one client sends %20 for a space, the
// other one +.
func (c *uppyCall) readQuery(query string) *problem {
	var filename string
	pr := readQuery(query, func(name, value string) (*problem, bool) {
		if c.op == uppyParams {
			if name == "filename" {
				filename = value
				return nil, true
			}
			return c.setParameter(name, value)
		}
		switch {
		case name == "partNumbers" && c.op == uppyBatch:
			return c.setNumbers(value), true
		case name == "key" && c.op != uppyCreate && c.op != uppySign:
			return c.setKey(value), true
		}
		return nil, false
	})
	switch {
	case pr != nil:
		return pr
	case c.op == uppyParams:
		return c.checkFile(filename)
	case c.op == uppyCreate, c.op == uppySign:
		return nil
	case c.key == "":
		return wrongField("key", "key is needed here: that of the upload")
	case c.op == uppyBatch && len(c.parts) == 0:
		return wrongField("partNumbers", "partNumbers is needed here")
	}
	return nil
}

// setParameter takes a parameter of params.
func (c *uppyCall) setParameter(name, value string) (pr *problem, known bool) {
	switch name {
	case "type":
		c.upload.ContentType = value
		return nil, true
	case "size":
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return wrongField(name, name+" is a whole number"), true
		}
		c.upload.Size = &n
		return nil, true
	}
	if member, ok := strings.CutPrefix(name, "metadata["); ok && strings.HasSuffix(member, "]") {
		c.setMetadata(strings.TrimSuffix(member, "]"), value)
		return nil, true
	}
	return nil, false
}

// checkFile holds what Companion asks of a file: it must have a name, and may
// have a type.
func (c *uppyCall) checkFile(filename string) *problem {
	if filename == "" || len(filename) > maxFilename {
		return wrongField("filename", "filename is needed here, of at most "+strconv.Itoa(maxFilename)+" bytes")
	}
	if c.upload.ContentType == "" {
		c.upload.ContentType = defaultContentType
	}
	return nil
}

func (c *uppyCall) setKey(key string) *problem {
	if len(key) > maxKeySought {
		return wrongField("key", "key is longer than a key can be")
	}
	c.key = key
	return nil
}

func (c *uppyCall) setMetadata(name, value string) {
	if c.upload.Metadata == nil {
		c.upload.Metadata = map[string]string{}
	}
	c.upload.Metadata[name] = value
}

// keepMetadata drops what the policy does not list: Uppy sends all that it knows
// of a file, unasked. Spaces around a value, which a file's name may have, are no
// reason to refuse the file.
func (c *uppyCall) keepMetadata(listed []string) {
	maps.DeleteFunc(c.upload.Metadata, func(name, _ string) bool { return !slices.Contains(listed, name) })
	for name, value := range c.upload.Metadata {
		c.upload.Metadata[name] = strings.TrimSpace(value)
	}
}

func (c *uppyCall) setNumbers(list string) *problem {
	wrong := wrongField("partNumbers", fmt.Sprintf("partNumbers are 1 to %d different numbers with commas between them, each 1 to %d", maxSignedParts, upload.MaxParts))
	if strings.Count(list, ",") >= maxSignedParts {
		return wrong
	}
	seen := map[int]bool{}
	for text := range strings.SplitSeq(list, ",") {
		n, ok := readPartNumber(text)
		if !ok || seen[n] {
			return wrong
		}
		seen[n] = true
		c.parts = append(c.parts, partsOf(n)...)
	}
	return nil
}

// partsOf asks for a part of which nothing is known but its number.
func partsOf(n int) []upload.PartRequest { return []upload.PartRequest{{Number: n, Size: -1}} }

// readPartNumber reads a number in its one spelling.
func readPartNumber(text string) (int, bool) {
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 1 && n <= upload.MaxParts && strconv.Itoa(n) == text
}

// readCreate reads {"filename", "type", "metadata"}, and "size", which Uppy does
// not send and a page may.
func (c *uppyCall) readCreate(data []byte) *problem {
	var filename string
	pr := readJSON(data, func(j *jsonReader, name string) *problem {
		switch name {
		case "filename":
			return j.text(name, &filename)
		case "type":
			return j.text(name, &c.upload.ContentType)
		case "size":
			return j.number(name, &c.upload.Size)
		case "metadata":
			return j.object(func(name string) *problem { return c.readMetadata(j, name) })
		}
		return unknownMember(name)
	})
	if pr != nil {
		return pr
	}
	return c.checkFile(filename)
}

// readMetadata takes texts, numbers and booleans. Version 6 sends what it knows
// of a file as it is, nulls and objects too: those are no metadata.
func (c *uppyCall) readMetadata(j *jsonReader, name string) *problem {
	if j.Skip() == '"' {
		text, err := j.String()
		if err != nil {
			return badJSON()
		}
		c.setMetadata(name, text)
		return nil
	}
	raw, err := j.Raw()
	if err != nil {
		return badJSON()
	}
	if first := raw[0]; first != '{' && first != '[' && first != 'n' {
		c.setMetadata(name, raw)
	}
	return nil
}

// readCompletion reads {"parts": [{"PartNumber", "ETag"}]}.
func (c *uppyCall) readCompletion(data []byte) (pr *problem) {
	c.whole, pr = readPartList(data, "PartNumber", "ETag")
	if pr == nil && len(c.whole) == 0 {
		return wrongField("parts", "parts is a list of 1 to "+strconv.Itoa(upload.MaxParts))
	}
	return pr
}

// readSign reads what version 6 hands to its signRequest, and what a page may add
// to it: the type of what is created, and the size.
func (c *uppyCall) readSign(data []byte) *problem {
	var method string
	var number *int64
	pr := readJSON(data, func(j *jsonReader, name string) *problem {
		switch name {
		case "method":
			return j.text(name, &method)
		case "key":
			return j.text(name, &c.key)
		case "uploadId":
			return j.text(name, &c.uploadID)
		case "partNumber":
			return j.number(name, &number)
		case "contentType":
			return j.text(name, &c.upload.ContentType)
		case "size":
			return j.number(name, &c.upload.Size)
		case "expiresIn":
			return j.number(name, &c.upload.Expires)
		}
		return unknownMember(name)
	})
	if pr == nil {
		pr = c.setKey(c.key)
	}
	if pr != nil {
		return pr
	}
	return c.tellSigned(method, number)
}

// tellSigned finds which of S3's calls is to be signed.
func (c *uppyCall) tellSigned(method string, number *int64) *problem {
	if c.key == "" {
		return wrongField("key", "key is needed here")
	}
	if !visibleASCII(c.uploadID) || len(c.uploadID) > maxUploadID {
		return wrongField("uploadId", "uploadId is none of a store's")
	}
	named := c.uploadID != ""
	switch {
	case method == http.MethodPut && !named && number == nil:
		c.op = uppySignPut
	case method == http.MethodPost && !named && number == nil:
		c.op = uppySignCreate
	case method == http.MethodPut && named && number != nil:
		if *number < 1 || *number > upload.MaxParts {
			return wrongField("partNumber", "partNumber is 1 to "+strconv.Itoa(upload.MaxParts))
		}
		c.op, c.parts = uppySignPart, partsOf(int(*number))
	case method == http.MethodPost && named && number == nil:
		c.op = uppySignComplete
	case method == http.MethodGet && named && number == nil:
		c.op = uppySignList
	case method == http.MethodDelete && named && number == nil:
		c.op = uppySignAbort
	default: // the deletion of an object too, which has a route of its own
		return wrongField("method", "no such request is signed here")
	}
	if c.begins() && c.upload.ContentType == "" {
		c.upload.ContentType = defaultContentType
	}
	return nil
}
