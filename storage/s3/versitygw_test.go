package s3

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"hash/crc64"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sidegate/storage/upload"
)

const versitygwModule = "github.com/versity/versitygw/cmd/versitygw@v1.8.0"

// versitygw is the path of a real S3 server: one in PATH or in the folder
// SIDEGATE_TOOLS, else one that is built once into the user's cache.
func versitygw(t *testing.T) string {
	t.Helper()
	if p, err := exec.LookPath("versitygw"); err == nil {
		return p
	}
	tools := os.Getenv("SIDEGATE_TOOLS")
	if tools == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			missing(t, err)
		}
		tools = filepath.Join(cache, "sidegate-tools")
	}
	p := filepath.Join(tools, "versitygw")
	if _, err := os.Stat(p); err == nil {
		return p
	}
	t.Logf("building %s into %s: this takes a few minutes, once", versitygwModule, tools)
	install := exec.Command("go", "install", versitygwModule)
	install.Dir = t.TempDir() // outside the module, whose versions are its own
	install.Env = append(os.Environ(), "GOBIN="+tools, "GOFLAGS=")
	if out, err := install.CombinedOutput(); err != nil {
		missing(t, fmt.Errorf("%w: %s", err, out))
	}
	return p
}

func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("versitygw is needed: %v", err)
	}
	t.Skipf("SKIPPED, NOTHING WAS TESTED AGAINST A REAL S3 SERVER: versitygw is missing: %v", err)
}

// serve runs versitygw over an empty folder with the bucket photos in it, and
// gives its URL. The keys are those of open.
func serve(t *testing.T) string {
	t.Helper()
	binary := versitygw(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "photos"), 0o700); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	server := exec.Command(binary, "--port", address, "--health", "/health", "--quiet", "--region", "eu-central-1", "posix", dir)
	server.Env = append(os.Environ(), "ROOT_ACCESS_KEY=AKID", "ROOT_SECRET_KEY="+secret)
	server.Stdout, server.Stderr = &out, &out
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	died := make(chan error, 1)
	go func() { died <- server.Wait() }()
	t.Cleanup(func() {
		_ = server.Process.Kill()
		<-died
	})
	deadline, tick := time.After(30*time.Second), time.NewTicker(50*time.Millisecond)
	defer tick.Stop()
	for {
		if r, err := http.Get("http://" + address + "/health"); err == nil {
			r.Body.Close()
			if r.StatusCode == http.StatusOK {
				return "http://" + address
			}
		}
		select {
		case err := <-died:
			died <- err
			t.Fatalf("versitygw ended: %v\n%s", err, out.Bytes())
		case <-deadline:
			t.Fatalf("versitygw does not answer")
		case <-tick.C:
		}
	}
}

// send does what a client does with a signed URL, after edit changed it.
func send(t *testing.T, s upload.Signed, body string, edit func(*http.Request)) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequest(s.Method, s.URL, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if s.Method != http.MethodPut {
		r.Body, r.ContentLength = nil, 0
	}
	r.Header = s.Headers.Clone()
	if edit != nil {
		edit(r)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(text)
}

func sumOf(body string) string {
	sum := sha256.Sum256([]byte(body))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// crcOf is the CRC-64/NVME in base64.
func crcOf(body string) string {
	sum := crc64.Checksum([]byte(body), crc64.MakeTable(0x9a6c9329ac4bc9b5))
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, sum))
}

