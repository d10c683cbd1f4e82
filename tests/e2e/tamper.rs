//! What `verify` says when somebody has laid hands on the rows.

use std::path::PathBuf;

use serde_json::Value;

use crate::harness::{BUCKET, Broker, Stack};

const RUN: &str = "00000000000000d5";
const ROWS: u64 = 20 * 2 * 96;

fn produced() -> (Stack, Vec<crate::harness::Process>) {
    let stack = Stack::new(Broker::Local);
    let sinks = stack.sinks();
    stack.run(0, &["produce", "--run", RUN, "--seed", "5", "--meters", "20", "--days", "2"]);
    (stack, sinks)
}

fn place(stack: &Stack, name: &str) -> Value {
    stack.verdict(RUN, name, 5)["places"][0].clone()
}

/// Missing, duplicate, altered.
fn counts(place: &Value) -> [u64; 3] {
    ["missing", "duplicate", "altered"].map(|finding| place[finding].as_u64().unwrap())
}

fn names(place: &Value, finding: &str, meter: &str) -> bool {
    place["examples"]
        .as_array()
        .unwrap()
        .iter()
        .any(|example| example["finding"] == finding && example["meter_id"] == meter)
}

#[test]
fn deleted_doubled_and_changed_rows_are_counted_and_named() {
    let (stack, _sinks) = produced();
    stack.assert_proven(RUN, ROWS);

    assert_eq!(stack.sql("delete from ami_interval_readings where meter_id = 'MTR-TGC-0000001' and reading_timestamp = (select min(reading_timestamp) from ami_interval_readings)"), 1);
    assert_eq!(stack.sql("insert into ami_interval_readings select * from ami_interval_readings where meter_id = 'MTR-TGC-0000002' and reading_timestamp = (select max(reading_timestamp) from ami_interval_readings)"), 1);
    assert_eq!(stack.sql("update ami_interval_readings set usage_kwh = usage_kwh + 1 where meter_id = 'MTR-TGC-0000003' and reading_timestamp = (select max(reading_timestamp) from ami_interval_readings)"), 1);
    let postgres = place(&stack, "postgres");
    assert_eq!(counts(&postgres), [1, 1, 1], "{postgres:#}");
    assert!(names(&postgres, "missing", "MTR-TGC-0000001"), "{postgres:#}");
    assert!(names(&postgres, "duplicate", "MTR-TGC-0000002"), "{postgres:#}");
    assert!(names(&postgres, "altered", "MTR-TGC-0000003"), "{postgres:#}");

    // A row of the run that the run never makes.
    stack.sql("insert into ami_interval_readings select 'MTR-TGC-0000099', reading_timestamp, usage_kwh, voltage, transformer_id, circuit_id, substation_id, customer_segment, service_area, is_outage, data_quality, run_id, kafka_partition, kafka_offset from ami_interval_readings limit 1");
    assert_eq!(place(&stack, "postgres")["unexpected"], 1);
}

fn files(stack: &Stack, prefix: &str) -> Vec<PathBuf> {
    fn walk(folder: PathBuf, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    walk(stack.folder.path().join("s3").join(BUCKET).join(prefix), &mut found);
    found.sort();
    found
}

#[test]
fn a_removed_and_a_copied_object_are_counted_and_named() {
    let (stack, _sinks) = produced();
    stack.assert_proven(RUN, ROWS);

    // A plan whose objects are still being put is a writer at work, not a loss.
    let last = files(&stack, "_flux").pop().unwrap();
    let mut plan: Value = serde_json::from_slice(&std::fs::read(&last).unwrap()).unwrap();
    let from = plan["to"].as_u64().unwrap();
    (plan["from"], plan["to"]) = (from.into(), (from + 1).into());
    plan["objects"][0]["key"] = "raw/ami/dt=2026-01-01/hour=00/in-flight.ndjson.gz".into();
    let next = last.with_file_name(format!("{from:020}.json"));
    std::fs::write(&next, plan.to_string()).unwrap();
    let s3 = place(&stack, "s3");
    assert_eq!(s3["proven"], true, "{s3:#}");
    assert!(s3["notes"].to_string().contains("in-flight.ndjson.gz"), "{s3:#}");
    std::fs::remove_file(next).unwrap();

    let objects = files(&stack, "raw");
    let rows = |path: &PathBuf| {
        std::io::read_to_string(flate2::read::MultiGzDecoder::new(std::fs::File::open(path).unwrap()))
            .unwrap()
            .lines()
            .count() as u64
    };

    let (removed, copied) = (&objects[0], &objects[1]);
    let (gone, twice) = (rows(removed), rows(copied));
    let copy =
        copied.with_file_name(copied.file_name().unwrap().to_str().unwrap().replace(".ndjson.gz", "-copy.ndjson.gz"));
    std::fs::copy(copied, &copy).unwrap();
    std::fs::remove_file(removed).unwrap();
    let s3 = place(&stack, "s3");
    assert_eq!(counts(&s3), [gone, twice, 0], "{s3:#}");
    let notes = s3["notes"].to_string();
    assert!(notes.contains("objects that no plan names") && notes.contains("-copy.ndjson.gz"), "{notes}");
    assert!(
        notes.contains("planned objects that are not there")
            && notes.contains(removed.file_name().unwrap().to_str().unwrap()),
        "{notes}"
    );
}

#[test]
fn a_batch_that_the_service_drops_is_counted_and_named() {
    let stack = Stack::new(Broker::Local);
    let fault = serde_json::json!([{ "on": "append", "answer": "drop" }]);
    let pem = std::fs::read(&stack.snowflake.ca).unwrap();
    stack.runtime.block_on(async {
        let client = reqwest::Client::builder()
            .tls_certs_only(reqwest::Certificate::from_pem_bundle(&pem).unwrap())
            .build()
            .unwrap();
        client
            .post(format!("{}/_emulator/faults", stack.snowflake.url))
            .json(&fault)
            .send()
            .await
            .unwrap()
            .error_for_status()
            .unwrap();
    });
    let _sinks = stack.sinks();
    stack.run(0, &["produce", "--run", RUN, "--seed", "5", "--meters", "20", "--days", "2"]);
    let snowpipe = stack.verdict(RUN, "snowpipe", 60)["places"][0].clone();
    let missing = snowpipe["missing"].as_u64().unwrap();
    assert!(missing > 0 && missing < ROWS, "{snowpipe:#}");
    assert_eq!(snowpipe["found"].as_u64().unwrap() + missing, ROWS, "{snowpipe:#}");
    assert!(
        snowpipe["examples"].as_array().unwrap().iter().any(|example| example["finding"] == "missing"),
        "{snowpipe:#}"
    );
    // The other places are as they should be.
    assert_eq!(stack.verdict(RUN, "kafka,postgres,s3", 60)["proven"], true);
}
