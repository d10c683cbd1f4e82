//! `flux preflight`: whether everything that a run needs is there, before it is started.
//!
//! Reads, and writes nothing that stays: in the bucket an object is made, read, refused a second time and removed.

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use flux_producer::settings::{ProducerSettings, registry};
use flux_runner::contract::Cause;
use flux_schemas::row::Table;
use flux_service::{
    kafka::identity::Identities,
    logging::chain,
    postgres::PostgresLogin,
    registry::{self, Registry},
    s3::S3Login,
    settings::Settings,
};
use flux_sink_snowpipe::{SnowpipeSettings, client::Client};
use object_store::{ObjectStoreExt, PutMode, PutOptions, path::Path};
use serde::Serialize;

use crate::{
    cli::PreflightArguments,
    request::{now, random_bits},
    roles::Usage,
};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(20);
/// PostgreSQL before this is not tested.
const POSTGRES_VERSION: i32 = 140_000;
/// Clocks may differ by so much, ms: rows carry due times, and tokens expire.
const SKEW_MS: i64 = 2_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
enum Status {
    Ready,
    Warn,
    NotReady,
}

/// What was looked at.
#[derive(Debug, Serialize)]
struct Check {
    place: &'static str,
    status: Status,
    found: String,
    fix: String,
}

fn ready(place: &'static str, found: impl Into<String>) -> Check {
    Check { place, status: Status::Ready, found: found.into(), fix: String::new() }
}

fn warn(place: &'static str, found: impl Into<String>, fix: &str) -> Check {
    Check { place, status: Status::Warn, found: found.into(), fix: fix.into() }
}

fn not_ready(place: &'static str, found: impl Into<String>, fix: &str) -> Check {
    Check { place, status: Status::NotReady, found: found.into(), fix: fix.into() }
}

const PLACES: [&str; 5] = ["kafka", "registry", "postgres", "s3", "snowpipe"];

pub(crate) async fn run(settings: &Settings, arguments: &PreflightArguments) -> anyhow::Result<ExitCode> {
    let all = arguments.at.iter().any(|name| name == "all");
    if let Some(unknown) = arguments.at.iter().find(|name| *name != "all" && !PLACES.contains(&name.as_str())) {
        return Err(Usage(format!("--at {unknown}: use {} or all", PLACES.join(", "))).into());
    }
    let mut checks = Vec::new();
    for place in PLACES.into_iter().filter(|place| all || arguments.at.iter().any(|name| name == place)) {
        match place {
            "kafka" => kafka(settings, &mut checks).await?,
            "registry" => registry_answers(settings, &mut checks).await?,
            "postgres" => postgres(settings, all, &mut checks).await?,
            "s3" => s3(settings, &mut checks).await?,
            _ => snowpipe(settings, all, &mut checks).await?,
        }
    }
    let worst = checks.iter().map(|check| check.status).max().unwrap_or(Status::Ready);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&checks)?);
    } else {
        for check in &checks {
            let status = match check.status {
                Status::Ready => "READY",
                Status::Warn => "WARN",
                Status::NotReady => "NOT_READY",
            };
            let fix = if check.fix.is_empty() { String::new() } else { format!("; {}", check.fix) };
            println!("{status:<10} {:<9} {}{fix}", check.place, check.found);
        }
    }
    Ok(ExitCode::from(u8::from(worst == Status::NotReady)))
}

async fn kafka(settings: &Settings, checks: &mut Vec<Check>) -> anyhow::Result<()> {
    let producer = ProducerSettings::new(settings)?;
    let brokers = producer.kafka.brokers.clone();
    let wanted = [(producer.readings_topic.clone(), producer.partitions), (producer.runs_topic.clone(), 1)];
    let found = tokio::task::spawn_blocking(move || {
        let identities = Identities::new(&producer.kafka)?;
        wanted
            .map(|(name, partitions)| identities.topic(&name, PATIENCE).map(|found| (name, partitions, found)))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
    })
    .await?;
    match found {
        Err(error) => checks.push(not_ready(
            "kafka",
            format!("{brokers}: {}", chain(&error)),
            "check kafka.brokers, the network, and kafka.security",
        )),
        Ok(topics) => {
            checks.push(ready("kafka", format!("{brokers} answers")));
            for (name, partitions, topic) in topics {
                checks.push(match topic {
                    None => warn("kafka", format!("topic {name} is not there yet"), "the producer makes it, if it may"),
                    Some(topic) if topic.partitions != partitions => not_ready(
                        "kafka",
                        format!("topic {name} has {} partitions, {partitions} are asked for", topic.partitions),
                        "set kafka.partitions to what there is",
                    ),
                    Some(_) => ready("kafka", format!("topic {name} has {partitions} partitions")),
                });
            }
        }
    }
    Ok(())
}

async fn registry_answers(settings: &Settings, checks: &mut Vec<Check>) -> anyhow::Result<()> {
    let settings = registry(settings)?;
    let url = settings.url.clone();
    checks.push(match Registry::new(&settings)?.schema(1).await {
        Ok(_) | Err(registry::Error::Unknown { .. }) => ready("registry", format!("{url} answers")),
        Err(error) => not_ready("registry", chain(&error), "check registry.url and registry.credentials"),
    });
    Ok(())
}

