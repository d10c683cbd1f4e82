//! One partition, from claim to durable, on a thread of its own.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use flux_schemas::{
    source::{Position, Source},
    time::Timestamp,
};
use flux_service::{backoff::Backoff, logging::chain, shutdown::Shutdown};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, base_consumer::PartitionQueue},
    error::{KafkaError, RDKafkaErrorCode},
    message::BorrowedMessage,
};
use tokio::{runtime::Handle, sync::watch};

use crate::{
    budget::{Account, Budget},
    contract::{Claim, Durable, Error, Record, Sink, Writer},
    dead_letter::DeadLetters,
    decode::{self, Decoders},
    settings::RunnerSettings,
    telemetry::Telemetry,
};

/// Patience with Kafka for one metadata question.
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// Everything one partition's thread needs.
pub struct PartitionTask<S: Sink, C: ConsumerContext + 'static> {
    pub(crate) sink: Arc<S>,
    pub(crate) consumer: Arc<BaseConsumer<C>>,
    pub(crate) source: Source,
    pub(crate) settings: RunnerSettings,
    pub(crate) decoders: Decoders,
    pub(crate) dead_letters: Arc<DeadLetters>,
    pub(crate) budget: Budget,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) runtime: Handle,
    /// Revoked, or the process ends.
    pub(crate) stop: Shutdown,
    /// Offsets that the destination refused, with its reason: dead-lettered when they come by again.
    pub(crate) refused: BTreeMap<u64, String>,
}

/// Why a claim ended.
enum End {
    /// Asked to stop; what could be drained was.
    Stopped,
    /// Claim again: fenced while still assigned, or the outcome of a submit is unknown.
    Reclaim(String),
    /// End the process.
    Broken(Error),
}

