//! Reading a small topic to a barrier: everything that was committed before the call is in the answer.
//!
//! The barrier is the high watermark that a read-uncommitted client sees. The end that a read-committed client reports
//! is the last stable offset, and another producer's open transaction holds that back: taking it for the end would
//! miss records that are already committed.

use std::time::{Duration, Instant};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode},
};

use super::{Error, KafkaSettings};

/// Calls `visit(key, value)` for each committed record of partition 0 of `topic`, oldest first. Blocks; another
/// producer's open transaction delays it by at most that producer's transaction timeout.
///
/// # Errors
/// [`Error::Unreachable`] when it is not done within `timeout`.
pub fn read(
    kafka: &KafkaSettings,
    topic: &str,
    timeout: Duration,
    mut visit: impl FnMut(&[u8], &[u8]),
) -> Result<(), Error> {
    let unreachable =
        |source| Error::Unreachable { brokers: kafka.brokers.clone(), doing: format!("reading topic {topic}"), source };
    let deadline = Instant::now() + timeout;
    let consumer = |isolation: &str| -> Result<BaseConsumer, Error> {
        kafka
            .client()
            .set("group.id", "flux-barrier")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("isolation.level", isolation)
            .set("auto.offset.reset", "error")
            .set("fetch.wait.max.ms", "100")
            .create()
            .map_err(|source| Error::Refused { doing: "creating a consumer".into(), source })
    };
    let missing = |error: KafkaError| match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::UnknownTopic,
        ) => Error::Topic {
            topic: topic.into(),
            finding: "it does not exist".into(),
            fix: "a producer creates it; or check the topic's name and kafka.brokers".into(),
        },
        _ => unreachable(error),
    };
    let (low, high) = consumer("read_uncommitted")?.fetch_watermarks(topic, 0, timeout).map_err(missing)?;
    if low == high {
        return Ok(());
    }
    let reader = consumer("read_committed")?;
    let mut assignment = TopicPartitionList::new();
    assignment.add_partition_offset(topic, 0, Offset::Offset(low)).map_err(unreachable)?;
    reader.assign(&assignment).map_err(unreachable)?;
    loop {
        match reader.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                visit(message.key().unwrap_or_default(), message.payload().unwrap_or_default());
            }
            // At the end of what is stable; the position counts control records, so it reaches the barrier.
            Some(Err(KafkaError::PartitionEOF(_))) | None => {}
            Some(Err(error @ KafkaError::MessageConsumption(_))) => {
                tracing::debug!(%error, topic, "consuming");
            }
            Some(Err(error)) => return Err(unreachable(error)),
        }
        let position = reader.position().map_err(unreachable)?;
        let reached = position.find_partition(topic, 0).map(|element| element.offset());
        if matches!(reached, Some(Offset::Offset(next)) if next >= high) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(unreachable(KafkaError::PartitionEOF(0)));
        }
    }
}
