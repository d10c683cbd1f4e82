//! Rows of any table to Parquet, and back.

use std::{io::Write, sync::Arc};

use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, FloatType, Int32Type, Int64Type},
    errors::Result,
    file::{
        properties::WriterProperties,
        writer::{SerializedFileWriter, SerializedRowGroupWriter},
    },
    record::{Field, Row as Record},
    schema::{parser::parse_message_type, types::ColumnPath},
};

use crate::{
    layout::table::{ORIGIN, parquet_schema},
    row::{Cell, Column, Kind, Row, Table, id_text, parse_id, to_double},
    run::RunId,
    source::Partition,
};

/// The columns of a row group, filled row by row.
#[derive(Debug)]
pub struct RowGroup {
    table: &'static Table,
    width: usize,
    origin: bool,
    columns: Vec<Values>,
    rows: usize,
}

#[derive(Debug)]
struct Values {
    /// 1 where there is a value; empty for a column that is never null.
    levels: Vec<i16>,
    data: Data,
}

#[derive(Debug)]
enum Data {
    Bytes(Vec<ByteArray>),
    Int32(Vec<i32>),
    Int64(Vec<i64>),
    Double(Vec<f64>),
    Float(Vec<f32>),
    Boolean(Vec<bool>),
}

impl Data {
    fn new(kind: &Kind) -> Self {
        match kind {
            Kind::Text | Kind::Symbol(_) | Kind::Id => Self::Bytes(Vec::new()),
            Kind::Timestamp | Kind::Long => Self::Int64(Vec::new()),
            Kind::Double(_) => Self::Double(Vec::new()),
            Kind::Float(_) => Self::Float(Vec::new()),
            Kind::Int => Self::Int32(Vec::new()),
            Kind::Boolean => Self::Boolean(Vec::new()),
        }
    }

    fn push(&mut self, cell: Cell<'_>, column: &Column) {
        match (self, cell) {
            (Self::Bytes(values), Cell::Text(text)) => values.push(text.into()),
            (Self::Bytes(values), Cell::Id(id)) => values.push(id_text(id).to_vec().into()),
            (Self::Int64(values), Cell::Int(value)) => values.push(value),
            (Self::Int32(values), Cell::Int(value)) => values.push(value as i32),
            (Self::Double(values), Cell::Int(value)) => values.push(to_double(value, column.kind.places())),
            (Self::Float(values), Cell::Int(value)) => values.push(to_double(value, column.kind.places()) as f32),
            (Self::Boolean(values), Cell::Boolean(flag)) => values.push(flag),
            (_, cell) => unreachable!("{} holds {cell:?}", column.name),
        }
    }

    fn clear(&mut self) {
        match self {
            Self::Bytes(values) => values.clear(),
            Self::Int32(values) => values.clear(),
            Self::Int64(values) => values.clear(),
            Self::Double(values) => values.clear(),
            Self::Float(values) => values.clear(),
            Self::Boolean(values) => values.clear(),
        }
    }
}