impl<S: Sink, C: ConsumerContext + 'static> PartitionTask<S, C> {
    /// Runs until the partition is revoked or the process ends.
    ///
    /// # Errors
    /// [`Error::Broken`].
    pub fn run(mut self) -> Result<(), Error> {
        let _span = tracing::info_span!("partition", topic = %self.source.topic, partition = self.source.partition.0).entered();
        let mut backoff = Backoff::default();
        let mut queue = None;
        while !self.stop.requested() {
            let claim = match self.claim() {
                Ok(claim) => claim,
                Err(End::Stopped) => break,
                Err(End::Reclaim(reason)) => {
                    self.again(&reason, &mut backoff);
                    continue;
                }
                Err(End::Broken(error)) => return Err(error),
            };
            let started = Instant::now();
            let end = match self.start(&claim, &mut queue) {
                Ok(from) => {
                    let queue = queue.as_ref().expect("start made the queue");
                    Stretch::new(&mut self, claim, from).run(queue)
                }
                Err(end) => end,
            };
            match end {
                End::Stopped => break,
                End::Reclaim(reason) => {
                    if started.elapsed() > Duration::from_secs(30) {
                        backoff.reset();
                    }
                    self.again(&reason, &mut backoff);
                }
                End::Broken(error) => return Err(error),
            }
        }
        self.mirror_position();
        self.telemetry.released(&self.source.topic, self.source.partition.0);
        Ok(())
    }

    /// While the partition is still ours: tells Kafka where the destination is.
    fn mirror_position(&self) {
        let partition = self.source.partition.0;
        let positions = self.telemetry.positions();
        let Some((_, durable)) = positions.iter().find(|(known, durable)| *known == partition && *durable > 0) else { return };
        let mut list = TopicPartitionList::new();
        let offset = Offset::Offset(*durable as i64);
        let committed = list
            .add_partition_offset(&self.source.topic, partition, offset)
            .and_then(|()| self.consumer.commit(&list, CommitMode::Sync));
        if let Err(error) = committed {
            tracing::debug!(%error, "position not mirrored");
        }
    }

    fn again(&self, reason: &str, backoff: &mut Backoff) {
        tracing::warn!(reason, "claiming the partition again");
        self.telemetry.retried("claim");
        self.pause(backoff.wait());
    }

    fn pause(&self, wait: Duration) {
        let mut stop = self.stop.clone();
        self.runtime.block_on(async {
            tokio::select! { () = stop.wait() => {}, () = tokio::time::sleep(wait) => {} }
        });
    }

    fn claim(&self) -> Result<Claim<S::Writer>, End> {
        let mut backoff = Backoff::default();
        loop {
            let mut stop = self.stop.clone();
            let claimed = self.runtime.block_on(async {
                tokio::select! { () = stop.wait() => None, claimed = self.sink.claim(&self.source) => Some(claimed) }
            });
            match claimed {
                None => return Err(End::Stopped),
                Some(Ok(claim)) => return Ok(claim),
                Some(Err(Error::Unavailable { after, source })) => {
                    tracing::warn!(error = chain(source.as_ref()), "destination not available for a claim");
                    self.telemetry.retried("claim");
                    self.telemetry.pending(self.source.partition.0, true);
                    self.pause(after.unwrap_or_else(|| backoff.wait()));
                }
                Some(Err(Error::Fenced(by))) => return Err(End::Reclaim(by)),
                Some(Err(error)) => return Err(End::Broken(error)),
            }
        }
    }

    /// Checks the position against the log and moves the consumer there.
    fn start(&self, claim: &Claim<S::Writer>, queue: &mut Option<PartitionQueue<C>>) -> Result<Position, End> {
        let (topic, partition) = (&*self.source.topic, self.source.partition.0);
        let unreachable = |error: KafkaError| End::Reclaim(format!("Kafka does not answer: {error}"));
        let (low, high) = self.consumer.fetch_watermarks(topic, partition, KAFKA_TIMEOUT).map_err(unreachable)?;
        let (low, high) = (low.max(0) as u64, high.max(0) as u64);
        let broken = |what: String, fix: &str| Err(End::Broken(Error::broken(what, fix)));
        let from = match claim.position {
            Some(position) if position.0 < low => {
                return broken(
                    format!("{}: the destination is at {position}, the log begins at {low}: retention removed rows that were never written", self.source),
                    "the rows between are lost to this sink; produce the run again into a new run, and lengthen retention.ms",
                );
            }
            Some(position) if position.0 > high => {
                return broken(
                    format!("{}: the destination is at {position}, the log ends at {high}: the log was truncated or replaced", self.source),
                    "restore the topic, or give the sink another name (sink.name)",
                );
            }
            Some(position) => position,
            None => {
                let mirror = self.mirror().map_err(unreachable)?;
                if !self.settings.accept_position && (low > 0 || mirror > 0) {
                    return broken(
                        format!("{}: the destination knows no position, but the log begins at {low} and the group had read to {mirror}", self.source),
                        "if the destination was emptied on purpose, start once with sink.accept_position=true",
                    );
                }
                Position(low)
            }
        };
        if queue.is_none() {
            *queue = self.consumer.split_partition_queue(topic, partition);
        }
        if queue.is_none() {
            return Err(End::Reclaim("the partition's queue is gone".into()));
        }
        // A partition that was assigned a moment ago refuses to seek until its fetcher has started.
        let deadline = Instant::now() + KAFKA_TIMEOUT;
        let offset = Offset::Offset(from.0 as i64);
        while let Err(error) = self.consumer.seek(topic, partition, offset, KAFKA_TIMEOUT) {
            if self.stop.requested() {
                return Err(End::Stopped);
            }
            if Instant::now() > deadline {
                return Err(unreachable(error));
            }
            self.pause(Duration::from_millis(50));
        }
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        self.consumer.resume(&list).map_err(unreachable)?;
        self.telemetry.log_end(topic, partition, high);
        tracing::info!(from = from.0, known = claim.position.is_some(), "claimed");
        Ok(from)
    }

    /// Kafka's committed offset, 0 when there is none.
    fn mirror(&self) -> Result<u64, KafkaError> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.source.topic, self.source.partition.0);
        let committed = self.consumer.committed_offsets(list, KAFKA_TIMEOUT)?;
        Ok(match committed.elements().first().map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => offset.max(0) as u64,
            _ => 0,
        })
    }
}

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
struct Stretch<'a, S: Sink, C: ConsumerContext + 'static> {
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
}

