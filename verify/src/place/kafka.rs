//! A run's topic, read-committed, and in order: one writer a partition makes the order part of the proof.

use std::time::Duration;

use flux_generator::{
    emission::{Emit, Kind, ShardStream},
    run::Run,
};
use flux_schemas::{
    codec, framing,
    row::{Cell, Row, Table},
    run::RUN_HEADER,
};
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
    let Some((topic, _)) = expectation.run().spec().topic_of(tally.table()) else { return Ok(()) };
    for (partition, end) in expectation.ends(tally.table()) {
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
        let mut cells = Vec::new();
        match datum.map(|datum| codec::decode_row(tally.table(), tally.width(), datum, &mut cells)) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                tally.unreadable(&error.to_string(), origin);
                continue;
            }
            None => {
                tally.unreadable("no Confluent frame", origin);
                continue;
            }
        }
        tally.row(&cells, origin);
        if in_order {
            // The next row of the shard that belongs to this topic and partition.
            while stream.peek().is_some_and(|emit| !is_here(expectation, &stream, tally.table(), partition, &emit)) {
                stream.advance();
            }
            let row = Row { table: tally.table(), cells: &cells };
            in_order = stream.peek().is_some_and(|emit| is_same(run, &stream, &emit, &row));
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

/// Whether the shard's next row goes to this partition of this table's topic.
fn is_here(expectation: &Expectation, stream: &ShardStream, table: &Table, partition: i32, emit: &Emit) -> bool {
    let run = expectation.run();
    match (emit.kind, table.name) {
        (Kind::Event, "events") => {
            run.partition(emit.meter).0 == partition && !expectation.is_event_dropped(stream.event(*emit))
        }
        (Kind::Asset, "assets") => run.partition_of_asset(emit.meter).0 == partition,
        (Kind::Event | Kind::Asset, _) | (_, "events" | "assets") => false,
        _ => run.partition(emit.meter).0 == partition && !expectation.is_dropped(emit),
    }
}

/// Whether a row is the shard's next one, as far as its place in the order goes.
fn is_same(run: &Run, stream: &ShardStream, emit: &Emit, row: &Row<'_>) -> bool {
    match emit.kind {
        Kind::Event => row.cells.contains(&Cell::Id(stream.event(*emit).id)),
        Kind::Asset => run.asset_id(emit.meter) == row.key(),
        _ => run.fleet().meter_id(emit.meter) == row.key() && emit.interval * run.interval_ms() == row.time().0,
    }
}
