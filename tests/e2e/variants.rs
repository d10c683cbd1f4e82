//! Rows beyond one narrow reading on time: wide, late, estimated, revised, sent twice, dropped; events and assets.

use std::{collections::BTreeSet, time::Duration};

use serde_json::Value;

use crate::harness::{BUCKET, Broker, Process, Stack, eventually};

/// Everything at once: a storm, readings that come late, twice, as estimates and after the power is back.
const EVERYTHING: &[&str] = &[
    "--seed",
    "11",
    "--meters",
    "150",
    "--days",
    "4",
    "--start",
    "2026-07-01",
    "--scenario",
    "hurricane",
    "--model",
    "utility",
    "--wide",
    "--events",
];

fn all_sinks(stack: &Stack) -> Vec<Process> {
    let records = ["readings", "events", "assets"];
    let kinds = ["postgres", "s3", "snowpipe"];
    let pairs = kinds.iter().flat_map(|kind| records.map(|records| (kind, records)));
    pairs.map(|(kind, records)| stack.start(&["sink", kind, "--records", records])).collect()
}

fn of(verdict: &Value, place: &str, records: &str, field: &str) -> u64 {
    let places = verdict["places"].as_array().unwrap();
    let one = places.iter().find(|one| one["place"] == place && one["records"] == records).unwrap();
    one[field].as_u64().unwrap()
}

fn ledger(stack: &Stack, run: &str) -> Value {
    let runs = stack.flux(&["runs", "--json"]).output().unwrap();
    let runs: Value = serde_json::from_slice(&runs.stdout).unwrap_or_default();
    runs.as_array().and_then(|runs| runs.iter().find(|one| one["run"] == run)).cloned().unwrap_or_default()
}

/// Lines of `flux truth`, by kind: meter and time.
fn truth(stack: &Stack, run: &str, kind: &str) -> BTreeSet<String> {
    let output = stack.run(0, &["truth", "--run", run]);
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let key =
        |line: Value| format!("{} {}", line["meter_id"].as_str().unwrap(), line["reading_timestamp"].as_str().unwrap());
    lines.filter(|line| line["kind"] == kind).map(key).collect()
}

const KEY: &str =
    "meter_id || ' ' || to_char(reading_timestamp at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')";

#[test]
fn late_estimated_revised_and_doubled_rows_events_and_assets_are_proven_across_kills_on_apache_kafka() {
    let stack = Stack::new(Broker::Apache);
    let mut sinks = all_sinks(&stack);
    let run = "00000000000000d1";
    let arguments = [&["produce", "--run", run], EVERYTHING].concat();
    for _ in 0..3 {
        let killed = stack.start(&[&arguments[..], &["--rate", "30000"]].concat());
        let before = ledger(&stack, run)["on_time"].as_u64().unwrap_or(0);
        eventually("readings are committed", Duration::from_secs(60), || {
            ledger(&stack, run)["on_time"].as_u64() > Some(before)
        });
        killed.signal(libc::SIGKILL);
        for sink in sinks.drain(..) {
            sink.signal(libc::SIGKILL);
        }
        sinks = all_sinks(&stack);
    }
    stack.run(0, &arguments);
    let verdict = stack.verdict(run, "all", 120);
    assert_eq!(verdict["proven"], true, "{verdict:#}");
    let ours = ledger(&stack, run);
    let count = |field: &str| ours[field].as_u64().unwrap();
    assert_eq!(count("on_time") + count("late") + count("estimated") + count("lost"), 150 * 4 * 96, "{ours:#}");
    for field in ["late", "estimated", "revised", "duplicates", "events", "assets"] {
        assert!(count(field) > 50, "{field}: {ours:#}");
    }
    let readings = ["on_time", "late", "estimated", "revised", "duplicates"].map(count).iter().sum::<u64>();
    for place in ["kafka", "postgres", "s3", "snowpipe"] {
        assert_eq!(of(&verdict, place, "readings", "found"), readings, "{place}");
        assert_eq!(of(&verdict, place, "events", "found"), count("events"), "{place}");
        assert_eq!(of(&verdict, place, "assets", "found"), count("assets"), "{place}");
    }
    a_reference_dedupe_is_scored(&stack, run);
    registers_and_intervals_agree(&stack, run);
    tampering_is_named(&stack, run);
}

