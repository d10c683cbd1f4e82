//! Rows of one hour to the bytes of one object.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use flux_schemas::{
    codec,
    layout::{
        json::{Keys, write_row},
        parquet::RowGroup,
        plan::Format,
    },
    row::{Cell, Row, Table},
    run::RunId,
    source::Partition,
    time::Timestamp,
};
use parquet::errors::ParquetError;

/// Names this encoder in plans: bytes are equal for equal names.
pub const ENCODER: &str = concat!("flux-s3/", env!("CARGO_PKG_VERSION"));

/// Rows of one event hour, held as Avro datums: a third of their size as JSON.
#[derive(Debug)]
pub struct HourRows {
    table: &'static Table,
    datums: Vec<u8>,
    rows: Vec<HeldRow>,
    /// Smallest and largest time of a row.
    pub span: Option<(Timestamp, Timestamp)>,
}

#[derive(Debug)]
struct HeldRow {
    offset: u64,
    run: RunId,
    end: u32,
    width: u8,
}

impl HourRows {
    /// No rows of `table`.
    pub fn new(table: &'static Table) -> Self {
        Self { table, datums: Vec::new(), rows: Vec::new(), span: None }
    }

    /// Adds a row; returns the bytes it holds.
    pub fn push(&mut self, row: &Row<'_>, run: RunId, offset: u64) -> usize {
        let before = self.datums.len();
        codec::encode_row(self.table, row.cells, &mut self.datums);
        self.rows.push(HeldRow { offset, run, end: self.datums.len() as u32, width: row.cells.len() as u8 });
        let (low, high) = self.span.unwrap_or((row.time(), row.time()));
        self.span = Some((low.min(row.time()), high.max(row.time())));
        self.datums.len() - before + size_of::<HeldRow>()
    }

    /// Number of rows.
    pub fn len(&self) -> u64 {
        self.rows.len() as u64
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Calls `each` with every row, its run and its offset.
    fn each(&self, mut each: impl FnMut(Row<'_>, RunId, u64)) {
        let mut start = 0;
        let mut cells: Vec<Cell<'_>> = Vec::new();
        for held in &self.rows {
            let datum = &self.datums[start..held.end as usize];
            start = held.end as usize;
            codec::decode_row(self.table, held.width.into(), datum, &mut cells).expect("it was encoded here");
            each(Row { table: self.table, cells: &cells }, held.run, held.offset);
        }
    }

    /// The object's bytes.
    ///
    /// # Errors
    /// The Parquet library's error.
    pub fn encode(&self, format: Format, partition: Partition) -> Result<Bytes, ParquetError> {
        match format {
            Format::NdjsonGz => Ok(self.ndjson(partition)),
            Format::Parquet => self.parquet(partition),
        }
    }

    fn ndjson(&self, partition: Partition) -> Bytes {
        // No file name and no time in the gzip header: the same rows give the same bytes.
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        let mut line = Vec::with_capacity(512);
        self.each(|row, run, offset| {
            line.clear();
            write_row(&mut line, Keys::Lower, &row, run, partition, offset);
            encoder.write_all(&line).expect("a Vec takes every write");
        });
        encoder.finish().expect("a Vec takes every write").into()
    }

    /// With the wide columns where any row has them.
    fn parquet(&self, partition: Partition) -> Result<Bytes, ParquetError> {
        let width = self.rows.iter().map(|row| usize::from(row.width)).max().unwrap_or(self.table.narrow);
        let mut group = RowGroup::new(self.table, width, true);
        self.each(|row, run, offset| group.push(&row, Some((run, partition, offset))));
        let mut writer = group.file(Vec::new(), ENCODER)?;
        group.write(&mut writer)?;
        Ok(writer.into_inner()?.into())
    }
}
