//! Readings into Snowpipe Streaming (the high-performance architecture's REST API), exactly once.
//!
//! ```text
//! claim  = open the channel: fences the older writer; its committed offset token is the position
//! submit = append NDJSON with start and end offset tokens; 200 means buffered, not committed
//! poll   = bulk channel status once a second: the committed token is what is durable
//! ```
//! One append is in flight a channel, and a retry repeats continuation token, request id and body byte for byte. The
//! service stores offset tokens but never compares them, so the token says whose it is: `1:<identity>:<next>`.
//! Whatever makes a channel unusable (stale token, invalid code, accepted rows that never commit) ends the claim; the
//! next one opens the channel again and reads on from what was committed.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | the keys of the role |
//! | [`auth`] | key-pair JWT |
//! | [`client`] | the five calls, with retries and tokens |
//! | [`sink`] | claim, and the poller that says what is durable |
//! | [`writer`] | one unit: NDJSON, zstd, one append |

pub mod auth;
pub mod client;
pub mod settings;
pub mod sink;
pub mod writer;

pub use settings::SnowpipeSettings;
pub use sink::SnowpipeSink;
