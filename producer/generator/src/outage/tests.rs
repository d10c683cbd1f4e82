//! Rates, storms and cascades.

use super::*;
use crate::{area::SERVICE_AREAS, fleet::Shape};

fn fleet(meters: u32) -> Fleet {
    Fleet::new(5, meters, &SERVICE_AREAS[0], [70, 20, 10], Shape::default())
}

#[test]
fn a_year_has_the_interruptions_and_minutes_that_utilities_report() {
    let fleet = fleet(60_000);
    let outages = Outages::new(5, &fleet);
    let mut interruptions = 0u64;
    let mut seconds = 0.0;
    for window in 710..723 {
        for event in outages.events(window).iter() {
            outages.each_meter(event, |_, fault| {
                interruptions += 1;
                seconds += (fault.end.0 - fault.start.0) as f64 / 1000.0;
            });
        }
    }
    let years = 13.0 * 28.0 / 365.25;
    let saifi = interruptions as f64 / 60_000.0 / years;
    let saidi = seconds / 60.0 / 60_000.0 / years;
    assert!((0.8..1.5).contains(&saifi), "SAIFI {saifi}");
    assert!((80.0..180.0).contains(&saidi), "SAIDI {saidi}");
}

#[test]
fn an_interval_is_the_same_whether_windows_are_known_or_not_and_neighbours_fail_together() {
    let fleet = fleet(2_000);
    let outages = Outages::new(5, &fleet);
    let mut windows = Windows::default();
    let (mut together, mut out) = (0, 0);
    for k in (1_963_584..1_963_584 + 96 * 365).step_by(3) {
        let known = outages.during(k * 900, 900, &mut windows);
        if k % 50 == 0 {
            assert_eq!(*known.0, *outages.during(k * 900, 900, &mut Windows::default()).0);
        }
        for disturbance in known.0.iter().filter(|one| one.out == 1.0) {
            let transformer = fleet.place(disturbance.meter).transformer as usize;
            let neighbours =
                &outages.meters[outages.starts[transformer] as usize..outages.starts[transformer + 1] as usize];
            out += neighbours.len() - 1;
            together +=
                neighbours.iter().filter(|meter| known.of(**meter).is_some_and(|one| one.out == 1.0)).count() - 1;
        }
    }
    assert!(out > 100 && together * 10 >= out * 8, "{together} of {out} neighbours");
}

#[test]
fn a_storm_hits_its_share_of_the_circuits_and_lets_go_exponentially() {
    let fleet = fleet(60_000);
    let mut outages = Outages::new(5, &fleet);
    let storm = Storm {
        start: "1d".into(),
        fraction: 0.8,
        restoration_hours: 72.0,
        spread_hours: 6.0,
        longest_days: 10.0,
        substations: vec![],
    };
    let start = 1_772_323_200;
    outages.befall(&fleet, &Happenings { storm: vec![storm], ..Happenings::default() }, start, |_| 0.5);
    let share_out = |hours: i64| {
        let during = outages.during(start + 86_400 + hours * 3600, 900, &mut Windows::default());
        during.0.iter().filter(|one| one.fault.cause == Cause::Storm && one.out == 1.0).count() as f64 / 60_000.0
    };
    let before = share_out(-1);
    let all = share_out(7);
    assert!(before == 0.0 && (0.6..0.95).contains(&all), "{before} {all}");
    // Hurricane Beryl: .72 of them were still out after a day.
    let day = share_out(7 + 24) / all;
    assert!((0.65..0.79).contains(&day), "{day}");
    assert_eq!(share_out(11 * 24), 0.0);
}

#[test]
fn a_cascade_spreads_where_the_load_is_high_and_stops_where_it_is_low() {
    let fleet = fleet(20_000);
    let failed = |load: f64, asset: &str| {
        let mut outages = Outages::new(5, &fleet);
        let cascade = Cascade { start: "1d".into(), asset: asset.into(), repair_hours: 4.0, capacity: 1.0 };
        let happenings = Happenings { cascade: vec![cascade], ..Happenings::default() };
        outages.befall(&fleet, &happenings, 1_772_323_200, |_| load);
        outages.given
    };
    assert_eq!(failed(0.5, fleet.circuit_id(0)).len(), 1, "three circuits carry what four did");
    let wide = failed(0.95, fleet.circuit_id(0));
    assert!(wide.len() > 4, "all circuits of the substation, then the substation: {}", wide.len());
    assert!(wide.iter().any(|event| event.level == Level::Substation));
    assert!(wide.windows(2).all(|pair| pair[0].start <= pair[1].start), "one after the other");
    let up = failed(0.97, fleet.transformer_id(3));
    assert!(up.iter().any(|event| event.level == Level::Lateral), "from the transformer up");
}
