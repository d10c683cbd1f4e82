//! Which rows arrive when, and in what order.
//!
//! Rows are ordered by (arrival, interval, meter, kind). Bucket `b` holds the arrivals in [(b+1)·L, (b+2)·L): the interval
//! that starts after interval `b` is complete. A shard's stream is that order restricted to its meters, so a cursor
//! (bucket, ordinal) is all that a restart needs. Back-fill, live, late rows, copies, events and the fleet itself are one
//! stream; whether an arrival lies in the past changes nothing.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    comms::LONGEST_DELAY_MS,
    events::{Event, Events},
    fleet::kind,
    model::Contexts,
    noise::{Key, stream},
    outage,
    run::Run,
};

/// Version of the emission order.
pub const EMISSION_VERSION: i32 = 2;

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

    /// As in EMISSION_PATTERN.
    pub const fn symbol(self) -> &'static str {
        match self {
            Self::Uniform => "UNIFORM",
            Self::Staggered => "STAGGERED",
            Self::Partial => "PARTIAL",
            Self::Degraded => "DEGRADED",
        }
    }

    /// All patterns.
    pub const ALL: [Self; 4] = [Self::Uniform, Self::Staggered, Self::Partial, Self::Degraded];

    /// The pattern with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|pattern| pattern.as_str() == name)
    }

    /// Documented share of the readings that arrive on time.
    pub const fn reporting_share(self) -> f64 {
        match self {
            Self::Uniform | Self::Staggered => 1.0,
            Self::Partial => 0.98,
            Self::Degraded => 0.85,
        }
    }

    /// Chance that a reading is sent again, where duplicates are asked for.
    const fn copy_share(self) -> f64 {
        match self {
            Self::Uniform | Self::Staggered => 5e-4,
            Self::Partial => 2e-3,
            Self::Degraded => 1e-2,
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

    /// How long after a reading its copy arrives, ms, if it has one.
    pub(crate) fn copy_delay(self, seed: u64, meter: u32, k: i64) -> Option<i64> {
        let draws = Key::new(seed, kind::METER, u64::from(meter)).stream(stream::DUPLICATE);
        let again = draws.uniform(2 * k) < self.copy_share();
        again.then(|| 5_000 + (draws.uniform(2 * k + 1) * 295_000.0) as i64)
    }
}

/// Time in a congested mesh, ms: five times 2 s and 4 s a hop on average, 1 to 8 hops, fixed for a meter.
fn mesh_delay(key: Key, k: i64) -> i64 {
    let draws = key.stream(stream::MESH);
    let hops = 1.0 + (draws.uniform(-1) * draws.uniform(-2) * 8.0).floor();
    let exponential = -libm::log(1.0 - draws.uniform(k));
    (5_000.0 * (2.0 + 4.0 * hops * exponential)) as i64
}

/// What a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A thing of the grid; `meter` is its number among all assets.
    Asset,
    /// A reading, on time.
    Reading,
    /// A reading that arrives later.
    Late,
    /// An estimate for a reading that did not arrive.
    Estimate,
    /// The reading that replaces an estimate.
    Revised,
    /// A reading that was sent again.
    Copy,
    /// An event; `interval` is its number in the bucket.
    Event,
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
    /// What it is.
    pub kind: Kind,
}

/// Where a shard's stream stands: the next row is number `ordinal` of `bucket`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cursor {
    /// Arrival bucket.
    pub bucket: i64,
    /// Rows of the bucket before the next one.
    pub ordinal: u64,
}

/// Rows that a run accounts for: readings = on_time + late + estimated + lost once it is finished.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Accounting {
    /// Readings that arrived in the interval after their own.
    pub on_time: u64,
    /// Readings that arrived later.
    pub late: u64,
    /// Readings for which there was an estimate first, or only.
    pub estimated: u64,
    /// Readings withheld for good, or dropped.
    pub lost: u64,
    /// Actuals that replaced an estimate.
    pub revised: u64,
    /// Readings that were sent again.
    pub duplicates: u64,
    /// Events.
    pub events: u64,
    /// Assets.
    pub assets: u64,
}

impl Accounting {
    fn add(&mut self, kind: Kind) {
        *match kind {
            Kind::Asset => &mut self.assets,
            Kind::Reading => &mut self.on_time,
            Kind::Late => &mut self.late,
            Kind::Estimate => &mut self.estimated,
            Kind::Revised => &mut self.revised,
            Kind::Copy => &mut self.duplicates,
            Kind::Event => &mut self.events,
        } += 1;
    }

    fn lose(&mut self, kind: Kind) {
        if matches!(kind, Kind::Reading | Kind::Late | Kind::Estimate) {
            self.lost += 1;
        }
    }

