package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/google/pprof/profile"
)

// A profiler collects CPU profiles of sidegate under the rows' loads: by what it
// writes, Go's compiler knows where sidegate spends its time (`make pgo`).
type profiler struct {
	path  string
	taken []*profile.Profile
}

// args are what sidegate is started with beside the rest.
func (p *profiler) args() []string {
	if p == nil {
		return nil
	}
	return []string{"--pprof"}
}

// during loads a sidegate while it is profiled for so long.
func (p *profiler) during(ctx context.Context, admin string, long time.Duration, load func() error) error {
	taken := make(chan error, 1)
	go func() { taken <- p.take(ctx, admin, long) }()
	return errors.Join(load(), <-taken)
}

func (p *profiler) take(ctx context.Context, admin string, long time.Duration) error {
	address := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", admin, int(long.Seconds()))
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", address, answer.Status)
	}
	one, err := profile.Parse(answer.Body)
	if err != nil {
		return fmt.Errorf("%s: %w", address, err)
	}
	p.taken = append(p.taken, one)
	return nil
}

// write merges what was taken. Where the program lay on this machine is nobody's
// business.
func (p *profiler) write() error {
	if len(p.taken) == 0 {
		return errors.New("no row of sidegate was loaded: there is no profile")
	}
	for _, one := range p.taken {
		for _, m := range one.Mapping {
			m.File, m.BuildID = filepath.Base(m.File), ""
		}
	}
	whole, err := profile.Merge(p.taken)
	if err != nil {
		return fmt.Errorf("merge the profiles: %w", err)
	}
	f, err := os.Create(p.path)
	if err != nil {
		return err
	}
	return errors.Join(whole.Compact().Write(f), f.Close())
}
