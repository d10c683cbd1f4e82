//! `flux plan`: what a run will take, from a sample made here and now.

use std::{process::ExitCode, sync::Arc, time::Instant};

use flux_generator::{
    emission::{Emit, Kind, ShardStream},
    model::Contexts,
    register::Registers,
    run::{Run, reading_row},
};
use flux_producer::settings::ProducerSettings;
use flux_schemas::{
    codec::encode_row,
    layout::{
        json::{Keys, write_row},
        parquet::RowGroup,
    },
    row::{Cell, Kind as ColumnKind, Table},
    source::Partition,
};
use flux_service::settings::Settings;
use flux_verify::verdict::grouped;
use serde_json::json;

use crate::{
    cli::PlanArguments,
    request::{detached, request},
};

/// Rows of the sample, at most.
const SAMPLE: usize = 100_000;
/// Of a record beside its value: offsets, timestamp, key and header, as batches hold them.
const RECORD_OVERHEAD: f64 = 36.0;
/// Snowpipe Streaming, credits for a GB of uncompressed rows.
const CREDITS_PER_GB: f64 = 0.0037;
/// A PostgreSQL page and what of it rows may use; a row's own overhead: line pointer and header.
const PAGE: f64 = 8192.0;
const PAGE_ROOM: f64 = 8168.0;
const TUPLE_OVERHEAD: f64 = 4.0 + 24.0;

/// Bytes of the sample's rows at each stage.
#[derive(Default)]
struct Sample {
    rows: f64,
    seconds: f64,
    avro: f64,
    json: f64,
    json_zstd: f64,
    ndjson_gz: f64,
    parquet: f64,
    postgres: f64,
}

pub(crate) async fn run(settings: &Settings, arguments: &PlanArguments) -> anyhow::Result<ExitCode> {
    let producer = ProducerSettings::new(settings)?;
    let (request, _) = request(&arguments.spec, flux_fleet::load(settings).await?)?;
    let run = Arc::new(detached(&request)?);
    let sample = take(&run, producer.partitions);
    let days = run
        .end_interval()
        .map_or(1.0, |end| (end - run.first_interval()) as f64 * run.interval_ms() as f64 / 86_400_000.0);
    let rows = rows(&run);
    let of = |bytes: f64| bytes / sample.rows * rows;
    let generated = sample.rows / sample.seconds;
    let limit = f64::from(producer.rate);
    let rate = if limit > 0.0 { generated.min(limit) } else { generated };
    let s3 = settings.get("s3.format") == Some("parquet");
    let plan = json!({
        "rows": rows.round() as u64,
        "days": days,
        "open_ended": run.end_interval().is_none(),
        "columns": run.spec().width(),
        "bytes": {
            "avro_values": of(sample.avro).round() as u64,
            "kafka_uncompressed": of(sample.avro + RECORD_OVERHEAD * sample.rows).round() as u64,
            "snowpipe_json": of(sample.json).round() as u64,
            "snowpipe_sent": of(sample.json_zstd).round() as u64,
            "s3": of(if s3 { sample.parquet } else { sample.ndjson_gz }).round() as u64,
            "generate_parquet": of(sample.parquet).round() as u64,
            "postgres_history": of(sample.postgres).round() as u64,
        },
        "generate_files": days.ceil() as u64,
        "s3_objects_at_least": (days * 24.0).ceil() as u64 * producer.partitions as u64,
        "snowpipe_channels": producer.partitions,
        "snowpipe_credits": (of(sample.json) / 1e9 * CREDITS_PER_GB * 1e6).round() / 1e6,
        "rows_per_second": { "generated_on_one_core": generated.round(), "held_to": limit },
        "seconds": (rows / rate).round(),
    });
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&plan)?);
        return Ok(ExitCode::SUCCESS);
    }
    let bytes = |name: &str| size(plan["bytes"][name].as_f64().unwrap_or_default());
    println!(
        "rows                 {:>16}  in {days} days{}",
        grouped(rows as u64),
        if run.end_interval().is_none() { ", and so many each day" } else { "" }
    );
    println!(
        "Kafka                {:>16}  Avro values; {} with record overhead, before compression",
        bytes("avro_values"),
        bytes("kafka_uncompressed")
    );
    println!("PostgreSQL           {:>16}  history; ami_realtime is one row a meter", bytes("postgres_history"));
    println!(
        "S3                   {:>16}  {} objects or more: one for each hour, partition and unit",
        bytes("s3"),
        plan["s3_objects_at_least"]
    );
    println!(
        "Snowpipe             {:>16}  sent; {} uncompressed, {} credits, {} channels",
        bytes("snowpipe_sent"),
        bytes("snowpipe_json"),
        plan["snowpipe_credits"],
        producer.partitions
    );
    println!("flux generate        {:>16}  Parquet in {} files", bytes("generate_parquet"), plan["generate_files"]);
    println!(
        "time                 {:>14} s  at {} rows/s{}",
        plan["seconds"],
        grouped(rate as u64),
        if limit > 0.0 && limit < generated {
            ", the rate limit"
        } else {
            ", one core here; Kafka and the sinks may be slower: docs/benchmarks.md"
        }
    );
    Ok(ExitCode::SUCCESS)
}

fn size(bytes: f64) -> String {
    match bytes {
        large if large >= 1e9 => format!("{:.2} GB", large / 1e9),
        medium if medium >= 1e6 => format!("{:.1} MB", medium / 1e6),
        small => format!("{:.1} kB", small / 1e3),
    }
}

