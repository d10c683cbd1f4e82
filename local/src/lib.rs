//! The laptop: stand-ins for everything Flux talks to, so that one command shows the whole pipeline.
//!
//! Stand-ins, not products: each does what Flux and its tests need, keeps its state in a folder, binds to loopback,
//! and is replaceable the day a library does it. Production means Apache Kafka, a schema registry, AWS S3, PostgreSQL
//! and Snowflake; every guarantee is tested on the real thing as well.
//!
//! | module | stands in for |
//! |---|---|
//! | [`broker`] | Apache Kafka: one node, transactions, consumer groups |
//! | [`registry`] | a Confluent-compatible schema registry |
//! | [`s3`] | an S3 API with atomic conditional PUT |
//! | [`postgres`] | nothing: it starts the machine's own PostgreSQL in a private folder |
//! | [`snowflake`] | Snowpipe Streaming, over TLS with a private certificate authority |

pub mod broker;
pub mod postgres;
pub mod registry;
pub mod s3;
pub mod snowflake;
mod state;

/// Why a stand-in does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder of its state.
    #[error("{path}: {doing}; {fix}")]
    State {
        /// File or folder.
        path: String,
        /// What we were doing.
        doing: &'static str,
        /// What to do.
        fix: &'static str,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Its port.
    #[error("cannot listen on {address}: choose a free port")]
    Listen {
        /// Wanted address.
        address: std::net::SocketAddr,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// Something else that a person must mend.
    #[error("{what}; {fix}")]
    Broken {
        /// What was found.
        what: String,
        /// What to do.
        fix: String,
    },
}

/// Binds a loopback port.
async fn listen(address: std::net::SocketAddr) -> Result<(tokio::net::TcpListener, std::net::SocketAddr), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = tokio::net::TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}
