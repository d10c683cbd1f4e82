//! Parquet: zstd pages, row groups of 131,072 rows. The narrow readings of a plain run, which are most of all rows, have a
//! writer of their own that makes no text twice.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use flux_generator::run::Run;
use flux_schemas::{
    layout::{parquet::RowGroup, table::parquet_schema},
    reading::{Quality, Reading, Segment},
    row::{Row, Table},
};
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type},
    errors::{ParquetError, Result},
    file::{
        properties::{WriterProperties, WriterPropertiesPtr},
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    schema::{
        parser::parse_message_type,
        types::{ColumnPath, TypePtr},
    },
};

use crate::Rows;

/// Who made the files.
const CREATED_BY: &str = concat!("flux ", env!("CARGO_PKG_VERSION"));
/// Rows of a row group.
const GROUP_ROWS: usize = 1 << 17;

/// The columns of a row group, filled again and again, and the texts that they point to.
pub(crate) struct Columns {
    schema: TypePtr,
    properties: WriterPropertiesPtr,
    meter_ids: Vec<ByteArray>,
    transformer_ids: Vec<ByteArray>,
    circuit_ids: Vec<ByteArray>,
    substation_ids: Vec<ByteArray>,
    segments: Vec<ByteArray>,
    qualities: Vec<ByteArray>,
    service_area: ByteArray,
    meters: Vec<u32>,
    timestamps: Vec<i64>,
    usages: Vec<f64>,
    voltages: Vec<f64>,
    outages: Vec<bool>,
    quality: Vec<ByteArray>,
    text: Vec<ByteArray>,
}

