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
}

impl Pattern {
    /// As in the RunSpec and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Staggered => "staggered",
        }
    }

    /// The pattern with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Uniform, Self::Staggered].into_iter().find(|pattern| pattern.as_str() == name)
    }

    /// Arrival of the reading of (meter, interval `k`), ms since the Unix epoch. Never before the interval is complete.
    pub fn arrival(self, seed: u64, meter: u32, k: i64, interval_ms: i64) -> i64 {
        let complete = (k + 1) * interval_ms;
        match self {
            Self::Uniform => complete,
            Self::Staggered => {
                let draws = Key::new(seed, kind::METER, u64::from(meter)).stream(stream::STAGGER);
                let offset = (draws.uniform(-1) * interval_ms as f64) as i64;
                let jitter = (draws.uniform(k) * 10_001.0) as i64 - 5_000;
                complete + (offset + jitter).clamp(0, interval_ms - 1)
            }
        }
    }
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
    rows.extend(meters.iter().map(|&meter| Emit { arrival: run.arrival(meter, bucket), interval: bucket, meter }));
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
    rows: Vec<Emit>,
}

impl ShardStream {
    /// The stream of `shard` from `cursor`, or from the first row.
    pub fn new(run: Arc<Run>, shard: i32, cursor: Option<Cursor>) -> Self {
        let cursor = cursor.unwrap_or(Cursor { bucket: run.first_interval(), ordinal: 0 });
        let meters = run.meters_of_shard(shard);
        let mut stream = Self { run, meters, cursor, rows: Vec::new() };
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
        if self.cursor.ordinal as usize == self.rows.len() {
            self.cursor = Cursor { bucket: self.cursor.bucket + 1, ordinal: 0 };
            self.load();
        }
    }

    /// Where the next row stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// Rows from the start of the run up to the cursor.
    pub fn rows_before(&self) -> u64 {
        (self.cursor.bucket - self.run.first_interval()) as u64 * self.meters.len() as u64 + self.cursor.ordinal
    }

    fn load(&mut self) {
        self.rows.clear();
        let over = self.run.end_interval().is_some_and(|end| self.cursor.bucket >= end);
        if !over {
            bucket(&self.run, &self.meters, self.cursor.bucket, &mut self.rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::tests::run;

    #[test]
    fn shards_together_emit_every_meter_once_an_interval_whatever_their_number() {
        for pattern in [Pattern::Uniform, Pattern::Staggered] {
            for shards in [1, 2, 7] {
                let run = Arc::new(run(50, 3, pattern, 8, shards));
                let mut seen = std::collections::BTreeSet::new();
                for shard in 0..shards {
                    let mut stream = ShardStream::new(run.clone(), shard, None);
                    let mut last = None;
                    while let Some(emit) = stream.peek() {
                        assert!(last.is_none_or(|last| last < emit), "order");
                        last = Some(emit);
                        assert!(emit.arrival >= (emit.interval + 1) * 900_000, "complete before it arrives");
                        assert!(emit.arrival < (emit.interval + 2) * 900_000, "on time");
                        assert!(seen.insert((emit.meter, emit.interval)), "twice");
                        stream.advance();
                    }
                }
                assert_eq!(seen.len(), 50 * 3 * 96);
            }
        }
    }

    #[test]
    fn a_stream_resumed_at_any_cursor_goes_on_with_the_same_rows() {
        let run = Arc::new(run(20, 1, Pattern::Staggered, 4, 2));
        let mut whole = ShardStream::new(run.clone(), 1, None);
        let mut count = 0;
        while let Some(emit) = whole.peek() {
            let resumed = ShardStream::new(run.clone(), 1, Some(whole.cursor()));
            assert_eq!(resumed.peek(), Some(emit));
            assert_eq!(resumed.rows_before(), count);
            whole.advance();
            count += 1;
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
