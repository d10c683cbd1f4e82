//! JSON rows: lower-case keys in bronze files, upper-case keys for Snowpipe (the table's column names).
//!
//! A null is left out, so a narrow row carries nothing of the wide columns.

use std::{borrow::Cow, fmt, io::Write};

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use crate::{
    row::{Cell, Kind, Row, Table, id_text, parse_id},
    run::RunId,
    source::Partition,
    time::Timestamp,
};

/// Case of the keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// `meter_id`.
    Lower,
    /// `METER_ID`.
    Upper,
}

/// Appends one line: a JSON object and a newline. Numbers are written from their integers, so they read back exactly.
pub fn write_row(out: &mut Vec<u8>, keys: Keys, row: &Row<'_>, run: RunId, partition: Partition, offset: u64) {
    write_columns(out, keys, row);
    let names = match keys {
        Keys::Lower => ["run_id", "kafka_partition", "kafka_offset"],
        Keys::Upper => ["RUN_ID", "KAFKA_PARTITION", "KAFKA_OFFSET"],
    };
    write!(out, ",\"{}\":\"{run}\",\"{}\":{partition},\"{}\":{offset}", names[0], names[1], names[2])
        .expect("a Vec takes every write");
    out.extend_from_slice(b"}\n");
}

/// Appends one line with the columns of the row alone.
pub fn write_cells(out: &mut Vec<u8>, keys: Keys, row: &Row<'_>) {
    write_columns(out, keys, row);
    out.extend_from_slice(b"}\n");
}

fn write_columns(out: &mut Vec<u8>, keys: Keys, row: &Row<'_>) {
    let mut separator = b'{';
    for (column, cell) in row.table.columns.iter().zip(row.cells) {
        if *cell == Cell::Null {
            continue;
        }
        out.push(separator);
        separator = b',';
        out.push(b'"');
        out.extend_from_slice(match keys {
            Keys::Lower => column.lower.as_bytes(),
            Keys::Upper => column.name.as_bytes(),
        });
        out.extend_from_slice(b"\":");
        match (*cell, &column.kind) {
            (Cell::Text(text), _) => write_string(out, text),
            (Cell::Int(ms), Kind::Timestamp) => {
                out.push(b'"');
                Timestamp(ms).write_iso(out);
                out.push(b'"');
            }
            (Cell::Id(id), _) => {
                out.push(b'"');
                out.extend_from_slice(&id_text(id));
                out.push(b'"');
            }
            (cell, kind) => write_plain(out, cell, kind),
        }
    }
}

/// Appends a cell as text without quotes: for CSV, and the parts of JSON that need none.
pub fn write_plain(out: &mut Vec<u8>, cell: Cell<'_>, kind: &Kind) {
    match (cell, kind) {
        (Cell::Null, _) => {}
        (Cell::Boolean(flag), _) => out.extend_from_slice(if flag { b"true" } else { b"false" }),
        (Cell::Text(text), _) => out.extend_from_slice(text.as_bytes()),
        (Cell::Int(ms), Kind::Timestamp) => Timestamp(ms).write_iso(out),
        (Cell::Int(value), kind) => write_decimal(out, value, kind.places()),
        (Cell::Id(id), _) => out.extend_from_slice(&id_text(id)),
        (Cell::Inexact(number), _) => write!(out, "{number}").expect("a Vec takes every write"),
    }
}

/// JSON escapes only where the text needs them; identifiers never do.
fn write_string(out: &mut Vec<u8>, text: &str) {
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        serde_json::to_writer(&mut *out, text).expect("a Vec takes every write");
        return;
    }
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

/// `value` / 10^places, in decimal digits.
pub fn write_decimal(out: &mut Vec<u8>, value: i64, places: u32) {
    let scale = 10_u64.pow(places);
    let sign = if value < 0 { "-" } else { "" };
    let magnitude = value.unsigned_abs();
    let (whole, fraction) = (magnitude / scale, magnitude % scale);
    let written = if places == 0 {
        write!(out, "{sign}{whole}")
    } else {
        write!(out, "{sign}{whole}.{fraction:0width$}", width = places as usize)
    };
    written.expect("a Vec takes every write");
}

/// A row read back, from either case of keys. Unknown keys are somebody else's columns and are passed over.
#[derive(Debug)]
pub struct ReadBack<'a> {
    values: Vec<Value<'a>>,
    /// RUN_ID.
    pub run_id: Cow<'a, str>,
}

#[derive(Debug, Clone)]
enum Value<'a> {
    Cell(Cell<'a>),
    /// A text that had escapes.
    Owned(String),
}

impl<'a> ReadBack<'a> {
    /// Reads one line.
    ///
    /// # Errors
    /// A sentence, when the line is no row of the table.
    pub fn parse(table: &'static Table, line: &'a [u8]) -> Result<Self, String> {
        let mut input = serde_json::Deserializer::from_slice(line);
        let back = Object(table).deserialize(&mut input).map_err(|error| error.to_string())?;
        input.end().map_err(|error| error.to_string())?;
        Ok(back)
    }

