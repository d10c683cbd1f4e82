//! One node that speaks Kafka's protocol, for a laptop and for fast tests. Production means Apache Kafka.
//!
//! It has what Flux and its tests need, no more: idempotent and transactional produce, read-committed fetch, classic
//! consumer groups, topics with UUIDs. Partitions are files of record batches exactly as they came over the wire; what
//! a crash could tear is found by checksum at the next start and cut off. Nothing is fsynced: kill -9 of the process
//! loses nothing, a power cut may. There is no retention, no compaction, no TLS, no authentication: loopback only.
//!
//! | module | holds |
//! |---|---|
//! | [`connection`] | frames, limits, versions, dispatch |
//! | [`cluster`] | topics, and everything behind one lock |
//! | [`log`] | a partition: batches in a file, producer state, what is stable |
//! | [`batch`] | the header of a record batch, and control batches |
//! | [`transactions`] | who owns a transactional id, and what its transaction spans; timeouts |
//! | [`groups`] | classic consumer groups and their offsets |
//! | `data`, `admin`, `group_api`, `transaction_api` | the requests, answered |

mod admin;
mod batch;
mod cluster;
mod connection;
mod data;
mod group_api;
mod groups;
mod log;
mod transaction_api;
mod transactions;

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use flux_service::shutdown::Shutdown;
use tokio::sync::Semaphore;

use crate::{Error, listen};

/// Connections at a time.
const CONNECTIONS: usize = 512;

/// Serves until shutdown; returns the address, which is also the advertised one.
///
/// # Errors
/// [`Error`] when state or port cannot be had.
pub async fn serve(address: SocketAddr, folder: &Path, shutdown: Shutdown) -> Result<SocketAddr, Error> {
    let (listener, bound) = listen(address).await?;
    let cluster = Arc::new(cluster::Cluster::load(folder, bound)?);
    let timers = cluster.clone();
    let mut timers_end = shutdown.clone();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = timers_end.wait() => return,
                () = tokio::time::sleep(Duration::from_millis(100)) => timers.tick(),
            }
        }
    });
    tokio::spawn(async move {
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        let mut end = shutdown.clone();
        loop {
            let accepted = tokio::select! { () = end.wait() => return, accepted = listener.accept() => accepted };
            let Ok((stream, _)) = accepted else {
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            // More than the limit: the connection is closed, and the client tries again.
            let Ok(permit) = permits.clone().try_acquire_owned() else { continue };
            let (cluster, mut end) = (cluster.clone(), shutdown.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = end.wait() => {}
                    served = connection::serve(stream, &cluster) => if let Err(error) = served {
                        tracing::debug!(%error, "connection closed");
                    }
                }
                drop(permit);
            });
        }
    });
    Ok(bound)
}

/// A value in the protocol's own string.
fn text(value: impl Into<String>) -> kafka_protocol::protocol::StrBytes {
    kafka_protocol::protocol::StrBytes::from_string(value.into())
}
