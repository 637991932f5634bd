package oidc

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

const keysURL = "https://issuer.example/keys"

// keeping makes a key set with a folder, whose issuer is fake: its tests run
// where time is not real, and where synctest.Wait says that the file is written.
func keeping(t testing.TB, folder string, f *fakeIssuer) *KeySet {
	t.Helper()
	k, err := NewKeySet(KeySetOptions{URL: keysURL, Folder: folder, Client: &http.Client{Transport: f}})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func answering(body string) *fakeIssuer {
	f := &fakeIssuer{}
	f.body.Store(&body)
	return f
}

// files are the names in a folder.
func files(t testing.TB, folder string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// keptText is a file as keep writes it.
func keptText(url string, fetched time.Time, keys string) string {
	data, err := json.Marshal(kept{keptVersion, url, fetched.UTC(), json.RawMessage(keys)})
	if err != nil {
		panic(err)
	}
	return string(data)
}

func TestKeptKeysSurviveARestart(t *testing.T) {
	one, both := jwks(0), jwks(0, 1)
	old, withdrawn := parsed(t, mint(0, "k0", "{}")), parsed(t, mint(1, "k1", "{}"))
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := fetched(t, keeping(t, folder, answering(both)))
		synctest.Wait()
		if st := k.Status(); st.Unkept != nil || st.Stored {
			t.Errorf("%+v", st)
		}
		names := files(t, folder)
		if len(names) != 1 {
			t.Fatalf("%q", names)
		}
		info, err := os.Lstat(filepath.Join(folder, names[0]))
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("mode %s, %v", info.Mode(), err)
		}
		began := k.Status().Fetched

		// A new process while the issuer is down, six days later.
		time.Sleep(6 * 24 * time.Hour)
		down := &fakeIssuer{}
		k = keeping(t, folder, down)
		if st := k.Status(); !k.Ready() || !st.Stored || st.Keys != 2 || !st.Fetched.Equal(began) || st.Age != 6*24*time.Hour || st.Unkept != nil {
			t.Errorf("%+v", st)
		}
		wantUnavailable(t, "prefetch", k.Prefetch(t.Context()))
		if down.fetches.Load() != 1 {
			t.Error("stored keys kept the issuer from being asked")
		}
		for _, token := range []*Token{old, withdrawn} {
			if err := k.Verify(t.Context(), token, []string{RS256}); err != nil {
				t.Errorf("%s while it is down: %v", token.KeyID, err)
			}
		}
		wantUnavailable(t, "an unknown key", k.Verify(t.Context(), &Token{Algorithm: RS256, KeyID: "k9", signature: []byte{1}}, []string{RS256}))
		if !k.Ready() || !k.Status().Stored {
			t.Error("a failed fetch took the stored keys away")
		}

		// The issuer comes back, and has withdrawn one.
		epoch := k.Epoch()
		down.body.Store(&one)
		fetched(t, k)
		synctest.Wait()
		if st := k.Status(); st.Stored || st.Keys != 1 || st.Unkept != nil || k.Epoch() != epoch+1 {
			t.Errorf("%+v, epoch %d after %d", st, k.Epoch(), epoch)
		}
		time.Sleep(2 * unknownKeyPause)
		wantReason(t, "a withdrawn key", k.Verify(t.Context(), withdrawn, []string{RS256}), ReasonUnknownKey)
		synctest.Wait()

		// And so has the next process.
		k = keeping(t, folder, &fakeIssuer{})
		if k.Status().Keys != 1 || len(files(t, folder)) != 1 {
			t.Errorf("%+v, %q", k.Status(), files(t, folder))
		}
		wantUnavailable(t, "a withdrawn key after a restart", k.Verify(t.Context(), withdrawn, []string{RS256}))
	})
}

