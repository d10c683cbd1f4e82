//! Rows of one hour to the bytes of one object.

use std::io::Write;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use flux_schemas::{
    codec,
    layout::{
        json::{Keys, write_row},
        plan::Format,
        table::PARQUET_SCHEMA,
    },
    reading::Reading,
    run::RunId,
    source::Partition,
    time::Timestamp,
};
use parquet::{
    basic::{Compression as ParquetCompression, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int32Type, Int64Type},
    errors::ParquetError,
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::parser::parse_message_type,
};

/// Names this encoder in plans: bytes are equal for equal names.
pub const ENCODER: &str = concat!("flux-s3/", env!("CARGO_PKG_VERSION"));

/// Rows of one event hour, held as Avro datums: a third of their size as JSON.
#[derive(Debug, Default)]
pub struct HourRows {
    datums: Vec<u8>,
    rows: Vec<HeldRow>,
    /// Smallest and largest READING_TIMESTAMP.
    pub span: Option<(Timestamp, Timestamp)>,
}

#[derive(Debug)]
struct HeldRow {
    offset: u64,
    run: RunId,
    end: u32,
}

impl HourRows {
    /// Adds a row; returns the bytes it holds.
    pub fn push(&mut self, reading: &Reading<'_>, run: RunId, offset: u64) -> usize {
        let before = self.datums.len();
        codec::encode(reading, &mut self.datums);
        self.rows.push(HeldRow { offset, run, end: self.datums.len() as u32 });
        let (low, high) = self.span.unwrap_or((reading.timestamp, reading.timestamp));
        self.span = Some((low.min(reading.timestamp), high.max(reading.timestamp)));
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

    fn iter(&self) -> impl Iterator<Item = (Reading<'_>, RunId, u64)> {
        let mut start = 0;
        self.rows.iter().map(move |row| {
            let datum = &self.datums[start..row.end as usize];
            start = row.end as usize;
            (codec::decode(datum).expect("it was encoded here"), row.run, row.offset)
        })
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
        for (reading, run, offset) in self.iter() {
            line.clear();
            write_row(&mut line, Keys::Lower, &reading, run, partition, offset);
            encoder.write_all(&line).expect("a Vec takes every write");
        }
        encoder.finish().expect("a Vec takes every write").into()
    }

    fn parquet(&self, partition: Partition) -> Result<Bytes, ParquetError> {
        let properties = WriterProperties::builder()
            .set_compression(ParquetCompression::ZSTD(ZstdLevel::try_new(1)?))
            .set_created_by(ENCODER.into())
            .build();
        let mut writer =
            SerializedFileWriter::new(Vec::new(), parse_message_type(PARQUET_SCHEMA)?.into(), properties.into())?;
        let mut group = writer.next_row_group()?;
        let text = |of: for<'a> fn(&Reading<'a>) -> &'a str| {
            self.iter().map(|(reading, _, _)| ByteArray::from(of(&reading))).collect::<Vec<_>>()
        };
        column::<ByteArrayType>(&mut group, &text(|reading| reading.meter_id))?;
        column::<Int64Type>(&mut group, &self.iter().map(|(reading, _, _)| reading.timestamp.0).collect::<Vec<_>>())?;
        column::<DoubleType>(&mut group, &self.iter().map(|(reading, _, _)| reading.usage.kwh()).collect::<Vec<_>>())?;
        column::<DoubleType>(
            &mut group,
            &self.iter().map(|(reading, _, _)| reading.voltage.volts()).collect::<Vec<_>>(),
        )?;
        column::<ByteArrayType>(&mut group, &text(|reading| reading.transformer_id))?;
        column::<ByteArrayType>(&mut group, &text(|reading| reading.circuit_id))?;
        column::<ByteArrayType>(&mut group, &text(|reading| reading.substation_id))?;
        column::<ByteArrayType>(&mut group, &text(|reading| reading.segment.as_str()))?;
        column::<ByteArrayType>(&mut group, &text(|reading| reading.service_area))?;
        column::<BoolType>(&mut group, &self.iter().map(|(reading, _, _)| reading.is_outage).collect::<Vec<_>>())?;
        column::<ByteArrayType>(&mut group, &text(|reading| reading.quality.as_str()))?;
        let runs: Vec<_> = self.iter().map(|(_, run, _)| ByteArray::from(run.to_string().as_str())).collect();
        column::<ByteArrayType>(&mut group, &runs)?;
        column::<Int32Type>(&mut group, &vec![partition.0; self.rows.len()])?;
        column::<Int64Type>(&mut group, &self.rows.iter().map(|row| row.offset as i64).collect::<Vec<_>>())?;
        group.close()?;
        Ok(writer.into_inner()?.into())
    }
}

fn column<T: DataType>(group: &mut SerializedRowGroupWriter<'_, Vec<u8>>, values: &[T::T]) -> Result<(), ParquetError> {
    let mut column = group.next_column()?.expect("the schema has this column");
    column.typed::<T>().write_batch(values, None, None)?;
    column.close()
}
