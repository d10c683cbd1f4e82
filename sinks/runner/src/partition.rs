//! One partition, from claim to durable, on a thread of its own.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use flux_schemas::source::{Position, Source};
use flux_service::{backoff::Backoff, logging::chain, shutdown::Shutdown};
use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, base_consumer::PartitionQueue},
    error::KafkaError,
};
use tokio::runtime::Handle;

use crate::{
    budget::Budget,
    contract::{Claim, Error, Sink},
    dead_letter::DeadLetters,
    decode::Decoders,
    settings::RunnerSettings,
    stretch::Stretch,
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
pub(crate) enum End {
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
        let _span =
            tracing::info_span!("partition", topic = %self.source.topic, partition = self.source.partition.0).entered();
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
                End::Broken(error) => {
                    self.telemetry.failed("broken");
                    return Err(error);
                }
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
        let Some((_, durable)) = positions.iter().find(|(known, durable)| *known == partition && *durable > 0) else {
            return;
        };
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
        self.telemetry.failed("claim_ended");
        self.telemetry.retried("claim");
        self.pause(backoff.wait());
    }

    pub(crate) fn pause(&self, wait: Duration) {
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
                    format!(
                        "{}: the destination is at {position}, the log begins at {low}: retention removed rows that were never written",
                        self.source
                    ),
                    "the rows between are lost to this sink; produce the run again into a new run, and lengthen retention.ms",
                );
            }
            Some(position) if position.0 > high => {
                return broken(
                    format!(
                        "{}: the destination is at {position}, the log ends at {high}: the log was truncated or replaced",
                        self.source
                    ),
                    "restore the topic, or give the sink another name (sink.name)",
                );
            }
            Some(position) => position,
            None => {
                let mirror = self.mirror().map_err(unreachable)?;
                if !self.settings.accept_position && (low > 0 || mirror > 0) {
                    return broken(
                        format!(
                            "{}: the destination knows no position, but the log begins at {low} and the group had read to {mirror}",
                            self.source
                        ),
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
