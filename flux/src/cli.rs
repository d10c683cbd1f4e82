//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Smart-meter readings from a seed to Kafka and three stores, each exactly once, and the proof of it.
///
/// Settings come from a flag, else the environment (FLUX_POSTGRES__URL is postgres.url), else the file, else the
/// default; `flux config check` shows each with its origin. Exit codes: 0 done, 1 a check failed or the work could not
/// be done, 2 bad usage or configuration.
#[derive(Debug, Parser)]
#[command(name = "flux", version, max_term_width = 110)]
pub(crate) struct Cli {
    /// Settings file (TOML).
    #[arg(long, global = true, value_name = "FILE", env = "FLUX_CONFIG_FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Sets one key, such as sink.linger=500ms; may be repeated.
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Kafka bootstrap servers, host:port, comma separated [kafka.brokers].
    #[arg(long, global = true, value_name = "LIST")]
    pub(crate) brokers: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole pipeline on this machine: stand-ins, producer, three sinks, verdict.
    #[cfg(feature = "local")]
    Up(UpArguments),
    /// Emits a run to Kafka; started again with the same --run, goes on where the ledger says.
    Produce(ProduceArguments),
    /// Writes readings straight to files, a file for each UTC day; started again, goes on with the days that are missing.
    Generate(GenerateArguments),
    /// Shows the first readings that a run would emit, and touches nothing.
    Preview(PreviewArguments),
    /// Says what a run will take: rows, bytes at each stage, files, credits and time, from a sample made here and now.
    Plan(PlanArguments),
    /// Moves readings from Kafka to one destination.
    Sink(SinkArguments),
    /// Recomputes a run from its seed and counts every row of every place against it.
    Verify(VerifyArguments),
    /// Lists what was injected into a run, with its cause: lost and estimated readings, outages. NDJSON, from the seed.
    Truth(TruthArguments),
    /// Whether everything that a run needs is there: brokers, topics, registry, bucket, databases, clocks.
    Preflight(PreflightArguments),
    /// Lists the runs in the ledger.
    Runs(RunsArguments),
    /// Shows the configuration.
    Config(ConfigArguments),
    /// Starts one stand-in alone.
    #[cfg(feature = "local")]
    Local(LocalArguments),
}

