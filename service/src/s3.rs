//! Login to an S3 API.

use std::{sync::Arc, time::Duration};

use object_store::{
    BackoffConfig, ClientOptions, ObjectStore, RetryConfig,
    aws::{AmazonS3Builder, S3ConditionalPut},
};

use crate::settings::{Error, Key, Secret, Settings};

/// Keys of the login.
pub const KEYS: &[Key] = &[
    Key { name: "s3.bucket", default: "flux-bronze", help: "bucket; it must exist", secret: false },
    Key {
        name: "s3.endpoint",
        default: "",
        help: "URL of an S3 API other than AWS; http only on purpose",
        secret: false,
    },
    Key { name: "s3.region", default: "us-east-1", help: "region", secret: false },
    Key { name: "s3.access_key_id", default: "", help: "access key; the machine's role when not set", secret: false },
    Key {
        name: "s3.secret_access_key",
        default: "",
        help: "secret key; prefer s3.secret_access_key_file",
        secret: true,
    },
    Key { name: "s3.secret_access_key_file", default: "", help: "file that holds the secret key", secret: false },
];

/// Where the bucket is.
#[derive(Debug, Clone)]
pub struct S3Login {
    /// Bucket.
    pub bucket: String,
    endpoint: Option<String>,
    region: String,
    key: Option<(String, Secret)>,
}

impl S3Login {
    /// From the keys.
    ///
    /// # Errors
    /// [`Error`] names the key.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let secret = settings.secret("s3.secret_access_key", "s3.secret_access_key_file")?;
        let key = match (settings.get("s3.access_key_id"), secret) {
            (Some(id), Some(secret)) => Some((id.to_string(), secret)),
            (None, None) => None,
            _ => {
                return Err(
                    settings.wrong("s3.access_key_id", "set the access key and its secret together, or neither")
                );
            }
        };
        Ok(Self {
            bucket: settings.require("s3.bucket")?.into(),
            endpoint: settings.get("s3.endpoint").map(Into::into),
            region: settings.require("s3.region")?.into(),
            key,
        })
    }

    /// A client; nothing is asked yet. It retries little by itself: the caller knows what a repeated PUT means.
    ///
    /// # Errors
    /// The store's error when the settings make no client.
    pub fn open(&self) -> Result<Arc<dyn ObjectStore>, object_store::Error> {
        let retry =
            RetryConfig { backoff: BackoffConfig::default(), max_retries: 2, retry_timeout: Duration::from_secs(20) };
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(&self.bucket)
            .with_region(&self.region)
            .with_retry(retry)
            .with_conditional_put(S3ConditionalPut::ETagMatch)
            .with_client_options(
                ClientOptions::new().with_timeout(Duration::from_secs(60)).with_connect_timeout(Duration::from_secs(5)),
            );
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        if let Some((id, secret)) = &self.key {
            builder = builder.with_access_key_id(id).with_secret_access_key(secret.expose());
        }
        Ok(Arc::new(builder.build()?))
    }
}
