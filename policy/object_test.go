package policy

import (
	"strings"
	"testing"
	"time"
)

func ptr(n int64) *int64 { return &n }

const goodSum = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="

// objectOf loads an upload route with these object keys.
func objectOf(t *testing.T, keys string) *Object {
	t.Helper()
	p := mustLoad(t, header+`  - {id: up, path: /up, methods: [POST], serve: presign_upload, allow: [{who: [users]}], object: {key: "u/${uuid}"`+keys+`}}`)
	return p.Routes[0].Object
}

func TestObjectDefaults(t *testing.T) {
	o := objectOf(t, "")
	if o.Bucket != "default" || o.MaxBytes != 0 || o.NeedChecksum != "" || o.Overwrite || o.Inline || o.ContentTypes != nil ||
		o.MinExpiry != time.Minute || o.DefaultExpiry != 15*time.Minute || o.MaxExpiry != 15*time.Minute || o.ConfirmWithin != time.Hour {
		t.Errorf("%+v", o)
	}
	o = objectOf(t, ", expires: {max: 30s}, confirm_within: 0s, bucket: archive, overwrite: true")
	if o.MinExpiry != 30*time.Second || o.DefaultExpiry != 30*time.Second || o.ConfirmWithin != 0 || o.Bucket != "archive" || !o.Overwrite {
		t.Errorf("%+v", o)
	}
}

