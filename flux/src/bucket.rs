//! `flux generate --out s3://BUCKET/PREFIX`: files are made on this disk and put when they are whole.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use flux_export::place::Place;
use flux_service::{
    s3::S3Login,
    settings::{Origin, Settings},
};
use object_store::{ObjectStore, ObjectStoreExt, path::Path as Key};

use crate::roles::Usage;

/// Files under a prefix of a bucket.
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    name: String,
    prefix: String,
    /// Where files are made.
    scratch: tempfile::TempDir,
    runtime: tokio::runtime::Handle,
}

impl Bucket {
    /// `target` is `BUCKET/PREFIX`; must be called on the runtime.
    pub(crate) fn open(settings: &Settings, target: &str) -> anyhow::Result<Self> {
        let (name, prefix) = target.split_once('/').unwrap_or((target, ""));
        if name.is_empty() {
            return Err(Usage(format!("--out is \"s3://{target}\"; use s3://BUCKET or s3://BUCKET/PREFIX")).into());
        }
        let mut settings = settings.clone();
        settings.set("s3.bucket", name, Origin::Flag("--out".into()))?;
        let store = S3Login::new(&settings)?.open()?;
        Ok(Self {
            store,
            name: name.into(),
            prefix: prefix.trim_matches('/').into(),
            scratch: tempfile::tempdir()?,
            runtime: tokio::runtime::Handle::current(),
        })
    }

    fn key(&self, key: &str) -> Key {
        Key::from(format!("{}/{key}", self.prefix).trim_start_matches('/'))
    }
}

impl Place for Bucket {
    fn path(&self, key: &str) -> PathBuf {
        PathBuf::from(format!("s3://{}/{}", self.name, self.key(key)))
    }

    fn has(&self, key: &str) -> io::Result<bool> {
        match self.runtime.block_on(self.store.head(&self.key(key))) {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn read(&self, key: &str) -> io::Result<Option<Vec<u8>>> {
        let body = self.runtime.block_on(async { self.store.get(&self.key(key)).await?.bytes().await });
        match body {
            Ok(body) => Ok(Some(body.to_vec())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(io::Error::other(error)),
        }
    }

    fn unfinished(&self, key: &str) -> io::Result<PathBuf> {
        Ok(self.scratch.path().join(key.replace('/', "~")))
    }

    fn keep(&self, unfinished: &Path, key: &str) -> io::Result<()> {
        let body = fs::read(unfinished)?;
        self.runtime.block_on(self.store.put(&self.key(key), body.into())).map_err(io::Error::other)?;
        fs::remove_file(unfinished)
    }
}
