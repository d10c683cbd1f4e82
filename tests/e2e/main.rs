//! End to end: real processes of the real binary, against real servers and stand-ins.
//!
//! | module | shows |
//! |---|---|
//! | [`proof`] | a run reaches every place once, on Apache Kafka and on the local broker; two runs side by side; poison |
//! | [`chaos`] | the same with processes killed and frozen at random |
//! | [`contract`] | the sink contract on PostgreSQL, S3 and the Snowpipe emulator |
//! | [`tamper`] | what `verify` says when rows are deleted, doubled or changed |
//! | [`refusal`] | a topic made again, a lost position, bad input: loud, and nothing lost |
//! | [`clients`] | our stand-ins against clients that nobody here wrote |
//! | [`variants`] | late, wide, doubled and dropped rows, events and assets, fleets of one's own, plans |
//! | [`up`] | `flux up`, again, and from scratch |
//! | [`harness`] | servers, processes, settings |

#![allow(clippy::unwrap_used, reason = "tests")]

mod chaos;
mod clients;
mod contract;
mod harness;
mod proof;
mod refusal;
mod tamper;
mod up;
mod variants;
