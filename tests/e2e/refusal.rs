//! What must not be swallowed, and what a person did wrong: one clear message, the documented exit code, nothing lost.

use std::time::Duration;

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
};

use crate::harness::{Broker, Stack, eventually};

const RUN: &str = "00000000000000e6";

fn admin(stack: &Stack) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", &stack.brokers).create().unwrap()
}

/// Deletes the readings topic and makes it anew with as many partitions.
fn recreate(stack: &Stack) {
    let (admin, topic) = (admin(stack), stack.topic());
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    stack.runtime.block_on(admin.delete_topics(&[&topic], &options)).unwrap();
    eventually("the topic is made again", Duration::from_secs(30), || {
        let made = stack
            .runtime
            .block_on(admin.create_topics(&[NewTopic::new(&topic, 4, TopicReplication::Fixed(1))], &options))
            .unwrap();
        made.iter().all(Result::is_ok)
    });
}

fn a_topic_made_again_is_refused_by_every_sink(broker: Broker) {
    let stack = Stack::new(broker);
    let sinks = stack.sinks();
    stack.run(0, &["produce", "--run", RUN, "--seed", "1", "--meters", "20", "--days", "1"]);
    stack.assert_proven(RUN, 20 * 96);
    drop(sinks);
    recreate(&stack);
    for kind in ["postgres", "s3", "snowpipe"] {
        let mut sink = stack.start(&["sink", kind]);
        assert_eq!(sink.wait(Duration::from_secs(60)), 1, "{kind}: {}", sink.words());
        assert!(sink.words().contains("deleted and created again"), "{kind}: {}", sink.words());
    }
    // The producer refuses too: the run belongs to the old topic.
    let output = stack.run(1, &["produce", "--run", RUN]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("deleted and created again"));
    assert_eq!(stack.sql("select count(*) from ami_interval_readings"), 20 * 96);
}

#[test]
fn a_topic_made_again_is_refused_on_apache_kafka() {
    a_topic_made_again_is_refused_by_every_sink(Broker::Apache);
}

#[test]
fn a_topic_made_again_is_refused_on_the_local_broker() {
    a_topic_made_again_is_refused_by_every_sink(Broker::Local);
}

#[test]
fn a_destination_that_forgot_its_position_is_refused_until_a_person_accepts_it() {
    let stack = Stack::new(Broker::Local);
    stack.run(0, &["produce", "--run", RUN, "--seed", "1", "--meters", "20", "--days", "1"]);
    let sink = stack.start(&["sink", "postgres"]);
    assert_eq!(stack.verdict(RUN, "postgres", 60)["proven"], true);
    // SIGTERM drains, and mirrors the position to the group.
    sink.signal(libc::SIGTERM);
    let mut sink = sink;
    assert_eq!(sink.wait(Duration::from_secs(30)), 0, "{}", sink.words());
    stack.sql("delete from flux_positions");
    stack.sql("delete from ami_interval_readings");
    let mut refused = stack.start(&["sink", "postgres"]);
    assert_eq!(refused.wait(Duration::from_secs(60)), 1, "{}", refused.words());
    assert!(refused.words().contains("sink.accept_position=true"), "{}", refused.words());
    let _accepted = stack.start(&["--set", "sink.accept_position=true", "sink", "postgres"]);
    assert_eq!(stack.verdict(RUN, "postgres", 60)["proven"], true);
}

/// Runs flux with wrong input; asserts the exit code and that the message holds every word.
fn refused(stack: &Stack, code: i32, arguments: &[&str], words: &[&str]) {
    let output = stack.run(code, arguments);
    let message = String::from_utf8_lossy(&output.stderr);
    for word in words {
        assert!(message.contains(word), "flux {} should say {word:?}: {message}", arguments.join(" "));
    }
}

