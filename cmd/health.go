package cmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	healthTimeout = 2 * time.Second
	readyPath     = "/health/ready"
	livePath      = "/health/live"
	startedPath   = "/health/started"
)

func (p *program) newHealth() *cobra.Command {
	var config, address string
	var live, started bool
	c := &cobra.Command{
		Use:   "health",
		Short: "Ask the running gateway whether it is ready",
		Long: `Ask the gateway that runs beside this command whether it is ready, for probes of
images without a shell: whether it should get requests. An outage of Firestore
or of an issuer makes it not ready, and is not mended by a restart: whoever
restarts or replaces what is unhealthy asks --live, which is that the process
answers, or --started, which is that it was ready once and answers.
The address is that of sidegate.yaml's admin listener, or 127.0.0.1:9180 where
there is no such file.`,
		Example: "  sidegate health\n  sidegate health --live\n  sidegate health --address 127.0.0.1:9180",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			at, err := p.adminAddress(config, c.Flags().Changed("config"), address)
			if err != nil {
				return err
			}
			ask := askHealth{path: readyPath, word: "ready"}
			switch {
			case live:
				ask = askHealth{path: livePath, word: "live"}
			case started:
				ask = askHealth{path: startedPath, word: "started"}
			}
			if err := ask.at(c.Context(), at); err != nil {
				return err
			}
			_, err = fmt.Fprintln(p.stdout, ask.word)
			return err
		},
	}
	c.Flags().StringVar(&config, "config", defaultConfig, "`file` whose admin.address is asked")
	c.Flags().StringVar(&address, "address", "", "`host:port` to ask, instead of the config's")
	c.Flags().BoolVar(&live, "live", false, "ask whether the process answers, for who restarts what does not")
	c.Flags().BoolVar(&started, "started", false, "ask whether it was ready once, for who asks no other question")
	c.MarkFlagsMutuallyExclusive("config", "address")
	c.MarkFlagsMutuallyExclusive("live", "started")
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	return c
}

// adminAddress finds whom to ask. Only a config that was named must exist.
func (p *program) adminAddress(config string, named bool, address string) (string, error) {
	if address != "" {
		if !isHostPort(address) {
			return "", usageError{fmt.Errorf("--address must be host:port, not %q", address)}
		}
		return address, nil
	}
	found, err := loadAdminAddress(config, p.env)
	if errors.Is(err, fs.ErrNotExist) && !errors.Is(err, errInvalid) && !named {
		found, err = "127.0.0.1:9180", nil
	}
	if err != nil {
		// Probes know 0 and 1 only, so the cause is not wrapped.
		return "", fmt.Errorf("find the gateway's address: %v", err)
	}
	return dialableAddress(found)
}

// dialableAddress is how this machine reaches what listens at an address of its own.
func dialableAddress(listens string) (string, error) {
	host, port, err := net.SplitHostPort(listens)
	if err != nil {
		return "", err
	}
	if isEverywhere(host) {
		host = "127.0.0.1"
		if strings.HasPrefix(listens, "[") {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port), nil
}

// An askHealth is one question of a probe.
type askHealth struct{ path, word string }

// at is nil where the gateway at the address says yes.
func (a askHealth) at(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+a.path, nil)
	if err != nil {
		return fmt.Errorf("ask %s: %w", address, err)
	}
	res, err := adminClient().Do(req)
	if err != nil {
		return fmt.Errorf("not %s: no answer: %w", a.word, err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusOK {
		return nil
	}
	why, _ := io.ReadAll(io.LimitReader(res.Body, 1<<10))
	return fmt.Errorf("not %s: %s: %q", a.word, res.Status, strings.TrimSpace(string(why)))
}

// adminClient asks this machine: by no proxy of the environment, and without
// following redirects.
func adminClient() *http.Client {
	return &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}
