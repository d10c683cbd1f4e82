//! `flux truth`: what was injected into a run, recomputed from its seed. The answer key for whoever looks for it.

use std::{
    io::{BufWriter, Write},
    process::ExitCode,
    sync::Arc,
};

use flux_generator::{comms::Loss, emission::Kind, model::Contexts, outage::Fault, run::Run};
use flux_schemas::{reading::Quality, run::RunId, time::Timestamp};
use flux_service::{kafka::KafkaSettings, settings::Settings};
use flux_verify::{expectation::Expectation, read_ledger};
use serde_json::{Value, json};

use crate::{cli::TruthArguments, roles::Usage};

pub(crate) async fn run(settings: &Settings, arguments: &TruthArguments) -> anyhow::Result<ExitCode> {
    let id: RunId = arguments.run.parse().map_err(Usage)?;
    let kafka = KafkaSettings::new(settings)?;
    let topic = settings.require("kafka.runs_topic")?.to_string();
    let name = topic.clone();
    let record = tokio::task::spawn_blocking(move || read_ledger(&kafka, &name)).await??.run(id);
    let spec = record.spec.clone().ok_or(flux_verify::Error::UnknownRun { run: id, topic })?;
    let emitted = (0..spec.shards).map(|shard| record.progress.get(&shard).map_or(spec.first_interval, |it| it.bucket));
    let before = emitted.min().unwrap_or(spec.first_interval);
    let run = Arc::new(Run::new(spec, flux_fleet::load(settings).await?)?);
    let expectation = Expectation::new(run.clone(), &record, None);
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut contexts = Contexts::default();
    for interval in run.first_interval()..run.end_interval().map_or(before, |end| end.min(before)) {
        for meter in 0..run.fleet().len() {
            let fault = run.model().fault(meter, contexts.get(run.model(), interval));
            let mut rows = Vec::new();
            run.variants(meter, interval, &mut contexts, |emit| rows.push(emit));
            let mut line = |kind: &str, arrival: Option<i64>, cause: Value| {
                let line = json!({
                    "meter_id": run.fleet().meter_id(meter),
                    "reading_timestamp": Timestamp(interval * run.interval_ms()).to_string(),
                    "kind": kind,
                    "arrival": arrival.map(|arrival| Timestamp(arrival).to_string()),
                    "cause": cause,
                });
                writeln!(out, "{line}")
            };
            let loss = || run.loss(meter, interval).map_or(Value::Null, cause_of);
            if rows.is_empty() {
                line("LOST", None, loss())?;
            }
            for emit in rows {
                if expectation.is_dropped(&emit) {
                    line("DROPPED", Some(emit.arrival), json!({ "layer": "OVERLOAD" }))?;
                    continue;
                }
                match (emit.kind, fault.filter(|_| run.after_restore())) {
                    (Kind::Late, Some(fault)) => line("LATE", Some(emit.arrival), outage(&fault))?,
                    (Kind::Late, None) => line("LATE", Some(emit.arrival), loss())?,
                    (Kind::Estimate, _) => line("ESTIMATED", Some(emit.arrival), loss())?,
                    (Kind::Revised, _) => line("REVISED", Some(emit.arrival), loss())?,
                    (Kind::Copy, _) => line("DUPLICATE", Some(emit.arrival), Value::Null)?,
                    _ => {}
                }
                match (emit.kind, run.reading_of(emit, &mut contexts).quality, fault) {
                    (Kind::Copy, ..) | (Kind::Estimate, Quality::Estimated, _) => {}
                    (_, Quality::Outage, Some(fault)) => line("OUTAGE", None, outage(&fault))?,
                    (_, Quality::Estimated, _) => line("ESTIMATED", None, Value::Null)?,
                    _ => {}
                }
            }
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn outage(fault: &Fault) -> Value {
    json!({
        "outage_id": fault.outage_id(), "level": fault.level.as_str(), "by": fault.cause.as_str(),
        "from": fault.start.to_string(), "to": fault.end.to_string(),
    })
}

fn cause_of(loss: Loss) -> Value {
    match loss {
        Loss::Collector(number) => json!({ "layer": "COLLECTOR", "collector": number + 1 }),
        Loss::HardToReach => json!({ "layer": "HARD_TO_REACH" }),
        Loss::Link => json!({ "layer": "LINK" }),
    }
}