// Stored keys are asked for anew at once: they only stand until the issuer
// answers.
func TestKeptKeysAreRefreshedAtOnce(t *testing.T) {
	one := jwks(0)
	folder := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		fetched(t, keeping(t, folder, answering(one)))
		synctest.Wait()
		f := answering(one)
		k := keeping(t, folder, f)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); k.Run(ctx) }()
		synctest.Wait()
		if st := k.Status(); f.fetches.Load() != 1 || st.Stored || st.Refresh.IsZero() || k.Epoch() != 0 {
			t.Errorf("%d fetches, %+v, epoch %d", f.fetches.Load(), st, k.Epoch())
		}
		cancel()
		<-ended
	})
}

// With metadata it is the issuer that the file is of, so that keys which moved
// are still its.
func TestKeptKeysOfADiscoveredIssuer(t *testing.T) {
	folder, token := t.TempDir(), parsed(t, mint(0, "k0", "{}"))
	synctest.Test(t, func(t *testing.T) {
		f := &fakeSite{}
		f.up.Store(true)
		open := func() *KeySet {
			k, err := NewKeySet(KeySetOptions{Issuer: issuer, Folder: folder, Client: &http.Client{Transport: f}})
			if err != nil {
				t.Fatal(err)
			}
			return k
		}
		fetched(t, open())
		synctest.Wait()
		f.up.Store(false)
		k := open()
		if err := k.Verify(t.Context(), token, []string{RS256}); err != nil || !k.Status().Stored {
			t.Errorf("%v, %+v", err, k.Status())
		}
		if len(files(t, folder)) != 1 {
			t.Errorf("%q", files(t, folder))
		}
	})
}

