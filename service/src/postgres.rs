//! Login to PostgreSQL, with or without TLS.

use std::{sync::Arc, time::Duration};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio_postgres::{Client, Config, NoTls, config::SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::settings::{self, Key, Secret, Settings};

/// Keys of the login.
pub const KEYS: &[Key] = &[
    Key {
        name: "postgres.url",
        default: "",
        help: "postgres://user:password@host/database, or key=value pairs; sslmode=require for TLS; prefer postgres.url_file",
        secret: true,
    },
    Key { name: "postgres.url_file", default: "", help: "file that holds the URL", secret: false },
    Key {
        name: "postgres.ssl_ca",
        default: "",
        help: "PEM file of the certificate authority, for sslmode=require",
        secret: false,
    },
];

/// What went wrong, by what the caller should do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server refuses or does not answer; its own error says which.
    #[error("PostgreSQL does not let us in")]
    Server(#[source] tokio_postgres::Error),
    /// The TLS settings are wrong: a person must mend them.
    #[error("postgres.ssl_ca is {path:?}: no certificate authority there; name a PEM file")]
    Tls {
        /// As set.
        path: String,
        /// Cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

/// Where the database is.
#[derive(Debug, Clone)]
pub struct PostgresLogin {
    url: Secret,
    ssl_ca: Option<String>,
}

impl PostgresLogin {
    /// From the keys.
    ///
    /// # Errors
    /// [`settings::Error`] names the key.
    pub fn new(settings: &Settings) -> Result<Self, settings::Error> {
        let url = settings.secret("postgres.url", "postgres.url_file")?.ok_or_else(|| {
            settings.wrong("postgres.url_file", "say where the database is: postgres.url or postgres.url_file")
        })?;
        if url.expose().parse::<Config>().is_err() {
            return Err(settings.wrong("postgres.url", "use postgres://user:password@host/database"));
        }
        Ok(Self { url, ssl_ca: settings.get("postgres.ssl_ca").map(Into::into) })
    }

    /// A login by URL, without TLS settings.
    pub fn from_url(url: &str) -> Self {
        Self { url: url.into(), ssl_ca: None }
    }

    /// Connects; the connection lives on a task of its own until the client is dropped.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn connect(&self) -> Result<Client, Error> {
        let mut config: Config = self.url.expose().parse().map_err(Error::Server)?;
        config.application_name("flux").connect_timeout(Duration::from_secs(10));
        let client = if config.get_ssl_mode() == SslMode::Require {
            let (client, connection) = config.connect(self.tls()?).await.map_err(Error::Server)?;
            tokio::spawn(drive(connection));
            client
        } else {
            let (client, connection) = config.connect(NoTls).await.map_err(Error::Server)?;
            tokio::spawn(drive(connection));
            client
        };
        Ok(client)
    }

    fn tls(&self) -> Result<MakeRustlsConnect, Error> {
        let path = self.ssl_ca.clone().unwrap_or_default();
        let roots = roots(&path).map_err(|source| Error::Tls { path, source: Some(source) })?;
        let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|source| Error::Tls { path: String::new(), source: Some(source.into()) })?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(MakeRustlsConnect::new(config))
    }
}

/// The certificates of a PEM file.
fn roots(path: &str) -> Result<RootCertStore, Box<dyn std::error::Error + Send + Sync>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    Ok(roots)
}

async fn drive(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection ended");
    }
}
