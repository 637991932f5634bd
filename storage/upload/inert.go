package upload

import "strings"

// active are the endings of names whose usual types a browser runs, or shows
// with what they bring along: HTML, SVG and all other XML, scripts.
var active = map[string]bool{
	"htm": true, "html": true, "shtml": true, "xhtml": true, "xht": true, "mht": true, "mhtml": true, "hta": true, "htc": true,
	"svg": true, "svgz": true, "xml": true, "xsl": true, "xslt": true, "xsd": true, "rdf": true, "rss": true, "atom": true,
	"mathml": true, "mml": true, "js": true, "mjs": true, "cjs": true, "swf": true, "wasm": true,
}

// inertType is the type that a download of key is answered with instead of the
// object's own: bytes, where the key's name says that a browser would run it.
// Empty: the object's own.
func inertType(key string) string {
	name := filename(key)
	dot := strings.LastIndexByte(name, '.')
	if dot < 0 || !active[strings.ToLower(strings.TrimRight(name[dot+1:], " "))] {
		return ""
	}
	return "application/octet-stream"
}
