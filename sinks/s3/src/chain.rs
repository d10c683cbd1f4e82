//! The chain of plans of one partition.

use std::sync::Arc;

use bytes::Bytes;
use flux_runner::contract::Error;
use flux_schemas::{
    layout::plan::{PLAN_VERSION, Plan, chain_prefix, partition_prefix, plan_key},
    source::Source,
};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, path::Path};

use crate::sink::classify;

/// One partition's chain in the store.
#[derive(Debug, Clone)]
pub struct Chain {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) sink: Arc<str>,
    pub(crate) source: Source,
}

/// What became of a create-only PUT.
#[derive(Debug, PartialEq, Eq)]
pub enum Created {
    /// The object was made now.
    Yes,
    /// It is there already.
    Exists,
}

impl Chain {
    /// The last plan; `None` when the chain has not begun.
    ///
    /// # Errors
    /// [`Error::Broken`] when the chain has a gap or belongs to another topic.
    pub async fn last(&self) -> Result<Option<Plan>, Error> {
        let prefix = Path::from(partition_prefix(&self.sink, &self.source));
        let identity = self.source.identity();
        let ours = Path::from(chain_prefix(&self.sink, &self.source));
        let mut keys: Vec<Path> = Vec::new();
        let mut listing = self.store.list(Some(&prefix));
        while let Some(object) = listing.try_next().await.map_err(classify)? {
            if !object.location.prefix_matches(&ours) {
                let theirs = object.location.parts().nth(4).map(|part| part.as_ref().to_string()).unwrap_or_default();
                return Err(Error::broken(
                    format!(
                        "{}: the bucket holds plans of another topic of this name (identity {theirs}, now {identity})",
                        self.source
                    ),
                    "the topic was deleted and created again, or this is another cluster: give the sink another name (sink.name)",
                ));
            }
            keys.push(object.location);
        }
        keys.sort_unstable();
        let Some(last) = keys.last() else { return Ok(None) };
        let plan = self.read(last).await?;
        if let Some(before) = keys.len().checked_sub(2).map(|index| &keys[index]) {
            let before = self.read(before).await?;
            if before.to != plan.from {
                return Err(Error::broken(
                    format!(
                        "{}: the plan from {} ends at {}, the next begins at {}",
                        self.source, before.from, before.to, plan.from
                    ),
                    "a plan was removed by hand: restore it from the bucket's versions",
                ));
            }
        }
        Ok(Some(plan))
    }

    async fn read(&self, key: &Path) -> Result<Plan, Error> {
        let bytes = self.store.get(key).await.map_err(classify)?.bytes().await.map_err(classify)?;
        let plan: Plan = serde_json::from_slice(&bytes).map_err(|error| {
            Error::broken(format!("{key}: not a plan: {error}"), "restore it from the bucket's versions")
        })?;
        if plan.version != PLAN_VERSION {
            return Err(Error::broken(
                format!("{key}: plan version {}", plan.version),
                "use the flux version that wrote it",
            ));
        }
        Ok(plan)
    }

    /// Decides the plan from `plan.from`: `Ok` when it is ours now, also when only the answer of an earlier attempt
    /// was lost.
    ///
    /// # Errors
    /// [`Error::Fenced`] when another writer decided first.
    pub async fn decide(&self, plan: &Plan) -> Result<(), Error> {
        let key = Path::from(plan_key(&self.sink, &self.source, plan.from));
        let body = serde_json::to_vec(plan).expect("a plan is plain data");
        match self.create(&key, body.into()).await? {
            Created::Yes => Ok(()),
            Created::Exists => {
                let winner = self.read(&key).await?;
                if winner.nonce == plan.nonce {
                    return Ok(());
                }
                Err(Error::Fenced(format!("{}: another writer planned from {}", self.source, plan.from)))
            }
        }
    }

    /// Creates an object unless it is there. A store may answer "exists" for "try again" (a conflict of two requests)
    /// or for our own first attempt: so look, and if nothing is there, put again.
    ///
    /// # Errors
    /// As [`classify`].
    pub async fn create(&self, key: &Path, body: Bytes) -> Result<Created, Error> {
        let options = PutOptions::from(PutMode::Create);
        for _ in 0..3 {
            match self.store.put_opts(key, body.clone().into(), options.clone()).await {
                Ok(_) => return Ok(Created::Yes),
                Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                    if self.exists(key).await? {
                        return Ok(Created::Exists);
                    }
                }
                Err(error) => return Err(classify(error)),
            }
        }
        Err(Error::unavailable(format!("{key}: the store says that it exists and that it does not")))
    }

    /// Those of the objects that are not there.
    ///
    /// # Errors
    /// As [`classify`].
    pub async fn missing(&self, keys: Vec<String>) -> Result<Vec<String>, Error> {
        let look = async |chain: Chain, key: String| -> Result<Option<String>, Error> {
            let there = chain.exists(&Path::from(key.as_str())).await?;
            Ok((!there).then_some(key))
        };
        let looks: Vec<_> = keys.into_iter().map(|key| look(self.clone(), key)).collect();
        let found: Vec<Option<String>> = futures::stream::iter(looks).buffer_unordered(16).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Whether the object is there.
    ///
    /// # Errors
    /// As [`classify`].
    pub async fn exists(&self, key: &Path) -> Result<bool, Error> {
        match self.store.head(key).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(classify(error)),
        }
    }
}
