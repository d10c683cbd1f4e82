//! Sustained outages: who is without power when, without a history.
//!
//! Every node of the tree (substation, circuit, lateral fuse, transformer, service) has at most one event in a window
//! of 28 days: one draw says whether, when and for how long. A meter is out while an event of any node above it lasts.
//! After an event of a substation or circuit the transformers come back one after the other, switching first and
//! repair last.
//!
//! | node | events a year | median minutes |
//! |---|---|---|
//! | substation | 0.02 | 60, staged |
//! | circuit | 0.55 | 100, staged |
//! | lateral | 0.40 | 85 |
//! | transformer | 0.06 | 130 |
//! | service | 0.04 | 160 |
//!
//! The rates give a SAIFI near 1.1 and a SAIDI near 115 minutes a year, as US utilities report without major events
//! (EIA Electric Power Annual, table 11.1).

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use flux_schemas::time::Timestamp;

use crate::{
    calendar::us_central_offset_seconds,
    fleet::{CIRCUITS_PER_SUBSTATION, Fleet, TRANSFORMERS_PER_LATERAL, kind},
    noise::{Key, stream},
};

/// Length of a window, seconds. No event is longer, so a window and the one before hold all that matters.
const WINDOW: i64 = 28 * 86_400;
/// After the power is back the houses are hot or cold: this long, seconds, their load is higher.
const PICK_UP: i64 = 2 * 3600;

/// A kind of node and what befalls it.
struct Level {
    name: &'static str,
    kind: u64,
    a_year: f64,
    median_minutes: f64,
    staged: bool,
    /// Storms and heat: in summer three times as likely in the afternoon.
    summer_afternoons: bool,
}

const SERVICE: usize = 0;
const LEVELS: [Level; 5] = [
    Level {
        name: "SERVICE",
        kind: kind::METER,
        a_year: 0.04,
        median_minutes: 160.0,
        staged: false,
        summer_afternoons: false,
    },
    Level {
        name: "TRANSFORMER",
        kind: kind::TRANSFORMER,
        a_year: 0.06,
        median_minutes: 130.0,
        staged: false,
        summer_afternoons: true,
    },
    Level {
        name: "LATERAL",
        kind: kind::LATERAL,
        a_year: 0.40,
        median_minutes: 85.0,
        staged: false,
        summer_afternoons: true,
    },
    Level {
        name: "CIRCUIT",
        kind: kind::CIRCUIT,
        a_year: 0.55,
        median_minutes: 100.0,
        staged: true,
        summer_afternoons: false,
    },
    Level {
        name: "SUBSTATION",
        kind: kind::SUBSTATION,
        a_year: 0.02,
        median_minutes: 60.0,
        staged: true,
        summer_afternoons: false,
    },
];

/// Why a meter is out: the fault of a node above it, or of its own service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// SERVICE, TRANSFORMER, LATERAL, CIRCUIT or SUBSTATION.
    pub level: &'static str,
    /// The node's number among those of its level, from zero.
    pub node: u32,
    /// When the power went.
    pub start: Timestamp,
    /// When this meter has it back.
    pub end: Timestamp,
}

/// One outage of one node, Unix seconds.
#[derive(Debug, Clone)]
struct Event {
    start: i64,
    end: i64,
    level: usize,
    node: u32,
}

/// What an interval means for one meter.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Disturbance {
    meter: u32,
    /// Share of the interval without power.
    pub(crate) out: f64,
    /// Seconds since the power came back, where that is less than [`PICK_UP`] ago.
    pub(crate) since: Option<i64>,
    /// What takes most of the interval's power.
    pub(crate) fault: Fault,
}

/// The disturbed meters of one interval, by meter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disturbances(Arc<[Disturbance]>);

impl Disturbances {
    /// What the interval means for `meter`; nothing for nearly all.
    #[inline]
    pub(crate) fn of(&self, meter: u32) -> Option<&Disturbance> {
        if self.0.is_empty() {
            return None;
        }
        self.0.binary_search_by_key(&meter, |disturbance| disturbance.meter).ok().map(|index| &self.0[index])
    }
}