// A file that is no good is as if it were not there, but that Status says why.
func TestKeptFilesThatAreNotUsed(t *testing.T) {
	keys := jwks(0)
	now := time.Now()
	token := parsed(t, mint(0, "k0", "{}"))
	open := func(t *testing.T, folder string, f *fakeIssuer) *KeySet {
		k, err := NewKeySet(KeySetOptions{URL: keysURL, Folder: folder, Client: &http.Client{Transport: f}, Now: func() time.Time { return now }})
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	good := keptText(keysURL, now, keys)
	write := func(text string, mode os.FileMode) func(*testing.T, string) {
		return func(t *testing.T, file string) {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, mode); err != nil { // whatever the umask
				t.Fatal(err)
			}
		}
	}
	must := func(t *testing.T, err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, prepare := range map[string]func(*testing.T, string){
		"group can write": write(good, 0o620), "others can write": write(good, 0o602), "everybody can": write(good, 0o666),
		"a link": func(t *testing.T, file string) {
			write(good, 0o600)(t, file+".target")
			must(t, os.Symlink(file+".target", file))
		},
		"a link to nothing": func(t *testing.T, file string) { must(t, os.Symlink("nothing", file)) },
		"a link to itself":  func(t *testing.T, file string) { must(t, os.Symlink(file, file)) },
		"a pipe":            func(t *testing.T, file string) { must(t, syscall.Mkfifo(file, 0o600)) },
		"a folder":          func(t *testing.T, file string) { must(t, os.Mkdir(file, 0o700)) },
		"a device":          func(t *testing.T, file string) { must(t, os.Symlink("/dev/zero", file)) },
		"empty":             write("", 0o600), "garbage": write("\x00\xff\x13", 0o600), "text": write("keys", 0o600), "null": write("null", 0o600), "a list": write("[]", 0o600), "an object": write("{}", 0o600),
		"cut": write(good[:len(good)-1], 0o600), "cut in the middle": write(good[:len(good)/2], 0o600), "cut at once": write(good[:1], 0o600), "zeros": write(strings.Repeat("\x00", len(good)), 0o600),
		"two of them":           write(good+good, 0o600),
		"huge":                  write(strings.Replace(good, `"keys":`, `"x":"`+strings.Repeat("x", 3*maxKeysBytes)+`","keys":`, 1), 0o600),
		"of another URL":        write(keptText("https://evil.example/keys", now, keys), 0o600),
		"of a URL with a slash": write(keptText(keysURL+"/", now, keys), 0o600),
		"of no URL":             write(keptText("", now, keys), 0o600),
		"of another version":    write(strings.Replace(good, keptVersion, "sidegate-keys/v2", 1), 0o600),
		"of no version":         write(strings.Replace(good, keptVersion, "", 1), 0o600),
		"just too old":          write(keptText(keysURL, now.Add(-maxKept-time.Minute), keys), 0o600),
		"much too old":          write(keptText(keysURL, time.Unix(1, 0), keys), 0o600),
		"without a time":        write(keptText(keysURL, time.Time{}, keys), 0o600),
		"of the future":         write(keptText(keysURL, now.Add(MaxLeeway+time.Minute), keys), 0o600),
		"of the far future":     write(strings.Replace(good, now.UTC().Format("2006"), "9999", 1), 0o600),
		"a time that is none":   write(strings.Replace(good, now.UTC().Format("2006"), "never", 1), 0o600),
		"no keys":               write(keptText(keysURL, now, `{"keys":[]}`), 0o600),
		"keys null":             write(keptText(keysURL, now, `null`), 0o600),
		"keys missing":          write(`{"version":"`+keptVersion+`","source":"`+keysURL+`","fetched":"`+now.UTC().Format(time.RFC3339)+`"}`, 0o600),
		"keys as text":          write(keptText(keysURL, now, `"keys"`), 0o600),
		"a secret":              write(keptText(keysURL, now, `{"keys":[{"kty":"oct","kid":"k0","k":"AAAA"}]}`), 0o600),
		"deep":                  write(keptText(keysURL, now, strings.Repeat("[", 9000)+strings.Repeat("]", 9000)), 0o600),
		"many open brackets":    write(strings.Repeat("[", 1<<20), 0o600),
	} {
		folder := t.TempDir()
		prepare(t, (&KeySet{url: keysURL, folder: folder}).keptFile())
		synctest.Test(t, func(t *testing.T) {
			k := open(t, folder, answering(keys))
			st := k.Status()
			if k.Ready() || st.Keys != 0 || st.Stored || st.Unkept == nil || !strings.Contains(st.Unkept.Error(), keysURL) {
				t.Errorf("%s: %+v", name, st)
			}
			if !k.Ready() {
				wantUnavailable(t, name+", before a fetch", k.Verify(t.Context(), token, []string{RS256}))
			}
			// It is no reason not to have keys.
			if err := fetched(t, k).Verify(t.Context(), token, []string{RS256}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			synctest.Wait() // for the file that is written in its place
		})
	}
	// Only who is root can give a file away.
	if os.Geteuid() == 0 {
		folder := t.TempDir()
		file := (&KeySet{url: keysURL, folder: folder}).keptFile()
		write(good, 0o600)(t, file)
		must(t, os.Lchown(file, 65534, -1))
		if k := open(t, folder, &fakeIssuer{}); k.Ready() || k.Status().Unkept == nil {
			t.Errorf("of another user: %+v", k.Status())
		}
	}
	// The table would say nothing if the file it starts from were no good.
	for name, text := range map[string]string{
		"good": good, "a minute short of too old": keptText(keysURL, now.Add(-maxKept+time.Minute), keys), "a clock that is a little behind": keptText(keysURL, now.Add(MaxLeeway-time.Minute), keys),
		"certificates": keptText(keysURL, now, certificateMap(t, 0)), "white space": " \n" + good + "\n",
	} {
		folder := t.TempDir()
		write(text, 0o644)(t, (&KeySet{url: keysURL, folder: folder}).keptFile())
		if k := open(t, folder, &fakeIssuer{}); !k.Ready() || k.Status().Unkept != nil || verify(t, k, mint(0, "k0", "{}")) != nil {
			t.Errorf("%s: %+v", name, k.Status())
		}
	}
	// No file is no fault.
	if k := keeping(t, t.TempDir(), &fakeIssuer{}); k.Ready() || k.Status().Unkept != nil {
		t.Errorf("%+v", k.Status())
	}
}

// A file that was refused is replaced by the first good fetch, and what it was a
// link to is left alone.
func TestKeptFileIsReplaced(t *testing.T) {
	keys := jwks(0)
	synctest.Test(t, func(t *testing.T) {
		folder, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "other")
		if err := os.WriteFile(elsewhere, []byte("precious"), 0o600); err != nil {
			t.Fatal(err)
		}
		k := keeping(t, folder, answering(keys))
		file := k.keptFile()
		if err := os.Symlink(elsewhere, file); err != nil {
			t.Fatal(err)
		}
		k = fetched(t, keeping(t, folder, answering(keys)))
		synctest.Wait()
		info, err := os.Lstat(file)
		if err != nil || info.Mode() != 0o600 || k.Status().Unkept != nil {
			t.Errorf("%v, %v, %+v", info.Mode(), err, k.Status())
		}
		if text, err := os.ReadFile(elsewhere); err != nil || string(text) != "precious" {
			t.Errorf("%q, %v", text, err)
		}
		if !keeping(t, folder, &fakeIssuer{}).Ready() {
			t.Error("the new file is not used")
		}
	})
}

// A folder that cannot be written to, here one that is a file, costs the restart
// and nothing else.
func TestFolderThatCannotBeWritten(t *testing.T) {
	keys, token := jwks(0), parsed(t, mint(0, "k0", "{}"))
	synctest.Test(t, func(t *testing.T) {
		folder := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(folder, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{folder, folder + "/below", filepath.Join(t.TempDir(), "missing")} {
			f := answering(keys)
			k := fetched(t, keeping(t, path, f))
			synctest.Wait()
			st := k.Status()
			if st.Unkept == nil || st.Err != nil || st.Failures != 0 || st.Keys != 1 {
				t.Errorf("%s: %+v", path, st)
			}
			if err := k.Verify(t.Context(), token, []string{RS256}); err != nil {
				t.Error(err)
			}
			// The next fetch tries again, and says so.
			time.Sleep(2 * time.Hour)
			fetched(t, k)
			synctest.Wait()
			if k.Status().Unkept == nil || f.fetches.Load() != 2 {
				t.Errorf("%s: %+v", path, k.Status())
			}
		}
	})
}

// A fault that has passed is no longer told.
func TestUnkeptEnds(t *testing.T) {
	keys := jwks(0)
	synctest.Test(t, func(t *testing.T) {
		folder := filepath.Join(t.TempDir(), "later")
		k := fetched(t, keeping(t, folder, answering(keys)))
		synctest.Wait()
		if k.Status().Unkept == nil {
			t.Error("written to a folder that is not there")
		}
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * time.Hour)
		fetched(t, k)
		synctest.Wait()
		if k.Status().Unkept != nil || len(files(t, folder)) != 1 {
			t.Errorf("%+v, %q", k.Status(), files(t, folder))
		}
	})
}

// Processes that share a folder, and read while others write, only ever see a
// whole file.
func TestKeptByManyAtOnce(t *testing.T) {
	folder := t.TempDir()
	answers := []string{jwks(0), jwks(0, 1)}
	first := keeping(t, folder, &fakeIssuer{})
	first.keep([]byte(answers[0]), time.Now())
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			k := keeping(t, folder, &fakeIssuer{})
			for range 10 {
				k.keep([]byte(answers[i%2]), time.Now())
				if st := k.Status(); st.Unkept != nil {
					t.Error(st.Unkept)
				}
			}
		})
		wg.Go(func() {
			for range 50 {
				if k := keeping(t, folder, &fakeIssuer{}); !k.Ready() || k.Status().Unkept != nil {
					t.Errorf("%+v", k.Status())
				}
			}
		})
	}
	wg.Wait()
	if names := files(t, folder); len(names) != 1 {
		t.Errorf("left behind: %q", names)
	}
}

