//! Avro encoder and decoder for the reading.
//!
//! The hot path is written by hand: 11 fields, no allocation, byte-identical to `apache-avro` (a property test says so).
//! A datum written with any other schema that Avro can resolve goes through `apache-avro`, slower and just as exact.

use std::sync::LazyLock;

use apache_avro::{Schema, reader::datum::GenericDatumReader, types::Value};

use crate::{
    reading::{Energy, Quality, Reading, Segment, Voltage},
    time::Timestamp,
};

/// The reading schema as JSON, as it is registered.
pub const READING_SCHEMA: &str = include_str!("../avro/ami_reading.avsc");

static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::parse_str(READING_SCHEMA).expect("the schema in the source tree parses"));

/// SHA-256 of the canonical form of [`READING_SCHEMA`], in hexadecimal.
pub fn schema_fingerprint() -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(SCHEMA.canonical_form()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Why a datum is not a reading. The datum itself is at fault: reading it again changes nothing.
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
    /// A field holds what no reading has.
    #[error("{field} is {value}")]
    Field {
        /// Field name.
        field: &'static str,
        /// What was found, and what is allowed.
        value: String,
    },
    /// `apache-avro` could not resolve the datum.
    #[error("the datum does not resolve to the reading schema: {0}")]
    Unresolved(String),
}

/// Appends the Avro datum of `reading`.
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

/// Decodes a datum written with [`READING_SCHEMA`]; the strings borrow from it.
///
/// # Errors
/// [`Error`] when the datum is no reading: set it aside, it will not become one.
pub fn decode(datum: &[u8]) -> Result<Reading<'_>, Error> {
    let mut input = Input(datum);
    let reading = Reading {
        meter_id: input.string("METER_ID")?,
        timestamp: Timestamp(input.long("READING_TIMESTAMP")?),
        usage: input.exact("USAGE_KWH", Energy::from_kwh, "a multiple of 0.0001 kWh")?,
        voltage: input.exact("VOLTAGE", Voltage::from_volts, "a multiple of 0.1 V")?,
        transformer_id: input.string("TRANSFORMER_ID")?,
        circuit_id: input.string("CIRCUIT_ID")?,
        substation_id: input.string("SUBSTATION_ID")?,
        segment: input.symbol("CUSTOMER_SEGMENT", Segment::ALL)?,
        service_area: input.string("SERVICE_AREA")?,
        is_outage: input.boolean("IS_OUTAGE")?,
        quality: input.symbol("DATA_QUALITY", Quality::ALL)?,
    };
    match input.0.len() {
        0 => Ok(reading),
        bytes => Err(Error::Trailing { bytes }),
    }
}

/// Decodes the datums of one writer schema.
#[derive(Debug)]
pub enum Decoder {
    /// The writer used [`READING_SCHEMA`].
    Same,
    /// The writer used another schema that resolves to it.
    Resolving(Box<Schema>),
}

impl Decoder {
    /// A decoder for data written with `writer_schema` (JSON).
    ///
    /// # Errors
    /// [`Error::Unresolved`] when no datum of that schema can be a reading.
    pub fn new(writer_schema: &str) -> Result<Self, Error> {
        let writer = Schema::parse_str(writer_schema).map_err(|error| Error::Unresolved(error.to_string()))?;
        if writer.canonical_form() == SCHEMA.canonical_form() {
            return Ok(Self::Same);
        }
        apache_avro::schema_compatibility::SchemaCompatibility::can_read(&writer, &SCHEMA)
            .map_err(|error| Error::Unresolved(error.to_string()))?;
        Ok(Self::Resolving(Box::new(writer)))
    }

    /// Decodes one datum. `scratch` holds what the reading borrows when the datum had to be resolved.
    ///
    /// # Errors
    /// As [`decode`].
    pub fn decode<'a>(&self, datum: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Reading<'a>, Error> {
        let writer = match self {
            Self::Same => return decode(datum),
            Self::Resolving(writer) => writer,
        };
        let unresolved = |error: apache_avro::Error| Error::Unresolved(error.to_string());
        let reader = GenericDatumReader::builder(writer).reader_schema(&SCHEMA).build().map_err(unresolved)?;
        let mut rest = datum;
        let value = reader.read_value(&mut rest).map_err(unresolved)?;
        if !rest.is_empty() {
            return Err(Error::Trailing { bytes: rest.len() });
        }
        scratch.clear();
        write_value(scratch, &value)?;
        decode(scratch)
    }
}

