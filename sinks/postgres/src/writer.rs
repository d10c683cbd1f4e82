//! One unit: rows, latest readings and position in one transaction.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};
use flux_runner::contract::{Durable, Error, Fill, Record, RejectedRow, Writer};
use flux_schemas::{
    layout::table::HISTORY_COLUMNS,
    source::{Position, Source},
};
use futures::SinkExt;
use tokio::sync::watch;
use tokio_postgres::{Client, Transaction, types::ToSql};

use crate::{
    connect::{classify, connect},
    settings::PostgresSettings,
    sink::Days,
};

/// PostgreSQL counts microseconds from 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Signature, flags and extension length of a binary COPY.
const COPY_HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// COPY data goes out in messages of this size.
const COPY_CHUNK: usize = 256 * 1024;

/// The latest reading of a meter in a unit.
#[derive(Debug, Clone)]
struct Latest {
    timestamp_ms: i64,
    offset: i64,
    usage_kwh: f64,
    voltage: f64,
    transformer_id: String,
    circuit_id: String,
    substation_id: String,
    segment: &'static str,
    service_area: String,
    is_outage: bool,
    quality: &'static str,
    run: String,
}

/// A unit: the COPY stream as it will be sent, and what goes beside it.
#[derive(Debug, Default)]
struct Unit {
    copy: BytesMut,
    rows: usize,
    days: BTreeSet<i64>,
    latest: BTreeMap<String, Latest>,
}

/// Writes one partition.
pub struct PostgresWriter {
    client: Client,
    settings: PostgresSettings,
    sink: Arc<str>,
    source: Source,
    epoch: i64,
    from: Option<Position>,
    open: Unit,
    frozen: Option<(Position, Unit)>,
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
        source: Source,
        epoch: i64,
        from: Option<Position>,
        days: Arc<Days>,
        report: watch::Sender<Durable>,
    ) -> Self {
        Self { client, settings, sink, source, epoch, from, open: Unit::default(), frozen: None, days, report }
    }

    async fn write(&mut self) -> Result<(), Error> {
        let Some((upto, unit)) = &self.frozen else { return Ok(()) };
        let upto = *upto;
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
        if unit.rows > 0 {
            copy(&transaction, unit).await?;
            if self.settings.realtime {
                upsert(&transaction, unit, self.source.partition.0).await?;
            }
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
        if let Some((upto, _)) = self.frozen.take_if(|(upto, _)| Some(*upto) == next) {
            self.from = next;
            self.report.send_replace(Durable::At(upto));
        }
        Ok(())
    }
}

impl Writer for PostgresWriter {
    fn push(&mut self, record: &Record<'_>) -> Result<Fill, RejectedRow> {
        let reading = record.reading;
        let texts =
            [reading.meter_id, reading.transformer_id, reading.circuit_id, reading.substation_id, reading.service_area];
        if let Some(text) = texts.into_iter().find(|text| text.contains('\0')) {
            return Err(RejectedRow(format!("{text:?} holds a NUL, which PostgreSQL text cannot")));
        }
        let unit = &mut self.open;
        let before = unit.copy.len();
        let micros = reading
            .timestamp
            .0
            .checked_mul(1000)
            .and_then(|micros| micros.checked_sub(EPOCH_MICROS))
            .filter(|_| (0..=253_402_300_799_999).contains(&reading.timestamp.0))
            .ok_or_else(|| {
                RejectedRow(format!("READING_TIMESTAMP {} ms lies outside 1970 to 9999", reading.timestamp.0))
            })?;
        let out = &mut unit.copy;
        if out.is_empty() {
            out.put_slice(COPY_HEADER);
        }
        let run = record.run.to_string();
        out.put_i16(HISTORY_COLUMNS.len() as i16);
        put_text(out, reading.meter_id);
        put_fixed(out, &micros.to_be_bytes());
        put_fixed(out, &reading.usage.kwh().to_be_bytes());
        put_fixed(out, &reading.voltage.volts().to_be_bytes());
        put_text(out, reading.transformer_id);
        put_text(out, reading.circuit_id);
        put_text(out, reading.substation_id);
        put_text(out, reading.segment.as_str());
        put_text(out, reading.service_area);
        put_fixed(out, &[u8::from(reading.is_outage)]);
        put_text(out, reading.quality.as_str());
        put_text(out, &run);
        put_fixed(out, &self.source.partition.0.to_be_bytes());
        put_fixed(out, &(record.offset as i64).to_be_bytes());
        unit.rows += 1;
        unit.days.insert(reading.timestamp.days());
        if self.settings.realtime {
            let newer =
                unit.latest.get(reading.meter_id).is_none_or(|latest| latest.timestamp_ms <= reading.timestamp.0);
            if newer {
                let latest = Latest {
                    timestamp_ms: reading.timestamp.0,
                    offset: record.offset as i64,
                    usage_kwh: reading.usage.kwh(),
                    voltage: reading.voltage.volts(),
                    transformer_id: reading.transformer_id.into(),
                    circuit_id: reading.circuit_id.into(),
                    substation_id: reading.substation_id.into(),
                    segment: reading.segment.as_str(),
                    service_area: reading.service_area.into(),
                    is_outage: reading.is_outage,
                    quality: reading.quality.as_str(),
                    run,
                };
                unit.latest.insert(reading.meter_id.into(), latest);
            }
        }
        let bytes = unit.copy.len() - before;
        Ok(Fill { bytes, should_cut: unit.rows >= self.settings.batch_rows })
    }

