//! One unit: decide the plan, then put its objects.

use std::collections::BTreeMap;

use bytes::Bytes;
use flux_runner::contract::{Durable, Error, Fill, Record, RejectedRow, Writer};
use flux_schemas::{
    layout::plan::{PLAN_VERSION, Plan, PlannedObject, object_key},
    row::Table,
    source::Position,
};
use object_store::path::Path;
use tokio::sync::watch;

use crate::{
    chain::Chain,
    encode::{ENCODER, HourRows},
    settings::S3Settings,
};

/// A plan that an earlier owner decided and did not finish.
#[derive(Debug)]
pub struct Recovery {
    pub(crate) plan: Plan,
    pub(crate) missing: Vec<String>,
}

/// A unit whose bytes are final.
#[derive(Debug)]
struct Frozen {
    plan: Plan,
    decided: bool,
    /// Objects that are not in the store yet.
    objects: Vec<(String, Bytes)>,
}

/// Writes one partition.
#[derive(Debug)]
pub struct S3Writer {
    chain: Chain,
    settings: S3Settings,
    table: &'static Table,
    /// Where the next plan begins; `None` until the first row says so.
    from: Option<Position>,
    recovery: Option<Recovery>,
    hours: BTreeMap<i64, HourRows>,
    held: usize,
    dead_lettered: Vec<u64>,
    frozen: Option<Frozen>,
    report: watch::Sender<Durable>,
}

impl S3Writer {
    pub(crate) fn new(
        chain: Chain,
        settings: S3Settings,
        table: &'static Table,
        from: Option<Position>,
        recovery: Option<Recovery>,
        report: watch::Sender<Durable>,
    ) -> Self {
        Self {
            chain,
            settings,
            table,
            from,
            recovery,
            hours: BTreeMap::new(),
            held: 0,
            dead_lettered: Vec::new(),
            frozen: None,
            report,
        }
    }

    /// A chain begins at the first record that was seen.
    fn seen(&mut self, offset: u64) {
        self.from.get_or_insert(Position(offset));
    }

    fn freeze(&mut self, upto: Position) -> Result<Frozen, Error> {
        let from = self.from.unwrap_or(upto).0;
        let to = upto.0;
        let format = self.recovery.as_ref().map_or(self.settings.format, |recovery| recovery.plan.format);
        let source = &self.chain.source;
        let mut planned = Vec::new();
        let mut objects = Vec::new();
        for rows in std::mem::take(&mut self.hours).into_values() {
            let (min, max) = rows.span.expect("an hour is made by its first row");
            let key = object_key(self.table, source, min, from, to, format);
            let body = rows.encode(format, source.partition).map_err(Error::unavailable)?;
            planned.push(PlannedObject {
                key: key.clone(),
                rows: rows.len(),
                bytes: body.len() as u64,
                min_timestamp: min.0,
                max_timestamp: max.0,
            });
            objects.push((key, body));
        }
        self.held = 0;
        let dead_lettered = std::mem::take(&mut self.dead_lettered);
        let Some(recovery) = self.recovery.take() else {
            let nonce = uuid::Uuid::new_v4().to_string();
            let plan = Plan {
                version: PLAN_VERSION,
                from,
                to,
                nonce,
                format,
                encoder: ENCODER.into(),
                dead_lettered,
                objects: planned,
            };
            return Ok(Frozen { plan, decided: false, objects });
        };
        let rows = |objects: &[PlannedObject]| {
            objects.iter().map(|object| (object.key.clone(), object.rows)).collect::<Vec<_>>()
        };
        if to != recovery.plan.to || rows(&planned) != rows(&recovery.plan.objects) {
            return Err(Error::broken(
                format!(
                    "{source}: the plan from {from} to {} cannot be rebuilt from Kafka: the rows are not those it names",
                    recovery.plan.to
                ),
                "the topic's records changed, or retention removed some: restore them, or remove the unfinished plan by hand after checking its objects",
            ));
        }
        objects.retain(|(key, _)| recovery.missing.contains(key));
        Ok(Frozen { plan: recovery.plan, decided: true, objects })
    }
}

impl Writer for S3Writer {
    fn push(&mut self, record: &Record<'_>) -> Result<Fill, RejectedRow> {
        record.row.check_time().map_err(RejectedRow)?;
        self.seen(record.offset);
        let table = self.table;
        let hour = self.hours.entry(record.row.time().hours()).or_insert_with(|| HourRows::new(table));
        let bytes = hour.push(&record.row, record.run, record.offset);
        self.held += bytes;
        Ok(Fill { bytes, should_cut: self.held >= self.settings.roll })
    }

    fn dead_lettered(&mut self, offset: u64) {
        self.seen(offset);
        self.dead_lettered.push(offset);
    }

    fn boundary(&self) -> Option<Position> {
        self.recovery.as_ref().map(|recovery| Position(recovery.plan.to))
    }

    async fn submit(&mut self, upto: Position) -> Result<(), Error> {
        let mut frozen = match self.frozen.take() {
            Some(frozen) => frozen,
            None => self.freeze(upto)?,
        };
        let outcome = put(&self.chain, &mut frozen).await;
        let to = Position(frozen.plan.to);
        match outcome {
            Ok(()) => {
                self.from = Some(to);
                self.report.send_replace(Durable::At(to));
            }
            Err(_) => self.frozen = Some(frozen),
        }
        outcome
    }
}

/// The plan first, then what is missing of its objects; each success is remembered, so that a retry goes on.
async fn put(chain: &Chain, frozen: &mut Frozen) -> Result<(), Error> {
    if !frozen.decided {
        chain.decide(&frozen.plan).await?;
        frozen.decided = true;
    }
    while let Some((key, body)) = frozen.objects.last() {
        // "Exists" is as good: only these rows are ever written under this key.
        chain.create(&Path::from(key.as_str()), body.clone()).await?;
        frozen.objects.pop();
    }
    Ok(())
}
