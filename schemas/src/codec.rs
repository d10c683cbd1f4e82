//! Avro encoder and decoder.
//!
//! Written by hand, from the columns of a [`Table`]: no allocation, byte-identical to `apache-avro` (a property test says
//! so). The narrow reading, which is most of all rows, has an encoder of its own. A datum written with any other schema
//! that Avro can resolve goes through `apache-avro`, slower and just as exact.

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value};

use crate::{
    reading::Reading,
    row::{Cell, Column, Kind, Table, from_double, from_float, to_double},
};

/// Why a datum is no row. The datum itself is at fault: reading it again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The bytes end before the record does.
    #[error("the datum ends inside {field}")]
    Truncated {
        /// Field that was being read.
        field: &'static str,
    },
    /// The record ends before the bytes do.
    #[error("{bytes} bytes follow the last field")]
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// A field holds what no row has.
    #[error("{field} is {value}")]
    Field {
        /// Field name.
        field: &'static str,
        /// What was found, and what is allowed.
        value: String,
    },
    /// `apache-avro` could not resolve the datum.
    #[error("the datum does not resolve to the schema: {0}")]
    Unresolved(String),
}

/// Appends the Avro datum of a narrow reading.
pub fn encode(reading: &Reading<'_>, out: &mut Vec<u8>) {
    write_string(out, reading.meter_id);
    write_long(out, reading.timestamp.0);
    out.extend_from_slice(&reading.usage.kwh().to_le_bytes());
    out.extend_from_slice(&reading.voltage.volts().to_le_bytes());
    write_string(out, reading.transformer_id);
    write_string(out, reading.circuit_id);
    write_string(out, reading.substation_id);
    write_long(out, reading.segment as i64);
    write_string(out, reading.service_area);
    out.push(u8::from(reading.is_outage));
    write_long(out, reading.quality as i64);
}

/// Appends the Avro datum of a row: of the table's first version when it has that many cells.
pub fn encode_row(table: &Table, cells: &[Cell<'_>], out: &mut Vec<u8>) {
    for (column, cell) in table.columns.iter().zip(cells) {
        if column.nullable {
            out.push(if matches!(cell, Cell::Null) { 0 } else { 2 });
        }
        match (*cell, &column.kind) {
            (Cell::Int(value), Kind::Double(places)) => {
                out.extend_from_slice(&to_double(value, *places).to_le_bytes());
            }
            (Cell::Int(value), Kind::Float(places)) => {
                out.extend_from_slice(&(to_double(value, *places) as f32).to_le_bytes());
            }
            (Cell::Int(value), _) => write_long(out, value),
            (Cell::Text(text), Kind::Symbol(symbols)) => {
                let index = symbols.iter().position(|symbol| *symbol == text).expect("a symbol of the schema");
                write_long(out, index as i64);
            }
            (Cell::Text(text), _) => write_string(out, text),
            (Cell::Boolean(flag), _) => out.push(u8::from(flag)),
            (Cell::Id(id), _) => out.extend_from_slice(&id),
            (Cell::Null, _) => {}
            (Cell::Inexact(number), _) => unreachable!("{} {number} was never made", column.name),
        }
    }
}

/// Decodes a datum of `width` columns of `table` into `cells`; the texts borrow from it.
///
/// # Errors
/// [`Error`] when the datum is no such row: set it aside, it will not become one.
pub fn decode_row<'a>(
    table: &'static Table,
    width: usize,
    datum: &'a [u8],
    cells: &mut Vec<Cell<'a>>,
) -> Result<(), Error> {
    cells.clear();
    let mut input = Input(datum);
    for column in &table.columns[..width] {
        cells.push(input.cell(column)?);
    }
    match input.0.len() {
        0 => Ok(()),
        bytes => Err(Error::Trailing { bytes }),
    }
}

/// Decodes the datums of one writer schema.
#[derive(Debug)]
pub struct Decoder {
    table: &'static Table,
    width: usize,
    /// The writer's schema, where it is not the table's own.
    writer: Option<Box<Schema>>,
}

