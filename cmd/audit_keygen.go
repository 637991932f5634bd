package cmd

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"
)

// keyName is a signer's name: golang.org/x/mod/sumdb/note takes no spaces and
// no plus; stricter here.
var keyName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$`)

func newAuditKeygen(stdout io.Writer) *cobra.Command {
	var out, name string
	c := &cobra.Command{
		Use:   "keygen",
		Short: "Make a key that checkpoints are signed with",
		Long: `Write a new key that signs checkpoints (audit.key) to a file that only its owner can
read, and print the public key that verifies them. A file that exists stays as it is.`,
		Example: "  sidegate audit keygen --out audit.key > audit.pub",
		Args:    cobra.NoArgs,
	}
	c.Flags().StringVar(&out, "out", "", "the file to write")
	c.Flags().StringVar(&name, "name", "sidegate-audit", "the key's name, which its signatures carry")
	c.RunE = func(*cobra.Command, []string) error {
		if out == "" {
			return usageError{errors.New("--out is missing: the file to write the key to")}
		}
		if !keyName.MatchString(name) {
			return usageError{fmt.Errorf("--name %q: give letters, digits and `._/-`", name)}
		}
		secret, public, err := note.GenerateKey(rand.Reader, name)
		if err != nil {
			return err
		}
		if err := writeSecret(out, secret+"\n"); err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, public)
		return err
	}
	return c
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
