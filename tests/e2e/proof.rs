//! A run reaches every place once.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

use crate::harness::{Broker, Stack, eventually};

const RUN: &str = "00000000000000a1";
/// Apache Kafka is shared by the tests: a run id of its own.
const POISONED: &str = "00000000000000a3";

fn quick_demo_is_proven(broker: Broker) {
    let stack = Stack::new(broker);
    let sinks = stack.sinks();
    stack.run(0, &["produce", "--preset", "quick-demo", "--run", RUN, "--seed", "7"]);
    stack.assert_proven(RUN, 67_200);
    // Everything again: the run is finished, the sinks have everything, nothing is added.
    drop(sinks);
    let _sinks = stack.sinks();
    stack.run(0, &["produce", "--preset", "quick-demo", "--run", RUN, "--seed", "7"]);
    stack.assert_proven(RUN, 67_200);
    assert_eq!(stack.sql("select count(*) from ami_realtime"), 100, "one latest reading a meter");
}

#[test]
fn quick_demo_is_proven_on_apache_kafka() {
    quick_demo_is_proven(Broker::Apache);
}

#[test]
fn quick_demo_is_proven_on_the_local_broker() {
    quick_demo_is_proven(Broker::Local);
}

#[test]
fn two_runs_over_the_same_meters_are_each_proven() {
    let stack = Stack::new(Broker::Local);
    let _sinks = stack.sinks();
    let other = "00000000000000a2";
    let produce = |run, seed, days, pattern| {
        stack
            .run(0, &["produce", "--run", run, "--seed", seed, "--meters", "50", "--days", days, "--pattern", pattern]);
    };
    produce(RUN, "1", "2", "uniform");
    produce(other, "2", "3", "staggered");
    stack.assert_proven(RUN, 50 * 2 * 96);
    stack.assert_proven(other, 50 * 3 * 96);
}

/// What a pattern withholds is not missing; what a meter says in an outage is a row like another. Killed on the way, a
/// producer accounts for every reading all the same.
#[test]
fn runs_with_lost_readings_and_outages_are_proven_and_accounted_for() {
    let stack = Stack::new(Broker::Apache);
    let _sinks = stack.sinks();
    let (meters, days) = (300, 6);
    for (run, pattern, model) in
        [("00000000000000b1", "partial", "utility"), ("00000000000000b2", "degraded", "documented")]
    {
        let arguments =
            ["produce", "--run", run, "--seed", "4", "--meters", "300", "--days", "6", "--start", "2026-01-01"];
        let arguments = [&arguments[..], &["--pattern", pattern, "--model", model]].concat();
        let killed = stack.start(&[&arguments[..], &["--rate", "40000"]].concat());
        eventually("some readings are committed", Duration::from_secs(30), || {
            ledger(&stack, run)["committed"].as_u64() > Some(0)
        });
        assert_eq!(ledger(&stack, run)["finished"], false, "killed on the way");
        killed.signal(libc::SIGKILL);
        stack.run(0, &arguments);
        let verdict = stack.verdict(run, "all", 60);
        assert_eq!(verdict["proven"], true, "{verdict:#}");
        let expected = verdict["places"][0]["expected"].as_u64().unwrap();
        let share = expected as f64 / f64::from(meters * days * 96);
        assert!(if pattern == "partial" { 0.95..0.995 } else { 0.78..0.92 }.contains(&share), "{pattern}: {share}");
        assert!(stack.sql(&format!("select count(*) from ami_interval_readings where run_id = '{run}' and data_quality = 'OUTAGE' and is_outage and usage_kwh = 0 and voltage = 0")) > 0, "nobody was out");
        assert_eq!(stack.sql(&format!("select count(*) from ami_interval_readings where run_id = '{run}' and is_outage <> (data_quality = 'OUTAGE')")), 0);
        let ours = ledger(&stack, run);
        assert_eq!(ours["on_time"], expected, "{ours:#}");
        assert_eq!(ours["lost"], u64::from((meters * days * 96) as u32) - expected, "{ours:#}");
        the_truth_is_what_can_be_found(&stack, run);
    }
}

/// What `flux runs` says of a run; null before it has begun.
fn ledger(stack: &Stack, run: &str) -> serde_json::Value {
    let runs = stack.flux(&["runs", "--json"]).output().unwrap();
    let runs: serde_json::Value = serde_json::from_slice(&runs.stdout).unwrap_or_default();
    runs.as_array().and_then(|runs| runs.iter().find(|one| one["run"] == run)).cloned().unwrap_or_default()
}

