//! A row of any record type: a table and its cells.
//!
//! Columns come from the Avro schema, the one source of truth: name, kind, whether null is allowed, and (attribute
//! `places`) how many decimal places a number has. Numbers are integers in units of their last place, so that two rows
//! are equal or not, exactly. Whoever writes or reads a store goes over the columns and never names one.

use std::sync::LazyLock;

use apache_avro::Schema;
use serde_json::Value;

use crate::time::Timestamp;

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// UTF-8 text.
    Text,
    /// One of these texts.
    Symbol(Vec<&'static str>),
    /// Milliseconds since the Unix epoch, UTC.
    Timestamp,
    /// 64-bit binary floating point that stands for a decimal with so many places.
    Double(u32),
    /// The same in 32 bits.
    Float(u32),
    /// 32-bit integer.
    Int,
    /// 64-bit integer.
    Long,
    /// True or false.
    Boolean,
    /// Sixteen bytes, printed as 32 hexadecimal digits.
    Id,
}

/// One value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cell<'a> {
    /// No value.
    Null,
    /// True or false.
    Boolean(bool),
    /// An integer, a time, or a number in units of its last place.
    Int(i64),
    /// A text or a symbol.
    Text(&'a str),
    /// An id.
    Id([u8; 16]),
    /// A number that no row has: found in a store, and equal to nothing that is expected.
    Inexact(f64),
}

/// A column of a table.
#[derive(Debug)]
pub struct Column {
    /// As in the Avro schema and in Snowflake.
    pub name: &'static str,
    /// As in PostgreSQL, Parquet and bronze files.
    pub lower: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// Whether it may be null.
    pub nullable: bool,
}

/// A record type: a topic's schema and what destinations make of it.
#[derive(Debug)]
pub struct Table {
    /// `readings`, `events` or `assets`.
    pub name: &'static str,
    /// Its columns, as of the newest version of the schema.
    pub columns: Vec<Column>,
    /// Columns of the first version; rows of it have no others.
    pub narrow: usize,
    /// Versions of the schema, oldest first: JSON as it is registered, and parsed.
    versions: Vec<(&'static str, Schema)>,
}

/// Which column rows are filed by. The same in all tables: the key, then the time.
const TIME: usize = 1;

impl Table {
    fn new(name: &'static str, versions: &[&'static str]) -> Self {
        let columns = |json: &str| columns(&serde_json::from_str(json).expect("the schema in the source tree is JSON"));
        let newest = versions.last().expect("a table has a schema");
        let parse =
            |json: &&'static str| (*json, Schema::parse_str(json).expect("the schema in the source tree parses"));
        Self {
            name,
            columns: columns(newest),
            narrow: columns(versions[0]).len(),
            versions: versions.iter().map(parse).collect(),
        }
    }

    /// Interval readings: eleven columns, or all of them.
    pub fn readings() -> &'static Self {
        static TABLE: LazyLock<Table> = LazyLock::new(|| {
            Table::new(
                "readings",
                &[include_str!("../avro/ami_reading.avsc"), include_str!("../avro/ami_reading_wide.avsc")],
            )
        });
        &TABLE
    }

    /// Meter events.
    pub fn events() -> &'static Self {
        static TABLE: LazyLock<Table> =
            LazyLock::new(|| Table::new("events", &[include_str!("../avro/ami_event.avsc")]));
        &TABLE
    }

    /// Meters and the grid above them.
    pub fn assets() -> &'static Self {
        static TABLE: LazyLock<Table> =
            LazyLock::new(|| Table::new("assets", &[include_str!("../avro/grid_asset.avsc")]));
        &TABLE
    }

    /// All tables.
    pub fn all() -> [&'static Self; 3] {
        [Self::readings(), Self::events(), Self::assets()]
    }

    /// The table with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::all().into_iter().find(|table| table.name == name)
    }

    /// The schema of rows with so many columns, as JSON.
    pub fn schema(&self, width: usize) -> &'static str {
        self.version(width).0
    }

    pub(crate) fn version(&self, width: usize) -> &(&'static str, Schema) {
        if width == self.narrow { &self.versions[0] } else { &self.versions[self.versions.len() - 1] }
    }

    /// The widths that rows come in.
    pub fn widths(&self) -> [usize; 2] {
        [self.narrow, self.columns.len()]
    }

    /// Index of a column; the names are ours.
    pub fn index(&self, name: &str) -> usize {
        self.columns
            .iter()
            .position(|column| column.name == name)
            .unwrap_or_else(|| panic!("{} has no {name}", self.name))
    }

    /// SHA-256 of the canonical form of the schema of rows with so many columns, in hexadecimal.
    pub fn fingerprint(&self, width: usize) -> String {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(self.version(width).1.canonical_form());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A row of a table.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Its table.
    pub table: &'static Table,
    /// Its cells, in column order; as many as one of [`Table::widths`].
    pub cells: &'a [Cell<'a>],
}