// Files of several issuers do not meet in one folder.
func TestKeptFilesOfSeveralIssuers(t *testing.T) {
	folder := t.TempDir()
	names := map[string]bool{}
	for _, url := range []string{keysURL, keysURL + "/", keysURL + "?a", "https://other.example/keys", "https://other.example/../keys", "https://other.example/%2e%2e/keys"} {
		k, err := NewKeySet(KeySetOptions{URL: url, Folder: folder, Client: &http.Client{Transport: &fakeIssuer{}}})
		if err != nil {
			t.Fatal(err)
		}
		k.keep([]byte(jwks(0)), time.Now())
		if k.Status().Unkept != nil || filepath.Dir(k.keptFile()) != folder {
			t.Errorf("%s: %s, %v", url, k.keptFile(), k.Status().Unkept)
		}
		names[k.keptFile()] = true
	}
	if len(names) != 6 || len(files(t, folder)) != 6 {
		t.Errorf("%q", files(t, folder))
	}
}

// Every answer that a fetch takes is read again by the next process, also one
// that JSON makes longer when it is written.
func TestKeptAnswersAreReadAgain(t *testing.T) {
	keys := jwks(0)
	for name, unit := range map[string]string{"ASCII": "x", "brackets": "<", "escapes": `\n`} {
		answer := strings.Replace(keys, "{", `{"comment":"`+strings.Repeat(unit, (maxKeysBytes-len(keys)-20)/len(unit))+`",`, 1)
		if len(answer) > maxKeysBytes {
			t.Fatalf("%s: %d bytes", name, len(answer))
		}
		if _, err := parseKeys([]byte(answer), false); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		folder := t.TempDir()
		keeping(t, folder, &fakeIssuer{}).keep([]byte(answer), time.Now())
		if k := keeping(t, folder, &fakeIssuer{}); !k.Ready() {
			t.Errorf("%s: %v", name, k.Status().Unkept)
		}
	}
}