/// Whoever looks for injected faults in the table finds those that the answer key names: all of them, and no other.
fn the_truth_is_what_can_be_found(stack: &Stack, run: &str) {
    let truth = stack.run(0, &["truth", "--run", run]);
    let mut named = std::collections::BTreeMap::<String, Vec<String>>::new();
    for line in String::from_utf8_lossy(&truth.stdout).lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |field: &str| line[field].as_str().unwrap().to_string();
        assert_eq!(line["cause"].is_null(), text("kind") == "ESTIMATED", "{line}");
        named.entry(text("kind")).or_default().push(text("meter_id") + " " + &text("reading_timestamp"));
    }
    let key = "meter_id || ' ' || to_char(reading_timestamp at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";
    let grid = format!(
        "select m || ' ' || to_char(t at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') from
         (select 'MTR-TGC-' || lpad(n::text, 7, '0') as m from generate_series(1, 300) as n) as meters,
         generate_series('2026-01-01'::timestamptz, '2026-01-06T23:45:00Z', '15 minutes') as t
         except select {key} from ami_interval_readings where run_id = '{run}'"
    );
    let with_quality = |quality: &str| {
        format!("select {key} from ami_interval_readings where run_id = '{run}' and data_quality = '{quality}'")
    };
    for (kind, query) in [("LOST", grid), ("OUTAGE", with_quality("OUTAGE")), ("ESTIMATED", with_quality("ESTIMATED"))]
    {
        let (mut said, mut found) = (named.remove(kind).unwrap_or_default(), stack.rows(&query));
        said.sort();
        found.sort();
        assert!(said == found && !said.is_empty(), "{kind}: {} said, {} found", said.len(), found.len());
    }
    assert!(named.is_empty(), "{:?}", named.keys());
}

/// Files come without Kafka, and are the rows that a run of the same seed moves through it.
#[test]
fn generated_files_hold_what_the_pipeline_moves() {
    let stack = Stack::new(Broker::Local);
    let _sinks = stack.sinks();
    let spec = [
        "--seed",
        "9",
        "--meters",
        "40",
        "--days",
        "3",
        "--start",
        "2026-02-01",
        "--pattern",
        "degraded",
        "--model",
        "utility",
    ];
    stack.run(0, &[&["produce", "--run", RUN], &spec[..]].concat());
    assert_eq!(stack.verdict(RUN, "postgres", 60)["proven"], true);
    let out = stack.folder.path().join("files");
    stack.run(0, &[&["generate", "--format", "csv", "--out", out.to_str().unwrap()], &spec[..]].concat());
    let mut files: Vec<String> = (1..=3)
        .map(|day| std::fs::read_to_string(out.join(format!("dt=2026-02-0{day}/readings.csv"))).unwrap())
        .flat_map(|text| text.lines().skip(1).map(ToString::to_string).collect::<Vec<_>>())
        .collect();
    let mut rows = stack.rows(
        "select meter_id || ',' || to_char(reading_timestamp at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') || ',' || to_char(usage_kwh, 'FM999990.0000') || ',' || to_char(voltage, 'FM9990.0') || ',' || transformer_id || ',' || circuit_id || ',' || substation_id || ',' || customer_segment || ',' || service_area || ',' || is_outage || ',' || data_quality from ami_interval_readings",
    );
    files.sort();
    rows.sort();
    assert!(files.len() > 3_000 && files == rows, "{} rows in files, {} in the table", files.len(), rows.len());
    // Again is a no-op; another seed is another run.
    stack.run(0, &[&["generate", "--format", "csv", "--out", out.to_str().unwrap()], &spec[..]].concat());
    let other =
        stack.run(1, &["generate", "--out", out.to_str().unwrap(), "--seed", "8", "--meters", "40", "--days", "3"]);
    let words = String::from_utf8_lossy(&other.stderr);
    assert!(words.contains("run.json is of another run: its"), "{words}");
}

#[test]
fn parquet_bronze_is_proven_too() {
    let stack = Stack::new(Broker::Local);
    let _sink = stack.start(&["--set", "s3.format=parquet", "sink", "s3"]);
    stack.run(0, &["produce", "--run", RUN, "--seed", "3", "--meters", "40", "--days", "2"]);
    let verdict = stack.verdict(RUN, "s3", 60);
    assert_eq!(verdict["proven"], true, "{verdict:#}");
}

#[test]
fn accelerated_live_emits_what_back_fill_emits() {
    let stack = Stack::new(Broker::Local);
    let _sinks = stack.sinks();
    // A day of 20 meters in about seven seconds.
    stack.run(
        0,
        &[
            "produce",
            "--run",
            RUN,
            "--seed",
            "3",
            "--meters",
            "20",
            "--days",
            "1",
            "--pattern",
            "staggered",
            "--speed",
            "12000",
        ],
    );
    stack.assert_proven(RUN, 20 * 96);
}

/// Each fences the others' attempt to write the run's spec; one writes it, the others find it.
#[test]
fn producers_that_start_together_agree_on_one_run() {
    let stack = Stack::new(Broker::Local);
    let start =
        |own| stack.start(&["produce", "--run", RUN, "--seed", "3", "--meters", "50", "--days", "1", "--own", own]);
    let mut producers = ["0", "1", "2", "3"].map(start);
    for producer in &mut producers {
        assert_eq!(producer.wait(Duration::from_secs(60)), 0, "{}", producer.words());
    }
    assert_eq!(stack.verdict(RUN, "kafka", 10)["proven"], true);
}