impl<'a> Row<'a> {
    /// Id of the meter or asset that it is about; also its Kafka key.
    pub fn key(&self) -> &'a str {
        self.text(0)
    }

    /// The time that it is filed by.
    pub fn time(&self) -> Timestamp {
        match self.cells.get(TIME) {
            Some(Cell::Int(ms)) => Timestamp(*ms),
            _ => Timestamp(0),
        }
    }

    /// The text at `index`; empty when there is none.
    pub fn text(&self, index: usize) -> &'a str {
        match self.cells.get(index) {
            Some(Cell::Text(text)) => text,
            _ => "",
        }
    }

    /// Cells with their columns; the columns of a wider version are null.
    pub fn padded(&self, width: usize) -> impl Iterator<Item = (&'static Column, Cell<'a>)> {
        let cells = self.cells;
        let cell = move |index: usize| cells.get(index).copied().unwrap_or(Cell::Null);
        self.table.columns[..width].iter().enumerate().map(move |(index, column)| (column, cell(index)))
    }

    /// Whether it has a time that every destination can hold.
    ///
    /// # Errors
    /// A sentence that names the column.
    pub fn check_time(&self) -> Result<(), String> {
        let time = self.time();
        if (0..=253_402_300_799_999).contains(&time.0) {
            return Ok(());
        }
        Err(format!("{} {} ms lies outside 1970 to 9999", self.table.columns[TIME].name, time.0))
    }
}

const POWERS: [f64; 8] = [1.0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7];

/// The nearest double to a decimal.
#[inline]
pub fn to_double(value: i64, places: u32) -> f64 {
    value as f64 / POWERS[places as usize]
}

/// The exact inverse of [`to_double`]: `None` for a double that no decimal with so many places has.
#[inline]
pub fn from_double(number: f64, places: u32) -> Option<i64> {
    let value = (number * POWERS[places as usize]).round() as i64;
    (to_double(value, places) == number).then_some(value)
}

/// The exact inverse of `to_double(..) as f32`.
#[inline]
pub fn from_float(number: f32, places: u32) -> Option<i64> {
    let value = (f64::from(number) * POWERS[places as usize]).round() as i64;
    (to_double(value, places) as f32 == number).then_some(value)
}

impl Kind {
    /// What a number in a store is worth: exact, or equal to nothing. Stores of 32-bit numbers may give their double.
    pub fn number<'a>(&self, number: f64) -> Cell<'a> {
        let value = match self {
            Self::Double(places) => from_double(number, *places),
            Self::Float(places) => from_double(number, *places).or_else(|| from_float(number as f32, *places)),
            Self::Int | Self::Long => from_double(number, 0),
            _ => None,
        };
        value.map_or(Cell::Inexact(number), Cell::Int)
    }

    /// Decimal places of a number; 0 for what has none.
    pub fn places(&self) -> u32 {
        match self {
            Self::Double(places) | Self::Float(places) => *places,
            _ => 0,
        }
    }
}

/// 32 hexadecimal digits.
pub fn id_text(id: [u8; 16]) -> [u8; 32] {
    std::array::from_fn(|digit| b"0123456789abcdef"[usize::from(id[digit / 2] >> (4 * (1 - digit % 2)) & 15)])
}

/// The id with these digits.
pub fn parse_id(text: &str) -> Option<[u8; 16]> {
    let value = u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32)?;
    Some(value.to_be_bytes())
}

fn columns(schema: &Value) -> Vec<Column> {
    schema["fields"].as_array().expect("a record has fields").iter().map(column).collect()
}

fn column(field: &Value) -> Column {
    let name: &'static str = Box::leak(field["name"].as_str().expect("a field has a name").to_string().into());
    let (kind, nullable) = match &field["type"] {
        Value::Array(union) => (&union[1], true),
        other => (other, false),
    };
    let places = field["places"].as_u64().unwrap_or(0) as u32;
    let symbols = || {
        let symbols = kind["symbols"].as_array().expect("an enum has symbols").iter();
        symbols.map(|symbol| &*Box::leak(symbol.as_str().expect("a symbol is text").to_string().into_boxed_str()))
    };
    let text = kind.as_str().or_else(|| kind["type"].as_str()).expect("a field has a type");
    let kind = match text {
        "string" => Kind::Text,
        "enum" => Kind::Symbol(symbols().collect()),
        "long" if kind["logicalType"] == "timestamp-millis" => Kind::Timestamp,
        "long" => Kind::Long,
        "int" => Kind::Int,
        "double" => Kind::Double(places),
        "float" => Kind::Float(places),
        "boolean" => Kind::Boolean,
        "fixed" => Kind::Id,
        other => panic!("column {name}: no kind for Avro type {other}"),
    };
    Column { name, lower: Box::leak(name.to_lowercase().into()), kind, nullable }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_version_begins_with_the_columns_of_the_first() {
        let table = Table::readings();
        assert_eq!(table.widths(), [11, 37]);
        let narrow = columns(&serde_json::from_str(table.schema(11)).unwrap());
        for (narrow, wide) in narrow.iter().zip(&table.columns) {
            assert_eq!((narrow.name, &narrow.kind, narrow.nullable), (wide.name, &wide.kind, wide.nullable));
        }
        assert!(table.columns[11..].iter().all(|column| column.nullable));
    }

    #[test]
    fn every_table_begins_with_its_key_and_its_time() {
        for table in Table::all() {
            assert_eq!((&table.columns[0].kind, &table.columns[TIME].kind), (&Kind::Text, &Kind::Timestamp));
            assert!(!table.columns[0].nullable && !table.columns[TIME].nullable);
        }
    }

    #[test]
    fn decimals_survive_both_widths_and_anything_else_is_inexact() {
        for value in [0, 1, -1, 973, 123_456_789] {
            assert_eq!(Kind::Double(4).number(to_double(value, 4)), Cell::Int(value));
        }
        assert_eq!(Kind::Float(3).number(f64::from(0.973_f32)), Cell::Int(973));
        assert_eq!(Kind::Double(4).number(0.000_05), Cell::Inexact(0.000_05));
        assert_eq!(parse_id(std::str::from_utf8(&id_text([0xab; 16])).unwrap()), Some([0xab; 16]));
    }
}
