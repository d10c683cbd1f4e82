//! `flux generate`: files without Kafka. `flux preview`: the first rows, and nothing else.

use std::{
    process::ExitCode,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::Context;
use flux_export::{
    Format, Watch, export,
    place::{Folder, Place},
};
use flux_generator::{
    emission::{Kind, ShardStream},
    model::Contexts,
    register::Registers,
    run::reading_row,
};
use flux_schemas::{
    layout::json::{Keys, write_cells},
    reading::Reading,
    time::Timestamp,
};
use flux_service::{settings::Settings, shutdown::Shutdown};
use flux_verify::verdict::grouped;
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    bucket::Bucket,
    cli::{GenerateArguments, PreviewArguments},
    request::{detached, request},
    roles::Usage,
};

pub(crate) async fn generate(settings: &Settings, arguments: &GenerateArguments) -> anyhow::Result<ExitCode> {
    let format = Format::parse(&arguments.format)
        .map_err(|rule| Usage(format!("--format is {:?}; {rule}", arguments.format)))?;
    if !(1..=256).contains(&arguments.threads) {
        return Err(Usage(format!("--threads is {}; use 1 to 256", arguments.threads)).into());
    }
    let (request, _) = request(&arguments.spec, flux_fleet::load(settings).await?)?;
    let place = place(settings, &arguments.out)?;
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
        let (run, watch, threads) = (run, watch.clone(), arguments.threads);
        tokio::task::spawn_blocking(move || export(&run, &*place, format, threads, &watch))
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
        arguments.out,
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

pub(crate) async fn preview(settings: &Settings, arguments: &PreviewArguments) -> anyhow::Result<ExitCode> {
    let (request, _) = request(&arguments.spec, flux_fleet::load(settings).await?)?;
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
    let mut registers = run.is_wide().then(|| Registers::new(&run, (0..run.fleet().len()).collect()));
    let mut shown = 0;
    while let Some(emit) = stream.peek().filter(|_| shown < arguments.rows) {
        if !matches!(emit.kind, Kind::Event | Kind::Asset) {
            shown += 1;
            let reading = run.reading_of(emit, &mut contexts);
            if arguments.json {
                let mut cells = reading.cells().to_vec();
                if let Some(registers) = &mut registers {
                    run.reading_cells(emit, &mut contexts, registers, &mut cells);
                }
                let line = text.len();
                write_cells(&mut text, Keys::Upper, &reading_row(&cells));
                let arrival = format!("\"ARRIVAL\":\"{}\",", Timestamp(emit.arrival));
                text.splice(line + 1..line + 1, arrival.into_bytes());
            } else {
                println!("{:<24}  {}", Timestamp(emit.arrival).to_string(), row(&reading));
            }
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

/// A folder, or a bucket.
fn place(settings: &Settings, out: &str) -> anyhow::Result<Box<dyn Place + Send>> {
    Ok(match out.strip_prefix("s3://") {
        Some(target) => Box::new(Bucket::open(settings, target)?),
        None => Box::new(Folder(out.into())),
    })
}
