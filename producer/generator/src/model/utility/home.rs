//! A home: base and plug load, appliances, cooling, heating, a car and a roof.

use super::{Octaves, Quarter, lognormal};
use crate::noise::{Key, stream};

/// An hour of less than a day before or after, in its own day; a division costs more than the rest of a look-up.
fn of_day(hour: f64) -> f64 {
    match hour {
        before if before < 0.0 => before + 24.0,
        after if after >= 24.0 => after - 24.0,
        hour => hour,
    }
}

/// Linear between the hours of a day.
fn at_hour(table: &[f64; 24], hour: f64) -> f64 {
    let hour = of_day(hour);
    let index = hour as usize % 24;
    let fraction = hour - hour.floor();
    table[index] * (1.0 - fraction) + table[(index + 1) % 24] * fraction
}

/// Plug load of a home by hour: workdays, then days of rest.
const PLUG: [[f64; 24]; 2] = [
    [
        0.68, 0.59, 0.54, 0.52, 0.55, 0.68, 0.88, 1.02, 0.98, 0.88, 0.86, 0.88, 0.92, 0.92, 0.93, 1.00, 1.13, 1.32,
        1.48, 1.54, 1.46, 1.32, 1.15, 0.92,
    ],
    [
        0.74, 0.62, 0.56, 0.54, 0.54, 0.58, 0.70, 0.90, 1.08, 1.18, 1.20, 1.22, 1.22, 1.18, 1.14, 1.16, 1.24, 1.36,
        1.48, 1.52, 1.46, 1.34, 1.14, 0.92,
    ],
];

/// Quarters of an appliance window: two hours.
const WINDOW: i64 = 8;

/// One kind of appliance: a run is drawn in every window.
struct Appliance {
    /// Chance of a run in a window, workdays, at the civil hours 1, 3, .. 23; days of rest move it by `rest`.
    chance: [f64; 12],
    rest: f64,
    kw: (f64, f64),
    /// Quarters.
    duration: (f64, f64),
}

impl Appliance {
    /// For a run that starts at this civil hour.
    fn chance_at(&self, hour: f64) -> f64 {
        let place = of_day(hour - 1.0) / 2.0;
        let bin = place as usize % 12;
        let fraction = place - place.floor();
        self.chance[bin] * (1.0 - fraction) + self.chance[(bin + 1) % 12] * fraction
    }
}

const WATER_HEATER: usize = 3;
const APPLIANCES: [Appliance; 5] = [
    // Cooking.
    Appliance {
        chance: [0.01, 0.01, 0.03, 0.22, 0.10, 0.20, 0.16, 0.16, 0.32, 0.36, 0.18, 0.05],
        rest: 1.15,
        kw: (0.8, 2.8),
        duration: (1.0, 4.0),
    },
    // Laundry.
    Appliance {
        chance: [0.0, 0.0, 0.01, 0.04, 0.07, 0.07, 0.06, 0.06, 0.07, 0.08, 0.06, 0.02],
        rest: 1.7,
        kw: (3.2, 5.0),
        duration: (2.5, 5.0),
    },
    // Dishwasher.
    Appliance {
        chance: [0.01, 0.0, 0.0, 0.02, 0.04, 0.04, 0.06, 0.04, 0.05, 0.16, 0.20, 0.08],
        rest: 1.1,
        kw: (0.6, 1.2),
        duration: (3.0, 6.0),
    },
    // Electric water heater.
    Appliance {
        chance: [0.12, 0.08, 0.26, 0.62, 0.55, 0.35, 0.32, 0.30, 0.42, 0.50, 0.47, 0.36],
        rest: 1.05,
        kw: (2.0, 4.0),
        duration: (1.1, 2.8),
    },
    // Everything else.
    Appliance {
        chance: [0.08, 0.05, 0.08, 0.20, 0.25, 0.25, 0.25, 0.25, 0.30, 0.40, 0.40, 0.20],
        rest: 1.2,
        kw: (0.2, 1.2),
        duration: (3.0, 8.0),
    },
];

