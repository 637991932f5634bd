package policy

import (
	"mime"
	"strings"
)

// extensions gives the extensions of a media type, the one that keys get
// first. It is a table of its own, so that a key does not depend on the
// machine's mime files.
var extensions = map[string][]string{
	"image/jpeg":                    {".jpg", ".jpeg"},
	"image/png":                     {".png"},
	"image/gif":                     {".gif"},
	"image/webp":                    {".webp"},
	"image/avif":                    {".avif"},
	"image/heic":                    {".heic"},
	"image/heif":                    {".heif"},
	"image/bmp":                     {".bmp"},
	"image/tiff":                    {".tiff", ".tif"},
	"image/svg+xml":                 {".svg"},
	"video/mp4":                     {".mp4", ".m4v"},
	"video/quicktime":               {".mov"},
	"video/webm":                    {".webm"},
	"video/x-matroska":              {".mkv"},
	"audio/mpeg":                    {".mp3"},
	"audio/mp4":                     {".m4a"},
	"audio/aac":                     {".aac"},
	"audio/ogg":                     {".ogg", ".oga"},
	"audio/wav":                     {".wav"},
	"audio/webm":                    {".weba"},
	"audio/flac":                    {".flac"},
	"application/pdf":               {".pdf"},
	"application/json":              {".json"},
	"application/xml":               {".xml"},
	"application/zip":               {".zip"},
	"application/gzip":              {".gz"},
	"application/x-tar":             {".tar"},
	"application/x-7z-compressed":   {".7z"},
	"application/rtf":               {".rtf"},
	"application/msword":            {".doc"},
	"application/vnd.ms-excel":      {".xls"},
	"application/vnd.ms-powerpoint": {".ppt"},
	"application/vnd.openxmlformats-officedocument.wordprocessingml.document":   {".docx"},
	"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet":         {".xlsx"},
	"application/vnd.openxmlformats-officedocument.presentationml.presentation": {".pptx"},
	"application/octet-stream": {".bin"},
	"text/plain":               {".txt"},
	"text/csv":                 {".csv"},
	"text/markdown":            {".md"},
	"text/calendar":            {".ics"},
	"text/html":                {".html", ".htm"},
}

// Bounds of a content type as callers send it.
const (
	minContentType = 3
	maxContentType = 200
)

// mediaType is the type/subtype of a content type in lower case, "" where it
// is none that can be signed.
func mediaType(contentType string) string {
	if len(contentType) < minContentType || len(contentType) > maxContentType {
		return ""
	}
	for i := range len(contentType) {
		if c := contentType[i]; c < 0x20 || c > 0x7e {
			return ""
		}
	}
	if contentType != strings.TrimSpace(contentType) || strings.Contains(contentType, "  ") {
		return "" // signatures and stores fold spaces, and then it would not match
	}
	essence, _, err := mime.ParseMediaType(contentType)
	if err != nil || strings.Count(essence, "/") != 1 || strings.Contains(essence, "*") {
		return ""
	}
	return essence
}

// scriptable reports whether a browser that opens such an object may run what
// it holds: documents, every XML (it can hold XHTML), and the types whose
// content browsers guess (WHATWG MIME Sniffing, 7.1). They need to be named.
func scriptable(media string) bool {
	switch media {
	case "text/html", "text/xml", "text/xsl", "application/xml", "multipart/x-mixed-replace",
		"unknown/unknown", "application/unknown":
		return true
	}
	return strings.HasSuffix(media, "+xml")
}

// admits reports whether one of the policy's types takes the media type. No
// list at all takes all but what a browser would run.
func admits(types []string, media string) bool {
	if len(types) == 0 {
		return !scriptable(media)
	}
	for _, t := range types {
		prefix, wild := strings.CutSuffix(t, "*")
		switch {
		case t == media || t == "*/*":
			return true
		case wild && strings.HasPrefix(media, prefix) && !scriptable(media):
			return true
		}
	}
	return false
}
