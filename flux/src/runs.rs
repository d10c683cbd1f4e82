//! `flux runs`.

use std::process::ExitCode;

use flux_schemas::{run::Progress, time::Timestamp};
use flux_service::{kafka::KafkaSettings, settings::Settings};
use flux_verify::{read_ledger, verdict::grouped};
use serde_json::json;

use crate::cli::RunsArguments;

pub(crate) async fn run(settings: &Settings, arguments: &RunsArguments) -> anyhow::Result<ExitCode> {
    let kafka = KafkaSettings::new(settings)?;
    let topic = settings.require("kafka.runs_topic")?.to_string();
    let ledger = tokio::task::spawn_blocking(move || read_ledger(&kafka, &topic)).await??;
    let mut rows = Vec::new();
    for (id, record) in &ledger.runs {
        let Some(spec) = &record.spec else { continue };
        let sum = |of: fn(&Progress) -> i64| record.progress.values().map(of).sum::<i64>();
        let (on_time, late) = (sum(|progress| progress.on_time), sum(|progress| progress.late));
        let (estimated, lost) = (sum(|progress| progress.estimated), sum(|progress| progress.lost));
        let finished =
            (0..spec.shards).all(|shard| record.progress.get(&shard).is_some_and(|progress| progress.finished));
        let start = |interval: i64| Timestamp(interval * i64::from(spec.interval_seconds) * 1000).to_string();
        rows.push(json!({
            "run": id, "seed": spec.seed as u64, "meters": spec.meters, "interval_seconds": spec.interval_seconds,
            "from": start(spec.first_interval), "to": spec.end_interval.map(start), "pattern": spec.pattern,
            "model": spec.model, "topic": spec.topic, "committed": on_time + late + estimated, "on_time": on_time,
            "late": late, "estimated": estimated, "lost": lost, "finished": finished,
            "revised": sum(|progress| progress.revised), "duplicates": sum(|progress| progress.duplicates),
            "events": sum(|progress| progress.events), "assets": sum(|progress| progress.assets),
            "area": spec.service_area, "wide": spec.wide,
        }));
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{:<16}  {:>7}  {:<24}  {:<24}  {:<9}  {:<10}  {:>13}  {:>9}  {:>9}  {:>9}  {:>9}  state",
        "run", "meters", "from", "to", "pattern", "model", "on time", "late", "estimated", "lost", "events"
    );
    for row in &rows {
        let count = |name: &str| grouped(row[name].as_u64().unwrap_or_default());
        println!(
            "{:<16}  {:>7}  {:<24}  {:<24}  {:<9}  {:<10}  {:>13}  {:>9}  {:>9}  {:>9}  {:>9}  {}",
            row["run"].as_str().unwrap_or_default(),
            row["meters"],
            row["from"].as_str().unwrap_or_default(),
            row["to"].as_str().unwrap_or("open"),
            row["pattern"].as_str().unwrap_or_default(),
            row["model"].as_str().unwrap_or_default(),
            count("on_time"),
            count("late"),
            count("estimated"),
            count("lost"),
            count("events"),
            if row["finished"] == true { "finished" } else { "going on" },
        );
    }
    Ok(ExitCode::SUCCESS)
}