impl RowGroup {
    /// Rows of the first `width` columns; `origin` adds where each came from.
    pub fn new(table: &'static Table, width: usize, origin: bool) -> Self {
        let mut columns: Vec<Values> = table.columns[..width]
            .iter()
            .map(|column| Values { levels: Vec::new(), data: Data::new(&column.kind) })
            .collect();
        if origin {
            let kinds = [Kind::Text, Kind::Int, Kind::Long];
            columns.extend(kinds.map(|kind| Values { levels: Vec::new(), data: Data::new(&kind) }));
        }
        Self { table, width, origin, columns, rows: 0 }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Adds a row, and where it came from.
    pub fn push(&mut self, row: &Row<'_>, origin: Option<(RunId, Partition, u64)>) {
        for ((column, cell), values) in row.padded(self.width).zip(&mut self.columns) {
            if column.nullable {
                values.levels.push(i16::from(cell != Cell::Null));
            }
            if cell != Cell::Null {
                values.data.push(cell, column);
            }
        }
        if let (Some((run, partition, offset)), [run_id, partitions, offsets]) =
            (origin, &mut self.columns[self.width..])
        {
            if let Data::Bytes(values) = &mut run_id.data {
                values.push(run.hex().to_vec().into());
            }
            if let Data::Int32(values) = &mut partitions.data {
                values.push(partition.0);
            }
            if let Data::Int64(values) = &mut offsets.data {
                values.push(offset as i64);
            }
        }
        self.rows += 1;
    }

    /// A file for such rows: zstd pages.
    ///
    /// # Errors
    /// The Parquet library's error.
    pub fn file<W: Write + Send>(&self, out: W, created_by: &str) -> Result<SerializedFileWriter<W>> {
        let schema = parse_message_type(&parquet_schema(self.table, self.width, self.origin))?;
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1)?))
            .set_created_by(created_by.into())
            // Numbers do not repeat: a dictionary of them is given up after much work.
            .set_column_dictionary_enabled(ColumnPath::from("usage_kwh"), false)
            .set_column_encoding(ColumnPath::from("usage_kwh"), Encoding::BYTE_STREAM_SPLIT)
            .build();
        SerializedFileWriter::new(out, Arc::new(schema), properties.into())
    }

    /// Writes the rows as a group of their own, and forgets them.
    ///
    /// # Errors
    /// The Parquet library's error.
    pub fn write<W: Write + Send>(&mut self, file: &mut SerializedFileWriter<W>) -> Result<()> {
        let mut group = file.next_row_group()?;
        for Values { levels, data } in &mut self.columns {
            match data {
                Data::Bytes(values) => column::<ByteArrayType, W>(&mut group, values, levels)?,
                Data::Int32(values) => column::<Int32Type, W>(&mut group, values, levels)?,
                Data::Int64(values) => column::<Int64Type, W>(&mut group, values, levels)?,
                Data::Double(values) => column::<DoubleType, W>(&mut group, values, levels)?,
                Data::Float(values) => column::<FloatType, W>(&mut group, values, levels)?,
                Data::Boolean(values) => column::<BoolType, W>(&mut group, values, levels)?,
            }
            levels.clear();
            data.clear();
        }
        group.close()?;
        self.rows = 0;
        Ok(())
    }
}

fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    levels: &[i16],
) -> Result<()> {
    let mut column = group.next_column()?.expect("the schema has this column");
    let levels = Some(levels).filter(|levels| !levels.is_empty());
    column.typed::<T>().write_batch(values, levels, None)?;
    column.close()
}

/// The first `width` cells of a record read back, and its run; `None` when it has a value that no row has.
pub fn read_back<'a>(
    table: &'static Table,
    width: usize,
    record: &'a Record,
    cells: &mut Vec<Cell<'a>>,
) -> Option<&'a str> {
    cells.clear();
    cells.resize(width, Cell::Null);
    let mut run = "";
    for (name, field) in record.get_column_iter() {
        if name == ORIGIN[0]
            && let Field::Str(text) = field
        {
            run = text;
        }
        if let Some(index) = table.columns[..width].iter().position(|column| column.lower == name) {
            cells[index] = cell(field, &table.columns[index].kind)?;
        }
    }
    Some(run)
}

fn cell<'a>(field: &'a Field, kind: &Kind) -> Option<Cell<'a>> {
    Some(match (field, kind) {
        (Field::Null, _) => Cell::Null,
        (Field::Bool(flag), _) => Cell::Boolean(*flag),
        (Field::Int(value), _) => Cell::Int((*value).into()),
        (Field::Long(value) | Field::TimestampMillis(value), _) => Cell::Int(*value),
        (Field::Double(number), kind) => kind.number(*number),
        (Field::Float(number), kind) => kind.number((*number).into()),
        (Field::Str(text), Kind::Id) => Cell::Id(parse_id(text)?),
        (Field::Str(text), _) => Cell::Text(text),
        _ => return None,
    })
}
