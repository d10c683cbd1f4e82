//! What no destination takes, kept: the bytes, the reason and the origin, in `ami.dead-letter.<sink>`.
//!
//! A dead letter is acknowledged by Kafka before the sink's position passes its offset, so it is there at least once;
//! its key, `topic/partition/offset`, tells copies apart.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use flux_service::kafka::{
    self, KafkaSettings,
    topics::{self, TopicSpec},
};
use rdkafka::{
    ClientContext, Message,
    error::KafkaError,
    message::{BorrowedMessage, Header, Headers, OwnedHeaders},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer},
};

/// Name of a sink's dead-letter topic.
pub fn topic(sink: &str) -> String {
    format!("ami.dead-letter.{sink}")
}

#[derive(Debug, Default)]
struct Outcome(Mutex<Option<KafkaError>>);

impl ClientContext for Outcome {}

impl ProducerContext for Outcome {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.clone());
        }
    }
}

/// Writes dead letters.
pub struct DeadLetters {
    producer: ThreadedProducer<Outcome>,
    topic: String,
}

impl std::fmt::Debug for DeadLetters {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("DeadLetters").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl DeadLetters {
    /// Makes sure of the topic.
    ///
    /// # Errors
    /// [`kafka::Error`].
    pub async fn open(kafka: &KafkaSettings, topic: &str) -> Result<Self, kafka::Error> {
        let spec = TopicSpec {
            name: topic,
            partitions: 1,
            exact_partitions: false,
            replication: -1,
            config: &[("cleanup.policy", "delete"), ("retention.ms", "-1")],
        };
        topics::ensure(kafka, &spec).await?;
        let producer = kafka
            .client()
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", "30000")
            .create_with_context(Outcome::default())
            .map_err(|source| kafka::Error::Refused { doing: "creating the dead-letter producer".into(), source })?;
        Ok(Self { producer, topic: topic.into() })
    }

    /// Writes one and waits until Kafka has it.
    ///
    /// # Errors
    /// Kafka's error: try again, the position must not pass the record.
    pub fn write(&self, message: &BorrowedMessage<'_>, reason: &str) -> Result<(), KafkaError> {
        let key = format!("{}/{}/{}", message.topic(), message.partition(), message.offset());
        let mut headers = OwnedHeaders::new()
            .insert(Header { key: "reason", value: Some(reason) })
            .insert(Header { key: "origin", value: Some(&key) });
        if let Some(original) = message.key() {
            headers = headers.insert(Header { key: "original-key", value: Some(original) });
        }
        for header in message.headers().iter().flat_map(|headers| headers.iter()) {
            headers = headers.insert(Header { key: header.key, value: header.value });
        }
        let mut record = BaseRecord::<str, [u8]>::to(&self.topic).key(&key).headers(headers);
        if let Some(payload) = message.payload() {
            record = record.payload(payload);
        }
        self.producer.send(record).map_err(|(error, _)| error)?;
        self.producer.flush(Duration::from_secs(30))?;
        match self.producer.context().0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}
