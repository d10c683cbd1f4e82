//! Seed and time to meter readings.
//!
//! `reading(seed, model version, meter, interval)` is a pure function: no history, no clock, no thread-local chance,
//! no platform maths. Whoever asks, in whatever order, on whatever machine, gets the same row, and that is what lets
//! `flux verify` recompute a run.
//!
//! ```text
//! RunSpec ─▶ Run ─┬─ Fleet    meter index ─▶ id, segment, transformer, circuit, substation, partition
//!                 ├─ Model    (meter, interval) ─▶ usage, voltage, outage, quality
//!                 ├─ Comms    (meter, interval) ─▶ does the reading reach the head-end
//!                 └─ Emission (shard, arrival bucket) ─▶ rows in arrival order
//! ```
//!
//! | module | holds |
//! |---|---|
//! | [`run`] | a validated run: everything below, built from a [`flux_schemas::run::RunSpec`] |
//! | [`preset`] | the four named back-fills |
//! | [`fleet`] | meters and the tree above them |
//! | [`model`] | one meter, one interval: load, voltage, outage, quality |
//! | [`outage`] | who is without power when, and why |
//! | [`comms`] | which readings are lost on their way, and where |
//! | [`emission`] | which rows arrive when, in what order, and what is withheld |
//! | [`golden`] | the hash that ties a model version to its values |

pub mod calendar;
pub mod comms;
pub mod emission;
pub mod fleet;
pub mod golden;
pub mod model;
mod noise;
pub mod outage;
pub mod preset;
pub mod run;
mod weather;