async fn postgres(settings: &Settings, optional: bool, checks: &mut Vec<Check>) -> anyhow::Result<()> {
    let given = settings.get("postgres.url").is_some() || settings.get("postgres.url_file").is_some();
    if optional && !given {
        checks.push(warn("postgres", "postgres.url_file is not set", "set it to use the sink"));
        return Ok(());
    }
    let client = match PostgresLogin::new(settings)?.connect().await {
        Ok(client) => client,
        Err(error) => {
            checks.push(not_ready("postgres", chain(&error), "check postgres.url, the password and pg_hba.conf"));
            return Ok(());
        }
    };
    let asked = now();
    let row = client
        .query_one(
            "select current_setting('server_version_num')::int, has_schema_privilege(current_schema(), 'CREATE'),
                    coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false),
                    (extract(epoch from clock_timestamp()) * 1000)::bigint, inet_server_addr() is null or
                    host(inet_server_addr()) in ('127.0.0.1', '::1')",
            &[],
        )
        .await?;
    let (version, may_create, encrypted, theirs, local): (i32, bool, bool, i64, bool) =
        (row.get(0), row.get(1), row.get(2), row.get(3), row.get(4));
    checks.push(if version < POSTGRES_VERSION {
        warn("postgres", format!("version {}", version / 10_000), "14 and newer are tested")
    } else {
        ready("postgres", format!("version {}", version / 10_000))
    });
    checks.push(if may_create {
        ready("postgres", "the user may create tables")
    } else {
        not_ready("postgres", "the user may not create tables", "grant create on schema public to it")
    });
    if !encrypted && !local {
        checks.push(warn("postgres", "the connection is not encrypted", "add sslmode=require to postgres.url"));
    }
    let skew = theirs - (asked.0 + now().0) / 2;
    checks.push(if skew.abs() > SKEW_MS {
        warn(
            "postgres",
            format!("its clock is {:.1} s from ours", skew as f64 / 1000.0),
            "synchronise the clocks (NTP)",
        )
    } else {
        ready("postgres", "clocks agree")
    });
    Ok(())
}

async fn s3(settings: &Settings, checks: &mut Vec<Check>) -> anyhow::Result<()> {
    let login = S3Login::new(settings)?;
    let (bucket, started) = (login.bucket.clone(), Instant::now());
    let key = Path::from(format!("_flux/preflight/{:016x}", random_bits()));
    let tried = async {
        let store = login.open()?;
        let create = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        store.put_opts(&key, "first".into(), create()).await?;
        let again = store.put_opts(&key, "second".into(), create()).await;
        let body = store.get(&key).await?.bytes().await?;
        store.delete(&key).await?;
        Ok::<_, object_store::Error>((again.is_err(), body))
    };
    checks.push(match tokio::time::timeout(PATIENCE, tried).await {
        Err(_) => not_ready("s3", format!("{bucket}: no answer in {PATIENCE:?}"), "check s3.endpoint and the network"),
        Ok(Err(error)) => not_ready(
            "s3",
            format!("{bucket}: {}", chain(&error)),
            "check s3.bucket, its region and keys; grant s3:ListBucket, s3:GetObject, s3:PutObject, s3:DeleteObject",
        ),
        Ok(Ok((true, body))) if body == "first" => ready(
            "s3",
            format!("{bucket}: made, read, refused twice and removed in {} ms", started.elapsed().as_millis()),
        ),
        Ok(Ok(_)) => not_ready(
            "s3",
            format!("{bucket}: a second create-only PUT was not refused"),
            "this store does not keep If-None-Match, which the sink's plans stand on: use another",
        ),
    });
    Ok(())
}

async fn snowpipe(settings: &Settings, optional: bool, checks: &mut Vec<Check>) -> anyhow::Result<()> {
    if optional && settings.get("snowpipe.url").is_none() {
        checks.push(warn("snowpipe", "snowpipe.url is not set", "set it to use the sink"));
        return Ok(());
    }
    let snowpipe = SnowpipeSettings::new(settings, Table::readings())?;
    let pipe = format!("{}.{}.{}", snowpipe.database, snowpipe.schema, snowpipe.pipe);
    let tried = async {
        let client = Client::new(snowpipe).map_err(Cause::from)?;
        client.status(&["flux_preflight".to_string()]).await.map_err(Cause::from)
    };
    checks.push(match tokio::time::timeout(PATIENCE, tried).await {
        Err(_) => not_ready("snowpipe", format!("no answer in {PATIENCE:?}"), "check snowpipe.url and the network"),
        Ok(Err(error)) => not_ready(
            "snowpipe",
            format!("{pipe}: {}", chain(&*error)),
            "check account, user, key and role, the network policy, and that the table exists with INSERT granted",
        ),
        Ok(Ok(_)) => ready("snowpipe", format!("{pipe} answers")),
    });
    Ok(())
}
