//! Which rows arrive when, and in what order.
//!
//! Rows are ordered by (arrival bucket, arrival, interval, meter, copy). Bucket `b` holds the arrivals in
//! [(b+1)·L, (b+2)·L): the interval that starts after interval `b` is complete. A shard's stream is that order
//! restricted to its meters, so a cursor (bucket, ordinal) is all that a restart needs. Back-fill and live are the
//! same stream; they differ only in whether the arrival lies in the past.

use std::sync::Arc;

use crate::{
    fleet::kind,
    noise::{Key, stream},
    run::Run,
};

/// Version of the emission order.
pub const EMISSION_VERSION: i32 = 1;

/// When the readings of a complete interval arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// The whole fleet at the interval's end.
    Uniform,
    /// Every meter at an offset of its own in [0, L), the same each interval but for a jitter of 5 s.
    Staggered,
    /// 98 % of the readings, each meter at an offset of its own in [0, 600 s); losses last for hours.
    Partial,
    /// 85 % of the readings, whole collectors missing, with delays in the mesh that change the order.
    Degraded,
}

impl Pattern {
    /// As in the RunSpec and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Staggered => "staggered",
            Self::Partial => "partial",
            Self::Degraded => "degraded",
        }
    }

    /// All patterns.
    pub const ALL: [Self; 4] = [Self::Uniform, Self::Staggered, Self::Partial, Self::Degraded];

    /// The pattern with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pattern| pattern.as_str() == name)
    }

    /// Documented share of the readings that arrive.
    pub const fn reporting_share(self) -> f64 {
        match self {
            Self::Uniform | Self::Staggered => 1.0,
            Self::Partial => 0.98,
            Self::Degraded => 0.85,
        }
    }

    /// Arrival of the reading of (meter, interval `k`), ms since the Unix epoch. Never before the interval is complete.
    pub fn arrival(self, seed: u64, meter: u32, k: i64, interval_ms: i64) -> i64 {
        let complete = (k + 1) * interval_ms;
        let key = Key::new(seed, kind::METER, u64::from(meter));
        let staggered = |window: i64| {
            let draws = key.stream(stream::STAGGER);
            let offset = (draws.uniform(-1) * window as f64) as i64;
            let jitter = (draws.uniform(k) * 10_001.0) as i64 - 5_000;
            (offset + jitter).clamp(0, window - 1)
        };
        complete
            + match self {
                Self::Uniform => 0,
                Self::Staggered => staggered(interval_ms),
                Self::Partial => staggered(interval_ms.min(600_000)),
                // Around the interval, so that late readings overtake early ones and all stay on time.
                Self::Degraded => (staggered(interval_ms) + mesh_delay(key, k)) % interval_ms,
            }
    }
}

/// Time in a congested mesh, ms: five times 2 s and 4 s a hop on average, 1 to 8 hops, fixed for a meter.
fn mesh_delay(key: Key, k: i64) -> i64 {
    let draws = key.stream(stream::MESH);
    let hops = 1.0 + (draws.uniform(-1) * draws.uniform(-2) * 8.0).floor();
    let exponential = -libm::log(1.0 - draws.uniform(k));
    (5_000.0 * (2.0 + 4.0 * hops * exponential)) as i64
}

/// One row to emit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Emit {
    /// Arrival, ms since the Unix epoch.
    pub arrival: i64,
    /// Interval index since the Unix epoch.
    pub interval: i64,
    /// Meter index.
    pub meter: u32,
}

/// Where a shard's stream stands: the next row is number `ordinal` of `bucket`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Arrival bucket.
    pub bucket: i64,
    /// Rows of the bucket before the next one.
    pub ordinal: u64,
}

/// Rows a run accounts for: `expected = on_time + late + estimated + lost` once it is finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accounting {
    /// Readings that arrived in the interval after their own.
    pub on_time: u64,
    /// Readings that arrived later.
    pub late: u64,
    /// Readings replaced by an estimate.
    pub estimated: u64,
    /// Readings withheld for good.
    pub lost: u64,
}

/// The rows of one arrival bucket of a set of meters, in emission order.
pub fn bucket(run: &Run, meters: &[u32], bucket: i64, rows: &mut Vec<Emit>) {
    rows.clear();
    let reporting = meters.iter().filter(|meter| run.reports(**meter, bucket));
    rows.extend(reporting.map(|&meter| Emit { arrival: run.arrival(meter, bucket), interval: bucket, meter }));
    if run.pattern() != Pattern::Uniform {
        rows.sort_unstable();
    }
}

/// The rows of one shard, in emission order, from a cursor on.
#[derive(Debug)]
pub struct ShardStream {
    run: Arc<Run>,
    meters: Vec<u32>,
    cursor: Cursor,
    on_time: u64,
    rows: Vec<Emit>,
}

impl ShardStream {
    /// The stream of `shard` from the first row.
    pub fn new(run: Arc<Run>, shard: i32) -> Self {
        let first = Cursor { bucket: run.first_interval(), ordinal: 0 };
        Self::resume(run, shard, first, 0)
    }