/// The events of recent windows: making one asks every node.
#[derive(Debug, Default)]
pub(crate) struct Windows(BTreeMap<i64, Arc<[Event]>>);

/// The outages of a fleet.
#[derive(Debug)]
pub(crate) struct Outages {
    seed: u64,
    /// Nodes of each level.
    nodes: [u32; 5],
    transformers_per_circuit: u32,
    /// Meters by transformer: those of transformer `t` are `meters[starts[t]..starts[t + 1]]`.
    meters: Vec<u32>,
    starts: Vec<u32>,
}

impl Outages {
    pub(crate) fn new(seed: u64, fleet: &Fleet) -> Self {
        let transformers = fleet.transformers();
        let mut starts = vec![0u32; transformers as usize + 1];
        for meter in 0..fleet.len() {
            starts[fleet.place(meter).transformer as usize + 1] += 1;
        }
        for index in 0..transformers as usize {
            starts[index + 1] += starts[index];
        }
        let mut next = starts.clone();
        let mut meters = vec![0; fleet.len() as usize];
        for meter in 0..fleet.len() {
            let slot = &mut next[fleet.place(meter).transformer as usize];
            meters[*slot as usize] = meter;
            *slot += 1;
        }
        let per_circuit = fleet.transformers_per_circuit();
        let laterals_per_circuit = per_circuit.div_ceil(TRANSFORMERS_PER_LATERAL);
        let circuits = fleet.circuits();
        Self {
            seed,
            nodes: [
                fleet.len(),
                transformers,
                circuits * laterals_per_circuit,
                circuits,
                circuits.div_ceil(CIRCUITS_PER_SUBSTATION),
            ],
            transformers_per_circuit: per_circuit,
            meters,
            starts,
        }
    }

    /// The disturbed meters of [start, start + length), seconds.
    pub(crate) fn during(&self, start: i64, length: i64, windows: &mut Windows) -> Disturbances {
        let mut found: BTreeMap<u32, Disturbance> = BTreeMap::new();
        let window = start.div_euclid(WINDOW);
        for window in [window - 1, window] {
            let events = windows.0.entry(window).or_insert_with(|| self.events(window)).clone();
            let near = events.iter().filter(|event| event.start < start + length && event.end + PICK_UP > start);
            for event in near {
                self.apply(event, start, length, &mut found);
            }
        }
        while windows.0.len() > 64 {
            windows.0.pop_first();
        }
        Disturbances(found.into_values().collect())
    }

    fn events(&self, window: i64) -> Arc<[Event]> {
        let mut events = Vec::new();
        for (level, rules) in LEVELS.iter().enumerate() {
            let chance = rules.a_year * 28.0 / 365.25;
            for node in 0..self.nodes[level] {
                let key = Key::new(self.seed, rules.kind, u64::from(node));
                let draws = key.stream(stream::OUTAGE);
                if draws.uniform(window) >= chance {
                    continue;
                }
                let details = key.stream(stream::OUTAGE + 1);
                let mut start = window * WINDOW + (details.uniform(4 * window) * WINDOW as f64) as i64;
                if rules.summer_afternoons {
                    start = towards_the_afternoon(start, details.uniform(4 * window + 1));
                }
                let minutes = rules.median_minutes * libm::exp(0.8 * details.gaussian(4 * window + 2));
                let end = start + ((minutes * 60.0) as i64).clamp(60, WINDOW);
                events.push(Event { start, end, level, node });
            }
        }
        events.into()
    }

