//! What a reading is, on every wire and in every store.
//!
//! The `.avsc` files in `avro/` are the one source of truth; the typed records here mirror them, and tests hold the
//! two together. Values are integers (0.0001 kWh, 0.1 V) until they are encoded, so that equality is exact everywhere.
//!
//! | module | holds |
//! |---|---|
//! | [`row`] | tables, columns and cells: what codecs, writers and `verify` share for every record type |
//! | [`reading`] | the narrow reading, typed |
//! | [`codec`] | Avro encoder and decoder |
//! | [`framing`] | the Confluent five-byte frame |
//! | [`run`] | [`run::RunSpec`] and [`run::Progress`], the records of `ami.runs` |
//! | [`source`] | cluster, topic, partition and position: where a record came from |
//! | [`layout`] | what the writers put at each destination, and `verify` reads there |
//!
//! No network, no async, no clock.

pub mod codec;
pub mod framing;
pub mod layout;
pub mod reading;
pub mod row;
pub mod run;
pub mod source;
pub mod time;
