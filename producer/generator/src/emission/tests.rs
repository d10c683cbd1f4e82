//! The order, and that nothing is emitted twice or never.

use std::collections::BTreeMap;

use super::*;
use crate::run::tests::{request, run_of};

fn readings(run: &Arc<Run>, shard: i32) -> (Vec<Emit>, Accounting) {
    let mut stream = ShardStream::new(run.clone(), shard);
    let mut rows = Vec::new();
    while let Some(emit) = stream.peek() {
        rows.push(emit);
        stream.advance();
    }
    (rows, stream.accounting())
}

/// Every option at once, and each alone.
fn variants(pattern: Pattern) -> Vec<crate::run::Request> {
    let plain = request(50, 3, pattern);
    let backfill = crate::run::Request { backfill: true, ..plain.clone() };
    let copies = crate::run::Request { duplicates: true, ..plain.clone() };
    let after_restore = crate::run::Request { after_restore: true, demo_events: true, ..plain.clone() };
    let all = crate::run::Request { backfill: true, duplicates: true, events: true, ..after_restore.clone() };
    let all_that_can_be = if pattern.reporting_share() < 1.0 {
        vec![backfill, all]
    } else {
        vec![crate::run::Request { duplicates: true, events: true, ..after_restore.clone() }]
    };
    [vec![plain, copies, after_restore], all_that_can_be].concat()
}

#[test]
fn shards_together_emit_every_reading_once_whatever_their_number() {
    for pattern in Pattern::ALL {
        for request in variants(pattern) {
            let mut all = Vec::new();
            for shards in [1, 2, 7] {
                let run = Arc::new(run_of(&request, 8, shards));
                let mut seen = BTreeMap::new();
                let mut sum = Accounting::default();
                for shard in 0..shards {
                    let (rows, accounting) = readings(&run, shard);
                    assert!(
                        rows.is_sorted_by(
                            |one, other| run.bucket_of(one.arrival) < run.bucket_of(other.arrival) || one < other
                        ),
                        "order"
                    );
                    for emit in &rows {
                        if matches!(emit.kind, Kind::Event | Kind::Asset) {
                            continue;
                        }
                        assert!(emit.arrival >= (emit.interval + 1) * 900_000, "complete before it arrives");
                        let on_time = emit.arrival < (emit.interval + 2) * 900_000;
                        assert!(on_time || emit.kind != Kind::Reading, "on time");
                        assert!(seen.insert((emit.meter, emit.interval, emit.kind), emit.arrival).is_none(), "twice");
                    }
                    sum.on_time += accounting.on_time;
                    sum.late += accounting.late;
                    sum.estimated += accounting.estimated;
                    sum.lost += accounting.lost;
                    sum.duplicates += accounting.duplicates;
                    sum.revised += accounting.revised;
                }
                assert_eq!(sum.on_time + sum.late + sum.estimated + sum.lost, 50 * 3 * 96, "{request:?}");
                assert_eq!(sum.readings(), seen.len() as u64);
                assert!(!request.backfill || sum.lost == 0, "{request:?}");
                if request.duplicates && pattern == Pattern::Degraded {
                    assert!(sum.duplicates > 50, "{}", sum.duplicates);
                }
                if request.backfill && pattern == Pattern::Degraded {
                    assert!(sum.late > 500 && sum.estimated > 50 && sum.revised > 20, "{sum:?}");
                }
                if request.after_restore {
                    assert!(sum.late > 10, "{sum:?}");
                }
                all.push(seen);
            }
            assert!(all.iter().all(|seen| *seen == all[0]), "{request:?}: the shard count changes nothing");
        }
    }
}

