//! Snowpipe Streaming, as the official SDK meets it: TLS with a private authority, bare-text host and token, commit
//! delay, cumulative counters, and the service's warts on demand.
//!
//! Accepted rows are buffered and become files after the commit delay ([`flux_schemas::layout::table_files`]); a crash
//! loses what was only buffered, as the service may. `POST /_emulator/faults` makes it fail on purpose.
//!
//! | module | holds |
//! |---|---|
//! | [`tls`] | the authority, the certificate, the listener |
//! | [`tokens`] | checks key-pair JWTs, hands out scoped tokens |
//! | [`channels`] | channels, sequencers, buffered and committed rows |
//! | [`faults`] | what fails on purpose |
//! | [`routes`] | the REST API |

mod channels;
mod faults;
mod routes;
mod tls;
mod tokens;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use flux_service::shutdown::Shutdown;
use rsa::pkcs8::{EncodePrivateKey, LineEnding};

use crate::{Error, state};

/// How the emulator behaves.
#[derive(Debug, Clone)]
pub struct SnowflakeSettings {
    /// Folder of its state: certificates, keys, tables.
    pub folder: PathBuf,
    /// Time between a 200 and the commit.
    pub commit_delay: Duration,
    /// Whether a repeated continuation token of the same request is acknowledged again (otherwise it is stale).
    pub acknowledge_repeats: bool,
}

/// Where a running emulator is, and what a client needs.
#[derive(Debug, Clone)]
pub struct Snowflake {
    /// `https://127.0.0.1:<port>`.
    pub url: String,
    /// PEM of the private authority.
    pub ca: PathBuf,
    /// PEM of the user's private key.
    pub private_key: PathBuf,
    /// Folder of the tables: `<root>/<database>/<schema>/<pipe>`.
    pub tables: PathBuf,
}

/// Account that the emulator knows.
pub const ACCOUNT: &str = "FLUXLOCAL";
/// User that the emulator knows.
pub const USER: &str = "FLUX";

/// Serves until shutdown.
///
/// # Errors
/// [`Error`] when state or port cannot be had.
pub async fn serve(address: SocketAddr, settings: SnowflakeSettings, shutdown: Shutdown) -> Result<Snowflake, Error> {
    state::folder(&settings.folder)?;
    let private_key = settings.folder.join("rsa_key.p8");
    let public_key = user_key(&private_key).await?;
    let (ca, acceptor) = tls::acceptor(&settings.folder)?;
    let tables = settings.folder.join("tables");
    let channels = Arc::new(channels::Channels::load(&tables, settings.commit_delay, settings.acknowledge_repeats)?);
    let tokens = tokens::Tokens::new(public_key);
    let (listener, bound) = crate::listen(address).await?;
    let host = bound.ip().to_string();
    let router = routes::router(channels.clone(), tokens, host);
    let mut ended = shutdown.clone();
    tokio::spawn(async move {
        let served = axum::serve(tls::TlsListener::new(listener, acceptor), router)
            .with_graceful_shutdown(async move { ended.wait().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "Snowpipe emulator ended");
        }
    });
    tokio::spawn(channels::commit_loop(channels, shutdown));
    Ok(Snowflake { url: format!("https://{bound}"), ca, private_key, tables })
}

/// The user's key pair, made once; returns the public half.
async fn user_key(path: &Path) -> Result<rsa::RsaPublicKey, Error> {
    use rsa::pkcs8::DecodePrivateKey;
    let damaged = |what: String| Error::Broken { what, fix: "remove the data folder and start over (--fresh)".into() };
    if path.exists() {
        let key = rsa::RsaPrivateKey::read_pkcs8_pem_file(path)
            .map_err(|error| damaged(format!("{}: {error}", path.display())))?;
        return Ok(key.to_public_key());
    }
    // Two primes take a moment: not on a worker thread.
    let key = tokio::task::spawn_blocking(|| rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048))
        .await
        .expect("making a key does not panic")
        .map_err(|error| damaged(format!("no key: {error}")))?;
    let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|error| damaged(format!("no key: {error}")))?;
    state::replace(path, pem.as_bytes())?;
    private(path)?;
    Ok(key.to_public_key())
}

/// Readable by the owner alone.
fn private(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(state::state_error(path, "cannot protect"))
}
