//! Configuration as data: every key is declared once with its default and its meaning.
//!
//! A value comes from a flag, else the environment (`FLUX_POSTGRES__URL` is `postgres.url`), else the file, else the
//! default, and remembers from where. Unknown keys are refused with the nearest known one. Roles turn values into
//! their typed settings once, at start; after that nothing is validated again.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

/// A declared key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted name.
    pub name: &'static str,
    /// Default; empty means none.
    pub default: &'static str,
    /// What it does, with unit and range.
    pub help: &'static str,
    /// Printed as `***`.
    pub secret: bool,
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The declaration.
    Default,
    /// A file.
    File(PathBuf),
    /// An environment variable.
    Environment(String),
    /// A flag.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => formatter.write_str("default"),
            Self::File(path) => write!(formatter, "file {}", path.display()),
            Self::Environment(name) => write!(formatter, "environment {name}"),
            Self::Flag(name) => write!(formatter, "flag {name}"),
        }
    }
}

/// A value that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The value itself, for the one call that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(value: &str) -> Self {
        Self(value.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("***")
    }
}

/// What is wrong with the configuration. Exit code 2.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such key.
    #[error("{origin}: unknown key {key}; did you mean {nearest}?")]
    Unknown {
        /// Where it was found.
        origin: Origin,
        /// As written.
        key: String,
        /// The nearest declared key.
        nearest: String,
    },
    /// A value that its key does not take.
    #[error("{key} is {value:?} ({origin}); {rule}")]
    Value {
        /// Key.
        key: String,
        /// As written; `***` for a secret.
        value: String,
        /// Where it was found.
        origin: Origin,
        /// What is allowed.
        rule: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {path}; check the path and its permissions")]
    File {
        /// Path.
        path: PathBuf,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A file that is not TOML.
    #[error("{path} is not valid TOML")]
    Syntax {
        /// Path.
        path: PathBuf,
        /// Cause.
        #[source]
        source: toml::de::Error,
    },
}

/// All values of a process.
#[derive(Debug, Clone)]
pub struct Settings {
    keys: BTreeMap<&'static str, Key>,
    values: BTreeMap<&'static str, (String, Origin)>,
}

impl Settings {
    /// The declared keys with their defaults.
    pub fn new(keys: &[Key]) -> Self {
        let keys: BTreeMap<_, _> = keys.iter().map(|key| (key.name, *key)).collect();
        let values = keys
            .values()
            .filter(|key| !key.default.is_empty())
            .map(|key| (key.name, (key.default.to_string(), Origin::Default)))
            .collect();
        Self { keys, values }
    }

    /// Adds a TOML file: tables become dotted keys.
    ///
    /// # Errors
    /// [`Error`] names the file and the key.
    pub fn file(&mut self, path: &Path) -> Result<(), Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::File { path: path.into(), source })?;
        let table: toml::Table = text.parse().map_err(|source| Error::Syntax { path: path.into(), source })?;
        self.table("", &table, &Origin::File(path.into()))
    }

    fn table(&mut self, prefix: &str, table: &toml::Table, origin: &Origin) -> Result<(), Error> {
        for (name, value) in table {
            let key = format!("{prefix}{name}");
            match value {
                toml::Value::Table(inner) => self.table(&format!("{key}."), inner, origin)?,
                toml::Value::String(text) => self.set(&key, text, origin.clone())?,
                toml::Value::Array(items) => {
                    let items: Vec<_> =
                        items.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), Into::into)).collect();
                    self.set(&key, &items.join(","), origin.clone())?;
                }
                other => self.set(&key, &other.to_string(), origin.clone())?,
            }
        }
        Ok(())
    }

    /// Adds the variables that begin with `FLUX_`; two underscores stand for the dot.
    ///
    /// # Errors
    /// [`Error::Unknown`] for a `FLUX_` variable that is no key.
    pub fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) -> Result<(), Error> {
        for (name, value) in variables {
            if let Some(key) = name.strip_prefix("FLUX_") {
                self.set(&key.to_lowercase().replace("__", "."), &value, Origin::Environment(name.clone()))?;
            }
        }
        Ok(())
    }

    /// Sets one value.
    ///
    /// # Errors
    /// [`Error::Unknown`] with the nearest key.
    pub fn set(&mut self, key: &str, value: &str, origin: Origin) -> Result<(), Error> {
        match self.keys.get(key) {
            Some(known) => {
                self.values.insert(known.name, (value.into(), origin));
                Ok(())
            }
            None => {
                let nearest = self.keys.keys().min_by_key(|known| distance(known, key)).copied().unwrap_or_default();
                Err(Error::Unknown { origin, key: key.into(), nearest: nearest.into() })
            }
        }
    }

    /// The value of an optional key.
    pub fn get(&self, key: &str) -> Option<&str> {
        debug_assert!(self.keys.contains_key(key), "{key} is not declared");
        self.values.get(key).map(|(value, _)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A secret: the value of `key`, or the contents of the file that `key_file` names.
    ///
    /// # Errors
    /// [`Error::File`] when the file cannot be read.
    pub fn secret(&self, key: &str, file_key: &str) -> Result<Option<Secret>, Error> {
        if let Some(value) = self.get(key) {
            return Ok(Some(Secret(value.into())));
        }
        let Some(path) = self.get(file_key).map(PathBuf::from) else { return Ok(None) };
        let text = std::fs::read_to_string(&path).map_err(|source| Error::File { path, source })?;
        Ok(Some(Secret(text.trim_end_matches(['\r', '\n']).into())))
    }

    /// The value of a key that must be there.
    ///
    /// # Errors
    /// [`Error::Value`] when it is not.
    pub fn require(&self, key: &str) -> Result<&str, Error> {
        self.get(key).ok_or_else(|| self.wrong(key, format!("it is needed: {}", self.keys[key].help)))
    }

    /// A value in the syntax of its type.
    ///
    /// # Errors
    /// [`Error::Value`] with the rule.
    pub fn parse<T: FromStr>(&self, key: &str, rule: &str) -> Result<T, Error> {
        self.require(key)?.parse().map_err(|_| self.wrong(key, rule))
    }

    /// A duration such as `250ms`, `5s`, `1m`.
    ///
    /// # Errors
    /// [`Error::Value`] with the rule.
    pub fn duration(&self, key: &str) -> Result<Duration, Error> {
        let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
        let millis = with_unit(self.require(key)?, &units);
        let rule = "use a duration such as 250ms, 5s, 1m or 2h";
        millis.map(Duration::from_millis).ok_or_else(|| self.wrong(key, rule))
    }

    /// A size such as `8MiB`, in bytes.
    ///
    /// # Errors
    /// [`Error::Value`] with the rule.
    pub fn bytes(&self, key: &str) -> Result<u64, Error> {
        let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("B", 1)];
        with_unit(self.require(key)?, &units).ok_or_else(|| self.wrong(key, "use a size such as 512KiB, 8MiB or 1GiB"))
    }

    /// The error that says what `key` takes.
    pub fn wrong(&self, key: &str, rule: impl Into<String>) -> Error {
        let (value, origin) = self.values.get(key).cloned().unwrap_or((String::new(), Origin::Default));
        let secret = self.keys.get(key).is_some_and(|key| key.secret);
        Error::Value { key: key.into(), value: if secret { "***".into() } else { value }, origin, rule: rule.into() }
    }

    /// Every key with its value, origin and meaning, in order; secrets as `***`.
    pub fn resolved(&self) -> impl Iterator<Item = (&'static str, String, String, &'static str)> {
        self.keys.values().map(|key| {
            let (value, origin) = match self.values.get(key.name) {
                Some((_, origin)) if key.secret => ("***".into(), origin.to_string()),
                Some((value, origin)) => (value.clone(), origin.to_string()),
                None => (String::new(), "not set".into()),
            };
            (key.name, value, origin, key.help)
        })
    }
}

