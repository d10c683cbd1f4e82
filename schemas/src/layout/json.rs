//! JSON rows: lower-case keys in bronze files, upper-case keys for Snowpipe (the table's column names).

use std::borrow::Cow;

use serde::Deserialize;

use crate::{
    reading::{Energy, Quality, Reading, Segment, Voltage},
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

impl Keys {
    fn names(self) -> &'static [&'static str; 14] {
        match self {
            Self::Lower => &LOWER,
            Self::Upper => &UPPER,
        }
    }
}

/// `"name":`, ready to append.
macro_rules! keys {
    ($($name:literal),+ $(,)?) => { [$(concat!("\"", $name, "\":")),+] };
}

const LOWER: [&str; 14] = keys!(
    "meter_id",
    "reading_timestamp",
    "usage_kwh",
    "voltage",
    "transformer_id",
    "circuit_id",
    "substation_id",
    "customer_segment",
    "service_area",
    "is_outage",
    "data_quality",
    "run_id",
    "kafka_partition",
    "kafka_offset"
);
const UPPER: [&str; 14] = keys!(
    "METER_ID",
    "READING_TIMESTAMP",
    "USAGE_KWH",
    "VOLTAGE",
    "TRANSFORMER_ID",
    "CIRCUIT_ID",
    "SUBSTATION_ID",
    "CUSTOMER_SEGMENT",
    "SERVICE_AREA",
    "IS_OUTAGE",
    "DATA_QUALITY",
    "RUN_ID",
    "KAFKA_PARTITION",
    "KAFKA_OFFSET"
);

/// Appends one line: a JSON object and a newline. Numbers are written from their integers, so they read back exactly.
pub fn write_row(out: &mut Vec<u8>, keys: Keys, reading: &Reading<'_>, run: RunId, partition: Partition, offset: u64) {
    use std::io::Write;
    let names = keys.names();
    write_columns(out, names, reading);
    write!(out, ",{}\"{run}\",{}{partition},{}{offset}", names[11], names[12], names[13])
        .expect("a Vec takes every write");
    out.extend_from_slice(b"}\n");
}

/// Appends one line with the columns of the reading alone.
pub fn write_reading(out: &mut Vec<u8>, keys: Keys, reading: &Reading<'_>) {
    write_columns(out, keys.names(), reading);
    out.extend_from_slice(b"}\n");
}

fn write_columns(out: &mut Vec<u8>, names: &[&str; 14], reading: &Reading<'_>) {
    let mut field = |index: usize, write: &dyn Fn(&mut Vec<u8>)| {
        out.push(if index == 0 { b'{' } else { b',' });
        out.extend_from_slice(names[index].as_bytes());
        write(out);
    };
    field(0, &|out| write_string(out, reading.meter_id));
    field(1, &|out| {
        out.push(b'"');
        reading.timestamp.write_iso(out);
        out.push(b'"');
    });
    field(2, &|out| write_decimal(out, reading.usage.0, 4));
    field(3, &|out| write_decimal(out, i64::from(reading.voltage.0), 1));
    field(4, &|out| write_string(out, reading.transformer_id));
    field(5, &|out| write_string(out, reading.circuit_id));
    field(6, &|out| write_string(out, reading.substation_id));
    field(7, &|out| write_string(out, reading.segment.as_str()));
    field(8, &|out| write_string(out, reading.service_area));
    field(9, &|out| out.extend_from_slice(if reading.is_outage { b"true" } else { b"false" }));
    field(10, &|out| write_string(out, reading.quality.as_str()));
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

/// `value` / 10^decimals, in decimal digits.
pub fn write_decimal(out: &mut Vec<u8>, value: i64, decimals: u32) {
    use std::io::Write;
    let scale = 10_u64.pow(decimals);
    let sign = if value < 0 { "-" } else { "" };
    let magnitude = value.unsigned_abs();
    let (whole, fraction) = (magnitude / scale, magnitude % scale);
    write!(out, "{sign}{whole}.{fraction:0width$}", width = decimals as usize).expect("a Vec takes every write");
}

/// A row read back, from either case of keys. Unknown keys are somebody else's columns and are passed over.
#[derive(Debug, Deserialize)]
#[expect(missing_docs, reason = "the columns of the reading")]
pub struct Row<'a> {
    #[serde(borrow, alias = "METER_ID")]
    pub meter_id: Cow<'a, str>,
    #[serde(borrow, alias = "READING_TIMESTAMP")]
    pub reading_timestamp: Cow<'a, str>,
    #[serde(alias = "USAGE_KWH")]
    pub usage_kwh: f64,
    #[serde(alias = "VOLTAGE")]
    pub voltage: f64,
    #[serde(borrow, alias = "TRANSFORMER_ID")]
    pub transformer_id: Cow<'a, str>,
    #[serde(borrow, alias = "CIRCUIT_ID")]
    pub circuit_id: Cow<'a, str>,
    #[serde(borrow, alias = "SUBSTATION_ID")]
    pub substation_id: Cow<'a, str>,
    #[serde(borrow, alias = "CUSTOMER_SEGMENT")]
    pub customer_segment: Cow<'a, str>,
    #[serde(borrow, alias = "SERVICE_AREA")]
    pub service_area: Cow<'a, str>,
    #[serde(alias = "IS_OUTAGE")]
    pub is_outage: bool,
    #[serde(borrow, alias = "DATA_QUALITY")]
    pub data_quality: Cow<'a, str>,
    #[serde(borrow, alias = "RUN_ID")]
    pub run_id: Cow<'a, str>,
}

impl Row<'_> {
    /// The typed reading; `None` when a value is none that a reading has.
    pub fn reading(&self) -> Option<Reading<'_>> {
        Some(Reading {
            meter_id: &self.meter_id,
            timestamp: Timestamp::parse(&self.reading_timestamp)?,
            usage: Energy::from_kwh(self.usage_kwh)?,
            voltage: Voltage::from_volts(self.voltage)?,
            transformer_id: &self.transformer_id,
            circuit_id: &self.circuit_id,
            substation_id: &self.substation_id,
            segment: Segment::parse(&self.customer_segment)?,
            service_area: &self.service_area,
            is_outage: self.is_outage,
            quality: Quality::parse(&self.data_quality)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            for keys in [Keys::Lower, Keys::Upper] {
                let mut line = Vec::new();
                write_row(&mut line, keys, &reading, RunId(9), Partition(3), 17);
                let row: Row<'_> = serde_json::from_slice(&line).unwrap();
                assert_eq!(row.reading(), Some(reading));
                assert_eq!(row.run_id, "0000000000000009");
            }
        }
    }
}