/// Judged up to a ledger cursor that moves while we look.
#[test]
fn a_run_that_is_still_going_is_proven_as_of_its_ledger() {
    let stack = Stack::new(Broker::Local);
    let _sinks = stack.sinks();
    let live =
        ["produce", "--run", RUN, "--seed", "3", "--meters", "30", "--days", "2", "--live", "--pattern", "staggered"];
    let producer = stack.start(&[&live[..], &["--speed", "9000"]].concat());
    eventually("the run has begun", Duration::from_secs(30), || {
        let runs = stack.flux(&["runs", "--json"]).output().unwrap();
        String::from_utf8_lossy(&runs.stdout).contains(RUN)
    });
    let mut expected = Vec::new();
    for _ in 0..3 {
        let verdict = stack.verdict(RUN, "all", 60);
        assert_eq!((&verdict["proven"], &verdict["as_of"]["finished"]), (&true.into(), &false.into()), "{verdict:#}");
        expected.push(verdict["places"][0]["expected"].as_u64().unwrap());
    }
    assert!(expected.is_sorted() && expected[0] < expected[2], "the run goes on: {expected:?}");
    drop(producer);
}

/// A producer for what no Flux writes.
fn raw_producer(stack: &Stack) -> ThreadedProducer<DefaultProducerContext> {
    ClientConfig::new().set("bootstrap.servers", &stack.brokers).create().unwrap()
}

#[test]
fn poison_goes_to_the_dead_letter_topic_and_everything_else_arrives() {
    let stack = Stack::new(Broker::Apache);
    stack.run(0, &["produce", "--run", POISONED, "--seed", "3", "--meters", "20", "--days", "1"]);
    let producer = raw_producer(&stack);
    let topic = stack.topic();
    let run = 0xa3u64.to_be_bytes();
    let headers = || OwnedHeaders::new().insert(Header { key: "run", value: Some(&run) });
    let poison: [(&[u8], bool); 4] =
        [(b"", true), (b"\0\0\0\0\x01garbage", true), (b"no frame", true), (b"\0\0\0\0\x01x", false)];
    for (value, with_run) in poison {
        let mut record = BaseRecord::to(&topic).partition(1).key("poison").payload(value);
        if with_run {
            record = record.headers(headers());
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(10)).unwrap();
    let _sinks = stack.sinks();
    let verdict = stack.verdict(POISONED, "postgres,s3,snowpipe", 60);
    for place in verdict["places"].as_array().unwrap() {
        assert_eq!((&place["missing"], &place["duplicate"]), (&0.into(), &0.into()), "{place:#}");
        assert_eq!(place["found"], 20 * 96, "{place:#}");
    }
    // Three carry the run's header; the fourth has none and belongs to nobody.
    eventually("all sinks have set the poison aside", Duration::from_secs(30), || {
        let verdict = stack.verdict(POISONED, "postgres,s3,snowpipe", 0);
        verdict["places"].as_array().unwrap().iter().all(|place| place["dead_lettered"] == 3)
    });
}

#[test]
fn a_registry_outage_is_not_poison_and_a_cached_schema_survives_it() {
    let stack = Stack::new(Broker::Local);
    stack.run(0, &["produce", "--run", RUN, "--seed", "3", "--meters", "20", "--days", "1"]);
    // The registry that this sink is told of does not answer: it waits, and sets nothing aside.
    let blind =
        ["--set", "registry.url=http://127.0.0.1:9", "--set", "registry.cache=/nonexistent", "sink", "postgres"];
    let mut waiting = stack.start(&blind);
    eventually("the sink says that it waits", Duration::from_secs(30), || {
        waiting.words().contains("waiting for the schema registry")
    });
    assert_eq!(waiting.ended(), None, "{}", waiting.words());
    drop(waiting);
    // A producer that has registered before goes on without a registry.
    let mut config = std::fs::read_to_string(stack.folder.path().join("flux.toml")).unwrap();
    let dead = "http://127.0.0.1:9";
    let cache = stack.folder.path().join("registry-cache");
    let folder = |url: &str| {
        url.chars().map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' }).collect::<String>()
    };
    std::fs::rename(cache.join(folder(&stack.registry)), cache.join(folder(dead))).unwrap();
    config = config.replace(&stack.registry, dead);
    std::fs::write(stack.folder.path().join("flux.toml"), config).unwrap();
    stack.run(0, &["produce", "--run", "00000000000000a9", "--seed", "4", "--meters", "20", "--days", "1"]);
    let _sinks = stack.sinks();
    stack.assert_proven(RUN, 20 * 96);
    stack.assert_proven("00000000000000a9", 20 * 96);
}
