//! One loop for every sink: Kafka in, exactly once out.
//!
//! ```text
//! poll thread ── rebalance ─▶ a thread per partition:
//!     claim ─▶ seek to the position ─▶ poll ─▶ decode ─▶ push ─▶ cut ─▶ submit ─▶ durable ─▶ release memory
//!                                         └─ poison ─▶ dead-letter topic, acknowledged before the position passes
//! ```
//! The position lives at the destination and moves with the rows, so a restart, a rebalance and a zombie all end the
//! same way: the new owner claims, the old one is fenced, and reading goes on where the destination says. Kafka's own
//! committed offset is a mirror for lag tools; it may veto a position, never give one.
//!
//! | module | holds |
//! |---|---|
//! | [`contract`] | what a sink is: claim, push, submit, durable |
//! | [`settings`] | the keys of a sink role |
//! | [`runner`] | the consumer, its rebalances and its end |
//! | [`partition`] | one partition: claim, check the position, claim again |
//! | `stretch` | from a claim to its end: rows in, units out |
//! | [`decode`] | frame, schema and header to a reading |
//! | [`dead_letter`] | what no destination takes, kept |
//! | [`budget`] | bytes held, over all partitions |
//! | [`telemetry`] | metrics, health, status |
//! | [`suite`] | the tests that every sink passes |

pub mod budget;
pub mod contract;
pub mod dead_letter;
pub mod decode;
pub mod partition;
pub mod runner;
pub mod settings;
mod stretch;
pub mod suite;
pub mod telemetry;
