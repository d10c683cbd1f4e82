//! The rules of a request.

use super::*;
use crate::{fleet::Shape, scenario::Happenings};

pub(crate) fn request(meters: u32, days: i64, pattern: Pattern) -> Request {
    let start = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
    Request { pattern, ..Request::new(42, meters, start, Some(Timestamp(start.0 + days * 86_400_000))) }
}

fn topics(partitions: i32) -> TopicsOfRun {
    let topic = |name: &str| TopicOfRun { name: name.into(), id: "i".into() };
    TopicsOfRun { cluster_id: "c".into(), partitions, readings: topic("t"), events: topic("e"), assets: topic("a") }
}

pub(crate) fn run_of(request: &Request, partitions: i32, shards: i32) -> Run {
    Run::new(request.spec(RunId(1), topics(partitions), shards).unwrap(), request.assets.clone()).unwrap()
}

pub(crate) fn run(meters: u32, days: i64, pattern: Pattern, partitions: i32, shards: i32) -> Run {
    run_of(&request(meters, days, pattern), partitions, shards)
}

#[test]
fn the_quick_demo_is_67_200_readings_from_midnight_to_a_quarter_to() {
    let run = run(100, 7, Pattern::Uniform, 4, 4);
    assert_eq!(run.readings(), Some(67_200));
    let stamp = |k| run.model().context(k).timestamp.to_string();
    assert_eq!(stamp(run.first_interval()), "2026-01-01T00:00:00.000Z");
    assert_eq!(stamp(run.end_interval().unwrap() - 1), "2026-01-07T23:45:00.000Z");
}

#[test]
fn a_wrong_request_names_the_setting() {
    let spec = |request: Request| request.spec(RunId(1), topics(4), 4).unwrap_err().to_string();
    let good = request(100, 7, Pattern::Uniform);
    assert!(spec(Request { interval_minutes: 10, ..good.clone() }).contains("interval is 10 min; use 5, 15, 30 or 60"));
    assert!(spec(Request { meters: 9, ..good.clone() }).contains("meters is 9; use 10 to 600000"));
    assert!(spec(Request { end: Some(good.start), ..good.clone() }).contains("end_interval"));
    assert!(
        spec(Request { segments: [70, 20, 20], ..good.clone() }).contains("segments is 70/20/20; they add up to 110")
    );
    assert!(spec(Request { backfill: true, ..good.clone() }).contains("backfill is on; pattern uniform loses nothing"));
    let shape = Shape { transformers: 101, ..Shape::default() };
    assert!(spec(Request { shape, ..good.clone() }).contains("transformers is 101; use 1 to the number of meters"));
    assert!(good.spec(RunId(1), topics(4), 5).unwrap_err().to_string().contains("shards is 5"));
}

#[test]
fn a_scenario_that_names_an_asset_the_fleet_lacks_is_refused() {
    let cascade = crate::scenario::Cascade {
        start: "1d".into(),
        asset: "XFMR-TGC-999999".into(),
        repair_hours: 4.0,
        capacity: 1.0,
    };
    let happenings = Happenings { cascade: vec![cascade], ..Happenings::default() };
    let wrong = Request { happenings, ..request(100, 7, Pattern::Uniform) };
    let error = Run::new(wrong.spec(RunId(1), topics(4), 4).unwrap(), None).unwrap_err().to_string();
    assert!(error.contains("scenario cascade[0].asset is XFMR-TGC-999999; the fleet has no such asset"), "{error}");
}

#[test]
fn another_generators_run_is_refused() {
    let mut spec = request(100, 7, Pattern::Uniform).spec(RunId(1), topics(4), 4).unwrap();
    spec.golden_hash = "beef".into();
    assert!(matches!(Run::new(spec, None), Err(Error::Golden { .. })));
}
