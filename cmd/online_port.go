package cmd

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
)

// runningGateway says, once for all probes, whether a gateway answers at these
// files' admin address: then its ports and folders are taken by right.
func runningGateway(s settings) func(ctx context.Context) bool {
	var once sync.Once
	var runs bool
	return func(ctx context.Context) bool {
		once.Do(func() {
			if at, err := dialableAddress(s.config.AdminAddress); err == nil {
				runs = answersAsGateway(ctx, at)
			}
		})
		return runs
	}
}

// answersAsGateway asks for the version, which nothing else gives in this form.
func answersAsGateway(ctx context.Context, address string) bool {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/version", nil)
	if err != nil {
		return false
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy: this machine is asked
	res, err := client.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	var b build
	return res.StatusCode == http.StatusOK && json.NewDecoder(io.LimitReader(res.Body, 4<<10)).Decode(&b) == nil &&
		b.Version != "" && strings.HasPrefix(b.Go, "go") && strings.Contains(b.Platform, "/")
}

// portProbes ask for each address that the gateway is to listen on.
func portProbes(s settings, running func(context.Context) bool) []probe {
	c := s.config
	public := "listen.address " + c.Listen.Address
	if port := s.env.get("PORT"); port != "" && c.Listen.Address == ":"+port {
		public = "$PORT " + port
	}
	out := []probe{
		portProbe("port", public, c.Listen.Address, running),
		portProbe("admin.port", "admin.address "+c.AdminAddress, c.AdminAddress, running),
	}
	if at := c.ForwardAuth.Address; at != "" {
		out = append(out, portProbe("forward_auth.port", "forward_auth.address "+at, at, running))
	}
	return out
}

func portProbe(id, what, address string, running func(context.Context) bool) probe {
	return single(id, "", func(ctx context.Context, b probe) check {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
		if err == nil {
			if err = l.Close(); err == nil {
				return b.pass("%s can be listened on", what)
			}
		}
		key, _, _ := strings.Cut(what, " ")
		switch {
		case errors.Is(err, syscall.EADDRINUSE) && running(ctx):
			return b.warn("nothing, if these are that gateway's files; another gateway on this machine needs addresses of its own in sidegate.yaml",
				"%s is taken: a gateway runs here", what)
		case errors.Is(err, syscall.EADDRINUSE):
			_, port, _ := net.SplitHostPort(address)
			return b.fails("see which process listens there (`ss -ltnp 'sport = :"+port+"'`) and stop it, or choose another "+key, "%s is taken by another process", what)
		case errors.Is(err, syscall.EACCES):
			return b.fails("choose a port from 1024 up, or grant the privilege CAP_NET_BIND_SERVICE", "%s may not be listened on by this user", what)
		case errors.Is(err, syscall.EADDRNOTAVAIL):
			return b.fails("name an address of this machine (`ip addr` lists them), or only the port, as in \":8080\"", "%s is no address of this machine", what)
		}
		return b.fails("choose another "+key, "%s cannot be listened on: %v", what, err)
	})
}
