//! What the model promises.

use super::*;
use crate::{area::SERVICE_AREAS, fleet::Shape};

fn fleet(seed: u64, meters: u32) -> Fleet {
    Fleet::new(seed, meters, &SERVICE_AREAS[0], [70, 20, 10], Shape::default())
}

fn model(seed: u64, fleet: &Fleet, interval_seconds: i32, load: LoadModel) -> Model {
    Model::new(seed, fleet, interval_seconds, load, &Conditions::default())
}

fn sample(base_unit: BaseUnit) -> (Fleet, Model) {
    let fleet = fleet(42, 400);
    let model = model(42, &fleet, 900, LoadModel::Documented(base_unit));
    (fleet, model)
}

/// First interval of 2026-01-01 and one year of them.
const YEAR: std::ops::Range<i64> = 1_963_584..1_963_584 + 96 * 365;

#[test]
fn every_reading_stays_in_its_documented_band() {
    let (fleet, model) = sample(BaseUnit::PerReading);
    for k in YEAR.step_by(7) {
        let context = model.context(k);
        let local = Zone::Central.local_seconds(context.timestamp).rem_euclid(86_400);
        let (low, high) = match local / 3600 {
            14..=18 => (15_000, 35_000),
            6..=8 => (10_000, 25_000),
            _ => (3_000, 15_000),
        };
        for meter in (0..fleet.len()).step_by(13) {
            let multiplier = [1, 5, 15][fleet.place(meter).segment as usize];
            let Values { usage, voltage, is_outage, quality } = model.values(meter, &context);
            assert_eq!(is_outage, quality == Quality::Outage);
            if is_outage {
                assert_eq!((usage, voltage), (Energy(0), Voltage(0)));
                continue;
            }
            assert!((low * multiplier..=high * multiplier).contains(&usage.0), "{usage:?} at {k}");
            assert!((1000..=1350).contains(&voltage.0), "{voltage:?}");
        }
    }
}

#[test]
fn means_are_those_of_the_documented_ranges() {
    let (fleet, model) = sample(BaseUnit::PerReading);
    let mut sums = [(0.0, 0.0); 3];
    for k in YEAR.step_by(11) {
        let context = model.context(k);
        for meter in 0..fleet.len() {
            let sum = &mut sums[fleet.place(meter).segment as usize];
            sum.0 += model.values(meter, &context).usage.kwh();
            sum.1 += 1.0;
        }
    }
    for ((total, count), expected) in sums.into_iter().zip([1.3396, 6.698, 20.09]) {
        let mean: f64 = total / count;
        assert!((mean / expected - 1.0).abs() < 0.06, "{mean} against {expected}");
    }
}

#[test]
fn voltage_is_service_voltage_and_falls_with_load() {
    let (fleet, model) = sample(BaseUnit::PerReading);
    let (mut inside, mut count, mut sum) = (0u32, 0u32, 0.0);
    let (mut cold, mut hot) = (0.0, 0.0);
    for k in YEAR.step_by(37) {
        let context = model.context(k);
        for meter in 0..fleet.len() {
            let values = model.values(meter, &context);
            let volts = if values.is_outage { continue } else { values.voltage.volts() };
            count += 1;
            sum += volts;
            inside += u32::from((114.0..=126.0).contains(&volts));
            if context.feeder_load < 0.2 {
                cold += volts
            } else if context.feeder_load > 0.6 {
                hot += volts
            }
        }
    }
    let mean = sum / f64::from(count);
    assert!((119.5..123.5).contains(&mean), "{mean}");
    assert!(f64::from(inside) / f64::from(count) > 0.99);
    assert!(cold > 0.0 && hot > 0.0);
}

#[test]
fn per_hour_reads_the_same_ranges_as_kwh_an_hour() {
    let (_, per_reading) = sample(BaseUnit::PerReading);
    let (_, per_hour) = sample(BaseUnit::PerHour);
    let k = YEAR.start + 40;
    let (whole, quarter) =
        (per_reading.values(3, &per_reading.context(k)).usage, per_hour.values(3, &per_hour.context(k)).usage);
    assert!((whole.0 - 4 * quarter.0).abs() <= 2, "{whole:?} {quarter:?}");
}

#[test]
fn meters_remember() {
    let (fleet, model) = sample(BaseUnit::PerReading);
    // Residuals against the band's midpoint, one lag, inside the night band only.
    let (mut lagged, mut squares) = (0.0, 0.0);
    for meter in 0..fleet.len() {
        let share = |k: i64| {
            let context = model.context(k);
            let multiplier = [1.0, 5.0, 15.0][fleet.place(meter).segment as usize];
            (model.values(meter, &context).usage.kwh() / multiplier - context.band.low) / context.band.width - 0.5
        };
        for day in 0..10 {
            let k = YEAR.start + 96 * (20 + 7 * day) + 30;
            lagged += share(k) * share(k + 1);
            squares += share(k) * share(k);
        }
    }
    assert!((0.6..0.95).contains(&(lagged / squares)), "{}", lagged / squares);
}

#[test]
fn utility_intervals_of_every_length_are_made_of_the_same_quarters() {
    let fleet = fleet(42, 100);
    let [five, quarter, hour] = [300, 900, 3600].map(|seconds| model(42, &fleet, seconds, LoadModel::Utility));
    let usage = |model: &Model, meter, contexts: &[Context]| -> i64 {
        contexts.iter().map(|context| model.values(meter, context).usage.0).sum()
    };
    let mut compared = 0;
    for k in (YEAR.start..YEAR.start + 96 * 365).step_by(4 * 37) {
        let whole = [hour.context(k / 4)];
        let quarters: [Context; 4] = std::array::from_fn(|part| quarter.context(k + part as i64));
        let parts: [Context; 12] = std::array::from_fn(|part| five.context(3 * k + part as i64));
        // An outage is a share of an interval, and of no other length the same.
        for meter in (0..fleet.len()).filter(|meter| whole[0].disturbances.of(*meter).is_none()) {
            let expected = usage(&quarter, meter, &quarters);
            let (whole, parts) = (usage(&hour, meter, &whole), usage(&five, meter, &parts));
            // Each length rounds its own readings, by half a unit at most.
            assert!((whole - expected).abs() <= 3 && (parts - expected).abs() <= 8, "{whole} {expected} {parts}");
            compared += 1;
        }
    }
    assert!(compared > 20_000, "{compared}");
}

/// A million pairs of meter and interval, drawn by chance, each on its own; and the same in blocks, interval by interval.
#[test]
fn a_reading_is_the_same_alone_and_in_a_block() {
    let fleet = fleet(9, 2_000);
    let draws = Key::new(77, 0, 0).stream(1);
    for load in [LoadModel::Documented(BaseUnit::PerReading), LoadModel::Utility] {
        let model = model(9, &fleet, 900, load);
        let intervals: Vec<i64> = YEAR.step_by(137).collect();
        let mut contexts = Contexts::default();
        let block: Vec<Values> = intervals
            .iter()
            .flat_map(|k| {
                let context = contexts.get(&model, *k).clone();
                (0..fleet.len()).map(|meter| model.values(meter, &context)).collect::<Vec<_>>()
            })
            .collect();
        let mut alone: Vec<Option<Context>> = vec![None; intervals.len()];
        for pair in 0..500_000 {
            let index = draws.bits(2 * pair) as usize % intervals.len();
            let meter = (draws.bits(2 * pair + 1) % u64::from(fleet.len())) as u32;
            let context = alone[index].get_or_insert_with(|| model.context(intervals[index]));
            assert_eq!(model.values(meter, context), block[index * fleet.len() as usize + meter as usize]);
        }
    }
}
