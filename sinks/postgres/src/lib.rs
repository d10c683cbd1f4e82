//! Readings into PostgreSQL: history by binary COPY, the latest reading of each meter by upsert, and the position, in
//! one transaction a partition.
//!
//! ```text
//! begin
//!   update flux_positions set next = upto where source and epoch and next = from     0 rows: fenced, nothing written
//!   copy ami_interval_readings                                                       partitioned by day
//!   copy flux_latest, the newest reading of each meter; upsert it into ami_realtime    sorted by meter
//! commit
//! ```
//! The position comes first: its row lock makes a rival wait for the outcome, and a writer whose epoch is over finds
//! out before it copies a byte. The history has no unique key on meter and time: the position is the dedupe, and two
//! runs may hold the same meters.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | the keys of the role |
//! | [`schema`] | tables, day partitions |
//! | [`connect`] | connections with TLS and deadlines |
//! | [`sink`] | claim and epoch |
//! | [`writer`] | one unit: rows, latest, position |

pub mod connect;
pub mod schema;
pub mod settings;
pub mod sink;
pub mod writer;

pub use settings::PostgresSettings;
pub use sink::PostgresSink;
