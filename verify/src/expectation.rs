//! Which rows must be there.
//!
//! A finished run must be there completely. A run that is still going is judged as of the ledger: rows before each
//! shard's cursor must be there, rows after it may be, and are judged for value and number only. Rows that an overloaded
//! producer dropped must not be there; the ledger says which.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use flux_generator::{
    emission::{Cursor, Emit, Kind, ShardStream},
    events::{Event, Events},
    model::Contexts,
    run::Run,
};
use flux_schemas::{
    codec::encode_row,
    row::{Cell, Row, Table},
    run::RunRecord,
};

/// Buckets after the furthest cursor whose events are known: rows that a sink gets while it is being read.
const AHEAD: i64 = 96;

/// Some rows of one bucket of one shard.
#[derive(Debug, Default)]
struct Part {
    readings: HashSet<(u32, i64, Kind)>,
    events: HashSet<[u8; 16]>,
    assets: HashSet<u32>,
}

impl Part {
    /// Takes in the rows of `bucket` whose numbers `wanted` accepts.
    fn add(&mut self, run: &Arc<Run>, shard: i32, bucket: i64, wanted: impl Fn(u64) -> bool) {
        let start = Cursor { bucket, ordinal: 0 };
        let mut stream = ShardStream::resume(run.clone(), shard, start, Default::default());
        while let Some(emit) = stream.peek().filter(|_| stream.cursor().bucket == bucket) {
            if wanted(stream.cursor().ordinal) {
                match emit.kind {
                    Kind::Asset => _ = self.assets.insert(emit.meter),
                    Kind::Event => _ = self.events.insert(stream.event(emit).id),
                    _ => _ = self.readings.insert((emit.meter, emit.interval, emit.kind)),
                }
            }
            stream.advance();
        }
    }

    fn has(&self, emit: &Emit) -> bool {
        match emit.kind {
            Kind::Asset => self.assets.contains(&emit.meter),
            Kind::Event => false,
            _ => self.readings.contains(&(emit.meter, emit.interval, emit.kind)),
        }
    }
}

/// What a place is compared with.
#[derive(Debug)]
pub struct Expectation {
    run: Arc<Run>,
    /// By shard: everything before it must be there.
    cursors: Vec<Cursor>,
    /// Rows of the cursors' own buckets that lie before them.
    before_cursor: Part,
    /// By shard: whole buckets that were dropped, half-open.
    dropped: HashMap<i32, Vec<(i64, i64)>>,
    /// Rows of partly dropped buckets that were.
    dropped_partly: Part,
    /// By table and partition: the end of the run's committed rows.
    ends: BTreeMap<(String, i32), i64>,
    /// Intervals from this index on are not judged.
    horizon: i64,
    /// First index interval after everything that must be there.
    must_end: i64,
    finished: bool,
}

/// A row that is counted by its key: an event or an asset.
#[derive(Debug)]
pub struct Keyed {
    /// As Avro: equal rows have equal bytes.
    pub datum: Box<[u8]>,
    /// Whether it must be there.
    pub must: bool,
    /// How often it was found.
    pub count: u64,
}

