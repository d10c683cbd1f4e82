//! CSV: a header line, then a row a reading.

use std::{
    io::{self, Write},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use flux_schemas::layout::{json::write_decimal, table::HISTORY_COLUMNS};

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