/// Who dedupes by READING_ID finds the doubled rows that the answer key names, and no other: precision and recall are 1.
fn a_reference_dedupe_is_scored(stack: &Stack, run: &str) {
    let of_run = format!("from ami_interval_readings where run_id = '{run}'");
    let found: BTreeSet<String> = stack
        .rows(&format!("select min({KEY}) {of_run} group by reading_id having count(*) > 1"))
        .into_iter()
        .collect();
    let named = truth(stack, run, "DUPLICATE");
    let hits = found.intersection(&named).count() as f64;
    let (precision, recall) = (hits / found.len() as f64, hits / named.len() as f64);
    assert!(precision == 1.0 && recall == 1.0 && !named.is_empty(), "precision {precision}, recall {recall}");
    let twice = format!(
        "select count(*) from (select meter_id, reading_timestamp, revision from
             (select distinct on (reading_id) * {of_run} order by reading_id, hes_received_at) as once
         group by 1, 2, 3 having count(*) > 1) as twice"
    );
    assert_eq!(stack.sql(&twice), 0, "one row for a meter, interval and revision");
    let revised = stack.rows(&format!("select {KEY} {of_run} and revision = 1")).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(revised, truth(stack, run, "REVISED"));
    // The power is back, and then the readings of the outage come.
    let early = format!(
        "select count(*) {of_run} and is_outage and hes_received_at < reading_timestamp + interval '15 minutes'"
    );
    assert_eq!(stack.sql(&early), 0);
}

/// Statistic 33: what the register grows by is what the intervals say.
fn registers_and_intervals_agree(stack: &Stack, run: &str) {
    let wrong = format!(
        "select count(*) from (select meter_id, usage_kwh, customer_segment, register_kwh - lag(register_kwh)
             over (partition by meter_id order by reading_timestamp) as grown,
             reading_timestamp - lag(reading_timestamp) over (partition by meter_id order by reading_timestamp) as gap
         from (select distinct on (meter_id, reading_timestamp) * from ami_interval_readings
               where run_id = '{run}' and register_kwh is not null order by meter_id, reading_timestamp) as actual) as steps
         where gap = interval '15 minutes' and abs(grown - usage_kwh) > 0.01 and grown >= 0"
    );
    assert_eq!(stack.sql(&wrong), 0);
}

fn tampering_is_named(stack: &Stack, run: &str) {
    let one = |table: &str, condition: &str| {
        format!("ctid = (select ctid from {table} where run_id = '{run}' and {condition} limit 1)")
    };
    // In the partition that holds the row: a row's address means nothing in another.
    let table = |parent: &str, time: &str, condition: &str| {
        let day = format!(
            "select to_char(min({time}) at time zone 'UTC', 'YYYYMMDD') from {parent} where run_id = '{run}' and {condition}"
        );
        format!("{parent}_{}", stack.rows(&day)[0])
    };
    let revised = table("ami_interval_readings", "reading_timestamp", "revision = 1");
    let event = table("ami_events", "event_timestamp", "true");
    let asset = table("ami_assets", "valid_from", "true");
    assert_eq!(
        stack.sql(&format!("insert into {revised} select * from {revised} where {}", one(&revised, "revision = 1"))),
        1
    );
    let wide = format!(
        "update {revised} set power_factor = power_factor - 0.001 where {}",
        one(&revised, "power_factor > 0.9")
    );
    assert_eq!(stack.sql(&wide), 1);
    assert_eq!(stack.sql(&format!("delete from {event} where {}", one(&event, "true"))), 1);
    let moved = format!("update {asset} set latitude = latitude + 1 where {}", one(&asset, "asset_type = 'METER'"));
    assert_eq!(stack.sql(&moved), 1);
    let verdict = stack.verdict(run, "postgres", 10);
    for (records, field, count) in [
        ("readings", "duplicate", 1),
        ("readings", "altered", 1),
        ("readings", "missing", 0),
        ("events", "missing", 1),
        ("events", "duplicate", 0),
        ("assets", "altered", 1),
        ("assets", "missing", 0),
    ] {
        assert_eq!(of(&verdict, "postgres", records, field), count, "{records} {field}: {verdict:#}");
    }
    let text = verdict.to_string();
    assert!(text.contains("POWER_FACTOR is"), "{text}");
}

