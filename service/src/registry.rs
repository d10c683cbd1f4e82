//! Schema registry client with a cache on disk, so that a registry outage stops nobody who has asked before.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use schema_registry_converter::{
    async_impl::schema_registry::{SrSettings, get_schema_by_id, post_schema},
    error::SRCError,
    schema_registry_common::{RawError, SchemaType, SuppliedSchema},
};

use crate::settings::Secret;

/// Where the registry is.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// Base URL; Apicurio's is `<host>/apis/ccompat/v7`.
    pub url: String,
    /// Basic authentication, `user:password`.
    pub credentials: Option<Secret>,
    /// Directory of the cache.
    pub cache: PathBuf,
}

/// What went wrong, by what the caller should do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No answer now: ask again later.
    #[error("schema registry {url} does not answer and the cache does not know the schema")]
    Unavailable {
        /// Registry.
        url: String,
        /// Cause.
        #[source]
        source: SRCError,
    },
    /// The registry answers that it has no such schema: this is not the registry that the writer used.
    #[error("schema registry {url} has no schema {id}; point registry.url at the one that the producer uses")]
    Unknown {
        /// Registry.
        url: String,
        /// Id asked for.
        id: u32,
    },
    /// The registry refuses the schema.
    #[error("schema registry {url} refuses the schema for subject {subject}")]
    Refused {
        /// Registry.
        url: String,
        /// Subject.
        subject: String,
        /// Cause.
        #[source]
        source: SRCError,
    },
    /// The settings make no client.
    #[error("registry.url is {url}: not usable")]
    Settings {
        /// Registry.
        url: String,
        /// Cause.
        #[source]
        source: SRCError,
    },
}

/// A registry client. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    inner: Arc<Inner>,
}

struct Inner {
    url: String,
    client: SrSettings,
    cache: PathBuf,
    schemas: Mutex<HashMap<u32, Arc<str>>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Registry").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Registry {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Settings`].
    pub fn new(settings: &RegistrySettings) -> Result<Self, Error> {
        let mut builder = SrSettings::new_builder(settings.url.clone());
        builder.set_timeout(Duration::from_secs(10));
        if let Some(credentials) = &settings.credentials {
            let (user, password) = credentials.expose().split_once(':').unwrap_or((credentials.expose(), ""));
            builder.set_basic_authorization(user, Some(password));
        }
        let client = builder.build().map_err(|source| Error::Settings { url: settings.url.clone(), source })?;
        // One folder per registry: ids of different registries mean different schemas.
        let folder: String =
            settings.url.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect();
        let inner =
            Inner { url: settings.url.clone(), client, cache: settings.cache.join(folder), schemas: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Registers a schema and returns its id; from the cache when the registry is out.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: later. [`Error::Refused`]: never, the schema is incompatible.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, Error> {
        let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.into());
        match post_schema(&self.inner.client, subject.into(), supplied).await {
            Ok(registered) => {
                let id = registered.id;
                self.remember(id, schema);
                Ok(id)
            }
            Err(source) if raw(&source).is_some() => {
                Err(Error::Refused { url: self.inner.url.clone(), subject: subject.into(), source })
            }
            Err(source) => {
                self.recall_id(schema).ok_or_else(|| Error::Unavailable { url: self.inner.url.clone(), source })
            }
        }
    }

    /// The schema with this id, as JSON.
    ///
    /// # Errors
    /// [`Error::Unavailable`]: later. [`Error::Unknown`]: stop, the registry is the wrong one.
    pub async fn schema(&self, id: u32) -> Result<Arc<str>, Error> {
        if let Some(schema) = self.known().get(&id) {
            return Ok(schema.clone());
        }
        match get_schema_by_id(id, &self.inner.client).await {
            Ok(registered) => {
                self.remember(id, &registered.schema);
                Ok(registered.schema.into())
            }
            Err(error) if raw(&error).is_some_and(|raw| (40401..=40403).contains(&raw.error_code)) => {
                Err(Error::Unknown { url: self.inner.url.clone(), id })
            }
            Err(source) => match std::fs::read_to_string(self.path(id)) {
                Ok(schema) => {
                    tracing::warn!(id = id, "schema registry is out: schema taken from the cache");
                    let schema: Arc<str> = schema.into();
                    self.known().insert(id, schema.clone());
                    Ok(schema)
                }
                Err(_) => Err(Error::Unavailable { url: self.inner.url.clone(), source }),
            },
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Arc<str>>> {
        self.inner.schemas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, id: u32) -> PathBuf {
        self.inner.cache.join(format!("{id}.avsc"))
    }

    fn remember(&self, id: u32, schema: &str) {
        self.known().insert(id, schema.into());
        let path = self.path(id);
        let partial = path.with_extension(format!("{}.partial", std::process::id()));
        let written = std::fs::create_dir_all(&self.inner.cache)
            .and_then(|()| std::fs::write(&partial, schema))
            .and_then(|()| std::fs::rename(&partial, &path));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "schema not cached: a registry outage would stop this process");
        }
    }

    fn recall_id(&self, schema: &str) -> Option<u32> {
        let mut files = std::fs::read_dir(&self.inner.cache).ok()?.flatten();
        let file = files.find(|file| std::fs::read_to_string(file.path()).is_ok_and(|cached| cached == schema))?;
        let id = file.path().file_stem()?.to_str()?.parse().ok()?;
        tracing::warn!(id = id, "schema registry is out: id taken from the cache");
        Some(id)
    }
}

/// The registry's own error answer, if there was an answer.
fn raw(error: &SRCError) -> Option<&RawError> {
    std::error::Error::source(error)?.downcast_ref()
}
