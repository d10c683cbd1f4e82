//! One meter, one interval: load and voltage.
//!
//! The `documented` model keeps the published ranges as hard bounds on every reading (peak 14-19 h 1.5-3.5 kWh, morning
//! 6-9 h 1.0-2.5, otherwise 0.3-1.5; times 1, 5 or 15 by segment) and moves each meter inside them with a Gaussian
//! copula: a level of its own, the weather, and noise on four time scales. Marginals stay uniform on the band; lag-1
//! correlation of the residual is about 0.76.

use flux_schemas::{
    reading::{Energy, Segment, Voltage},
    time::Timestamp,
};

use crate::{
    calendar::us_central_offset_seconds,
    fleet::{Fleet, kind, static_draw},
    noise::{Key, Lattice, Stream, stream},
    weather::Weather,
};

/// Version of every value this crate makes. A change that moves the golden hash increments it.
pub const MODEL_VERSION: i32 = 1;

/// How the documented base ranges are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BaseUnit {
    /// kWh in one reading, whatever the interval: the documented meaning, 3.5 times a real Texas home.
    PerReading,
    /// kWh in one hour: 978 kWh a month for a home.
    PerHour,
}

impl BaseUnit {
    /// As in the RunSpec and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::PerReading => "per_reading",
            Self::PerHour => "per_hour",
        }
    }

    /// The value with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::PerReading, Self::PerHour].into_iter().find(|unit| unit.as_str() == name)
    }
}

/// What the whole fleet shares in one interval.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    interval: i64,
    /// Start of the interval.
    pub timestamp: Timestamp,
    /// Documented kWh range of the band, after the base unit.
    low: f64,
    width: f64,
    /// The weather's part of the copula.
    weather: f64,
    /// Stand-in for the load of a feeder, 0 to 1.
    feeder_load: f64,
}

/// The values of every (meter, interval).
#[derive(Debug)]
pub struct Model {
    interval_ms: i64,
    base_unit: BaseUnit,
    weather: Weather,
    octave_4: Lattice,
    octave_16: Lattice,
    octave_128: Lattice,
    meters: Vec<MeterConstants>,
    transformers: Vec<Stream>,
    circuits: Vec<(Stream, f64)>,
}

/// What never changes about a meter.
#[derive(Debug)]
struct MeterConstants {
    key: Key,
    multiplier: f64,
    level: f64,
    phase: i64,
    transformer: u32,
    circuit: u32,
    /// Distance along the circuit times the full-load drop, volts.
    feeder_drop: f64,
    /// Transformer tap, volts.
    tap: f64,
    /// Volts of drop in the service for one kWh in the interval.
    service_drop: f64,
}

impl Model {
    /// The model of a fleet under a seed.
    pub fn new(seed: u64, fleet: &Fleet, interval_seconds: i32, base_unit: BaseUnit) -> Self {
        let meters = (0..fleet.len())
            .map(|meter| {
                let place = fleet.place(meter);
                let key = Key::new(seed, kind::METER, u64::from(meter));
                let statics = key.stream(stream::STATIC);
                let (multiplier, service_kw) = match place.segment {
                    Segment::Residential => (1.0, 10.0),
                    Segment::Commercial => (5.0, 60.0),
                    Segment::Industrial => (15.0, 250.0),
                };
                MeterConstants {
                    key,
                    multiplier,
                    level: statics.gaussian(1),
                    phase: (statics.bits(2) & 0xff) as i64,
                    transformer: place.transformer,
                    circuit: place.circuit,
                    feeder_drop: 3.6 * fleet.distance(place),
                    tap: 1.2 * static_draw(seed, kind::TRANSFORMER, place.transformer, 1) - 0.6,
                    service_drop: 0.75 / service_kw * 3600.0 / f64::from(interval_seconds),
                }
            })
            .collect::<Vec<_>>();
        let count = |of: fn(&MeterConstants) -> u32| meters.iter().map(of).max().map_or(0, |last| last + 1);
        let transformers = (0..count(|meter| meter.transformer))
            .map(|index| Key::new(seed, kind::TRANSFORMER, u64::from(index)).stream(stream::VOLTAGE))
            .collect();
        let circuits = (0..count(|meter| meter.circuit))
            .map(|index| {
                let level = 1.6 * static_draw(seed, kind::CIRCUIT, index, 1) - 0.8;
                (Key::new(seed, kind::CIRCUIT, u64::from(index)).stream(stream::VOLTAGE), level)
            })
            .collect();
        Self {
            interval_ms: i64::from(interval_seconds) * 1000,
            base_unit,
            weather: Weather::new(seed),
            octave_4: Lattice::new(2),
            octave_16: Lattice::new(4),
            octave_128: Lattice::new(7),
            meters,
            transformers,
            circuits,
        }
    }

