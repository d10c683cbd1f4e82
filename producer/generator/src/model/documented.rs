//! The `documented` load: the published ranges as hard bounds on every reading (peak 14-19 h 1.5-3.5 kWh, morning
//! 6-9 h 1.0-2.5, otherwise 0.3-1.5; times 1, 5 or 15 by segment), and each meter moved inside them by a Gaussian
//! copula: a level of its own, the weather, and noise on four time scales. Marginals stay uniform on the band; lag-1
//! correlation of the residual is about 0.76.

use flux_schemas::reading::Segment;

use crate::noise::{Key, Lattice, stream};

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

    /// Factor on the documented ranges.
    fn scale(self, interval_ms: i64) -> f64 {
        match self {
            Self::PerReading => 1.0,
            Self::PerHour => interval_ms as f64 / 3_600_000.0,
        }
    }
}

/// What the fleet shares in one interval.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Band {
    /// kWh range, after the base unit.
    pub(super) low: f64,
    pub(super) width: f64,
    /// The weather's part of the copula.
    weather: f64,
}

impl Band {
    /// Of a civil hour; `daily_mean` is the temperature of the trailing day. The temperature of the moment would lift
    /// the afternoon band's mean.
    pub(super) fn new(hour: i64, daily_mean: f64, base_unit: BaseUnit, interval_ms: i64) -> Self {
        let (low, high) = match hour {
            14..19 => (1.5, 3.5),
            6..9 => (1.0, 2.5),
            _ => (0.3, 1.5),
        };
        let scale = base_unit.scale(interval_ms);
        Self { low: low * scale, width: (high - low) * scale, weather: 0.30 * (daily_mean - 21.5) / 7.5 }
    }
}

/// What never changes about a meter.
#[derive(Debug)]
pub(super) struct Customer {
    multiplier: f64,
    level: f64,
    phase: i64,
}

impl Customer {
    pub(super) fn new(segment: Segment, key: Key) -> Self {
        let statics = key.stream(stream::STATIC);
        let multiplier = match segment {
            Segment::Residential => 1.0,
            Segment::Commercial => 5.0,
            Segment::Industrial => 15.0,
        };
        Self { multiplier, level: statics.gaussian(1), phase: (statics.bits(2) & 0xff) as i64 }
    }
}

/// The octaves of the noise.
#[derive(Debug)]
pub(super) struct Octaves {
    octave_4: Lattice,
    octave_16: Lattice,
    octave_128: Lattice,
}

impl Default for Octaves {
    fn default() -> Self {
        let [octave_4, octave_16, octave_128] = [2, 4, 7].map(Lattice::new);
        Self { octave_4, octave_16, octave_128 }
    }
}

/// kWh of a customer in interval `k`.
pub(super) fn kwh(customer: &Customer, key: Key, k: i64, band: &Band, octaves: &Octaves) -> f64 {
    let load = |purpose: u64| key.stream(stream::LOAD + purpose);
    // The weights' squares sum to one with the weather's, so the copula's marginal stays standard normal.
    let z = 0.55 * customer.level
        + band.weather
        + 0.30 * octaves.octave_128.at(load(0), k, customer.phase)
        + 0.42 * octaves.octave_16.at(load(1), k, customer.phase)
        + 0.45 * octaves.octave_4.at(load(2), k, customer.phase)
        + 0.37 * load(3).gaussian(k);
    let share = 0.5 * libm::erfc(-z * std::f64::consts::FRAC_1_SQRT_2);
    customer.multiplier * (band.low + band.width * share)
}