// FuzzKept: whatever is in the file, nothing panics, and what is used is keys
// of this URL that are not too old, each of a kind that is used.
func FuzzKept(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	good := keptText(keysURL, now, jwks(0))
	f.Add([]byte(good))
	f.Add([]byte(good[:len(good)/2]))
	f.Add([]byte(keptText(keysURL, now.Add(-maxKept-1), jwks(0))))
	f.Add([]byte(keptText(keysURL, now, `{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"","y":""}]}`)))
	f.Add([]byte(keptText("https://other.example", now, jwks(0))))
	f.Add([]byte(`{"version":"sidegate-keys/v1","SOURCE":"https://issuer.example/keys","fetched":"2027-01-15T08:00:00Z","keys":{}}`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, data []byte) {
		folder := t.TempDir()
		k := &KeySet{url: keysURL, folder: folder, now: func() time.Time { return now }}
		if err := os.WriteFile(k.keptFile(), data, 0o600); err != nil {
			t.Fatal(err)
		}
		k.restore()
		set := k.current.Load()
		if (set == nil) != (k.unkept != nil) {
			t.Fatalf("keys: %v, and %v", set != nil, k.unkept)
		}
		if set == nil {
			return
		}
		var file struct{ Version, Source string }
		if err := json.Unmarshal(data, &file); err != nil || file.Version != keptVersion || file.Source != keysURL {
			t.Fatalf("%+v, %v", file, err)
		}
		if age := now.Sub(set.fetched); age > maxKept || age < -MaxLeeway || !set.stored || len(set.keys) == 0 {
			t.Fatalf("%s old, %+v", age, set)
		}
		for id, keys := range set.keys {
			for _, key := range keys {
				if id == "" || checkKey(key.key) != nil {
					t.Fatalf("key %q: %v", id, checkKey(key.key))
				}
			}
		}
	})
}

// A file that a parser would panic at is read by a process that goes on; what
// is in the way of a test is that no such file is known, so the reader's clock
// panics in its place.
func TestKeptReaderSurvivesAPanic(t *testing.T) {
	folder := t.TempDir()
	k := &KeySet{url: keysURL, folder: folder, now: func() time.Time { panic("the parser") }}
	if err := os.WriteFile(k.keptFile(), []byte(keptText(keysURL, time.Now(), jwks(0))), 0o600); err != nil {
		t.Fatal(err)
	}
	k.restore()
	if k.Ready() || k.unkept == nil || strings.Contains(k.unkept.Error(), "the parser") {
		t.Errorf("%v", k.unkept)
	}
}