impl Expectation {
    /// From the ledger; a shard without progress has emitted nothing.
    pub fn new(run: Arc<Run>, record: &RunRecord, before_interval: Option<i64>) -> Self {
        let first = run.first_bucket();
        let shards = run.spec().shards;
        let cursors: Vec<Cursor> = (0..shards)
            .map(|shard| {
                record.progress.get(&shard).map_or(Cursor { bucket: first, ordinal: 0 }, |progress| Cursor {
                    bucket: progress.bucket,
                    ordinal: progress.ordinal as u64,
                })
            })
            .collect();
        let mut before_cursor = Part::default();
        for (shard, cursor) in cursors.iter().enumerate().filter(|(_, cursor)| cursor.ordinal > 0) {
            before_cursor.add(&run, shard as i32, cursor.bucket, |ordinal| ordinal < cursor.ordinal);
        }
        let mut dropped: HashMap<i32, Vec<(i64, i64)>> = HashMap::new();
        let mut dropped_partly = Part::default();
        for range in record.dropped.values() {
            let (from, to) = (range.from_ordinal as u64, range.to_ordinal as u64);
            let whole = range.from_bucket + i64::from(from > 0);
            dropped.entry(range.shard).or_default().push((whole, range.to_bucket));
            let same = range.from_bucket == range.to_bucket;
            if from > 0 {
                let wanted = |ordinal| ordinal >= from && (!same || ordinal < to);
                dropped_partly.add(&run, range.shard, range.from_bucket, wanted);
            }
            if to > 0 && !(same && from > 0) {
                dropped_partly.add(&run, range.shard, range.to_bucket, |ordinal| ordinal < to);
            }
        }
        let mut ends = BTreeMap::new();
        for end in record.progress.values().flat_map(|progress| &progress.ends) {
            ends.insert((end.table.clone(), end.partition), end.end);
        }
        let horizon = before_interval.unwrap_or(i64::MAX);
        let furthest =
            cursors.iter().map(|cursor| cursor.bucket + i64::from(cursor.ordinal > 0)).max().unwrap_or(first);
        let furthest = run.end_interval().map_or(furthest, |end| furthest.min(end));
        let finished = (0..shards).all(|shard| record.progress.get(&shard).is_some_and(|progress| progress.finished));
        Self {
            run,
            cursors,
            before_cursor,
            dropped,
            dropped_partly,
            ends,
            horizon,
            must_end: furthest.min(horizon),
            finished,
        }
    }

    /// The run.
    pub fn run(&self) -> &Arc<Run> {
        &self.run
    }

    /// Whether the run has emitted everything.
    pub fn finished(&self) -> bool {
        self.finished
    }

    /// The offset after the run's last committed row of a table, by partition.
    pub fn ends<'a>(&'a self, table: &'a Table) -> impl Iterator<Item = (i32, i64)> + 'a {
        let of_table = self.ends.iter().filter(|((name, _), _)| name == table.name);
        of_table.map(|((_, partition), end)| (*partition, *end))
    }

    /// Intervals that hold anything that must be there: [first, end).
    pub fn intervals(&self) -> std::ops::Range<i64> {
        self.run.first_interval()..self.must_end
    }

    /// Whether intervals of this index are judged at all.
    pub fn judges(&self, interval: i64) -> bool {
        interval < self.horizon
    }

    /// Whether every reading is there once, or not at all, when its interval is over.
    pub fn is_plain(&self) -> bool {
        self.run.is_plain() && self.dropped.is_empty()
    }

    /// Whether a row lies before its shard's cursor.
    pub fn is_emitted(&self, emit: &Emit) -> bool {
        let cursor = self.cursors[self.run.shard(emit.meter) as usize];
        let bucket = self.run.bucket_of(emit.arrival);
        bucket < cursor.bucket || bucket == cursor.bucket && self.before_cursor.has(emit)
    }

    /// Whether a row was dropped by an overloaded producer.
    pub fn is_dropped(&self, emit: &Emit) -> bool {
        if self.dropped.is_empty() {
            return false;
        }
        self.is_dropped_whole(self.run.shard(emit.meter), self.run.bucket_of(emit.arrival))
            || self.dropped_partly.has(emit)
    }

    fn is_dropped_whole(&self, shard: i32, bucket: i64) -> bool {
        self.dropped.get(&shard).is_some_and(|ranges| ranges.iter().any(|(from, to)| (*from..*to).contains(&bucket)))
    }

    /// Whether an event was dropped.
    pub fn is_event_dropped(&self, event: &Event) -> bool {
        self.is_dropped_whole(self.run.shard(event.meter), self.run.bucket_of(event.received))
            || self.dropped_partly.events.contains(&event.id)
    }

    /// Calls `each` with every row that the reading of (meter, interval) may have, and whether it must be there.
    pub fn rows_of(&self, meter: u32, interval: i64, contexts: &mut Contexts, mut each: impl FnMut(Emit, bool)) {
        self.run.variants(meter, interval, contexts, |emit| {
            if !self.is_dropped(&emit) {
                each(emit, self.is_emitted(&emit));
            }
        });
    }

