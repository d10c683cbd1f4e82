//! Topics, and everything behind one lock: a laptop has one user.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use kafka_protocol::error::ResponseError;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{
    groups::Groups,
    log::{Log, Refused},
    transactions::{Status, Transactions},
};
use crate::{Error, state};

/// The only node.
pub(super) const NODE: i32 = 1;
/// Partitions that a topic may have.
const MOST_PARTITIONS: i32 = 1024;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct TopicMeta {
    pub(super) id: Uuid,
    pub(super) partitions: i32,
    pub(super) config: BTreeMap<String, String>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    cluster_id: String,
    topics: BTreeMap<String, TopicMeta>,
}

pub(super) struct Topic {
    pub(super) meta: TopicMeta,
    pub(super) logs: Vec<Log>,
}

/// What the lock guards.
pub(super) struct Inner {
    folder: PathBuf,
    pub(super) cluster_id: String,
    pub(super) topics: BTreeMap<String, Topic>,
    pub(super) transactions: Transactions,
    pub(super) groups: Groups,
}

pub(super) struct Cluster {
    inner: Mutex<Inner>,
    /// Something was appended, or became stable: fetches that wait look again.
    pub(super) appended: Notify,
    pub(super) address: SocketAddr,
}

pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

impl Cluster {
    pub(super) fn load(folder: &Path, address: SocketAddr) -> Result<Self, Error> {
        state::folder(folder)?;
        let mut stored: Stored = state::load(&folder.join("topics.json"))?;
        if stored.cluster_id.is_empty() {
            stored.cluster_id = Uuid::new_v4().simple().to_string();
        }
        let mut topics = BTreeMap::new();
        for (name, meta) in stored.topics {
            let logs = logs(folder, &meta, 0)?;
            topics.insert(name, Topic { meta, logs });
        }
        let largest =
            topics.values().flat_map(|topic: &Topic| &topic.logs).map(Log::largest_producer).max().unwrap_or(-1);
        let inner = Inner {
            folder: folder.into(),
            cluster_id: stored.cluster_id,
            topics,
            transactions: Transactions::load(folder.join("transactions.json"), largest)?,
            groups: Groups::load(folder.join("offsets.json"))?,
        };
        inner.save()?;
        Ok(Self { inner: Mutex::new(inner), appended: Notify::new(), address })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What time brings: transactions that have to end, members that have gone.
    pub(super) fn tick(&self) {
        let mut inner = self.lock();
        for (id, status) in inner.transactions.due(now_ms()) {
            let commit = status == Status::PrepareCommit;
            if status == Status::Ongoing {
                // The owner was silent for too long: fence it, as an owner that comes back must find out.
                tracing::info!(id, "transaction timed out");
                if let Some(transaction) = inner.transactions.get_mut(&id) {
                    transaction.epoch = transaction.epoch.saturating_add(1);
                }
            }
            if let Err(error) = inner.end_transaction(&id, commit) {
                tracing::warn!(id, %error, "transaction not ended yet");
            }
        }
        inner.groups.tick();
        drop(inner);
        self.appended.notify_waiters();
    }
}

fn logs(folder: &Path, meta: &TopicMeta, from: i32) -> Result<Vec<Log>, Error> {
    // The id, not the name, names the folder: a name may hold anything, and a topic made again starts empty.
    let path = folder.join("topics").join(meta.id.simple().to_string());
    state::folder(&path)?;
    (from..meta.partitions).map(|partition| Log::open(&path.join(format!("{partition}.log")))).collect()
}

impl Inner {
    fn save(&self) -> Result<(), Error> {
        let topics = self.topics.iter().map(|(name, topic)| (name.clone(), topic.meta.clone())).collect();
        state::save(&self.folder.join("topics.json"), &Stored { cluster_id: self.cluster_id.clone(), topics })
    }

    fn saved(&self) -> Result<(), ResponseError> {
        self.save().map_err(|error| {
            tracing::error!(error = flux_service::logging::chain(&error), "topics not saved");
            ResponseError::KafkaStorageError
        })
    }

