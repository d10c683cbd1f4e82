//! The consumer, its rebalances and its end.
//!
//! Rebalances are decided in a callback on the polling thread, which must not wait for a destination: it assigns with
//! an explicit offset (so that nobody asks for committed ones), pauses, and leaves the rest to the partition's thread.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use flux_schemas::source::{Partition, Source};
use flux_service::{
    kafka::{
        self, KafkaSettings,
        identity::{Identities, TopicIdentity},
    },
    logging::chain,
    registry::Registry,
    shutdown::{Shutdown, Trigger},
};
use rdkafka::{
    ClientContext, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, RebalanceProtocol},
    error::KafkaError,
    types::RDKafkaRespErr,
};

use crate::{
    budget::Budget,
    contract::{Error, Sink, topic_replaced},
    dead_letter::{self, DeadLetters},
    decode::Decoders,
    partition::PartitionTask,
    settings::RunnerSettings,
    telemetry::Telemetry,
};

/// How long a revoked partition may take to hand over what it has. Correctness does not depend on it.
const REVOKE_PATIENCE: Duration = Duration::from_secs(3);
/// How often the topic's identity is compared with what it was.
const IDENTITY_INTERVAL: Duration = Duration::from_secs(30);
/// How often positions are mirrored to Kafka and the log's end is asked for.
const MIRROR_INTERVAL: Duration = Duration::from_secs(2);

struct Worker {
    stop: Trigger,
    thread: JoinHandle<()>,
}

/// What the rebalance callback and the polling loop share.
struct Assignments {
    workers: Mutex<HashMap<i32, Worker>>,
    assigned: Mutex<Vec<i32>>,
    telemetry: Arc<Telemetry>,
}

impl ClientContext for Assignments {}

impl ConsumerContext for Assignments {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, code: RDKafkaRespErr, list: &mut TopicPartitionList) {
        self.telemetry.rebalanced();
        let incremental = matches!(consumer.rebalance_protocol(), RebalanceProtocol::Cooperative);
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        let outcome = if code == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            tracing::info!(?partitions, "assigned");
            self.assign(consumer, list, &partitions, incremental)
        } else {
            let lost = consumer.assignment_lost();
            tracing::info!(?partitions, lost, "revoked");
            self.stop_workers(&partitions, if lost { Duration::ZERO } else { REVOKE_PATIENCE });
            if incremental { consumer.incremental_unassign(list) } else { consumer.unassign() }
        };
        if let Err(error) = outcome {
            tracing::error!(%error, "rebalance refused by the client: partitions stay idle until the next one");
        }
    }
}

