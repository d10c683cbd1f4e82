//! One meter, one interval: load, voltage, outage and quality.
//!
//! ```text
//! interval ─▶ Context  civil time · weather · outages, once for the whole fleet
//!                │
//! meter ─────────┴─▶ load (documented or utility) ─▶ voltage ─▶ outage ─▶ Values
//! ```

mod anomaly;
mod documented;
mod utility;
mod wide;

pub use documented::BaseUnit;
pub use wide::{Wide, flags};

use flux_schemas::{
    reading::{Energy, Quality, Segment, Voltage},
    time::{Date, Timestamp},
};

use crate::{
    calendar::{Zone, rest_day},
    fleet::{Fleet, kind, static_draw},
    noise::{Key, Lattice, Stream, stream},
    outage::{Disturbances, Fault, Outages, Windows},
    scenario::Happenings,
    weather::Weather,
};

/// Version of every value this crate makes. A change that moves the golden hash increments it.
pub const MODEL_VERSION: i32 = 3;

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

/// What befalls the grid, beyond what the seed says.
#[derive(Debug, Clone)]
pub struct Conditions {
    /// Share of the readings whose voltage is outside 114 to 126 V for hours or days.
    pub voltage_anomaly_rate: f64,
    /// Share of the readings that are tagged as estimates, in blocks of eight intervals.
    pub estimated_share: f64,
    /// What a scenario lets happen.
    pub happenings: Happenings,
    /// When the run starts: a scenario's times count from there.
    pub start: Timestamp,
    /// Pin an outage of a transformer and one of a circuit into a run of this many seconds.
    pub demo_events: Option<i64>,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            voltage_anomaly_rate: 0.002,
            estimated_share: 0.005,
            happenings: Happenings::default(),
            start: Timestamp(0),
            demo_events: None,
        }
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
    /// Degrees Celsius.
    temperature: f64,
    disturbances: Disturbances,
    anomalies: anomaly::Active,
}

