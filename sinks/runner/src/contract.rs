//! What a sink is.
//!
//! A sink keeps rows and position together: whatever it reports durable was written in one step with the position
//! after it. Dropping a claim or a writer at any time is safe: what was not durable is read again.

use std::{future::Future, sync::Arc, time::Duration};

use flux_schemas::{
    row::Row,
    run::RunId,
    source::{Position, Source},
    time::Timestamp,
};
use tokio::sync::watch;

/// Any error, as a cause.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// One Kafka record, decoded.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: u64,
    /// When it was due (the record timestamp).
    pub due: Timestamp,
    /// The run it belongs to.
    pub run: RunId,
    /// The row.
    pub row: Row<'a>,
}

/// A destination.
pub trait Sink: Send + Sync + 'static {
    /// The writer of one partition.
    type Writer: Writer;

    /// Fences older owners of the partition and reads its position. May be slow. The answer may be dropped.
    ///
    /// # Errors
    /// [`Error`] says what the runner does next.
    fn claim(&self, source: &Source) -> impl Future<Output = Result<Claim<Self::Writer>, Error>> + Send;
}

/// A partition, claimed.
#[derive(Debug)]
pub struct Claim<W> {
    /// Writes it.
    pub writer: W,
    /// Where reading goes on; `None` when nothing was ever written.
    pub position: Option<Position>,
    /// What is durable: monotone, and the only source for releasing memory and reporting progress.
    pub durable: watch::Receiver<Durable>,
}

/// What a destination says it has.
#[derive(Debug, Clone)]
pub enum Durable {
    /// Everything below the position.
    At(Position),
    /// The claim has failed behind our back (a channel became invalid while idle): claim again.
    Failed(Arc<str>),
}

/// Writes one partition in units [from, upto).
pub trait Writer: Send + 'static {
    /// Adds a row to the open unit. CPU only.
    ///
    /// # Errors
    /// [`RejectedRow`]: the destination can never take this row; the unit is unchanged.
    fn push(&mut self, record: &Record<'_>) -> Result<Fill, RejectedRow>;

    /// Notes that the record at `offset` was set aside, for destinations that keep account of it.
    fn dead_lettered(&mut self, offset: u64) {
        let _: u64 = offset;
    }

    /// A position at which the open unit has to end, because an earlier owner decided so.
    fn boundary(&self) -> Option<Position> {
        None
    }

    /// Freezes the open unit as [from, `upto`) if none is frozen, and hands it over. Ok: accepted; what becomes durable is
    /// reported on the watch. After [`Error::Unavailable`] the same call tries the same bytes again. A dropped future
    /// leaves the outcome unknown: drop the writer and claim again.
    ///
    /// # Errors
    /// [`Error`] says what the runner does next.
    fn submit(&mut self, upto: Position) -> impl Future<Output = Result<(), Error>> + Send;
}

/// How full the open unit is.
#[derive(Debug, Clone, Copy)]
pub struct Fill {
    /// Bytes that this row holds in memory until it is durable.
    pub bytes: usize,
    /// The unit should be submitted now.
    pub should_cut: bool,
}

/// Why a destination can never take a row.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RejectedRow(pub String);

/// What went wrong, by what the runner does next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not now: try the same again, `after` a while.
    #[error("the destination is not available")]
    Unavailable {
        /// The destination's own wish.
        after: Option<Duration>,
        /// Cause.
        #[source]
        source: Cause,
    },
    /// The destination refuses exactly these offsets: they are dead-lettered and the rest is written again.
    #[error("the destination refuses {} rows", .0.len())]
    Rejected(Vec<(u64, String)>),
    /// Somebody else owns the partition now: drop everything; claim again only while it is still assigned to us.
    #[error("another writer owns the partition: {0}")]
    Fenced(String),
    /// Going on would lose or double rows, or needs a person: end the process.
    #[error("{what}; {fix}")]
    Broken {
        /// What was found.
        what: String,
        /// What a person should do.
        fix: String,
        /// Cause.
        #[source]
        source: Option<Cause>,
    },
}

impl Error {
    /// [`Error::Unavailable`] without a wish.
    pub fn unavailable(source: impl Into<Cause>) -> Self {
        Self::Unavailable { after: None, source: source.into() }
    }

    /// [`Error::Broken`] without a cause.
    pub fn broken(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self::Broken { what: what.into(), fix: fix.into(), source: None }
    }
}

/// The refusal that all sinks share: the topic under this name is not the one whose rows are at the destination.
pub fn topic_replaced(source: &Source, theirs: &str) -> Error {
    Error::broken(
        format!(
            "{source}: the destination holds rows of topic id {theirs}, the topic is now {} of cluster {}: it was deleted and created again, or this is another cluster",
            source.topic_id, source.cluster_id
        ),
        "give the sink another name (sink.name) to write the new topic beside the old rows, or restore the old topic",
    )
}