impl Assignments {
    fn assign(
        &self,
        consumer: &BaseConsumer<Self>,
        list: &TopicPartitionList,
        partitions: &[i32],
        incremental: bool,
    ) -> Result<(), KafkaError> {
        let mut explicit = TopicPartitionList::new();
        for element in list.elements() {
            explicit.add_partition_offset(element.topic(), element.partition(), Offset::Offset(0))?;
        }
        if incremental {
            consumer.incremental_assign(&explicit)?
        } else {
            consumer.assign(&explicit)?
        }
        // No poll can come between, so nothing is fetched before the position is known.
        if !partitions.is_empty() {
            consumer.pause(&explicit)?;
        }
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner).extend(partitions);
        Ok(())
    }

    /// Asks the partitions' threads to stop and waits for them up to `patience`.
    fn stop_workers(&self, partitions: &[i32], patience: Duration) {
        self.assigned.lock().unwrap_or_else(PoisonError::into_inner).retain(|waiting| !partitions.contains(waiting));
        let stopping: Vec<Worker> = {
            let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
            partitions.iter().filter_map(|partition| workers.remove(partition)).collect()
        };
        for worker in &stopping {
            worker.stop.request();
        }
        let deadline = Instant::now() + patience;
        while stopping.iter().any(|worker| !worker.thread.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Reads the topic into the sink until shutdown.
///
/// # Errors
/// [`Error::Broken`]: a person must act; what is durable stays exact.
pub async fn run<S: Sink>(
    kafka: &KafkaSettings,
    registry: &Registry,
    settings: &RunnerSettings,
    sink: Arc<S>,
    telemetry: Arc<Telemetry>,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let Some(identity) = wait_for_topic(kafka, &settings.topic, &shutdown).await? else { return Ok(()) };
    let dead_letters = DeadLetters::open(kafka, &dead_letter::topic(&settings.name)).await.map_err(broken_kafka)?;
    let loop_of = Loop {
        kafka: kafka.clone(),
        registry: registry.clone(),
        settings: settings.clone(),
        sink,
        telemetry,
        identity,
        dead_letters: Arc::new(dead_letters),
        budget: Budget::new(settings.memory),
        runtime: tokio::runtime::Handle::current(),
        shutdown,
    };
    tokio::task::spawn_blocking(move || loop_of.run()).await.expect("the consumer loop does not panic")
}

fn broken_kafka(error: kafka::Error) -> Error {
    Error::Broken { what: "Kafka".into(), fix: "see the cause".into(), source: Some(error.into()) }
}

/// The topic may be created after us: wait for it. `None` when asked to stop.
async fn wait_for_topic(
    kafka: &KafkaSettings,
    topic: &str,
    shutdown: &Shutdown,
) -> Result<Option<TopicIdentity>, Error> {
    let mut unreachable = 0;
    let mut shutdown = shutdown.clone();
    loop {
        let (settings, name) = (kafka.clone(), topic.to_string());
        let found =
            tokio::task::spawn_blocking(move || Identities::new(&settings)?.topic(&name, Duration::from_secs(10)))
                .await
                .expect("the look-up does not panic");
        match found {
            Ok(Some(identity)) => return Ok(Some(identity)),
            Ok(None) => tracing::info!(topic, "waiting for the topic: a producer creates it"),
            Err(error @ kafka::Error::Unreachable { .. }) if unreachable < 3 => {
                unreachable += 1;
                tracing::warn!(error = chain(&error), "waiting for Kafka");
            }
            Err(error) => return Err(broken_kafka(error)),
        }
        tokio::select! {
            () = shutdown.wait() => return Ok(None),
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
    }
}

struct Loop<S: Sink> {
    kafka: KafkaSettings,
    registry: Registry,
    settings: RunnerSettings,
    sink: Arc<S>,
    telemetry: Arc<Telemetry>,
    identity: TopicIdentity,
    dead_letters: Arc<DeadLetters>,
    budget: Budget,
    runtime: tokio::runtime::Handle,
    shutdown: Shutdown,
}

impl<S: Sink> Loop<S> {
    fn run(self) -> Result<(), Error> {
        let consumer = self.consumer()?;
        let (failures, failed) = mpsc::channel();
        let monitor = self.monitor(&consumer, failures.clone());
        let mut mirrored = Instant::now();
        let mut outcome = Ok(());
        while !self.shutdown.requested() {
            match consumer.poll(Duration::from_millis(100)) {
                None => {}
                // Partitions have queues of their own; a message here came before its queue was split and is read again.
                Some(Ok(_)) => {}
                Some(Err(error)) => tracing::warn!(%error, "consumer"),
            }
            self.start_workers(&consumer, &failures)?;
            if let Ok(error) = failed.try_recv() {
                outcome = Err(error);
                break;
            }
            if mirrored.elapsed() >= MIRROR_INTERVAL {
                mirrored = Instant::now();
                self.mirror(&consumer);
            }
        }
        let all: Vec<i32> = self.workers(&consumer).keys().copied().collect();
        consumer.context().stop_workers(&all, self.settings.drain + Duration::from_secs(1));
        monitor.stop.request();
        // The monitor holds the consumer; it ends within a poll of its own.
        if monitor.thread.join().is_err() {
            tracing::error!("the monitor panicked");
        }
        outcome
    }

    fn workers<'a>(&self, consumer: &'a BaseConsumer<Assignments>) -> std::sync::MutexGuard<'a, HashMap<i32, Worker>> {
        // The context lives as long as the consumer.
        let context: &'a Arc<Assignments> = consumer.context();
        context.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn consumer(&self) -> Result<Arc<BaseConsumer<Assignments>>, Error> {
        let partitions = self.identity.partitions.max(1) as usize;
        // An eighth of the memory is prefetch, spread over the partitions: the client holds a small record in several
        // times its size. It also prefetches a number of records, whatever they weigh, which has to be small for the same
        // reason. A queue is never smaller than a fetch can be.
        let queue_kib = (self.settings.memory / 8 / partitions / 1024).max(1024);
        let context =
            Assignments { workers: Mutex::default(), assigned: Mutex::default(), telemetry: self.telemetry.clone() };
        let consumer: BaseConsumer<Assignments> = self
            .kafka
            .client()
            .set("group.id", self.settings.group())
            .set("group.protocol", "classic")
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", self.settings.session_timeout.as_millis().to_string())
            .set("heartbeat.interval.ms", (self.settings.session_timeout.as_millis() / 4).max(200).to_string())
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("queued.max.messages.kbytes", queue_kib.to_string())
            .set("queued.min.messages", "5000")
            .set("fetch.max.bytes", "4194304")
            .set("fetch.message.max.bytes", "1048576")
            .set("fetch.queue.backoff.ms", "20")
            .set("fetch.wait.max.ms", "100")
            .create_with_context(context)
            .map_err(|error| {
                broken_kafka(kafka::Error::Refused { doing: "creating the consumer".into(), source: error })
            })?;
        consumer
            .subscribe(&[&self.settings.topic])
            .map_err(|error| broken_kafka(kafka::Error::Refused { doing: "subscribing".into(), source: error }))?;
        Ok(Arc::new(consumer))
    }

    fn start_workers(
        &self,
        consumer: &Arc<BaseConsumer<Assignments>>,
        failures: &mpsc::Sender<Error>,
    ) -> Result<(), Error> {
        let assigned = std::mem::take(&mut *consumer.context().assigned.lock().unwrap_or_else(PoisonError::into_inner));
        for partition in assigned {
            let (trigger, stop) = Shutdown::manual();
            let task = PartitionTask {
                sink: self.sink.clone(),
                consumer: consumer.clone(),
                source: self.source(partition),
                settings: self.settings.clone(),
                decoders: Decoders::new(self.settings.table, self.registry.clone(), self.runtime.clone()),
                dead_letters: self.dead_letters.clone(),
                budget: self.budget.clone(),
                telemetry: self.telemetry.clone(),
                runtime: self.runtime.clone(),
                stop,
                refused: std::collections::BTreeMap::new(),
            };
            let failures = failures.clone();
            let work = move || {
                if let Err(error) = task.run() {
                    // Nobody listens any more only when the loop has ended for another failure.
                    failures.send(error).ok();
                }
            };
            let thread =
                std::thread::Builder::new().name(format!("partition-{partition}")).spawn(work).map_err(|error| {
                    Error::Broken {
                        what: "no thread for a partition".into(),
                        fix: "raise the process's thread limit".into(),
                        source: Some(error.into()),
                    }
                })?;
            self.workers(consumer).insert(partition, Worker { stop: trigger, thread });
        }
        Ok(())
    }

    fn source(&self, partition: i32) -> Source {
        Source {
            cluster_id: self.identity.cluster_id.as_str().into(),
            topic: self.settings.topic.as_str().into(),
            topic_id: self.identity.topic_id.as_str().into(),
            partition: Partition(partition),
        }
    }

    /// Mirrors durable positions to the group, for lag tools.
    fn mirror(&self, consumer: &BaseConsumer<Assignments>) {
        let mut list = TopicPartitionList::new();
        for (partition, durable) in self.telemetry.positions() {
            if durable > 0
                && list.add_partition_offset(&self.settings.topic, partition, Offset::Offset(durable as i64)).is_err()
            {
                return;
            }
        }
        if list.count() > 0
            && let Err(error) = consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "positions not mirrored");
        }
    }

    /// Watches what nobody else does: the topic's identity and the log's end.
    fn monitor(&self, consumer: &Arc<BaseConsumer<Assignments>>, failures: mpsc::Sender<Error>) -> Worker {
        let (trigger, stop) = Shutdown::manual();
        let (kafka, topic, identity) = (self.kafka.clone(), self.settings.topic.clone(), self.identity.clone());
        let (consumer, telemetry, source) = (consumer.clone(), self.telemetry.clone(), self.source(0));
        let work = move || {
            let identities = Identities::new(&kafka).ok();
            let mut compared = Instant::now();
            let mut asked = Instant::now();
            while !stop.requested() {
                std::thread::sleep(Duration::from_millis(100));
                if asked.elapsed() >= MIRROR_INTERVAL {
                    asked = Instant::now();
                    for (partition, _) in telemetry.positions() {
                        if let Ok((_, high)) = consumer.fetch_watermarks(&topic, partition, Duration::from_secs(5)) {
                            telemetry.log_end(&topic, partition, high.max(0) as u64);
                        }
                    }
                }
                if compared.elapsed() < IDENTITY_INTERVAL {
                    continue;
                }
                compared = Instant::now();
                let found = identities.as_ref().map(|identities| identities.topic(&topic, Duration::from_secs(10)));
                let error = match found {
                    Some(Ok(Some(now)))
                        if now.topic_id != identity.topic_id || now.cluster_id != identity.cluster_id =>
                    {
                        let now = Source {
                            topic_id: now.topic_id.as_str().into(),
                            cluster_id: now.cluster_id.as_str().into(),
                            ..source.clone()
                        };
                        topic_replaced(&now, &identity.topic_id)
                    }
                    Some(Ok(None)) => Error::broken(
                        format!("topic {topic} is gone"),
                        "restore the topic; what was written stays as it is",
                    ),
                    _ => continue,
                };
                failures.send(error).ok();
                return;
            }
        };
        let thread = std::thread::spawn(work);
        Worker { stop: trigger, thread }
    }
}
