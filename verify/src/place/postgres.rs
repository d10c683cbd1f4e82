//! A table, in one snapshot, as a binary COPY.

use std::collections::BTreeMap;

use bytes::{Buf, BytesMut};
use flux_schemas::{
    layout::table::{columns, postgres_table},
    row::{Cell, Kind},
    source::Source,
};
use flux_service::postgres::PostgresLogin;
use futures::{StreamExt, pin_mut};
use tokio_postgres::{Client, error::SqlState};

use crate::{Error, tally::Tally};

fn failed(doing: &str) -> impl Fn(tokio_postgres::Error) -> Error + '_ {
    move |error| Error::Place { place: "postgres", doing: doing.into(), source: error.into() }
}

async fn connect(login: &PostgresLogin) -> Result<Client, Error> {
    login.connect().await.map_err(|error| Error::Place {
        place: "postgres",
        doing: "connecting".into(),
        source: error.into(),
    })
}

pub(super) async fn positions(login: &PostgresLogin, sink: &str, source: &Source) -> Result<BTreeMap<i32, i64>, Error> {
    let client = connect(login).await?;
    let rows = client
        .query(
            "select partition, coalesce(next, 0) from flux_positions where sink = $1 and cluster_id = $2 and topic = $3 and topic_id = $4",
            &[&sink, &&*source.cluster_id, &&*source.topic, &&*source.topic_id],
        )
        .await;
    match rows {
        Ok(rows) => Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect()),
        // The sink has never run.
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => Ok(BTreeMap::new()),
        Err(error) => Err(failed("reading positions")(error)),
    }
}

pub(super) async fn scan(login: &PostgresLogin, tally: &mut Tally) -> Result<(), Error> {
    let client = connect(login).await?;
    client
        .batch_execute("set timezone = 'UTC'; begin isolation level repeatable read read only")
        .await
        .map_err(failed("beginning a snapshot"))?;
    let name = postgres_table(tally.table());
    // The id is sixteen hexadecimal digits: nothing to quote. COPY takes no parameters.
    let statement = format!(
        "copy (select {} from {name} where run_id = '{}') to stdout binary",
        columns(tally.table(), tally.width()),
        tally.run_id()
    );
    let stream = match client.copy_out(&statement).await {
        Ok(stream) => stream,
        Err(error) if matches!(error.code(), Some(&SqlState::UNDEFINED_TABLE | &SqlState::UNDEFINED_COLUMN)) => {
            tally.note(format!("there is no table {name}, or it lacks columns of this run"));
            return Ok(());
        }
        Err(error) => return Err(failed("copying rows out")(error)),
    };
    pin_mut!(stream);
    let mut buffer = BytesMut::new();
    let mut header = true;
    while let Some(chunk) = stream.next().await {
        buffer.extend_from_slice(&chunk.map_err(failed("copying rows out"))?);
        if header && buffer.len() >= 19 {
            // Signature of 11 bytes, flags of 4, extension length of 4.
            buffer.advance(19);
            header = false;
        }
        if header {
            continue;
        }
        while let Some(length) = row_length(&buffer) {
            let row = buffer.split_to(length);
            take(&row, tally);
        }
    }
    Ok(())
}

/// Bytes of the next complete row; `None` when there is none, or at the trailer.
fn row_length(buffer: &[u8]) -> Option<usize> {
    let fields = i16::from_be_bytes(buffer.get(..2)?.try_into().ok()?);
    let mut at = 2;
    for _ in 0..usize::try_from(fields).ok()? {
        let length = i32::from_be_bytes(buffer.get(at..at + 4)?.try_into().ok()?);
        at += 4 + length.max(0) as usize;
    }
    (buffer.len() >= at && fields > 0).then_some(at)
}

fn take(row: &[u8], tally: &mut Tally) {
    let (table, width) = (tally.table(), tally.width());
    let mut at = 2;
    let mut field = || {
        let length = i32::from_be_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
        let from = at + 4;
        at = from + length.max(0) as usize;
        (length >= 0).then(|| &row[from..at])
    };
    let mut cells = Vec::with_capacity(width);
    let mut odd = None;
    for column in &table.columns[..width] {
        let cell = field().map_or(Some(Cell::Null), |value| cell(value, &column.kind));
        odd = odd.or(cell.is_none().then_some(column.name));
        cells.push(cell.unwrap_or(Cell::Null));
    }
    // After the columns: run, partition, offset.
    field();
    let partition = field().and_then(|value| Some(i32::from_be_bytes(value.try_into().ok()?))).unwrap_or(-1);
    let offset = field().and_then(|value| Some(i64::from_be_bytes(value.try_into().ok()?))).unwrap_or(-1);
    let origin = || format!("kafka_partition {partition}, kafka_offset {offset}");
    match odd {
        Some(column) => tally.unreadable(&format!("{column} holds what no row has"), origin),
        None => tally.row(&cells, origin),
    }
}

/// A value in the binary form of its column's type; `None` for what no row has.
fn cell<'a>(value: &'a [u8], kind: &Kind) -> Option<Cell<'a>> {
    Some(match kind {
        Kind::Text | Kind::Symbol(_) => Cell::Text(std::str::from_utf8(value).ok()?),
        Kind::Timestamp => {
            let micros = i64::from_be_bytes(value.try_into().ok()?).saturating_add(946_684_800_000_000);
            Cell::Int(Some(micros).filter(|micros| micros % 1000 == 0)?.div_euclid(1000))
        }
        Kind::Double(_) => kind.number(f64::from_be_bytes(value.try_into().ok()?)),
        Kind::Float(_) => kind.number(f32::from_be_bytes(value.try_into().ok()?).into()),
        Kind::Int => Cell::Int(i32::from_be_bytes(value.try_into().ok()?).into()),
        Kind::Long => Cell::Int(i64::from_be_bytes(value.try_into().ok()?)),
        Kind::Boolean => Cell::Boolean(value == [1]),
        Kind::Id => Cell::Id(value.try_into().ok()?),
    })
}
