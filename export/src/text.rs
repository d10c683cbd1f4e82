//! A line a reading: CSV below a header line, NDJSON in gzip.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use flate2::{Compression, write::GzEncoder};
use flux_schemas::layout::{
    json::{Keys, write_decimal, write_reading},
    table::HISTORY_COLUMNS,
};

use crate::{Rows, parquet::READING_COLUMNS};

/// Writes the rows; returns how many, and the writer.
pub(crate) fn csv<W: Write>(mut rows: Rows<'_>, mut out: W, written: &AtomicU64) -> io::Result<(u64, W)> {
    writeln!(out, "{}", HISTORY_COLUMNS[..READING_COLUMNS].join(","))?;
    let mut line = Vec::with_capacity(256);
    let rows = rows.each(|_, reading| {
        line.clear();
        // Identifiers and names have neither commas nor quotes.
        line.extend_from_slice(reading.meter_id.as_bytes());
        line.push(b',');
        reading.timestamp.write_iso(&mut line);
        line.push(b',');
        write_decimal(&mut line, reading.usage.0, 4);
        line.push(b',');
        write_decimal(&mut line, i64::from(reading.voltage.0), 1);
        let texts = [
            reading.transformer_id,
            reading.circuit_id,
            reading.substation_id,
            reading.segment.as_str(),
            reading.service_area,
            if reading.is_outage { "true" } else { "false" },
            reading.quality.as_str(),
        ];
        for text in texts {
            line.push(b',');
            line.extend_from_slice(text.as_bytes());
        }
        line.push(b'\n');
        written.fetch_add(1, Relaxed);
        out.write_all(&line)
    })?;
    Ok((rows, out))
}

/// Writes the rows; returns how many, and the writer.
pub(crate) fn ndjson<W: Write>(mut rows: Rows<'_>, out: W, written: &AtomicU64) -> io::Result<(u64, W)> {
    // No file name and no time in the gzip header: the same rows give the same bytes.
    let mut out = GzEncoder::new(out, Compression::fast());
    let mut line = Vec::with_capacity(384);
    let rows = rows.each(|_, reading| {
        line.clear();
        write_reading(&mut line, Keys::Lower, reading);
        written.fetch_add(1, Relaxed);
        out.write_all(&line)
    })?;
    Ok((rows, out.finish()?))
}
