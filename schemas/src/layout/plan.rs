//! S3 keys: the bronze objects, and the write-once chain of plans that decides which objects exist.
//!
//! ```text
//! raw/ami/dt=2026-01-31/hour=23/ami_stream_<topic>_<partition>_<from>-<to>.<extension>
//! _flux/<sink>/<topic>/<partition>/<identity>/<from, 20 digits>.json
//! ```
//! A plan covers the half-open range of positions [from, to). The object store decides each `from` once (create-only
//! PUT), and the next plan starts at `to`, so the chain is a log that two writers cannot fork.

use serde::{Deserialize, Serialize};

use crate::{layout::table::data_prefix, row::Table, source::Source, time::Timestamp};

/// Where plans live, outside the data prefix.
pub const PLAN_PREFIX: &str = "_flux/";

/// Version of the plan's own format.
pub const PLAN_VERSION: u32 = 1;

/// How rows are written in an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Format {
    /// One JSON object a line, gzip.
    #[serde(rename = "ndjson.gz")]
    NdjsonGz,
    /// Parquet, zstd pages.
    #[serde(rename = "parquet")]
    Parquet,
}

impl Format {
    /// File extension of the objects.
    pub fn extension(self) -> &'static str {
        match self {
            Self::NdjsonGz => "ndjson.gz",
            Self::Parquet => "parquet",
        }
    }
}

/// The decision what the rows in [from, to) become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`PLAN_VERSION`].
    pub version: u32,
    /// First position covered.
    pub from: u64,
    /// Position after the last one covered.
    pub to: u64,
    /// Names the writer's attempt, so that a lost answer can be told from a lost race.
    pub nonce: String,
    /// How the objects are written.
    pub format: Format,
    /// Encoder that wrote them; bytes are equal for equal encoders only, rows always.
    pub encoder: String,
    /// Offsets in the range that went to the dead-letter topic.
    pub dead_lettered: Vec<u64>,
    /// The objects, one for each event hour.
    pub objects: Vec<PlannedObject>,
}

/// One bronze object of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedObject {
    /// Full key.
    pub key: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size, bytes.
    pub bytes: u64,
    /// Smallest READING_TIMESTAMP, ms since the Unix epoch.
    pub min_timestamp: i64,
    /// Largest READING_TIMESTAMP, ms since the Unix epoch.
    pub max_timestamp: i64,
}

/// Prefix of all plans of a partition, whatever the topic's identity.
pub fn partition_prefix(sink: &str, source: &Source) -> String {
    format!("{PLAN_PREFIX}{sink}/{}/{}/", source.topic, source.partition)
}

/// Prefix of the plan chain of one source.
pub fn chain_prefix(sink: &str, source: &Source) -> String {
    format!("{}{}/", partition_prefix(sink, source), source.identity())
}

/// Key of the plan that starts at `from`.
pub fn plan_key(sink: &str, source: &Source, from: u64) -> String {
    format!("{}{from:020}.json", chain_prefix(sink, source))
}

/// Key of the object for the event hour of `timestamp`.
pub fn object_key(table: &Table, source: &Source, timestamp: Timestamp, from: u64, to: u64, format: Format) -> String {
    format!(
        "{}dt={}/hour={:02}/ami_stream_{}_{}_{from}-{to}.{}",
        data_prefix(table),
        timestamp.date(),
        timestamp.hours().rem_euclid(24),
        source.topic,
        source.partition,
        format.extension()
    )
}