    /// Whether the reading must be there, of a run for which [`Expectation::is_plain`] holds.
    pub fn must(&self, meter: u32, interval: i64) -> bool {
        if interval < self.run.first_interval() || interval >= self.must_end {
            return false;
        }
        self.run.reports(meter, interval) && {
            let cursor = self.cursors[self.run.shard(meter) as usize];
            let here = || self.before_cursor.readings.contains(&(meter, interval, Kind::Reading));
            interval < cursor.bucket || interval == cursor.bucket && here()
        }
    }

    /// Rows of readings that must be there, of a run for which [`Expectation::is_plain`] holds.
    pub fn expected_plain(&self) -> u64 {
        let first = self.run.first_interval();
        let whole: u64 = self
            .cursors
            .iter()
            .enumerate()
            .map(|(shard, cursor)| {
                let meters = self.run.meters_of_shard(shard as i32);
                self.run.rows(meters.iter().copied(), first..cursor.bucket.min(self.must_end))
            })
            .sum();
        let judged = self.before_cursor.readings.iter().filter(|(_, interval, _)| *interval < self.horizon);
        whole + judged.count() as u64
    }

    /// Every event that may be there, by EVENT_ID; and the arrival from which on events were not recomputed.
    pub fn events(&self) -> (HashMap<Box<[u8]>, Keyed>, i64) {
        let run = &self.run;
        let furthest = self.cursors.iter().map(|cursor| cursor.bucket).max().unwrap_or(run.first_interval());
        let end = run.end_interval().map_or(furthest + AHEAD, |end| end.min(furthest + AHEAD));
        let all: Vec<u32> = (0..run.fleet().len()).collect();
        let mut source = Events::new(run.clone(), &all);
        let (mut contexts, mut here, mut keyed) = (Contexts::default(), Vec::new(), HashMap::new());
        for bucket in run.first_interval()..end {
            source.of_bucket(bucket, &mut contexts, &mut here);
            for event in here.iter().filter(|event| !self.is_event_dropped(event)) {
                let cursor = self.cursors[run.shard(event.meter) as usize];
                let must =
                    bucket < cursor.bucket || bucket == cursor.bucket && self.before_cursor.events.contains(&event.id);
                let must = must && bucket < self.horizon;
                let mut cells = Vec::new();
                event.cells(run.fleet(), &mut cells);
                keyed.insert(event.id.into(), Keyed { datum: datum(Table::events(), &cells), must, count: 0 });
            }
        }
        let open = run.end_interval().is_none_or(|run_end| end < run_end);
        (keyed, if open { (end + 1) * run.interval_ms() } else { i64::MAX })
    }

    /// Every asset, by ASSET_ID.
    pub fn assets(&self) -> HashMap<Box<[u8]>, Keyed> {
        let run = &self.run;
        let asset = |index: u32| {
            let shard = run.partition_of_asset(index).0 % run.spec().shards;
            let must = self.cursors[shard as usize].bucket >= run.first_interval()
                || self.before_cursor.assets.contains(&index);
            let mut cells = Vec::new();
            run.asset_cells(index, &mut cells);
            let keyed = Keyed { datum: datum(Table::assets(), &cells), must, count: 0 };
            (run.asset_id(index).as_bytes().into(), keyed)
        };
        (0..run.assets()).map(asset).collect()
    }

    /// Most bytes that counting readings can take: two bits a row that must or may be there.
    pub fn memory_bound(&self) -> u64 {
        let intervals = (self.must_end - self.run.first_interval() + 1).max(0) as u64;
        intervals * u64::from(self.run.fleet().len()) / 4 * if self.is_plain() { 1 } else { 3 } + (1 << 20)
    }
}

/// A row as Avro; `None` when it has a number that no row has.
pub(crate) fn exact_datum(row: &Row<'_>) -> Option<Box<[u8]>> {
    let exact = !row.cells.iter().any(|cell| matches!(cell, Cell::Inexact(_)));
    let nulls = row.cells.iter().zip(&row.table.columns).all(|(cell, column)| *cell != Cell::Null || column.nullable);
    (exact && nulls).then(|| datum(row.table, row.cells))
}

fn datum(table: &Table, cells: &[Cell<'_>]) -> Box<[u8]> {
    let mut out = Vec::with_capacity(192);
    encode_row(table, cells, &mut out);
    out.into()
}