impl Decoder {
    /// A decoder for data written with `writer_schema` (JSON). A writer that has the columns of the wide version is
    /// resolved to it.
    ///
    /// # Errors
    /// [`Error::Unresolved`] when no datum of that schema can be a row of the table.
    pub fn new(table: &'static Table, writer_schema: &str) -> Result<Self, Error> {
        let writer = Schema::parse_str(writer_schema).map_err(|error| Error::Unresolved(error.to_string()))?;
        for width in table.widths() {
            if writer.canonical_form() == table.version(width).1.canonical_form() {
                return Ok(Self { table, width, writer: None });
            }
        }
        let has = |name: &str| match &writer {
            Schema::Record(record) => record.fields.iter().any(|field| field.name == name),
            _ => false,
        };
        let wide = table.columns.get(table.narrow).is_some_and(|column| has(column.name));
        let width = if wide { table.columns.len() } else { table.narrow };
        apache_avro::schema_compatibility::SchemaCompatibility::can_read(&writer, &table.version(width).1)
            .map_err(|error| Error::Unresolved(error.to_string()))?;
        Ok(Self { table, width, writer: Some(Box::new(writer)) })
    }

    /// Decodes one datum into `cells`. `scratch` holds what the cells borrow when the datum had to be resolved.
    ///
    /// # Errors
    /// As [`decode_row`].
    pub fn decode<'a>(
        &self,
        datum: &'a [u8],
        scratch: &'a mut Vec<u8>,
        cells: &mut Vec<Cell<'a>>,
    ) -> Result<(), Error> {
        let Some(writer) = &self.writer else { return decode_row(self.table, self.width, datum, cells) };
        let unresolved = |error: apache_avro::Error| Error::Unresolved(error.to_string());
        let reader = GenericDatumReader::builder(writer)
            .reader_schema(&self.table.version(self.width).1)
            .build()
            .map_err(unresolved)?;
        let mut rest = datum;
        let value = reader.read_value(&mut rest).map_err(unresolved)?;
        if !rest.is_empty() {
            return Err(Error::Trailing { bytes: rest.len() });
        }
        scratch.clear();
        write_value(scratch, &value)?;
        decode_row(self.table, self.width, scratch, cells)
    }
}

/// Writes a resolved value in the layout of its schema.
fn write_value(out: &mut Vec<u8>, value: &Value) -> Result<(), Error> {
    match value {
        Value::Record(fields) => return fields.iter().try_for_each(|(_, field)| write_value(out, field)),
        Value::Union(index, value) => {
            write_long(out, i64::from(*index));
            return write_value(out, value);
        }
        Value::Null => {}
        Value::String(text) => write_string(out, text),
        Value::Int(number) => write_long(out, i64::from(*number)),
        Value::Long(number) | Value::TimestampMillis(number) => write_long(out, *number),
        Value::Double(number) => out.extend_from_slice(&number.to_le_bytes()),
        Value::Float(number) => out.extend_from_slice(&number.to_le_bytes()),
        Value::Boolean(flag) => out.push(u8::from(*flag)),
        Value::Enum(index, _) => write_long(out, i64::from(*index)),
        Value::Fixed(_, bytes) => out.extend_from_slice(bytes),
        other => return Err(Error::Unresolved(format!("unexpected {other:?}"))),
    }
    Ok(())
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    write_long(out, text.len() as i64);
    out.extend_from_slice(text.as_bytes());
}

