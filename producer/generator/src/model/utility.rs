//! The `utility` load: homes, shops and plants as a utility engineer knows them, kW averaged over a quarter of an hour.
//!
//! A home is base load, plug load with a daily shape and noise that remembers, appliances that run for a while,
//! an air conditioner that cycles on a thermostat (or does not), electric heating, and here and there a car and a roof.
//! A shop opens and closes; a plant works in shifts and batches. Nothing is remembered: an appliance run, a charge, a
//! vacation is one draw of the window that it lies in, and the thermostat's square wave is averaged in closed form.
//! Constants and sources: `docs/model.md`.

mod business;
mod home;

use flux_schemas::reading::Segment;

use crate::noise::{Key, Lattice};

pub(super) use business::ProfileMeans;
use business::{Plant, Shop};
use home::Home;

/// What the fleet shares in one quarter of an hour.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Quarter {
    /// Quarters since the Unix epoch.
    pub(super) index: i64,
    /// Civil time at its start: hour of the day, day since the epoch.
    pub(super) hour: f64,
    pub(super) day: i64,
    /// Saturday 1, Sunday and holidays 2, otherwise 0.
    pub(super) rest: usize,
    /// June to the middle of August.
    pub(super) school_holidays: bool,
    /// Temperature as the houses feel it, degrees Celsius.
    pub(super) felt: f64,
    /// The sun on a flat roof, 0 to 1, and clouds, 0 to 1.
    pub(super) sun: f64,
    pub(super) cloud: f64,
}

/// The octaves of the noise.
#[derive(Debug)]
pub(super) struct Octaves {
    octave_2: Lattice,
    octave_4: Lattice,
    octave_16: Lattice,
    octave_64: Lattice,
    octave_128: Lattice,
}

impl Default for Octaves {
    fn default() -> Self {
        let [octave_2, octave_4, octave_16, octave_64, octave_128] = [1, 2, 4, 6, 7].map(Lattice::new);
        Self { octave_2, octave_4, octave_16, octave_64, octave_128 }
    }
}

/// What never changes about a customer.
#[derive(Debug)]
pub(super) enum Customer {
    Home(Home),
    Shop(Shop),
    Plant(Plant),
}

/// Mean load of a home, kW: shops are scaled to five times of it, plants to fifteen times.
const HOME_KW: f64 = 1.60;

impl Customer {
    /// `means` are the mean outputs of the shop and plant profiles, see [`profile_means`].
    pub(super) fn new(segment: Segment, key: Key, means: &ProfileMeans, electric_heating: f64) -> Self {
        match segment {
            Segment::Residential => Self::Home(Home::new(key, electric_heating)),
            Segment::Commercial => Self::Shop(Shop::new(key, means)),
            Segment::Industrial => Self::Plant(Plant::new(key, means)),
        }
    }

    /// Whether there is a roof that may give back.
    pub(super) fn generates(&self) -> bool {
        matches!(self, Self::Home(home) if home.generates())
    }

    /// Net load in a quarter, kW: negative where a roof gives more than the home takes. `pick_up` is the share of the
    /// air conditioner that an outage has left to do, 0 to 0.6.
    pub(super) fn kw(&self, key: Key, quarter: &Quarter, pick_up: f64, octaves: &Octaves) -> f64 {
        match self {
            Self::Home(home) => home.kw(key, quarter, pick_up, octaves),
            Self::Shop(shop) => shop.kw(key, quarter, octaves),
            Self::Plant(plant) => plant.kw(key, quarter, octaves),
        }
    }
}

/// exp(sigma g) with mean one.
fn lognormal(sigma: f64, gaussian: f64) -> f64 {
    libm::exp(sigma * gaussian - 0.5 * sigma * sigma)
}
