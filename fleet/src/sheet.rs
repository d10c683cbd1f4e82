//! A list as it comes: a header, and lines of texts.

use std::{fs::File, path::Path};

use flux_service::{postgres::PostgresLogin, settings::Settings};
use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::Field,
};

/// Any error, as a cause.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Lines that a list may have.
const LIMIT: usize = 2_000_000;

/// A list.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    pub(crate) header: Vec<String>,
    /// Line in the file, from 1, and its values.
    pub(crate) rows: Vec<(u64, Vec<Option<String>>)>,
}

impl Sheet {
    fn push(&mut self, line: u64, values: Vec<Option<String>>) -> Result<(), Cause> {
        if self.rows.len() == LIMIT {
            return Err(format!("more than {LIMIT} lines").into());
        }
        self.rows.push((line, values));
        Ok(())
    }
}

/// From a file, by its extension.
pub(crate) fn file(path: &Path) -> Result<Sheet, Cause> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => csv(path),
        Some("parquet") => parquet(path),
        _ => Err("use a .csv or .parquet file, or postgres:<select>".into()),
    }
}

fn csv(path: &Path) -> Result<Sheet, Cause> {
    let mut reader = csv::Reader::from_path(path)?;
    let mut sheet = Sheet { header: reader.headers()?.iter().map(Into::into).collect(), rows: Vec::new() };
    for record in reader.records() {
        let record = record?;
        let line = record.position().map_or(0, csv::Position::line);
        let values = record.iter().map(|value| Some(value.to_string()).filter(|value| !value.is_empty()));
        sheet.push(line, values.collect())?;
    }
    Ok(sheet)
}

fn parquet(path: &Path) -> Result<Sheet, Cause> {
    let reader = SerializedFileReader::new(File::open(path)?)?;
    let fields = reader.metadata().file_metadata().schema().get_fields();
    let mut sheet = Sheet { header: fields.iter().map(|field| field.name().into()).collect(), rows: Vec::new() };
    for (number, record) in reader.get_row_iter(None)?.enumerate() {
        let record = record?;
        let value = |field: &Field| match field {
            Field::Null => None,
            Field::Str(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        let values = record.get_column_iter().map(|(_, field)| value(field)).collect();
        sheet.push(number as u64 + 1, values)?;
    }
    Ok(sheet)
}

/// From a query; whatever its types, texts.
pub(crate) async fn postgres(settings: &Settings, query: &str) -> Result<Sheet, Cause> {
    let client = PostgresLogin::new(settings)?.connect().await?;
    let mut sheet = Sheet::default();
    // The simple protocol answers with texts, and with one statement's rows.
    let messages = client.simple_query(query).await?;
    for message in messages {
        let tokio_postgres::SimpleQueryMessage::Row(row) = message else { continue };
        if sheet.header.is_empty() {
            sheet.header = row.columns().iter().map(|column| column.name().to_string()).collect();
        }
        let values = (0..row.len()).map(|index| row.get(index).map(Into::into)).collect();
        let line = sheet.rows.len() as u64 + 1;
        sheet.push(line, values)?;
    }
    if sheet.header.is_empty() {
        return Err("the query has no rows".into());
    }
    Ok(sheet)
}