    /// Its first `width` cells, borrowed from here.
    pub fn cells<'b>(&'b self, width: usize, cells: &mut Vec<Cell<'b>>) {
        cells.clear();
        cells.extend(self.values[..width].iter().map(|value| match value {
            Value::Cell(cell) => *cell,
            Value::Owned(text) => Cell::Text(text),
        }));
    }
}

struct Object(&'static Table);

impl<'de> DeserializeSeed<'de> for Object {
    type Value = ReadBack<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<ReadBack<'de>, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object {
    type Value = ReadBack<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "an object with the columns of {}", self.0.name)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ReadBack<'de>, A::Error> {
        let columns = &self.0.columns;
        let mut back = ReadBack { values: vec![Value::Cell(Cell::Null); columns.len()], run_id: Cow::Borrowed("") };
        // Writers keep the order of the columns: the next one is nearly always the right guess.
        let mut guess = 0;
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let is = |index: &usize| columns[*index].lower == key || columns[*index].name == key;
            if let Some(index) = (guess..columns.len()).chain(0..guess).find(is) {
                back.values[index] = map.next_value_seed(Field(&columns[index].kind))?;
                guess = index + 1;
            } else if key == "run_id" || key == "RUN_ID" {
                back.run_id = map.next_value()?;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(back)
    }
}

struct Field(&'static Kind);

impl<'de> DeserializeSeed<'de> for Field {
    type Value = Value<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Field {
    type Value = Value<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "a {:?}", self.0)
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Cell(Cell::Null))
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value<'de>, E> {
        Ok(Value::Cell(Cell::Boolean(flag)))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        let exact = matches!(self.0, Kind::Int | Kind::Long);
        Ok(Value::Cell(if exact { Cell::Int(number) } else { self.0.number(number as f64) }))
    }

    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Value<'de>, E> {
        match i64::try_from(number) {
            Ok(number) => self.visit_i64(number),
            Err(_) => Ok(Value::Cell(Cell::Inexact(number as f64))),
        }
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(Value::Cell(self.0.number(number)))
    }

    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Value<'de>, E> {
        match self.0 {
            Kind::Text | Kind::Symbol(_) => Ok(Value::Cell(Cell::Text(text))),
            _ => self.visit_str(text),
        }
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Value<'de>, E> {
        let wrong = || E::custom(format!("{text:?} is no {:?}", self.0));
        Ok(match self.0 {
            Kind::Timestamp => Value::Cell(Cell::Int(Timestamp::parse(text).ok_or_else(wrong)?.0)),
            Kind::Id => Value::Cell(Cell::Id(parse_id(text).ok_or_else(wrong)?)),
            Kind::Text | Kind::Symbol(_) => Value::Owned(text.into()),
            _ => return Err(wrong()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::{Energy, Quality, Reading, Segment, Voltage};

    #[test]
    fn a_row_reads_back_exactly_in_either_case() {
        for (usage, voltage) in [(0, 0), (1, 1), (12_345, 1226), (333_333_333, -1), (7, 99_999)] {
            let reading = Reading {
                meter_id: "MTR-TGC-0000001",
                timestamp: Timestamp(1_772_323_200_000),
                usage: Energy(usage),
                voltage: Voltage(voltage),
                transformer_id: "XFMR \"quoted\"\n",
                circuit_id: "",
                substation_id: "SUB",
                segment: Segment::Commercial,
                service_area: "TEXAS_GULF_COAST",
                is_outage: true,
                quality: Quality::Outage,
            };
            let narrow = reading.cells();
            let mut wide = narrow.to_vec();
            wide.resize(37, Cell::Null);
            wide[11] = Cell::Id([0x5a; 16]);
            wide[13] = Cell::Int(-usage);
            wide[16] = Cell::Int(973);
            wide[31] = Cell::Int(1_772_323_200_123);
            for cells in [&narrow[..], &wide] {
                for keys in [Keys::Lower, Keys::Upper] {
                    let mut line = Vec::new();
                    let row = Row { table: Table::readings(), cells };
                    write_row(&mut line, keys, &row, RunId(9), Partition(3), 17);
                    let back = ReadBack::parse(Table::readings(), &line).unwrap();
                    let mut found = Vec::new();
                    back.cells(cells.len(), &mut found);
                    assert_eq!(found, cells);
                    assert_eq!(back.run_id, "0000000000000009");
                }
            }
        }
    }

    #[test]
    fn a_number_with_too_many_places_is_equal_to_nothing_and_a_wrong_type_is_refused() {
        let parse = |line: &'static str| ReadBack::parse(Table::readings(), line.as_bytes());
        let mut cells = Vec::new();
        let back = parse(r#"{"usage_kwh":1.00005,"other":{"a":[1]}}"#).unwrap();
        back.cells(3, &mut cells);
        assert_eq!(cells[2], Cell::Inexact(1.00005));
        for wrong in [r#"{"reading_timestamp":"yesterday"}"#, r#"{"usage_kwh":"1.0"}"#, "[]", r#"{"meter_id":"#] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
