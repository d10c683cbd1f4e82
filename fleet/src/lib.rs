//! A utility's own fleet: lists of meters, transformers, circuits and substations, from CSV, Parquet or PostgreSQL.
//!
//! ```text
//! fleet.meters = "meters.csv" | "meters.parquet" | "postgres:select ... from ..."      fleet.mapping = "mapping.toml"
//! ```
//! A mapping says what a column is called in the list, and what its values mean:
//!
//! ```toml
//! [meters]
//! METER_ID = "meter_number"
//! CUSTOMER_SEGMENT = "customer_class"
//! [values.CUSTOMER_SEGMENT]
//! R = "RESIDENTIAL"
//! ```
//! What is wrong is refused with list, line and column; nothing is replaced by something made up.

mod sheet;

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use flux_generator::assets::{Assets, Fault, Lists, MeterLine, NodeLine};
use flux_service::settings::{self, Key, Settings};
use serde::Deserialize;

/// Keys of the fleet.
pub const KEYS: &[Key] = &[
    Key {
        name: "fleet.meters",
        default: "",
        help: "your own meters instead of a synthetic fleet: a .csv or .parquet file, or postgres:<select> against postgres.url; columns METER_ID, TRANSFORMER_ID, CIRCUIT_ID, SUBSTATION_ID, CUSTOMER_SEGMENT, LATITUDE, LONGITUDE",
        secret: false,
    },
    Key {
        name: "fleet.transformers",
        default: "",
        help: "their transformers: TRANSFORMER_ID, CIRCUIT_ID, RATED_KVA, LATITUDE, LONGITUDE; read off the meters when not set",
        secret: false,
    },
    Key {
        name: "fleet.circuits",
        default: "",
        help: "their circuits: CIRCUIT_ID, SUBSTATION_ID; read off the meters when not set",
        secret: false,
    },
    Key {
        name: "fleet.substations",
        default: "",
        help: "their substations: SUBSTATION_ID, LATITUDE, LONGITUDE; read off the circuits when not set",
        secret: false,
    },
    Key {
        name: "fleet.mapping",
        default: "",
        help: "TOML file that says what the columns are called in the lists, and what their values mean",
        secret: false,
    },
];

/// Faults that are printed; the others are counted.
const SHOWN: usize = 20;

/// Why there is no fleet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// A list cannot be read.
    #[error("{key} = {value:?}: {doing}")]
    Unreadable {
        /// Setting.
        key: String,
        /// What it says.
        value: String,
        /// What we were doing.
        doing: String,
        /// Cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A list has not the column.
    #[error("{key} = {value:?} has no column {column}; it has {found}; name it in fleet.mapping")]
    Column {
        /// Setting.
        key: String,
        /// What it says.
        value: String,
        /// Which.
        column: String,
        /// What there is.
        found: String,
    },
    /// The mapping.
    #[error("fleet.mapping = {path:?}: {what}")]
    Mapping {
        /// File.
        path: String,
        /// What is wrong, with its line.
        what: String,
    },
    /// The lists themselves.
    #[error("the fleet is refused, {count} faults:\n{text}")]
    Refused {
        /// How many.
        count: usize,
        /// The first of them, a line each.
        text: String,
    },
}

/// What columns and values are called.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    #[serde(default)]
    meters: BTreeMap<String, String>,
    #[serde(default)]
    transformers: BTreeMap<String, String>,
    #[serde(default)]
    circuits: BTreeMap<String, String>,
    #[serde(default)]
    substations: BTreeMap<String, String>,
    #[serde(default)]
    values: BTreeMap<String, BTreeMap<String, String>>,
}

impl Mapping {
    fn of(&self, list: &str) -> &BTreeMap<String, String> {
        match list {
            "meters" => &self.meters,
            "transformers" => &self.transformers,
            "circuits" => &self.circuits,
            _ => &self.substations,
        }
    }
}

/// Other names that columns go by without a mapping.
const ALIASES: [(&str, &[&str]); 3] = [
    ("CUSTOMER_SEGMENT", &["CUSTOMER_SEGMENT_ID", "CUSTOMER_CLASS"]),
    ("LATITUDE", &["METER_LATITUDE"]),
    ("LONGITUDE", &["METER_LONGITUDE"]),
];

