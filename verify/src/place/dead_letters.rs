//! What a sink set aside, by run.

use std::{collections::HashSet, time::Duration};

use flux_schemas::{codec, framing, run::RUN_HEADER};
use flux_service::kafka::{KafkaSettings, identity::Identities};
use rdkafka::{
    Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
    message::Headers,
};

use crate::{Error, tally::Tally};

/// `origin` is the topic that the letters come from.
pub(super) fn scan(kafka: &KafkaSettings, topic: &str, origin: &str, tally: &mut Tally) -> Result<(), Error> {
    let failed =
        |error: KafkaError| Error::Place { place: "kafka", doing: format!("reading {topic}"), source: error.into() };
    let Some(identity) = Identities::new(kafka)?.topic(topic, Duration::from_secs(20))? else { return Ok(()) };
    let consumer: BaseConsumer = super::kafka::reader(kafka)?;
    let mut seen = HashSet::new();
    for partition in 0..identity.partitions {
        let (low, high) = consumer.fetch_watermarks(topic, partition, Duration::from_secs(20)).map_err(failed)?;
        if low == high {
            continue;
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, partition, Offset::Offset(low)).map_err(failed)?;
        consumer.assign(&list).map_err(failed)?;
        loop {
            match consumer.poll(Duration::from_secs(20)) {
                Some(Ok(message)) => {
                    let Some(headers) = message.headers() else { continue };
                    let value =
                        |key: &str| headers.iter().find(|header| header.key == key).and_then(|header| header.value);
                    // At least once: the origin tells copies apart.
                    let ours = value(RUN_HEADER) == Some(&tally.run_id().0.to_be_bytes());
                    let from = value("origin").unwrap_or_default();
                    let ours = ours && from.starts_with(format!("{origin}/").as_bytes());
                    if ours && seen.insert(from.to_vec()) {
                        let mut cells = Vec::new();
                        let datum = message.payload().and_then(framing::split).map(|(_, datum)| datum);
                        let row = datum
                            .and_then(|datum| codec::decode_row(tally.table(), tally.width(), datum, &mut cells).ok());
                        tally.dead_letter(row.map(|()| &*cells));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => break,
                Some(Err(error)) => return Err(failed(error)),
                None => return Err(failed(KafkaError::PartitionEOF(partition))),
            }
        }
    }
    Ok(())
}
