//! The sink contract, on every destination.

use std::{path::PathBuf, time::Duration};

use flux_local::{
    s3,
    snowflake::{self, SnowflakeSettings},
};
use flux_runner::{
    contract::{Sink, Writer},
    suite::{self, Destination},
};
use flux_schemas::{
    layout::table_files::{ChannelState, STATE_FILE, data_file},
    row::Table,
    source::{Position, Source},
};
use flux_service::{
    settings::{Origin, Settings},
    shutdown::Shutdown,
};
use flux_sink_postgres::{PostgresSettings, PostgresSink};
use flux_sink_s3::{S3Settings, S3Sink};
use flux_sink_snowpipe::{SnowpipeSettings, SnowpipeSink};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::harness::{BUCKET, database, install_tls, loopback};

fn settings(pairs: &[(&str, &str)]) -> Settings {
    let keys = [
        flux_service::postgres::KEYS,
        flux_service::s3::KEYS,
        flux_sink_postgres::settings::KEYS,
        flux_sink_s3::settings::KEYS,
        flux_sink_snowpipe::settings::KEYS,
    ];
    let mut settings = Settings::new(&keys.concat());
    for (key, value) in pairs {
        settings.set(key, value, Origin::Default).unwrap();
    }
    settings
}

struct OnPostgres {
    settings: PostgresSettings,
    url: String,
}

impl Destination for OnPostgres {
    type Sink = PostgresSink;

    fn open(&self) -> PostgresSink {
        PostgresSink::new(self.settings.clone(), Table::readings(), "suite")
    }

    async fn offsets(&self, source: &Source) -> Vec<u64> {
        let (client, connection) = tokio_postgres::connect(&self.url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        let rows = client
            .query("select kafka_offset from ami_interval_readings where kafka_partition = $1", &[&source.partition.0])
            .await
            .unwrap();
        rows.iter().map(|row| row.get::<_, i64>(0) as u64).collect()
    }
}

#[test]
fn postgres_keeps_the_contract() {
    let runtime = Runtime::new().unwrap();
    let url = database(&runtime);
    let settings = PostgresSettings::new(&settings(&[("postgres.url", &url)])).unwrap();
    runtime.block_on(suite::all(&OnPostgres { settings, url }));
}

struct OnS3(S3Settings);

impl Destination for OnS3 {
    type Sink = S3Sink;

    fn open(&self) -> S3Sink {
        S3Sink::new(self.0.clone(), Table::readings(), "suite").unwrap()
    }

    async fn offsets(&self, source: &Source) -> Vec<u64> {
        let store = self.0.login.open().unwrap();
        let objects: Vec<_> = store.list(Some(&"raw/ami".into())).try_collect().await.unwrap();
        let mut offsets = Vec::new();
        for object in objects {
            let body = store.get(&object.location).await.unwrap().bytes().await.unwrap();
            let text = std::io::read_to_string(flate2::read::MultiGzDecoder::new(&body[..])).unwrap();
            offsets.extend(offsets_of(&text, source));
        }
        offsets
    }
}

/// Offsets of the source's rows in NDJSON of either case.
fn offsets_of(text: &str, source: &Source) -> Vec<u64> {
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let field = |row: &Value, name: &str| {
        row.get(name).or_else(|| row.get(name.to_uppercase())).and_then(Value::as_i64).unwrap()
    };
    rows.filter(|row| field(row, "kafka_partition") == i64::from(source.partition.0))
        .map(|row| field(&row, "kafka_offset") as u64)
        .collect()
}

/// An S3 stand-in for one test.
fn s3_destination(runtime: &Runtime) -> (OnS3, tempfile::TempDir, flux_service::shutdown::Trigger) {
    install_tls();
    let folder = tempfile::tempdir().unwrap();
    let (trigger, shutdown) = Shutdown::manual();
    let address = runtime.block_on(s3::serve(loopback(), folder.path(), BUCKET, shutdown)).unwrap();
    let endpoint = format!("http://{address}");
    let settings = settings(&[
        ("s3.endpoint", endpoint.as_str()),
        ("s3.bucket", BUCKET),
        ("s3.access_key_id", s3::ACCESS_KEY),
        ("s3.secret_access_key", s3::SECRET_KEY),
    ]);
    (OnS3(S3Settings::new(&settings).unwrap()), folder, trigger)
}

#[test]
fn s3_keeps_the_contract() {
    let runtime = Runtime::new().unwrap();
    let (destination, _folder, _trigger) = s3_destination(&runtime);
    runtime.block_on(suite::all(&destination));
}

#[test]
fn of_eight_racing_create_only_puts_one_wins() {
    let runtime = Runtime::new().unwrap();
    let (destination, _folder, _trigger) = s3_destination(&runtime);
    let store = destination.0.login.open().unwrap();
    runtime.block_on(async {
        for round in 0..20 {
            let key = object_store::path::Path::from(format!("race/{round}"));
            let puts = (0..8).map(|writer| {
                let (store, key) = (store.clone(), key.clone());
                async move {
                    store.put_opts(&key, format!("{writer}").into(), object_store::PutMode::Create.into()).await.is_ok()
                }
            });
            let winners = futures::future::join_all(puts).await.into_iter().filter(|won| *won).count();
            assert_eq!(winners, 1, "round {round}");
        }
    });
}

struct OnSnowpipe {
    settings: SnowpipeSettings,
    tables: PathBuf,
}

impl Destination for OnSnowpipe {
    type Sink = SnowpipeSink;

