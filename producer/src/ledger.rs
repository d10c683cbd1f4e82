//! The run's spec in `ami.runs`: written once, by whoever comes first.

use std::time::Duration;

use flux_schemas::run::{Ledger, LedgerRecord, RunId, RunRecord, RunSpec};
use flux_service::{
    backoff::Backoff,
    kafka::{KafkaSettings, barrier},
    logging::chain,
};

use crate::{Error, publish::SpecWriter};

const PATIENCE: Duration = Duration::from_secs(60);

/// Everything the ledger says about one run, up to now. Blocks.
///
/// # Errors
/// [`Error::Kafka`] when the ledger cannot be read, [`Error::Ledger`] when it is none.
pub fn read(kafka: &KafkaSettings, topic: &str, run: RunId) -> Result<RunRecord, Error> {
    let mut ledger = Ledger::default();
    let mut finding = None;
    barrier::read(kafka, topic, PATIENCE, |key, value| {
        if let Err(error) = ledger.absorb(key, value) {
            finding.get_or_insert(error);
        }
    })?;
    match finding {
        Some(finding) => Err(Error::Ledger { topic: topic.into(), finding }),
        None => Ok(ledger.run(run)),
    }
}

/// Writes the spec unless the run has one; returns the one that holds. Blocks.
///
/// `init_transactions` comes before the read: it fences a rival that is about to write, so that of two starters one
/// writes and the other finds it. Reading first would let both write. Whoever is fenced in its write, or does not learn
/// how its commit ended, asks again: then the spec is there, or it is its turn.
///
/// # Errors
/// [`Error::Kafka`].
pub fn write_once(kafka: &KafkaSettings, topic: &str, spec: &RunSpec) -> Result<RunSpec, Error> {
    let mut backoff = Backoff::default();
    for _ in 0..ATTEMPTS {
        let writer = SpecWriter::open(kafka, spec.run_id)?;
        if let Some(existing) = read(kafka, topic, spec.run_id)?.spec {
            return Ok(existing);
        }
        match writer.write(topic, &spec.key(), &spec.encode()) {
            Ok(()) => return Ok(spec.clone()),
            Err(error) => tracing::info!(error = chain(&error), "spec not written: asking the ledger again"),
        }
        std::thread::sleep(backoff.wait());
    }
    Err(Error::SpecContended { run: spec.run_id, attempts: ATTEMPTS })
}

/// Starters of one run that may get in each other's way before one of them gives up.
const ATTEMPTS: u32 = 10;

/// Whether an existing run is the one that was asked for, in the settings that a person gave.
///
/// # Errors
/// [`Error::Contradiction`] names the first setting that differs.
pub fn agree(theirs: &RunSpec, ours: &RunSpec, explicit: &[&str]) -> Result<(), Error> {
    let end = |spec: &RunSpec| spec.end_interval.map_or("open".to_string(), |end| end.to_string());
    let fields = [
        ("seed", (theirs.seed as u64).to_string(), (ours.seed as u64).to_string()),
        ("meters", theirs.meters.to_string(), ours.meters.to_string()),
        ("interval", theirs.interval_seconds.to_string(), ours.interval_seconds.to_string()),
        ("start", theirs.first_interval.to_string(), ours.first_interval.to_string()),
        ("end", end(theirs), end(ours)),
        ("pattern", theirs.pattern.clone(), ours.pattern.clone()),
        ("area", theirs.service_area.clone(), ours.service_area.clone()),
        ("segments", theirs.segments.clone(), ours.segments.clone()),
        ("scenario", theirs.scenario.clone(), ours.scenario.clone()),
        ("backfill", theirs.backfill.to_string(), ours.backfill.to_string()),
        ("duplicates", theirs.duplicates.to_string(), ours.duplicates.to_string()),
        ("outage-rows", theirs.after_restore.to_string(), ours.after_restore.to_string()),
        ("wide", theirs.wide.to_string(), ours.wide.to_string()),
        ("events", theirs.events.to_string(), ours.events.to_string()),
        ("fleet", theirs.assets_hash.clone(), ours.assets_hash.clone()),
        ("model", theirs.model.clone(), ours.model.clone()),
        ("base-unit", theirs.base_unit.clone(), ours.base_unit.clone()),
        ("shards", theirs.shards.to_string(), ours.shards.to_string()),
    ];
    for (field, theirs_is, ours_is) in fields {
        if explicit.contains(&field) && theirs_is != ours_is {
            return Err(Error::Contradiction { run: theirs.run_id, field, theirs: theirs_is, ours: ours_is });
        }
    }
    Ok(())
}
