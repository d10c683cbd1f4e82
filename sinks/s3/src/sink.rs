//! Claim: find the last plan, and finish it if somebody did not.

use std::sync::Arc;

use flux_runner::contract::{Claim, Durable, Error, Sink};
use flux_schemas::{
    row::Table,
    source::{Position, Source},
};
use object_store::ObjectStore;
use tokio::sync::watch;

use crate::{
    chain::Chain,
    settings::S3Settings,
    writer::{Recovery, S3Writer},
};

/// The destination.
#[derive(Debug)]
pub struct S3Sink {
    store: Arc<dyn ObjectStore>,
    settings: S3Settings,
    table: &'static Table,
    name: Arc<str>,
}

impl S3Sink {
    /// A sink of `table` called `name`; chains of different names are apart.
    ///
    /// # Errors
    /// [`Error::Broken`] when the settings make no client.
    pub fn new(settings: S3Settings, table: &'static Table, name: &str) -> Result<Self, Error> {
        let store = settings.login.open().map_err(classify)?;
        Ok(Self { store, settings, table, name: name.into() })
    }
}

impl Sink for S3Sink {
    type Writer = S3Writer;

    async fn claim(&self, source: &Source) -> Result<Claim<S3Writer>, Error> {
        let chain = Chain { store: self.store.clone(), sink: self.name.clone(), source: source.clone() };
        let last = chain.last().await?;
        let mut recovery = None;
        let position = match last {
            None => None,
            Some(plan) => {
                let keys: Vec<String> = plan.objects.iter().map(|object| object.key.clone()).collect();
                let missing = chain.missing(keys).await?;
                if missing.is_empty() {
                    Some(Position(plan.to))
                } else {
                    tracing::info!(%source, from = plan.from, to = plan.to, missing = missing.len(), "completing a plan");
                    let from = Position(plan.from);
                    recovery = Some(Recovery { plan, missing });
                    Some(from)
                }
            }
        };
        let (report, durable) = watch::channel(Durable::At(position.unwrap_or(Position(0))));
        let writer = S3Writer::new(chain, self.settings.clone(), self.table, position, recovery, report);
        Ok(Claim { writer, position, durable })
    }
}

/// What the runner should do about a store's error.
pub fn classify(error: object_store::Error) -> Error {
    use object_store::Error as Store;
    // A listing hides its status in the text of a generic error.
    let text = flux_service::logging::chain(&error);
    let fix = match &error {
        Store::PermissionDenied { .. } => RIGHTS,
        Store::Unauthenticated { .. } => KEYS,
        Store::Generic { .. } if text.contains("SignatureDoesNotMatch") || text.contains("InvalidAccessKeyId") => KEYS,
        Store::Generic { .. } if text.contains("403 Forbidden") => RIGHTS,
        Store::Generic { .. } if text.contains("NoSuchBucket") => BUCKET,
        Store::NotFound { .. } => BUCKET,
        Store::InvalidPath { .. } | Store::UnknownConfigurationKey { .. } => "check the s3.* settings",
        _ => return Error::unavailable(error),
    };
    Error::Broken { what: "the object store refuses".into(), fix: fix.into(), source: Some(error.into()) }
}

const RIGHTS: &str = "grant the sink s3:ListBucket, s3:GetObject and s3:PutObject on the bucket";
const KEYS: &str = "check s3.access_key_id and s3.secret_access_key_file";
const BUCKET: &str = "create the bucket, or name another in s3.bucket";