    /// Rows of the readings topic.
    pub fn readings(&self) -> u64 {
        self.on_time + self.late + self.estimated + self.revised + self.duplicates
    }
}

/// The rows of one shard, in emission order, from a cursor on.
#[derive(Debug)]
pub struct ShardStream {
    run: Arc<Run>,
    shard: i32,
    meters: Vec<u32>,
    cursor: Cursor,
    accounting: Accounting,
    /// Readings of the cursor's bucket that never arrive.
    lost_here: u64,
    rows: Vec<Emit>,
    events: Vec<Event>,
    /// Late rows by the bucket that they arrive in.
    backlog: BTreeMap<i64, Vec<Emit>>,
    contexts: Contexts,
    source: Option<Events>,
}

impl ShardStream {
    /// The stream of `shard` from the first row.
    pub fn new(run: Arc<Run>, shard: i32) -> Self {
        let first = Cursor { bucket: run.first_bucket(), ordinal: 0 };
        Self::resume(run, shard, first, Accounting::default())
    }

    /// The stream of `shard` from `cursor`, with what was accounted for before it.
    pub fn resume(run: Arc<Run>, shard: i32, cursor: Cursor, accounting: Accounting) -> Self {
        let meters = run.meters_of_shard(shard);
        let source = run.has_events().then(|| Events::new(run.clone(), &meters));
        let mut stream = Self {
            run,
            shard,
            meters,
            cursor,
            accounting,
            lost_here: 0,
            rows: Vec::new(),
            events: Vec::new(),
            backlog: BTreeMap::new(),
            contexts: Contexts::default(),
            source,
        };
        stream.catch_up();
        stream.load();
        stream
    }

    /// The next row; `None` when the run is over.
    #[inline]
    pub fn peek(&self) -> Option<Emit> {
        self.rows.get(self.cursor.ordinal as usize).copied()
    }

    /// The event that a row of kind [`Kind::Event`] stands for.
    pub fn event(&self, emit: Emit) -> &Event {
        &self.events[emit.interval as usize]
    }

    /// Moves past the next row.
    pub fn advance(&mut self) {
        let Some(emit) = self.peek() else { return };
        self.accounting.add(emit.kind);
        self.step();
    }

    /// Passes the next row over: it is lost. What a clock chooses so is for the caller to remember.
    pub fn drop_next(&mut self) {
        let Some(emit) = self.peek() else { return };
        self.accounting.lose(emit.kind);
        self.step();
    }

    fn step(&mut self) {
        self.cursor.ordinal += 1;
        if self.cursor.ordinal as usize == self.rows.len() {
            self.next_bucket();
            self.load();
        }
    }

    /// Where the next row stands.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// What became of the readings up to the cursor; those of the cursor's own bucket are lost once it is over.
    pub fn accounting(&self) -> Accounting {
        self.accounting
    }

    fn next_bucket(&mut self) {
        self.accounting.lost += std::mem::take(&mut self.lost_here);
        self.cursor = Cursor { bucket: self.cursor.bucket + 1, ordinal: 0 };
    }

    /// The rows of the cursor's bucket, or of the next one that has any.
    fn load(&mut self) {
        self.rows.clear();
        self.events.clear();
        while !self.is_over() {
            self.fill(self.cursor.bucket);
            if !self.rows.is_empty() {
                return;
            }
            self.next_bucket();
        }
        self.accounting.lost += std::mem::take(&mut self.lost_here);
    }

    fn is_over(&self) -> bool {
        let Some(end) = self.run.end_interval() else {
            // Of no meters there is nothing but their share of the assets.
            return self.meters.is_empty() && self.cursor.bucket >= self.run.first_interval();
        };
        let after_the_end = self.run.has_copies() && self.cursor.bucket == end;
        self.cursor.bucket >= end && self.backlog.is_empty() && !after_the_end
    }

    fn fill(&mut self, bucket: i64) {
        let run = self.run.clone();
        self.lost_here = 0;
        if bucket < run.first_interval() {
            return run.grid_rows(self.shard, bucket, &mut self.rows);
        }
        let inside = run.end_interval().is_none_or(|end| bucket < end);
        if run.is_plain() {
            let reporting = self.meters.iter().filter(|meter| run.reports(**meter, bucket));
            self.rows.extend(reporting.map(|&meter| run.on_time(meter, bucket)));
            self.lost_here = (self.meters.len() - self.rows.len()) as u64;
            if run.pattern() != Pattern::Uniform {
                self.rows.sort_unstable();
            }
            return;
        }
        if inside {
            self.read(&run, bucket);
            self.schedule(&run, bucket, bucket);
            self.happen(bucket);
        }
        if run.has_copies() {
            for interval in [bucket - 1, bucket] {
                self.copies(&run, interval, bucket);
            }
        }
        self.rows.extend(self.backlog.remove(&bucket).into_iter().flatten());
        self.rows.sort_unstable();
    }

