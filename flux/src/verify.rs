//! `flux verify`.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use flux_service::{kafka::KafkaSettings, postgres::PostgresLogin, s3::S3Login, settings::Settings};
use flux_verify::{
    Request,
    place::{Place, Places},
    verify,
};

use crate::{cli::VerifyArguments, roles::Usage, status::bar};

pub(crate) async fn run(settings: &Settings, arguments: &VerifyArguments) -> anyhow::Result<ExitCode> {
    let all = arguments.at.iter().any(|name| name == "all");
    let at = if all {
        Place::ALL.to_vec()
    } else {
        arguments.at.iter().map(|name| name.parse()).collect::<Result<Vec<Place>, String>>().map_err(Usage)?
    };
    let request = Request {
        run: arguments.run.parse().map_err(Usage)?,
        at,
        before_interval: None,
        wait: Duration::from_secs(arguments.wait),
    };
    let places = places(settings).await?;
    let scanned = Arc::new(AtomicU64::new(0));
    let showing = {
        use std::io::IsTerminal;
        let scanned = scanned.clone();
        let bar = std::io::stderr().is_terminal().then(|| bar("verify", None));
        tokio::spawn(async move {
            while let Some(bar) = &bar {
                bar.set_position(scanned.load(Relaxed));
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        })
    };
    let verdict = verify(&places, &request, &scanned).await;
    showing.abort();
    let verdict = verdict?;
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&verdict)?);
    } else {
        println!("{verdict}");
    }
    Ok(if verdict.proven { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Where the places are, as far as the settings say.
pub(crate) async fn places(settings: &Settings) -> anyhow::Result<Places> {
    let database = settings.get("postgres.url").is_some() || settings.get("postgres.url_file").is_some();
    let name = settings.get("sink.name");
    let sink_names: BTreeMap<&'static str, String> =
        Place::ALL.map(|place| (place.as_str(), flux_runner::settings::qualified_name(place.as_str(), name))).into();
    Ok(Places {
        kafka: KafkaSettings::new(settings)?,
        runs_topic: settings.require("kafka.runs_topic")?.into(),
        postgres: database.then(|| PostgresLogin::new(settings)).transpose()?,
        s3: Some(S3Login::new(settings)?),
        snowpipe: settings.get("snowpipe.files").map(PathBuf::from),
        assets: flux_fleet::load(settings).await?,
        sink_names,
    })
}