    /// The stream of `shard` from `cursor`, before which `on_time` rows were emitted.
    pub fn resume(run: Arc<Run>, shard: i32, cursor: Cursor, on_time: u64) -> Self {
        let meters = run.meters_of_shard(shard);
        let mut stream = Self { run, meters, cursor, on_time, rows: Vec::new() };
        stream.load();
        stream
    }

    /// The next row; `None` when the run is over.
    pub fn peek(&self) -> Option<Emit> {
        self.rows.get(self.cursor.ordinal as usize).copied()
    }

    /// Moves past the next row.
    pub fn advance(&mut self) {
        self.cursor.ordinal += 1;
        self.on_time += 1;
        if self.cursor.ordinal as usize == self.rows.len() {
            self.cursor = Cursor { bucket: self.cursor.bucket + 1, ordinal: 0 };
            self.load();
        }
    }

    /// Where the next row stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// What became of the readings up to the cursor; those of the cursor's own bucket are lost once it is over.
    pub fn accounting(&self) -> Accounting {
        let made = (self.cursor.bucket - self.run.first_interval()) as u64 * self.meters.len() as u64;
        Accounting { on_time: self.on_time, lost: made - (self.on_time - self.cursor.ordinal), ..Accounting::default() }
    }

    /// The rows of the cursor's bucket, or of the next one that has any.
    fn load(&mut self) {
        self.rows.clear();
        let end = if self.meters.is_empty() { None } else { Some(self.run.end_interval().unwrap_or(i64::MAX)) };
        while let Some(end) = end.filter(|end| self.rows.is_empty() && self.cursor.bucket < *end) {
            bucket(&self.run, &self.meters, self.cursor.bucket, &mut self.rows);
            if self.rows.is_empty() {
                self.cursor = Cursor { bucket: (self.cursor.bucket + 1).min(end), ordinal: 0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::run;

    #[test]
    fn shards_together_emit_every_reading_once_whatever_their_number() {
        for pattern in Pattern::ALL {
            let mut all = Vec::new();
            for shards in [1, 2, 7] {
                let run = Arc::new(run(50, 3, pattern, 8, shards));
                let mut seen = std::collections::BTreeSet::new();
                let mut lost = 0;
                for shard in 0..shards {
                    let mut stream = ShardStream::new(run.clone(), shard);
                    let mut last = None;
                    while let Some(emit) = stream.peek() {
                        assert!(last.is_none_or(|last| last < emit), "order");
                        last = Some(emit);
                        assert!(emit.arrival >= (emit.interval + 1) * 900_000, "complete before it arrives");
                        assert!(emit.arrival < (emit.interval + 2) * 900_000, "on time");
                        assert!(seen.insert((emit.meter, emit.interval)), "twice");
                        stream.advance();
                    }
                    lost += stream.accounting().lost;
                }
                assert_eq!(seen.len() as u64 + lost, 50 * 3 * 96, "{pattern:?}");
                assert_eq!(seen.len() as u64, run.rows(0..50, run.first_interval()..run.end_interval().unwrap()));
                assert_eq!(lost == 0, pattern.reporting_share() == 1.0, "{pattern:?}: {lost}");
                all.push(seen);
            }
            assert!(all.iter().all(|seen| *seen == all[0]), "{pattern:?}: the shard count changes nothing");
        }
    }

    #[test]
    fn a_stream_resumed_at_any_cursor_goes_on_with_the_same_rows() {
        for pattern in [Pattern::Staggered, Pattern::Degraded] {
            let run = Arc::new(run(20, 1, pattern, 4, 2));
            let mut whole = ShardStream::new(run.clone(), 1);
            while let Some(emit) = whole.peek() {
                let accounting = whole.accounting();
                let resumed = ShardStream::resume(run.clone(), 1, whole.cursor(), accounting.on_time);
                assert_eq!(resumed.peek(), Some(emit));
                assert_eq!(resumed.accounting(), accounting);
                whole.advance();
            }
        }
    }

    #[test]
    fn staggered_offsets_are_uniform_over_the_interval_and_steady_per_meter() {
        let interval = 900_000;
        let (meters, k) = (20_000, 1_963_584);
        let mut counts = [0u32; 18];
        for meter in 0..meters {
            let offset = |k: i64| Pattern::Staggered.arrival(9, meter, k, interval) - (k + 1) * interval;
            counts[(offset(k) / 50_000) as usize] += 1;
            assert!((offset(k) - offset(k + 1)).abs() <= 10_000);
        }
        let expected = f64::from(meters) / 18.0;
        let chi_square: f64 =
            counts.iter().map(|count| f64::from(*count) - expected).map(|excess| excess * excess / expected).sum();
        // 17 degrees of freedom: 40.8 is the 0.1 % point.
        assert!(chi_square < 40.8, "{chi_square} {counts:?}");
    }
}
