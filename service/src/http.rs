//! One port per role: `/metrics`, `/livez`, `/readyz`, and what the role adds.

use std::{net::SocketAddr, sync::Arc};

use axum::{Json, Router, extract::State as Shared, http::StatusCode, response::IntoResponse, routing::get};
use prometheus::{Encoder, Registry, TextEncoder};
use serde_json::json;
use tokio::{net::TcpListener, task::JoinHandle};

use crate::{
    health::{Health, State},
    shutdown::Shutdown,
};

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
#[error("http.listen is {listen}: cannot listen there; choose a free port (0 takes any)")]
pub struct Error {
    listen: SocketAddr,
    #[source]
    source: std::io::Error,
}

struct Served {
    metrics: Registry,
    health: Health,
}

/// Serves until shutdown; returns the address it listens on.
///
/// # Errors
/// [`Error`] when the address is taken or not ours.
pub async fn serve(
    listen: SocketAddr,
    metrics: Registry,
    health: Health,
    extra: Router,
    mut shutdown: Shutdown,
) -> Result<(SocketAddr, JoinHandle<()>), Error> {
    let failed = |source| Error { listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let router = Router::new()
        .route("/metrics", get(render))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(Arc::new(Served { metrics, health }))
        .merge(extra);
    let task = tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.wait().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "metrics server ended");
        }
    });
    Ok((address, task))
}

async fn render(Shared(served): Shared<Arc<Served>>) -> impl IntoResponse {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&served.metrics.gather(), &mut text) {
        Ok(()) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string().into_bytes()),
    }
}

/// Ready while working or waiting for work; not while starting or stalled.
async fn ready(Shared(served): Shared<Arc<Served>>) -> impl IntoResponse {
    let state = served.health.state();
    let status = match state {
        State::Starting | State::Stalled => StatusCode::SERVICE_UNAVAILABLE,
        State::Healthy | State::Buffering | State::Idle => StatusCode::OK,
    };
    (status, Json(json!({ "state": state })))
}
