//! Shops and plants: opening hours, shifts, batches.

use super::{HOME_KW, Octaves, Quarter, lognormal};
use crate::noise::{Key, stream};

/// A kind of shop.
struct ShopKind {
    share: f64,
    /// Load when closed, of the load when open.
    closed: f64,
    opens: f64,
    closes: f64,
    /// Activity on Saturday and Sunday.
    rest: [f64; 2],
    /// Part that follows the weather.
    weather: f64,
    noise: f64,
    school: bool,
}

const fn shop(
    share: f64,
    closed: f64,
    [opens, closes]: [f64; 2],
    rest: [f64; 2],
    weather: f64,
    noise: f64,
) -> ShopKind {
    ShopKind { share, closed, opens, closes, rest, weather, noise, school: false }
}

/// Office, retail, restaurant, grocery, school, warehouse.
const SHOPS: [ShopKind; 6] = [
    shop(0.26, 0.28, [7.0, 18.5], [0.25, 0.10], 0.35, 0.14),
    shop(0.24, 0.25, [9.0, 21.0], [1.0, 0.70], 0.30, 0.13),
    shop(0.14, 0.35, [6.0, 23.0], [1.05, 1.0], 0.30, 0.20),
    shop(0.10, 0.62, [6.0, 23.0], [1.0, 1.0], 0.22, 0.09),
    ShopKind { school: true, ..shop(0.08, 0.30, [6.5, 16.5], [0.12, 0.10], 0.40, 0.14) },
    shop(0.18, 0.22, [7.0, 17.5], [0.45, 0.15], 0.15, 0.22),
];

/// One shop.
#[derive(Debug)]
pub(in crate::model) struct Shop {
    kind: usize,
    kw: f64,
    phase: i64,
}

impl Shop {
    pub(super) fn new(key: Key, means: &ProfileMeans) -> Self {
        let statics = key.stream(stream::UTILITY);
        let mut chance = statics.uniform(100);
        let kind = SHOPS.iter().position(|shop| {
            chance -= shop.share;
            chance < 0.0
        });
        let kind = kind.unwrap_or(SHOPS.len() - 1);
        Self {
            kind,
            kw: 5.0 * HOME_KW * lognormal(0.75, statics.gaussian(0)) / means.shops[kind],
            phase: (statics.bits(200) & 0xff) as i64,
        }
    }

    pub(super) fn kw(&self, key: Key, quarter: &Quarter, octaves: &Octaves) -> f64 {
        let kind = &SHOPS[self.kind];
        let load = |purpose: u64| key.stream(stream::LOAD + purpose);
        let jitter = key.stream(stream::UTILITY + 1);
        let day = 2 * quarter.day;
        let opens = kind.opens + 0.25 * jitter.gaussian(day);
        let closes = kind.closes + 0.25 * jitter.gaussian(day + 1);
        let noise = 0.55 * octaves.octave_4.at(load(0), quarter.index, self.phase)
            + 0.83 * octaves.octave_16.at(load(1), quarter.index, self.phase);
        self.kw * kind.profile(quarter, opens, closes) * (1.0 + kind.noise * noise).max(0.05)
    }
}

impl ShopKind {
    fn profile(&self, quarter: &Quarter, opens: f64, closes: f64) -> f64 {
        let logistic = |x: f64| 1.0 / (1.0 + libm::exp(-2.2 * x));
        let middle = quarter.hour + 0.125;
        // A shop that closes at 23 h is still emptying after midnight.
        let open = logistic(middle - opens) * logistic(closes - middle) + logistic(closes - 24.0 - middle);
        let day = match quarter.rest {
            0 if self.school && quarter.school_holidays => 0.4,
            0 => 1.0,
            rest => self.rest[rest - 1],
        };
        let occupied = open * day;
        let heat = ((quarter.felt - 15.0) / 20.0).clamp(0.0, 1.0);
        self.closed
            + (1.0 - self.closed) * (1.0 - self.weather) * occupied
            + self.weather * heat * (0.35 + 0.65 * occupied)
    }
}

/// A kind of plant: share, load when idle, shift, activity on Saturday and Sunday.
struct PlantKind {
    share: f64,
    idle: f64,
    shift: [f64; 2],
    rest: [f64; 2],
}

