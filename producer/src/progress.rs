//! What the producer tells the world: metrics, health and the numbers of the status line.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::get,
};
use flux_generator::emission::Accounting;
use flux_service::{health::Health, settings::Secret};
use prometheus::{Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};
use serde::{Deserialize, Serialize};

use crate::pace::RateLimit;

/// Shared by all shards of a process.
#[derive(Debug)]
pub struct Telemetry {
    /// Health of the role.
    pub health: Health,
    /// The rate limit of the process.
    pub limit: RateLimit,
    committed: AtomicU64,
    caught_up: Mutex<BTreeSet<i32>>,
    lag_ms: AtomicI64,
    records: IntCounter,
    bytes: IntCounter,
    outcomes: IntCounterVec,
    events: IntCounter,
    transactions: IntCounterVec,
    delivery: Histogram,
    queued: IntGauge,
    lateness: Histogram,
    lag: Gauge,
}

impl Telemetry {
    /// Registers the role's metrics.
    ///
    /// # Errors
    /// When a metric of that name is registered already.
    pub fn new(metrics: &Registry, health: Health, rate: u32) -> Result<Arc<Self>, prometheus::Error> {
        let telemetry = Self {
            health,
            limit: RateLimit::new(rate),
            committed: AtomicU64::new(0),
            caught_up: Mutex::default(),
            lag_ms: AtomicI64::new(0),
            records: IntCounter::new("flux_producer_records_total", "Readings committed to Kafka by this process.")?,
            bytes: IntCounter::new("flux_producer_bytes_total", "Bytes of the values of those readings.")?,
            outcomes: IntCounterVec::new(
                Opts::new(
                    "flux_producer_readings_total",
                    "What became of readings, as this process passed them: on_time, late, estimated, lost; and rows beside them: revised, duplicate.",
                ),
                &["outcome"],
            )?,
            events: IntCounter::new("flux_producer_events_total", "Meter events committed to Kafka by this process.")?,
            delivery: Histogram::with_opts(
                HistogramOpts::new(
                    "flux_producer_delivery_latency_seconds",
                    "From the first reading of a transaction to its commit.",
                )
                .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0]),
            )?,
            queued: IntGauge::new(
                "flux_producer_queue_messages",
                "Records in the Kafka client, of one shard, when its last transaction was full or due.",
            )?,
            transactions: IntCounterVec::new(
                Opts::new("flux_producer_transactions_total", "Kafka transactions by how they ended."),
                &["result"],
            )?,
            lateness: Histogram::with_opts(
                HistogramOpts::new(
                    "flux_producer_lateness_seconds",
                    "Live readings: offered to Kafka after their due time.",
                )
                .buckets(vec![0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0]),
            )?,
            lag: Gauge::new("flux_producer_lag_seconds", "How far the next reading is behind its due time.")?,
        };
        metrics.register(Box::new(telemetry.records.clone()))?;
        metrics.register(Box::new(telemetry.bytes.clone()))?;
        metrics.register(Box::new(telemetry.outcomes.clone()))?;
        metrics.register(Box::new(telemetry.events.clone()))?;
        metrics.register(Box::new(telemetry.delivery.clone()))?;
        metrics.register(Box::new(telemetry.queued.clone()))?;
        metrics.register(Box::new(telemetry.transactions.clone()))?;
        metrics.register(Box::new(telemetry.lateness.clone()))?;
        metrics.register(Box::new(telemetry.lag.clone()))?;
        Ok(Arc::new(telemetry))
    }

    /// A transaction is about to be committed, with this many records in the client.
    pub fn queued(&self, records: usize) {
        self.queued.set(records as i64);
    }

    /// A transaction of `bytes` bytes was committed, `age` after it began; what was accounted for moved from `before` to
    /// `after`.
    pub fn committed(&self, bytes: u64, before: &Accounting, after: &Accounting, age: Duration) {
        let readings = after.readings() - before.readings();
        self.committed.fetch_add(readings, Relaxed);
        self.records.inc_by(readings);
        self.bytes.inc_by(bytes);
        for (outcome, count) in [
            ("on_time", after.on_time - before.on_time),
            ("late", after.late - before.late),
            ("estimated", after.estimated - before.estimated),
            ("lost", after.lost - before.lost),
            ("revised", after.revised - before.revised),
            ("duplicate", after.duplicates - before.duplicates),
        ] {
            self.outcomes.with_label_values(&[outcome]).inc_by(count);
        }
        self.events.inc_by(after.events - before.events);
        self.delivery.observe(age.as_secs_f64());
        self.transactions.with_label_values(&["committed"]).inc();
        self.health.progressed();
    }

    /// A transaction was given up; its rows are generated again.
    pub fn abandoned(&self) {
        self.transactions.with_label_values(&["abandoned"]).inc();
    }

    /// A live reading was offered this long after it was due.
    pub fn offered_late(&self, ms: i64) {
        self.lateness.observe(ms as f64 / 1000.0);
    }

    /// How far the next reading is behind, ms; 0 when it is not due yet.
    pub fn lag(&self, ms: i64) {
        self.lag_ms.store(ms, Relaxed);
        self.lag.set(ms as f64 / 1000.0);
    }

    /// Everything of this shard that was due is committed.
    pub fn caught_up(&self, shard: i32) {
        self.caught_up.lock().unwrap_or_else(PoisonError::into_inner).insert(shard);
    }

    /// Shards whose back-fill is done.
    pub fn shards_caught_up(&self) -> usize {
        self.caught_up.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Rows committed by this process.
    pub fn rows(&self) -> u64 {
        self.committed.load(Relaxed)
    }

    /// How far behind, seconds.
    pub fn lag_seconds(&self) -> f64 {
        self.lag_ms.load(Relaxed) as f64 / 1000.0
    }
}

/// `GET /rate` and `PUT /rate {"rows_per_second": 500}`.
pub fn routes(telemetry: Arc<Telemetry>, token: Option<Secret>) -> Router {
    Router::new().route("/rate", get(rate).put(set_rate)).with_state((telemetry, token.map(Arc::new)))
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rate {
    rows_per_second: u32,
}

type Shared = (Arc<Telemetry>, Option<Arc<Secret>>);

async fn rate(State((telemetry, _)): State<Shared>) -> Json<Rate> {
    Json(Rate { rows_per_second: telemetry.limit.rate() })
}

async fn set_rate(
    State((telemetry, token)): State<Shared>,
    headers: HeaderMap,
    Json(rate): Json<Rate>,
) -> Result<Json<Rate>, StatusCode> {
    if let Some(token) = token {
        let given = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        if given != Some(token.expose()) {
            return Err(StatusCode::UNAUTHORIZED);
        }
    }
    telemetry.limit.set(rate.rows_per_second);
    tracing::info!(rows_per_second = rate.rows_per_second, "rate limit changed");
    Ok(Json(rate))
}
