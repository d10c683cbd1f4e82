//! Voltage that is wrong for hours or days: a tap, a regulator that is stuck, an open neutral. States of a transformer,
//! not coin flips: in a window of five days it has at most one.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    fleet::kind,
    noise::{Key, stream},
};

/// Length of a window, seconds; no anomaly is longer.
const WINDOW: i64 = 5 * 86_400;
/// Durations lie between this and a window, evenly on a logarithmic scale.
const SHORTEST: f64 = 2.0 * 3600.0;
/// Mean share of a window that an anomaly takes: (1 - 1/60) / ln 60.
const MEAN_SHARE: f64 = 0.240;

/// One anomaly, Unix seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Anomaly {
    pub(crate) transformer: u32,
    pub(crate) start: i64,
    pub(crate) end: i64,
    /// Volts that it adds.
    pub(crate) volts: f64,
}

/// The anomalies of recent windows.
pub(super) type Windows = BTreeMap<i64, Arc<[Anomaly]>>;

/// The anomalies of an interval, by transformer.
#[derive(Debug, Clone, Default)]
pub(super) struct Active(Arc<[(u32, f64)]>);

impl Active {
    /// What is wrong with a transformer's voltage; nothing for nearly all.
    #[inline]
    pub(super) fn of(&self, transformer: u32) -> Option<f64> {
        if self.0.is_empty() {
            return None;
        }
        let index = self.0.binary_search_by_key(&transformer, |(transformer, _)| *transformer).ok()?;
        Some(self.0[index].1)
    }
}

/// The anomalies of a fleet.
#[derive(Debug)]
pub(super) struct Anomalies {
    seed: u64,
    transformers: u32,
    chance: f64,
}

impl Anomalies {
    /// `rate` is the share of the readings that they touch.
    pub(super) fn new(seed: u64, transformers: u32, rate: f64) -> Self {
        Self { seed, transformers, chance: rate / MEAN_SHARE }
    }

    /// Those that touch [start, start + length), seconds.
    pub(super) fn during(&self, start: i64, length: i64, windows: &mut Windows) -> Active {
        let mut found = Vec::new();
        self.touching(start, start + length, windows, |anomaly| found.push((anomaly.transformer, anomaly.volts)));
        found.sort_by_key(|(transformer, _)| *transformer);
        found.dedup_by_key(|(transformer, _)| *transformer);
        Active(found.into())
    }

    /// Calls `each` with every anomaly that touches [start, end), seconds.
    pub(super) fn touching(&self, start: i64, end: i64, windows: &mut Windows, mut each: impl FnMut(&Anomaly)) {
        for window in start.div_euclid(WINDOW) - 1..=(end - 1).div_euclid(WINDOW) {
            let known = windows.entry(window).or_insert_with(|| self.of_window(window)).clone();
            known.iter().filter(|anomaly| anomaly.start < end && anomaly.end > start).for_each(&mut each);
        }
        while windows.len() > 64 {
            windows.pop_first();
        }
    }

    fn of_window(&self, window: i64) -> Arc<[Anomaly]> {
        let anomaly = |transformer: u32| {
            let draws = Key::new(self.seed, kind::TRANSFORMER, u64::from(transformer)).stream(stream::ANOMALY);
            let draw = |index: i64| draws.uniform(8 * window + index);
            if draw(0) >= self.chance {
                return None;
            }
            let start = window * WINDOW + (draw(1) * WINDOW as f64) as i64;
            let longest = WINDOW as f64 / SHORTEST;
            let length = SHORTEST * libm::exp(libm::log(longest) * draw(2));
            let volts = match draw(3) {
                // Too few turns, too many, a regulator at its end, an open neutral.
                kind if kind < 0.45 => -9.5 - 3.5 * draw(4),
                kind if kind < 0.75 => 6.5 + 2.0 * draw(4),
                kind if kind < 0.90 => 7.0,
                _ => -12.0,
            };
            Some(Anomaly { transformer, start, end: start + length as i64, volts })
        };
        (0..self.transformers).filter_map(anomaly).collect()
    }
}

impl super::Model {
    /// The voltage anomalies that touch [start, end), seconds.
    pub(crate) fn anomalies(&self, start: i64, end: i64, recent: &mut super::Recent, each: impl FnMut(&Anomaly)) {
        self.anomalies.touching(start, end, &mut recent.anomalies, each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_of_wrong_readings_is_the_rate() {
        for rate in [0.002, 0.02] {
            let anomalies = Anomalies::new(3, 2_000, rate);
            let mut windows = Windows::new();
            let intervals = 6 * 500;
            let active: usize =
                (0..intervals).map(|k| anomalies.during(1_767_225_600 + k * 14_400, 900, &mut windows).0.len()).sum();
            let share = active as f64 / (intervals as f64 * 2_000.0);
            assert!((0.85..1.15).contains(&(share / rate)), "{share} of {rate}");
        }
    }
}
