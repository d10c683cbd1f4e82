//! Settings of the Snowpipe role.

use std::{path::PathBuf, time::Duration};

use flux_schemas::{layout::table::pipe, row::Table};
use flux_service::settings::{Error, Key, Settings};

/// Keys of this role.
pub const KEYS: &[Key] = &[
    Key {
        name: "snowpipe.url",
        default: "",
        help: "account URL, https://<account>.snowflakecomputing.com",
        secret: false,
    },
    Key { name: "snowpipe.account", default: "", help: "account identifier, as in the URL", secret: false },
    Key { name: "snowpipe.user", default: "", help: "user whose public key is registered", secret: false },
    Key {
        name: "snowpipe.private_key_file",
        default: "",
        help: "PEM file of the user's private key, PKCS#8, not encrypted",
        secret: false,
    },
    Key {
        name: "snowpipe.role",
        default: "",
        help: "role of the session; the user's default when not set",
        secret: false,
    },
    Key { name: "snowpipe.database", default: "FLUX", help: "database", secret: false },
    Key { name: "snowpipe.schema", default: "PUBLIC", help: "schema", secret: false },
    Key {
        name: "snowpipe.pipe",
        default: "",
        help: "pipe; when not set AMI_STREAMING_<RECORDS>-STREAMING, the default pipe of a table of that name",
        secret: false,
    },
    Key {
        name: "snowpipe.ca",
        default: "",
        help: "PEM file of a private certificate authority; the system's when not set",
        secret: false,
    },
    Key {
        name: "snowpipe.poll_interval",
        default: "1s",
        help: "how often the committed tokens are asked for",
        secret: false,
    },
    Key {
        name: "snowpipe.commit_timeout",
        default: "120s",
        help: "accepted rows that are not committed after this make the channel be opened again",
        secret: false,
    },
];

/// Settings of the Snowpipe role, checked.
#[derive(Debug, Clone)]
pub struct SnowpipeSettings {
    /// Account URL.
    pub url: reqwest::Url,
    /// Account.
    pub account: String,
    /// User.
    pub user: String,
    /// Private key, PEM path.
    pub private_key_file: PathBuf,
    /// Role.
    pub role: Option<String>,
    /// Database.
    pub database: String,
    /// Schema.
    pub schema: String,
    /// Pipe.
    pub pipe: String,
    /// Private authority, PEM path.
    pub ca: Option<PathBuf>,
    /// Between two questions for status.
    pub poll_interval: Duration,
    /// Patience with accepted rows.
    pub commit_timeout: Duration,
}

impl SnowpipeSettings {
    /// From the keys.
    ///
    /// # Errors
    /// [`Error`] names the key, the value and the rule.
    pub fn new(settings: &Settings, table: &Table) -> Result<Self, Error> {
        let url: reqwest::Url = settings.parse("snowpipe.url", "use https://<account>.snowflakecomputing.com")?;
        if url.scheme() != "https" || url.host_str().is_none() {
            return Err(settings.wrong("snowpipe.url", "use https://<account>.snowflakecomputing.com"));
        }
        let private_key_file = PathBuf::from(settings.require("snowpipe.private_key_file")?);
        if let Err(error) = std::fs::metadata(&private_key_file) {
            return Err(settings.wrong("snowpipe.private_key_file", format!("cannot read it: {error}; make a key with openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048")));
        }
        Ok(Self {
            url,
            account: settings.require("snowpipe.account")?.into(),
            user: settings.require("snowpipe.user")?.into(),
            private_key_file,
            role: settings.get("snowpipe.role").map(Into::into),
            database: settings.require("snowpipe.database")?.into(),
            schema: settings.require("snowpipe.schema")?.into(),
            pipe: settings.get("snowpipe.pipe").map_or_else(|| pipe(table), Into::into),
            ca: settings.get("snowpipe.ca").map(PathBuf::from),
            poll_interval: settings.duration("snowpipe.poll_interval")?,
            commit_timeout: settings.duration("snowpipe.commit_timeout")?,
        })
    }
}
