//! Settings that every sink role shares.

use std::time::Duration;

use flux_schemas::row::Table;
use flux_service::settings::{Error, Key, Settings};

/// Keys of every sink role, beside those of Kafka and the registry.
pub const KEYS: &[Key] = &[
    Key {
        name: "sink.name",
        default: "",
        help: "tells sinks of one kind apart: group, positions and dead-letter topic are called <kind>-<name>, or <kind> when not set; letters, digits, - and _",
        secret: false,
    },
    Key {
        name: "sink.records",
        default: "readings",
        help: "what this sink moves: readings, events or assets, each from its own topic to its own table",
        secret: false,
    },
    Key {
        name: "sink.linger",
        default: "",
        help: "longest a row waits in an open unit before it is submitted; when not set 1s, and 10s for s3, where every unit makes files",
        secret: false,
    },
    Key {
        name: "sink.memory",
        default: "64MiB",
        help: "ceiling for rows held between Kafka and durable; the process was measured at about 70 MiB besides",
        secret: false,
    },
    Key {
        name: "sink.session_timeout",
        default: "10s",
        help: "after this Kafka gives a silent process's partitions to another",
        secret: false,
    },
    Key {
        name: "sink.drain",
        default: "20s",
        help: "after SIGTERM: longest wait for submitted rows to become durable",
        secret: false,
    },
    Key {
        name: "sink.accept_position",
        default: "false",
        help: "true: begin at the log's start although the destination knows no position and Kafka's mirror or log start is above 0",
        secret: false,
    },
];

/// Settings of a sink role, checked.
#[derive(Debug, Clone)]
pub struct RunnerSettings {
    /// Name of the sink.
    pub name: String,
    /// What it moves.
    pub table: &'static Table,
    /// Topic to read.
    pub topic: String,
    /// Longest wait in an open unit.
    pub linger: Duration,
    /// Ceiling, bytes.
    pub memory: usize,
    /// Group session timeout.
    pub session_timeout: Duration,
    /// Wait for durable at the end.
    pub drain: Duration,
    /// Begin although the position is missing where it should not be.
    pub accept_position: bool,
}

impl RunnerSettings {
    /// From the keys; `kind` begins the sink's name.
    ///
    /// # Errors
    /// [`Error`] names the key, the value and the rule.
    pub fn new(settings: &Settings, kind: &str, default_linger: Duration) -> Result<Self, Error> {
        let name = settings.get("sink.name").unwrap_or_default();
        let valid = |letter: char| letter.is_ascii_alphanumeric() || letter == '-' || letter == '_';
        if name.len() > 64 || !name.chars().all(valid) {
            return Err(settings.wrong("sink.name", "use at most 64 letters, digits, - and _"));
        }
        let table = Table::named(settings.require("sink.records")?)
            .ok_or_else(|| settings.wrong("sink.records", "use readings, events or assets"))?;
        let memory = settings.bytes("sink.memory")?;
        if !((1 << 20)..=(1 << 40)).contains(&memory) {
            return Err(settings.wrong("sink.memory", "use 1MiB to 1024GiB"));
        }
        Ok(Self {
            name: qualified_name(kind, settings.get("sink.name")),
            table,
            topic: settings.require(&format!("kafka.{}_topic", table.name))?.into(),
            linger: match settings.get("sink.linger") {
                Some(_) => settings.duration("sink.linger")?,
                None => default_linger,
            },
            memory: memory as usize,
            session_timeout: settings.duration("sink.session_timeout")?,
            drain: settings.duration("sink.drain")?,
            accept_position: settings.parse("sink.accept_position", "use true or false")?,
        })
    }

    /// The consumer group.
    pub fn group(&self) -> String {
        match self.table.name {
            "readings" => format!("flux-{}", self.name),
            table => format!("flux-{}-{table}", self.name),
        }
    }
}

/// A sink's full name: kinds never share a consumer group.
pub fn qualified_name(kind: &str, name: Option<&str>) -> String {
    name.map_or_else(|| kind.to_string(), |name| format!("{kind}-{name}"))
}
