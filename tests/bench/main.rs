//! `make bench`: rows/s, CPU seconds and memory, compared side by side in one run. Prints Markdown tables.
//!
//! Machines are shared and noisy: medians of three where a measure is short, ratios rather than absolute figures.

#![allow(clippy::unwrap_used, reason = "a bench")]
#![allow(dead_code, reason = "the harness serves the tests first")]

#[path = "../e2e/harness.rs"]
mod harness;
mod librdkafka;

use std::{
    io::Write,
    process::Command,
    time::{Duration, Instant},
};

use flux_generator::{
    model::{BaseUnit, Contexts, LoadModel},
    run::{Request, Run, TopicsOfRun},
};
use flux_schemas::{codec::encode, run::RunId, time::Timestamp};
use flux_service::usage::{self, Usage};
use flux_verify::verdict::grouped;
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    error::KafkaError,
};

use crate::harness::{Broker, Process, Stack};

fn main() {
    let only = std::env::args().nth(1).filter(|argument| !argument.starts_with('-'));
    let measures: [(&str, fn()); 7] = [
        ("generate", generate),
        ("files", files),
        ("produce", produce),
        ("rate", rate),
        ("postgres", postgres),
        ("memory", memory),
        ("se-demo", se_demo),
    ];
    for (name, measure) in measures {
        if only.as_deref().is_none_or(|only| only == name) {
            measure();
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Narrow UNIFORM rows, generated and encoded on one core, and the time to build the largest fleet.
fn generate() {
    let start = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
    let run = |meters: u32, load: LoadModel| {
        let end = Some(Timestamp(start.0 + 86_400_000));
        let request = Request { load, ..Request::new(1, meters, start, end) };
        Run::new(request.spec(RunId(1), TopicsOfRun::none(), 1).unwrap(), None).unwrap()
    };
    println!("\n## Generator, one core, 10,000 meters, one day, median of three\n");
    println!("| model | generate, rows/s | generate and encode, rows/s | 600,000 meters ready in |\n|---|---|---|---|");
    for load in [LoadModel::Documented(BaseUnit::PerReading), LoadModel::Utility] {
        let day = run(10_000, load);
        let generated = median((0..3).map(|_| rows_a_second(&day, false)).collect());
        let encoded = median((0..3).map(|_| rows_a_second(&day, true)).collect());
        let ready = (0..3).map(|_| {
            let started = Instant::now();
            std::hint::black_box(run(600_000, load));
            started.elapsed().as_secs_f64()
        });
        println!(
            "| {} | {} | {} | {:.2} s |",
            load.as_str(),
            grouped(generated as u64),
            grouped(encoded as u64),
            median(ready.collect())
        );
    }
}

fn rows_a_second(run: &Run, encoding: bool) -> f64 {
    let mut contexts = Contexts::default();
    let mut datum = Vec::with_capacity(256);
    let mut sum = 0i64;
    let started = Instant::now();
    for interval in run.first_interval()..run.end_interval().unwrap() {
        for meter in 0..run.fleet().len() {
            let reading = run.reading(meter, contexts.get(run.model(), interval));
            if encoding {
                datum.clear();
                encode(&reading, &mut datum);
                sum += datum.len() as i64;
            } else {
                sum += reading.usage.0;
            }
        }
    }
    std::hint::black_box(sum);
    run.readings().unwrap() as f64 / started.elapsed().as_secs_f64()
}

/// A year of 10,000 meters straight to zstd Parquet on two threads.
fn files() {
    let folder = tempfile::tempdir().unwrap();
    println!("\n## Files: ml-training, 350,400,000 readings to zstd Parquet, two threads\n");
    println!("| model | seconds | rows/s | CPU seconds | peak MiB | bytes a row |\n|---|---|---|---|---|---|");
    for model in ["documented", "utility"] {
        let out = folder.path().join(model);
        let mut child = Command::new(env!("CARGO_BIN_EXE_flux"))
            .args(["generate", "--preset", "ml-training", "--seed", "1", "--model", model, "--threads", "2", "--out"])
            .arg(&out)
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let (started, mut used) = (Instant::now(), Usage::default());
        let status = loop {
            let now = usage::of(&child.id().to_string());
            used = if now.peak_mib > 0.0 { now } else { used };
            if let Some(status) = child.try_wait().unwrap() {
                break status;
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(status.success());
        let (seconds, rows) = (started.elapsed().as_secs_f64(), 350_400_000.0);
        let files = std::fs::read_dir(&out).unwrap().map(|day| day.unwrap().path().join("readings.parquet"));
        let bytes: u64 = files.filter_map(|file| file.metadata().ok()).map(|metadata| metadata.len()).sum();
        println!(
            "| {model} | {seconds:.0} | {} | {:.0} | {:.0} | {:.1} |",
            grouped((rows / seconds) as u64),
            used.cpu_seconds,
            used.peak_mib,
            bytes as f64 / rows
        );
        std::fs::remove_dir_all(&out).unwrap();
    }
}

/// Waits for the child and returns what it used.
fn used(mut process: Process, patience: Duration) -> (Usage, f64) {
    let started = Instant::now();
    let mut last = usage::of(&process.id().to_string());
    while process.ended().is_none() {
        assert!(started.elapsed() < patience, "{}: {}", process.name, process.words());
        let now = usage::of(&process.id().to_string());
        if now.peak_mib > 0.0 {
            last = now;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    (last, started.elapsed().as_secs_f64())
}

/// The producer against librdkafka's own load generator, on the same broker, with as many bytes a message.
fn produce() {
    let rows = 1_000 * 20 * 96u64;
    let stack = Stack::new(Broker::Apache);
    let theirs = librdkafka::Performance::build();
    println!("\n## Producer against rdkafka_performance, Apache Kafka, 4 partitions, lz4, acks=all, median of three\n");
    println!("| producer | rows/s | rows per CPU second |\n|---|---|---|");
    let (mut our_speed, mut our_cpu, mut their_speed, mut their_cpu) = (vec![], vec![], vec![], vec![]);
    for round in 0..3 {
        let run = format!("00000000000b000{round}");
        let started = Instant::now();
        let process = stack.start(&["produce", "--run", &run, "--seed", "1", "--meters", "1000", "--days", "20"]);
        let (usage, _) = used(process, Duration::from_secs(300));
        our_speed.push(rows as f64 / started.elapsed().as_secs_f64());
        our_cpu.push(rows as f64 / usage.cpu_seconds);
        let (seconds, cpu) = theirs.produce(&stack.brokers, &stack.topic(), rows, 133);
        their_speed.push(rows as f64 / seconds);
        their_cpu.push(rows as f64 / cpu);
    }
    let (ours, theirs) = (median(our_cpu), median(their_cpu));
    println!(
        "| flux produce (generates, encodes, transactions) | {} | {} |",
        grouped(median(our_speed) as u64),
        grouped(ours as u64)
    );
    println!(
        "| rdkafka_performance (repeats one message) | {} | {} |",
        grouped(median(their_speed) as u64),
        grouped(theirs as u64)
    );
    println!("| ratio | | {:.2} |", ours / theirs);
}

/// How closely `--rate` is held: readings offered in every ten seconds of a run, by their record timestamps.
fn rate() {
    let (run, rate, window) = ("00000000000b0040", 20_000u64, 10_000);
    let stack = Stack::new(Broker::Apache);
    let arguments = ["produce", "--run", run, "--seed", "1", "--meters", "1000", "--days", "8"];
    stack.run(0, &[&arguments[..], &["--rate", &rate.to_string()]].concat());
    let mut offered = timestamps(&stack);
    offered.sort_unstable();
    let first = offered[0];
    let second = |ms: i64| (ms - first) as usize / 1_000;
    let mut counts = vec![0u64; second(offered[offered.len() - 1]) + 1];
    for stamp in &offered {
        counts[second(*stamp)] += 1;
    }
    // The first second fills the client's queues, the last one is not whole.
    let whole = &counts[1..counts.len() - 1];
    let deviations: Vec<f64> = whole
        .windows(window / 1_000)
        .map(|counts| counts.iter().sum::<u64>() as f64 / (rate * window as u64 / 1_000) as f64 - 1.0)
        .collect();
    let (low, high) = deviations.iter().fold((0.0f64, 0.0f64), |(low, high), d| (low.min(*d), high.max(*d)));
    println!("\n## Rate limit, {} readings at --rate {rate}, Apache Kafka\n", grouped(offered.len() as u64));
    println!("| {} windows of 10 s | deviation |\n|---|---|", deviations.len());
    println!("| least | {:+.2} % |\n| most | {:+.2} % |", low * 100.0, high * 100.0);
}

/// The timestamp of every record of the readings topic, ms.
fn timestamps(stack: &Stack) -> Vec<i64> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", &stack.brokers)
        .set("group.id", "bench")
        .set("enable.partition.eof", "true")
        .create()
        .unwrap();
    let mut partitions = TopicPartitionList::new();
    for partition in 0..4 {
        partitions.add_partition_offset(&stack.topic(), partition, Offset::Beginning).unwrap();
    }
    consumer.assign(&partitions).unwrap();
    let (mut stamps, mut ended) = (Vec::new(), 0);
    while ended < partitions.count() {
        match consumer.poll(Duration::from_secs(30)).expect("the log is read to its end") {
            Ok(message) => stamps.push(message.timestamp().to_millis().unwrap()),
            Err(KafkaError::PartitionEOF(_)) => ended += 1,
            Err(error) => panic!("{error}"),
        }
    }
    stamps
}

/// A running sink whose metrics are watched.
struct Sink {
    process: Process,
    port: u16,
    started: Instant,
}

impl Sink {
    fn start(stack: &Stack, kind: &str, settings: &[&str]) -> Self {
        let port = harness::free_port();
        let listen = format!("http.listen=127.0.0.1:{port}");
        let mut arguments = vec!["--set", listen.as_str()];
        for setting in settings {
            arguments.extend(["--set", setting]);
        }
        arguments.extend(["sink", kind]);
        let mut process = stack.start(&arguments);
        process.name = format!("sink {kind}");
        Self { process, port, started: Instant::now() }
    }

    /// Rows durable so far; 0 while the port is not open yet.
    fn rows(&self) -> u64 {
        let scrape = || {
            let mut stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).ok()?;
            stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").ok()?;
            let text = std::io::read_to_string(stream).ok()?;
            let line = text.lines().find(|line| line.starts_with("flux_sink_records_total"))?;
            line.rsplit_once(' ')?.1.parse::<f64>().ok()
        };
        scrape().unwrap_or(0.0) as u64
    }

    /// Seconds from the first durable row until `rows` are durable.
    fn seconds_of_writing(&self, rows: u64, patience: Duration) -> f64 {
        let until = |wanted: u64| {
            harness::eventually(&format!("{wanted} rows in {}", self.process.name), patience, || self.rows() >= wanted);
            (Instant::now(), self.rows())
        };
        let (first, before) = until(1);
        let (last, _) = until(rows);
        (last - first).as_secs_f64() * rows as f64 / (rows - before) as f64
    }

    /// Seconds from its start until `rows` are durable.
    fn seconds_until(&self, rows: u64, patience: Duration) -> f64 {
        harness::eventually(&format!("{} rows in {}", rows, self.process.name), patience, || self.rows() >= rows);
        self.started.elapsed().as_secs_f64()
    }

    fn usage(&self) -> Usage {
        usage::of(&self.process.id().to_string())
    }
}

/// Kafka to PostgreSQL against `\copy ... binary` of the same rows into the same table.
fn postgres() {
    let (run, rows) = ("00000000000b0010", 1_000 * 20 * 96u64);
    let stack = Stack::new(Broker::Apache);
    stack.run(0, &["produce", "--run", run, "--seed", "1", "--meters", "1000", "--days", "20"]);
    let psql = |statement: &str| {
        let started = Instant::now();
        let output = Command::new("psql").args([&stack.database, "-q", "-c", statement]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        started.elapsed().as_secs_f64()
    };
    let drain = |settings: &[&str]| {
        let sink = Sink::start(&stack, "postgres", settings);
        let seconds = sink.seconds_of_writing(rows, Duration::from_secs(600));
        drop(sink);
        seconds
    };
    let with_latest = drain(&[]);
    let file = stack.folder.path().join("rows.bin");
    psql(&format!("\\copy (select * from ami_interval_readings) to '{}' (format binary)", file.display()));
    let (mut copies, mut plain, mut latest) = (Vec::new(), Vec::new(), vec![with_latest]);
    for _ in 0..3 {
        psql("truncate ami_interval_readings");
        copies.push(psql(&format!("\\copy ami_interval_readings from '{}' (format binary)", file.display())));
        for (realtime, times) in [("postgres.realtime=false", &mut plain), ("postgres.realtime=true", &mut latest)] {
            psql("truncate ami_interval_readings");
            psql("delete from flux_positions");
            psql("truncate ami_realtime");
            times.push(drain(&["sink.accept_position=true", realtime]));
        }
    }
    let copy = rows as f64 / median(copies);
    let row = |name: &str, seconds: Vec<f64>| {
        let speed = rows as f64 / median(seconds);
        println!("| {name} | {} | {:.2} |", grouped(speed as u64), speed / copy);
    };
    println!("\n## Kafka to PostgreSQL against `\\copy`, 1,920,000 rows, 4 partitions, median of three\n");
    println!("Time from the first durable unit to the last; joining the consumer group comes before it.\n");
    println!("| writer | rows/s | of \\copy |\n|---|---|---|");
    println!("| psql \\copy binary, one session, from a file | {} | 1.00 |", grouped(copy as u64));
    row("flux sink postgres, postgres.realtime=false", plain);
    row("flux sink postgres, with ami_realtime", latest);
}

/// Peak memory of each sink while rows come at 100,000 a second.
fn memory() {
    let (run, rows) = ("00000000000b0020", 10_000 * 3 * 96u64);
    let stack = Stack::new(Broker::Apache);
    let sinks = [
        Sink::start(&stack, "postgres", &["sink.linger=1s"]),
        Sink::start(&stack, "s3", &["sink.linger=10s"]),
        Sink::start(&stack, "snowpipe", &["sink.linger=1s"]),
    ];
    stack.run(0, &["produce", "--run", run, "--seed", "1", "--meters", "10000", "--days", "3", "--rate", "100000"]);
    println!(
        "\n## Memory at 100,000 rows/s offered, 2,880,000 rows, 4 partitions, sink.memory 64 MiB, s3.roll 8 MiB\n"
    );
    println!("| sink | peak MiB | CPU seconds |\n|---|---|---|");
    for sink in &sinks {
        sink.seconds_until(rows, Duration::from_secs(300));
        println!("| {} | {:.0} | {:.1} |", sink.process.name, sink.usage().peak_mib, sink.usage().cpu_seconds);
    }
    stack.assert_proven(run, rows);
}

/// The SE-demo preset into all three sinks at once, proven.
fn se_demo() {
    let (run, rows) = ("00000000000b0030", 8_640_000u64);
    let stack = Stack::new(Broker::Apache);
    let sinks = ["postgres", "s3", "snowpipe"].map(|kind| Sink::start(&stack, kind, &["sink.linger=2s"]));
    let producer = stack.start(&["produce", "--run", run, "--seed", "1", "--preset", "se-demo"]);
    let (produced, seconds) = used(producer, Duration::from_secs(900));
    println!("\n## SE-demo, 8,640,000 readings, Apache Kafka, 4 partitions, all three sinks at once\n");
    println!("| role | rows/s | CPU seconds | peak MiB |\n|---|---|---|---|");
    let print = |name: &str, seconds: f64, usage: Usage| {
        println!(
            "| {name} | {} | {:.1} | {:.0} |",
            grouped((rows as f64 / seconds) as u64),
            usage.cpu_seconds,
            usage.peak_mib
        );
    };
    print("produce", seconds, produced);
    // Watched together: each ends at a time of its own.
    std::thread::scope(|scope| {
        let watched =
            sinks.each_ref().map(|sink| scope.spawn(move || sink.seconds_until(rows, Duration::from_secs(1800))));
        for (sink, seconds) in sinks.iter().zip(watched) {
            print(&sink.process.name, seconds.join().unwrap(), sink.usage());
        }
    });
    let judged = Instant::now();
    stack.assert_proven(run, rows);
    println!(
        "\nProven at all four places: 0 missing, 0 duplicate, 0 altered; the verdict took {:.0} s.",
        judged.elapsed().as_secs_f64()
    );
}