/// Zigzag, then seven bits a byte, least significant first.
fn write_long(out: &mut Vec<u8>, value: i64) {
    let mut bits = ((value << 1) ^ (value >> 63)) as u64;
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn cell(&mut self, column: &'static Column) -> Result<Cell<'a>, Error> {
        let field = column.name;
        if column.nullable {
            match self.long(field)? {
                0 => return Ok(Cell::Null),
                1 => {}
                branch => return Err(Error::Field { field, value: format!("branch {branch} of 2") }),
            }
        }
        Ok(match &column.kind {
            Kind::Text => Cell::Text(self.string(field)?),
            Kind::Symbol(symbols) => Cell::Text(self.symbol(field, symbols)?),
            Kind::Timestamp | Kind::Long => Cell::Int(self.long(field)?),
            Kind::Int => {
                let value = self.long(field)?;
                let value = i32::try_from(value)
                    .map_err(|_| Error::Field { field, value: format!("{value}, more than 32 bits") })?;
                Cell::Int(i64::from(value))
            }
            Kind::Double(places) => {
                let number = f64::from_le_bytes(self.bytes(field)?);
                Cell::Int(from_double(number, *places).ok_or_else(|| inexact(field, number, *places))?)
            }
            Kind::Float(places) => {
                let number = f32::from_le_bytes(self.bytes(field)?);
                Cell::Int(from_float(number, *places).ok_or_else(|| inexact(field, number.into(), *places))?)
            }
            Kind::Boolean => Cell::Boolean(self.boolean(field)?),
            Kind::Id => Cell::Id(self.bytes(field)?),
        })
    }

    fn take(&mut self, bytes: usize, field: &'static str) -> Result<&'a [u8], Error> {
        let (head, tail) = self.0.split_at_checked(bytes).ok_or(Error::Truncated { field })?;
        self.0 = tail;
        Ok(head)
    }

    fn bytes<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Error> {
        Ok(self.take(N, field)?.try_into().expect("as many bytes were taken"))
    }

    fn long(&mut self, field: &'static str) -> Result<i64, Error> {
        let mut bits = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1, field)?[0];
            bits |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
            }
        }
        Err(Error::Field { field, value: "a number of more than 64 bits".into() })
    }

    fn string(&mut self, field: &'static str) -> Result<&'a str, Error> {
        let length = self.long(field)?;
        let length = usize::try_from(length)
            .map_err(|_| Error::Field { field, value: format!("a string of length {length}") })?;
        std::str::from_utf8(self.take(length, field)?).map_err(|_| Error::Field { field, value: "not UTF-8".into() })
    }

    fn boolean(&mut self, field: &'static str) -> Result<bool, Error> {
        match self.take(1, field)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::Field { field, value: format!("{other}, not 0 or 1") }),
        }
    }

    fn symbol(&mut self, field: &'static str, symbols: &[&'static str]) -> Result<&'static str, Error> {
        let index = self.long(field)?;
        usize::try_from(index)
            .ok()
            .and_then(|index| symbols.get(index).copied())
            .ok_or_else(|| Error::Field { field, value: format!("symbol {index} of {}", symbols.len()) })
    }
}

fn inexact(field: &'static str, number: f64, places: u32) -> Error {
    Error::Field { field, value: format!("{number}, not a multiple of {}", to_double(1, places)) }
}

#[cfg(test)]
mod tests {
    use apache_avro::{schema_compatibility::SchemaCompatibility, writer::datum::GenericDatumWriter};
    use proptest::prelude::*;

    use super::*;
    use crate::{
        reading::{Energy, Quality, Segment, Voltage},
        time::Timestamp,
    };

    /// What a cell may hold, owned.
    #[derive(Debug, Clone)]
    enum Owned {
        Null,
        Boolean(bool),
        Int(i64),
        Text(String),
        Symbol(&'static str),
        Id([u8; 16]),
    }

    impl Owned {
        fn cell(&self) -> Cell<'_> {
            match self {
                Self::Null => Cell::Null,
                Self::Boolean(flag) => Cell::Boolean(*flag),
                Self::Int(value) => Cell::Int(*value),
                Self::Text(text) => Cell::Text(text),
                Self::Symbol(symbol) => Cell::Text(symbol),
                Self::Id(id) => Cell::Id(*id),
            }
        }
    }

    fn owned(column: &'static Column) -> BoxedStrategy<Owned> {
        let some = match &column.kind {
            Kind::Text => ".{0,40}".prop_map(Owned::Text).boxed(),
            Kind::Symbol(symbols) => proptest::sample::select(symbols.clone()).prop_map(Owned::Symbol).boxed(),
            Kind::Timestamp | Kind::Long => any::<i64>().prop_map(Owned::Int).boxed(),
            Kind::Int => any::<i32>().prop_map(|value| Owned::Int(value.into())).boxed(),
            Kind::Double(_) => (-10_000_000_000..10_000_000_000i64).prop_map(Owned::Int).boxed(),
            Kind::Float(_) => (-99_999..99_999i64).prop_map(Owned::Int).boxed(),
            Kind::Boolean => any::<bool>().prop_map(Owned::Boolean).boxed(),
            Kind::Id => any::<[u8; 16]>().prop_map(Owned::Id).boxed(),
        };
        if column.nullable { prop_oneof![1 => Just(Owned::Null), 3 => some].boxed() } else { some }
    }