/// What a new run is.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RunArguments {
    /// quick-demo (67,200 readings), se-demo (8,640,000), utility-day (57,302,976), enterprise (86,400,000) or
    /// ml-training (350,400,000).
    #[arg(long, conflicts_with_all = ["meters", "days"])]
    pub(crate) preset: Option<String>,
    /// Meters, 10 to 600000 [default: 1000].
    #[arg(long)]
    pub(crate) meters: Option<u32>,
    /// Days of readings [default: 7].
    #[arg(long)]
    pub(crate) days: Option<u32>,
    /// Minutes between readings: 5, 15, 30 or 60 [default: 15].
    #[arg(long, value_name = "MINUTES")]
    pub(crate) interval: Option<String>,
    /// First day, such as 2026-01-01, or moment, UTC [default: so that the days end today at 00:00, or now with --live].
    #[arg(long, value_name = "DAY")]
    pub(crate) start: Option<String>,
    /// Goes on after the last day, live, until it is stopped.
    #[arg(long)]
    pub(crate) live: bool,
    /// documented (published ranges as hard bounds) or utility (behaves like real meters) [default: documented].
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// uniform (all meters at the interval's end), staggered (each at its own offset), partial (98 % of the readings) or
    /// degraded (85 %, collectors missing, out of order) [default: uniform].
    #[arg(long)]
    pub(crate) pattern: Option<String>,
    /// per_reading (the documented ranges, 3.5 times a real home) or per_hour (978 kWh a month) [default: per_reading].
    #[arg(long)]
    pub(crate) base_unit: Option<String>,
    /// Seed; the same seed gives the same readings [default: drawn by chance, and printed].
    #[arg(long)]
    pub(crate) seed: Option<u64>,
    /// Service area: TEXAS_GULF_COAST, CALIFORNIA_COASTAL, NORTHEAST_CORRIDOR, MIDWEST_GREAT_LAKES, SOUTHEAST_SUNBELT or
    /// PACIFIC_NORTHWEST [default: TEXAS_GULF_COAST].
    #[arg(long)]
    pub(crate) area: Option<String>,
    /// Percent of homes, shops and plants [default: those of the area, 70/20/10].
    #[arg(long, value_name = "H/S/P")]
    pub(crate) segments: Option<String>,
    /// What befalls the grid: normal, summer-storm, hurricane, comms-outage, cascade, or a TOML file of your own.
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) scenario: Option<String>,
    /// on: missed readings arrive later or are estimated; off: they are lost [default: off].
    #[arg(long, value_name = "ON|OFF")]
    pub(crate) backfill: Option<String>,
    /// realistic: some readings are sent twice, with the same READING_ID [default: off].
    #[arg(long, value_name = "OFF|REALISTIC")]
    pub(crate) duplicates: Option<String>,
    /// inline: readings without power come on schedule, marked; after_restore: when the power is back [default: inline].
    #[arg(long, value_name = "INLINE|AFTER_RESTORE")]
    pub(crate) outage_rows: Option<String>,
    /// on: one outage of a transformer and one of a circuit in the first days [default: on with --preset, else off].
    #[arg(long, value_name = "ON|OFF")]
    pub(crate) demo_events: Option<String>,
    /// Share of the readings outside 114 to 126 V, for hours or days, 0 to 0.02 [default: 0.002].
    #[arg(long, value_name = "SHARE")]
    pub(crate) voltage_anomaly_rate: Option<f64>,
    /// Readings with all 37 columns: power factor, register, arrival, revision and more.
    #[arg(long)]
    pub(crate) wide: bool,
    /// Meter events and the assets of the grid too, on topics of their own.
    #[arg(long)]
    pub(crate) events: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ProduceArguments {
    /// Run id, 16 hexadecimal digits: a run that exists goes on, another begins [default: a new one].
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
    #[command(flatten)]
    pub(crate) spec: RunArguments,
    /// Rows/s of this process, 0 for unlimited [producer.rate].
    #[arg(long)]
    pub(crate) rate: Option<String>,
    /// How fast the clock runs; 60 plays an hour in a minute [producer.speed].
    #[arg(long)]
    pub(crate) speed: Option<String>,
    /// Shards that this process emits, such as 0,2 [producer.own].
    #[arg(long, value_name = "SHARDS")]
    pub(crate) own: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct GenerateArguments {
    #[command(flatten)]
    pub(crate) spec: RunArguments,
    /// Folder for the files, or s3://BUCKET/PREFIX (with the s3.* settings).
    #[arg(long, value_name = "DIR|s3://")]
    pub(crate) out: String,
    /// parquet (zstd), csv, ndjson.gz, avro, green-button or smt-csv (what customers download).
    #[arg(long, default_value = "parquet")]
    pub(crate) format: String,
    /// Threads; they change the speed, not the files.
    #[arg(long, default_value_t = 2)]
    pub(crate) threads: usize,
}

#[derive(Debug, Args)]
pub(crate) struct TruthArguments {
    /// Run id, 16 hexadecimal digits; a run that is still going is listed up to the ledger.
    #[arg(long, value_name = "ID")]
    pub(crate) run: String,
}

#[derive(Debug, Args)]
pub(crate) struct PreviewArguments {
    #[command(flatten)]
    pub(crate) spec: RunArguments,
    /// Readings to show.
    #[arg(long, default_value_t = 10)]
    pub(crate) rows: usize,
    /// NDJSON instead of a table.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PlanArguments {
    #[command(flatten)]
    pub(crate) spec: RunArguments,
    /// Rows/s that the run will be held to [producer.rate].
    #[arg(long)]
    pub(crate) rate: Option<String>,
    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct SinkArguments {
    /// Which destination.
    #[arg(value_enum)]
    pub(crate) kind: SinkKind,
    /// What it moves: readings, events or assets [sink.records].
    #[arg(long)]
    pub(crate) records: Option<String>,
}

impl RunArguments {
    /// The flags that [`crate::request`] reads beside size, time and seed, as they were given.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let rate = self.voltage_anomaly_rate.map(|rate| rate.to_string());
        for (flag, value) in [
            ("--model", &self.model),
            ("--pattern", &self.pattern),
            ("--base-unit", &self.base_unit),
            ("--area", &self.area),
            ("--segments", &self.segments),
            ("--scenario", &self.scenario),
            ("--backfill", &self.backfill),
            ("--duplicates", &self.duplicates),
            ("--outage-rows", &self.outage_rows),
            ("--demo-events", &self.demo_events),
            ("--voltage-anomaly-rate", &rate),
        ] {
            words.extend(value.iter().flat_map(|value| [flag.to_string(), value.clone()]));
        }
        for (flag, given) in [("--wide", self.wide), ("--events", self.events)] {
            words.extend(given.then(|| flag.to_string()));
        }
        words
    }
}

/// The destinations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SinkKind {
    /// PostgreSQL: ami_interval_readings and ami_realtime.
    Postgres,
    /// Bronze files in S3.
    S3,
    /// Snowpipe Streaming.
    Snowpipe,
}