/// Narrow and wide rows lie side by side: in a topic, under one subject, in units and objects of a sink.
#[test]
fn narrow_and_wide_runs_share_a_topic_and_its_tables() {
    let stack = Stack::new(Broker::Local);
    let runs = ["00000000000000f1", "00000000000000f2", "00000000000000f3"];
    for (run, wide) in runs.into_iter().zip([None, Some("--wide"), None]) {
        let arguments =
            ["produce", "--run", run, "--seed", "2", "--meters", "30", "--days", "2", "--start", "2026-06-01"];
        stack.run(0, &arguments.into_iter().chain(wide).collect::<Vec<_>>());
    }
    // Started after all of it is there, so that their units hold rows of all three.
    let _sinks = [
        stack.start(&["sink", "postgres"]),
        stack.start(&["sink", "s3", "--set", "s3.format=parquet"]),
        stack.start(&["sink", "snowpipe"]),
    ];
    for run in runs {
        stack.assert_proven(run, 30 * 2 * 96);
    }
    let filled =
        |run: &str| stack.sql(&format!("select count(register_kwh) from ami_interval_readings where run_id = '{run}'"));
    assert_eq!(runs.map(filled), [0, 30 * 2 * 96, 0]);
}

/// Who passes rows over writes down which, and the proof holds without them.
#[test]
fn rows_that_an_overloaded_producer_drops_are_accounted_for_and_nowhere() {
    for (overload, run) in [("shed", "00000000000000d2"), ("drop_oldest", "00000000000000d3")] {
        let stack = Stack::new(Broker::Local);
        let _sinks = stack.sinks();
        let arguments =
            ["produce", "--run", run, "--seed", "5", "--meters", "60", "--days", "1", "--pattern", "staggered"];
        let choice = format!("producer.overload={overload}");
        // A day in 14 s is 410 rows a second; 200 may pass.
        let slow = ["--speed", "6000", "--rate", "200", "--set", "producer.overload_lag=1s", "--set", &choice];
        let killed = stack.start(&[&arguments[..], &slow].concat());
        eventually("rows are dropped", Duration::from_secs(60), || ledger(&stack, run)["lost"].as_u64() > Some(100));
        killed.signal(libc::SIGKILL);
        stack.run(0, &[&arguments[..], &slow].concat());
        let verdict = stack.verdict(run, "all", 60);
        assert_eq!(verdict["proven"], true, "{verdict:#}");
        let ours = ledger(&stack, run);
        let (on_time, lost) = (ours["on_time"].as_u64().unwrap(), ours["lost"].as_u64().unwrap());
        assert_eq!(on_time + lost, 60 * 96, "{ours:#}");
        assert_eq!(of(&verdict, "postgres", "readings", "found"), on_time);
        let dropped = truth(&stack, run, "DROPPED");
        assert_eq!(dropped.len() as u64, lost);
        if overload == "shed" {
            // Arrivals of an interval are dropped together, or not at all: of a shard's meters none or all.
            let intervals: BTreeSet<&str> = dropped.iter().filter_map(|key| key.split(' ').nth(1)).collect();
            assert!(intervals.len() as u64 <= lost / 4, "{} intervals, {lost} rows", intervals.len());
        }
    }
}

/// The same seed gives the same rows, whatever the number of shards and whether they were played live or back-filled.
#[test]
fn shards_speed_and_back_fill_change_nothing() {
    let mut all = Vec::new();
    for (index, (shards, speed)) in [("1", "1"), ("2", "40000"), ("7", "1")].into_iter().enumerate() {
        let stack = Stack::new(Broker::Local);
        let _sink = stack.start(&["sink", "postgres"]);
        let run = format!("00000000000000e{index}");
        let shards = format!("producer.shards={shards}");
        let arguments =
            ["produce", "--run", &run, "--seed", "8", "--meters", "70", "--days", "2", "--start", "2026-03-07"];
        let more = ["--pattern", "degraded", "--backfill", "on", "--duplicates", "realistic", "--speed", speed];
        let set = ["--set", "kafka.partitions=7", "--set", &shards];
        stack.run(0, &[&arguments[..], &more, &set].concat());
        let verdict = stack.verdict(&run, "postgres", 60);
        assert_eq!(verdict["proven"], true, "{verdict:#}");
        let mut rows = stack.rows(&format!(
            "select {KEY} || usage_kwh || ' ' || voltage || transformer_id || data_quality from ami_interval_readings where run_id = '{run}'"
        ));
        rows.sort();
        all.push(rows);
    }
    assert!(all[0].len() > 70 * 2 * 96 && all.iter().all(|rows| *rows == all[0]));
}

fn words(words: &[String]) -> Vec<&str> {
    words.iter().map(String::as_str).collect()
}

