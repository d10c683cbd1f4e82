//! Kafka transactions. The only module of the crate that names a Kafka producer.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use flux_schemas::{
    row::Table,
    run::{RUN_HEADER, RunId, RunSpec},
    source::Partition,
};
use flux_service::kafka::{self, KafkaSettings, flush::flush};
use rdkafka::{
    ClientConfig, ClientContext, Message,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};

use crate::settings::ProducerSettings;

/// A transaction did not come through. Its rows are not in the log, or will be found there by the ledger: open a new
/// publisher, ask the ledger and go on.
#[derive(Debug, thiserror::Error)]
#[error("transaction not completed while {doing}")]
pub struct Abandoned {
    doing: &'static str,
    #[source]
    source: KafkaError,
}

/// Collects what the broker said of each record.
#[derive(Debug)]
struct Deliveries {
    /// The run's topics, readings first. By partition: offset after the last delivered record of the open transaction, -1
    /// for none. They are read before the progress record is sent, which goes to another topic.
    topics: Vec<TopicEnds>,
    failure: Mutex<Option<KafkaError>>,
}

/// How far one of the run's topics was written.
#[derive(Debug)]
struct TopicEnds {
    table: &'static Table,
    name: String,
    ends: Vec<AtomicI64>,
}

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        match result {
            Ok(message) => {
                // Most runs have readings alone, and this is asked for every record.
                let topic = match &*self.topics {
                    [readings] => Some(readings),
                    topics => topics.iter().find(|topic| topic.name == message.topic()),
                };
                if let Some(end) = topic.and_then(|topic| topic.ends.get(message.partition() as usize)) {
                    end.fetch_max(message.offset() + 1, Relaxed);
                }
            }
            Err((error, _)) => {
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.clone());
            }
        }
    }
}

impl TopicEnds {
    fn new(spec: &RunSpec, table: &'static Table) -> Option<Self> {
        let (name, _) = spec.topic_of(table)?;
        let ends = (0..spec.partitions).map(|_| AtomicI64::new(-1)).collect();
        Some(Self { table, name: name.into(), ends })
    }
}

/// Ends of rows, by table and partition.
pub type Ends = Vec<((String, i32), i64)>;

/// Records that wait in the client or are on their way. Few, so that they stay in the processor's cache.
const QUEUE_RECORDS: usize = 10_000;
/// Size of a full batch.
const BATCH_BYTES: usize = 300_000;
/// What is left over once full batches are on their way is about this much; were it more, it would go after linger.ms.
const LAST_BATCH_RECORDS: i32 = 2_000;

/// The transactional producer of one shard.
pub struct Publisher {
    producer: ThreadedProducer<Deliveries>,
    headers: OwnedHeaders,
    runs_topic: String,
    patience: Duration,
}

impl Publisher {
    /// Takes over the shard's transactional id: a predecessor's open transaction is completed or aborted before this
    /// returns, and the predecessor is fenced. Blocks.
    ///
    /// # Errors
    /// [`kafka::Error::Unreachable`]: try again.
    pub fn open(settings: &ProducerSettings, spec: &RunSpec, shard: i32) -> Result<Self, kafka::Error> {
        let run = spec.run_id;
        let deliveries = Deliveries {
            topics: Table::all().into_iter().filter_map(|table| TopicEnds::new(spec, table)).collect(),
            failure: Mutex::new(None),
        };
        let timeout = settings.transaction_timeout;
        let mut config = transactional(&settings.kafka, &format!("flux.{run}.{shard}"), timeout);
        config
            // Every commit flushes, so lingering delays no row that anybody could see. It is long because an idempotent
            // producer has one round of batches on its way at a time, and librdkafka spins while a batch whose time
            // has come waits for its turn.
            .set("linger.ms", "200")
            .set("compression.type", "lz4")
            .set("batch.size", BATCH_BYTES.to_string())
            .set("queue.buffering.max.messages", QUEUE_RECORDS.to_string())
            .set("queue.buffering.max.kbytes", "32768");
        let producer: ThreadedProducer<Deliveries> = config
            .create_with_context(deliveries)
            .map_err(|source| kafka::Error::Refused { doing: "creating a producer".into(), source })?;
        initialise(&producer, &settings.kafka)?;
        Ok(Self {
            producer,
            headers: OwnedHeaders::new().insert(Header { key: RUN_HEADER, value: Some(&run.0.to_be_bytes()) }),
            runs_topic: settings.runs_topic.clone(),
            patience: timeout,
        })
    }

    /// Begins a transaction.
    ///
    /// # Errors
    /// [`Abandoned`].
    pub fn begin(&self) -> Result<(), Abandoned> {
        for end in self.producer.context().topics.iter().flat_map(|topic| &topic.ends) {
            end.store(-1, Relaxed);
        }
        self.producer.begin_transaction().map_err(|source| Abandoned { doing: "beginning it", source })
    }

