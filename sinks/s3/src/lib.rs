//! Readings into S3 bronze files, exactly once, although files are cut by size and by the clock.
//!
//! ```text
//! gather [from, to) ─▶ freeze ─▶ PUT plan(from), create-only ─▶ PUT each object, create-only ─▶ durable = to ─▶ plan(to)
//! ```
//! The plan is the decision; the store makes it once for each `from`. Whoever loses the race for a plan drops what it
//! has, claims again and completes the winner's plan with the same rows under the same keys, so no clock, no cut and
//! no zombie can fork the chain.
//!
//! | killed | what the next claim finds |
//! |---|---|
//! | before the plan | nothing: the rows are read again |
//! | after the plan, before or between its objects | an incomplete plan: its rows are read again and the missing objects put |
//! | after the objects | a complete plan: reading goes on at its end |
//!
//! An object that no plan names cannot come from here; `verify` calls it foreign. Readers see the objects of one plan
//! appear one by one.
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | the keys of the role |
//! | [`encode`] | rows to NDJSON.gz or Parquet |
//! | [`chain`] | plans: find the last, write the next |
//! | [`sink`] | claim |
//! | [`writer`] | one unit: plan, then objects |

pub mod chain;
pub mod encode;
pub mod settings;
pub mod sink;
pub mod writer;

pub use settings::S3Settings;
pub use sink::S3Sink;