/// Continuous, two shifts, one shift.
const PLANTS: [PlantKind; 3] = [
    PlantKind { share: 0.40, idle: 0.80, shift: [0.0, 24.0], rest: [0.6, 0.45] },
    PlantKind { share: 0.30, idle: 0.35, shift: [5.5, 23.0], rest: [0.5, 0.15] },
    PlantKind { share: 0.30, idle: 0.18, shift: [6.0, 16.5], rest: [0.3, 0.05] },
];

/// One plant.
#[derive(Debug)]
pub(in crate::model) struct Plant {
    kind: usize,
    kw: f64,
    phase: i64,
}

/// Quarters of a batch window.
const BATCH_WINDOW: i64 = 16;

impl Plant {
    pub(super) fn new(key: Key, means: &ProfileMeans) -> Self {
        let statics = key.stream(stream::UTILITY);
        let kind = match statics.uniform(100) {
            chance if chance < PLANTS[0].share => 0,
            chance if chance < PLANTS[0].share + PLANTS[1].share => 1,
            _ => 2,
        };
        Self {
            kind,
            kw: 15.0 * HOME_KW * lognormal(0.8, statics.gaussian(0)) / means.plants[kind],
            phase: (statics.bits(200) & 0xff) as i64,
        }
    }

    pub(super) fn kw(&self, key: Key, quarter: &Quarter, octaves: &Octaves) -> f64 {
        let load = |purpose: u64| key.stream(stream::LOAD + purpose);
        let profile = PLANTS[self.kind].profile(quarter);
        let noise = 0.05 * octaves.octave_4.at(load(0), quarter.index, self.phase)
            + 0.06 * octaves.octave_16.at(load(1), quarter.index, self.phase);
        self.kw * profile * (1.0 + noise + Self::batches(key, quarter.index)).max(0.05)
    }

    /// A batch raises or lowers the load for a while.
    fn batches(key: Key, k: i64) -> f64 {
        let draws = key.stream(stream::BATCH);
        let window = k.div_euclid(BATCH_WINDOW);
        let moment = k.rem_euclid(BATCH_WINDOW) as f64;
        (0..2)
            .map(|before| {
                let bits = draws.bits(window - before);
                let lane = |lane: u32| (bits >> (16 * lane) & 0xffff) as f64 / 65_536.0;
                if lane(0) >= 0.45 {
                    return 0.0;
                }
                let start = lane(1) * BATCH_WINDOW as f64 - (before * BATCH_WINDOW) as f64;
                let overlap = (start + 2.0 + 12.0 * lane(2)).min(moment + 1.0) - start.max(moment);
                let size = 0.18 + 0.25 * (2.0 * lane(3)).fract();
                overlap.max(0.0) * if lane(3) < 0.5 { -size } else { size }
            })
            .sum()
    }
}

impl PlantKind {
    fn profile(&self, quarter: &Quarter) -> f64 {
        let logistic = |x: f64| 1.0 / (1.0 + libm::exp(-3.0 * x));
        let middle = quarter.hour + 0.125;
        let at_work = if self.shift[1] - self.shift[0] >= 24.0 {
            1.0
        } else {
            logistic(middle - self.shift[0]) * logistic(self.shift[1] - middle)
                + logistic(self.shift[1] - 24.0 - middle)
        };
        let day = if quarter.rest == 0 { 1.0 } else { self.rest[quarter.rest - 1] };
        self.idle + (1.0 - self.idle) * at_work * day
    }
}

/// Mean outputs of the profiles over a year, which scale them to their documented multiples of a home.
#[derive(Debug)]
pub(in crate::model) struct ProfileMeans {
    shops: [f64; 6],
    plants: [f64; 3],
}

impl ProfileMeans {
    /// Over the hours of a year.
    pub(in crate::model) fn new(hours: impl Iterator<Item = Quarter>) -> Self {
        let mut means = Self { shops: [0.0; 6], plants: [0.0; 3] };
        let mut count = 0.0;
        for quarter in hours {
            count += 1.0;
            for (mean, kind) in means.shops.iter_mut().zip(&SHOPS) {
                *mean += kind.profile(&quarter, kind.opens, kind.closes);
            }
            for (mean, kind) in means.plants.iter_mut().zip(&PLANTS) {
                *mean += kind.profile(&quarter);
            }
        }
        means.shops.iter_mut().chain(&mut means.plants).for_each(|mean| *mean /= count);
        means
    }
}
