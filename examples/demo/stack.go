package main

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"sidegate/cmd"
)

// configuration is copied into the data folder, where it can be edited while
// the demo runs: the gateway takes a changed policy at once.
//
//go:embed sidegate.yaml policy.yaml
var configuration embed.FS

// A demo is all the parts, running.
type demo struct {
	dir                              string // absolute
	issuer                           *issuer
	issuerURL, appURL, url, adminURL string
	store                            *store
	servers                          []*http.Server

	stopGateway context.CancelFunc
	ended       chan struct{} // closed when the gateway has returned
	gatewayErr  error         // read after ended
}

// dataFolder is the absolute path of the folder, which is made if need be, and
// what removes it where it was temporary.
func dataFolder(name string) (dir string, remove func() error, err error) {
	if name == "" {
		dir, err = os.MkdirTemp("", "sidegate-demo-")
		return dir, func() error { return os.RemoveAll(dir) }, err
	}
	if dir, err = filepath.Abs(name); err == nil {
		err = os.MkdirAll(dir, 0o700)
	}
	return dir, func() error { return nil }, err
}

// start starts the parts in the order in which they need each other, and
// returns when the gateway is ready. What it started is ended by stop.
func start(ctx context.Context, dir string) (*demo, error) {
	d := &demo{dir: dir, ended: make(chan struct{})}
	err := d.start(ctx)
	if err != nil {
		return nil, errors.Join(err, d.stop())
	}
	return d, nil
}

func (d *demo) start(ctx context.Context) error {
	d.stopGateway = func() { close(d.ended) } // until there is one
	var err error
	if d.issuer, err = newIssuer(); err != nil {
		return err
	}
	if d.issuerURL, err = d.serve("127.0.0.1:9099", d.issuer); err != nil {
		return err
	}
	if d.appURL, err = d.serve("127.0.0.1:9000", newApp()); err != nil {
		return err
	}
	address, err := freeAddress("127.0.0.1:7070")
	if err != nil {
		return err
	}
	// Not of ctx: the store ends last, whoever was uploading.
	if d.store, err = startStore(context.WithoutCancel(ctx), filepath.Join(d.dir, "store"), address); err != nil {
		return err
	}
	if err := writePhoto(filepath.Join(d.dir, "photo.png")); err != nil {
		return err
	}
	if err := copyConfiguration(d.dir); err != nil {
		return err
	}
	return d.startGateway(ctx)
}

// startGateway runs the gateway as the sidegate program would, with its log in
// the data folder.
func (d *demo) startGateway(ctx context.Context) error {
	address, err := freeAddress("127.0.0.1:8080")
	if err != nil {
		return err
	}
	admin, err := freeAddress("127.0.0.1:9180")
	if err != nil {
		return err
	}
	log, err := os.Create(d.logFile())
	if err != nil {
		return fmt.Errorf("make the gateway's log: %w", err)
	}
	d.url, d.adminURL = "http://"+address, "http://"+admin
	ctx, d.stopGateway = context.WithCancel(context.WithoutCancel(ctx))
	go func() {
		defer close(d.ended)
		defer log.Close()
		d.gatewayErr = cmd.Run(ctx,
			[]string{"run", "--config", filepath.Join(d.dir, "sidegate.yaml"), "--insecure-keys", d.issuerURL + "/keys"},
			[]string{
				"DEMO_ADDRESS=" + address,
				"DEMO_ADMIN_ADDRESS=" + admin,
				"DEMO_APP_URL=" + d.appURL,
				"DEMO_STORE_URL=" + d.store.url,
				"DEMO_ACCESS_KEY=" + d.store.accessKey,
				"DEMO_SECRET_KEY=" + d.store.secretKey,
			}, log, log)
	}()
	if err := waitFor(ctx, d.adminURL+"/health/ready", d.ended); err != nil {
		return fmt.Errorf("start the gateway: %w; its log: %s", err, d.tellLog())
	}
	return nil
}

func (d *demo) logFile() string { return filepath.Join(d.dir, "gateway.log") }

// tellLog is what the gateway has logged, or why that is not known.
func (d *demo) tellLog() string {
	log, err := os.ReadFile(d.logFile())
	if err != nil {
		return err.Error()
	}
	return "\n" + string(log)
}

// wait returns when ctx is done, or with what went wrong when a part ends
// before that.
func (d *demo) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-d.ended:
		return fmt.Errorf("the gateway has ended; its log: %s", d.tellLog())
	case <-d.store.done:
		return errors.New("the store has ended")
	}
}

// stop ends the parts, the gateway first, so that it can finish what it does.
func (d *demo) stop() error {
	d.stopGateway()
	<-d.ended
	errs := []error{d.gatewayErr}
	for _, s := range d.servers {
		// Streams of the app never end by themselves.
		errs = append(errs, s.Close())
	}
	if d.store != nil {
		errs = append(errs, d.store.stop())
	}
	return errors.Join(errs...)
}

// serve starts a server at the address or, if that is taken, at another, and
// gives its URL.
func (d *demo) serve(address string, h http.Handler) (string, error) {
	l, err := listen(address)
	if err != nil {
		return "", err
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	d.servers = append(d.servers, s)
	go s.Serve(l)
	return "http://" + l.Addr().String(), nil
}

// listen listens at the address or, if that is taken, at a free port of the
// same host.
func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l, nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return net.Listen("tcp", net.JoinHostPort(host, "0"))
}

// freeAddress is an address nobody listens at, the given one if possible, for
// a part that listens by itself.
func freeAddress(preferred string) (string, error) {
	l, err := listen(preferred)
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// copyConfiguration writes the two files into dir, never over existing ones.
func copyConfiguration(dir string) error {
	for _, name := range []string{"sidegate.yaml", "policy.yaml"} {
		text, err := configuration.ReadFile(name)
		if err != nil {
			return err
		}
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			return fmt.Errorf("write the configuration: %w", err)
		}
	}
	return nil
}
