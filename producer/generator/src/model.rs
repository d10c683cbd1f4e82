//! One meter, one interval: load, voltage, outage and quality.
//!
//! ```text
//! interval ─▶ Context  civil time · weather · outages, once for the whole fleet
//!                │
//! meter ─────────┴─▶ load (documented or utility) ─▶ voltage ─▶ outage ─▶ Values
//! ```

mod documented;
mod utility;

pub use documented::BaseUnit;

use flux_schemas::{
    reading::{Energy, Quality, Segment, Voltage},
    time::{Date, Timestamp},
};

use crate::{
    calendar::{rest_day, us_central_offset_seconds},
    fleet::{Fleet, kind, static_draw},
    noise::{Key, Lattice, Stream, stream},
    outage::{Disturbances, Fault, Outages, Windows},
    weather::Weather,
};

/// Version of every value this crate makes. A change that moves the golden hash increments it.
pub const MODEL_VERSION: i32 = 2;

/// Share of the readings that an estimate stands for, in blocks of eight intervals.
const ESTIMATED_SHARE: f64 = 0.005;
/// The load model's own lattice.
const QUARTER_MS: i64 = 900_000;

/// Which load model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadModel {
    /// The published ranges, as hard bounds.
    Documented(BaseUnit),
    /// Homes, shops and plants that behave like real ones.
    Utility,
}

impl LoadModel {
    /// As in the RunSpec and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Documented(_) => "documented",
            Self::Utility => "utility",
        }
    }

    /// How base ranges are read; a utility reading is kWh of real load, whatever the interval.
    pub const fn base_unit(self) -> BaseUnit {
        match self {
            Self::Documented(unit) => unit,
            Self::Utility => BaseUnit::PerHour,
        }
    }

    /// The model with this name.
    pub fn parse(name: &str, base_unit: BaseUnit) -> Option<Self> {
        [Self::Documented(base_unit), Self::Utility].into_iter().find(|model| model.as_str() == name)
    }
}

/// What a meter says of one interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Values {
    /// Energy delivered.
    pub usage: Energy,
    /// Mean voltage, 120-V base; 0 without power.
    pub voltage: Voltage,
    /// Without power.
    pub is_outage: bool,
    /// Whether it was read, estimated or out.
    pub quality: Quality,
}

/// What the whole fleet shares in one interval.
#[derive(Debug, Clone)]
pub struct Context {
    interval: i64,
    /// Start of the interval.
    pub timestamp: Timestamp,
    band: documented::Band,
    /// The quarters of an hour that the interval touches.
    quarters: [utility::Quarter; 4],
    /// Stand-in for the load of a feeder, 0 to 1.
    feeder_load: f64,
    disturbances: Disturbances,
}

/// The values of every (meter, interval).
#[derive(Debug)]
pub struct Model {
    interval_ms: i64,
    load: Load,
    weather: Weather,
    octave_4: Lattice,
    octave_16: Lattice,
    meters: Vec<MeterConstants>,
    transformers: Vec<Stream>,
    circuits: Vec<(Stream, f64)>,
    outages: Outages,
}

/// The customers under one of the load models.
#[derive(Debug)]
enum Load {
    Documented { base_unit: BaseUnit, customers: Vec<documented::Customer>, octaves: documented::Octaves },
    Utility { customers: Vec<utility::Customer>, octaves: utility::Octaves },
}

/// What never changes about a meter, whatever the load model.
#[derive(Debug)]
struct MeterConstants {
    key: Key,
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
    pub fn new(seed: u64, fleet: &Fleet, interval_seconds: i32, load: LoadModel) -> Self {
        let key = |meter: u32| Key::new(seed, kind::METER, u64::from(meter));
        let meters = (0..fleet.len())
            .map(|meter| {
                let place = fleet.place(meter);
                let service_kw = match place.segment {
                    Segment::Residential => 10.0,
                    Segment::Commercial => 60.0,
                    Segment::Industrial => 250.0,
                };
                MeterConstants {
                    key: key(meter),
                    transformer: place.transformer,
                    circuit: place.circuit,
                    feeder_drop: 3.6 * fleet.distance(place),
                    tap: 1.2 * static_draw(seed, kind::TRANSFORMER, place.transformer, 1) - 0.6,
                    service_drop: 0.75 / service_kw * 3600.0 / f64::from(interval_seconds),
                }
            })
            .collect::<Vec<_>>();
        let transformers = (0..fleet.transformers())
            .map(|index| Key::new(seed, kind::TRANSFORMER, u64::from(index)).stream(stream::VOLTAGE))
            .collect();
        let circuits = (0..fleet.circuits())
            .map(|index| {
                let level = 1.6 * static_draw(seed, kind::CIRCUIT, index, 1) - 0.8;
                (Key::new(seed, kind::CIRCUIT, u64::from(index)).stream(stream::VOLTAGE), level)
            })
            .collect();
        let weather = Weather::new(seed);
        let segment = |meter: u32| fleet.place(meter).segment;
        let load = match load {
            LoadModel::Documented(base_unit) => Load::Documented {
                base_unit,
                customers: (0..fleet.len())
                    .map(|meter| documented::Customer::new(segment(meter), key(meter)))
                    .collect(),
                octaves: documented::Octaves::default(),
            },
            LoadModel::Utility => {
                // Any year does: the profiles are scaled to what they give on average.
                let first = Date { year: 2025, month: 1, day: 1 }.days() * 96;
                let year = (0..365 * 24).map(|hour| quarter(&weather, first + 4 * hour));
                let means = utility::ProfileMeans::new(year);
                Load::Utility {
                    customers: (0..fleet.len())
                        .map(|meter| utility::Customer::new(segment(meter), key(meter), &means))
                        .collect(),
                    octaves: utility::Octaves::default(),
                }
            }
        };
        Self {
            interval_ms: i64::from(interval_seconds) * 1000,
            load,
            weather,
            octave_4: Lattice::new(2),
            octave_16: Lattice::new(4),
            meters,
            transformers,
            circuits,
            outages: Outages::new(seed, fleet),
        }
    }