impl Columns {
    /// Texts of their own: a count that threads share would go back and forth between processors.
    pub(crate) fn new(run: &Run) -> Self {
        let fleet = run.fleet();
        let of_meters = |text: &dyn Fn(u32) -> Vec<u8>| (0..fleet.len()).map(|meter| text(meter).into()).collect();
        let table = Table::readings();
        let schema = parse_message_type(&parquet_schema(table, table.narrow, false)).expect("the schema is valid");
        // Numbers do not repeat: a dictionary of them is given up after much work.
        let number = |name: &str| ColumnPath::from(name);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("level 1 exists")))
            .set_created_by(CREATED_BY.into())
            .set_column_dictionary_enabled(number("usage_kwh"), false)
            .set_column_encoding(number("usage_kwh"), Encoding::BYTE_STREAM_SPLIT)
            .build();
        Self {
            schema: Arc::new(schema),
            properties: properties.into(),
            meter_ids: of_meters(&|meter| fleet.meter_id(meter).into()),
            transformer_ids: of_meters(&|meter| fleet.transformer_id(fleet.place(meter).transformer).into()),
            circuit_ids: of_meters(&|meter| fleet.circuit_id(fleet.place(meter).circuit).into()),
            substation_ids: of_meters(&|meter| fleet.substation_id(fleet.place(meter).substation).into()),
            segments: Segment::ALL.iter().map(|segment| segment.as_str().into()).collect(),
            qualities: Quality::ALL.iter().map(|quality| quality.as_str().into()).collect(),
            service_area: fleet.area().name.into(),
            meters: Vec::with_capacity(GROUP_ROWS),
            timestamps: Vec::with_capacity(GROUP_ROWS),
            usages: Vec::with_capacity(GROUP_ROWS),
            voltages: Vec::with_capacity(GROUP_ROWS),
            outages: Vec::with_capacity(GROUP_ROWS),
            quality: Vec::with_capacity(GROUP_ROWS),
            text: Vec::with_capacity(GROUP_ROWS),
        }
    }

    /// Writes the rows; returns how many, and the writer.
    pub(crate) fn write<W: Write + Send>(
        &mut self,
        mut rows: Rows<'_>,
        out: W,
        written: &AtomicU64,
    ) -> Result<(u64, W)> {
        let run = rows.run;
        let mut writer = SerializedFileWriter::new(out, self.schema.clone(), self.properties.clone())?;
        let count = rows.each(|meter, reading| {
            self.push(meter, reading);
            if self.meters.len() == GROUP_ROWS { self.flush(run, &mut writer, written) } else { Ok(()) }
        })?;
        self.flush(run, &mut writer, written)?;
        Ok((count, writer.into_inner()?))
    }

    fn push(&mut self, meter: u32, reading: &Reading<'_>) {
        self.meters.push(meter);
        self.timestamps.push(reading.timestamp.0);
        self.usages.push(reading.usage.kwh());
        self.voltages.push(reading.voltage.volts());
        self.outages.push(reading.is_outage);
        self.quality.push(self.qualities[reading.quality as usize].clone());
    }

    fn flush<W: Write + Send>(
        &mut self,
        run: &Run,
        writer: &mut SerializedFileWriter<W>,
        written: &AtomicU64,
    ) -> Result<()> {
        if self.meters.is_empty() {
            return Ok(());
        }
        let mut group = writer.next_row_group()?;
        self.text(&mut group, |columns, meter| &columns.meter_ids[meter as usize])?;
        column::<Int64Type, _>(&mut group, &self.timestamps)?;
        column::<DoubleType, _>(&mut group, &self.usages)?;
        column::<DoubleType, _>(&mut group, &self.voltages)?;
        self.text(&mut group, |columns, meter| &columns.transformer_ids[meter as usize])?;
        self.text(&mut group, |columns, meter| &columns.circuit_ids[meter as usize])?;
        self.text(&mut group, |columns, meter| &columns.substation_ids[meter as usize])?;
        self.text(&mut group, |columns, meter| &columns.segments[run.fleet().place(meter).segment as usize])?;
        self.text(&mut group, |columns, _| &columns.service_area)?;
        column::<BoolType, _>(&mut group, &self.outages)?;
        column::<ByteArrayType, _>(&mut group, &self.quality)?;
        group.close()?;
        written.fetch_add(self.meters.len() as u64, Relaxed);
        self.meters.clear();
        self.timestamps.clear();
        self.usages.clear();
        self.voltages.clear();
        self.outages.clear();
        self.quality.clear();
        Ok(())
    }

    /// A column of texts that follow from the meter.
    fn text<W: Write + Send>(
        &mut self,
        group: &mut SerializedRowGroupWriter<'_, W>,
        of: impl Fn(&Self, u32) -> &ByteArray,
    ) -> Result<()> {
        let mut text = std::mem::take(&mut self.text);
        text.clear();
        text.extend(self.meters.iter().map(|meter| of(self, *meter).clone()));
        let outcome = column::<ByteArrayType, _>(group, &text);
        self.text = text;
        outcome
    }
}

fn column<T: DataType, W: Write + Send>(group: &mut SerializedRowGroupWriter<'_, W>, values: &[T::T]) -> Result<()> {
    let mut column = group.next_column()?.ok_or_else(|| ParquetError::General("a column too many".into()))?;
    column.typed::<T>().write_batch(values, None, None)?;
    column.close()
}

/// Writes the rows of any table that `rows` hands over; returns how many, and the writer.
pub(crate) fn write<W: Write + Send>(
    table: &'static Table,
    width: usize,
    out: W,
    rows: impl FnOnce(&mut dyn FnMut(&Row<'_>) -> Result<()>) -> Result<u64>,
) -> Result<(u64, W)> {
    let mut group = RowGroup::new(table, width, false);
    let mut file = group.file(out, CREATED_BY)?;
    let count = rows(&mut |row| {
        group.push(row, None);
        if group.len() == GROUP_ROWS { group.write(&mut file) } else { Ok(()) }
    })?;
    if !group.is_empty() {
        group.write(&mut file)?;
    }
    Ok((count, file.into_inner()?))
}