#[test]
fn the_stream_emits_what_is_said_of_each_reading() {
    for pattern in [Pattern::Uniform, Pattern::Degraded] {
        for request in variants(pattern) {
            let run = Arc::new(run_of(&request, 4, 1));
            let mut expected = BTreeMap::new();
            let mut contexts = Contexts::default();
            for interval in run.first_interval()..run.end_interval().unwrap() {
                for meter in 0..run.fleet().len() {
                    run.variants(meter, interval, &mut contexts, |emit| {
                        expected.insert((emit.meter, emit.interval, emit.kind), emit.arrival);
                    });
                }
            }
            let rows = readings(&run, 0).0;
            let found: BTreeMap<_, _> = rows
                .iter()
                .filter(|emit| !matches!(emit.kind, Kind::Event | Kind::Asset))
                .map(|emit| ((emit.meter, emit.interval, emit.kind), emit.arrival))
                .collect();
            assert_eq!(found, expected, "{request:?}");
        }
    }
}

#[test]
fn a_stream_resumed_at_any_cursor_goes_on_with_the_same_rows() {
    for pattern in [Pattern::Staggered, Pattern::Degraded] {
        for request in variants(pattern) {
            let request = crate::run::Request { meters: 20, ..request };
            let run = Arc::new(run_of(&request, 4, 2));
            let mut whole = ShardStream::new(run.clone(), 1);
            let mut steps = 0u32;
            while let Some(emit) = whole.peek() {
                // Each cursor of the first hours, then one here and there.
                if steps < 60 || steps.is_multiple_of(97) {
                    let accounting = whole.accounting();
                    let resumed = ShardStream::resume(run.clone(), 1, whole.cursor(), accounting);
                    assert_eq!(resumed.peek(), Some(emit));
                    assert_eq!(resumed.accounting(), accounting);
                    assert_eq!(resumed.backlog, whole.backlog, "{request:?}");
                    if emit.kind == Kind::Event {
                        assert_eq!(resumed.event(emit), whole.event(emit));
                    }
                }
                whole.advance();
                steps += 1;
            }
        }
    }
}

#[test]
fn staggered_offsets_are_uniform_over_the_interval_and_steady_per_meter() {
    let interval = 900_000;
    let (meters, k) = (20_000, 1_963_584);
    let mut counts = [0u32; 18];
    for meter in 0..meters {
        let offset = |k: i64| Pattern::Staggered.arrival(9, meter, k, interval) - (k + 1) * interval;
        counts[(offset(k) / 50_000) as usize] += 1;
        assert!((offset(k) - offset(k + 1)).abs() <= 10_000);
    }
    let expected = f64::from(meters) / 18.0;
    let chi_square: f64 =
        counts.iter().map(|count| f64::from(*count) - expected).map(|excess| excess * excess / expected).sum();
    // 17 degrees of freedom: 40.8 is the 0.1 % point.
    assert!(chi_square < 40.8, "{chi_square} {counts:?}");
}

#[test]
fn a_stream_without_end_over_no_meters_ends() {
    for events in [false, true] {
        let request = crate::run::Request { end: None, events, ..request(10, 1, Pattern::Uniform) };
        let run = Arc::new(run_of(&request, 64, 64));
        let empty =
            (0..64).find(|shard| run.meters_of_shard(*shard).is_empty()).expect("ten meters leave shards empty");
        let mut stream = ShardStream::new(run, empty);
        while let Some(emit) = stream.peek() {
            assert_eq!(emit.kind, Kind::Asset);
            stream.advance();
        }
    }
}

#[test]
fn with_back_fill_as_many_readings_are_estimates_as_utilities_report() {
    for (pattern, share) in [(Pattern::Partial, 0.02), (Pattern::Degraded, 0.05)] {
        let run = run_of(&crate::run::Request { backfill: true, ..request(2_000, 6, pattern) }, 4, 1);
        let (mut contexts, mut estimates, mut all) = (Contexts::default(), 0, 0);
        for interval in (run.first_interval()..run.end_interval().unwrap()).step_by(7) {
            for meter in 0..run.fleet().len() {
                let mut first = None;
                run.variants(meter, interval, &mut contexts, |emit| first = first.or(Some(emit)));
                let reading = run.reading_of(first.expect("nothing is lost"), &mut contexts);
                estimates += u32::from(reading.quality == flux_schemas::reading::Quality::Estimated);
                all += 1;
            }
        }
        let found = f64::from(estimates) / f64::from(all);
        assert!((found / share - 1.0).abs() < 0.15, "{pattern:?}: {found}");
    }
}
