//! The oracle: recomputes a run from its seed and counts every row of every place against it.
//!
//! ```text
//! ami.runs ─▶ spec, progress ─▶ what must be there by now ─▶ 2 bits a reading ─▶ verdict
//!                                       ▲
//!              kafka · postgres · s3 · snowpipe, read in their natural order
//! ```
//! Orders are not compared: no place but Kafka has one worth having. Every expected reading has a dense index; a row
//! is recomputed from its meter and interval, compared as integers, and counted. Nothing is hashed, sorted or sampled,
//! and nothing is written.
//!
//! | module | holds |
//! |---|---|
//! | [`expectation`] | which readings must be there, as of a ledger cursor |
//! | [`count`] | two bits a reading, in pages that collapse |
//! | [`tally`] | one row: unexpected, altered, or counted |
//! | [`place`] | the readers: Kafka, PostgreSQL, S3, Snowpipe |
//! | [`verdict`] | what is printed |

pub mod count;
pub mod expectation;
pub mod place;
pub mod tally;
pub mod verdict;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use flux_generator::run::Run;
use flux_schemas::{
    row::Table,
    run::{Ledger, RunId},
};
use flux_service::kafka::{self, KafkaSettings, barrier};

use crate::{
    expectation::Expectation,
    place::{Place, Places},
    verdict::Verdict,
};

/// Why there is no verdict. Not the same as a verdict that is not proven.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka, which holds the ledger.
    #[error(transparent)]
    Kafka(#[from] kafka::Error),
    /// The ledger does not know the run.
    #[error("run {run} is not in topic {topic}; `flux runs` lists the runs there")]
    UnknownRun {
        /// Asked for.
        run: RunId,
        /// Ledger topic.
        topic: String,
    },
    /// The ledger topic is none.
    #[error("topic {topic} holds {finding}; point kafka.runs_topic at the ledger")]
    Ledger {
        /// Ledger topic.
        topic: String,
        /// What was found.
        finding: String,
    },
    /// This binary cannot recompute the run.
    #[error(transparent)]
    Run(#[from] flux_generator::run::Error),
    /// A place cannot be read.
    #[error("cannot read {place}: {doing}")]
    Place {
        /// Which.
        place: &'static str,
        /// What we were doing.
        doing: String,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A place has no settings.
    #[error("cannot read {place}: {missing}")]
    Unset {
        /// Which.
        place: &'static str,
        /// Which setting, and what it takes.
        missing: String,
    },
}

/// What to verify.
#[derive(Debug, Clone)]
pub struct Request {
    /// The run.
    pub run: RunId,
    /// Where.
    pub at: Vec<Place>,
    /// Judge only the intervals before this index.
    pub before_interval: Option<i64>,
    /// Longest wait for a place that is still behind the ledger.
    pub wait: Duration,
}

/// Everything the ledger says. Blocks.
///
/// # Errors
/// [`Error::Kafka`], [`Error::Ledger`].
pub fn read_ledger(kafka: &KafkaSettings, topic: &str) -> Result<Ledger, Error> {
    let mut ledger = Ledger::default();
    let mut finding = None;
    barrier::read(kafka, topic, Duration::from_secs(60), |key, value| {
        if let Err(error) = ledger.absorb(key, value) {
            finding.get_or_insert(error);
        }
    })?;
    finding.map_or(Ok(ledger), |finding| Err(Error::Ledger { topic: topic.into(), finding }))
}

/// Judges every place. `scanned` counts rows as they are read.
///
/// # Errors
/// [`Error`]: no verdict.
pub async fn verify(places: &Places, request: &Request, scanned: &Arc<AtomicU64>) -> Result<Verdict, Error> {
    let record = {
        let (kafka, topic) = (places.kafka.clone(), places.runs_topic.clone());
        let ledger = tokio::task::spawn_blocking(move || read_ledger(&kafka, &topic))
            .await
            .expect("the ledger does not panic")?;
        ledger.run(request.run)
    };
    let spec = record.spec.clone();
    let spec = spec.ok_or_else(|| Error::UnknownRun { run: request.run, topic: places.runs_topic.clone() })?;
    let run = Arc::new(Run::new(spec, places.assets.clone())?);
    let expectation = Arc::new(Expectation::new(run, &record, request.before_interval));
    tracing::info!(
        run = %request.run,
        memory_mib = expectation.memory_bound() / (1 << 20),
        "verifying; memory is at most 2 bits a reading"
    );
    let mut verdicts = Vec::new();
    let tables = Table::all().into_iter().filter(|table| expectation.run().spec().topic_of(table).is_some());
    for table in tables {
        for place in &request.at {
            verdicts.push(places.judge(*place, table, &expectation, request.wait, scanned).await?);
        }
    }
    Ok(Verdict::new(&expectation, verdicts))
}