impl SinkKind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::S3 => "s3",
            Self::Snowpipe => "snowpipe",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct VerifyArguments {
    /// Run id.
    #[arg(long, value_name = "ID")]
    pub(crate) run: String,
    /// kafka, postgres, s3, snowpipe, comma separated, or all.
    #[arg(long, default_value = "all", value_delimiter = ',')]
    pub(crate) at: Vec<String>,
    /// Longest wait for a place that is behind the ledger, such as 60s.
    #[arg(long, default_value = "60", value_name = "SECONDS")]
    pub(crate) wait: u64,
    /// Prints the verdict as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct PreflightArguments {
    /// kafka, registry, postgres, s3, snowpipe, comma separated, or all.
    #[arg(long, default_value = "all", value_delimiter = ',')]
    pub(crate) at: Vec<String>,
    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct RunsArguments {
    /// Prints JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ConfigArguments {
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Prints every key with its value and origin; exit code 2 when one is wrong.
    Check,
}

#[cfg(feature = "local")]
#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// Stops after the verdict, with its exit code; the run then ends at midnight, UTC, of today.
    #[arg(long)]
    pub(crate) once: bool,
    /// Stops this many seconds after the verdict.
    #[arg(long = "for", value_name = "SECONDS", conflicts_with = "once")]
    pub(crate) seconds: Option<u64>,
    /// Forgets the state of earlier runs and starts over.
    #[arg(long)]
    pub(crate) fresh: bool,
    /// Folder of all state.
    #[arg(long, default_value = ".flux", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    #[command(flatten)]
    pub(crate) spec: RunArguments,
    /// Rows/s, 0 for unlimited.
    #[arg(long)]
    pub(crate) rate: Option<String>,
}

#[cfg(feature = "local")]
#[derive(Debug, Args)]
pub(crate) struct LocalArguments {
    #[command(subcommand)]
    pub(crate) stand_in: StandIn,
    /// Folder of its state.
    #[arg(long, global = true, default_value = ".flux", value_name = "DIR")]
    pub(crate) data_dir: PathBuf,
    /// Address to listen on; port 0 takes any.
    #[arg(long, global = true, default_value = "127.0.0.1:0", value_name = "HOST:PORT")]
    pub(crate) listen: std::net::SocketAddr,
}

#[cfg(feature = "local")]
#[derive(Debug, Subcommand)]
pub(crate) enum StandIn {
    /// Kafka protocol, single node. Production means Apache Kafka.
    Broker,
    /// Schema registry with Confluent's REST API.
    Registry,
    /// S3 API on a folder.
    S3,
    /// The machine's own PostgreSQL in a private folder.
    Postgres,
    /// Snowpipe Streaming over TLS with a private authority.
    Snowflake {
        /// Milliseconds between accepting rows and committing them.
        #[arg(long, default_value_t = 1000)]
        commit_delay: u64,
        /// Answers a repeated continuation token as stale instead of acknowledging it again.
        #[arg(long)]
        stale_repeats: bool,
    },
}