#[test]
fn bad_input_is_refused_with_its_name_and_the_fix() {
    let stack = Stack::new(Broker::Local);
    let cases: &[(i32, &[&str], &[&str])] = &[
        (2, &["--set", "sink.lingr=1s", "sink", "postgres"], &["sink.lingr", "did you mean sink.linger?"]),
        (2, &["--set", "sink.linger=5parsecs", "sink", "postgres"], &["sink.linger", "5parsecs", "250ms, 5s"]),
        (2, &["--set", "sink.memory=64MB", "sink", "postgres"], &["sink.memory", "64MB", "8MiB"]),
        (2, &["produce", "--interval", "10"], &["interval", "10", "5, 15, 30 or 60"]),
        (2, &["produce", "--meters", "5"], &["meters", "5", "10 to 600000"]),
        (2, &["produce", "--pattern", "random"], &["--pattern", "random", "staggered, partial or degraded"]),
        (2, &["produce", "--model", "naive"], &["--model", "naive", "documented or utility"]),
        (2, &["preview", "--model", "utility", "--base-unit", "per_hour"], &["--base-unit", "drop it"]),
        (2, &["generate", "--out", "/nonexistent", "--format", "xml"], &["--format", "xml", "parquet, csv"]),
        (2, &["generate", "--out", "/nonexistent", "--live"], &["--live", "drop it"]),
        (2, &["generate", "--out", "/nonexistent", "--threads", "0"], &["--threads", "0", "1 to 256"]),
        (1, &["generate", "--out", "/proc/none", "--meters", "10"], &["/proc/none", "what is there stays"]),
        (2, &["truth", "--run", "xyz"], &["xyz", "16 hexadecimal digits"]),
        (2, &["truth", "--run", "00000000000000ff"], &["00000000000000ff", "flux runs"]),
        (2, &["produce", "--preset", "quick-demo", "--meters", "50"], &["--preset", "--meters"]),
        (2, &["produce", "--preset", "slow-demo"], &["slow-demo", "quick-demo"]),
        (2, &["produce", "--run", "xyz"], &["xyz", "16 hexadecimal digits"]),
        (2, &["--set", "producer.shards=9", "produce"], &["producer.shards", "9", "partition count"]),
        (
            2,
            &["--set", "snowpipe.private_key_file=/nonexistent.p8", "sink", "snowpipe"],
            &["snowpipe.private_key_file", "/nonexistent.p8", "openssl genpkey"],
        ),
        (2, &["--set", "snowpipe.url=http://x", "sink", "snowpipe"], &["snowpipe.url", "https://"]),
        (2, &["--set", "s3.format=csv", "sink", "s3"], &["s3.format", "csv", "parquet"]),
        (2, &["verify", "--run", "00000000000000ff", "--at", "mars"], &["mars", "kafka, postgres, s3, snowpipe"]),
        (1, &["--brokers", "127.0.0.1:9", "runs"], &["127.0.0.1:9", "kafka.brokers"]),
    ];
    for (code, arguments, words) in cases {
        refused(&stack, *code, arguments, words);
    }
    let unknown = stack.flux(&["config", "check"]).env("FLUX_POSTGRES__URI", "x").output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("did you mean postgres.url?"));
    let check = stack.run(0, &["config", "check"]);
    let text = String::from_utf8_lossy(&check.stdout);
    assert!(text.contains("sink.linger = \"300ms\"  # file "), "{text}");
    assert!(!text.contains("flux-local"), "a secret is printed: {text}");
}

#[test]
fn a_run_that_exists_is_not_bent_by_other_flags() {
    let stack = Stack::new(Broker::Local);
    stack.run(0, &["produce", "--run", RUN, "--seed", "1", "--meters", "20", "--days", "1"]);
    refused(&stack, 2, &["produce", "--run", RUN, "--meters", "30", "--days", "1"], &["meters 20", "30 was asked for"]);
    refused(&stack, 2, &["verify", "--run", "00000000000000ff", "--at", "kafka"], &["00000000000000ff", "flux runs"]);
}

