//! The contract, as tests that every sink passes on its real destination.
//!
//! A sink's test calls [`all`] with a way to open the sink and a way to read back the offsets that are visible. Each
//! check panics with what it found; the checks use partitions of their own and may run in any order.

use std::{future::Future, sync::Arc, time::Duration};

use flux_schemas::{
    reading::{Energy, Quality, Reading, Segment, Voltage},
    row::{Row, Table},
    run::RunId,
    source::{Partition, Position, Source},
    time::Timestamp,
};
use tokio::sync::watch;

use crate::contract::{Claim, Durable, Error, Record, Sink, Writer};

/// Patience with a destination that reports durable later.
const PATIENCE: Duration = Duration::from_secs(60);

/// A destination under test.
pub trait Destination: Sync {
    /// The sink.
    type Sink: Sink;

    /// Another instance of the sink, as another process would have it.
    fn open(&self) -> Self::Sink;

    /// The offsets of all rows of the source that a user of the destination sees, in any order, repeats included.
    fn offsets(&self, source: &Source) -> impl Future<Output = Vec<u64>> + Send;
}

/// Runs every check.
pub async fn all<D: Destination>(destination: &D) {
    rows_and_position_become_durable_together(destination).await;
    what_was_not_submitted_is_not_there(destination).await;
    two_writers_write_every_row_once(destination).await;
    a_zombie_that_wakes_up_late_adds_nothing(destination).await;
    positions_may_jump_over_holes(destination).await;
    a_replaced_topic_is_refused(destination).await;
}

/// A source of its own for a check.
fn source(partition: i32) -> Source {
    Source {
        cluster_id: "suite".into(),
        topic: "suite.readings".into(),
        topic_id: "first".into(),
        partition: Partition(partition),
    }
}

/// Pushes one row for each offset.
///
/// # Panics
/// When the writer refuses a valid row.
pub fn push<W: Writer>(writer: &mut W, offsets: impl Iterator<Item = u64>) {
    for offset in offsets {
        let meter = format!("MTR-TGC-{:07}", offset % 10 + 1);
        let reading = Reading {
            meter_id: &meter,
            timestamp: Timestamp(1_772_323_200_000 + offset as i64 / 10 * 900_000),
            usage: Energy(offset as i64 + 1),
            voltage: Voltage(1200),
            transformer_id: "XFMR-TGC-000001",
            circuit_id: "CIRCUIT-TGC-00001",
            substation_id: "SUB-TGC-0001",
            segment: Segment::Residential,
            service_area: "TEXAS_GULF_COAST",
            is_outage: false,
            quality: Quality::Valid,
        };
        let cells = reading.cells();
        let record = Record {
            offset,
            due: reading.timestamp,
            run: RunId(0x5017e),
            row: Row { table: Table::readings(), cells: &cells },
        };
        writer.push(&record).expect("a valid row is taken");
    }
}

async fn wait_for(durable: &mut watch::Receiver<Durable>, position: u64) {
    let reached = durable.wait_for(|durable| matches!(durable, Durable::At(at) if at.0 >= position));
    tokio::time::timeout(PATIENCE, reached).await.expect("durable in time").expect("the claim lives");
}

async fn claim<S: Sink>(sink: &S, source: &Source) -> Claim<S::Writer> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        match sink.claim(source).await {
            Ok(claim) => return claim,
            Err(Error::Unavailable { .. } | Error::Fenced(_)) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            Err(error) => panic!("claim of {source}: {error}"),
        }
    }
}

/// Writes the rest of 0..upto as the runner would: claims, reads the position, goes on there; again when fenced.
async fn write_until<S: Sink>(sink: &S, source: &Source, upto: u64) {
    for _ in 0..10 {
        let Claim { mut writer, position, mut durable } = claim(sink, source).await;
        let from = position.map_or(0, |position| position.0);
        if from >= upto {
            return;
        }
        let end = writer.boundary().map_or(upto, |boundary| boundary.0);
        push(&mut writer, from..end);
        match writer.submit(Position(end)).await {
            Ok(()) => wait_for(&mut durable, end).await,
            Err(Error::Fenced(_)) => {}
            Err(error) => panic!("submit to {source}: {error}"),
        }
    }
    panic!("{source}: not written after ten claims");
}

