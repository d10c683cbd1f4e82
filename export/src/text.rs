//! CSV and NDJSON, columns and keys named as in PostgreSQL.

use std::io::{self, Write};

use flate2::{Compression, write::GzEncoder};
use flux_schemas::{
    layout::json::{Keys, write_cells, write_plain},
    row::{Row, Table},
};

/// What hands rows over, one by one.
type Each<'a> = &'a mut dyn FnMut(&Row<'_>) -> io::Result<()>;

/// Writes the rows that `rows` hands over; returns how many, and the writer.
pub(crate) fn csv<W: Write>(
    table: &'static Table,
    width: usize,
    mut out: W,
    rows: impl FnOnce(Each<'_>) -> io::Result<u64>,
) -> io::Result<(u64, W)> {
    let names: Vec<&str> = table.columns[..width].iter().map(|column| column.lower).collect();
    writeln!(out, "{}", names.join(","))?;
    let mut line = Vec::with_capacity(256);
    let count = rows(&mut |row| {
        line.clear();
        for (index, (column, cell)) in row.padded(width).enumerate() {
            if index > 0 {
                line.push(b',');
            }
            let from = line.len();
            write_plain(&mut line, cell, &column.kind);
            // Identifiers of somebody's own fleet may hold commas; quotes they may not.
            if line[from..].contains(&b',') {
                line.insert(from, b'"');
                line.push(b'"');
            }
        }
        line.push(b'\n');
        out.write_all(&line)
    })?;
    Ok((count, out))
}

/// Writes the rows that `rows` hands over; returns how many, and the writer.
pub(crate) fn ndjson<W: Write>(out: W, rows: impl FnOnce(Each<'_>) -> io::Result<u64>) -> io::Result<(u64, W)> {
    // No file name and no time in the gzip header: the same rows give the same bytes.
    let mut out = GzEncoder::new(out, Compression::fast());
    let mut line = Vec::with_capacity(384);
    let count = rows(&mut |row| {
        line.clear();
        write_cells(&mut line, Keys::Lower, row);
        out.write_all(&line)
    })?;
    Ok((count, out.finish()?))
}