/// A whole number followed by one of the units.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let (_, factor) = units.iter().find(|(name, _)| *name == unit.trim())?;
    number.parse::<u64>().ok()?.checked_mul(*factor)
}

/// Edit distance (Levenshtein).
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, letter) in left.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for column in 0..right.len() {
            let substitution = diagonal + usize::from(right[column] != letter);
            diagonal = row[column + 1];
            row[column + 1] = substitution.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [Key; 3] = [
        Key { name: "sink.linger", default: "1s", help: "longest wait", secret: false },
        Key { name: "postgres.url", default: "", help: "where", secret: true },
        Key { name: "postgres.url_file", default: "", help: "file with the url", secret: false },
    ];

    #[test]
    fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("flux.toml");
        std::fs::write(&path, "[sink]\nlinger = '2s'\n").unwrap();
        let mut settings = Settings::new(&KEYS);
        assert_eq!(settings.duration("sink.linger").unwrap(), Duration::from_secs(1));
        settings.file(&path).unwrap();
        assert_eq!(settings.duration("sink.linger").unwrap(), Duration::from_secs(2));
        settings
            .environment([("FLUX_SINK__LINGER".to_string(), "3s".to_string()), ("HOME".into(), "/".into())].into_iter())
            .unwrap();
        assert_eq!(settings.duration("sink.linger").unwrap(), Duration::from_secs(3));
        settings.set("sink.linger", "250ms", Origin::Flag("--linger".into())).unwrap();
        assert_eq!(settings.duration("sink.linger").unwrap(), Duration::from_millis(250));
    }

    #[test]
    fn errors_name_the_key_the_value_and_the_fix() {
        let mut settings = Settings::new(&KEYS);
        let unknown =
            settings.environment([("FLUX_POSTGRES__URI".to_string(), "x".to_string())].into_iter()).unwrap_err();
        assert_eq!(
            unknown.to_string(),
            "environment FLUX_POSTGRES__URI: unknown key postgres.uri; did you mean postgres.url?"
        );
        settings.set("sink.linger", "5 parsecs", Origin::Flag("--linger".into())).unwrap();
        assert_eq!(
            settings.duration("sink.linger").unwrap_err().to_string(),
            "sink.linger is \"5 parsecs\" (flag --linger); use a duration such as 250ms, 5s, 1m or 2h"
        );
        settings.set("postgres.url", "postgres://u:hunter2@h/d", Origin::Flag("--url".into())).unwrap();
        assert!(!settings.wrong("postgres.url", "no").to_string().contains("hunter2"));
        assert!(!format!("{:?}", settings.secret("postgres.url", "postgres.url_file").unwrap()).contains("hunter2"));
        assert!(settings.resolved().all(|(_, value, _, _)| !value.contains("hunter2")));
    }
}
