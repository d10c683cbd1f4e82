//! Our stand-ins against clients that nobody here wrote: the official Snowflake SDK, confluent-kafka, Apache Kafka's
//! Java client, kcat; and the S3 sink against another S3 server.

use std::{
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

use flux_schemas::source::partition_of_key;

use crate::harness::{Broker, Stack, root};

/// The tests' Python, with what `tests/requirements.txt` names.
pub(crate) fn python() -> PathBuf {
    let python = root().join(".deps/python/bin/python");
    assert!(python.exists(), "{}: not there; `make test` makes it, or: make .deps/python", python.display());
    python
}

/// Runs a session under a time limit: a client that cannot connect may retry for hours.
fn session(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("session complete"), "{text}");
    text
}

fn limited(program: PathBuf) -> Command {
    let mut command = Command::new("timeout");
    command.arg("180").arg(program);
    command
}

#[test]
fn the_official_snowflake_sdk_is_served() {
    let stack = Stack::new(Broker::Local);
    let snowflake = &stack.snowflake;
    session(
        limited(python())
            .arg(root().join("tests/clients/snowpipe_session.py"))
            .arg(&snowflake.url)
            .args([&snowflake.private_key, &snowflake.ca])
            .args([flux_local::snowflake::ACCOUNT, flux_local::snowflake::USER]),
    );
}

#[test]
fn confluent_kafka_is_served() {
    let stack = Stack::new(Broker::Local);
    session(
        limited(python())
            .arg(root().join("tests/clients/confluent_session.py"))
            .args([&stack.brokers, &stack.registry])
            .arg("confluent"),
    );
}

#[test]
fn the_java_client_is_served_and_partitions_as_we_do() {
    let stack = Stack::new(Broker::Local);
    let jars = format!("{}/*", root().join(".deps/kafka/lib").display());
    let text = session(
        limited("java".into())
            .args(["-cp", &jars])
            .arg(root().join("tests/clients/KafkaSession.java"))
            .args([&stack.brokers, &stack.registry])
            .arg("java"),
    );
    let decided: Vec<(&str, i32)> = text
        .lines()
        .filter_map(|line| line.strip_prefix("partition ")?.split_once(' '))
        .map(|(key, partition)| (key, partition.parse().unwrap()))
        .collect();
    assert_eq!(decided.len(), 120);
    for (key, partition) in decided {
        assert_eq!(partition_of_key(key.as_bytes(), 4).0, partition, "{key}");
    }
}

#[test]
fn kcat_produces_and_consumes_committed_rows() {
    let stack = Stack::new(Broker::Local);
    stack.run(0, &["produce", "--run", "00000000000000f7", "--seed", "3", "--meters", "20", "--days", "1"]);
    let kcat = |arguments: &[&str]| {
        let mut command = Command::new("kcat");
        command.args(["-b", &stack.brokers]).args(arguments).stdout(Stdio::piped());
        command
    };
    let consume = [
        "-C",
        "-t",
        &stack.topic(),
        "-X",
        "isolation.level=read_committed",
        "-o",
        "beginning",
        "-e",
        "-q",
        "-f",
        "%k %p %h\n",
    ];
    let output = kcat(&consume).output().expect("kcat is installed: apt-get install kcat");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        text.lines().filter(|line| line.starts_with("MTR-TGC-")).count(),
        20 * 96,
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let mut producer = kcat(&["-P", "-t", &stack.topic(), "-p", "0"]).stdin(Stdio::piped()).spawn().unwrap();
    producer.stdin.take().unwrap().write_all(b"one\ntwo\n").unwrap();
    assert!(producer.wait().unwrap().success());
    let output = kcat(&["-C", "-t", &stack.topic(), "-p", "0", "-o", "-2", "-e", "-q"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "one\ntwo\n");
}

/// The same sink on a server that somebody else wrote.
#[test]
fn the_s3_sink_is_proven_on_moto() {
    let stack = Stack::new(Broker::Local);
    let port = crate::harness::free_port();
    let server = python().with_file_name("moto_server");
    let mut moto = Command::new(server)
        .args(["-H", "127.0.0.1", "-p", &port.to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let endpoint = format!("http://127.0.0.1:{port}");
    crate::harness::eventually("moto listens", Duration::from_secs(60), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let made = stack.runtime.block_on(async {
        reqwest::Client::new().put(format!("{endpoint}/moto-bronze")).send().await.unwrap().status()
    });
    assert!(made.is_success(), "{made}");
    let place = format!("s3.endpoint={endpoint}");
    let there = ["--set", place.as_str(), "--set", "s3.bucket=moto-bronze"];
    let run = "00000000000000f8";
    stack.run(0, &["produce", "--run", run, "--seed", "3", "--meters", "40", "--days", "2"]);
    let _sinks =
        [stack.start(&[&there[..], &["sink", "s3"]].concat()), stack.start(&[&there[..], &["sink", "s3"]].concat())];
    let output =
        stack.run(0, &[&there[..], &["verify", "--run", run, "--at", "s3", "--wait", "60", "--json"]].concat());
    let verdict: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    moto.kill().unwrap();
    moto.wait().unwrap();
    assert_eq!(verdict["places"][0]["found"], 40 * 2 * 96, "{verdict:#}");
}
