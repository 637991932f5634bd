package proxy

import "errors"

var errUpstreamFull = errors.New("the upstream has as many requests as max_requests lets it have")

// enter takes a place among the requests that the upstream may have at once,
// until their answers have ended; a tunnel is one, too.
func (f *forwarder) enter() error {
	if busy := f.busy.Add(1); f.up.MaxRequests > 0 && busy > int64(f.up.MaxRequests) {
		f.leave()
		return unavailable("the app has too many requests now", errUpstreamFull)
	}
	return nil
}

func (f *forwarder) leave() { f.busy.Add(-1) }