/// One home.
#[derive(Debug)]
pub(in crate::model) struct Home {
    base_kw: f64,
    plug_kw: f64,
    /// Hours that this home's day is late.
    shift: f64,
    activity: f64,
    phase: i64,
    water_heater: bool,
    cooling: Cycle,
    cooling_from: f64,
    setback: f64,
    /// Civil hours of an empty house on workdays.
    at_work: [f64; 2],
    heating: Cycle,
    heating_below: f64,
    charger_kw: f64,
    roof_kw: f64,
}

/// A load behind a thermostat.
#[derive(Debug)]
struct Cycle {
    kw: f64,
    /// Quarters from start to start; 0 for one that varies its speed.
    period: f64,
    phase: f64,
}

impl Cycle {
    /// Mean kW over a quarter at a duty of 0 to 1: the square wave's integral over the quarter, exactly.
    fn kw(&self, duty: f64, quarter: i64, wander: f64) -> f64 {
        if self.period == 0.0 || duty >= 1.0 {
            return self.kw * duty;
        }
        let integral = |phase: f64| phase.floor() * duty + (phase - phase.floor()).min(duty);
        // Reduced first: a quarter index has more digits than a phase needs.
        let from = (quarter as f64 / self.period).fract() + self.phase + wander;
        let width = 1.0 / self.period;
        self.kw * (integral(from + width) - integral(from)) / width
    }
}

impl Home {
    pub(super) fn new(key: Key, electric_heating: f64) -> Self {
        let statics = key.stream(stream::UTILITY);
        let normal = |draw: i64| statics.gaussian(draw);
        let uniform = |draw: i64| statics.uniform(100 + draw);
        let size = lognormal(0.62, normal(0));
        let power = |exponent: f64| libm::pow(size, exponent);
        let thermostat = |kw: f64, draw: i64| Cycle {
            kw,
            period: if uniform(draw) < 0.60 { 0.0 } else { 0.8 + uniform(draw + 1) },
            phase: 8.0 * uniform(draw + 2),
        };
        // Rather more heat pumps than strips, the rest burns gas.
        let heating_kw = match uniform(0) / electric_heating {
            chance if chance < 0.30 / 0.55 => 3.1 * power(0.6),
            chance if chance < 1.0 => 5.9 * power(0.6),
            _ => 0.45,
        };
        Self {
            base_kw: 0.25 * power(0.7) * lognormal(0.40, normal(1)),
            plug_kw: 0.31 * power(0.9) * lognormal(0.40, normal(2)),
            shift: 0.75 * normal(3),
            activity: 0.9 * lognormal(0.35, normal(4)),
            phase: (statics.bits(200) & 0xff) as i64,
            water_heater: uniform(1) < 0.45,
            cooling: thermostat(3.05 * power(0.8) * lognormal(0.18, normal(5)), 10),
            cooling_from: 20.2 + 1.9 * normal(6),
            setback: if uniform(2) < 0.4 { 2.0 } else { 0.0 },
            at_work: [7.5 + 2.5 * uniform(6), 15.0 + 4.0 * uniform(7)],
            heating: thermostat(heating_kw, 20),
            heating_below: 14.5 + 1.5 * normal(7),
            charger_kw: if uniform(3) < 0.03 { if uniform(4) < 0.7 { 7.2 } else { 11.5 } } else { 0.0 },
            roof_kw: if uniform(5) < 0.03 { 6.5 * lognormal(0.35, normal(8)) } else { 0.0 },
        }
    }

    pub(super) fn generates(&self) -> bool {
        self.roof_kw > 0.0
    }