    /// Hands one row over; waits while the client's queue is full, which is how back-pressure arrives here.
    ///
    /// # Errors
    /// [`Abandoned`].
    pub fn send(
        &self,
        table: &'static Table,
        partition: Partition,
        key: &str,
        value: &[u8],
        timestamp: i64,
    ) -> Result<(), Abandoned> {
        let topics = &self.producer.context().topics;
        let topic = topics.iter().find(|topic| std::ptr::eq(topic.table, table)).expect("the run has this topic");
        let mut record = BaseRecord::to(&topic.name)
            .partition(partition.0)
            .key(key)
            .payload(value)
            .timestamp(timestamp)
            .headers(self.headers.clone());
        loop {
            match self.producer.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), returned)) => {
                    self.check()?;
                    std::thread::sleep(Duration::from_millis(5));
                    record = returned;
                }
                Err((source, _)) => return Err(Abandoned { doing: "sending", source }),
            }
        }
    }

    /// Records in the client: waiting, or on their way.
    pub fn queued(&self) -> usize {
        self.producer.in_flight_count().max(0) as usize
    }

    /// Waits until every record is acknowledged; then the ends are known. Returns the ends of this transaction, by table and
    /// partition.
    ///
    /// # Errors
    /// [`Abandoned`].
    pub fn flush(&self) -> Result<Ends, Abandoned> {
        // Full batches go by themselves; only the last one needs telling. Told earlier, the client would spin.
        let deadline = Instant::now() + self.patience;
        while self.producer.in_flight_count() > LAST_BATCH_RECORDS && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(1));
        }
        flush(&self.producer, self.patience)
            .map_err(|source| Abandoned { doing: "waiting for acknowledgements", source })?;
        self.check()?;
        let mut ends = Vec::new();
        for topic in &self.producer.context().topics {
            let known = topic.ends.iter().enumerate().map(|(partition, end)| (partition as i32, end.load(Relaxed)));
            let written = known.filter(|(_, end)| *end >= 0);
            ends.extend(written.map(|(partition, end)| ((topic.table.name.to_string(), partition), end)));
        }
        Ok(ends)
    }

    /// Adds a record to the ledger, in the same transaction.
    ///
    /// # Errors
    /// [`Abandoned`].
    pub fn note(&self, key: &str, value: &[u8]) -> Result<(), Abandoned> {
        let record = BaseRecord::<str, [u8]>::to(&self.runs_topic).partition(0).key(key).payload(value);
        self.producer.send(record).map_err(|(source, _)| Abandoned { doing: "sending to the ledger", source })
    }

    /// Adds the progress record and commits. After this returns, readings and progress are both there.
    ///
    /// # Errors
    /// [`Abandoned`]: whether it was committed, only the ledger knows.
    pub fn commit(&self, key: &str, progress: &[u8]) -> Result<(), Abandoned> {
        self.note(key, progress)?;
        // Not left to the commit: records of a commit that has begun wait for librdkafka's timers, hundreds of ms.
        flush(&self.producer, self.patience)
            .map_err(|source| Abandoned { doing: "waiting for the progress record", source })?;
        commit(&self.producer, self.patience)
    }

    fn check(&self) -> Result<(), Abandoned> {
        let failure = self.producer.context().failure.lock().unwrap_or_else(PoisonError::into_inner).clone();
        failure.map_or(Ok(()), |source| Err(Abandoned { doing: "delivering", source }))
    }
}

/// Writes a run's spec in a transaction of its own.
pub(crate) struct SpecWriter {
    producer: ThreadedProducer<Deliveries>,
}

const SPEC_TIMEOUT: Duration = Duration::from_secs(15);

impl SpecWriter {
    /// Fences whoever else is about to write the spec of this run. Blocks.
    pub(crate) fn open(kafka: &KafkaSettings, run: RunId) -> Result<Self, kafka::Error> {
        let deliveries = Deliveries { topics: Vec::new(), failure: Mutex::new(None) };
        let producer = transactional(kafka, &format!("flux.{run}.spec"), SPEC_TIMEOUT)
            .create_with_context(deliveries)
            .map_err(|source| kafka::Error::Refused { doing: "creating a producer".into(), source })?;
        initialise(&producer, kafka)?;
        Ok(Self { producer })
    }

    /// Writes and commits.
    pub(crate) fn write(&self, topic: &str, key: &str, spec: &[u8]) -> Result<(), Abandoned> {
        self.producer.begin_transaction().map_err(|source| Abandoned { doing: "beginning it", source })?;
        let record = BaseRecord::<str, [u8]>::to(topic).partition(0).key(key).payload(spec);
        self.producer.send(record).map_err(|(source, _)| Abandoned { doing: "sending the spec", source })?;
        commit(&self.producer, SPEC_TIMEOUT)
    }
}

/// What exactness needs, set last so that no property overrides it.
fn transactional(kafka: &KafkaSettings, id: &str, timeout: Duration) -> ClientConfig {
    let mut config = kafka.client();
    config
        .set("transactional.id", id)
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("transaction.timeout.ms", timeout.as_millis().to_string())
        .set("message.timeout.ms", timeout.as_millis().to_string());
    config
}

fn initialise(producer: &ThreadedProducer<Deliveries>, kafka: &KafkaSettings) -> Result<(), kafka::Error> {
    producer.init_transactions(Duration::from_secs(60)).map_err(|source| kafka::Error::Unreachable {
        brokers: kafka.brokers.clone(),
        doing: "taking over a transactional id".into(),
        source,
    })
}

/// A commit that times out is neither done nor undone: the same call again finds out.
fn commit(producer: &ThreadedProducer<Deliveries>, patience: Duration) -> Result<(), Abandoned> {
    let mut attempts = 0;
    loop {
        match producer.commit_transaction(patience) {
            Ok(()) => return Ok(()),
            Err(KafkaError::Transaction(error)) if error.is_retriable() && attempts < 3 => attempts += 1,
            Err(source) => return Err(Abandoned { doing: "committing", source }),
        }
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Publisher").field("topics", &self.producer.context().topics).finish_non_exhaustive()
    }
}
