//! One shard: its rows in order, in transactions, from where the ledger says.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use flux_generator::{
    emission::{Accounting, Cursor, Emit, Kind, ShardStream},
    model::Contexts,
    register::Registers,
    run::Run,
};
use flux_schemas::{
    codec::{encode, encode_row},
    framing::write_header,
    row::{Cell, Table},
    run::{Dropped, LedgerRecord, PartitionEnd, Progress},
};
use flux_service::{backoff::Backoff, logging::chain, shutdown::Shutdown};

use crate::{
    Error, Schemas, ledger,
    pace::{Schedule, wall_ms},
    progress::Telemetry,
    publish::{Abandoned, Publisher},
    settings::{Overload, ProducerSettings},
};

/// Everything one shard needs.
#[derive(Debug)]
pub struct Shard {
    /// Settings of the role.
    pub settings: ProducerSettings,
    /// The run.
    pub run: Arc<Run>,
    /// Ids of the schemas.
    pub schemas: Schemas,
    /// Which shard.
    pub shard: i32,
    /// Shared numbers.
    pub telemetry: Arc<Telemetry>,
    /// When to stop.
    pub shutdown: Shutdown,
}

/// How a stretch of work ended.
enum Ended {
    Finished,
    Asked,
    Lost(Abandoned),
}

