package cmd

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sidegate/storage/audit"
)

// auditMetrics tell how the audit log does. All of one reading are of one moment.
type auditMetrics struct {
	ledger *audit.Ledger
	room   int64 // bytes that may wait for Firestore; 0: nothing is shipped
}

// An auditMetric is one number of the audit log's Stats.
type auditMetric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(s *audit.Stats) float64
}

func auditGauge(name, help string, of func(*audit.Stats) float64) auditMetric {
	return auditMetric{prometheus.NewDesc(name, help, nil, nil), prometheus.GaugeValue, of}
}

func auditCounter(name, help string, of func(*audit.Stats) float64) auditMetric {
	return auditMetric{prometheus.NewDesc(name, help, nil, nil), prometheus.CounterValue, of}
}

// What is written here.
var ledgerMetrics = []auditMetric{
	auditCounter("sidegate_audit_events_total", "Events written to the ledger since it was begun.", func(s *audit.Stats) float64 { return float64(s.Seq) }),
	auditCounter("sidegate_audit_fsyncs_total", "Fsyncs of the ledger since the start.", func(s *audit.Stats) float64 { return float64(s.Fsyncs) }),
	auditCounter("sidegate_audit_lost_total", "Events that a failing disk took since the start.", func(s *audit.Stats) float64 { return float64(s.LostAll) }),
	auditGauge("sidegate_audit_chain_seq", "Seq of the last event of the chain.", func(s *audit.Stats) float64 { return float64(s.Seq) }),
	auditGauge("sidegate_audit_checkpoint_seq", "Seq of the checkpoint in head.note; 0: none was made since the start.", func(s *audit.Stats) float64 { return float64(s.Checkpoint) }),
	auditGauge("sidegate_audit_checkpoint_failing", "1 while checkpoints cannot be written, in the folder or in Firestore.", func(s *audit.Stats) float64 { return boolToFloat(s.CheckpointError != nil || s.HeadError != nil) }),
	auditGauge("sidegate_audit_retention_failing", "1 while old segments are not deleted.", func(s *audit.Stats) float64 { return boolToFloat(s.RetentionError != nil) }),
	auditGauge("sidegate_audit_copy_lag_events", "Events that are not yet in the copy of the ledger on standard output; 0 without one.", func(s *audit.Stats) float64 { return float64(s.CopyLag) }),
	auditGauge("sidegate_audit_queued_bytes", "Bytes of events that wait to be written to the ledger.", func(s *audit.Stats) float64 { return float64(s.Queued) }),
}

// What is shipped; without Firestore all of them are 0.
var shippingMetrics = []auditMetric{
	auditCounter("sidegate_audit_shipped_total", "Events shipped to Firestore since the start.", func(s *audit.Stats) float64 { return float64(s.ShippedHere) }),
	auditGauge("sidegate_audit_last_shipped_timestamp_seconds", "When events were last shipped; 0: not since the start.", func(s *audit.Stats) float64 { return unixSeconds(s.ShippedAt) }),
	auditGauge("sidegate_audit_checkpoint_shipped_seq", "Seq of the newest checkpoint in Firestore; 0: none since the start.", func(s *audit.Stats) float64 { return float64(s.Head) }),
	auditGauge("sidegate_audit_waiting_bytes", "Bytes of events that wait for Firestore.", func(s *audit.Stats) float64 { return float64(s.Waiting) }),
	auditGauge("sidegate_audit_lag_events", "Events that wait for Firestore.", func(s *audit.Stats) float64 { return float64(unshipped(s)) }),
	auditGauge("sidegate_audit_lag_seconds", "Age of the oldest event that waits for Firestore.", func(s *audit.Stats) float64 { return s.Lag.Seconds() }),
	auditGauge("sidegate_audit_outage", "1 while Firestore does not take events.", func(s *audit.Stats) float64 { return boolToFloat(s.Outage != nil) }),
	auditGauge("sidegate_audit_unstorable", "Events in the dead-letter file since the start.", func(s *audit.Stats) float64 { return float64(s.Unstorable) }),
}

var (
	auditRoom     = prometheus.NewDesc("sidegate_audit_waiting_max_bytes", "Bytes of events that may wait for Firestore (audit.max_size).", nil, nil)
	auditHealthy  = prometheus.NewDesc("sidegate_audit_healthy", "1 while the ledger can be written.", nil, nil)
	auditChain    = prometheus.NewDesc("sidegate_audit_chain_info", "1; the chain's id is the label.", []string{"chain"}, nil)
	auditFailures = prometheus.NewDesc("sidegate_audit_ship_failures_total", "Tries to ship that failed, by kind.", []string{"kind"}, nil)
)

func (m auditMetrics) Describe(descriptions chan<- *prometheus.Desc) {
	for _, list := range [][]auditMetric{ledgerMetrics, shippingMetrics} {
		for _, a := range list {
			descriptions <- a.desc
		}
	}
	descriptions <- auditRoom
	descriptions <- auditHealthy
	descriptions <- auditChain
	descriptions <- auditFailures
}

func (m auditMetrics) Collect(metrics chan<- prometheus.Metric) {
	s := m.ledger.Stats()
	for _, list := range [][]auditMetric{ledgerMetrics, shippingMetrics} {
		for _, a := range list {
			metrics <- prometheus.MustNewConstMetric(a.desc, a.kind, a.of(&s))
		}
	}
	metrics <- prometheus.MustNewConstMetric(auditRoom, prometheus.GaugeValue, float64(m.room))
	metrics <- prometheus.MustNewConstMetric(auditHealthy, prometheus.GaugeValue, boolToFloat(m.ledger.Healthy() == nil))
	metrics <- prometheus.MustNewConstMetric(auditChain, prometheus.GaugeValue, 1, s.Chain)
	for kind, n := range s.Failures {
		metrics <- prometheus.MustNewConstMetric(auditFailures, prometheus.CounterValue, float64(n), kind)
	}
}

// unshipped is how many events wait for Firestore; without it none does.
func unshipped(s *audit.Stats) uint64 {
	if s.Waiting == 0 {
		return 0
	}
	return s.Seq - s.Shipped
}

func unixSeconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
