//! What every Flux process does alike.
//!
//! | module | does |
//! |---|---|
//! | [`settings`] | configuration: flag, environment, file, default; each value keeps its origin |
//! | [`kafka`] | login, topics, identity of a topic, reading a topic up to a barrier |
//! | [`postgres`], [`s3`] | login to the stores
//! | [`registry`] | schema registry client with a cache on disk |
//! | [`health`] | HEALTHY, BUFFERING, STALLED, IDLE from progress, never from connectivity |
//! | [`http`] | `/metrics`, `/livez`, `/readyz` on one port |
//! | [`shutdown`] | signals, and the deadline that follows them |
//! | [`logging`] | tracing for people and for machines |
//! | [`backoff`] | waits between attempts |
//! | [`usage`] | CPU seconds and peak memory of this process |
//!
//! No business types: what a reading or a run is stays outside.

pub mod backoff;
pub mod health;
pub mod http;
pub mod kafka;
pub mod logging;
pub mod postgres;
pub mod registry;
pub mod s3;
pub mod settings;
pub mod shutdown;
pub mod usage;
