//! `flux sink postgres | s3 | snowpipe`.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use flux_producer::settings::registry;
use flux_runner::{contract::Sink, runner, settings::RunnerSettings, telemetry::Telemetry};
use flux_service::{kafka::KafkaSettings, registry::Registry, settings::Settings};
use flux_sink_postgres::{PostgresSettings, PostgresSink};
use flux_sink_s3::{S3Settings, S3Sink};
use flux_sink_snowpipe::{SnowpipeSettings, SnowpipeSink};

use crate::{
    cli::SinkKind,
    roles::Role,
    status::{Reporter, Snapshot},
};

pub(crate) async fn run(settings: &Settings, kind: SinkKind) -> anyhow::Result<ExitCode> {
    let linger = match kind {
        SinkKind::Postgres | SinkKind::Snowpipe => Duration::from_secs(1),
        SinkKind::S3 => Duration::from_secs(10),
    };
    let runner = RunnerSettings::new(settings, kind.as_str(), linger)?;
    let (name, table) = (runner.name.clone(), runner.table);
    let role = Role::start(settings)?;
    match kind {
        SinkKind::Postgres => {
            let sink = PostgresSink::new(PostgresSettings::new(settings)?, table, &name);
            work(settings, kind, runner, role, sink).await
        }
        SinkKind::S3 => {
            work(settings, kind, runner, role, S3Sink::new(S3Settings::new(settings)?, table, &name)?).await
        }
        SinkKind::Snowpipe => {
            let sink = SnowpipeSink::new(SnowpipeSettings::new(settings, table)?, &name, &role.metrics)?;
            work(settings, kind, runner, role, sink).await
        }
    }
}

async fn work<S: Sink>(
    settings: &Settings,
    kind: SinkKind,
    runner: RunnerSettings,
    role: Role,
    sink: S,
) -> anyhow::Result<ExitCode> {
    let kafka = KafkaSettings::new(settings)?;
    let registry = Registry::new(&registry(settings)?)?;
    let telemetry = Telemetry::new(&role.metrics, role.health.clone(), &runner.name, runner.table.name)?;
    role.serve(settings, |_| axum::Router::new()).await?;
    let label = match runner.table.name {
        "readings" => format!("sink {}", kind.as_str()),
        records => format!("sink {} {records}", kind.as_str()),
    };
    let snapshot = {
        let telemetry = telemetry.clone();
        move || {
            let health = telemetry.health.state();
            Snapshot {
                rows: telemetry.rows(),
                target: None,
                lag: telemetry.lag() as f64,
                health,
                caught_up: health == flux_service::health::State::Idle,
            }
        }
    };
    let reporting = tokio::spawn(Reporter::new(&label, None).run(snapshot));
    let outcome =
        runner::run(&kafka, &registry, &runner, Arc::new(sink), telemetry.clone(), role.shutdown.clone()).await;
    reporting.abort();
    role.trigger.request();
    outcome.with_context(|| label)?;
    tracing::info!(rows = telemetry.rows(), dead_letters = telemetry.dead_letters(), "sink ended");
    Ok(ExitCode::SUCCESS)
}
