//! What a table is called at each destination, and its shape in Parquet.

use crate::row::{Column, Kind, Table};

/// Columns that every destination adds to a row: where it came from.
pub const ORIGIN: [&str; 3] = ["run_id", "kafka_partition", "kafka_offset"];

/// The table in PostgreSQL.
pub fn postgres_table(table: &Table) -> String {
    match table.name {
        "readings" => "ami_interval_readings".into(),
        other => format!("ami_{other}"),
    }
}

/// The first `width` columns and [`ORIGIN`], as SQL lists them.
pub fn columns(table: &Table, width: usize) -> String {
    let names: Vec<&str> = table.columns[..width].iter().map(|column| column.lower).chain(ORIGIN).collect();
    names.join(", ")
}

/// The type of a column in PostgreSQL.
pub fn postgres_type(kind: &Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Symbol(_) => "text",
        Kind::Timestamp => "timestamptz",
        Kind::Double(_) => "float8",
        Kind::Float(_) => "float4",
        Kind::Int => "int",
        Kind::Long => "bigint",
        Kind::Boolean => "boolean",
        Kind::Id => "uuid",
    }
}

/// Where bronze objects live; nothing else is written there.
pub fn data_prefix(table: &Table) -> String {
    match table.name {
        "readings" => "raw/ami/".into(),
        other => format!("raw/ami_{other}/"),
    }
}

/// The default pipe of the table in Snowflake.
pub fn pipe(table: &Table) -> String {
    format!("AMI_STREAMING_{}-STREAMING", table.name.to_uppercase())
}

/// Parquet schema of rows with `width` columns; `origin` adds [`ORIGIN`].
pub fn parquet_schema(table: &Table, width: usize, origin: bool) -> String {
    let mut text = String::from("message ami {\n");
    for column in &table.columns[..width] {
        text.push_str(&parquet_column(column));
    }
    if origin {
        text.push_str(
            "required binary run_id (STRING);\nrequired int32 kafka_partition;\nrequired int64 kafka_offset;\n",
        );
    }
    text.push('}');
    text
}

fn parquet_column(column: &Column) -> String {
    let repetition = if column.nullable { "optional" } else { "required" };
    let (kind, annotation) = match column.kind {
        Kind::Text | Kind::Symbol(_) | Kind::Id => ("binary", " (STRING)"),
        Kind::Timestamp => ("int64", " (TIMESTAMP(MILLIS, true))"),
        Kind::Double(_) => ("double", ""),
        Kind::Float(_) => ("float", ""),
        Kind::Int => ("int32", ""),
        Kind::Long => ("int64", ""),
        Kind::Boolean => ("boolean", ""),
    };
    format!("{repetition} {kind} {}{annotation};\n", column.lower)
}
