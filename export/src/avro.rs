//! Avro object container files, deflate, as the specification has them.

use std::io::{self, Write};

use flate2::{Compression, write::DeflateEncoder};
use flux_schemas::{
    codec::encode_row,
    row::{Row, Table},
};

/// Rows of a block.
const BLOCK_ROWS: u64 = 10_000;
/// Sixteen bytes between blocks. The same in all files: equal rows give equal files.
const SYNC: &[u8; 16] = b"flux-avro-blocks";

/// Writes the rows that `rows` hands over; returns how many, and the writer.
pub(crate) fn write<W: Write>(
    table: &'static Table,
    width: usize,
    mut out: W,
    rows: impl FnOnce(&mut dyn FnMut(&Row<'_>) -> io::Result<()>) -> io::Result<u64>,
) -> io::Result<(u64, W)> {
    out.write_all(b"Obj\x01")?;
    let mut header = Vec::new();
    long(&mut header, 2);
    for (key, value) in [("avro.codec", "deflate"), ("avro.schema", table.schema(width))] {
        for text in [key, value] {
            long(&mut header, text.len() as i64);
            header.extend_from_slice(text.as_bytes());
        }
    }
    long(&mut header, 0);
    header.extend_from_slice(SYNC);
    out.write_all(&header)?;
    let (mut block, mut held) = (Vec::new(), 0);
    let count = rows(&mut |row| {
        encode_row(table, row.cells, &mut block);
        held += 1;
        if held == BLOCK_ROWS {
            flush(&mut out, &mut block, &mut held)?;
        }
        Ok(())
    })?;
    flush(&mut out, &mut block, &mut held)?;
    Ok((count, out))
}

fn flush<W: Write>(out: &mut W, block: &mut Vec<u8>, held: &mut u64) -> io::Result<()> {
    if *held == 0 {
        return Ok(());
    }
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(block)?;
    let compressed = encoder.finish()?;
    let mut head = Vec::new();
    long(&mut head, *held as i64);
    long(&mut head, compressed.len() as i64);
    out.write_all(&head)?;
    out.write_all(&compressed)?;
    out.write_all(SYNC)?;
    block.clear();
    *held = 0;
    Ok(())
}

/// Zigzag, then seven bits a byte.
fn long(out: &mut Vec<u8>, value: i64) {
    let mut bits = ((value << 1) ^ (value >> 63)) as u64;
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

#[cfg(test)]
mod tests {
    use flux_schemas::row::Cell;

    use super::*;

    #[test]
    fn apache_avro_reads_the_file() {
        let table = Table::events();
        let cells: Vec<Cell<'_>> = table
            .columns
            .iter()
            .map(|column| match (&column.kind, column.nullable) {
                (_, true) => Cell::Null,
                (flux_schemas::row::Kind::Text, _) => Cell::Text("x"),
                (flux_schemas::row::Kind::Symbol(symbols), _) => Cell::Text(symbols[1]),
                (flux_schemas::row::Kind::Id, _) => Cell::Id([7; 16]),
                _ => Cell::Int(1000),
            })
            .collect();
        let (count, file) = write(table, table.columns.len(), Vec::new(), |each| {
            for _ in 0..25_000 {
                each(&Row { table, cells: &cells })?;
            }
            Ok(25_000)
        })
        .unwrap();
        let reader = apache_avro::Reader::new(&file[..]).unwrap();
        assert_eq!((count, reader.filter(Result::is_ok).count()), (25_000, 25_000));
    }
}