impl Shard {
    /// Emits until the run is over (`true`) or shutdown (`false`). Blocks its thread.
    ///
    /// # Errors
    /// [`Error::Rival`] when another process emits the same shard; [`Error::Kafka`] when Kafka refuses.
    pub fn produce(&self) -> Result<bool, Error> {
        let incarnation = format!("{}-{}-{}", std::process::id(), wall_ms(), self.shard);
        let mut backoff = Backoff::default();
        let mut known: Option<Progress> = None;
        let mut first = true;
        while !self.shutdown.requested() {
            let (publisher, committed) = match self.take_over() {
                Ok(taken) => taken,
                Err(error @ Error::Kafka(flux_service::kafka::Error::Unreachable { .. })) => {
                    tracing::warn!(shard = self.shard, error = chain(&error), "waiting for Kafka");
                    self.pause(backoff.wait());
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !first {
                self.refuse_rival(known.as_ref(), committed.as_ref(), &incarnation)?;
            }
            first = false;
            known = committed;
            if known.as_ref().is_some_and(|progress| progress.finished) {
                self.telemetry.caught_up(self.shard);
                return Ok(true);
            }
            let before = known.as_ref().map(|progress| progress.bucket);
            match self.emit(&publisher, &mut known, &incarnation) {
                Ended::Finished => return Ok(true),
                Ended::Asked => return Ok(false),
                Ended::Lost(abandoned) => {
                    self.telemetry.abandoned();
                    tracing::warn!(
                        shard = self.shard,
                        error = chain(&abandoned),
                        "transaction abandoned: asking the ledger"
                    );
                    if known.as_ref().map(|progress| progress.bucket) != before {
                        backoff.reset();
                    }
                    self.pause(backoff.wait());
                }
            }
        }
        Ok(false)
    }

    /// Fences the predecessor, then asks the ledger; in this order, or a commit of the predecessor could come between.
    fn take_over(&self) -> Result<(Publisher, Option<Progress>), Error> {
        let publisher = Publisher::open(&self.settings, self.run.spec(), self.shard)?;
        let record = ledger::read(&self.settings.kafka, &self.settings.runs_topic, self.run.id())?;
        Ok((publisher, record.progress.get(&self.shard).cloned()))
    }

    /// After a lost transaction the ledger must say what we last knew, or what we were committing. Anything else was
    /// written by somebody who emits the same shard.
    fn refuse_rival(&self, known: Option<&Progress>, committed: Option<&Progress>, ours: &str) -> Result<(), Error> {
        match committed {
            Some(committed) if Some(committed) != known && committed.incarnation != ours => {
                Err(Error::Rival { run: self.run.id(), shard: self.shard, rival: committed.incarnation.clone() })
            }
            _ => Ok(()),
        }
    }

    fn emit(&self, publisher: &Publisher, known: &mut Option<Progress>, incarnation: &str) -> Ended {
        let mut stream = match known {
            None => ShardStream::new(self.run.clone(), self.shard),
            Some(progress) => {
                let cursor = Cursor { bucket: progress.bucket, ordinal: progress.ordinal as u64 };
                ShardStream::resume(self.run.clone(), self.shard, cursor, accounting(progress))
            }
        };
        let first_arrival = stream.peek().map_or(0, |emit| emit.arrival);
        let schedule = Schedule::new(self.settings.speed, first_arrival, wall_ms());
        self.work(publisher, &mut stream, schedule, known, incarnation).unwrap_or_else(Ended::Lost)
    }

    fn work(
        &self,
        publisher: &Publisher,
        stream: &mut ShardStream,
        schedule: Schedule,
        known: &mut Option<Progress>,
        incarnation: &str,
    ) -> Result<Ended, Abandoned> {
        let mut composer = Composer::new(&self.run, self.shard, self.schemas);
        let mut open: Option<Transaction> = None;
        let mut granted = 0u32;
        let mut now = wall_ms();
        while let Some(emit) = stream.peek() {
            let wait = self.wait(&schedule, emit, &mut granted, &mut now);
            let asked = self.shutdown.requested();
            if let Some(done) = open.take_if(|open| asked || self.is_due(open, wait)) {
                self.commit(publisher, stream, known, incarnation, &done)?;
            }
            if asked {
                return Ok(Ended::Asked);
            }
            if !wait.is_zero() {
                if open.is_none() && schedule.due(emit.arrival) > now {
                    self.telemetry.caught_up(self.shard);
                }
                self.pause(wait.min(Duration::from_millis(200)));
                continue;
            }
            let transaction = match &mut open {
                Some(transaction) => transaction,
                None => open.insert(Transaction::begin(publisher)?),
            };
            let due = schedule.due(emit.arrival);
            if self.is_overloaded(&schedule, stream.cursor(), due, now) {
                transaction.dropped.push(self.drop_rows(&schedule, stream, now));
                continue;
            }
            let value = composer.value(stream, emit, now);
            let stamp = schedule.stamp(due, now);
            match emit.kind {
                Kind::Event => {
                    let (partition, key) = (self.run.partition(emit.meter), self.run.fleet().meter_id(emit.meter));
                    publisher.send(Table::events(), partition, key, value, stamp)?;
                }
                Kind::Asset => {
                    let (partition, key) = (self.run.partition_of_asset(emit.meter), self.run.asset_id(emit.meter));
                    publisher.send(Table::assets(), partition, key, value, stamp)?;
                }
                _ => {
                    let (partition, key) = (self.run.partition(emit.meter), self.run.fleet().meter_id(emit.meter));
                    publisher.send(Table::readings(), partition, key, value, stamp)?;
                    // The limit counts readings: a storm's events stay visible beside it.
                    granted -= 1;
                }
            }
            transaction.rows += 1;
            transaction.bytes += value.len() as u64;
            stream.advance();
        }
        // A shard without meters has no open transaction, and says all the same that it is finished.
        let last = open.map_or_else(|| Transaction::begin(publisher), Ok)?;
        self.commit(publisher, stream, known, incarnation, &last)?;
        self.telemetry.caught_up(self.shard);
        Ok(Ended::Finished)
    }

    /// Whether the next row is one that an overloaded producer passes over: it was due since the start, and too long ago.
    /// Intervals are shed whole.
    fn is_overloaded(&self, schedule: &Schedule, cursor: Cursor, due: i64, now: i64) -> bool {
        let late = now - due > self.settings.overload_lag.as_millis() as i64 && schedule.is_live(due);
        // The assets come once, before the first interval, and are never passed over.
        let late = late && cursor.bucket >= self.run.first_interval();
        match self.settings.overload {
            Overload::Lag => false,
            Overload::DropOldest => late,
            Overload::Shed => late && cursor.ordinal == 0,
        }
    }

    /// Passes rows over until half of the allowed lag is left; says which.
    fn drop_rows(&self, schedule: &Schedule, stream: &mut ShardStream, now: i64) -> Dropped {
        let from = stream.cursor();
        let enough = now - self.settings.overload_lag.as_millis() as i64 / 2;
        while let Some(emit) = stream.peek() {
            let aligned = self.settings.overload == Overload::DropOldest || stream.cursor().ordinal == 0;
            if aligned && schedule.due(emit.arrival) > enough {
                break;
            }
            stream.drop_next();
        }
        let to = stream.cursor();
        Dropped {
            run_id: self.run.id(),
            shard: self.shard,
            from_bucket: from.bucket,
            from_ordinal: from.ordinal as i64,
            to_bucket: to.bucket,
            to_ordinal: to.ordinal as i64,
        }
    }

    /// Whether the transaction ends here. It is never left open across a wait: readers would stand still behind it.
    fn is_due(&self, open: &Transaction, wait: Duration) -> bool {
        // The clock costs as much as a row.
        let look = open.rows.is_multiple_of(256) || !wait.is_zero();
        open.rows >= self.settings.transaction_rows
            || look && open.since.elapsed() + wait >= self.settings.transaction_interval
    }

    /// How long the next row must wait: for its due time, then for the rate limit. The clock is read once a grant.
    fn wait(&self, schedule: &Schedule, emit: Emit, granted: &mut u32, now: &mut i64) -> Duration {
        let due = schedule.due(emit.arrival);
        if *granted > 0 && due <= *now {
            return Duration::ZERO;
        }
        *now = wall_ms();
        if due > *now {
            self.telemetry.health.pending(false);
            self.telemetry.lag(0);
            return Duration::from_millis((due - *now) as u64);
        }
        self.telemetry.health.pending(true);
        self.telemetry.lag(*now - due);
        if *granted > 0 {
            return Duration::ZERO;
        }
        match self.telemetry.limit.take() {
            Ok(rows) => {
                *granted = rows;
                if schedule.stamp(due, *now) == due {
                    self.telemetry.offered_late(*now - due);
                }
                Duration::ZERO
            }
            Err(wait) => wait,
        }
    }

    /// Flushes, writes progress and commits; `known` is then what the ledger says.
    fn commit(
        &self,
        publisher: &Publisher,
        stream: &ShardStream,
        known: &mut Option<Progress>,
        incarnation: &str,
        transaction: &Transaction,
    ) -> Result<(), Abandoned> {
        let known_ends = known.iter().flat_map(|progress| progress.ends.clone());
        let mut ends: BTreeMap<(String, i32), i64> =
            known_ends.map(|PartitionEnd { table, partition, end }| ((table, partition), end)).collect();
        self.telemetry.queued(publisher.queued());
        ends.extend(publisher.flush()?);
        let cursor = stream.cursor();
        let accounting = stream.accounting();
        let progress = Progress {
            run_id: self.run.id(),
            shard: self.shard,
            spec_hash: self.run.spec().hash(),
            bucket: cursor.bucket,
            ordinal: cursor.ordinal as i64,
            ends: ends.into_iter().map(|((table, partition), end)| PartitionEnd { table, partition, end }).collect(),
            on_time: accounting.on_time as i64,
            late: accounting.late as i64,
            estimated: accounting.estimated as i64,
            lost: accounting.lost as i64,
            revised: accounting.revised as i64,
            duplicates: accounting.duplicates as i64,
            events: accounting.events as i64,
            assets: accounting.assets as i64,
            finished: stream.peek().is_none(),
            incarnation: incarnation.into(),
        };
        for dropped in &transaction.dropped {
            tracing::warn!(shard = self.shard, from = ?dropped, "overloaded: rows dropped, as producer.overload says");
            publisher.note(&dropped.key(), &dropped.encode())?;
        }
        publisher.commit(&progress.key(), &progress.encode())?;
        let before = known.as_ref().map(self::accounting).unwrap_or_default();
        *known = Some(progress);
        self.telemetry.committed(transaction.bytes, &before, &accounting, transaction.since.elapsed());
        Ok(())
    }

    fn pause(&self, wait: Duration) {
        let end = Instant::now() + wait;
        while !self.shutdown.requested() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// The open transaction.
struct Transaction {
    since: Instant,
    rows: u64,
    bytes: u64,
    dropped: Vec<Dropped>,
}

impl Transaction {
    fn begin(publisher: &Publisher) -> Result<Self, Abandoned> {
        publisher.begin()?;
        Ok(Self { since: Instant::now(), rows: 0, bytes: 0, dropped: Vec::new() })
    }
}

/// What the ledger says was accounted for.
fn accounting(progress: &Progress) -> Accounting {
    Accounting {
        on_time: progress.on_time as u64,
        late: progress.late as u64,
        estimated: progress.estimated as u64,
        lost: progress.lost as u64,
        revised: progress.revised as u64,
        duplicates: progress.duplicates as u64,
        events: progress.events as u64,
        assets: progress.assets as u64,
    }
}

/// From rows to be emitted to their bytes.
struct Composer<'a> {
    run: &'a Run,
    schemas: Schemas,
    contexts: Contexts,
    registers: Option<Registers>,
    value: Vec<u8>,
}

impl<'a> Composer<'a> {
    fn new(run: &'a Run, shard: i32, schemas: Schemas) -> Self {
        let registers = run.is_wide().then(|| Registers::new(run, run.meters_of_shard(shard)));
        Self { run, schemas, contexts: Contexts::default(), registers, value: Vec::with_capacity(256) }
    }

    /// The framed value of a row; `now` is when it is emitted.
    fn value(&mut self, stream: &ShardStream, emit: Emit, now: i64) -> &[u8] {
        let Self { run, schemas, contexts, registers, value } = self;
        value.clear();
        let mut cells = Vec::new();
        match (emit.kind, registers) {
            (Kind::Event, _) => {
                write_header(value, schemas.events);
                stream.event(emit).cells(run.fleet(), &mut cells);
                encode_row(Table::events(), &cells, value);
            }
            (Kind::Asset, _) => {
                write_header(value, schemas.assets);
                run.asset_cells(emit.meter, &mut cells);
                encode_row(Table::assets(), &cells, value);
            }
            (Kind::Reading | Kind::Copy, None) => {
                write_header(value, schemas.readings);
                encode(&run.reading(emit.meter, contexts.get(run.model(), emit.interval)), value);
            }
            (_, None) => {
                write_header(value, schemas.readings);
                encode(&run.reading_of(emit, contexts), value);
            }
            (_, Some(registers)) => {
                write_header(value, schemas.readings);
                run.reading_cells(emit, contexts, registers, &mut cells);
                cells[Run::EMITTED_AT] = Cell::Int(now);
                encode_row(Table::readings(), &cells, value);
            }
        }
        value
    }
}
