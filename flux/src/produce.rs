//! `flux produce`.

use std::{process::ExitCode, sync::Arc};

use flux_producer::{
    establish, produce,
    progress::{self, Telemetry},
    settings::ProducerSettings,
};
use flux_schemas::run::RunId;
use flux_service::settings::Settings;

use crate::{
    cli::ProduceArguments,
    request::{random_bits, request},
    roles::{Role, Usage},
    status::{Reporter, Snapshot},
};

pub(crate) async fn run(settings: &Settings, arguments: &ProduceArguments) -> anyhow::Result<ExitCode> {
    let producer = ProducerSettings::new(settings)?;
    let (request, explicit) = request(&arguments.spec, flux_fleet::load(settings).await?)?;
    let run: RunId = match &arguments.run {
        Some(id) => id.parse().map_err(Usage)?,
        None => RunId(random_bits()),
    };
    let role = Role::start(settings)?;
    let established = establish(&producer, run, &request, &explicit).await?;
    let spec = established.run.spec();
    tracing::info!(run = %run, seed = spec.seed as u64, readings = ?established.run.readings(), "run");
    if let Some(wrong) = producer.own.iter().flatten().find(|shard| !(0..spec.shards).contains(shard)) {
        return Err(settings
            .wrong("producer.own", format!("the run has shards 0 to {}, not {wrong}", spec.shards - 1))
            .into());
    }
    let telemetry = Telemetry::new(&role.metrics, role.health.clone(), producer.rate)?;
    role.serve(settings, |token| progress::routes(telemetry.clone(), token)).await?;
    let owned = (0..spec.shards).filter(|shard| producer.owns(*shard)).count();
    let target = established.run.readings().filter(|_| producer.own.is_none());
    let snapshot = {
        let telemetry = telemetry.clone();
        move || Snapshot {
            rows: telemetry.rows(),
            target,
            lag: telemetry.lag_seconds(),
            health: telemetry.health.state(),
            caught_up: telemetry.shards_caught_up() == owned,
        }
    };
    let shown = Arc::new(snapshot);
    let reporting = {
        let shown = shown.clone();
        tokio::spawn(Reporter::new("produce", target).run(move || shown()))
    };
    let outcome = produce(&producer, &established, &telemetry, &role.shutdown).await;
    reporting.abort();
    Reporter::new("produce", target).show(&shown());
    role.trigger.request();
    let finished = outcome?;
    tracing::info!(rows = telemetry.rows(), finished, "producer ended");
    Ok(ExitCode::SUCCESS)
}