/// The fleet of the settings; `None` where it is synthetic.
///
/// # Errors
/// [`Error`]: everything that is wrong.
pub async fn load(settings: &Settings) -> Result<Option<Assets>, Error> {
    if settings.get("fleet.meters").is_none() {
        return Ok(None);
    }
    let mapping = mapping(settings)?;
    let mut lists = Lists::default();
    let mut rows = reader(settings, &mapping, "meters", &["METER_ID", "TRANSFORMER_ID"]).await?;
    // Levels that have lists of their own are not read off the meters.
    let text = |row: &mut Fields<'_>, column: &str| row.take(column).unwrap_or_default();
    rows.each(|line, mut row| {
        lists.meters.push(MeterLine {
            line,
            meter_id: text(&mut row, "METER_ID"),
            transformer_id: text(&mut row, "TRANSFORMER_ID"),
            circuit_id: text(&mut row, "CIRCUIT_ID"),
            substation_id: text(&mut row, "SUBSTATION_ID"),
            customer_segment: row.take("CUSTOMER_SEGMENT"),
            latitude: row.take("LATITUDE"),
            longitude: row.take("LONGITUDE"),
        });
    });
    for (list, id, parent) in [
        ("transformers", "TRANSFORMER_ID", "CIRCUIT_ID"),
        ("circuits", "CIRCUIT_ID", "SUBSTATION_ID"),
        ("substations", "SUBSTATION_ID", ""),
    ] {
        if settings.get(&format!("fleet.{list}")).is_none() {
            continue;
        }
        let required: Vec<&str> = [id, parent].into_iter().filter(|column| !column.is_empty()).collect();
        let mut rows = reader(settings, &mapping, list, &required).await?;
        let nodes = match list {
            "transformers" => &mut lists.transformers,
            "circuits" => &mut lists.circuits,
            _ => &mut lists.substations,
        };
        rows.each(|line, mut row| {
            nodes.push(NodeLine {
                line,
                id: text(&mut row, id),
                parent: text(&mut row, parent),
                rated_kva: row.take("RATED_KVA"),
                latitude: row.take("LATITUDE"),
                longitude: row.take("LONGITUDE"),
            });
        });
    }
    Assets::new(lists).map(Some).map_err(|faults| refused(settings, &faults))
}

fn refused(settings: &Settings, faults: &[Fault]) -> Error {
    let file = |list: &str| settings.get(&format!("fleet.{list}")).unwrap_or_default().to_string();
    let mut text: Vec<String> =
        faults.iter().take(SHOWN).map(|fault| format!("  {} ({})", fault, file(fault.list))).collect();
    if faults.len() > SHOWN {
        text.push(format!("  and {} more", faults.len() - SHOWN));
    }
    Error::Refused { count: faults.len(), text: text.join("\n") }
}

fn mapping(settings: &Settings) -> Result<Mapping, Error> {
    let Some(path) = settings.get("fleet.mapping") else { return Ok(Mapping::default()) };
    let wrong = |what: String| Error::Mapping { path: path.into(), what };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    toml::from_str(&text).map_err(|error| wrong(error.to_string()))
}

/// A list, and where its columns are.
struct Reader {
    sheet: sheet::Sheet,
    columns: HashMap<&'static str, usize>,
    values: BTreeMap<String, BTreeMap<String, String>>,
}

/// Columns that are looked for.
const COLUMNS: [&str; 8] = [
    "METER_ID",
    "TRANSFORMER_ID",
    "CIRCUIT_ID",
    "SUBSTATION_ID",
    "CUSTOMER_SEGMENT",
    "RATED_KVA",
    "LATITUDE",
    "LONGITUDE",
];

async fn reader(settings: &Settings, mapping: &Mapping, list: &str, required: &[&str]) -> Result<Reader, Error> {
    let key = format!("fleet.{list}");
    let value = settings.require(&key)?.to_string();
    let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| Error::Unreadable {
        key: key.clone(),
        value: value.clone(),
        doing: "reading it".into(),
        source,
    };
    let sheet = match value.strip_prefix("postgres:") {
        Some(query) => sheet::postgres(settings, query).await.map_err(unreadable)?,
        None => sheet::file(Path::new(&value)).map_err(unreadable)?,
    };
    let find = |name: &str| sheet.header.iter().position(|column| column.eq_ignore_ascii_case(name));
    let missing = |column: &str| Error::Column {
        key: key.clone(),
        value: value.clone(),
        column: column.into(),
        found: sheet.header.join(", "),
    };
    let mut columns = HashMap::new();
    for column in COLUMNS {
        let aliases = ALIASES.iter().find(|(name, _)| *name == column).map_or(&[][..], |(_, aliases)| aliases);
        let found = match mapping.of(list).get(column) {
            Some(name) => Some(find(name).ok_or_else(|| missing(name))?),
            None => find(column).or_else(|| aliases.iter().find_map(|alias| find(alias))),
        };
        match found {
            Some(index) => _ = columns.insert(column, index),
            None if required.contains(&column) => return Err(missing(column)),
            None => {}
        }
    }
    if let Some(unknown) = mapping.of(list).keys().find(|name| !COLUMNS.contains(&name.as_str())) {
        let what = format!("[{list}] {unknown} is no column that is read; use {}", COLUMNS.join(", "));
        return Err(Error::Mapping { path: settings.get("fleet.mapping").unwrap_or_default().into(), what });
    }
    Ok(Reader { sheet, columns, values: mapping.values.clone() })
}

impl Reader {
    fn each(&mut self, mut each: impl FnMut(u64, Fields<'_>)) {
        for (line, values) in &mut self.sheet.rows {
            each(*line, Fields { values, columns: &self.columns, meanings: &self.values });
        }
    }
}

/// The values of a line.
struct Fields<'a> {
    values: &'a mut Vec<Option<String>>,
    columns: &'a HashMap<&'static str, usize>,
    meanings: &'a BTreeMap<String, BTreeMap<String, String>>,
}