func TestAgainstARealStore(t *testing.T) {
	b := open(t, Options{Endpoint: serve(t), Now: time.Now})
	put := func(t *testing.T, p upload.Put) upload.Signed {
		t.Helper()
		if p.ContentType == "" {
			p.ContentType = "image/jpeg"
		}
		p.Expires = time.Minute
		s, err := b.SignPut(t.Context(), p)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}

	t.Run("awkward keys", func(t *testing.T) {
		for i, key := range awkwardKeys {
			key = fmt.Sprintf("awkward/%d/%s", i, key)
			if _, err := b.Head(t.Context(), key); err != upload.ErrNoObject {
				t.Errorf("%q: before: %v", key, err)
			}
			if status, _, text := send(t, put(t, upload.Put{Key: key, Size: 5, Checksum: sumOf("hello")}), "hello", nil); status != http.StatusOK {
				t.Errorf("%q: put: %d %s", key, status, text)
				continue
			}
			o, err := b.Head(t.Context(), key)
			if err != nil || o.Size != 5 || o.ContentType != "image/jpeg" || o.ETag == "" || o.Checksum != sumOf("hello") ||
				time.Since(o.Modified).Abs() > time.Minute {
				t.Errorf("%q: head: %+v, %v", key, o, err)
			}
			get, err := b.SignGet(t.Context(), upload.Get{Key: key, Disposition: `attachment; filename="x"`, Expires: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			status, header, text := send(t, get, "", nil)
			if status != http.StatusOK || text != "hello" || header.Get("Content-Disposition") != `attachment; filename="x"` {
				t.Errorf("%q: get: %d %v %s", key, status, header, text)
			}
			head, err := b.SignGet(t.Context(), upload.Get{Key: key, Head: true, Expires: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			if status, header, _ := send(t, head, "", nil); status != http.StatusOK || header.Get("Content-Length") != "5" {
				t.Errorf("%q: signed head: %d %v", key, status, header)
			}
		}
	})

	t.Run("empty", func(t *testing.T) {
		s := put(t, upload.Put{Key: "empty", Size: 0})
		if status, _, _ := send(t, s, "x", nil); status/100 != 4 {
			t.Errorf("a byte where none was signed: %d", status)
		}
		if status, _, text := send(t, s, "", nil); status != http.StatusOK {
			t.Errorf("empty: %d %s", status, text)
		}
		if o, err := b.Head(t.Context(), "empty"); err != nil || o.Size != 0 {
			t.Errorf("%+v, %v", o, err)
		}
	})

	t.Run("size not bound", func(t *testing.T) {
		if status, _, text := send(t, put(t, upload.Put{Key: "unbound", Size: -1}), "whatever", nil); status != http.StatusOK {
			t.Errorf("%d %s", status, text)
		}
	})

	t.Run("overwrite", func(t *testing.T) {
		once, again := put(t, upload.Put{Key: "once", Size: 5}), put(t, upload.Put{Key: "again", Size: 5, Overwrite: true})
		for i, want := range []int{http.StatusOK, http.StatusPreconditionFailed} {
			if status, _, text := send(t, once, "hello", nil); status != want {
				t.Errorf("once, %d: %d %s", i, status, text)
			}
			if status, _, text := send(t, again, "hello", nil); status != http.StatusOK {
				t.Errorf("again, %d: %d %s", i, status, text)
			}
		}
	})

	// The attacks: each has a valid URL and changes one thing.
	long := b.now
	b.now = func() time.Time { return time.Now().Add(-10 * time.Minute) }
	expired := put(t, upload.Put{Key: "attacked", Size: 5})
	b.now = long
	valid := put(t, upload.Put{Key: "attacked", Size: 5, Checksum: sumOf("hello")})
	for name, attack := range map[string]struct {
		url  upload.Signed
		body string
		edit func(*http.Request)
	}{
		"another content type": {valid, "hello", func(r *http.Request) { r.Header.Set("Content-Type", "text/html") }},
		"no content type":      {valid, "hello", func(r *http.Request) { r.Header.Del("Content-Type") }},
		"longer":               {valid, "hello, world", nil},
		"shorter":              {valid, "hell", nil},
		"another body":         {valid, "jello", nil},
		"another checksum": {valid, "jello", func(r *http.Request) {
			r.Header.Set("X-Amz-Checksum-Sha256", sumOf("jello"))
		}},
		"no checksum":      {valid, "jello", func(r *http.Request) { r.Header.Del("X-Amz-Checksum-Sha256") }},
		"no condition":     {valid, "hello", func(r *http.Request) { r.Header.Del("If-None-Match") }},
		"an ACL":           {valid, "hello", func(r *http.Request) { r.Header.Set("X-Amz-Acl", "public-read") }},
		"another key":      {valid, "hello", func(r *http.Request) { r.URL.Path = "/photos/attacked2"; r.URL.RawPath = "" }},
		"another method":   {valid, "", func(r *http.Request) { r.Method = http.MethodDelete }},
		"a read":           {valid, "", func(r *http.Request) { r.Method = http.MethodGet }},
		"a longer life":    {expired, "hello", func(r *http.Request) { replaceQuery(r, "X-Amz-Expires=60", "X-Amz-Expires=6000") }},
		"an expired URL":   {expired, "hello", nil},
		"fewer signed":     {valid, "hello", func(r *http.Request) { replaceQuery(r, "content-length%3B", "") }},
		"another user":     {valid, "hello", func(r *http.Request) { replaceQuery(r, "AKID", "ROOT") }},
		"a query appended": {valid, "hello", func(r *http.Request) { r.URL.RawQuery += "&tagging" }},
	} {
		t.Run(name, func(t *testing.T) {
			if status, _, text := send(t, attack.url, attack.body, attack.edit); status/100 != 4 {
				t.Errorf("the store answered %d %s", status, text)
			}
			for _, key := range []string{"attacked", "attacked2"} {
				if o, err := b.Head(t.Context(), key); err != upload.ErrNoObject {
					t.Errorf("%s: %+v, %v", key, o, err)
				}
			}
		})
	}
	if status, _, text := send(t, valid, "hello", nil); status != http.StatusOK {
		t.Errorf("and unchanged: %d %s", status, text)
	}
}

func replaceQuery(r *http.Request, old, with string) {
	r.URL.RawQuery = strings.Replace(r.URL.RawQuery, old, with, 1)
}
