//! Produce, fetch, and the offsets of the log.

use std::time::Duration;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest, ListOffsetsResponse, OffsetForLeaderEpochRequest,
        OffsetForLeaderEpochResponse, ProduceRequest, ProduceResponse, ProducerId,
        fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData},
        list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse},
        offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult},
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
};

use super::{
    batch::Header,
    cluster::{Cluster, Inner},
    log::Refused,
    transactions::Status,
};

/// A fetch answers with at most this, whatever the client asks for.
const FETCH_LIMIT: usize = 16 << 20;

pub(super) fn produce(cluster: &Cluster, request: ProduceRequest) -> ProduceResponse {
    let mut inner = cluster.lock();
    let transactional_id = request.transactional_id.map(|id| id.0.to_string());
    let mut topics = Vec::new();
    for topic in request.topic_data {
        let name = topic.name.0.to_string();
        let partitions = topic.partition_data.into_iter().map(|data| {
            let records = data.records.unwrap_or_default();
            let appended = append(&mut inner, &name, data.index, &records, transactional_id.as_deref());
            let (base, code) = appended.map_or_else(|error| (-1, error.code()), |base| (base, 0));
            PartitionProduceResponse::default()
                .with_index(data.index)
                .with_error_code(code)
                .with_base_offset(base)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(0)
        });
        let partitions = partitions.collect();
        topics.push(TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions));
    }
    drop(inner);
    cluster.appended.notify_waiters();
    ProduceResponse::default().with_responses(topics)
}

fn append(
    inner: &mut Inner,
    topic: &str,
    partition: i32,
    records: &[u8],
    transactional_id: Option<&str>,
) -> Result<i64, ResponseError> {
    let header = Header::read(records).ok_or(ResponseError::CorruptMessage)?;
    if header.is_transactional() {
        let id = transactional_id.ok_or(ResponseError::InvalidTxnState)?;
        let transaction = inner.transactions.get(id).ok_or(ResponseError::InvalidProducerIdMapping)?;
        if transaction.producer_id != header.producer_id || transaction.epoch != header.producer_epoch {
            return Err(ResponseError::InvalidProducerEpoch);
        }
        if transaction.status != Status::Ongoing || !transaction.partitions.contains(&(topic.to_string(), partition)) {
            return Err(ResponseError::InvalidTxnState);
        }
    }
    inner.log(topic, partition)?.append(records).map_err(|refused| match refused {
        Refused::Corrupt => ResponseError::CorruptMessage,
        Refused::OutOfOrder => ResponseError::OutOfOrderSequenceNumber,
        Refused::FencedEpoch => ResponseError::InvalidProducerEpoch,
        Refused::Disk(error) => {
            tracing::error!(%error, topic, partition, "append failed: free some space in the data folder");
            ResponseError::KafkaStorageError
        }
    })
}

/// Waits up to the client's patience for the bytes that it wants, then answers with what there is.
pub(super) async fn fetch(cluster: &Cluster, request: FetchRequest) -> FetchResponse {
    let deadline = tokio::time::Instant::now() + Duration::from_millis(request.max_wait_ms.clamp(0, 30_000) as u64);
    let wanted = request.min_bytes.max(1) as u64;
    loop {
        let appended = cluster.appended.notified();
        tokio::pin!(appended);
        appended.as_mut().enable();
        if available(&mut cluster.lock(), &request).is_none_or(|bytes| bytes >= wanted) {
            break;
        }
        if tokio::time::timeout_at(deadline, appended).await.is_err() {
            break;
        }
    }
    let mut inner = cluster.lock();
    let mut budget = FETCH_LIMIT.min(request.max_bytes.max(1) as usize);
    let committed = request.isolation_level == 1;
    let responses = request.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let most = budget.min(asked.partition_max_bytes.max(1) as usize);
            let data =
                read(&mut inner, &topic.topic.0, asked.partition, asked.fetch_offset, most, committed, budget > 0);
            budget = budget.saturating_sub(data.records.as_ref().map_or(0, bytes::Bytes::len));
            data
        });
        let partitions = partitions.collect();
        FetchableTopicResponse::default().with_topic(topic.topic.clone()).with_partitions(partitions)
    });
    let responses = responses.collect();
    FetchResponse::default().with_responses(responses)
}