impl<'a, S: Sink, C: ConsumerContext + 'static> Stretch<'a, S, C> {
    fn new(task: &'a mut PartitionTask<S, C>, claim: Claim<S::Writer>, from: Position) -> Self {
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
        }
    }

    fn run(mut self, queue: &PartitionQueue<C>) -> End {
        match self.work(queue) {
            Ok(()) => self.drain(),
            Err(end) => end,
        }
    }

    /// Until asked to stop.
    fn work(&mut self, queue: &PartitionQueue<C>) -> Result<(), End> {
        let mut scratch = Vec::new();
        self.observe()?;
        while !self.task.stop.requested() {
            self.observe()?;
            if self.must_cut() {
                self.submit()?;
                continue;
            }
            if self.task.budget.is_full() && !self.waiting.is_empty() {
                // Nothing to cut and no room: wait for what was submitted.
                self.wait_for_durable(Duration::from_millis(100));
                continue;
            }
            match queue.poll(self.patience()) {
                None => {}
                Some(Ok(message)) => self.take(&message, &mut scratch)?,
                Some(Err(KafkaError::PartitionEOF(_))) => {
                    self.at_end = true;
                    self.report_pending();
                }
                Some(Err(error)) => self.consumer_error(error)?,
            }
        }
        Ok(())
    }

    /// How long to wait for the next record: until the open unit is due.
    fn patience(&self) -> Duration {
        let longest = Duration::from_millis(100);
        self.open.since.map_or(longest, |since| self.task.settings.linger.saturating_sub(since.elapsed()).min(longest))
    }

    /// Whether the open unit ends here. A boundary that an earlier owner set is the only place to cut before it.
    fn must_cut(&self) -> bool {
        let Some(since) = self.open.since else { return false };
        match self.writer.boundary() {
            Some(boundary) => self.next >= boundary,
            None => since.elapsed() >= self.task.settings.linger || self.task.budget.is_full(),
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>, scratch: &mut Vec<u8>) -> Result<(), End> {
        let offset = message.offset() as u64;
        if offset < self.next.0 {
            return Ok(());
        }
        if self.at_end {
            self.at_end = false;
            self.task.telemetry.pending(self.task.source.partition.0, true);
        }
        self.open.since.get_or_insert_with(Instant::now);
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
        let (run, reading) = match self.task.decoders.decode(message, scratch) {
            Ok(decoded) => decoded,
            Err(reason) => return Ok(Err(reason)),
        };
        let due = Timestamp(message.timestamp().to_millis().unwrap_or_default());
        let record = Record { offset: message.offset() as u64, due, run, reading: &reading };
        match self.writer.push(&record) {
            Ok(fill) => {
                self.account.charge(fill.bytes);
                self.open.bytes += fill.bytes;
                self.open.rows += 1;
                self.open.oldest.get_or_insert((due, reading.timestamp));
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
                    self.task.telemetry.flushed(self.open.rows, started.elapsed(), "unavailable");
                    self.task.telemetry.retried("unavailable");
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
        self.task.telemetry.flushed(self.open.rows, started.elapsed(), "accepted");
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
            self.task.telemetry.durable(&topic, partition, unit.upto, unit.rows, unit.bytes, unit.oldest);
        }
        self.report_pending();
        Ok(())
    }

    /// Drained is the end of the partition, seen, with everything before it durable; offsets have holes and do not say.
    fn report_pending(&self) {
        let pending = !self.at_end || !self.waiting.is_empty() || self.open.since.is_some();
        self.task.telemetry.pending(self.task.source.partition.0, pending);
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
        if self.open.since.is_some() && self.writer.boundary().is_none_or(|boundary| self.next >= boundary) {
            if let Err(end) = self.submit() {
                return end;
            }
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

    fn consumer_error(&self, error: KafkaError) -> Result<(), End> {
        let KafkaError::MessageConsumption(code) = error else {
            return Err(End::Reclaim(format!("consumer: {error}")));
        };
        match code {
            RDKafkaErrorCode::OffsetOutOfRange | RDKafkaErrorCode::AutoOffsetReset => Err(End::Broken(Error::broken(
                format!("{}: offset {} is not in the log any more: retention removed rows that were never written, or the topic was replaced", self.task.source, self.next),
                "restore the topic, or produce the run again into a new run",
            ))),
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicId => {
                Err(End::Broken(Error::broken(
                    format!("{}: the topic is gone", self.task.source),
                    "restore the topic; what was written stays as it is",
                )))
            }
            code => {
                tracing::warn!(%code, "consumer");
                Ok(())
            }
        }
    }
}
