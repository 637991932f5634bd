package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/versity/versitygw/auth"
	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

// bucket is the store's only one.
const bucket = "demo-uploads"

// A store is an S3 server in this process. versitygw allows one per process,
// and changes the process's working folder.
type store struct {
	dir                       string // of its objects and what is kept about them
	url, accessKey, secretKey string
	cancel                    context.CancelFunc
	done                      chan struct{}
	err                       error // read after done
}

// startStore serves the objects in dir at the address host:port, with
// credentials of its own making. dir is absolute.
func startStore(ctx context.Context, dir, address string) (*store, error) {
	objects, sidecar := filepath.Join(dir, "objects"), filepath.Join(dir, "meta")
	// A folder under the root is a bucket.
	for _, folder := range []string{filepath.Join(objects, bucket), sidecar} {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("make the store's folder: %w", err)
		}
	}
	// Beside the objects, not in extended attributes, which not every file
	// system has.
	attributes, err := meta.NewSideCar(sidecar)
	if err != nil {
		return nil, fmt.Errorf("open the store's metadata: %w", err)
	}
	backend, err := posix.New(objects, attributes, posix.PosixOpts{CopyObjectThreshold: 5 << 30})
	if err != nil {
		return nil, fmt.Errorf("open the store: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &store{
		dir:       dir,
		url:       "http://" + address,
		accessKey: "DEMO" + rand.Text()[:16],
		secretKey: rand.Text() + rand.Text(),
		cancel:    cancel,
		done:      make(chan struct{}),
	}
	go func() {
		defer close(s.done)
		s.err = embedgw.RunVersityGW(ctx, backend, &embedgw.Config{
			RootUserAccess:    s.accessKey,
			RootUserSecret:    s.secretKey,
			Ports:             []string{address},
			MaxConnections:    1024,
			MaxRequests:       1024,
			MultipartMaxParts: 10_000,
			HealthPath:        "/health",
			CORSAllowOrigin:   "*", // so that a page in a browser can upload
			Quiet:             true,
			// The same as without one, which is announced on standard output.
			IAMService: auth.NewIAMServiceSingle(auth.Account{Access: s.accessKey, Secret: s.secretKey, Role: auth.RoleAdmin}),
		})
	}()
	if err := waitFor(ctx, s.url+"/health", s.done); err != nil {
		s.stop()
		return nil, fmt.Errorf("start the store: %w", err)
	}
	return s, nil
}

func (s *store) stop() error {
	s.cancel()
	<-s.done
	return s.err
}

// waitFor asks the URL until it answers 200. It gives up when ended is closed
// or after half a minute.
func waitFor(ctx context.Context, url string, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		if answer, err := http.DefaultClient.Do(r); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-again.C:
		case <-ended:
			return fmt.Errorf("it ended before it answered at %s", url)
		case <-ctx.Done():
			return fmt.Errorf("no answer at %s: %w", url, context.Cause(ctx))
		}
	}
}
