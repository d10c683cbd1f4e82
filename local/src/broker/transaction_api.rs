//! Producer ids and transactions, answered.

use kafka_protocol::{
    error::ResponseError,
    messages::{
        AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
        EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse, ProducerId,
        TxnOffsetCommitRequest, TxnOffsetCommitResponse,
        add_partitions_to_txn_response::{AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult},
        txn_offset_commit_response::{TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic},
    },
};

use super::{
    cluster::{Cluster, Inner, now_ms},
    transactions::Status,
};

pub(super) fn init(cluster: &Cluster, request: &InitProducerIdRequest) -> InitProducerIdResponse {
    let mut inner = cluster.lock();
    let given = match &request.transactional_id {
        None => inner.transactions.new_producer().map(|id| (id, 0)),
        Some(id) => take_over(&mut inner, &id.0, request),
    };
    drop(inner);
    cluster.appended.notify_waiters();
    match given {
        Ok((id, epoch)) => {
            InitProducerIdResponse::default().with_producer_id(ProducerId(id)).with_producer_epoch(epoch)
        }
        Err(error) => InitProducerIdResponse::default()
            .with_error_code(error.code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

/// The predecessor's transaction ends before the new owner is told its epoch.
fn take_over(inner: &mut Inner, id: &str, request: &InitProducerIdRequest) -> Result<(i64, i16), ResponseError> {
    if let Some(transaction) = inner.transactions.get_mut(id) {
        // A client that continues names its id and epoch; one that was fenced must not fence its successor.
        let continues = request.producer_id.0 >= 0;
        if continues
            && (request.producer_id.0 != transaction.producer_id || request.producer_epoch != transaction.epoch)
        {
            return Err(ResponseError::ProducerFenced);
        }
        let commit = transaction.status == Status::PrepareCommit;
        inner.end_transaction(id, commit)?;
    }
    inner.transactions.take_over(id, request.transaction_timeout_ms)
}

/// Begins a transaction with its first partition or group.
fn begin(inner: &mut Inner, id: &str, producer_id: i64, epoch: i16) -> Result<(), ResponseError> {
    let transaction = inner.transactions.owned(id, producer_id, epoch)?;
    match transaction.status {
        Status::Ongoing => Ok(()),
        Status::Empty => {
            transaction.status = Status::Ongoing;
            transaction.started_ms = now_ms();
            Ok(())
        }
        Status::PrepareCommit | Status::PrepareAbort => Err(ResponseError::ConcurrentTransactions),
    }
}

pub(super) fn add_partitions(cluster: &Cluster, request: AddPartitionsToTxnRequest) -> AddPartitionsToTxnResponse {
    let mut inner = cluster.lock();
    let id = request.v3_and_below_transactional_id.0.to_string();
    let (producer_id, epoch) = (request.v3_and_below_producer_id.0, request.v3_and_below_producer_epoch);
    let wanted: Vec<(String, i32)> = request
        .v3_and_below_topics
        .iter()
        .flat_map(|topic| topic.partitions.iter().map(|partition| (topic.name.0.to_string(), *partition)))
        .collect();
    let mut add = || -> Result<(), ResponseError> {
        for (topic, partition) in &wanted {
            inner.log(topic, *partition)?;
        }
        begin(&mut inner, &id, producer_id, epoch)?;
        inner.transactions.owned(&id, producer_id, epoch)?.partitions.extend(wanted.clone());
        inner.transactions.save()
    };
    let code = add().err().map_or(0, |error| error.code());
    let results = request.v3_and_below_topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*partition)
                .with_partition_error_code(code)
        });
        let partitions = partitions.collect();
        AddPartitionsToTxnTopicResult::default().with_name(topic.name).with_results_by_partition(partitions)
    });
    let results = results.collect();
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results)
}

pub(super) fn add_offsets(cluster: &Cluster, request: &AddOffsetsToTxnRequest) -> AddOffsetsToTxnResponse {
    let mut inner = cluster.lock();
    let begun = begin(&mut inner, &request.transactional_id.0, request.producer_id.0, request.producer_epoch)
        .and_then(|()| inner.transactions.save());
    AddOffsetsToTxnResponse::default().with_error_code(begun.err().map_or(0, |error| error.code()))
}

pub(super) fn commit_offsets(cluster: &Cluster, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let mut inner = cluster.lock();
    let id = request.transactional_id.0.to_string();
    let mut commit = || -> Result<(), ResponseError> {
        if request.generation_id >= 0 {
            inner.groups.may_commit(&request.group_id.0, request.generation_id, &request.member_id)?;
        }
        let transaction = inner.transactions.owned(&id, request.producer_id.0, request.producer_epoch)?;
        if transaction.status != Status::Ongoing {
            return Err(ResponseError::InvalidTxnState);
        }
        let offsets = transaction.offsets.entry(request.group_id.0.to_string()).or_default();
        for topic in &request.topics {
            for partition in &topic.partitions {
                let metadata = partition.committed_metadata.as_ref().map(|metadata| metadata.to_string());
                offsets.insert(
                    (topic.name.0.to_string(), partition.partition_index),
                    (partition.committed_offset, metadata),
                );
            }
        }
        inner.transactions.save()
    };
    let code = commit().err().map_or(0, |error| error.code());
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        TxnOffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    let topics = topics.collect();
    TxnOffsetCommitResponse::default().with_topics(topics)
}

pub(super) fn end(cluster: &Cluster, request: &EndTxnRequest) -> EndTxnResponse {
    let mut inner = cluster.lock();
    let id = request.transactional_id.0.to_string();
    let mut end = || -> Result<(), ResponseError> {
        let transaction = inner.transactions.owned(&id, request.producer_id.0, request.producer_epoch)?;
        match (transaction.status, request.committed) {
            // A repeat of an answer that was lost.
            (Status::Empty, _) => Ok(()),
            (Status::PrepareAbort, true) | (Status::PrepareCommit, false) => Err(ResponseError::InvalidTxnState),
            _ => inner.end_transaction(&id, request.committed),
        }
    };
    let ended = end();
    drop(inner);
    cluster.appended.notify_waiters();
    EndTxnResponse::default().with_error_code(ended.err().map_or(0, |error| error.code()))
}