/// Rows of the readings topic: what a finished run emits, or a day of one without end. The rare ones are scaled up from
/// whole blocks of the sample.
fn rows(run: &Arc<Run>) -> f64 {
    let first = run.first_interval();
    let day = 86_400_000 / run.interval_ms();
    let end = run.end_interval().unwrap_or(first + day);
    let base = run.rows(0..run.fleet().len(), first..end) as f64;
    if run.is_plain() {
        return base;
    }
    // Every reading's rows, of so many days as a sample may take, spread over the run.
    let meters = i64::from(run.fleet().len());
    let sampled = (SAMPLE as i64 * 10 / meters).clamp(1, end - first);
    let mut contexts = Contexts::default();
    let mut count = 0u64;
    for step in 0..sampled {
        let interval = first + (end - first) * step / sampled;
        for meter in 0..run.fleet().len() {
            run.variants(meter, interval, &mut contexts, |_| count += 1);
        }
    }
    count as f64 / sampled as f64 * (end - first) as f64
}

fn take(run: &Arc<Run>, partitions: i32) -> Sample {
    let mut sample = Sample::default();
    let mut stream = ShardStream::new(run.clone(), 0);
    let mut registers = run.is_wide().then(|| Registers::new(run, (0..run.fleet().len()).collect()));
    let mut emits: Vec<Emit> = Vec::new();
    while let Some(emit) = stream.peek().filter(|_| emits.len() < SAMPLE) {
        if !matches!(emit.kind, Kind::Event | Kind::Asset) {
            emits.push(emit);
        }
        stream.advance();
    }
    // What the producer does with a row, timed.
    let started = Instant::now();
    let mut contexts = Contexts::default();
    let mut value = Vec::new();
    for emit in &emits {
        value.clear();
        let mut cells: Vec<Cell<'_>> = Vec::new();
        compose(run, *emit, &mut contexts, &mut registers, &mut cells);
        encode_row(Table::readings(), &cells, &mut value);
        sample.avro += value.len() as f64 + 5.0;
    }
    sample.seconds = started.elapsed().as_secs_f64();
    sample.rows = emits.len() as f64;
    // A file is a day, by interval and meter; a bronze object an hour of a partition; a unit of Snowpipe megabytes.
    emits.sort_by_key(|emit| (emit.interval, emit.meter));
    let mut day = RowGroup::new(Table::readings(), run.spec().width(), false);
    let (mut json, mut bronze) = (Vec::new(), Vec::new());
    let a_day = (86_400_000 / run.interval_ms() * i64::from(run.fleet().len())) as usize;
    let hour = (3_600_000 / run.interval_ms() * i64::from(run.fleet().len()) / i64::from(partitions)).max(1) as usize;
    for (number, emit) in emits.iter().enumerate() {
        let mut cells: Vec<Cell<'_>> = Vec::new();
        compose(run, *emit, &mut contexts, &mut registers, &mut cells);
        let row = reading_row(&cells);
        day.push(&row, None);
        write_row(&mut json, Keys::Upper, &row, run.id(), Partition(0), number as u64);
        write_row(&mut bronze, Keys::Lower, &row, run.id(), Partition(0), number as u64);
        sample.postgres += tuple(run, &cells);
        if day.len() == a_day.min(SAMPLE) || number + 1 == emits.len() {
            sample.parquet += parquet(&mut day).unwrap_or_default() as f64;
        }
        if (number + 1) % hour == 0 || number + 1 == emits.len() {
            sample.ndjson_gz += gzip(&bronze) as f64;
            bronze.clear();
        }
    }
    sample.json = json.len() as f64;
    sample.json_zstd =
        json.chunks(3_500_000).map(|unit| zstd::bulk::compress(unit, 1).map_or(0, |body| body.len())).sum::<usize>()
            as f64;
    sample
}

fn compose<'a>(
    run: &'a Run,
    emit: Emit,
    contexts: &mut Contexts,
    registers: &mut Option<Registers>,
    cells: &mut Vec<Cell<'a>>,
) {
    match registers {
        Some(registers) => {
            run.reading_cells(emit, contexts, registers, cells);
            cells[Run::EMITTED_AT] = Cell::Int(emit.arrival);
        }
        None => cells.extend(run.reading_of(emit, contexts).cells()),
    }
}

fn gzip(rows: &[u8]) -> usize {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(rows).expect("a Vec takes every write");
    encoder.finish().expect("a Vec takes every write").len()
}

fn parquet(day: &mut RowGroup) -> Result<usize, Box<dyn std::error::Error>> {
    let mut file = day.file(Vec::new(), "flux plan")?;
    day.write(&mut file)?;
    Ok(file.into_inner()?.len())
}

/// Bytes of a row in PostgreSQL's heap, its share of the page included.
fn tuple(run: &Run, cells: &[Cell<'_>]) -> f64 {
    let table = Table::readings();
    let mut bytes = 0usize;
    let mut add = |size: usize, align: usize| bytes = bytes.next_multiple_of(align) + size;
    for (cell, column) in cells.iter().zip(&table.columns) {
        match (cell, &column.kind) {
            (Cell::Null, _) => {}
            // Short texts have one byte of length and no alignment.
            (Cell::Text(text), _) => add(text.len() + 1, 1),
            (_, ColumnKind::Boolean) => add(1, 1),
            (_, ColumnKind::Int | ColumnKind::Float(_)) => add(4, 4),
            (_, ColumnKind::Id) => add(16, 1),
            _ => add(8, 8),
        }
    }
    // Run id, partition, offset.
    add(17, 1);
    add(4, 4);
    add(8, 8);
    let nulls = if run.is_wide() { 8.0 } else { 0.0 };
    let tuple = TUPLE_OVERHEAD + nulls + bytes.next_multiple_of(8) as f64;
    PAGE / (PAGE_ROOM / tuple).floor()
}