    fn apply(&self, event: &Event, start: i64, length: i64, found: &mut BTreeMap<u32, Disturbance>) {
        let level = &LEVELS[event.level];
        let mut disturb = |meter: u32, end: i64| {
            let fault = Fault {
                level: level.name,
                node: event.node,
                start: Timestamp::from_seconds(event.start),
                end: Timestamp::from_seconds(end),
            };
            disturb(found, meter, fault, (event.start, end), (start, start + length));
        };
        if event.level == SERVICE {
            return disturb(event.node, event.end);
        }
        let draws = Key::new(self.seed, level.kind, u64::from(event.node)).stream(stream::OUTAGE + 2);
        for transformer in self.transformers_below(event) {
            // The restoration order is drawn anew for each event.
            let end = if level.staged {
                let order = draws.uniform(event.start ^ i64::from(transformer) << 34);
                event.start + ((event.end - event.start) as f64 * (0.25 + 0.75 * order)) as i64
            } else {
                event.end
            };
            let meters = self.starts[transformer as usize]..self.starts[transformer as usize + 1];
            for &meter in &self.meters[meters.start as usize..meters.end as usize] {
                disturb(meter, end);
            }
        }
    }

    fn transformers_below(&self, event: &Event) -> Range<u32> {
        let per_circuit = self.transformers_per_circuit;
        let circuits = |first: u32, count: u32| first * per_circuit..(first + count) * per_circuit;
        let range = match LEVELS[event.level].kind {
            kind::TRANSFORMER => event.node..event.node + 1,
            kind::LATERAL => {
                let laterals = per_circuit.div_ceil(TRANSFORMERS_PER_LATERAL);
                let circuit = circuits(event.node / laterals, 1);
                let first = circuit.start + event.node % laterals * TRANSFORMERS_PER_LATERAL;
                first..(first + TRANSFORMERS_PER_LATERAL).min(circuit.end)
            }
            kind::CIRCUIT => circuits(event.node, 1),
            _ => circuits(event.node * CIRCUITS_PER_SUBSTATION, CIRCUITS_PER_SUBSTATION),
        };
        range.start.min(self.nodes[1])..range.end.min(self.nodes[1])
    }
}

/// Adds what an outage of `meter` means for an interval; both are half-open, in seconds.
fn disturb(
    found: &mut BTreeMap<u32, Disturbance>,
    meter: u32,
    fault: Fault,
    (from, to): (i64, i64),
    (start, end): (i64, i64),
) {
    let overlap = (to.min(end) - from.max(start)).max(0);
    let since = Some(start - to).filter(|since| (0..PICK_UP).contains(since) && to - from > 30 * 60);
    if overlap == 0 && since.is_none() {
        return;
    }
    let out = overlap as f64 / (end - start) as f64;
    let known = found.entry(meter).or_insert(Disturbance { meter, out: 0.0, since: None, fault });
    if out > known.out {
        (known.out, known.fault) = (out, fault);
    }
    known.since = known.since.or(since);
}

/// Moves a third of the summer's events into 14-20 h local time, which makes that hour three times as likely as another.
fn towards_the_afternoon(start: i64, chance: f64) -> i64 {
    let local = start + us_central_offset_seconds(Timestamp::from_seconds(start));
    let summer = (5..=9).contains(&Timestamp::from_seconds(local).date().month);
    let second = local.rem_euclid(86_400);
    if !summer || chance >= 1.0 / 3.0 || (14 * 3600..20 * 3600).contains(&second) {
        return start;
    }
    start - second + 14 * 3600 + (chance * 3.0 * 6.0 * 3600.0) as i64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::SERVICE_AREAS;

    #[test]
    fn a_year_has_the_interruptions_and_minutes_that_utilities_report() {
        let fleet = Fleet::new(5, 60_000, &SERVICE_AREAS[0]);
        let outages = Outages::new(5, &fleet);
        let mut interruptions = 0u64;
        let mut seconds = 0.0;
        for window in 710..723 {
            for event in outages.events(window).iter() {
                let mut found = BTreeMap::new();
                outages.apply(event, event.start, event.end - event.start, &mut found);
                interruptions += found.len() as u64;
                seconds += found.values().map(|one| one.out * (event.end - event.start) as f64).sum::<f64>();
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
        let fleet = Fleet::new(5, 2_000, &SERVICE_AREAS[0]);
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
}