    /// Makes a topic.
    pub(super) fn create(
        &mut self,
        name: &str,
        partitions: i32,
        config: BTreeMap<String, String>,
        validate_only: bool,
    ) -> Result<TopicMeta, ResponseError> {
        let valid = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
        if name.is_empty() || name.len() > 249 || name == "." || name == ".." || !name.chars().all(valid) {
            return Err(ResponseError::InvalidTopicException);
        }
        let partitions = if partitions == -1 { 1 } else { partitions };
        if !(1..=MOST_PARTITIONS).contains(&partitions) {
            return Err(ResponseError::InvalidPartitions);
        }
        if self.topics.contains_key(name) {
            return Err(ResponseError::TopicAlreadyExists);
        }
        let meta = TopicMeta { id: Uuid::new_v4(), partitions, config };
        if !validate_only {
            let logs = logs(&self.folder, &meta, 0).map_err(|_| ResponseError::KafkaStorageError)?;
            self.topics.insert(name.into(), Topic { meta: meta.clone(), logs });
            self.saved()?;
        }
        Ok(meta)
    }

    /// Adds partitions to a topic.
    pub(super) fn grow(&mut self, name: &str, partitions: i32, validate_only: bool) -> Result<(), ResponseError> {
        let topic = self.topics.get_mut(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        if partitions <= topic.meta.partitions || partitions > MOST_PARTITIONS {
            return Err(ResponseError::InvalidPartitions);
        }
        if validate_only {
            return Ok(());
        }
        let known = topic.meta.partitions;
        topic.meta.partitions = partitions;
        let more = logs(&self.folder, &topic.meta, known).map_err(|_| ResponseError::KafkaStorageError)?;
        topic.logs.extend(more);
        self.saved()
    }

    /// Removes a topic, its rows and the groups' offsets in it.
    pub(super) fn delete(&mut self, name: &str) -> Result<Uuid, ResponseError> {
        let topic = self.topics.remove(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        self.saved()?;
        self.groups.forget_topic(name);
        let folder = self.folder.join("topics").join(topic.meta.id.simple().to_string());
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::warn!(folder = %folder.display(), %error, "files of a deleted topic stay behind");
        }
        Ok(topic.meta.id)
    }

    pub(super) fn topic_of_id(&self, id: Uuid) -> Option<&String> {
        self.topics.iter().find(|(_, topic)| topic.meta.id == id).map(|(name, _)| name)
    }

    pub(super) fn log(&mut self, topic: &str, partition: i32) -> Result<&mut Log, ResponseError> {
        let topic = self.topics.get_mut(topic).ok_or(ResponseError::UnknownTopicOrPartition)?;
        usize::try_from(partition)
            .ok()
            .and_then(|index| topic.logs.get_mut(index))
            .ok_or(ResponseError::UnknownTopicOrPartition)
    }

    /// Decides, writes the decision down, and carries it out: markers in every partition, then the offsets.
    pub(super) fn end_transaction(&mut self, id: &str, commit: bool) -> Result<(), ResponseError> {
        let Some(transaction) = self.transactions.get_mut(id) else { return Ok(()) };
        if transaction.status == Status::Empty {
            return Ok(());
        }
        transaction.status = if commit { Status::PrepareCommit } else { Status::PrepareAbort };
        let (producer_id, epoch) = (transaction.producer_id, transaction.epoch);
        let partitions = transaction.partitions.clone();
        let offsets = transaction.offsets.clone();
        self.transactions.save()?;
        let now = now_ms();
        for (topic, partition) in partitions {
            match self.log(&topic, partition).map(|log| log.end_transaction(producer_id, epoch, commit, now)) {
                // A topic that is gone needs no marker.
                Ok(Ok(())) | Err(_) => {}
                Ok(Err(Refused::Disk(error))) => {
                    tracing::error!(%error, topic, partition, "marker not written");
                    return Err(ResponseError::KafkaStorageError);
                }
                Ok(Err(_)) => return Err(ResponseError::UnknownServerError),
            }
            if let Some(transaction) = self.transactions.get_mut(id) {
                // Done here: a second attempt after a failure does not write it again.
                transaction.partitions.remove(&(topic, partition));
            }
        }
        if commit {
            for (group, offsets) in offsets {
                self.groups.store_offsets(&group, offsets);
            }
            self.groups.save()?;
        }
        if let Some(transaction) = self.transactions.get_mut(id) {
            transaction.status = Status::Empty;
            transaction.partitions.clear();
            transaction.offsets.clear();
        }
        self.transactions.save()
    }
}
