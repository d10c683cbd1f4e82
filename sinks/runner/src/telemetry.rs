//! What a sink tells the world. Metric names are those of every sink; the label `sink` tells them apart.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use flux_schemas::{source::Position, time::Timestamp};
use flux_service::health::Health;
use prometheus::{
    GaugeVec, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// A live reading older than this when it was produced is back-fill: it was never due in real time.
const BACKFILL_AGE_MS: i64 = 2 * 3_600_000;

/// One partition as the status line sees it.
#[derive(Debug, Clone, Copy, Default)]
struct PartitionState {
    durable: u64,
    end: u64,
    pending: bool,
}

/// Shared by all partitions of a process.
#[derive(Debug)]
pub struct Telemetry {
    /// Health of the role.
    pub health: Health,
    rows: AtomicU64,
    partitions: Mutex<BTreeMap<i32, PartitionState>>,
    records: IntCounter,
    bytes: IntCounter,
    units: HistogramVec,
    unit_bytes: HistogramVec,
    errors: IntCounterVec,
    buffered: IntGauge,
    flush: HistogramVec,
    latency: HistogramVec,
    retries: IntCounterVec,
    dead_letters: IntCounter,
    rebalances: IntCounter,
    committed: IntGaugeVec,
    lag: IntGaugeVec,
    success: GaugeVec,
    sink: String,
}

impl Telemetry {
    /// Registers the sink's metrics.
    ///
    /// # Errors
    /// When a metric of that name is registered already.
    pub fn new(metrics: &Registry, health: Health, sink: &str, records: &str) -> Result<Arc<Self>, prometheus::Error> {
        let labelled =
            |name: &str, help: &str| Opts::new(name, help).const_label("sink", sink).const_label("records", records);
        let histogram = |name: &str, help: &str, buckets: &[f64]| {
            HistogramOpts::new(name, help)
                .const_label("sink", sink)
                .const_label("records", records)
                .buckets(buckets.to_vec())
        };
        let telemetry = Self {
            health,
            rows: AtomicU64::new(0),
            partitions: Mutex::default(),
            records: IntCounter::with_opts(labelled(
                "flux_sink_records_total",
                "Readings durable at the destination.",
            ))?,
            bytes: IntCounter::with_opts(labelled(
                "flux_sink_bytes_total",
                "Bytes of those readings as held in memory.",
            ))?,
            units: HistogramVec::new(
                histogram(
                    "flux_sink_batch_records",
                    "Readings in a submitted unit.",
                    &[1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6],
                ),
                &[],
            )?,
            unit_bytes: HistogramVec::new(
                histogram(
                    "flux_sink_batch_bytes",
                    "Bytes of a submitted unit as held in memory.",
                    &[1e3, 1e4, 1e5, 1e6, 4e6, 1.6e7, 6.4e7],
                ),
                &[],
            )?,
            errors: IntCounterVec::new(
                labelled(
                    "flux_sink_errors_total",
                    "Claims that ended early: fenced, unknown outcome or refused rows; and broken.",
                ),
                &["kind"],
            )?,
            buffered: IntGauge::with_opts(labelled(
                "flux_sink_buffer_records",
                "Readings handed over and not yet durable.",
            ))?,
            flush: HistogramVec::new(
                histogram(
                    "flux_sink_flush_duration_seconds",
                    "Time to hand a unit over.",
                    &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0],
                ),
                &["outcome"],
            )?,
            latency: HistogramVec::new(
                histogram(
                    "flux_sink_end_to_end_latency_seconds",
                    "Durable minus due, of the oldest reading of each unit; back-fill has a series of its own.",
                    &[0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0],
                ),
                &["kind"],
            )?,
            retries: IntCounterVec::new(
                labelled("flux_sink_retries_total", "Attempts that were repeated."),
                &["reason"],
            )?,
            dead_letters: IntCounter::with_opts(labelled("flux_dlq_records_total", "Records set aside."))?,
            rebalances: IntCounter::with_opts(labelled(
                "flux_consumer_rebalances_total",
                "Assignments and revocations.",
            ))?,
            committed: IntGaugeVec::new(
                labelled("flux_sink_committed_offset", "Durable position."),
                &["topic", "partition"],
            )?,
            lag: IntGaugeVec::new(
                labelled(
                    "flux_consumer_lag_records",
                    "Offsets between the durable position and the log's end; control records count.",
                ),
                &["topic", "partition"],
            )?,
            success: GaugeVec::new(
                labelled("flux_sink_last_success_timestamp_seconds", "Unix time of the last durable unit."),
                &[],
            )?,
            sink: sink.into(),
        };
        let all: [Box<dyn prometheus::core::Collector>; 14] = [
            Box::new(telemetry.records.clone()),
            Box::new(telemetry.bytes.clone()),
            Box::new(telemetry.units.clone()),
            Box::new(telemetry.unit_bytes.clone()),
            Box::new(telemetry.errors.clone()),
            Box::new(telemetry.buffered.clone()),
            Box::new(telemetry.flush.clone()),
            Box::new(telemetry.latency.clone()),
            Box::new(telemetry.retries.clone()),
            Box::new(telemetry.dead_letters.clone()),
            Box::new(telemetry.rebalances.clone()),
            Box::new(telemetry.committed.clone()),
            Box::new(telemetry.lag.clone()),
            Box::new(telemetry.success.clone()),
        ];
        all.into_iter().try_for_each(|collector| metrics.register(collector))?;
        Ok(Arc::new(telemetry))
    }

    /// The sink's name.
    pub fn sink(&self) -> &str {
        &self.sink
    }

    fn partition(&self, partition: i32, change: impl FnOnce(&mut PartitionState)) {
        let mut partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        change(partitions.entry(partition).or_default());
        let pending = partitions.values().any(|state| state.pending);
        drop(partitions);
        self.health.pending(pending);
    }

    /// A unit became durable.
    pub fn durable(
        &self,
        topic: &str,
        partition: i32,
        position: Position,
        rows: u64,
        bytes: usize,
        oldest: Option<(Timestamp, Timestamp)>,
    ) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.rows.fetch_add(rows, Relaxed);
        self.records.inc_by(rows);
        self.bytes.inc_by(bytes as u64);
        self.committed.with_label_values(&[topic, &partition.to_string()]).set(position.0 as i64);
        self.success.with_label_values::<&str>(&[]).set(now.as_secs_f64());
        if let Some((due, reading)) = oldest {
            let kind = if due.0 - reading.0 > BACKFILL_AGE_MS { "backfill" } else { "live" };
            let latency = (now.as_millis() as i64 - due.0).max(0) as f64 / 1000.0;
            self.latency.with_label_values(&[kind]).observe(latency);
        }
        self.partition(partition, |state| state.durable = position.0);
        self.health.progressed();
    }

    /// A unit was handed over: from now on its rows wait to become durable.
    pub fn accepted(&self, rows: u64, bytes: usize, took: Duration) {
        self.units.with_label_values::<&str>(&[]).observe(rows as f64);
        self.unit_bytes.with_label_values::<&str>(&[]).observe(bytes as f64);
        self.flush.with_label_values(&["accepted"]).observe(took.as_secs_f64());
    }

    /// A unit was not handed over; it is tried again.
    pub fn unavailable(&self, took: Duration) {
        self.flush.with_label_values(&["unavailable"]).observe(took.as_secs_f64());
        self.retried("unavailable");
    }

    /// So many more readings are held (or fewer).
    pub fn buffered(&self, change: i64) {
        self.buffered.add(change);
    }

    /// A claim ended early.
    pub fn failed(&self, kind: &str) {
        self.errors.with_label_values(&[kind]).inc();
    }

    /// The partition has records that are not durable yet.
    pub fn pending(&self, partition: i32, pending: bool) {
        self.partition(partition, |state| state.pending = pending);
    }

    /// The log's end as last seen.
    pub fn log_end(&self, topic: &str, partition: i32, end: u64) {
        self.partition(partition, |state| state.end = end);
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        let lag = partitions.get(&partition).map_or(0, |state| state.end.saturating_sub(state.durable));
        drop(partitions);
        self.lag.with_label_values(&[topic, &partition.to_string()]).set(lag as i64);
    }

    /// The partition went to somebody else.
    pub fn released(&self, topic: &str, partition: i32) {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
        let label = partition.to_string();
        for gauge in [&self.committed, &self.lag] {
            // Absent when nothing was reported yet.
            gauge.remove_label_values(&[topic, &label]).ok();
        }
        self.partition(partition, |state| *state = PartitionState::default());
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner).remove(&partition);
    }

    /// An attempt is repeated.
    pub fn retried(&self, reason: &str) {
        self.retries.with_label_values(&[reason]).inc();
    }

    /// A record was set aside.
    pub fn dead_lettered(&self) {
        self.dead_letters.inc();
    }

    /// The group was rebalanced.
    pub fn rebalanced(&self) {
        self.rebalances.inc();
    }

    /// Rows made durable by this process.
    pub fn rows(&self) -> u64 {
        self.rows.load(Relaxed)
    }

    /// Records set aside by this process.
    pub fn dead_letters(&self) -> u64 {
        self.dead_letters.get()
    }

    /// Offsets between durable and the log's end, over all partitions; an estimate, control records count.
    pub fn lag(&self) -> u64 {
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.values().filter(|state| state.pending).map(|state| state.end.saturating_sub(state.durable)).sum()
    }

    /// Durable positions by partition.
    pub fn positions(&self) -> Vec<(i32, u64)> {
        let partitions = self.partitions.lock().unwrap_or_else(PoisonError::into_inner);
        partitions.iter().map(|(partition, state)| (*partition, state.durable)).collect()
    }
}