func TestObjectCheck(t *testing.T) {
	for _, c := range []struct {
		name, keys string
		request    UploadRequest
		want       string // code and field
	}{
		{"any type", "", UploadRequest{ContentType: "image/jpeg"}, ""},
		{"parameters", "", UploadRequest{ContentType: "text/plain; charset=utf-8"}, ""},
		{"no type", "", UploadRequest{}, "invalid_field contentType"},
		{"type without a slash", "", UploadRequest{ContentType: "image"}, "invalid_field contentType"},
		{"two types", "", UploadRequest{ContentType: "image/png,text/html"}, "invalid_field contentType"},
		{"wildcard", "", UploadRequest{ContentType: "image/*"}, "invalid_field contentType"},
		{"header injection", "", UploadRequest{ContentType: "image/png\r\nX-A: b"}, "invalid_field contentType"},
		{"space at the end", "", UploadRequest{ContentType: "image/png "}, "invalid_field contentType"},
		{"not ascii", "", UploadRequest{ContentType: "image/pñg"}, "invalid_field contentType"},
		{"long type", "", UploadRequest{ContentType: "image/" + strings.Repeat("a", 200)}, "invalid_field contentType"},
		{"html", "", UploadRequest{ContentType: "text/html"}, "unsupported_type contentType"},
		{"html in capitals", "", UploadRequest{ContentType: "TEXT/HTML; charset=utf-8"}, "unsupported_type contentType"},
		{"svg", "", UploadRequest{ContentType: "image/svg+xml"}, "unsupported_type contentType"},
		{"some xml", "", UploadRequest{ContentType: "application/atom+xml"}, "unsupported_type contentType"},
		{"guessed by browsers", "", UploadRequest{ContentType: "unknown/unknown"}, "unsupported_type contentType"},
		{"svg in a wildcard", ", content_types: [image/*]", UploadRequest{ContentType: "image/svg+xml"}, "unsupported_type contentType"},
		{"svg by name", ", content_types: [image/svg+xml]", UploadRequest{ContentType: "image/svg+xml"}, ""},
		{"html in any", `, content_types: ["*/*"]`, UploadRequest{ContentType: "text/html"}, ""},
		{"in a wildcard", ", content_types: [image/*]", UploadRequest{ContentType: "image/png"}, ""},
		{"not in a wildcard", ", content_types: [image/*]", UploadRequest{ContentType: "imagex/png"}, "unsupported_type contentType"},
		{"not in the list", ", content_types: [image/png]", UploadRequest{ContentType: "image/jpeg"}, "unsupported_type contentType"},
		{"extension", "", UploadRequest{ContentType: "image/jpeg", FileExt: "jpg"}, ""},
		{"extension with a dot", "", UploadRequest{ContentType: "image/jpeg", FileExt: ".JPEG"}, ""},
		{"another extension", "", UploadRequest{ContentType: "image/jpeg", FileExt: "html"}, "invalid_field fileExt"},
		{"extension with a slash", "", UploadRequest{ContentType: "image/jpeg", FileExt: "jpg/../../x"}, "invalid_field fileExt"},
		{"extension of an unknown type", "", UploadRequest{ContentType: "x/y", FileExt: "y"}, "invalid_field fileExt"},
		{"size", ", max_bytes: 1KiB", UploadRequest{ContentType: "image/png", Size: ptr(1024)}, ""},
		{"no size needed", "", UploadRequest{ContentType: "image/png"}, ""},
		{"size zero", ", max_bytes: 1KiB", UploadRequest{ContentType: "image/png", Size: ptr(0)}, ""},
		{"size below zero", "", UploadRequest{ContentType: "image/png", Size: ptr(-1)}, "invalid_field size"},
		{"size missing", ", max_bytes: 1KiB", UploadRequest{ContentType: "image/png"}, "invalid_field size"},
		{"too large", ", max_bytes: 1KiB", UploadRequest{ContentType: "image/png", Size: ptr(1025)}, "too_large size"},
		{"checksum", ", checksum: sha256", UploadRequest{ContentType: "image/png", ChecksumSHA256: goodSum}, ""},
		{"checksum missing", ", checksum: sha256", UploadRequest{ContentType: "image/png"}, "invalid_field checksumSha256"},
		{"checksum unasked", "", UploadRequest{ContentType: "image/png", ChecksumSHA256: goodSum}, ""},
		{"checksum in hex", "", UploadRequest{ContentType: "image/png", ChecksumSHA256: strings.Repeat("ab", 32)}, "invalid_field checksumSha256"},
		{"checksum with a line end", "", UploadRequest{ContentType: "image/png", ChecksumSHA256: goodSum + "\n"}, "invalid_field checksumSha256"},
		{"checksum in two spellings", "", UploadRequest{ContentType: "image/png", ChecksumSHA256: goodSum[:42] + "V="}, "invalid_field checksumSha256"},
		{"expiry", "", UploadRequest{ContentType: "image/png", Expires: ptr(60)}, ""},
		{"expiry too short", "", UploadRequest{ContentType: "image/png", Expires: ptr(59)}, "invalid_field expiresSeconds"},
		{"expiry too long", "", UploadRequest{ContentType: "image/png", Expires: ptr(901)}, "invalid_field expiresSeconds"},
		{"expiry beyond counting", "", UploadRequest{ContentType: "image/png", Expires: ptr(1 << 62)}, "invalid_field expiresSeconds"},
	} {
		got := ""
		if v := objectOf(t, c.keys).Check(&c.request); v != nil {
			got = v.Code + " " + v.Field
			if want := map[string]int{"invalid_field": 422, "too_large": 413, "unsupported_type": 415}[v.Code]; v.Status != want || v.Text == "" {
				t.Errorf("%s: %+v", c.name, v)
			}
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestExtAndExpiry(t *testing.T) {
	for contentType, want := range map[string]string{
		"image/jpeg": ".jpg", "IMAGE/JPEG": ".jpg", "text/plain; charset=utf-8": ".txt", "x/y": "", "": "", "image/jpeg/../x": "",
	} {
		if got := (&UploadRequest{ContentType: contentType, FileExt: "jpeg"}).Ext(); got != want {
			t.Errorf("%s: %q, want %q", contentType, got, want)
		}
	}
	o := objectOf(t, ", expires: {default: 2m, min: 2s, max: 7d}")
	if d, v := o.Expiry(nil); d != 2*time.Minute || v != nil {
		t.Error(d, v)
	}
	if d, v := o.Expiry(ptr(7 * 24 * 3600)); d != 7*24*time.Hour || v != nil {
		t.Error(d, v)
	}
	if d, v := o.Expiry(ptr(1)); d != 0 || v == nil {
		t.Error(d, v)
	}
}
