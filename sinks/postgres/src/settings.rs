//! Settings of the Postgres role.

use std::time::Duration;

use flux_service::{
    postgres::PostgresLogin,
    settings::{Error, Key, Settings},
};

/// Keys of this role, beside those of the login.
pub const KEYS: &[Key] = &[
    Key { name: "postgres.batch_rows", default: "20000", help: "rows after which a unit is written", secret: false },
    Key {
        name: "postgres.write_timeout",
        default: "30s",
        help: "deadline of one unit (statement_timeout)",
        secret: false,
    },
    Key {
        name: "postgres.realtime",
        default: "true",
        help: "keep ami_realtime, the latest reading of each meter",
        secret: false,
    },
];

/// Settings of the Postgres role, checked.
#[derive(Debug, Clone)]
pub struct PostgresSettings {
    /// Where.
    pub login: PostgresLogin,
    /// Rows of a unit.
    pub batch_rows: usize,
    /// Deadline of a unit.
    pub write_timeout: Duration,
    /// Whether `ami_realtime` is kept.
    pub realtime: bool,
}

impl PostgresSettings {
    /// From the keys.
    ///
    /// # Errors
    /// [`Error`] names the key, the value and the rule.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let batch_rows = settings.parse("postgres.batch_rows", "use 1 to 1000000")?;
        if !(1..=1_000_000).contains(&batch_rows) {
            return Err(settings.wrong("postgres.batch_rows", "use 1 to 1000000"));
        }
        Ok(Self {
            login: PostgresLogin::new(settings)?,
            batch_rows,
            write_timeout: settings.duration("postgres.write_timeout")?,
            realtime: settings.parse("postgres.realtime", "use true or false")?,
        })
    }
}