/// Writes a resolved value in the layout of [`READING_SCHEMA`].
fn write_value(out: &mut Vec<u8>, value: &Value) -> Result<(), Error> {
    match value {
        Value::Record(fields) => return fields.iter().try_for_each(|(_, field)| write_value(out, field)),
        Value::String(text) => write_string(out, text),
        Value::Long(number) | Value::TimestampMillis(number) => write_long(out, *number),
        Value::Double(number) => out.extend_from_slice(&number.to_le_bytes()),
        Value::Boolean(flag) => out.push(u8::from(*flag)),
        Value::Enum(index, _) => write_long(out, i64::from(*index)),
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
    fn take(&mut self, bytes: usize, field: &'static str) -> Result<&'a [u8], Error> {
        let (head, tail) = self.0.split_at_checked(bytes).ok_or(Error::Truncated { field })?;
        self.0 = tail;
        Ok(head)
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

    fn exact<T>(&mut self, field: &'static str, parse: fn(f64) -> Option<T>, rule: &str) -> Result<T, Error> {
        let bytes = self.take(8, field)?.try_into().expect("eight bytes were taken");
        let number = f64::from_le_bytes(bytes);
        parse(number).ok_or_else(|| Error::Field { field, value: format!("{number}, not {rule}") })
    }

    fn boolean(&mut self, field: &'static str) -> Result<bool, Error> {
        match self.take(1, field)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(Error::Field { field, value: format!("{other}, not 0 or 1") }),
        }
    }

    fn symbol<T: Copy>(&mut self, field: &'static str, all: &[T]) -> Result<T, Error> {
        let index = self.long(field)?;
        usize::try_from(index)
            .ok()
            .and_then(|index| all.get(index).copied())
            .ok_or_else(|| Error::Field { field, value: format!("symbol {index} of {}", all.len()) })
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::{schema_compatibility::SchemaCompatibility, writer::datum::GenericDatumWriter};
    use proptest::prelude::*;

    use super::*;

    fn reading() -> impl Strategy<Value = ([String; 5], i64, i64, i32, u8, bool, u8)> {
        (
            proptest::array::uniform5(".{0,40}"),
            any::<i64>(),
            0..10_000_000_000i64,
            -10_000..100_000i32,
            0..3u8,
            any::<bool>(),
            0..3u8,
        )
    }

    fn typed<'a>(
        (text, stamp, usage, voltage, segment, is_outage, quality): &'a ([String; 5], i64, i64, i32, u8, bool, u8),
    ) -> Reading<'a> {
        Reading {
            meter_id: &text[0],
            timestamp: Timestamp(*stamp),
            usage: Energy(*usage),
            voltage: Voltage(*voltage),
            transformer_id: &text[1],
            circuit_id: &text[2],
            substation_id: &text[3],
            segment: Segment::ALL[usize::from(*segment)],
            service_area: &text[4],
            is_outage: *is_outage,
            quality: Quality::ALL[usize::from(*quality)],
        }
    }

    fn value(reading: &Reading<'_>) -> Value {
        let symbol = |index: u8, name: &str| Value::Enum(u32::from(index), name.into());
        Value::Record(vec![
            ("METER_ID".into(), reading.meter_id.into()),
            ("READING_TIMESTAMP".into(), Value::TimestampMillis(reading.timestamp.0)),
            ("USAGE_KWH".into(), reading.usage.kwh().into()),
            ("VOLTAGE".into(), reading.voltage.volts().into()),
            ("TRANSFORMER_ID".into(), reading.transformer_id.into()),
            ("CIRCUIT_ID".into(), reading.circuit_id.into()),
            ("SUBSTATION_ID".into(), reading.substation_id.into()),
            ("CUSTOMER_SEGMENT".into(), symbol(reading.segment as u8, reading.segment.as_str())),
            ("SERVICE_AREA".into(), reading.service_area.into()),
            ("IS_OUTAGE".into(), reading.is_outage.into()),
            ("DATA_QUALITY".into(), symbol(reading.quality as u8, reading.quality.as_str())),
        ])
    }

    proptest! {
        #[test]
        fn encoding_is_byte_identical_to_apache_avro_and_decodes_back(raw in reading()) {
            let reading = typed(&raw);
            let mut ours = Vec::new();
            encode(&reading, &mut ours);
            let theirs = GenericDatumWriter::builder(&SCHEMA).build().unwrap()
                .write_value_to_vec(value(&reading)).unwrap();
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(decode(&ours).unwrap(), reading);
        }

        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(decode(&bytes));
        }

        #[test]
        fn a_cut_or_padded_datum_is_refused(raw in reading(), cut in 0usize..40) {
            let mut datum = Vec::new();
            encode(&typed(&raw), &mut datum);
            let shorter = datum.len().saturating_sub(cut + 1);
            prop_assert!(decode(&datum[..shorter]).is_err());
            datum.push(0);
            prop_assert_eq!(decode(&datum), Err(Error::Trailing { bytes: 1 }));
        }

        #[test]
        fn a_datum_of_an_evolved_writer_decodes_to_the_same_reading(raw in reading(), extra in any::<i64>()) {
            let reading = typed(&raw);
            for (schema, value) in evolved(&value(&reading), extra) {
                let writer = Schema::parse_str(&schema).unwrap();
                let datum = GenericDatumWriter::builder(&writer).build().unwrap().write_value_to_vec(value).unwrap();
                let decoder = Decoder::new(&schema).unwrap();
                prop_assert!(matches!(decoder, Decoder::Resolving(_)));
                let mut scratch = Vec::new();
                prop_assert_eq!(decoder.decode(&datum, &mut scratch).unwrap(), reading);
            }
        }
    }

    /// Writers that came after this reader: a new field in front, a new field at the end, the fields reversed.
    fn evolved(value: &Value, extra: i64) -> Vec<(String, Value)> {
        let Value::Record(fields) = value else { unreachable!("a reading is a record") };
        let schema: serde_json::Value = serde_json::from_str(READING_SCHEMA).unwrap();
        let with = |edit: &dyn Fn(&mut Vec<serde_json::Value>)| {
            let mut schema = schema.clone();
            edit(schema["fields"].as_array_mut().unwrap());
            schema.to_string()
        };
        let field = serde_json::json!({"name": "REGISTER", "type": ["null", "long"], "default": null});
        let register = ("REGISTER".to_string(), Value::Union(1, Box::new(Value::Long(extra))));
        let front: Vec<_> = std::iter::once(register.clone()).chain(fields.iter().cloned()).collect();
        let back: Vec<_> = fields.iter().cloned().chain(std::iter::once(register)).collect();
        let reversed: Vec<_> = fields.iter().rev().cloned().collect();
        vec![
            (with(&|fields| fields.insert(0, field.clone())), Value::Record(front)),
            (with(&|fields| fields.push(field.clone())), Value::Record(back)),
            (with(&|fields| fields.reverse()), Value::Record(reversed)),
        ]
    }

    #[test]
    fn the_schema_stays_compatible_with_every_released_version() {
        let released = [include_str!("../avro/released/ami_reading.v1.avsc")];
        for schema in released {
            let schema = Schema::parse_str(schema).unwrap();
            SchemaCompatibility::can_read(&schema, &SCHEMA).expect("the current reader reads every released datum");
            SchemaCompatibility::can_read(&SCHEMA, &schema).expect("a released reader reads every current datum");
        }
        let latest = Schema::parse_str(released[released.len() - 1]).unwrap();
        assert_eq!(
            latest.canonical_form(),
            SCHEMA.canonical_form(),
            "the schema changed: release it as a new version in avro/released"
        );
    }

    #[test]
    fn every_field_has_a_doc() {
        for schema in [READING_SCHEMA, include_str!("../avro/run_spec.avsc"), include_str!("../avro/progress.avsc")] {
            let schema: serde_json::Value = serde_json::from_str(schema).unwrap();
            for field in schema["fields"].as_array().unwrap() {
                assert!(field["doc"].as_str().is_some_and(|doc| doc.len() > 5), "{}", field["name"]);
            }
        }
    }

    #[test]
    fn a_foreign_schema_is_no_reading() {
        assert!(Decoder::new(r#"{"type":"record","name":"X","fields":[{"name":"a","type":"long"}]}"#).is_err());
        assert!(Decoder::new("not a schema").is_err());
    }
}
