//! Settings of the producer role.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use flux_service::{
    kafka::KafkaSettings,
    registry::RegistrySettings,
    settings::{Error, Key, Settings},
};

/// Keys of this role, beside those of Kafka.
pub const KEYS: &[Key] = &[
    Key { name: "kafka.readings_topic", default: "ami.readings", help: "topic of the readings", secret: false },
    Key {
        name: "kafka.events_topic",
        default: "ami.events",
        help: "topic of meter events, of runs with --events",
        secret: false,
    },
    Key {
        name: "kafka.assets_topic",
        default: "ami.topology",
        help: "topic of meters and the grid above them, of runs with --events; compacted",
        secret: false,
    },
    Key {
        name: "kafka.runs_topic",
        default: "ami.runs",
        help: "topic of the ledger: run specs and progress, compacted",
        secret: false,
    },
    Key { name: "kafka.partitions", default: "4", help: "partitions of the readings topic, 1 to 1024", secret: false },
    Key {
        name: "kafka.replication",
        default: "-1",
        help: "replication factor of new topics; -1 is the broker's default",
        secret: false,
    },
    Key {
        name: "registry.url",
        default: "http://127.0.0.1:8081",
        help: "schema registry with Confluent's REST API",
        secret: false,
    },
    Key {
        name: "registry.credentials",
        default: "",
        help: "user:password; prefer registry.credentials_file",
        secret: true,
    },
    Key { name: "registry.credentials_file", default: "", help: "file that holds user:password", secret: false },
    Key {
        name: "registry.cache",
        default: ".flux/registry-cache",
        help: "directory where known schemas survive a registry outage",
        secret: false,
    },
    Key {
        name: "producer.shards",
        default: "0",
        help: "shards of a new run, 1 to the partition count; 0 is min(partitions, 4)",
        secret: false,
    },
    Key {
        name: "producer.own",
        default: "",
        help: "shards that this process emits, such as 0,2; all when not set",
        secret: false,
    },
    Key {
        name: "producer.rate",
        default: "0",
        help: "rows/s of this process, held within 2 % over 10 s; 0 is unlimited",
        secret: false,
    },
    Key {
        name: "producer.speed",
        default: "1",
        help: "how fast the clock runs; 60 plays an hour in a minute, from the first row not yet sent",
        secret: false,
    },
    Key {
        name: "producer.overload",
        default: "lag",
        help: "live rows that the rate limit or Kafka cannot keep up with: lag keeps all, late; drop_oldest and shed (whole intervals) drop rows that are overdue by producer.overload_lag, and say so in the ledger",
        secret: false,
    },
    Key {
        name: "producer.overload_lag",
        default: "60s",
        help: "lag from which drop_oldest and shed drop rows, 1s to 1h",
        secret: false,
    },
    Key {
        name: "producer.transaction_rows",
        default: "50000",
        help: "rows after which a transaction is committed",
        secret: false,
    },
    Key {
        name: "producer.transaction_interval",
        default: "500ms",
        help: "age at which a transaction is committed",
        secret: false,
    },
    Key {
        name: "producer.transaction_timeout",
        default: "15s",
        help: "after this a frozen producer's transaction is aborted by the broker; longer than any commit",
        secret: false,
    },
];

/// What happens to live rows that cannot be kept up with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overload {
    /// They are emitted, late.
    Lag,
    /// The oldest are dropped.
    DropOldest,
    /// Whole intervals are dropped.
    Shed,
}

/// Settings of the producer role, checked.
#[derive(Debug, Clone)]
pub struct ProducerSettings {
    /// Events topic.
    pub events_topic: String,
    /// Assets topic.
    pub assets_topic: String,
    /// What happens to rows that cannot be kept up with.
    pub overload: Overload,
    /// Lag from which rows are dropped.
    pub overload_lag: Duration,
    /// Login.
    pub kafka: KafkaSettings,
    /// Registry.
    pub registry: RegistrySettings,
    /// Readings topic.
    pub readings_topic: String,
    /// Ledger topic.
    pub runs_topic: String,
    /// Partitions of the readings topic.
    pub partitions: i32,
    /// Replication factor of new topics, -1 for the broker's default.
    pub replication: i32,
    /// Shards of a new run.
    pub shards: i32,
    /// Shards of this process; `None` is all.
    pub own: Option<BTreeSet<i32>>,
    /// Rows/s; 0 is unlimited.
    pub rate: u32,
    /// Clock speed.
    pub speed: f64,
    /// Rows per transaction.
    pub transaction_rows: u64,
    /// Age of a transaction.
    pub transaction_interval: Duration,
    /// The broker's patience with a transaction.
    pub transaction_timeout: Duration,
}