    fn row() -> impl Strategy<Value = (&'static Table, Vec<Owned>)> {
        let shapes: Vec<_> =
            Table::all().iter().flat_map(|table| table.widths().map(|width| (*table, width))).collect();
        proptest::sample::select(shapes)
            .prop_flat_map(|(table, width)| (Just(table), table.columns[..width].iter().map(owned).collect::<Vec<_>>()))
    }

    fn value(column: &Column, cell: Cell<'_>) -> Value {
        let value = match (cell, &column.kind) {
            (Cell::Int(value), Kind::Double(places)) => Value::Double(to_double(value, *places)),
            (Cell::Int(value), Kind::Float(places)) => Value::Float(to_double(value, *places) as f32),
            (Cell::Int(value), Kind::Timestamp) => Value::TimestampMillis(value),
            (Cell::Int(value), Kind::Int) => Value::Int(value as i32),
            (Cell::Int(value), _) => Value::Long(value),
            (Cell::Text(text), Kind::Symbol(symbols)) => {
                let index = symbols.iter().position(|symbol| *symbol == text).unwrap();
                Value::Enum(index as u32, text.into())
            }
            (Cell::Text(text), _) => Value::String(text.into()),
            (Cell::Boolean(flag), _) => Value::Boolean(flag),
            (Cell::Id(id), _) => Value::Fixed(16, id.to_vec()),
            (Cell::Null | Cell::Inexact(_), _) => Value::Null,
        };
        match (column.nullable, cell) {
            (true, Cell::Null) => Value::Union(0, Box::new(value)),
            (true, _) => Value::Union(1, Box::new(value)),
            (false, _) => value,
        }
    }