    /// What the fleet shares in interval `k` (index since the Unix epoch).
    pub fn context(&self, k: i64) -> Context {
        self.context_with(k, &mut Windows::default())
    }

    fn context_with(&self, k: i64, windows: &mut Windows) -> Context {
        let timestamp = Timestamp(k * self.interval_ms);
        let now = quarter(&self.weather, timestamp.0.div_euclid(QUARTER_MS));
        let (band, quarters) = match &self.load {
            Load::Documented { base_unit, .. } => {
                let hours = (0..24).map(|hour| celsius(&self.weather, Timestamp(timestamp.0 - hour * 3_600_000)));
                let band =
                    documented::Band::new(now.hour as i64, hours.sum::<f64>() / 24.0, *base_unit, self.interval_ms);
                (band, [now; 4])
            }
            Load::Utility { .. } => (
                documented::Band::default(),
                std::array::from_fn(|index| match index {
                    0 => now,
                    index if index < self.quarters() => quarter(&self.weather, now.index + index as i64),
                    _ => now,
                }),
            ),
        };
        let shape = 0.5 + 0.5 * libm::cos(2.0 * std::f64::consts::PI * (now.hour - 17.0) / 24.0);
        Context {
            interval: k,
            timestamp,
            band,
            quarters,
            feeder_load: 0.35 * shape + 0.65 * ((now.felt - 18.0) / 18.0).clamp(0.0, 1.0),
            disturbances: self.outages.during(timestamp.0.div_euclid(1000), self.interval_ms / 1000, windows),
        }
    }

    /// Quarters of an hour in an interval; one for those that are shorter.
    fn quarters(&self) -> usize {
        (self.interval_ms / QUARTER_MS).max(1) as usize
    }

    /// What `meter` says of the interval of `context`.
    pub fn values(&self, meter: u32, context: &Context) -> Values {
        let constants = &self.meters[meter as usize];
        let (k, key) = (context.interval, constants.key);
        let disturbance = context.disturbances.of(meter);
        let out = disturbance.map_or(0.0, |disturbance| disturbance.out);
        // What flows on balance moves the voltage; what is delivered is counted.
        let (net, delivered) = match &self.load {
            // The ranges bound whole readings: an interval is out when most of it is.
            Load::Documented { .. } if out >= 0.5 => return OUT,
            Load::Documented { customers, octaves, .. } => {
                let kwh = documented::kwh(&customers[meter as usize], key, k, &context.band, octaves);
                (kwh, kwh)
            }
            Load::Utility { .. } if out >= 0.999 => return OUT,
            Load::Utility { customers, octaves } => {
                let since = disturbance.and_then(|disturbance| disturbance.since);
                let pick_up = since.map_or(0.0, |seconds| 0.6 * libm::exp(-seconds as f64 / 2700.0));
                let (net, delivered) = self.utility_kwh(&customers[meter as usize], key, context, pick_up, octaves);
                (net * (1.0 - out), delivered * (1.0 - out))
            }
        };
        let (circuit, level) = self.circuits[constants.circuit as usize];
        let transformer = self.transformers[constants.transformer as usize];
        let wander = 0.45 * self.octave_16.at(circuit, k, 0) + 0.25 * circuit.gaussian(k ^ (1 << 40));
        let local_load = context.feeder_load + 0.06 * self.octave_16.at(transformer, k, 5);
        let sag = 0.8 * self.octave_4.at(transformer, k, 2).abs() * context.feeder_load;
        let volts = 122.6 + level + constants.tap + wander
            - constants.feeder_drop * local_load
            - constants.service_drop * net
            - sag
            + 0.15 * key.stream(stream::VOLTAGE).gaussian(k);
        let estimated = key.stream(stream::QUALITY).uniform(k >> 3) < ESTIMATED_SHARE;
        Values {
            usage: Energy((delivered * 10_000.0).round() as i64),
            voltage: Voltage((volts.clamp(110.0, 127.0) * 10.0).round() as i32),
            is_outage: false,
            quality: if estimated { Quality::Estimated } else { Quality::Valid },
        }
    }

