//! `ami_interval_readings`, in one snapshot, as a binary COPY.

use std::collections::BTreeMap;

use bytes::{Buf, BytesMut};
use flux_schemas::{
    layout::table::HISTORY_COLUMNS,
    reading::{Energy, Quality, Reading, Segment, Voltage},
    run::RunSpec,
    time::Timestamp,
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

pub(super) async fn positions(login: &PostgresLogin, sink: &str, spec: &RunSpec) -> Result<BTreeMap<i32, i64>, Error> {
    let client = connect(login).await?;
    let rows = client
        .query(
            "select partition, coalesce(next, 0) from flux_positions where sink = $1 and cluster_id = $2 and topic = $3 and topic_id = $4",
            &[&sink, &spec.cluster_id, &spec.topic, &spec.topic_id],
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
    // The id is sixteen hexadecimal digits: nothing to quote. COPY takes no parameters.
    let statement = format!(
        "copy (select {} from ami_interval_readings where run_id = '{}') to stdout binary",
        HISTORY_COLUMNS.join(", "),
        tally.run_id()
    );
    let stream = match client.copy_out(&statement).await {
        Ok(stream) => stream,
        Err(error) if error.code() == Some(&SqlState::UNDEFINED_TABLE) => {
            tally.note("there is no table ami_interval_readings".into());
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
    let mut fields = [&[][..]; HISTORY_COLUMNS.len()];
    let mut at = 2;
    for field in &mut fields {
        let length = i32::from_be_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]]).max(0) as usize;
        *field = &row[at + 4..at + 4 + length];
        at += 4 + length;
    }
    let eight = |index: usize| <[u8; 8]>::try_from(fields[index]).unwrap_or_default();
    let origin = || {
        let partition = <[u8; 4]>::try_from(fields[12]).map_or(-1, i32::from_be_bytes);
        format!("kafka_partition {partition}, kafka_offset {}", i64::from_be_bytes(eight(13)))
    };
    let text = |index: usize| std::str::from_utf8(fields[index]).unwrap_or_default();
    let micros = i64::from_be_bytes(eight(1)).saturating_add(946_684_800_000_000);
    let (Some(segment), Some(quality), 0) = (Segment::parse(text(7)), Quality::parse(text(10)), micros % 1000) else {
        return tally.unreadable("a column that no reading has", origin);
    };
    let (kwh, volts) = (f64::from_be_bytes(eight(2)), f64::from_be_bytes(eight(3)));
    let (usage, voltage) = (Energy::from_kwh(kwh), Voltage::from_volts(volts));
    let reading = Reading {
        meter_id: text(0),
        timestamp: Timestamp(micros.div_euclid(1000)),
        usage: usage.unwrap_or(Energy(0)),
        voltage: voltage.unwrap_or(Voltage(0)),
        transformer_id: text(4),
        circuit_id: text(5),
        substation_id: text(6),
        segment,
        service_area: text(8),
        is_outage: fields[9] == [1],
        quality,
    };
    if usage.is_none() || voltage.is_none() {
        return tally.altered(&reading, &format!("USAGE_KWH is {kwh}, VOLTAGE is {volts}"), origin);
    }
    tally.row(&reading, origin);
}
