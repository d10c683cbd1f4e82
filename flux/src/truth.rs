//! `flux truth`: what was injected into a run, recomputed from its seed. The answer key for whoever looks for it.

use std::{
    io::{BufWriter, Write},
    process::ExitCode,
};

use flux_generator::{comms::Loss, model::Contexts, run::Run};
use flux_schemas::{reading::Quality, run::RunId, time::Timestamp};
use flux_service::{kafka::KafkaSettings, settings::Settings};
use flux_verify::read_ledger;
use serde_json::{Value, json};

use crate::{cli::TruthArguments, roles::Usage};

pub(crate) async fn run(settings: &Settings, arguments: &TruthArguments) -> anyhow::Result<ExitCode> {
    let id: RunId = arguments.run.parse().map_err(Usage)?;
    let kafka = KafkaSettings::new(settings)?;
    let topic = settings.require("kafka.runs_topic")?.to_string();
    let name = topic.clone();
    let record = tokio::task::spawn_blocking(move || read_ledger(&kafka, &name)).await??.run(id);
    let spec = record.spec.ok_or(flux_verify::Error::UnknownRun { run: id, topic })?;
    let emitted = (0..spec.shards).map(|shard| record.progress.get(&shard).map_or(spec.first_interval, |it| it.bucket));
    let before = emitted.min().unwrap_or(spec.first_interval);
    let run = Run::new(spec)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut contexts = Contexts::default();
    for interval in run.first_interval()..run.end_interval().map_or(before, |end| end.min(before)) {
        let context = contexts.get(run.model(), interval);
        for meter in 0..run.fleet().len() {
            let (kind, cause) = if let Some(loss) = run.loss(meter, interval) {
                ("LOST", cause_of(loss))
            } else {
                let reading = run.reading(meter, context);
                match (reading.quality, run.model().fault(meter, context)) {
                    (Quality::Outage, Some(fault)) => (
                        "OUTAGE",
                        json!({
                            "outage_id": format!("{}-{}-{}", fault.level, fault.node + 1, fault.start.0 / 1000),
                            "level": fault.level, "from": fault.start.to_string(), "to": fault.end.to_string(),
                        }),
                    ),
                    (Quality::Estimated, _) => ("ESTIMATED", Value::Null),
                    _ => continue,
                }
            };
            let line = json!({
                "meter_id": run.fleet().meter_id(meter),
                "reading_timestamp": Timestamp(interval * run.interval_ms()).to_string(),
                "kind": kind,
                "cause": cause,
            });
            writeln!(out, "{line}")?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn cause_of(loss: Loss) -> Value {
    match loss {
        Loss::Collector(number) => json!({ "layer": "COLLECTOR", "collector": number + 1 }),
        Loss::HardToReach => json!({ "layer": "HARD_TO_REACH" }),
        Loss::Link => json!({ "layer": "LINK" }),
    }
}