impl ProducerSettings {
    /// From the keys.
    ///
    /// # Errors
    /// [`Error`] names the key, the value and the rule.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let partitions: i32 = settings.parse("kafka.partitions", "use 1 to 1024")?;
        if !(1..=1024).contains(&partitions) {
            return Err(settings.wrong("kafka.partitions", "use 1 to 1024"));
        }
        let rule = format!("use 1 to the partition count, {partitions}; 0 chooses");
        let shards: i32 = settings.parse("producer.shards", &rule)?;
        if !(0..=partitions).contains(&shards) {
            return Err(settings.wrong("producer.shards", rule));
        }
        let own = match settings.get("producer.own") {
            None => None,
            Some(list) => Some(
                list.split(',')
                    .map(|shard| shard.trim().parse::<i32>())
                    .collect::<Result<BTreeSet<_>, _>>()
                    .map_err(|_| settings.wrong("producer.own", "use shard numbers such as 0,2"))?,
            ),
        };
        let speed: f64 = settings.parse("producer.speed", "use a factor from 1 to 100000")?;
        if !(1.0..=100_000.0).contains(&speed) {
            return Err(settings.wrong("producer.speed", "use a factor from 1 to 100000"));
        }
        let overload = match settings.require("producer.overload")? {
            "lag" => Overload::Lag,
            "drop_oldest" => Overload::DropOldest,
            "shed" => Overload::Shed,
            _ => return Err(settings.wrong("producer.overload", "use lag, drop_oldest or shed")),
        };
        let overload_lag = settings.duration("producer.overload_lag")?;
        if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&overload_lag) {
            return Err(settings.wrong("producer.overload_lag", "use 1s to 1h"));
        }
        let transaction_rows = settings.parse("producer.transaction_rows", "use 1 to 1000000")?;
        let transaction_timeout = settings.duration("producer.transaction_timeout")?;
        if !(Duration::from_secs(2)..=Duration::from_secs(900)).contains(&transaction_timeout) {
            return Err(settings.wrong("producer.transaction_timeout", "use 2s to 15m"));
        }
        Ok(Self {
            kafka: KafkaSettings::new(settings)?,
            registry: registry(settings)?,
            readings_topic: settings.require("kafka.readings_topic")?.into(),
            events_topic: settings.require("kafka.events_topic")?.into(),
            assets_topic: settings.require("kafka.assets_topic")?.into(),
            overload,
            overload_lag,
            runs_topic: settings.require("kafka.runs_topic")?.into(),
            partitions,
            replication: settings.parse("kafka.replication", "use -1 or a number of brokers")?,
            shards: if shards == 0 { partitions.min(4) } else { shards },
            own,
            rate: settings.parse("producer.rate", "use rows per second, 0 to 100000000")?,
            speed,
            transaction_rows,
            transaction_interval: settings.duration("producer.transaction_interval")?,
            transaction_timeout,
        })
    }

    /// Whether this process emits the shard.
    pub fn owns(&self, shard: i32) -> bool {
        self.own.as_ref().is_none_or(|own| own.contains(&shard))
    }
}

/// The registry's keys.
///
/// # Errors
/// [`Error`] names the key.
pub fn registry(settings: &Settings) -> Result<RegistrySettings, Error> {
    Ok(RegistrySettings {
        url: settings.require("registry.url")?.trim_end_matches('/').into(),
        credentials: settings.secret("registry.credentials", "registry.credentials_file")?,
        cache: PathBuf::from(settings.require("registry.cache")?),
    })
}
