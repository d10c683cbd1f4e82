//! One unit: rows, latest readings and position in one transaction.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    pin::pin,
    sync::Arc,
};

use bytes::Bytes;
use flux_runner::contract::{Durable, Error, Fill, Record, RejectedRow, Writer};
use flux_schemas::{
    layout::table::{ORIGIN, columns, postgres_table},
    row::{Cell, Kind, Table, to_double},
    source::{Position, Source},
};
use futures::SinkExt;
use tokio::sync::watch;
use tokio_postgres::{Client, Transaction};

use crate::{
    connect::{classify, connect},
    schema::ensure_latest,
    settings::PostgresSettings,
    sink::Days,
};

/// PostgreSQL counts microseconds from 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Signature, flags and extension length of a binary COPY.
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// A field count of -1 ends a binary COPY.
const COPY_END: &[u8] = &[0xff, 0xff];
/// COPY data goes out in messages of this size.
const COPY_CHUNK: usize = 256 * 1024;

/// The latest reading of a meter in a unit: where its row lies in the COPY stream.
#[derive(Debug)]
struct Latest {
    timestamp_ms: i64,
    width: usize,
    row: Range<usize>,
}

/// A unit that is being filled: the COPY streams as they will be sent, by the number of columns, and what goes beside them.
#[derive(Debug, Default)]
struct Open {
    copies: BTreeMap<usize, Vec<u8>>,
    rows: usize,
    days: BTreeSet<i64>,
    latest: HashMap<Box<str>, Latest>,
}

/// A unit as it is sent, however often that takes.
#[derive(Debug)]
struct Unit {
    upto: Position,
    history: Vec<(usize, Bytes)>,
    latest: Bytes,
    days: BTreeSet<i64>,
}

impl Open {
    fn freeze(self, upto: Position, narrow: usize) -> Unit {
        let mut latest = Vec::new();
        if !self.latest.is_empty() {
            latest.extend_from_slice(COPY_HEADER);
            for Latest { width, row, .. } in self.latest.into_values() {
                let copy = &self.copies[&width][row];
                if width == narrow {
                    latest.extend_from_slice(copy);
                } else {
                    // Of a wide row the first columns, and where it came from.
                    latest.extend_from_slice(&((narrow + ORIGIN.len()) as i16).to_be_bytes());
                    latest.extend_from_slice(&copy[2..skip(copy, narrow)]);
                    latest.extend_from_slice(&copy[skip(copy, width)..]);
                }
            }
            latest.extend_from_slice(COPY_END);
        }
        let end = |(width, mut copy): (usize, Vec<u8>)| {
            copy.extend_from_slice(COPY_END);
            (width, copy.into())
        };
        Unit { upto, history: self.copies.into_iter().map(end).collect(), latest: latest.into(), days: self.days }
    }
}

/// Where the field after the first `fields` of a COPY row begins.
fn skip(row: &[u8], fields: usize) -> usize {
    (0..fields).fold(2, |at, _| {
        let length = i32::from_be_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]);
        at + 4 + length.max(0) as usize
    })
}

/// Writes one partition.
pub struct PostgresWriter {
    client: Client,
    settings: PostgresSettings,
    sink: Arc<str>,
    table: &'static Table,
    source: Source,
    epoch: i64,
    from: Option<Position>,
    open: Open,
    frozen: Option<Unit>,
    days: Arc<Days>,
    report: watch::Sender<Durable>,
}

impl std::fmt::Debug for PostgresWriter {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("PostgresWriter")
            .field("source", &self.source)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

impl PostgresWriter {
    #[expect(clippy::too_many_arguments, reason = "called once, from the claim")]
    pub(crate) fn new(
        client: Client,
        settings: PostgresSettings,
        sink: Arc<str>,
        table: &'static Table,
        source: Source,
        epoch: i64,
        from: Option<Position>,
        days: Arc<Days>,
        report: watch::Sender<Durable>,
    ) -> Self {
        Self { client, settings, sink, table, source, epoch, from, open: Open::default(), frozen: None, days, report }
    }

    async fn write(&mut self) -> Result<(), Error> {
        let Some(unit) = &self.frozen else { return Ok(()) };
        let upto = unit.upto;
        self.days.ensure(&unit.days).await?;
        let transaction = self.client.transaction().await.map_err(classify)?;
        let (next, from) = (upto.0 as i64, self.from.map(|from| from.0 as i64));
        // First, so that a writer whose epoch is over finds out before it copies a byte.
        let moved = transaction
            .execute(
                "update flux_positions set next = $1 where sink = $2 and cluster_id = $3 and topic = $4 and partition = $5
                 and topic_id = $6 and epoch = $7 and next is not distinct from $8",
                &[&next, &&*self.sink, &&*self.source.cluster_id, &&*self.source.topic, &self.source.partition.0, &&*self.source.topic_id, &self.epoch, &from],
            )
            .await
            .map_err(classify)?;
        if moved == 0 {
            return Err(Error::Fenced(format!("{}: epoch {} is over", self.source, self.epoch)));
        }
        for (width, rows) in &unit.history {
            copy(&transaction, &postgres_table(self.table), &columns(self.table, *width), rows).await?;
        }
        if !unit.latest.is_empty() {
            copy(&transaction, "flux_latest", &columns(self.table, self.table.narrow), &unit.latest).await?;
            transaction.execute(UPSERT, &[]).await.map_err(classify)?;
        }
        transaction.commit().await.map_err(classify)?;
        self.from = Some(upto);
        self.frozen = None;
        self.report.send_replace(Durable::At(upto));
        Ok(())
    }