impl Fields<'_> {
    /// The value of a column, as the mapping reads it.
    fn take(&mut self, column: &str) -> Option<String> {
        let value = self.values.get_mut(*self.columns.get(column)?)?.take()?;
        let value = value.trim().to_string();
        let meaning = self.meanings.get(column).and_then(|meanings| meanings.get(&value));
        Some(meaning.cloned().unwrap_or(value))
    }
}

#[cfg(test)]
mod tests {
    use flux_service::settings::Origin;

    use super::*;

    fn settings(pairs: &[(&str, &Path)]) -> Settings {
        let mut settings = Settings::new(KEYS);
        for (key, path) in pairs {
            settings.set(key, &path.display().to_string(), Origin::Flag("--set".into())).unwrap();
        }
        settings
    }

    fn block<T>(future: impl std::future::Future<Output = T>) -> T {
        // Files are read without waiting.
        let mut future = std::pin::pin!(future);
        match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            std::task::Poll::Ready(value) => value,
            std::task::Poll::Pending => panic!("reading files does not wait"),
        }
    }

    const METERS: &str = "meter_number,TRANSFORMER_ID,CIRCUIT_ID,SUBSTATION_ID,customer_class,LATITUDE,LONGITUDE\n";

    fn meters(folder: &Path, edit: impl Fn(u32, String) -> String) -> std::path::PathBuf {
        let path = folder.join("meters.csv");
        let line = |number: u32| format!("M{number:03},T{},C{},S0,R,29.7{number:03},-95.4\n", number / 4, number / 8);
        let lines: String = (0..40).map(|number| edit(number, line(number))).collect();
        std::fs::write(&path, format!("{METERS}{lines}")).unwrap();
        path
    }

    #[test]
    fn a_csv_with_a_mapping_is_a_fleet_and_what_is_wrong_has_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let mapping = folder.path().join("mapping.toml");
        std::fs::write(
            &mapping,
            "[meters]\nMETER_ID = \"meter_number\"\n[values.CUSTOMER_SEGMENT]\nR = \"RESIDENTIAL\"\n",
        )
        .unwrap();
        let path = meters(folder.path(), |_, line| line);
        let given = settings(&[("fleet.meters", &path), ("fleet.mapping", &mapping)]);
        assert_eq!(block(load(&given)).unwrap().unwrap().meters(), 40);

        let unmapped = settings(&[("fleet.meters", &path)]);
        let error = block(load(&unmapped)).unwrap_err().to_string();
        assert!(error.contains("has no column METER_ID; it has meter_number"), "{error}");

        let transformers = folder.path().join("transformers.csv");
        let lines: String = (0..9).map(|number| format!("T{number},C{}\n", number / 2)).collect();
        std::fs::write(&transformers, format!("TRANSFORMER_ID,CIRCUIT_ID\n{lines}")).unwrap();
        let circuits = folder.path().join("circuits.csv");
        std::fs::write(&circuits, "CIRCUIT_ID,SUBSTATION_ID\nC0,S0\nC1,S0\nC2,S0\nC3,S0\nC4,S0\n").unwrap();
        let orphan = settings(&[
            ("fleet.meters", &path),
            ("fleet.mapping", &mapping),
            ("fleet.transformers", &transformers),
            ("fleet.circuits", &circuits),
        ]);
        let error = block(load(&orphan)).unwrap_err().to_string();
        assert!(error.contains("4 faults"), "{error}");
        assert!(
            error.contains("meters line 38: TRANSFORMER_ID is \"T9\"; no transformer has this id: an orphan"),
            "{error}"
        );
        assert!(error.contains("meters.csv"), "{error}");

        let broken =
            meters(folder.path(), |number, line| if number == 7 { line.replace("29.7007", "290") } else { line });
        let given = settings(&[("fleet.meters", &broken), ("fleet.mapping", &mapping)]);
        let error = block(load(&given)).unwrap_err().to_string();
        assert!(error.contains("meters line 9: LATITUDE is \"290\"; use degrees from -90 to 90"), "{error}");
    }

    #[test]
    fn a_parquet_file_is_read_like_a_csv() {
        use parquet::{
            data_type::ByteArrayType,
            file::{properties::WriterProperties, writer::SerializedFileWriter},
            schema::parser::parse_message_type,
        };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("meters.parquet");
        let schema = "message meters { required binary METER_ID (STRING); required binary TRANSFORMER_ID (STRING);
            required binary CIRCUIT_ID (STRING); required binary SUBSTATION_ID (STRING); }";
        let file = std::fs::File::create(&path).unwrap();
        let schema = parse_message_type(schema).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema.into(), WriterProperties::new().into()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for text in [|n: u32| format!("M{n:03}"), |n| format!("T{}", n / 4), |n| format!("C{}", n / 8), |_| "S".into()]
        {
            let mut column = group.next_column().unwrap().unwrap();
            let values: Vec<_> = (0..40).map(|number| text(number).as_str().into()).collect();
            column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();
        let given = settings(&[("fleet.meters", &path)]);
        assert_eq!(block(load(&given)).unwrap().unwrap().meters(), 40);
    }
}