    pub(super) fn kw(&self, key: Key, quarter: &Quarter, pick_up: f64, octaves: &Octaves) -> f64 {
        let load = |purpose: u64| key.stream(stream::LOAD + purpose);
        let k = quarter.index;
        // Blocks of five days, made of whole appliance windows.
        let away = key.stream(stream::VACATION).uniform(k.div_euclid(60 * WINDOW)) < 0.024;
        let present = if away { 0.12 } else { 1.0 };
        let fast = octaves.octave_2.at(load(0), k, self.phase);
        let z = 0.30 * fast
            + 0.57 * octaves.octave_4.at(load(1), k, self.phase)
            + 0.62 * octaves.octave_16.at(load(2), k, self.phase)
            + 0.45 * octaves.octave_128.at(load(3), k, self.phase);
        let rest = usize::from(quarter.rest > 0);
        let plug = self.plug_kw * at_hour(&PLUG[rest], quarter.hour - self.shift) * libm::exp(0.55 * z - 0.151);
        let base = self.base_kw * (1.0 + 0.08 * key.stream(stream::BASE).gaussian(k));
        let mut kw = base + present * (plug + self.appliances(key, quarter));
        let at_work = quarter.rest == 0 && (self.at_work[0]..self.at_work[1]).contains(&quarter.hour);
        let setback = if away {
            4.0
        } else if at_work {
            self.setback
        } else {
            0.0
        };
        let from = self.cooling_from + setback;
        let duty = ((quarter.felt - from) / (41.0 - self.cooling_from)).clamp(0.0, 1.0);
        let wander = || 0.5 * octaves.octave_64.at(key.stream(stream::HVAC), k, self.phase);
        if duty > 0.0 {
            kw += self.cooling.kw((duty + pick_up).min(1.0), k, wander());
        }
        let duty = ((self.heating_below - setback - quarter.felt) / 20.0).clamp(0.0, 1.0);
        if duty > 0.0 {
            kw += self.heating.kw((duty + pick_up).min(1.0), k, wander());
        }
        if self.charger_kw > 0.0 {
            kw += self.charge(key, quarter);
        }
        if self.roof_kw > 0.0 {
            let cloud = (quarter.cloud + 0.15 * octaves.octave_4.at(key.stream(stream::ROOF), k, 0)).clamp(0.0, 1.0);
            kw -= 0.80 * self.roof_kw * quarter.sun * (1.0 - 0.75 * cloud * cloud);
        }
        kw
    }

    /// Runs of this window and of the one before that lasts into it.
    fn appliances(&self, key: Key, quarter: &Quarter) -> f64 {
        let k = quarter.index;
        let window = k.div_euclid(WINDOW);
        let moment = k.rem_euclid(WINDOW) as f64;
        let mut kw = 0.0;
        for (class, appliance) in APPLIANCES.iter().enumerate() {
            if class == WATER_HEATER && !self.water_heater {
                continue;
            }
            let draws = key.stream(stream::APPLIANCE + class as u64);
            let rest = if quarter.rest > 0 { appliance.rest } else { 1.0 };
            for before in 0..2 {
                let window = window - before;
                let bits = draws.bits(window);
                let lane = |lane: u32| (bits >> (16 * lane) & 0xffff) as f64 / 65_536.0;
                let start = lane(1) * WINDOW as f64 - (before * WINDOW) as f64;
                let duration = appliance.duration.0 + lane(2) * (appliance.duration.1 - appliance.duration.0);
                let overlap = (start + duration).min(moment + 1.0) - start.max(moment);
                // Asked last: most runs are not on.
                let hour = quarter.hour + 0.25 * (start - moment);
                if overlap > 0.0 && lane(0) < appliance.chance_at(hour) * rest * self.activity {
                    kw += overlap * (appliance.kw.0 + lane(3) * (appliance.kw.1 - appliance.kw.0));
                }
            }
        }
        kw
    }

    /// A charge begins in a day from noon to noon, and ends in it.
    fn charge(&self, key: Key, quarter: &Quarter) -> f64 {
        let since_noon = of_day(quarter.hour - 12.0);
        let day = quarter.day - i64::from(quarter.hour < 12.0);
        let draws = key.stream(stream::CHARGE);
        let draw = |index: i64| 8 * day + index;
        if draws.uniform(draw(0)) >= 0.42 {
            return 0.0;
        }
        let normal = draws.gaussian(draw(1));
        let start = if draws.uniform(draw(2)) < 0.65 { 6.5 + 1.75 * normal } else { 11.5 + 0.75 * normal };
        let hours = 18.0 * lognormal(0.5, draws.gaussian(draw(3))) / self.charger_kw;
        let overlap = (start + hours).min(since_noon + 0.25) - start.max(since_noon);
        self.charger_kw * overlap.max(0.0) * 4.0
    }
}