/// A utility's own meters: proven like any other, and only with the same lists.
#[test]
fn a_fleet_of_ones_own_is_proven_and_another_is_refused() {
    let stack = Stack::new(Broker::Local);
    let _sink = stack.start(&["sink", "postgres"]);
    let list = |name: &str, meters: u32| {
        let path = stack.folder.path().join(name);
        let line = |number: u32| {
            format!("{number},T-{},C-{},S-1,{}\n", number / 5, number / 20, ["C", "R"][(number % 5).min(1) as usize])
        };
        let lines: String = (100..100 + meters).map(line).collect();
        std::fs::write(&path, format!("METER_NUMBER,TRANSFORMER_ID,CIRCUIT_ID,SUBSTATION_ID,CUSTOMER_CLASS\n{lines}"))
            .unwrap();
        format!("fleet.meters={}", path.display())
    };
    let mapping = stack.folder.path().join("mapping.toml");
    let text =
        "[meters]\nMETER_ID = \"METER_NUMBER\"\n[values.CUSTOMER_SEGMENT]\nR = \"RESIDENTIAL\"\nC = \"COMMERCIAL\"\n";
    std::fs::write(&mapping, text).unwrap();
    let (ours, other) = (list("ours.csv", 60), list("other.csv", 61));
    let mapping = format!("fleet.mapping={}", mapping.display());
    let run = "00000000000000d4";
    let with = |fleet: &str, words: &[&str]| -> Vec<String> {
        let set = ["--set", fleet, "--set", &mapping];
        words.iter().chain(&set).map(ToString::to_string).collect()
    };
    let produce = ["produce", "--run", run, "--seed", "3", "--days", "1", "--start", "2026-05-01"];
    stack.run(0, &words(&with(&ours, &produce)));
    stack.run(0, &words(&with(&ours, &["verify", "--run", run, "--at", "kafka,postgres"])));
    assert_eq!(
        stack.sql("select count(distinct meter_id) from ami_interval_readings where transformer_id like 'T-%'"),
        60
    );
    // The same list from the database is the same fleet.
    stack.sql("create table meters (number text, transformer text, circuit text, class text)");
    stack.sql("insert into meters select n::text, 'T-' || n / 5, 'C-' || n / 20, case when n % 5 = 0 then 'C' else 'R' end from generate_series(100, 159) as n");
    let query = "fleet.meters=postgres:select number as meter_number, transformer as transformer_id, circuit as circuit_id, 'S-1' as substation_id, class as customer_class from meters";
    stack.run(0, &words(&with(query, &["verify", "--run", run, "--at", "kafka,postgres"])));
    for fleet in [&other, &"kafka.partitions=4".to_string()] {
        let refused = stack.run(2, &words(&with(fleet, &["verify", "--run", run, "--at", "kafka"])));
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(said.contains("fleet.meters") && said.contains("give the same fleet"), "{said}");
    }
}

/// What a plan says is what the run does, within a tenth.
#[test]
fn a_plan_is_what_the_run_then_takes() {
    let stack = Stack::new(Broker::Local);
    let _sinks = stack.sinks();
    let run = "00000000000000d5";
    let spec = [
        "--seed",
        "6",
        "--meters",
        "300",
        "--days",
        "10",
        "--start",
        "2026-04-01",
        "--pattern",
        "partial",
        "--model",
        "utility",
    ];
    let plan = stack.run(0, &[&["plan", "--json"], &spec[..]].concat());
    let plan: Value = serde_json::from_slice(&plan.stdout).unwrap();
    stack.run(0, &[&["produce", "--run", run], &spec[..]].concat());
    assert_eq!(stack.verdict(run, "all", 60)["proven"], true);
    let files = stack.folder.path().join("files");
    stack.run(0, &[&["generate", "--out", files.to_str().unwrap()], &spec[..]].concat());
    let near = |what: &str, planned: &Value, found: f64| {
        let ratio = planned.as_f64().unwrap() / found;
        assert!((0.9..1.1).contains(&ratio), "{what}: {planned} planned, {found} found");
    };
    let size = |folder: &std::path::Path, extension: &str| -> f64 {
        let mut folders = vec![folder.to_path_buf()];
        let mut bytes = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.to_string_lossy().ends_with(extension) {
                    bytes += path.metadata().unwrap().len();
                }
            }
        }
        bytes as f64
    };
    near("rows", &plan["rows"], ledger(&stack, run)["on_time"].as_f64().unwrap());
    near("parquet", &plan["bytes"]["generate_parquet"], size(&files, ".parquet"));
    let heap = stack.sql("select sum(pg_relation_size(inhrelid))::bigint from pg_inherits where inhparent = 'ami_interval_readings'::regclass");
    near("postgres", &plan["bytes"]["postgres_history"], heap as f64);
    near("files", &plan["generate_files"], 10.0);
    near("snowpipe", &plan["bytes"]["snowpipe_sent"], size(&stack.tables(), ".ndjson.zst"));
}

