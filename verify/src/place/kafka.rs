//! The readings topic, read-committed, and in order: one writer a partition makes the order part of the proof.

use std::time::Duration;

use flux_generator::emission::ShardStream;
use flux_schemas::{codec, framing, run::RUN_HEADER};
use flux_service::kafka::{self, KafkaSettings};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
};

use crate::{Error, expectation::Expectation, tally::Tally};

/// A consumer that reads what is committed, from explicit offsets.
pub(super) fn reader(kafka: &KafkaSettings) -> Result<BaseConsumer, Error> {
    kafka
        .client()
        .set("group.id", "flux-verify")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("isolation.level", "read_committed")
        .set("auto.offset.reset", "error")
        .set("queued.max.messages.kbytes", "16384")
        .set("fetch.queue.backoff.ms", "20")
        .set("fetch.wait.max.ms", "50")
        .create()
        .map_err(|source| kafka::Error::Refused { doing: "creating a consumer".into(), source }.into())
}

pub(super) fn scan(kafka: &KafkaSettings, expectation: &Expectation, tally: &mut Tally) -> Result<(), Error> {
    let consumer = reader(kafka)?;
    let topic = expectation.run().spec().topic.as_str();
    for (&partition, &end) in expectation.ends() {
        partition_rows(&consumer, topic, partition, end, expectation, tally)?;
    }
    Ok(())
}

fn partition_rows(
    consumer: &BaseConsumer,
    topic: &str,
    partition: i32,
    end: i64,
    expectation: &Expectation,
    tally: &mut Tally,
) -> Result<(), Error> {
    let failed = |error: KafkaError| Error::Place {
        place: "kafka",
        doing: format!("reading {topic}[{partition}]"),
        source: error.into(),
    };
    let (low, _) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(20)).map_err(failed)?;
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(low)).map_err(failed)?;
    consumer.assign(&list).map_err(failed)?;
    let run = expectation.run();
    let mut stream = ShardStream::new(run.clone(), partition % run.spec().shards);
    let mut in_order = true;
    loop {
        let message = match consumer.poll(Duration::from_secs(30)) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) => return Err(failed(error)),
            None => return Err(failed(KafkaError::PartitionEOF(partition))),
        };
        if message.offset() >= end {
            return Ok(());
        }
        let last = message.offset() + 1 == end;
        let id = message.headers().and_then(|headers| headers.iter().find(|header| header.key == RUN_HEADER)?.value);
        if id != Some(&tally.run_id().0.to_be_bytes()) {
            continue;
        }
        let origin = || format!("{topic}[{partition}] offset {}", message.offset());
        let datum = message.payload().and_then(framing::split).map(|(_, datum)| datum);
        let reading = match datum.map(codec::decode) {
            Some(Ok(reading)) => reading,
            Some(Err(error)) => {
                tally.unreadable(&error.to_string(), origin);
                continue;
            }
            None => {
                tally.unreadable("no Confluent frame", origin);
                continue;
            }
        };
        tally.row(&reading, origin);
        if in_order {
            // The next row of the shard that belongs to this partition.
            while stream.peek().is_some_and(|emit| run.partition(emit.meter).0 != partition) {
                stream.advance();
            }
            let same = stream.peek().is_some_and(|emit| {
                run.fleet().meter_id(emit.meter) == reading.meter_id
                    && emit.interval * run.interval_ms() == reading.timestamp.0
            });
            in_order = same;
            if in_order {
                stream.advance();
            } else {
                tally.fault(format!(
                    "the order of {topic}[{partition}] differs from the run's at offset {}",
                    message.offset()
                ));
            }
        }
        if last {
            return Ok(());
        }
    }
}