    /// The readings of an interval that arrive on time.
    fn read(&mut self, run: &Run, interval: i64) {
        let out = run.out(interval, &mut self.contexts);
        for &meter in &self.meters {
            let rows = run.outcome(meter, interval, out.get(meter));
            self.rows.extend(rows.first().filter(|emit| emit.kind == Kind::Reading));
            self.lost_here += u64::from(rows.is_empty());
        }
    }

    /// The events that arrive in a bucket.
    fn happen(&mut self, bucket: i64) {
        let Some(source) = &mut self.source else { return };
        source.of_bucket(bucket, &mut self.contexts, &mut self.events);
        let rows = self.events.iter().enumerate().map(|(index, event)| Emit {
            arrival: event.received,
            interval: index as i64,
            meter: event.meter,
            kind: Kind::Event,
        });
        self.rows.extend(rows);
    }

    /// The copies of an interval's readings that arrive in `bucket`.
    fn copies(&mut self, run: &Run, interval: i64, bucket: i64) {
        if !run.contains(interval) {
            return;
        }
        let out = run.out(interval, &mut self.contexts);
        for &meter in &self.meters {
            let copy = run.copy(meter, interval).filter(|copy| run.bucket_of(copy.arrival) == bucket);
            let sent =
                || run.outcome(meter, interval, out.get(meter)).first().is_some_and(|row| row.kind == Kind::Reading);
            self.rows.extend(copy.filter(|_| sent()));
        }
    }

    /// Puts the late rows of `interval` into the backlog, and those of its block once that is over; rows that arrive
    /// before bucket `from` are past.
    fn schedule(&mut self, run: &Run, interval: i64, from: i64) {
        let Self { backlog, meters, contexts, shard, .. } = self;
        let mut late = |rows: Rows| {
            for emit in rows.iter().filter(|emit| emit.kind != Kind::Reading) {
                let bucket = run.bucket_of(emit.arrival);
                if bucket >= from {
                    backlog.entry(bucket).or_default().push(*emit);
                }
            }
        };
        if run.after_restore() {
            let out = run.out(interval, contexts);
            let ours = out.iter().filter(|(meter, _)| run.shard(*meter) == *shard);
            ours.for_each(|(meter, fault)| late(run.outcome(meter, interval, Some(fault))));
        }
        let ends = run.block(interval) != run.block(interval + 1) || run.end_interval() == Some(interval + 1);
        if !run.has_backfill() || !ends {
            return;
        }
        let missed: Vec<u32> = meters.iter().copied().filter(|meter| !run.reports(*meter, interval)).collect();
        for interval in run.intervals_of_block(run.block(interval)) {
            let out = run.out(interval, contexts);
            for &meter in &missed {
                let fault = out.get(meter);
                if fault.is_none() || !run.after_restore() {
                    late(run.outcome(meter, interval, fault));
                }
            }
        }
    }

    /// The backlog as it is when the cursor's bucket is reached.
    fn catch_up(&mut self) {
        let run = self.run.clone();
        let bucket = self.cursor.bucket;
        let back_to = |ms: i64| (bucket - ms / run.interval_ms() - 1).max(run.first_interval());
        let from = match (run.after_restore(), run.has_backfill()) {
            (false, false) => return,
            (true, _) => back_to(outage::WINDOW * 1000 + LONGEST_DELAY_MS),
            (false, true) => back_to(LONGEST_DELAY_MS + 86_400_000),
        };
        for interval in from..bucket.min(run.end_interval().unwrap_or(i64::MAX)) {
            self.schedule(&run, interval, bucket);
        }
    }
}

/// The rows of one reading, without its copy: none, one, or an estimate and what replaces it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rows([Option<Emit>; 2]);

impl Rows {
    pub(crate) fn one(emit: Emit) -> Self {
        Self([Some(emit), None])
    }

    pub(crate) fn two(first: Emit, second: Emit) -> Self {
        Self([Some(first), Some(second)])
    }

    fn first(&self) -> Option<Emit> {
        self.0[0]
    }

    fn is_empty(&self) -> bool {
        self.0[0].is_none()
    }

    /// All of them, in the order of their arrival.
    pub fn iter(&self) -> impl Iterator<Item = &Emit> {
        self.0.iter().flatten()
    }
}

#[cfg(test)]
mod tests;