    fn record(table: &Table, cells: &[Cell<'_>]) -> Vec<(String, Value)> {
        table.columns.iter().zip(cells).map(|(column, cell)| (column.name.into(), value(column, *cell))).collect()
    }

    proptest! {
        #[test]
        fn encoding_is_byte_identical_to_apache_avro_and_decodes_back((table, owned) in row()) {
            let cells: Vec<_> = owned.iter().map(Owned::cell).collect();
            let mut ours = Vec::new();
            encode_row(table, &cells, &mut ours);
            let theirs = GenericDatumWriter::builder(&table.version(cells.len()).1).build().unwrap()
                .write_value_to_vec(Value::Record(record(table, &cells))).unwrap();
            prop_assert_eq!(&ours, &theirs);
            let mut back = Vec::new();
            decode_row(table, cells.len(), &ours, &mut back).unwrap();
            prop_assert_eq!(back, cells);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            for table in Table::all() {
                for width in table.widths() {
                    drop(decode_row(table, width, &bytes, &mut Vec::new()));
                }
            }
        }

        #[test]
        fn a_cut_or_padded_datum_is_refused((table, owned) in row(), cut in 0usize..40) {
            let cells: Vec<_> = owned.iter().map(Owned::cell).collect();
            let mut datum = Vec::new();
            encode_row(table, &cells, &mut datum);
            let shorter = datum.len().saturating_sub(cut + 1);
            let mut back = Vec::new();
            prop_assert!(decode_row(table, cells.len(), &datum[..shorter], &mut back).is_err());
            datum.push(0);
            prop_assert_eq!(decode_row(table, cells.len(), &datum, &mut Vec::new()), Err(Error::Trailing { bytes: 1 }));
        }

        #[test]
        fn a_datum_of_an_evolved_writer_decodes_to_the_same_row((table, owned) in row(), extra in any::<i64>()) {
            let cells: Vec<_> = owned.iter().map(Owned::cell).collect();
            for (schema, value) in evolved(table.schema(cells.len()), &record(table, &cells), extra) {
                let writer = Schema::parse_str(&schema).unwrap();
                let datum = GenericDatumWriter::builder(&writer).build().unwrap().write_value_to_vec(value).unwrap();
                let decoder = Decoder::new(table, &schema).unwrap();
                prop_assert!(decoder.writer.is_some());
                let (mut scratch, mut back) = (Vec::new(), Vec::new());
                decoder.decode(&datum, &mut scratch, &mut back).unwrap();
                prop_assert_eq!(back, cells.clone());
            }
        }

        #[test]
        fn the_narrow_encoder_writes_what_the_table_says(text in proptest::array::uniform5(".{0,40}"),
            stamp in any::<i64>(), usage in 0..10_000_000_000i64, voltage in -10_000..100_000i32) {
            let reading = Reading {
                meter_id: &text[0], timestamp: Timestamp(stamp), usage: Energy(usage), voltage: Voltage(voltage),
                transformer_id: &text[1], circuit_id: &text[2], substation_id: &text[3],
                segment: Segment::Commercial, service_area: &text[4], is_outage: true, quality: Quality::Outage,
            };
            let (mut fast, mut slow) = (Vec::new(), Vec::new());
            encode(&reading, &mut fast);
            encode_row(Table::readings(), &reading.cells(), &mut slow);
            prop_assert_eq!(fast, slow);
        }
    }

    /// Writers that came after this reader: a new field in front, a new field at the end, the fields reversed.
    fn evolved(schema: &str, fields: &[(String, Value)], extra: i64) -> Vec<(String, Value)> {
        let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
        let with = |edit: &dyn Fn(&mut Vec<serde_json::Value>)| {
            let mut schema = schema.clone();
            edit(schema["fields"].as_array_mut().unwrap());
            schema.to_string()
        };
        let field = serde_json::json!({"name": "LATER", "type": ["null", "long"], "default": null});
        let later = ("LATER".to_string(), Value::Union(1, Box::new(Value::Long(extra))));
        let front: Vec<_> = std::iter::once(later.clone()).chain(fields.iter().cloned()).collect();
        let back: Vec<_> = fields.iter().cloned().chain(std::iter::once(later)).collect();
        let reversed: Vec<_> = fields.iter().rev().cloned().collect();
        vec![
            (with(&|fields| fields.insert(0, field.clone())), Value::Record(front)),
            (with(&|fields| fields.push(field.clone())), Value::Record(back)),
            (with(&|fields| fields.reverse()), Value::Record(reversed)),
        ]
    }

    #[test]
    fn schemas_stay_compatible_with_every_released_version() {
        let released = [
            (Table::readings(), 11, include_str!("../avro/released/ami_reading.v1.avsc")),
            (Table::readings(), 37, include_str!("../avro/released/ami_reading.v2.avsc")),
            (Table::events(), 18, include_str!("../avro/released/ami_event.v1.avsc")),
            (Table::assets(), 13, include_str!("../avro/released/grid_asset.v1.avsc")),
        ];
        for (table, width, text) in released {
            let schema = Schema::parse_str(text).unwrap();
            assert_eq!(
                schema.canonical_form(),
                table.version(width).1.canonical_form(),
                "the schema changed: release it as a new version in avro/released"
            );
            for width in table.widths() {
                let current = &table.version(width).1;
                SchemaCompatibility::can_read(&schema, current).expect("every reader reads every released datum");
                SchemaCompatibility::can_read(current, &schema).expect("a released reader reads every datum");
            }
        }
    }

    #[test]
    fn every_field_has_a_doc() {
        let tables = Table::all().into_iter().flat_map(|table| table.widths().map(|width| table.schema(width)));
        for schema in tables.chain([
            include_str!("../avro/run_spec.avsc"),
            include_str!("../avro/progress.avsc"),
            include_str!("../avro/dropped.avsc"),
        ]) {
            let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
            for field in schema["fields"].as_array().unwrap() {
                assert!(field["doc"].as_str().is_some_and(|doc| doc.len() > 5), "{}", field["name"]);
            }
        }
    }

    #[test]
    fn a_foreign_schema_is_no_row() {
        for table in Table::all() {
            let foreign = r#"{"type":"record","name":"X","fields":[{"name":"a","type":"long"}]}"#;
            assert!(Decoder::new(table, foreign).is_err());
            assert!(Decoder::new(table, "not a schema").is_err());
        }
    }
}