    fn open(&self) -> SnowpipeSink {
        SnowpipeSink::new(self.settings.clone(), "suite", &prometheus::Registry::new()).unwrap()
    }

    async fn offsets(&self, source: &Source) -> Vec<u64> {
        let mut offsets = Vec::new();
        for channel in std::fs::read_dir(&self.tables).unwrap() {
            let folder = channel.unwrap().path();
            let state: ChannelState = serde_json::from_slice(&std::fs::read(folder.join(STATE_FILE)).unwrap()).unwrap();
            for number in 0..state.files {
                let file = std::fs::File::open(folder.join(data_file(number))).unwrap();
                let text = String::from_utf8(zstd::decode_all(file).unwrap()).unwrap();
                offsets.extend(offsets_of(&text, source));
            }
        }
        offsets
    }
}

/// An emulator for one test, with a user's settings.
fn snowpipe_destination(
    runtime: &Runtime,
    acknowledge_repeats: bool,
) -> (OnSnowpipe, tempfile::TempDir, flux_service::shutdown::Trigger) {
    install_tls();
    let folder = tempfile::tempdir().unwrap();
    let (trigger, shutdown) = Shutdown::manual();
    let emulator = SnowflakeSettings {
        folder: folder.path().into(),
        commit_delay: Duration::from_millis(200),
        acknowledge_repeats,
    };
    let emulator = runtime.block_on(snowflake::serve(loopback(), emulator, shutdown)).unwrap();
    let settings = settings(&[
        ("snowpipe.url", &emulator.url),
        ("snowpipe.account", snowflake::ACCOUNT),
        ("snowpipe.user", snowflake::USER),
        ("snowpipe.private_key_file", &emulator.private_key.to_string_lossy()),
        ("snowpipe.ca", &emulator.ca.to_string_lossy()),
        ("snowpipe.poll_interval", "100ms"),
    ]);
    let tables = emulator.tables.join("FLUX/PUBLIC/AMI_STREAMING_READINGS-STREAMING");
    (OnSnowpipe { settings: SnowpipeSettings::new(&settings, Table::readings()).unwrap(), tables }, folder, trigger)
}

#[test]
fn snowpipe_keeps_the_contract() {
    let runtime = Runtime::new().unwrap();
    let (destination, _folder, _trigger) = snowpipe_destination(&runtime, true);
    runtime.block_on(suite::all(&destination));
}

/// Whatever the service answers, and whether it acknowledges a repeat or calls it stale: every row once.
#[test]
fn snowpipe_survives_every_answer_of_the_service() {
    for acknowledge_repeats in [true, false] {
        let runtime = Runtime::new().unwrap();
        let (destination, _folder, _trigger) = snowpipe_destination(&runtime, acknowledge_repeats);
        runtime.block_on(async {
            let client = reqwest::Client::builder()
                .tls_certs_only(
                    reqwest::Certificate::from_pem_bundle(
                        &std::fs::read(destination.settings.ca.as_ref().unwrap()).unwrap(),
                    )
                    .unwrap(),
                )
                .build()
                .unwrap();
            let faults = destination.settings.url.join("/_emulator/faults").unwrap();
            let answers = ["503", "500", "429", "401", "409", "410", "stale", "html_404", "lost"];
            for (index, answer) in answers.into_iter().enumerate() {
                let fault = serde_json::json!([{ "on": "append", "answer": answer, "count": 2 }]);
                client.post(faults.clone()).json(&fault).send().await.unwrap().error_for_status().unwrap();
                let source = Source {
                    cluster_id: "c".into(),
                    topic: "t".into(),
                    topic_id: "i".into(),
                    partition: flux_schemas::source::Partition(index as i32),
                };
                write_through(&destination, &source, 30).await;
                let mut offsets = destination.offsets(&source).await;
                offsets.sort_unstable();
                assert_eq!(
                    offsets,
                    (0..30).collect::<Vec<_>>(),
                    "{answer}, repeats acknowledged: {acknowledge_repeats}"
                );
            }
        });
    }
}

/// What the runner does: the same again when unavailable, a new claim when fenced, until everything is durable.
async fn write_through(destination: &OnSnowpipe, source: &Source, upto: u64) {
    use flux_runner::contract::{Durable, Error};
    let sink = destination.open();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    'claims: while tokio::time::Instant::now() < deadline {
        let Ok(mut claim) = sink.claim(source).await else { continue };
        let from = claim.position.map_or(0, |position| position.0);
        if from >= upto {
            return;
        }
        suite::push(&mut claim.writer, from..upto);
        loop {
            match claim.writer.submit(Position(upto)).await {
                Ok(()) => break,
                Err(Error::Unavailable { .. }) => tokio::time::sleep(Duration::from_millis(50)).await,
                Err(Error::Fenced(_)) => continue 'claims,
                Err(error) => panic!("{error}"),
            }
        }
        let reached = claim.durable.wait_for(|durable| matches!(durable, Durable::At(at) if at.0 >= upto));
        tokio::time::timeout(Duration::from_secs(20), reached).await.expect("durable").expect("claimed");
    }
    panic!("not written in time");
}
