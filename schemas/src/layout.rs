//! What the writers put at each destination, and `verify` reads there: one definition for both sides.

pub mod json;
#[cfg(feature = "parquet")]
pub mod parquet;
pub mod plan;
pub mod table;
pub mod table_files;
pub mod token;
