package cmd

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (p *program) newLogLevel() *cobra.Command {
	var config, address string
	var last time.Duration
	c := &cobra.Command{
		Use:   "log-level [debug|info|warn|error]",
		Short: "Show or change the running gateway's log level",
		Long: `Show from which level on the gateway that runs on this machine logs, or change
it until it is changed again, for a while (--for), or until the gateway stops.
The change is in the log and in the audit log. The address is found as that of
` + "`sidegate health`" + `; only a loopback address is answered.`,
		Example:   "  sidegate log-level\n  sidegate log-level debug --for 10m",
		ValidArgs: logLevels(),
		Args: func(c *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return usageError{fmt.Errorf("`%s` takes one level", c.CommandPath())}
			case len(args) == 1 && !slices.Contains(logLevels(), args[0]):
				return usageError{fmt.Errorf("the level must be one of %s, not %q", strings.Join(logLevels(), ", "), args[0])}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			change := levelChange{}
			if c.Flags().Changed("for") {
				if len(args) == 0 {
					return usageError{fmt.Errorf("--for needs a level")}
				}
				if err := checkLevelTime(last); err != nil {
					return usageError{fmt.Errorf("--for: %w", err)}
				}
				change.For = last.String()
			}
			if len(args) == 1 {
				change.Level = args[0]
			}
			at, err := p.adminAddress(config, c.Flags().Changed("config"), address)
			if err != nil {
				return err
			}
			state, err := askLogLevel(c.Context(), at, change)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(p.stdout, state)
			return err
		},
	}
	c.Flags().DurationVar(&last, "for", 0, "go back to the level before after this `time`, 1s to 24h")
	c.Flags().StringVar(&config, "config", defaultConfig, "`file` whose admin.address is asked")
	c.Flags().StringVar(&address, "address", "", "`host:port` to ask, instead of the config's")
	c.MarkFlagsMutuallyExclusive("config", "address")
	_ = c.MarkFlagFilename("config", "yaml", "yml")
	return c
}

func (s levelState) String() string {
	if s.Until.IsZero() {
		return s.Level
	}
	return fmt.Sprintf("%s until %s, then %s", s.Level, s.Until.UTC().Format(time.RFC3339), s.Then)
}

// logLevelTimeout is longer than a full disk takes to be noticed.
const logLevelTimeout = 15 * time.Second

// askLogLevel changes the level, or asks for it where change names none.
func askLogLevel(ctx context.Context, address string, change levelChange) (s levelState, err error) {
	ctx, cancel := context.WithTimeout(ctx, logLevelTimeout)
	defer cancel()
	method, body := http.MethodGet, []byte(nil)
	if change.Level != "" {
		method = http.MethodPut
		if body, err = json.Marshal(change); err != nil {
			return s, err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+address+logLevelPath, bytes.NewReader(body))
	if err != nil {
		return s, err
	}
	req.Host = "localhost" // also where admin.address is a name of this machine's
	req.Header.Set("Content-Type", "application/json")
	res, err := adminClient().Do(req)
	if err != nil {
		return s, fmt.Errorf("ask the gateway: %w", err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, 64<<10))
	if err != nil {
		return s, fmt.Errorf("ask the gateway: %w", err)
	}
	if res.StatusCode != http.StatusOK {
		var refusal struct{ Error string }
		if json.Unmarshal(answer, &refusal) != nil || refusal.Error == "" {
			return s, fmt.Errorf("%s does not answer as a gateway: status %d", address, res.StatusCode)
		}
		return s, fmt.Errorf("the gateway refuses: %s", refusal.Error)
	}
	if err := json.Unmarshal(answer, &s); err != nil || !slices.Contains(logLevels(), s.Level) {
		return s, fmt.Errorf("%s does not answer as a gateway", address)
	}
	return s, nil
}
