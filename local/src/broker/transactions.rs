//! Transactional ids: who owns one, what its transaction spans, and what ends it.
//!
//! The state is written before it takes effect: a commit that was decided is carried out after a crash, a transaction
//! that was open is aborted by its timeout as before.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};

use crate::{Error, state};

/// A topic partition.
pub(super) type TopicPartition = (String, i32);
/// By partition: offset and metadata to commit.
pub(super) type Offsets = BTreeMap<TopicPartition, (i64, Option<String>)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Status {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Transaction {
    pub(super) producer_id: i64,
    pub(super) epoch: i16,
    pub(super) timeout_ms: i64,
    pub(super) status: Status,
    pub(super) started_ms: i64,
    pub(super) partitions: BTreeSet<TopicPartition>,
    /// By group.
    #[serde(with = "as_list")]
    pub(super) offsets: BTreeMap<String, Offsets>,
}

/// JSON has no maps keyed by pairs.
mod as_list {
    use super::{BTreeMap, Offsets};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    type Item = (String, Vec<((String, i32), (i64, Option<String>))>);

    pub(super) fn serialize<S: Serializer>(
        offsets: &BTreeMap<String, Offsets>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let list: Vec<Item> =
            offsets.iter().map(|(group, offsets)| (group.clone(), offsets.clone().into_iter().collect())).collect();
        list.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<String, Offsets>, D::Error> {
        let list = Vec::<Item>::deserialize(deserializer)?;
        Ok(list.into_iter().map(|(group, offsets)| (group, offsets.into_iter().collect())).collect())
    }
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    next_producer_id: i64,
    transactions: BTreeMap<String, Transaction>,
}

#[derive(Debug)]
pub(super) struct Transactions {
    stored: Stored,
    file: PathBuf,
}

/// Longest transaction timeout that is taken, ms: Kafka's own default.
const LONGEST_TIMEOUT_MS: i32 = 900_000;

impl Transactions {
    pub(super) fn load(file: PathBuf, largest_producer: i64) -> Result<Self, Error> {
        let mut stored: Stored = state::load(&file)?;
        stored.next_producer_id = stored.next_producer_id.max(largest_producer + 1).max(1);
        Ok(Self { stored, file })
    }

    pub(super) fn save(&self) -> Result<(), ResponseError> {
        state::save(&self.file, &self.stored).map_err(|error| {
            tracing::error!(error = flux_service::logging::chain(&error), "transaction state not saved");
            ResponseError::CoordinatorNotAvailable
        })
    }

    /// An id for a producer without transactions.
    pub(super) fn new_producer(&mut self) -> Result<i64, ResponseError> {
        let id = self.stored.next_producer_id;
        self.stored.next_producer_id += 1;
        self.save()?;
        Ok(id)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Transaction> {
        self.stored.transactions.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Transaction> {
        self.stored.transactions.get_mut(id)
    }

    /// Gives the transactional id to a new owner, whose epoch fences the older one. Its transaction must have ended.
    pub(super) fn take_over(&mut self, id: &str, timeout_ms: i32) -> Result<(i64, i16), ResponseError> {
        if timeout_ms <= 0 || timeout_ms > LONGEST_TIMEOUT_MS {
            return Err(ResponseError::InvalidTransactionTimeout);
        }
        let fresh = self.stored.next_producer_id;
        let transaction = self.stored.transactions.entry(id.into()).or_insert(Transaction {
            producer_id: -1,
            epoch: -1,
            timeout_ms: 0,
            status: Status::Empty,
            started_ms: 0,
            partitions: BTreeSet::new(),
            offsets: BTreeMap::new(),
        });
        if transaction.producer_id < 0 || transaction.epoch == i16::MAX {
            (transaction.producer_id, transaction.epoch) = (fresh, -1);
            self.stored.next_producer_id += 1;
        }
        transaction.epoch += 1;
        transaction.timeout_ms = i64::from(timeout_ms);
        let owner = (transaction.producer_id, transaction.epoch);
        self.save()?;
        Ok(owner)
    }

    /// The transaction of an owner that has not been fenced.
    pub(super) fn owned(&mut self, id: &str, producer_id: i64, epoch: i16) -> Result<&mut Transaction, ResponseError> {
        let transaction = self.stored.transactions.get_mut(id).ok_or(ResponseError::InvalidProducerIdMapping)?;
        if transaction.producer_id != producer_id {
            return Err(ResponseError::InvalidProducerIdMapping);
        }
        if transaction.epoch != epoch {
            return Err(ResponseError::ProducerFenced);
        }
        Ok(transaction)
    }

    /// Ids whose transaction has to end now: decided before a crash, or open for too long.
    pub(super) fn due(&self, now_ms: i64) -> Vec<(String, Status)> {
        let due = |transaction: &Transaction| match transaction.status {
            Status::Empty => None,
            Status::Ongoing => (now_ms - transaction.started_ms > transaction.timeout_ms).then_some(Status::Ongoing),
            prepared => Some(prepared),
        };
        self.stored.transactions.iter().filter_map(|(id, transaction)| Some((id.clone(), due(transaction)?))).collect()
    }
}