    /// A lost answer leaves the outcome unknown: the position says whether the commit happened.
    async fn reconnect(&mut self) -> Result<(), Error> {
        self.client = connect(&self.settings).await?;
        if self.settings.realtime {
            ensure_latest(&self.client).await?;
        }
        let row = self
            .client
            .query_one(
                "select next, epoch from flux_positions where sink = $1 and cluster_id = $2 and topic = $3 and partition = $4",
                &[&&*self.sink, &&*self.source.cluster_id, &&*self.source.topic, &self.source.partition.0],
            )
            .await
            .map_err(classify)?;
        let (next, epoch): (Option<i64>, i64) = (row.get(0), row.get(1));
        if epoch != self.epoch {
            return Err(Error::Fenced(format!("{}: epoch {} is over", self.source, self.epoch)));
        }
        let next = next.map(|next| Position(next as u64));
        if let Some(unit) = self.frozen.take_if(|unit| Some(unit.upto) == next) {
            self.from = next;
            self.report.send_replace(Durable::At(unit.upto));
        }
        Ok(())
    }
}

impl Writer for PostgresWriter {
    fn push(&mut self, record: &Record<'_>) -> Result<Fill, RejectedRow> {
        let row = &record.row;
        row.check_time().map_err(RejectedRow)?;
        for cell in row.cells {
            if let Cell::Text(text) = cell
                && text.contains('\0')
            {
                return Err(RejectedRow(format!("{text:?} holds a NUL, which PostgreSQL text cannot")));
            }
        }
        let unit = &mut self.open;
        let width = row.cells.len();
        let out = unit.copies.entry(width).or_default();
        if out.is_empty() {
            out.extend_from_slice(COPY_HEADER);
        }
        let before = out.len();
        out.extend_from_slice(&((width + ORIGIN.len()) as i16).to_be_bytes());
        for (cell, column) in row.cells.iter().zip(&row.table.columns) {
            put_cell(out, *cell, &column.kind);
        }
        put(out, &record.run.hex());
        put(out, &self.source.partition.0.to_be_bytes());
        put(out, &(record.offset as i64).to_be_bytes());
        let bytes = before..out.len();
        let held = bytes.len();
        unit.rows += 1;
        unit.days.insert(row.time().days());
        if self.settings.realtime && row.table.name == Table::readings().name {
            let latest = Latest { timestamp_ms: row.time().0, width, row: bytes };
            match unit.latest.get_mut(row.key()) {
                Some(known) if known.timestamp_ms <= latest.timestamp_ms => *known = latest,
                Some(_) => {}
                None => {
                    unit.latest.insert(row.key().into(), latest);
                }
            }
        }
        Ok(Fill { bytes: held, should_cut: unit.rows >= self.settings.batch_rows })
    }

    async fn submit(&mut self, upto: Position) -> Result<(), Error> {
        if self.frozen.is_none() {
            self.frozen = Some(std::mem::take(&mut self.open).freeze(upto, self.table.narrow));
        }
        if self.client.is_closed() {
            self.reconnect().await?;
        }
        self.write().await
    }
}

/// One cell in the binary form of its column's type.
fn put_cell(out: &mut Vec<u8>, cell: Cell<'_>, kind: &Kind) {
    match (cell, kind) {
        (Cell::Null | Cell::Inexact(_), _) => out.extend_from_slice(&(-1i32).to_be_bytes()),
        (Cell::Boolean(flag), _) => put(out, &[u8::from(flag)]),
        (Cell::Text(text), _) => put(out, text.as_bytes()),
        (Cell::Id(id), _) => put(out, &id),
        (Cell::Int(ms), Kind::Timestamp) => put(out, &(ms * 1000 - EPOCH_MICROS).to_be_bytes()),
        (Cell::Int(value), Kind::Double(places)) => put(out, &to_double(value, *places).to_be_bytes()),
        (Cell::Int(value), Kind::Float(places)) => put(out, &(to_double(value, *places) as f32).to_be_bytes()),
        (Cell::Int(value), Kind::Int) => put(out, &(value as i32).to_be_bytes()),
        (Cell::Int(value), _) => put(out, &value.to_be_bytes()),
    }
}

/// One field: its length, then its bytes.
fn put(out: &mut Vec<u8>, value: &[u8]) {
    out.extend_from_slice(&(value.len() as i32).to_be_bytes());
    out.extend_from_slice(value);
}

async fn copy(transaction: &Transaction<'_>, target: &str, columns: &str, rows: &Bytes) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let statement = format!("copy {target} ({columns}) from stdin binary");
    let mut sink = pin!(transaction.copy_in::<_, Bytes>(&statement).await.map_err(classify)?);
    for from in (0..rows.len()).step_by(COPY_CHUNK) {
        sink.send(rows.slice(from..rows.len().min(from + COPY_CHUNK))).await.map_err(classify)?;
    }
    sink.finish().await.map_err(classify)?;
    Ok(())
}

/// Sorted by meter, so that two partitions' upserts cannot lock each other in a circle.
const UPSERT: &str = "insert into ami_realtime as r select * from flux_latest order by meter_id
    on conflict (meter_id) do update set
        reading_timestamp = excluded.reading_timestamp, usage_kwh = excluded.usage_kwh, voltage = excluded.voltage,
        transformer_id = excluded.transformer_id, circuit_id = excluded.circuit_id,
        substation_id = excluded.substation_id, customer_segment = excluded.customer_segment,
        service_area = excluded.service_area, is_outage = excluded.is_outage, data_quality = excluded.data_quality,
        run_id = excluded.run_id, kafka_partition = excluded.kafka_partition, kafka_offset = excluded.kafka_offset
    where (excluded.reading_timestamp, excluded.kafka_offset) >= (r.reading_timestamp, r.kafka_offset)";