    /// Why `meter` is out in the interval of `context`, if it is.
    pub fn fault(&self, meter: u32, context: &Context) -> Option<Fault> {
        let disturbance = context.disturbances.of(meter)?;
        self.values(meter, context).is_outage.then_some(disturbance.fault)
    }

    /// kWh of a customer, on balance and delivered: what a roof gives back is another channel, and takes nothing from
    /// what was delivered before. Intervals of other lengths are sums, or parts, of the same quarters of an hour.
    fn utility_kwh(
        &self,
        customer: &utility::Customer,
        key: Key,
        context: &Context,
        pick_up: f64,
        octaves: &utility::Octaves,
    ) -> (f64, f64) {
        let (mut net, mut delivered) = (0.0, 0.0);
        for quarter in &context.quarters[..self.quarters()] {
            let kwh = 0.25 * customer.kw(key, quarter, pick_up, octaves);
            net += kwh;
            delivered += kwh.max(0.0);
        }
        if self.interval_ms >= QUARTER_MS {
            return (net, delivered);
        }
        // Three parts of a quarter, of weights that add up to one.
        let weight = |part: i64| 1.0 + 0.2 * key.stream(stream::PARTS).uniform(3 * context.quarters[0].index + part);
        let part = context.interval.rem_euclid(3);
        let share = weight(part) / (weight(0) + weight(1) + weight(2));
        (net * share, delivered * share)
    }
}

/// A meter without power.
const OUT: Values = Values { usage: Energy(0), voltage: Voltage(0), is_outage: true, quality: Quality::Outage };

/// Degrees Celsius.
fn celsius(weather: &Weather, at: Timestamp) -> f64 {
    weather.temperature(at, at.0.div_euclid(1000) + us_central_offset_seconds(at))
}

/// What the fleet shares in the quarter of an hour with this index.
fn quarter(weather: &Weather, index: i64) -> utility::Quarter {
    let at = Timestamp(index * QUARTER_MS);
    let offset = us_central_offset_seconds(at);
    let local = at.0.div_euclid(1000) + offset;
    let day = local.div_euclid(86_400);
    let ago = |hours: i64| celsius(weather, Timestamp(at.0 - hours * 3_600_000));
    let date = Date::from_days(day);
    let (sun, cloud) = weather.sky(at);
    utility::Quarter {
        index,
        hour: local.rem_euclid(86_400) as f64 / 3600.0,
        day,
        rest: rest_day(day),
        school_holidays: (6..8).contains(&date.month) || date.month == 8 && date.day < 15,
        felt: 0.55 * ago(0) + 0.25 * ago(2) + 0.20 * ago(24),
        sun,
        cloud,
    }
}

/// The contexts of recent intervals, so that random access costs a look-up instead of a day of weather.
#[derive(Debug)]
pub struct Contexts {
    slots: Vec<Option<Context>>,
    windows: Windows,
}

impl Default for Contexts {
    fn default() -> Self {
        Self { slots: vec![None; 4096], windows: Windows::default() }
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
        self.slots[slot].get_or_insert_with(|| model.context_with(k, &mut self.windows))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::SERVICE_AREAS;

    fn sample(base_unit: BaseUnit) -> (Fleet, Model) {
        let fleet = Fleet::new(42, 400, &SERVICE_AREAS[0]);
        let model = Model::new(42, &fleet, 900, LoadModel::Documented(base_unit));
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
                let Values { usage, voltage, is_outage, quality } = model.values(meter, &context);
                assert_eq!(is_outage, quality == Quality::Outage);
                if is_outage {
                    assert_eq!((usage, voltage), (Energy(0), Voltage(0)));
                    continue;
                }
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
        let fleet = Fleet::new(42, 100, &SERVICE_AREAS[0]);
        let [five, quarter, hour] = [300, 900, 3600].map(|seconds| Model::new(42, &fleet, seconds, LoadModel::Utility));
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

    #[test]
    fn a_reading_is_the_same_alone_and_in_a_block() {
        let fleet = Fleet::new(9, 2_000, &SERVICE_AREAS[0]);
        for load in [LoadModel::Documented(BaseUnit::PerReading), LoadModel::Utility] {
            let model = Model::new(9, &fleet, 900, load);
            let mut contexts = Contexts::default();
            for k in YEAR.step_by(701) {
                let alone = model.context(k);
                for meter in (0..fleet.len()).step_by(7) {
                    assert_eq!(model.values(meter, &alone), model.values(meter, contexts.get(&model, k)));
                }
            }
        }
    }
}