impl Context {
    /// Its interval's index since the Unix epoch.
    pub fn interval(&self) -> i64 {
        self.interval
    }
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
    anomalies: anomaly::Anomalies,
    zone: Zone,
    estimated_share: f64,
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
    pub fn new(seed: u64, fleet: &Fleet, interval_seconds: i32, load: LoadModel, conditions: &Conditions) -> Self {
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
                    feeder_drop: 3.6 * fleet.distance(place.transformer, place.circuit),
                    tap: 1.2 * static_draw(seed, kind::TRANSFORMER, place.transformer, 1) - 0.6,
                    service_drop: 0.75 / service_kw * 3600.0 / f64::from(interval_seconds),
                }
            })
            .collect::<Vec<_>>();
        let transformers = (0..fleet.tree.transformers())
            .map(|index| Key::new(seed, kind::TRANSFORMER, u64::from(index)).stream(stream::VOLTAGE))
            .collect();
        let circuits = (0..fleet.tree.circuits())
            .map(|index| {
                let level = 1.6 * static_draw(seed, kind::CIRCUIT, index, 1) - 0.8;
                (Key::new(seed, kind::CIRCUIT, u64::from(index)).stream(stream::VOLTAGE), level)
            })
            .collect();
        let area = fleet.area();
        let zone = area.zone;
        let weather = Weather::new(seed, area, conditions.happenings.temperature_offset);
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
                let year = (0..365 * 24).map(|hour| quarter(&weather, zone, first + 4 * hour));
                let means = utility::ProfileMeans::new(year);
                Load::Utility {
                    customers: (0..fleet.len())
                        .map(|meter| utility::Customer::new(segment(meter), key(meter), &means, area.electric_heating))
                        .collect(),
                    octaves: utility::Octaves::default(),
                }
            }
        };
        let mut outages = Outages::new(seed, fleet);
        let start = conditions.start.0 / 1000;
        if let Some(length) = conditions.demo_events {
            outages.demonstrate(start, length);
        }
        outages.befall(fleet, &conditions.happenings, start, |seconds| {
            feeder_load(&quarter(&weather, zone, (seconds * 1000).div_euclid(QUARTER_MS)))
        });
        Self {
            interval_ms: i64::from(interval_seconds) * 1000,
            load,
            weather,
            octave_4: Lattice::new(2),
            octave_16: Lattice::new(4),
            meters,
            transformers,
            circuits,
            outages,
            anomalies: anomaly::Anomalies::new(seed, fleet.tree.transformers(), conditions.voltage_anomaly_rate),
            zone,
            estimated_share: conditions.estimated_share,
        }
    }

    /// What the fleet shares in interval `k` (index since the Unix epoch).
    pub fn context(&self, k: i64) -> Context {
        self.context_with(k, &mut Recent::default())
    }

    fn context_with(&self, k: i64, recent: &mut Recent) -> Context {
        let timestamp = Timestamp(k * self.interval_ms);
        let now = quarter(&self.weather, self.zone, timestamp.0.div_euclid(QUARTER_MS));
        let (band, quarters) = match &self.load {
            Load::Documented { base_unit, .. } => {
                let hours = (0..24).map(|hour| self.weather.temperature(Timestamp(timestamp.0 - hour * 3_600_000)));
                let band =
                    documented::Band::new(now.hour as i64, hours.sum::<f64>() / 24.0, *base_unit, self.interval_ms);
                (band, [now; 4])
            }
            Load::Utility { .. } => (
                documented::Band::default(),
                std::array::from_fn(|index| match index {
                    0 => now,
                    index if index < self.quarters() => quarter(&self.weather, self.zone, now.index + index as i64),
                    _ => now,
                }),
            ),
        };
        let (start, length) = (timestamp.0.div_euclid(1000), self.interval_ms / 1000);
        Context {
            interval: k,
            timestamp,
            band,
            quarters,
            feeder_load: feeder_load(&now),
            temperature: self.weather.temperature(timestamp),
            disturbances: self.outages.during(start, length, &mut recent.outages),
            anomalies: self.anomalies.during(start, length, &mut recent.anomalies),
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
        let Some(energy) = self.energy(meter, context) else { return OUT };
        let volts = self.volts(constants, energy.net, context);
        let estimated = key.stream(stream::QUALITY).uniform(k >> 3) < self.estimated_share;
        Values {
            usage: Energy((energy.delivered * 10_000.0).round() as i64),
            voltage: Voltage((volts * 10.0).round() as i32),
            is_outage: false,
            quality: if estimated { Quality::Estimated } else { Quality::Valid },
        }
    }

    /// The energy of an interval; `None` for a meter that is out.
    fn energy(&self, meter: u32, context: &Context) -> Option<Exchange> {
        let key = self.meters[meter as usize].key;
        let disturbance = context.disturbances.of(meter);
        let out = disturbance.map_or(0.0, |disturbance| disturbance.out);
        if self.is_out(out) {
            return None;
        }
        Some(match &self.load {
            Load::Documented { customers, octaves, .. } => {
                let kwh = documented::kwh(&customers[meter as usize], key, context.interval, &context.band, octaves);
                Exchange { net: kwh, delivered: kwh }
            }
            Load::Utility { customers, octaves } => {
                let since = disturbance.and_then(|disturbance| disturbance.since);
                let pick_up = since.map_or(0.0, pick_up);
                let (net, delivered) = self.utility_kwh(&customers[meter as usize], key, context, pick_up, octaves);
                Exchange { net: net * (1.0 - out), delivered: delivered * (1.0 - out) }
            }
        })
    }

    /// Whether an interval that is without power for the share `out` counts as one without power. The documented ranges
    /// bound whole readings, so there an interval is out when most of it is.
    fn is_out(&self, out: f64) -> bool {
        match &self.load {
            Load::Documented { .. } => out >= 0.5,
            Load::Utility { .. } => out >= 0.999,
        }
    }

    /// The outages of all meters that touch [start, end), seconds.
    pub(crate) fn outages(&self, start: i64, end: i64, recent: &mut Recent, each: impl FnMut(u32, Fault)) {
        self.outages.touching(start, end, &mut recent.outages, each);
    }

    /// The meters that are out in the interval of `context`, and why.
    pub(crate) fn meters_out<'a>(&'a self, context: &'a Context) -> impl Iterator<Item = (u32, Fault)> + 'a {
        let out = context.disturbances.iter().filter(|(_, disturbance)| self.is_out(disturbance.out));
        out.map(|(meter, disturbance)| (meter, disturbance.fault))
    }

    /// Mean voltage of an interval. What flows on balance moves it.
    fn volts(&self, constants: &MeterConstants, net: f64, context: &Context) -> f64 {
        let (k, key) = (context.interval, constants.key);
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
        match context.anomalies.of(constants.transformer) {
            None => volts.clamp(110.0, 127.0),
            Some(offset) => (volts + offset).clamp(100.0, 135.0),
        }
    }

    /// Why `meter` is out in the interval of `context`, if it is.
    pub fn fault(&self, meter: u32, context: &Context) -> Option<Fault> {
        let disturbance = context.disturbances.of(meter)?;
        self.is_out(disturbance.out).then_some(disturbance.fault)
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

/// What flows in an interval, kWh.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    /// Taken less given back.
    net: f64,
    /// Taken: what is given back is another channel, and takes nothing from it.
    delivered: f64,
}

/// The share of cooling that an outage has left to do, so long after it.
fn pick_up(seconds: i64) -> f64 {
    0.6 * libm::exp(-seconds as f64 / 2700.0)
}

/// Stand-in for the load of a feeder, 0 to 1: daily shape and temperature.
fn feeder_load(now: &utility::Quarter) -> f64 {
    let shape = 0.5 + 0.5 * libm::cos(2.0 * std::f64::consts::PI * (now.hour - 17.0) / 24.0);
    0.35 * shape + 0.65 * ((now.felt - 18.0) / 18.0).clamp(0.0, 1.0)
}

/// What the fleet shares in the quarter of an hour with this index.
fn quarter(weather: &Weather, zone: Zone, index: i64) -> utility::Quarter {
    let at = Timestamp(index * QUARTER_MS);
    let local = zone.local_seconds(at);
    let day = local.div_euclid(86_400);
    let ago = |hours: i64| weather.temperature(Timestamp(at.0 - hours * 3_600_000));
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
    recent: Recent,
}

/// What recent intervals had in common.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    outages: Windows,
    anomalies: anomaly::Windows,
}

impl Default for Contexts {
    fn default() -> Self {
        Self { slots: vec![None; 4096], recent: Recent::default() }
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
        self.slots[slot].get_or_insert_with(|| model.context_with(k, &mut self.recent))
    }
}

#[cfg(test)]
mod tests;