async fn expect_each_once<D: Destination>(destination: &D, source: &Source, upto: u64) {
    let mut offsets = destination.offsets(source).await;
    offsets.sort_unstable();
    assert_eq!(offsets, (0..upto).collect::<Vec<_>>(), "every row of {source} once");
}

async fn rows_and_position_become_durable_together<D: Destination>(destination: &D) {
    let source = source(1);
    let sink = destination.open();
    let Claim { mut writer, position, mut durable } = claim(&sink, &source).await;
    assert_eq!(position, None, "nothing was written yet");
    push(&mut writer, 0..50);
    writer.submit(Position(50)).await.expect("submit");
    wait_for(&mut durable, 50).await;
    push(&mut writer, 50..80);
    writer.submit(Position(80)).await.expect("submit");
    wait_for(&mut durable, 80).await;
    drop(writer);
    let position = claim(&destination.open(), &source).await.position;
    assert_eq!(position, Some(Position(80)), "the position is at the destination");
    expect_each_once(destination, &source, 80).await;
}

async fn what_was_not_submitted_is_not_there<D: Destination>(destination: &D) {
    let source = source(2);
    let sink = destination.open();
    let mut first = claim(&sink, &source).await;
    push(&mut first.writer, 0..30);
    drop(first);
    assert_eq!(claim(&sink, &source).await.position, None, "dropped rows leave no position");
    write_until(&sink, &source, 30).await;
    expect_each_once(destination, &source, 30).await;
}

/// The deterministic two-writer test: the older writer goes on although the newer one has claimed.
async fn two_writers_write_every_row_once<D: Destination>(destination: &D) {
    let source = source(3);
    let (first, second) = (destination.open(), destination.open());
    write_until(&first, &source, 10).await;
    let mut older = claim(&first, &source).await;
    let mut newer = claim(&second, &source).await;
    assert_eq!((older.position, newer.position), (Some(Position(10)), Some(Position(10))));
    push(&mut older.writer, 10..20);
    push(&mut newer.writer, 10..15);
    let outcomes = (older.writer.submit(Position(20)).await, newer.writer.submit(Position(15)).await);
    let fenced = |outcome: &Result<(), Error>| matches!(outcome, Err(Error::Fenced(_)));
    assert!(fenced(&outcomes.0) != fenced(&outcomes.1), "exactly one writer is fenced: {outcomes:?}");
    drop((older, newer));
    write_until(&second, &source, 20).await;
    expect_each_once(destination, &source, 20).await;
}

/// A frozen process wakes up with a full unit long after another has written everything.
async fn a_zombie_that_wakes_up_late_adds_nothing<D: Destination>(destination: &D) {
    let source = source(4);
    let (first, second) = (destination.open(), destination.open());
    let mut zombie = claim(&first, &source).await;
    push(&mut zombie.writer, 0..25);
    write_until(&second, &source, 40).await;
    let outcome = zombie.writer.submit(Position(25)).await;
    assert!(matches!(outcome, Err(Error::Fenced(_))), "the zombie is fenced: {outcome:?}");
    expect_each_once(destination, &source, 40).await;
}

async fn positions_may_jump_over_holes<D: Destination>(destination: &D) {
    let source = source(5);
    let sink = destination.open();
    let mut first = claim(&sink, &source).await;
    push(&mut first.writer, 0..5);
    first.writer.submit(Position(9)).await.expect("submit");
    wait_for(&mut first.durable, 9).await;
    push(&mut first.writer, 20..22);
    first.writer.submit(Position(22)).await.expect("submit");
    wait_for(&mut first.durable, 22).await;
    drop(first);
    assert_eq!(claim(&sink, &source).await.position, Some(Position(22)));
    let mut offsets = destination.offsets(&source).await;
    offsets.sort_unstable();
    assert_eq!(offsets, [0, 1, 2, 3, 4, 20, 21]);
}

async fn a_replaced_topic_is_refused<D: Destination>(destination: &D) {
    let original = source(6);
    let sink = destination.open();
    write_until(&sink, &original, 7).await;
    let replaced = Source { topic_id: Arc::from("second"), ..original.clone() };
    let refused = sink.claim(&replaced).await.err();
    assert!(matches!(refused, Some(Error::Broken { .. })), "another topic of the same name is refused: {refused:?}");
    expect_each_once(destination, &original, 7).await;
}