    async fn submit(&mut self, upto: Position) -> Result<(), Error> {
        if self.frozen.is_none() {
            let mut unit = std::mem::take(&mut self.open);
            if unit.rows > 0 {
                unit.copy.put_i16(-1);
            }
            self.frozen = Some((upto, unit));
        }
        if self.client.is_closed() {
            self.reconnect().await?;
        }
        self.write().await
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    put_fixed(out, text.as_bytes());
}

fn put_fixed(out: &mut BytesMut, value: &[u8]) {
    out.put_i32(value.len() as i32);
    out.put_slice(value);
}

async fn copy(transaction: &Transaction<'_>, unit: &Unit) -> Result<(), Error> {
    let statement = format!("copy ami_interval_readings ({}) from stdin binary", HISTORY_COLUMNS.join(", "));
    let mut sink = pin!(transaction.copy_in::<_, Bytes>(&statement).await.map_err(classify)?);
    for chunk in unit.copy.chunks(COPY_CHUNK) {
        sink.send(Bytes::copy_from_slice(chunk)).await.map_err(classify)?;
    }
    sink.finish().await.map_err(classify)?;
    Ok(())
}

/// Newest reading of each meter. Sorted by meter, so that two partitions' upserts cannot lock each other in a circle.
async fn upsert(transaction: &Transaction<'_>, unit: &Unit, partition: i32) -> Result<(), Error> {
    let column = |of: fn(&Latest) -> &str| unit.latest.values().map(of).collect::<Vec<&str>>();
    let numbers = |of: fn(&Latest) -> f64| unit.latest.values().map(of).collect::<Vec<f64>>();
    let meters: Vec<&str> = unit.latest.keys().map(String::as_str).collect();
    let stamps: Vec<f64> = unit.latest.values().map(|latest| latest.timestamp_ms as f64 / 1000.0).collect();
    let outages: Vec<bool> = unit.latest.values().map(|latest| latest.is_outage).collect();
    let offsets: Vec<i64> = unit.latest.values().map(|latest| latest.offset).collect();
    let (usage, voltage) = (numbers(|latest| latest.usage_kwh), numbers(|latest| latest.voltage));
    let texts = [
        column(|latest| &latest.transformer_id),
        column(|latest| &latest.circuit_id),
        column(|latest| &latest.substation_id),
        column(|latest| latest.segment),
        column(|latest| &latest.service_area),
        column(|latest| latest.quality),
        column(|latest| &latest.run),
    ];
    let [transformers, circuits, substations, segments, areas, qualities, runs] = &texts;
    let values: [&(dyn ToSql + Sync); 14] = [
        &meters,
        &stamps,
        &usage,
        &voltage,
        transformers,
        circuits,
        substations,
        segments,
        areas,
        &outages,
        qualities,
        runs,
        &partition,
        &offsets,
    ];
    transaction
        .execute(
            "insert into ami_realtime as r
             select m, to_timestamp(t), u, v, x, c, s, g, a, o, q, n, $13, f
             from unnest($1::text[], $2::float8[], $3::float8[], $4::float8[], $5::text[], $6::text[], $7::text[],
                         $8::text[], $9::text[], $10::bool[], $11::text[], $12::text[], $14::bigint[])
                  as rows (m, t, u, v, x, c, s, g, a, o, q, n, f)
             on conflict (meter_id) do update set
                 reading_timestamp = excluded.reading_timestamp, usage_kwh = excluded.usage_kwh,
                 voltage = excluded.voltage, transformer_id = excluded.transformer_id,
                 circuit_id = excluded.circuit_id, substation_id = excluded.substation_id,
                 customer_segment = excluded.customer_segment, service_area = excluded.service_area,
                 is_outage = excluded.is_outage, data_quality = excluded.data_quality, run_id = excluded.run_id,
                 kafka_partition = excluded.kafka_partition, kafka_offset = excluded.kafka_offset
             where (excluded.reading_timestamp, excluded.kafka_offset) >= (r.reading_timestamp, r.kafka_offset)",
            &values,
        )
        .await
        .map_err(classify)?;
    Ok(())
}
