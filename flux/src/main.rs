//! `flux`: smart-meter readings from a seed to Kafka and three stores, and the proof that they are all there.

mod bucket;
mod cli;
mod config;
mod generate;
#[cfg(feature = "local")]
mod local;
mod plan;
mod preflight;
mod produce;
mod request;
mod roles;
mod runs;
mod scenario;
mod sinks;
mod status;
mod truth;
#[cfg(feature = "local")]
mod up;
mod verify;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::{Cli, Command};

/// Exit codes: 0 done, 1 a check failed or the work could not be done, 2 bad usage or configuration.
fn main() -> ExitCode {
    let cli = Cli::parse();
    // Several TLS libraries could provide cryptography; ours is ring, for every client of this process.
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("flux: a TLS provider is installed already");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("flux: cannot start: {error}");
            return ExitCode::from(1);
        }
    };
    let outcome = runtime.block_on(run(cli));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("flux: {error:#}");
            ExitCode::from(roles::exit_code(&error))
        }
    }
}

async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let settings = config::load(&cli)?;
    flux_service::logging::start(settings.get("log.filter").unwrap_or("info")).map_err(roles::Usage)?;
    match cli.command {
        Command::Produce(arguments) => produce::run(&settings, &arguments).await,
        Command::Generate(arguments) => generate::generate(&settings, &arguments).await,
        Command::Preview(arguments) => generate::preview(&settings, &arguments).await,
        Command::Plan(arguments) => plan::run(&settings, &arguments).await,
        Command::Sink(arguments) => sinks::run(&settings, arguments.kind).await,
        Command::Verify(arguments) => verify::run(&settings, &arguments).await,
        Command::Truth(arguments) => truth::run(&settings, &arguments).await,
        Command::Preflight(arguments) => preflight::run(&settings, &arguments).await,
        Command::Runs(arguments) => runs::run(&settings, &arguments).await,
        Command::Config(arguments) => config::run(&settings, &arguments),
        #[cfg(feature = "local")]
        Command::Local(arguments) => local::run(&settings, &arguments).await,
        #[cfg(feature = "local")]
        Command::Up(arguments) => up::run(&settings, &arguments).await,
    }
}