#[test]
fn a_topic_with_the_wrong_configuration_is_refused() {
    let stack = Stack::new(Broker::Apache);
    let (admin, topic) = (admin(&stack), stack.topic());
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
    let compacted = NewTopic::new(&topic, 4, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    stack.runtime.block_on(admin.create_topics(&[compacted], &options)).unwrap()[0].as_ref().unwrap();
    refused(
        &stack,
        2,
        &["produce", "--meters", "20", "--days", "1"],
        &[&topic, "cleanup.policy is compact", "it must be delete"],
    );
    refused(
        &stack,
        2,
        &["--set", "kafka.partitions=6", "produce", "--meters", "20", "--days", "1"],
        &["4 partitions", "6 were asked for"],
    );
}

#[test]
fn a_database_without_rights_and_buckets_without_keys_or_rights_are_named() {
    let stack = Stack::new(Broker::Local);
    stack.run(0, &["produce", "--run", RUN, "--seed", "1", "--meters", "20", "--days", "1"]);
    stack.sql("revoke create on schema public from public");
    // Roles belong to the whole server, which other tests share.
    stack.sql(&format!("create role reader_{} login", stack.prefix));
    let url = stack.database.replace("flux@", &format!("reader_{}@", stack.prefix));
    let mut sink = stack.start(&["--set", &format!("postgres.url={url}"), "sink", "postgres"]);
    assert_eq!(sink.wait(Duration::from_secs(60)), 1, "{}", sink.words());
    assert!(
        sink.words().contains("permission denied") && sink.words().contains("grant the sink's user"),
        "{}",
        sink.words()
    );
    let mut sink = stack.start(&["--set", "s3.secret_access_key=wrong", "sink", "s3"]);
    assert_eq!(sink.wait(Duration::from_secs(60)), 1, "{}", sink.words());
    assert!(sink.words().contains("object store refuses"), "{}", sink.words());
    let reader = format!("s3.access_key_id={}", flux_local::s3::READ_ONLY_KEY);
    let mut sink = stack.start(&["--set", &reader, "sink", "s3"]);
    assert_eq!(sink.wait(Duration::from_secs(60)), 1, "{}", sink.words());
    assert!(sink.words().contains("s3:PutObject"), "{}", sink.words());
    // Nothing is lost: with rights, everything arrives.
    let _sinks = stack.sinks();
    stack.assert_proven(RUN, 20 * 96);
}

/// A broker on a file system of 12 MiB of its own; `ballast` fills it but for a little.
#[test]
fn a_full_disk_is_named_and_once_there_is_room_everything_arrives() {
    let stack = Stack::new(Broker::Local);
    let folder = stack.folder.path().join("small");
    std::fs::create_dir(&folder).unwrap();
    let (small, port) = (folder.display().to_string(), crate::harness::free_port());
    let script = format!(
        "mount -t tmpfs -o size=12m tmpfs {small} && head -c 11M /dev/zero > {small}/ballast && \
         exec {} local broker --data-dir {small} --listen 127.0.0.1:{port}",
        env!("CARGO_BIN_EXE_flux")
    );
    let broker = stack.start_program(std::process::Command::new("unshare").args(["-rm", "sh", "-c", &script]));
    eventually("the broker listens", Duration::from_secs(20), || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    let brokers = format!("127.0.0.1:{port}");
    let mut producer =
        stack.start(&["--brokers", &brokers, "produce", "--run", RUN, "--seed", "1", "--meters", "500", "--days", "7"]);
    eventually("the broker says what is full", Duration::from_secs(60), || broker.words().contains("free some space"));
    assert_eq!(producer.ended(), None, "the producer waits: {}", producer.words());
    // The file system is seen by the broker alone: through its eyes.
    std::fs::remove_file(format!("/proc/{}/root{small}/ballast", broker.id())).unwrap();
    assert_eq!(producer.wait(Duration::from_secs(120)), 0, "{}", producer.words());
    let verdict = stack.run(0, &["--brokers", &brokers, "verify", "--run", RUN, "--at", "kafka", "--json"]);
    let verdict: serde_json::Value = serde_json::from_slice(&verdict.stdout).unwrap();
    assert_eq!(verdict["places"][0]["found"], 500 * 7 * 96, "{verdict:#}");
}

/// What a run needs and does not have is named with what to do about it; what is there is READY.
#[test]
fn preflight_says_what_is_missing() {
    let stack = Stack::new(Broker::Local);
    let preflight = |code: i32, arguments: &[&str]| {
        let output = stack.run(code, &[&["preflight"], arguments].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    let good = preflight(0, &[]);
    for place in ["kafka", "registry", "postgres", "s3", "snowpipe"] {
        assert!(good.lines().any(|line| line.starts_with("READY") && line.contains(place)), "{place}\n{good}");
    }
    assert!(good.contains("is not there yet; the producer makes it") && !good.contains("NOT_READY"), "{good}");
    stack.run(0, &["produce", "--meters", "10", "--days", "1"]);
    let broken: &[(&str, &str, &str)] = &[
        ("kafka", "kafka.partitions=8", "has 4 partitions, 8 are asked for; set kafka.partitions"),
        ("registry", "registry.url=http://127.0.0.1:1", "check registry.url"),
        ("postgres", "postgres.url=postgres://nobody@127.0.0.1:1/x", "check postgres.url"),
        ("s3", "s3.endpoint=http://127.0.0.1:1", "check s3.bucket"),
        ("snowpipe", "snowpipe.user=NOBODY", "check account, user, key"),
    ];
    for (place, setting, expected) in broken {
        let said = preflight(1, &["--at", place, "--set", setting]);
        assert!(said.contains("NOT_READY") && said.contains(expected), "{setting}: {said}");
    }
}
