//! All keys of all roles in one place, and `flux config check`.

use std::process::ExitCode;

use flux_schemas::row::Table;
use flux_service::settings::{Error, Key, Origin, Settings};

use crate::{
    cli::{Cli, Command, ConfigAction, ConfigArguments},
    roles::{HTTP_KEYS, Usage},
};

/// Keys that belong to the process, not to a role.
const PROCESS_KEYS: &[Key] = &[
    Key { name: "log.filter", default: "info", help: "level, or filter such as info,flux_runner=debug", secret: false },
    Key {
        name: "snowpipe.files",
        default: "",
        help: "verify: folder of the local emulator's table files for the pipe",
        secret: false,
    },
];

/// Every key.
pub(crate) fn keys() -> Vec<Key> {
    [
        PROCESS_KEYS,
        HTTP_KEYS,
        flux_service::kafka::KEYS,
        flux_service::postgres::KEYS,
        flux_service::s3::KEYS,
        flux_fleet::KEYS,
        flux_producer::settings::KEYS,
        flux_runner::settings::KEYS,
        flux_sink_postgres::settings::KEYS,
        flux_sink_s3::settings::KEYS,
        flux_sink_snowpipe::settings::KEYS,
    ]
    .concat()
}

/// Flag, else environment, else file, else default.
pub(crate) fn load(cli: &Cli) -> anyhow::Result<Settings> {
    let mut settings = Settings::new(&keys());
    if let Some(path) = &cli.config {
        settings.file(path)?;
    }
    settings.environment(std::env::vars().filter(|(name, _)| name != "FLUX_CONFIG_FILE"))?;
    for pair in &cli.set {
        let (key, value) =
            pair.split_once('=').ok_or_else(|| Usage(format!("--set {pair:?} has no =; write --set key=value")))?;
        settings.set(key, value, Origin::Flag("--set".into()))?;
    }
    let mut flag = |key: &str, flag: &str, value: &Option<String>| -> Result<(), Error> {
        value.as_ref().map_or(Ok(()), |value| settings.set(key, value, Origin::Flag(flag.into())))
    };
    flag("kafka.brokers", "--brokers", &cli.brokers)?;
    if let Command::Produce(arguments) = &cli.command {
        flag("producer.rate", "--rate", &arguments.rate)?;
        flag("producer.speed", "--speed", &arguments.speed)?;
        flag("producer.own", "--own", &arguments.own)?;
    }
    if let Command::Plan(arguments) = &cli.command {
        flag("producer.rate", "--rate", &arguments.rate)?;
    }
    if let Command::Sink(arguments) = &cli.command {
        flag("sink.records", "--records", &arguments.records)?;
    }
    Ok(settings)
}

pub(crate) fn run(settings: &Settings, arguments: &ConfigArguments) -> anyhow::Result<ExitCode> {
    let ConfigAction::Check = arguments.action;
    for (key, value, origin, help) in settings.resolved() {
        println!("{key} = {value:?}  # {origin}; {help}");
    }
    // The roles whose settings were given at all must be right.
    flux_producer::settings::ProducerSettings::new(settings)?;
    flux_runner::settings::RunnerSettings::new(settings, "check", std::time::Duration::from_secs(1))?;
    if settings.get("postgres.url").is_some() || settings.get("postgres.url_file").is_some() {
        flux_sink_postgres::PostgresSettings::new(settings)?;
    }
    flux_sink_s3::S3Settings::new(settings)?;
    if settings.get("snowpipe.url").is_some() {
        flux_sink_snowpipe::SnowpipeSettings::new(settings, Table::readings())?;
    }
    Ok(ExitCode::SUCCESS)
}
