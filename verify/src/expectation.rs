//! Which readings must be there.
//!
//! A finished run must be there completely. A run that is still going is judged as of the ledger: rows before each
//! shard's cursor must be there, rows after it may be, and are judged for value and number only.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use flux_generator::{
    emission::{self, Cursor},
    run::Run,
};
use flux_schemas::run::Progress;

/// What a place is compared with.
#[derive(Debug)]
pub struct Expectation {
    run: Arc<Run>,
    /// By shard: everything before it must be there.
    cursors: Vec<Cursor>,
    /// Meters whose row of the cursor's own bucket lies before the cursor.
    partial: HashSet<u32>,
    /// By partition: the end of the run's committed rows.
    ends: BTreeMap<i32, i64>,
    /// Intervals from this index on are not judged.
    horizon: i64,
    /// First index interval after everything that must be there.
    must_end: i64,
    finished: bool,
}

impl Expectation {
    /// From the ledger's progress; a shard without any has emitted nothing.
    pub fn new(run: Arc<Run>, progress: &BTreeMap<i32, Progress>, before_interval: Option<i64>) -> Self {
        let first = run.first_interval();
        let shards = run.spec().shards;
        let cursors: Vec<Cursor> = (0..shards)
            .map(|shard| {
                progress.get(&shard).map_or(Cursor { bucket: first, ordinal: 0 }, |progress| Cursor {
                    bucket: progress.bucket,
                    ordinal: progress.ordinal as u64,
                })
            })
            .collect();
        let mut partial = HashSet::new();
        let mut rows = Vec::new();
        for (shard, cursor) in cursors.iter().enumerate().filter(|(_, cursor)| cursor.ordinal > 0) {
            emission::bucket(&run, &run.meters_of_shard(shard as i32), cursor.bucket, &mut rows);
            partial.extend(rows.iter().take(cursor.ordinal as usize).map(|emit| emit.meter));
        }
        let mut ends = BTreeMap::new();
        for end in progress.values().flat_map(|progress| &progress.ends) {
            ends.insert(end.partition, end.end);
        }
        let horizon = before_interval.unwrap_or(i64::MAX);
        let furthest =
            cursors.iter().map(|cursor| cursor.bucket + i64::from(cursor.ordinal > 0)).max().unwrap_or(first);
        let finished = (0..shards).all(|shard| progress.get(&shard).is_some_and(|progress| progress.finished));
        Self { run, cursors, partial, ends, horizon, must_end: furthest.min(horizon), finished }
    }

    /// The run.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// Whether the run has emitted everything.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// The ledger's cursor of each shard, for the report.
    pub fn cursors(&self) -> &[Cursor] {
        &self.cursors
    }

    /// The offset after the run's last committed row, by partition.
    pub fn ends(&self) -> &BTreeMap<i32, i64> {
        &self.ends
    }

    /// Intervals that hold anything that must be there: [first, end).
    pub fn intervals(&self) -> std::ops::Range<i64> {
        self.run.first_interval()..self.must_end
    }

    /// Whether intervals of this index are judged at all.
    pub fn judges(&self, interval: i64) -> bool {
        interval < self.horizon
    }

    /// Whether the reading must be there.
    pub fn must(&self, meter: u32, interval: i64) -> bool {
        if interval < self.run.first_interval() || interval >= self.must_end {
            return false;
        }
        let cursor = self.cursors[self.run.shard(meter) as usize];
        let emitted = interval < cursor.bucket || (interval == cursor.bucket && self.partial.contains(&meter));
        emitted && self.run.reports(meter, interval)
    }

    /// Readings that must be there.
    pub fn expected(&self) -> u64 {
        let first = self.run.first_interval();
        let whole: u64 = self
            .cursors
            .iter()
            .enumerate()
            .map(|(shard, cursor)| {
                let meters = self.run.meters_of_shard(shard as i32);
                self.run.rows(meters.iter().copied(), first..cursor.bucket.min(self.horizon))
            })
            .sum();
        let partial =
            self.partial.iter().filter(|meter| self.cursors[self.run.shard(**meter) as usize].bucket < self.horizon);
        whole + partial.count() as u64
    }

    /// Most bytes that counting can take: two bits a reading that must or may be there.
    pub fn memory_bound(&self) -> u64 {
        let intervals = (self.must_end - self.run.first_interval() + 1).max(0) as u64;
        intervals * u64::from(self.run.fleet().len()) / 4 + (1 << 20)
    }
}
