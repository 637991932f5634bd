package cmd

import (
	"errors"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
)

// connectionMetrics tell of connections, and of what comes to no request.
type connectionMetrics struct {
	open       *prometheus.GaugeVec
	total      *prometheus.CounterVec
	framings   *prometheus.CounterVec
	most       prometheus.Gauge
	full       prometheus.Counter
	handshakes prometheus.Counter
}

func newConnectionMetrics(r prometheus.Registerer) *connectionMetrics {
	m := &connectionMetrics{
		open:       prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sidegate_connections", Help: "Connections that are open, by listener; those of WebSockets included."}, []string{"listener"}),
		total:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sidegate_connections_total", Help: "Connections that were accepted, by listener."}, []string{"listener"}),
		framings:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sidegate_framing_refused_total", Help: "Connections that were ended since a request's framing was ambiguous or broken, by listener."}, []string{"listener"}),
		most:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "sidegate_connections_max", Help: "listen.max_connections: how many of the listener public may be open; 0: there is no bound."}),
		full:       prometheus.NewCounter(prometheus.CounterOpts{Name: "sidegate_connections_full_total", Help: "Times that all of listen.max_connections came to be open, so that the next had to wait."}),
		handshakes: prometheus.NewCounter(prometheus.CounterOpts{Name: "sidegate_tls_handshake_failures_total", Help: "TLS handshakes that came to no end, or not in time."}),
	}
	r.MustRegister(m.open, m.total, m.framings, m.most, m.full, m.handshakes)
	return m
}

// counting is a listener whose connections are counted.
func (m *connectionMetrics) counting(l net.Listener, name string) net.Listener {
	return &countingListener{l, m.open.WithLabelValues(name), m.total.WithLabelValues(name)}
}

// framing counts what proxy.StrictFraming refuses.
func (m *connectionMetrics) framing(name string) func() { return m.framings.WithLabelValues(name).Inc }

type countingListener struct {
	net.Listener
	open  prometheus.Gauge
	total prometheus.Counter
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.total.Inc()
	l.open.Inc()
	return &countedConn{Conn: conn, open: l.open}, nil
}

// A countedConn can still be ended in one direction alone, as limitedConn.
type countedConn struct {
	net.Conn
	open prometheus.Gauge
	left atomic.Bool
}

func (c *countedConn) Close() error {
	defer func() {
		if !c.left.Swap(true) {
			c.open.Dec()
		}
	}()
	return c.Conn.Close()
}

// SyscallConn is for large answers, which pass within the kernel.
func (c *countedConn) SyscallConn() (syscall.RawConn, error) {
	if raw, ok := c.Conn.(syscall.Conn); ok {
		return raw.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

func (c *countedConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}
