//! The time between a claim and its end: poll, decode, push, cut, submit, and release what is durable.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use flux_schemas::{row::Row, source::Position, time::Timestamp};
use flux_service::{backoff::Backoff, logging::chain};
use rdkafka::{
    Message,
    consumer::{ConsumerContext, base_consumer::PartitionQueue},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tokio::sync::watch;

use crate::{
    budget::Account,
    contract::{Claim, Durable, Error, Record, Sink, Writer},
    decode,
    partition::{End, PartitionTask},
};

/// Records that are taken between two looks at the clock and at what is durable: each look costs as much as a record.
const RECORDS_A_LOOK: u32 = 64;

/// A submitted unit that is not durable yet.
struct Submitted {
    upto: Position,
    rows: u64,
    bytes: usize,
    oldest: Option<(Timestamp, Timestamp)>,
}

/// The open unit.
#[derive(Default)]
struct Open {
    since: Option<Instant>,
    rows: u64,
    bytes: usize,
    oldest: Option<(Timestamp, Timestamp)>,
}

/// The time between a claim and its end.
pub(crate) struct Stretch<'a, S: Sink, C: ConsumerContext + 'static> {
    task: &'a mut PartitionTask<S, C>,
    writer: S::Writer,
    durable: watch::Receiver<Durable>,
    account: Account,
    /// After the last record that was pushed or set aside.
    next: Position,
    /// After the last record that was submitted.
    submitted: Position,
    waiting: VecDeque<Submitted>,
    open: Open,
    at_end: bool,
    /// As of the last look at the clock.
    now: Instant,
    /// What was last said of pending work.
    reported: Option<bool>,
}

impl<'a, S: Sink, C: ConsumerContext + 'static> Stretch<'a, S, C> {
    pub(crate) fn new(task: &'a mut PartitionTask<S, C>, claim: Claim<S::Writer>, from: Position) -> Self {
        let account = task.budget.account();
        Self {
            task,
            writer: claim.writer,
            durable: claim.durable,
            account,
            next: from,
            submitted: from,
            waiting: VecDeque::new(),
            open: Open::default(),
            at_end: false,
            now: Instant::now(),
            reported: None,
        }
    }

    pub(crate) fn run(mut self, queue: &PartitionQueue<C>) -> End {
        match self.work(queue) {
            Ok(()) => self.drain(),
            Err(end) => end,
        }
    }

    /// Until asked to stop.
    fn work(&mut self, queue: &PartitionQueue<C>) -> Result<(), End> {
        let mut scratch = Vec::new();
        let mut at_once = 0u32;
        while !self.task.stop.requested() {
            if at_once.is_multiple_of(RECORDS_A_LOOK) {
                self.now = Instant::now();
                self.observe()?;
            }
            if self.must_cut() {
                self.submit()?;
                self.now = Instant::now();
                continue;
            }
            if self.task.budget.is_full() && (self.open.since.is_none() || !self.waiting.is_empty()) {
                // No room: wait for what was submitted, here or by another partition, instead of cutting units of one row.
                self.wait_for_durable(Duration::from_millis(100));
                at_once = 0;
                continue;
            }
            // A record that is there already is taken without a look around.
            let patience = if at_once == 0 { self.patience() } else { Duration::ZERO };
            let Some(polled) = queue.poll(patience) else {
                at_once = 0;
                continue;
            };
            at_once = if patience.is_zero() { at_once + 1 } else { 1 };
            match polled {
                Ok(message) => self.take(&message, &mut scratch)?,
                Err(KafkaError::PartitionEOF(_)) => {
                    self.at_end = true;
                    self.report_pending();
                }
                Err(error) => self.consumer_error(&error)?,
            }
        }
        Ok(())
    }

    /// How long to wait for the next record: until the open unit is due. Before a boundary no time makes it due.
    fn patience(&self) -> Duration {
        let longest = Duration::from_millis(100);
        match self.open.since {
            Some(since) if self.writer.boundary().is_none() => {
                self.task.settings.linger.saturating_sub(self.now - since).min(longest)
            }
            _ => longest,
        }
    }

    /// Whether the open unit ends here. A boundary that an earlier owner set is the only place to cut before it.
    fn must_cut(&self) -> bool {
        let Some(since) = self.open.since else { return false };
        match self.writer.boundary() {
            Some(boundary) => self.next >= boundary,
            None => self.now - since >= self.task.settings.linger || self.task.budget.is_full(),
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, scratch: &mut Vec<u8>) -> Result<(), End> {
        let offset = message.offset() as u64;
        if offset < self.next.0 {
            return Ok(());
        }
        self.at_end = false;
        self.open.since.get_or_insert(self.now);
        let mut cut = false;
        if let Some(reason) = self.task.refused.remove(&offset) {
            self.set_aside(message, &reason)?;
        } else {
            match self.push(message, scratch)? {
                Ok(should_cut) => cut = should_cut,
                Err(reason) => self.set_aside(message, &reason)?,
            }
        }
        self.next = Position(offset + 1);
        if cut && self.writer.boundary().is_none() {
            self.submit()?;
        }
        Ok(())
    }

    /// Decodes and pushes; the inner error is the reason to set the record aside.
    fn push(&mut self, message: &BorrowedMessage<'_>, scratch: &mut Vec<u8>) -> Result<Result<bool, String>, End> {
        self.prepare(message)?;
        let mut cells = Vec::with_capacity(self.task.settings.table.narrow);
        let run = match self.task.decoders.decode(message, scratch, &mut cells) {
            Ok(run) => run,
            Err(reason) => return Ok(Err(reason)),
        };
        let row = Row { table: self.task.settings.table, cells: &cells };
        let due = Timestamp(message.timestamp().to_millis().unwrap_or_default());
        let record = Record { offset: message.offset() as u64, due, run, row };
        match self.writer.push(&record) {
            Ok(fill) => {
                self.account.charge(fill.bytes);
                self.open.bytes += fill.bytes;
                self.open.rows += 1;
                self.open.oldest.get_or_insert((due, row.time()));
                Ok(Ok(fill.should_cut))
            }
            Err(rejected) => Ok(Err(rejected.0)),
        }
    }

    /// Waits until the record's schema is known: a registry outage is not the record's fault.
    fn prepare(&mut self, message: &BorrowedMessage<'_>) -> Result<(), End> {
        let mut backoff = Backoff::default();
        loop {
            match self.task.decoders.prepare(message) {
                Ok(()) => return Ok(()),
                Err(decode::Error::WrongRegistry(error)) => {
                    let fix = "point registry.url at the registry that the producer uses".into();
                    let what = format!("{}: offset {} has an unknown schema", self.task.source, message.offset());
                    return Err(End::Broken(Error::Broken { what, fix, source: Some(error.into()) }));
                }
                Err(decode::Error::Unavailable(error)) => {
                    tracing::warn!(error = chain(&error), "waiting for the schema registry");
                    self.task.telemetry.retried("registry");
                    self.task.pause(backoff.wait());
                    if self.task.stop.requested() {
                        return Err(End::Stopped);
                    }
                }
            }
        }
    }

    fn set_aside(&mut self, message: &BorrowedMessage<'_>, reason: &str) -> Result<(), End> {
        let mut backoff = Backoff::default();
        while let Err(error) = self.task.dead_letters.write(message, reason) {
            tracing::warn!(%error, "dead letter not acknowledged");
            self.task.telemetry.retried("dead_letter");
            self.task.pause(backoff.wait());
            if self.task.stop.requested() {
                return Err(End::Stopped);
            }
        }
        tracing::warn!(offset = message.offset(), reason, "record set aside");
        self.task.telemetry.dead_lettered();
        self.writer.dead_lettered(message.offset() as u64);
        Ok(())
    }

    /// Hands the open unit over, however often it takes.
    fn submit(&mut self) -> Result<(), End> {
        let upto = self.next;
        let started = Instant::now();
        let mut backoff = Backoff::default();
        loop {
            let mut stop = self.task.stop.clone();
            let patience = self.task.settings.drain;
            let writer = &mut self.writer;
            // Asked to stop, an attempt may still come through; a cut-off one leaves the outcome unknown, which a claim resolves.
            let outcome = self.task.runtime.block_on(async {
                tokio::select! {
                    outcome = writer.submit(upto) => Some(outcome),
                    () = async { stop.wait().await; tokio::time::sleep(patience).await } => None,
                }
            });
            let end = match outcome {
                None => End::Stopped,
                Some(Ok(())) => break,
                Some(Err(Error::Unavailable { after, source })) => {
                    tracing::warn!(error = chain(source.as_ref()), "destination not available");
                    self.task.telemetry.unavailable(started.elapsed());
                    if self.task.stop.requested() {
                        return Err(End::Stopped);
                    }
                    self.task.pause(after.unwrap_or_else(|| backoff.wait()));
                    continue;
                }
                Some(Err(Error::Rejected(rows))) => {
                    let reason = format!("the destination refuses {} rows", rows.len());
                    self.task.refused.extend(rows);
                    End::Reclaim(reason)
                }
                Some(Err(Error::Fenced(by))) => End::Reclaim(by),
                Some(Err(error @ Error::Broken { .. })) => End::Broken(error),
            };
            return Err(end);
        }
        self.task.telemetry.accepted(self.open.rows, self.open.bytes, started.elapsed());
        self.task.telemetry.buffered(self.open.rows as i64);
        self.submitted = upto;
        let open = std::mem::take(&mut self.open);
        self.waiting.push_back(Submitted { upto, rows: open.rows, bytes: open.bytes, oldest: open.oldest });
        self.observe()
    }

    /// Takes in what the destination says is durable.
    fn observe(&mut self) -> Result<(), End> {
        let position = match &*self.durable.borrow_and_update() {
            Durable::At(position) => *position,
            Durable::Failed(reason) => return Err(End::Reclaim(reason.to_string())),
        };
        let (topic, partition) = (self.task.source.topic.clone(), self.task.source.partition.0);
        while let Some(unit) = self.waiting.pop_front_if(|unit| unit.upto <= position) {
            self.account.release(unit.bytes);
            self.task.telemetry.buffered(-(unit.rows as i64));
            self.task.telemetry.durable(&topic, partition, unit.upto, unit.rows, unit.bytes, unit.oldest);
        }
        self.report_pending();
        Ok(())
    }

    /// Drained is the end of the partition, seen, with everything before it durable; offsets have holes and do not say.
    fn report_pending(&mut self) {
        let pending = !self.at_end || !self.waiting.is_empty() || self.open.since.is_some();
        // Said when it changes: this runs once a record.
        if self.reported != Some(pending) {
            self.reported = Some(pending);
            self.task.telemetry.pending(self.task.source.partition.0, pending);
        }
    }

    fn wait_for_durable(&mut self, patience: Duration) {
        let durable = &mut self.durable;
        self.task.runtime.block_on(async {
            // Timing out and a closed channel both end the wait; the caller looks at the value.
            tokio::time::timeout(patience, durable.changed()).await.is_ok()
        });
    }

    /// Asked to stop: hand over what is open, and wait for durable within the bound.
    fn drain(mut self) -> End {
        let deadline = Instant::now() + self.task.settings.drain;
        if self.open.since.is_some()
            && self.writer.boundary().is_none_or(|boundary| self.next >= boundary)
            && let Err(end) = self.submit()
        {
            return end;
        }
        while !self.waiting.is_empty() && Instant::now() < deadline {
            self.wait_for_durable(Duration::from_millis(100));
            if let Err(end) = self.observe() {
                return end;
            }
        }
        tracing::info!(position = self.submitted.0, durable = self.waiting.is_empty(), "partition released");
        End::Stopped
    }

    fn consumer_error(&self, error: &KafkaError) -> Result<(), End> {
        let KafkaError::MessageConsumption(code) = error else {
            return Err(End::Reclaim(format!("consumer: {error}")));
        };
        match *code {
            RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset => Err(End::Broken(Error::broken(
                format!(
                    "{}: offset {} is not in the log any more: retention removed rows that were never written, or the topic was replaced",
                    self.task.source, self.next
                ),
                "restore the topic, or produce the run again into a new run",
            ))),
            RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicId => Err(End::Broken(Error::broken(
                format!("{}: the topic is gone", self.task.source),
                "restore the topic; what was written stays as it is",
            ))),
            code => {
                tracing::warn!(%code, "consumer");
                Ok(())
            }
        }
    }
}

impl<S: Sink, C: ConsumerContext + 'static> Drop for Stretch<'_, S, C> {
    /// What was not durable is read again: it is not held any more.
    fn drop(&mut self) {
        let waiting: u64 = self.waiting.iter().map(|unit| unit.rows).sum();
        self.task.telemetry.buffered(-(waiting as i64));
    }
}
