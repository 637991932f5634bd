package s3

import (
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"sidegate/storage/upload"
)

// A field is what the bucket's configuration says of every object that is
// uploaded: a header of a PUT, and of the opening of a multipart upload.
type field struct {
	header, value string
	// form is the field of a form that says the same, with its value.
	form, formValue string
}

const (
	kmsHeader  = "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id"
	tagsHeader = "X-Amz-Tagging"
	metaHeader = "X-Amz-Meta-"
	metaField  = "x-amz-meta-"
	// maxMetadata is the most metadata of one object, names and values, in
	// bytes. https://docs.aws.amazon.com/AmazonS3/latest/userguide/UsingMetadata.html
	maxMetadata = 2048
	maxMetaName = 64
)

var storageClass = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,63}$`)

// checkFixed says what in the configuration of objects no store would take.
func (o *Options) checkFixed() *OptionError {
	switch {
	case o.AES256 && o.KMSKey != "":
		return &OptionError{"sse", "is both AES256 and a KMS key"}
	case strings.ContainsFunc(o.KMSKey, func(r rune) bool { return r <= ' ' || r > '~' }) || len(o.KMSKey) > 2048:
		return &OptionError{"sse.kms_key", "is not a key's id or ARN"}
	case o.StorageClass != "" && !storageClass.MatchString(o.StorageClass):
		return &OptionError{"storage_class", "is not a storage class, such as STANDARD_IA"}
	}
	if err := checkTags(o.Tags); err != nil {
		return err
	}
	size := 0
	for _, name := range slices.Sorted(maps.Keys(o.Metadata)) {
		if !isMetaName(name) {
			return &OptionError{"metadata", fmt.Sprintf("has the name %.70q: names are 1 to %d of a to z, 0 to 9 and -, without x-amz-meta-", name, maxMetaName)}
		}
		if strings.ContainsFunc(o.Metadata[name], isControl) {
			return &OptionError{"metadata." + name, "holds a control character"}
		}
		size += len(name) + len(encodeMeta(o.Metadata[name]))
	}
	if size > maxMetadata {
		return &OptionError{"metadata", fmt.Sprintf("is more than %d bytes", maxMetadata)}
	}
	return nil
}

// checkTags follows
// https://docs.aws.amazon.com/AmazonS3/latest/userguide/object-tagging.html
func checkTags(tags map[string]string) *OptionError {
	if len(tags) > 10 {
		return &OptionError{"tags", "are more than 10"}
	}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		value := tags[name]
		switch {
		case name == "" || utf8.RuneCountInString(name) > 128 || utf8.RuneCountInString(value) > 256:
			return &OptionError{"tags", "have a name that is not 1 to 128 characters, or a value of more than 256"}
		case strings.HasPrefix(strings.ToLower(name), "aws:"):
			return &OptionError{"tags", "have a name that begins with aws:, which are AWS's own"}
		case strings.ContainsFunc(name+value, func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsNumber(r) && !strings.ContainsRune(" +-=._:/@", r)
		}):
			return &OptionError{"tags", fmt.Sprintf("have %.140q: names and values are letters, digits, spaces and + - = . _ : / @", name)}
		}
	}
	return nil
}

// fixedFields are the fields of the configuration, by header.
func (o *Options) fixedFields() []field {
	var out []field
	add := func(header, value string) {
		out = append(out, field{header, value, strings.ToLower(header), value})
	}
	switch {
	case o.KMSKey != "":
		add("X-Amz-Server-Side-Encryption", "aws:kms")
		add(kmsHeader, o.KMSKey)
	case o.AES256:
		add("X-Amz-Server-Side-Encryption", "AES256")
	}
	if o.StorageClass != "" {
		add("X-Amz-Storage-Class", o.StorageClass)
	}
	if len(o.Tags) > 0 {
		out = append(out, field{tagsHeader, tagHeader(o.Tags), "tagging", tagDocument(o.Tags)})
	}
	for _, name := range slices.Sorted(maps.Keys(o.Metadata)) {
		add(metaHeader+headerCase(name), encodeMeta(o.Metadata[name]))
	}
	return out
}

// tagHeader writes tags as the header has them, sorted by name.
func tagHeader(tags map[string]string) string {
	v := url.Values{}
	for name, value := range tags {
		v.Set(name, value)
	}
	return strings.ReplaceAll(v.Encode(), "+", "%20")
}

// tagDocument writes tags as a form has them.
// https://docs.aws.amazon.com/AmazonS3/latest/API/RESTObjectPOST.html
func tagDocument(tags map[string]string) string {
	type tag struct{ Key, Value string }
	doc := struct {
		XMLName xml.Name `xml:"Tagging"`
		Tags    []tag    `xml:"TagSet>Tag"`
	}{}
	for _, name := range slices.Sorted(maps.Keys(tags)) {
		doc.Tags = append(doc.Tags, tag{name, tags[name]})
	}
	text, err := xml.Marshal(doc)
	if err != nil {
		panic(err) // two strings are always XML
	}
	return string(text)
}

// callerFields are the caller's metadata, by name. What the configuration sets
// the caller cannot: it is refused by its name. Errors are [upload.InvalidError].
func (b *Bucket) callerFields(metadata map[string]string) ([]field, error) {
	if len(metadata) == 0 {
		return nil, nil
	}
	invalid := func(format string, args ...any) error {
		return &upload.InvalidError{Field: "metadata", Reason: fmt.Sprintf(format, args...)}
	}
	size := b.metadataSize
	out := make([]field, 0, len(metadata))
	for _, name := range slices.Sorted(maps.Keys(metadata)) {
		if !isMetaName(name) {
			return nil, invalid("the name %.70q is not 1 to %d of a to z, 0 to 9 and -", name, maxMetaName)
		}
		if _, taken := b.metadata[name]; taken {
			return nil, invalid("%q is set by the gateway", name)
		}
		if strings.ContainsFunc(metadata[name], isControl) {
			return nil, invalid("%q holds a control character", name)
		}
		value := encodeMeta(metadata[name])
		if size += len(name) + len(value); size > maxMetadata {
			return nil, invalid("is more than %d bytes as the store counts it", maxMetadata)
		}
		out = append(out, field{metaHeader + headerCase(name), value, metaField + name, value})
	}
	return out, nil
}

func isMetaName(name string) bool {
	if name == "" || len(name) > maxMetaName {
		return false
	}
	for i := range len(name) {
		if c := name[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func isControl(r rune) bool {
	return r < ' ' || r >= 0x7f && r < 0xa0 || r == '\u2028' || r == '\u2029' || r == '\ufffd'
}

// encodeMeta is a value as it goes into a header: printable ASCII as it is,
// all else as one encoded word of RFC 2047, which is how S3 itself shows such
// values. What a header would not carry byte for byte (spaces at its ends and
// doubled ones, which a signature folds) and what only looks encoded is encoded
// too, so that whoever decodes gets exactly the caller's bytes.
func encodeMeta(value string) string {
	plain := !strings.Contains(value, "  ") && !strings.Contains(value, "=?") && strings.TrimSpace(value) == value
	for i := range len(value) {
		plain = plain && value[i] >= ' ' && value[i] <= '~'
	}
	if plain {
		return value
	}
	return "=?UTF-8?B?" + base64.StdEncoding.EncodeToString([]byte(value)) + "?="
}

// headerCase is a metadata name in the form of net/http's header keys.
func headerCase(name string) string {
	return strings.TrimPrefix(http.CanonicalHeaderKey(metaHeader+name), metaHeader)
}
