//! `flux generate`: files without Kafka. `flux preview`: the first rows, and nothing else.

use std::{
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::Context;
use flux_export::{Format, Watch, export};
use flux_generator::{
    emission::ShardStream,
    model::Contexts,
    run::{Request, Run, TopicOfRun},
};
use flux_schemas::{
    layout::json::{Keys, write_reading},
    reading::Reading,
    run::RunId,
    time::Timestamp,
};
use flux_service::shutdown::Shutdown;
use flux_verify::verdict::grouped;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    cli::{GenerateArguments, PreviewArguments},
    request::request,
    roles::Usage,
};

/// A run that no topic holds: its id is its seed.
fn detached(request: &Request) -> Result<Run, Usage> {
    let topic = TopicOfRun { name: "none".into(), cluster_id: String::new(), topic_id: String::new(), partitions: 1 };
    let spec = request.spec(RunId(request.seed), topic, 1).map_err(|error| Usage(error.to_string()))?;
    Run::new(spec).map_err(|error| Usage(error.to_string()))
}

pub(crate) async fn generate(arguments: &GenerateArguments) -> anyhow::Result<ExitCode> {
    let format = Format::parse(&arguments.format)
        .ok_or_else(|| Usage(format!("--format is {:?}; use parquet, csv or ndjson.gz", arguments.format)))?;
    if !(1..=256).contains(&arguments.threads) {
        return Err(Usage(format!("--threads is {}; use 1 to 256", arguments.threads)).into());
    }
    let (request, _) = request(&arguments.spec)?;
    if request.end.is_none() {
        return Err(Usage("--live has no end, files have; drop it".into()).into());
    }
    let run = Arc::new(detached(&request)?);
    eprintln!("seed {}, {} readings", request.seed, grouped(run.readings().unwrap_or_default()));
    let watch = Arc::new(Watch::default());
    let bar = ProgressBar::new(run.readings().unwrap_or_default()).with_style(
        ProgressStyle::with_template("{bar:30} {percent:>3} %  {human_pos} rows  {per_sec}  {eta} left")
            .expect("the template is valid"),
    );
    let (_trigger, mut shutdown) = Shutdown::on_signal(Duration::from_secs(600));
    let started = Instant::now();
    let mut work = {
        let (run, watch, folder, threads) = (run, watch.clone(), arguments.out.clone(), arguments.threads);
        tokio::task::spawn_blocking(move || export(&run, &folder, format, threads, &watch))
    };
    let outcome = loop {
        tokio::select! {
            outcome = &mut work => break outcome.expect("the export does not panic"),
            () = shutdown.wait(), if !watch.stop.load(Relaxed) => watch.stop.store(true, Relaxed),
            () = tokio::time::sleep(Duration::from_millis(100)) => bar.set_position(watch.rows.load(Relaxed)),
        }
    };
    bar.finish_and_clear();
    let done = outcome.context("generate")?;
    let seconds = started.elapsed().as_secs_f64();
    println!(
        "{}: {} rows in {} files, {:.1} MiB, {} rows/s; {} files were there",
        arguments.out.display(),
        grouped(done.rows),
        done.written,
        done.bytes as f64 / f64::from(1 << 20),
        grouped((done.rows as f64 / seconds) as u64),
        done.kept
    );
    if watch.stop.load(Relaxed) {
        println!("stopped; the same command, with --seed {}, goes on", request.seed);
        return Ok(ExitCode::from(1));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn preview(arguments: &PreviewArguments) -> anyhow::Result<ExitCode> {
    let (request, _) = request(&arguments.spec)?;
    let run = Arc::new(detached(&request)?);
    let mut stream = ShardStream::new(run.clone(), 0);
    let mut contexts = Contexts::default();
    let mut text = Vec::new();
    if !arguments.json {
        println!(
            "{:<24}  {:<15}  {:<24}  {:>10}  {:>7}  {:<15}  {:<11}  {:<9}",
            "ARRIVAL", "METER_ID", "READING_TIMESTAMP", "USAGE_KWH", "VOLTAGE", "TRANSFORMER_ID", "SEGMENT", "QUALITY"
        );
    }
    for _ in 0..arguments.rows {
        let Some(emit) = stream.peek() else { break };
        let reading = run.reading(emit.meter, contexts.get(run.model(), emit.interval));
        if arguments.json {
            let line = text.len();
            write_reading(&mut text, Keys::Upper, &reading);
            let arrival = format!("\"ARRIVAL\":\"{}\",", Timestamp(emit.arrival));
            text.splice(line + 1..line + 1, arrival.into_bytes());
        } else {
            println!("{:<24}  {}", Timestamp(emit.arrival).to_string(), row(&reading));
        }
        stream.advance();
    }
    print!("{}", String::from_utf8_lossy(&text));
    if !arguments.json {
        let total = run.readings().map_or_else(|| "without end".into(), grouped);
        println!("seed {}; {total} readings in all", request.seed);
    }
    Ok(ExitCode::SUCCESS)
}

fn row(reading: &Reading<'_>) -> String {
    format!(
        "{:<15}  {:<24}  {:>10.4}  {:>7.1}  {:<15}  {:<11}  {:<9}",
        reading.meter_id,
        reading.timestamp.to_string(),
        reading.usage.kwh(),
        reading.voltage.volts(),
        reading.transformer_id,
        reading.segment.as_str(),
        reading.quality.as_str()
    )
}