    /// What the fleet shares in interval `k` (index since the Unix epoch).
    pub fn context(&self, k: i64) -> Context {
        let timestamp = Timestamp(k * self.interval_ms);
        let local = |at: Timestamp| at.0.div_euclid(1000) + us_central_offset_seconds(at);
        let celsius = |hours_ago: i64| {
            let at = Timestamp(timestamp.0 - hours_ago * 3_600_000);
            self.weather.temperature(at, local(at))
        };
        let second_of_day = local(timestamp).rem_euclid(86_400);
        let (low, high) = match second_of_day / 3600 {
            14..19 => (1.5, 3.5),
            6..9 => (1.0, 2.5),
            _ => (0.3, 1.5),
        };
        let scale = match self.base_unit {
            BaseUnit::PerReading => 1.0,
            BaseUnit::PerHour => self.interval_ms as f64 / 3_600_000.0,
        };
        // The trailing day, sampled hourly. An instantaneous temperature here would lift the afternoon band's mean.
        let daily_mean = (0..24).map(celsius).sum::<f64>() / 24.0;
        let felt = 0.55 * celsius(0) + 0.25 * celsius(2) + 0.20 * celsius(24);
        let hour = second_of_day as f64 / 3600.0;
        let shape = 0.5 + 0.5 * libm::cos(2.0 * std::f64::consts::PI * (hour - 17.0) / 24.0);
        Context {
            interval: k,
            timestamp,
            low: low * scale,
            width: (high - low) * scale,
            weather: 0.30 * (daily_mean - 21.5) / 7.5,
            feeder_load: 0.35 * shape + 0.65 * ((felt - 18.0) / 18.0).clamp(0.0, 1.0),
        }
    }

    /// Usage and voltage of one meter in the interval of `context`.
    pub fn values(&self, meter: u32, context: &Context) -> (Energy, Voltage) {
        let constants = &self.meters[meter as usize];
        let (k, key, phase) = (context.interval, constants.key, constants.phase);
        let load = |purpose: u64| key.stream(stream::LOAD + purpose);
        // The weights' squares sum to one with the weather's, so the copula's marginal stays standard normal.
        let z = 0.55 * constants.level
            + context.weather
            + 0.30 * self.octave_128.at(load(0), k, phase)
            + 0.42 * self.octave_16.at(load(1), k, phase)
            + 0.45 * self.octave_4.at(load(2), k, phase)
            + 0.37 * load(3).gaussian(k);
        let share = 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2);
        let kwh = constants.multiplier * (context.low + context.width * share);

        let (circuit, level) = self.circuits[constants.circuit as usize];
        let transformer = self.transformers[constants.transformer as usize];
        let wander = 0.45 * self.octave_16.at(circuit, k, 0) + 0.25 * circuit.gaussian(k ^ (1 << 40));
        let local_load = context.feeder_load + 0.06 * self.octave_16.at(transformer, k, 5);
        let sag = 0.8 * self.octave_4.at(transformer, k, 2).abs() * context.feeder_load;
        let volts = 122.6 + level + constants.tap + wander
            - constants.feeder_drop * local_load
            - constants.service_drop * kwh
            - sag
            + 0.15 * key.stream(stream::VOLTAGE).gaussian(k);
        let energy = Energy((kwh * 10_000.0).round() as i64);
        (energy, Voltage((volts.clamp(110.0, 127.0) * 10.0).round() as i32))
    }
}

/// The contexts of recent intervals, so that random access costs a look-up instead of a day of weather.
#[derive(Debug)]
pub struct Contexts {
    slots: Vec<Option<Context>>,
}

impl Default for Contexts {
    fn default() -> Self {
        Self { slots: vec![None; 4096] }
    }
}

impl Contexts {
    /// The context of interval `k`.
    pub fn get(&mut self, model: &Model, k: i64) -> &Context {
        let slot = (k.rem_euclid(self.slots.len() as i64)) as usize;
        let stale = self.slots[slot].as_ref().is_none_or(|context| context.interval != k);
        if stale {
            self.slots[slot] = None;
        }
        self.slots[slot].get_or_insert_with(|| model.context(k))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::SERVICE_AREAS;

    fn sample(base_unit: BaseUnit) -> (Fleet, Model) {
        let fleet = Fleet::new(42, 400, &SERVICE_AREAS[0]);
        let model = Model::new(42, &fleet, 900, base_unit);
        (fleet, model)
    }

    /// First interval of 2026-01-01 and one year of them.
    const YEAR: std::ops::Range<i64> = 1_963_584..1_963_584 + 96 * 365;

    #[test]
    fn every_reading_stays_in_its_documented_band() {
        let (fleet, model) = sample(BaseUnit::PerReading);
        for k in YEAR.step_by(7) {
            let context = model.context(k);
            let local = (context.timestamp.0 / 1000 + us_central_offset_seconds(context.timestamp)).rem_euclid(86_400);
            let (low, high) = match local / 3600 {
                14..=18 => (15_000, 35_000),
                6..=8 => (10_000, 25_000),
                _ => (3_000, 15_000),
            };
            for meter in (0..fleet.len()).step_by(13) {
                let multiplier = [1, 5, 15][fleet.place(meter).segment as usize];
                let (usage, voltage) = model.values(meter, &context);
                assert!((low * multiplier..=high * multiplier).contains(&usage.0), "{usage:?} at {k}");
                assert!((1100..=1270).contains(&voltage.0), "{voltage:?}");
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
                sum.0 += model.values(meter, &context).0.kwh();
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
                let volts = model.values(meter, &context).1.volts();
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
            (per_reading.values(3, &per_reading.context(k)).0, per_hour.values(3, &per_hour.context(k)).0);
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
                (model.values(meter, &context).0.kwh() / multiplier - context.low) / context.width - 0.5
            };
            for day in 0..10 {
                let k = YEAR.start + 96 * (20 + 7 * day) + 30;
                lagged += share(k) * share(k + 1);
                squares += share(k) * share(k);
            }
        }
        assert!((0.6..0.95).contains(&(lagged / squares)), "{}", lagged / squares);
    }
}