/// Bytes that could be answered now; `None` when there is an error to answer with.
fn available(inner: &mut Inner, request: &FetchRequest) -> Option<u64> {
    let mut bytes = 0;
    for topic in &request.topics {
        for asked in &topic.partitions {
            let log = inner.log(&topic.topic.0, asked.partition).ok()?;
            let end = if request.isolation_level == 1 { log.stable_offset() } else { log.next_offset() };
            if asked.fetch_offset < 0 || asked.fetch_offset > log.next_offset() {
                return None;
            }
            bytes += log.bytes_between(asked.fetch_offset, end);
        }
    }
    Some(bytes)
}

fn read(
    inner: &mut Inner,
    topic: &str,
    partition: i32,
    offset: i64,
    most: usize,
    committed: bool,
    room: bool,
) -> PartitionData {
    let none = BrokerId(-1);
    let answer = PartitionData::default().with_partition_index(partition).with_preferred_read_replica(none);
    let failed = |answer: PartitionData, error: ResponseError| {
        answer.with_error_code(error.code()).with_high_watermark(-1).with_last_stable_offset(-1)
    };
    let log = match inner.log(topic, partition) {
        Ok(log) => log,
        Err(error) => return failed(answer, error),
    };
    let (stable, high) = (log.stable_offset(), log.next_offset());
    if !(0..=high).contains(&offset) {
        return failed(answer, ResponseError::OffsetOutOfRange);
    }
    let answer = answer.with_high_watermark(high).with_last_stable_offset(stable).with_log_start_offset(0);
    let end = if committed { stable } else { high };
    if !room {
        return answer.with_records(Some(bytes::Bytes::new()));
    }
    match log.fetch(offset, end, most, committed) {
        Ok(fetched) => {
            let aborted = fetched.aborted.iter().map(|aborted| {
                AbortedTransaction::default()
                    .with_producer_id(ProducerId(aborted.producer_id))
                    .with_first_offset(aborted.first_offset)
            });
            answer.with_aborted_transactions(committed.then(|| aborted.collect())).with_records(Some(fetched.records))
        }
        Err(error) => {
            tracing::error!(%error, topic, partition, "read failed");
            failed(answer, ResponseError::KafkaStorageError)
        }
    }
}

pub(super) fn list_offsets(cluster: &Cluster, request: ListOffsetsRequest) -> ListOffsetsResponse {
    let mut inner = cluster.lock();
    let committed = request.isolation_level == 1;
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = ListOffsetsPartitionResponse::default()
                .with_partition_index(asked.partition_index)
                .with_leader_epoch(0);
            match inner.log(&topic.name.0, asked.partition_index) {
                Err(error) => answer.with_error_code(error.code()).with_offset(-1).with_timestamp(-1),
                Ok(log) => {
                    let end = if committed { log.stable_offset() } else { log.next_offset() };
                    let (timestamp, offset) = match asked.timestamp {
                        -1 => (-1, end),
                        -2 => (-1, 0),
                        time => log.offset_for_time(time).unwrap_or((-1, -1)),
                    };
                    answer.with_offset(offset).with_timestamp(timestamp)
                }
            }
        });
        let partitions = partitions.collect();
        ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions)
    });
    let topics = topics.collect();
    ListOffsetsResponse::default().with_topics(topics)
}

/// There is one leader and one epoch: it ends where the log ends.
pub(super) fn offset_for_leader_epoch(
    cluster: &Cluster,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let mut inner = cluster.lock();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let answer = EpochEndOffset::default().with_partition(asked.partition);
            match inner.log(&topic.topic.0, asked.partition) {
                Ok(log) => answer.with_leader_epoch(0).with_end_offset(log.next_offset()),
                Err(error) => answer.with_error_code(error.code()),
            }
        });
        let partitions = partitions.collect();
        OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(partitions)
    });
    let topics = topics.collect();
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}
