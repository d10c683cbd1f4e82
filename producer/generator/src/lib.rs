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
//! | [`request`] | what a run may be: every rule of a [`flux_schemas::run::RunSpec`] |
//! | [`run`] | a validated run: everything below |
//! | [`preset`] | the four named back-fills |
//! | [`area`] | the service areas: place, climate, customers |
//! | [`fleet`] | meters and the tree above them |
//! | [`assets`] | somebody's own fleet, checked |
//! | [`grid`] | where things lie, and their rows |
//! | [`model`] | one meter, one interval: load, voltage, outage, quality |
//! | [`outage`] | who is without power when, and why |
//! | [`scenario`] | storms, cascades and collectors that are down |
//! | [`comms`] | which readings are lost or late on their way, and where |
//! | [`events`] | what meters report beside their readings |
//! | [`emission`] | which rows arrive when, in what order, and what is withheld |
//! | [`compose`] | from what is to be emitted to the row itself |
//! | [`register`] | the cumulative register of each meter |
//! | [`golden`] | the hash that ties a model version to its values |

pub mod area;
pub mod assets;
pub mod calendar;
pub mod comms;
pub mod compose;
pub mod emission;
pub mod events;
pub mod fleet;
pub mod golden;
pub mod grid;
pub mod model;
mod noise;
pub mod outage;
pub mod preset;
pub mod register;
pub mod request;
pub mod run;
pub mod scenario;
mod weather;
