//! An S3 API on a folder: `s3s-fs` behind a lock a key, because by itself it checks a condition first and writes
//! afterwards, and two writers would both win a create-only PUT.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Weak},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse, Response},
};
use flux_service::shutdown::Shutdown;
use s3s::{
    auth::SimpleAuth,
    service::{S3Service, S3ServiceBuilder},
};
use s3s_fs::FileSystem;
use tokio::sync::Mutex;
use tower::ServiceExt;

use crate::{Error, listen, state};

/// Access key of the stand-in.
pub const ACCESS_KEY: &str = "flux";
/// Secret key of the stand-in: it guards nothing but a folder on this machine's loopback.
pub const SECRET_KEY: &str = "flux-local";

/// Access key of a user who may read and list, not write; the secret key is the same.
pub const READ_ONLY_KEY: &str = "flux-reader";

struct Server {
    service: S3Service,
    locks: Mutex<HashMap<String, Weak<Mutex<()>>>>,
}

/// Serves the folder's sub-folders as buckets, until shutdown; makes `bucket`; returns the address.
///
/// # Errors
/// [`Error`] when folder or port cannot be had.
pub async fn serve(
    address: SocketAddr,
    folder: &Path,
    bucket: &str,
    mut shutdown: Shutdown,
) -> Result<SocketAddr, Error> {
    state::folder(&folder.join(bucket))?;
    let files = FileSystem::new(folder).map_err(|error| Error::Broken {
        what: format!("{}: {error:?}", folder.display()),
        fix: "choose another --data-dir".into(),
    })?;
    let mut builder = S3ServiceBuilder::new(files);
    let mut users = SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY);
    users.register(READ_ONLY_KEY.into(), SECRET_KEY.into());
    builder.set_auth(users);
    let server = Arc::new(Server { service: builder.build(), locks: Mutex::default() });
    let router = Router::new().fallback(handle).with_state(server);
    let (listener, bound) = listen(address).await?;
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.wait().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "S3 stand-in ended");
        }
    });
    Ok(bound)
}

async fn handle(State(server): State<Arc<Server>>, request: Request) -> Response {
    if writes_as_reader(&request) {
        let body = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>";
        return (StatusCode::FORBIDDEN, body).into_response();
    }
    let conditional = request.method() == Method::PUT
        && (request.headers().contains_key("if-none-match") || request.headers().contains_key("if-match"));
    let lock = if conditional { Some(server.lock(request.uri().path()).await) } else { None };
    let _held = match &lock {
        Some(lock) => Some(lock.lock().await),
        None => None,
    };
    match server.service.clone().oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:?}")).into_response(),
    }
}

/// Whether the reader's key signs a request that is not for reading.
fn writes_as_reader(request: &Request) -> bool {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let signed = request.headers().get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    !reads && signed.contains(&format!("Credential={READ_ONLY_KEY}/"))
}

impl Server {
    /// The lock of a key; forgotten when nobody holds it.
    async fn lock(&self, key: &str) -> Arc<Mutex<()>> {
        let mut locks = self.locks.lock().await;
        if let Some(lock) = locks.get(key).and_then(Weak::upgrade) {
            return lock;
        }
        locks.retain(|_, lock| lock.strong_count() > 0);
        let lock = Arc::new(Mutex::new(()));
        locks.insert(key.into(), Arc::downgrade(&lock));
        lock
    }
}
