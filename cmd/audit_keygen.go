package cmd

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
)

// keyName is a signer's name: golang.org/x/mod/sumdb/note takes no spaces and
// no plus; stricter here.
var keyName = newForm(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$`)

func newAuditKeygen(stdout io.Writer) *cobra.Command {
	var out, name string
	c := &cobra.Command{
		Use:   "keygen",
		Short: "Make a key that checkpoints are signed with",
		Long: `Write a new key that signs checkpoints (audit.key) to a file that only its owner can
read, and print the public key that verifies them. A file that exists stays as it is:
where it holds such a key, its public key is printed, and the status is 1.`,
		Example: "  sidegate audit keygen --out audit.key > audit.pub",
		Args:    cobra.NoArgs,
	}
	c.Flags().StringVar(&out, "out", "", "the file to write")
	c.Flags().StringVar(&name, "name", "sidegate-audit", "the key's name, which its signatures carry")
	c.RunE = func(*cobra.Command, []string) error {
		if out == "" {
			return usageError{errors.New("--out is missing: the file to write the key to")}
		}
		if !keyName.matches(name) {
			return usageError{fmt.Errorf("--name %q: give letters, digits and `._/-`", name)}
		}
		secret, public, err := note.GenerateKey(rand.Reader, name)
		if err != nil {
			return err
		}
		err = writeSecret(out, secret+"\n")
		if errors.Is(err, os.ErrExist) {
			// Who calls this twice has the shell empty audit.pub before it is
			// known that there is a key: without it no checkpoint can be verified.
			if public, perr := publicKey(out); perr == nil {
				_, perr = fmt.Fprintln(stdout, public)
				err = errors.Join(fmt.Errorf("%w; its public key was printed", err), perr)
			}
		}
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, public)
		return err
	}
	return c
}

// publicKey reads a file with a key to sign with, and makes its public key.
func publicKey(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(data))
	signer, err := note.NewSigner(text)
	if err != nil {
		return "", err
	}
	// golang.org/x/mod/sumdb/note: PRIVATE+KEY+name+hash+base64, and in that a
	// byte for the algorithm, 1 is Ed25519, before the seed.
	parts := strings.SplitN(text, "+", 5) // a name has no plus, base64 may
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(raw) != 1+ed25519.SeedSize || raw[0] != 1 {
		return "", errors.New("no key of Ed25519")
	}
	return note.NewEd25519VerifierKey(signer.Name(), ed25519.NewKeyFromSeed(raw[1:]).Public().(ed25519.PublicKey))
}

// writeSecret makes a file that only its owner can read, and never replaces one.
func writeSecret(name, text string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%w: a key is never replaced; choose another name", err)
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		os.Remove(name)
	}
	return err
}
