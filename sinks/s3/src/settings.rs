//! Settings of the S3 role.

use flux_schemas::layout::plan::Format;
use flux_service::{
    s3::S3Login,
    settings::{Error, Key, Settings},
};

/// Keys of this role, beside those of the login.
pub const KEYS: &[Key] = &[
    Key { name: "s3.format", default: "ndjson.gz", help: "ndjson.gz or parquet", secret: false },
    Key {
        name: "s3.roll",
        default: "8MiB",
        help: "held bytes (about 130 a row) after which a unit becomes files; 64KiB to 1GiB",
        secret: false,
    },
];

/// Settings of the S3 role, checked.
#[derive(Debug, Clone)]
pub struct S3Settings {
    /// Where.
    pub login: S3Login,
    /// How rows are written.
    pub format: Format,
    /// Bytes of a unit.
    pub roll: usize,
}

impl S3Settings {
    /// From the keys.
    ///
    /// # Errors
    /// [`Error`] names the key, the value and the rule.
    pub fn new(settings: &Settings) -> Result<Self, Error> {
        let format = match settings.require("s3.format")? {
            "ndjson.gz" => Format::NdjsonGz,
            "parquet" => Format::Parquet,
            _ => return Err(settings.wrong("s3.format", "use ndjson.gz or parquet")),
        };
        let roll = settings.bytes("s3.roll")?;
        if !((1 << 16)..=(1 << 30)).contains(&roll) {
            return Err(settings.wrong("s3.roll", "use 64KiB to 1GiB"));
        }
        Ok(Self { login: S3Login::new(settings)?, format, roll: roll as usize })
    }
}