/// Files go to a bucket as to a folder; the same command goes on with what is missing, and another run is refused.
#[test]
fn files_go_to_a_bucket_and_a_restart_keeps_them() {
    let stack = Stack::new(Broker::Local);
    let out = format!("s3://{BUCKET}/files/one");
    let generate = |code: i32, seed: &str| {
        let spec = ["--seed", seed, "--meters", "20", "--days", "3", "--start", "2026-04-01", "--wide", "--events"];
        let output = stack.run(code, &[&["generate", "--out", &out], &spec[..]].concat());
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let first = generate(0, "1");
    assert!(first.contains("in 7 files") && first.contains("0 files were there"), "{first}");
    let again = generate(0, "1");
    assert!(again.contains("in 0 files") && again.contains("7 files were there"), "{again}");
    assert!(generate(1, "2").contains("is of another run"));
}

/// One clear error each, naming file, line, field and fix; exit code 2.
#[test]
fn bad_input_is_refused_with_what_to_do_about_it() {
    let stack = Stack::new(Broker::Local);
    let file = |name: &str, text: &str| {
        let path = stack.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let absent = file("absent.toml", "name = \"x\"\n[[cascade]]\nstart = \"1d\"\nasset = \"XFMR-TGC-999999\"\n");
    let typing =
        file("typing.toml", "name = \"x\"\n[[storm]]\nstart = \"tomorrow\"\nfraction = 0.1\nrestoration_hours = 2\n");
    let meters: String = (0..20)
        .map(|number| format!("M{number},T{},C1,S1,{}\n", number % 4, if number == 7 { 91 } else { 29 }))
        .collect();
    let orphans = format!(
        "fleet.meters={}",
        file("meters.csv", &format!("METER_ID,TRANSFORMER_ID,CIRCUIT_ID,SUBSTATION_ID,LATITUDE\n{meters}"))
    );
    let clean: String = (0..20).map(|number| format!("M{number},T1,C1,S1\n")).collect();
    let clean = file("clean.csv", &format!("METER_ID,TRANSFORMER_ID,CIRCUIT_ID,SUBSTATION_ID\n{clean}"));
    let clean = format!("fleet.meters={clean}");
    let transformers =
        format!("fleet.transformers={}", file("transformers.csv", "TRANSFORMER_ID,CIRCUIT_ID\nT0,C1\nT1,C1\nT2,C1\n"));
    let cases: &[(&[&str], &[&str])] = &[
        (&["--area", "HOUSTON_METRO"], &["--area is \"HOUSTON_METRO\"", "use one of TEXAS_GULF_COAST"]),
        (&["--segments", "70/20/20"], &["--segments is \"70/20/20\"; they add up to 110", "such as 70/20/10"]),
        (&["--scenario", &absent], &["scenario cascade[0].asset is XFMR-TGC-999999; the fleet has no such asset"]),
        (&["--scenario", &typing], &["typing.toml line 3: storm[0].start is tomorrow; use days"]),
        (&["--scenario", "no-such.toml"], &["--scenario no-such.toml", "or one of normal, summer-storm, hurricane"]),
        (
            &["--scenario", "hurricane", "--pattern", "uniform"],
            &["--pattern is \"uniform\", scenario hurricane says pattern = \"degraded\"; drop the flag"],
        ),
        (&["--backfill", "on", "--pattern", "uniform"], &["backfill is on; pattern uniform loses nothing"]),
        (&["--duplicates", "yes"], &["--duplicates is \"yes\"; use realistic or off"]),
        (&["--voltage-anomaly-rate", "0.5"], &["voltage_anomaly_rate is 0.5; use 0 to 0.02"]),
        (
            &["--set", &orphans, "--set", &transformers],
            &[
                "6 faults",
                "meters line 5: TRANSFORMER_ID is \"T3\"; no transformer has this id: an orphan",
                "meters line 9: LATITUDE is \"91\"",
                "meters.csv",
            ],
        ),
        (&["--set", &clean, "--meters", "20"], &["fleet.meters says which meters there are; drop --meters"]),
    ];
    for (arguments, expected) in cases {
        let refused = stack.run(2, &[&["preview"], *arguments].concat());
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        for words in *expected {
            assert!(said.contains(words), "{arguments:?}: {words}\n{said}");
        }
    }
}
