//! What `up` starts in its own process.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::Duration,
};

use flux_local::{
    broker,
    postgres::Postgres,
    registry, s3,
    snowflake::{self, Snowflake, SnowflakeSettings},
};
use flux_schemas::{layout::table::pipe, row::Table};
use flux_service::{settings::Settings, shutdown::Shutdown};

/// Time between a 200 and the commit, as the service needs it at best.
const COMMIT_DELAY: Duration = Duration::from_millis(500);

/// The stand-ins, running.
pub(super) struct StandIns {
    brokers: String,
    broker_is_ours: bool,
    registry: SocketAddr,
    s3: SocketAddr,
    postgres: Postgres,
    snowflake: Snowflake,
    folder: PathBuf,
}

/// The port if it is free, else any.
fn preferred(port: u16) -> SocketAddr {
    let wanted = SocketAddr::from(([127, 0, 0, 1], port));
    if TcpListener::bind(wanted).is_ok() { wanted } else { SocketAddr::from(([127, 0, 0, 1], 0)) }
}

impl StandIns {
    pub(super) async fn start(folder: &Path, settings: &Settings, shutdown: &Shutdown) -> anyhow::Result<Self> {
        // Absolute: PostgreSQL runs elsewhere, and children get these paths.
        let folder = std::fs::canonicalize(folder)?;
        let postgres_folder = folder.join("postgres");
        let database_url = std::env::var("DATABASE_URL").ok();
        let postgres =
            tokio::task::spawn_blocking(move || Postgres::start(&postgres_folder, database_url.as_deref())).await??;
        let given = settings
            .resolved()
            .find(|(key, _, origin, _)| *key == "kafka.brokers" && origin != "default")
            .map(|(_, value, _, _)| value);
        let (brokers, broker_is_ours) = match given {
            Some(brokers) => (brokers, false),
            None => (broker::serve(preferred(9092), &folder.join("broker"), shutdown.clone()).await?.to_string(), true),
        };
        let registry = registry::serve(preferred(8081), &folder.join("registry"), shutdown.clone()).await?;
        let s3 =
            s3::serve(preferred(9000), &folder.join("s3"), settings.require("s3.bucket")?, shutdown.clone()).await?;
        let emulator = SnowflakeSettings {
            folder: folder.join("snowflake"),
            commit_delay: COMMIT_DELAY,
            acknowledge_repeats: true,
        };
        let snowflake = snowflake::serve(preferred(8443), emulator, shutdown.clone()).await?;
        Ok(Self { brokers, broker_is_ours, registry, s3, postgres, snowflake, folder })
    }

    /// The settings file of the children, and of the user who wants to look for himself.
    pub(super) fn config(&self, settings: &Settings) -> String {
        let table = |settings: &Settings, key: &str| settings.get(key).unwrap_or_default().to_string();
        let pipe = self
            .snowflake
            .tables
            .join(table(settings, "snowpipe.database").to_uppercase())
            .join(table(settings, "snowpipe.schema").to_uppercase())
            .join(settings.get("snowpipe.pipe").map_or_else(|| pipe(Table::readings()), str::to_uppercase));
        let mut lines: Vec<(String, String)> = vec![
            ("kafka.brokers".into(), self.brokers.clone()),
            ("registry.url".into(), format!("http://{}", self.registry)),
            ("registry.cache".into(), self.folder.join("registry-cache").display().to_string()),
            ("postgres.url".into(), self.postgres.url.clone()),
            ("s3.endpoint".into(), format!("http://{}", self.s3)),
            ("s3.access_key_id".into(), s3::ACCESS_KEY.into()),
            ("s3.secret_access_key".into(), s3::SECRET_KEY.into()),
            ("sink.linger".into(), "500ms".into()),
            ("snowpipe.url".into(), self.snowflake.url.clone()),
            ("snowpipe.account".into(), snowflake::ACCOUNT.into()),
            ("snowpipe.user".into(), snowflake::USER.into()),
            ("snowpipe.private_key_file".into(), self.snowflake.private_key.display().to_string()),
            ("snowpipe.ca".into(), self.snowflake.ca.display().to_string()),
            ("snowpipe.files".into(), pipe.display().to_string()),
            ("snowpipe.poll_interval".into(), "250ms".into()),
        ];
        // What the user set for this `up` holds for its children; values from files and flags, never secrets.
        for (key, value, origin, _) in settings.resolved() {
            let known = lines.iter().any(|(name, _)| name == key);
            if origin != "default" && origin != "not set" && !known && value != "***" {
                lines.push((key.into(), value));
            }
        }
        let mut text = String::from("# Written by flux up. Use it with: flux --config <this file> verify --run <id>\n");
        for (key, value) in lines {
            let quoted = toml::Value::String(value);
            text.push_str(&format!("{key} = {quoted}\n"));
        }
        text
    }

    pub(super) fn print(&self) {
        let kind = if self.broker_is_ours { "local broker" } else { "external" };
        println!("kafka      {}  ({kind})", self.brokers);
        println!("registry   http://{}", self.registry);
        println!("postgres   {}", self.postgres.url);
        println!("s3         http://{}  (access key {}, secret key {})", self.s3, s3::ACCESS_KEY, s3::SECRET_KEY);
        println!("snowpipe   {}  (emulator; tables in {})", self.snowflake.url, self.snowflake.tables.display());
    }
}
