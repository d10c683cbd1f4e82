//! `flux local`: one stand-in alone.

use std::{process::ExitCode, time::Duration};

use flux_local::{
    broker,
    postgres::Postgres,
    registry, s3,
    snowflake::{self, SnowflakeSettings},
};
use flux_service::{settings::Settings, shutdown::Shutdown};

use crate::cli::{LocalArguments, StandIn};

pub(crate) async fn run(settings: &Settings, arguments: &LocalArguments) -> anyhow::Result<ExitCode> {
    let (_trigger, mut shutdown) = Shutdown::on_signal(settings.duration("shutdown.deadline")?);
    let (folder, listen) = (&arguments.data_dir, arguments.listen);
    match &arguments.stand_in {
        StandIn::Broker => {
            let address = broker::serve(listen, &folder.join("broker"), shutdown.clone()).await?;
            println!("{address}");
            shutdown.wait().await;
        }
        StandIn::Registry => {
            let address = registry::serve(listen, &folder.join("registry"), shutdown.clone()).await?;
            println!("http://{address}");
            shutdown.wait().await;
        }
        StandIn::S3 => {
            let bucket = settings.require("s3.bucket")?;
            let address = s3::serve(listen, &folder.join("s3"), bucket, shutdown.clone()).await?;
            println!("http://{address}  bucket {bucket}, access key {}, secret key {}", s3::ACCESS_KEY, s3::SECRET_KEY);
            shutdown.wait().await;
        }
        StandIn::Postgres => {
            let folder = folder.join("postgres");
            let server = tokio::task::spawn_blocking(move || Postgres::start(&folder, None)).await??;
            println!("{}", server.url);
            shutdown.wait().await;
        }
        StandIn::Snowflake { commit_delay, stale_repeats } => {
            let emulator = SnowflakeSettings {
                folder: folder.join("snowflake"),
                commit_delay: Duration::from_millis(*commit_delay),
                acknowledge_repeats: !stale_repeats,
            };
            let snowflake = snowflake::serve(listen, emulator, shutdown.clone()).await?;
            println!(
                "{}  authority {}, key {}",
                snowflake.url,
                snowflake.ca.display(),
                snowflake.private_key.display()
            );
            shutdown.wait().await;
        }
    }
    Ok(ExitCode::SUCCESS)
}
