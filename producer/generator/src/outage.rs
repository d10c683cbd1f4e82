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
//! Scenarios add storms, which hit circuits and come back exponentially, and cascades ([`crate::scenario`]).
//!
//! The rates give a SAIFI near 1.1 and a SAIDI near 115 minutes a year, as US utilities report without major events
//! (EIA Electric Power Annual, table 11.1).

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use flux_schemas::time::Timestamp;

use crate::{
    calendar::Zone,
    fleet::{Fleet, Tree, kind},
    noise::{Key, Stream, stream},
    scenario::{Cascade, Happenings, Storm, seconds},
};

/// Length of a window, seconds. No event is longer, so a window and the one before hold all that matters.
pub(crate) const WINDOW: i64 = 28 * 86_400;
/// After the power is back the houses are hot or cold: this long, seconds, their load is higher.
const PICK_UP: i64 = 2 * 3600;

/// The levels of the tree at which a fault may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// One meter.
    Service,
    /// A transformer.
    Transformer,
    /// Transformers behind one fuse.
    Lateral,
    /// A circuit.
    Circuit,
    /// A substation.
    Substation,
}

impl Level {
    /// All levels, from the bottom up.
    pub const ALL: [Self; 5] = [Self::Service, Self::Transformer, Self::Lateral, Self::Circuit, Self::Substation];

    /// As in OUTAGE_LEVEL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "SERVICE",
            Self::Transformer => "TRANSFORMER",
            Self::Lateral => "LATERAL",
            Self::Circuit => "CIRCUIT",
            Self::Substation => "SUBSTATION",
        }
    }

    const fn kind(self) -> u64 {
        match self {
            Self::Service => kind::METER,
            Self::Transformer => kind::TRANSFORMER,
            Self::Lateral => kind::LATERAL,
            Self::Circuit => kind::CIRCUIT,
            Self::Substation => kind::SUBSTATION,
        }
    }

    /// Events a year, and the median of their minutes.
    const fn rate(self) -> (f64, f64) {
        match self {
            Self::Service => (0.04, 160.0),
            Self::Transformer => (0.06, 130.0),
            Self::Lateral => (0.40, 85.0),
            Self::Circuit => (0.55, 100.0),
            Self::Substation => (0.02, 60.0),
        }
    }

    /// Storms and heat: in summer three times as likely in the afternoon.
    const fn on_summer_afternoons(self) -> bool {
        matches!(self, Self::Transformer | Self::Lateral)
    }
}

/// Why a meter is out: the fault of a node above it, or of its own service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Where the fault lies.
    pub level: Level,
    /// The node's number among those of its level, from zero.
    pub node: u32,
    /// When the power went.
    pub start: Timestamp,
    /// When this meter has it back.
    pub end: Timestamp,
    /// What made it.
    pub cause: Cause,
}

impl Fault {
    /// One id for all meters that the fault puts out.
    pub fn outage_id(&self) -> String {
        format!("{}-{}-{}", self.level.as_str(), self.node + 1, self.start.0 / 1000)
    }
}

/// What makes an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The ordinary rates.
    Ordinary,
    /// Pinned for a demonstration.
    Demo,
    /// A storm of the scenario.
    Storm,
    /// A cascade of the scenario.
    Cascade,
}

impl Cause {
    /// As `truth` prints it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ordinary => "ORDINARY",
            Self::Demo => "DEMO",
            Self::Storm => "STORM",
            Self::Cascade => "CASCADE",
        }
    }
}

/// How the transformers below come back.
#[derive(Debug, Clone, Copy)]
enum Restoration {
    /// All at the end.
    Together,
    /// One after the other: switching first, repair last.
    Staged,
    /// Exponentially, with this mean, seconds.
    Storm(f64),
}

/// One outage of one node, Unix seconds.
#[derive(Debug, Clone)]
struct Event {
    start: i64,
    end: i64,
    level: Level,
    node: u32,
    restoration: Restoration,
    cause: Cause,
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

    /// All of them, by meter.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Disturbance)> {
        self.0.iter().map(|disturbance| (disturbance.meter, disturbance))
    }
}

/// The events of recent windows: making one asks every node.
#[derive(Debug, Default)]
pub(crate) struct Windows(BTreeMap<i64, Arc<[Event]>>);

/// The outages of a fleet.
#[derive(Debug)]
pub(crate) struct Outages {
    seed: u64,
    zone: Zone,
    /// Nodes of each level.
    nodes: [u32; 5],
    tree: Arc<Tree>,
    /// Meters by transformer: those of transformer `t` are `meters[starts[t]..starts[t + 1]]`.
    meters: Vec<u32>,
    starts: Vec<u32>,
    /// Events that are there whatever the rates, by start.
    given: Vec<Event>,
}

impl Outages {
    pub(crate) fn new(seed: u64, fleet: &Fleet) -> Self {
        let tree = fleet.tree.clone();
        let transformers = tree.transformers();
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
        let nodes = [fleet.len(), transformers, tree.laterals(), tree.circuits(), tree.substations()];
        Self { seed, zone: fleet.area().zone, nodes, tree, meters, starts, given: Vec::new() }
    }

    /// Adds what a scenario lets happen in a run that starts at `start`, seconds; `load` is the feeders' load then.
    /// Assets that the fleet has not were refused before.
    pub(crate) fn befall(&mut self, fleet: &Fleet, happenings: &Happenings, start: i64, load: impl Fn(i64) -> f64) {
        for (index, storm) in happenings.storm.iter().enumerate() {
            self.storm(fleet, index as u64, storm, start);
        }
        for cascade in &happenings.cascade {
            self.cascade(fleet, cascade, start, &load);
        }
        self.given.sort_by_key(|event| event.start);
    }

    /// Adds an outage of a transformer and one of a circuit to the run's first days, so that a demonstration has some.
    pub(crate) fn demonstrate(&mut self, start: i64, length: i64) {
        let draws = Key::new(self.seed, kind::REGION, 1).stream(stream::OUTAGE);
        let length = length.min(7 * 86_400);
        let mut pin = |level: Level, at: f64, hours: f64, restoration| {
            let node = (draws.uniform(level as i64) * f64::from(self.nodes[level as usize])) as u32;
            let start = start + (length as f64 * at) as i64;
            let end = start + ((hours * 3600.0) as i64).min(length / 4);
            self.given.push(Event { start, end, level, node, restoration, cause: Cause::Demo });
        };
        pin(Level::Transformer, 0.30, 3.0, Restoration::Together);
        pin(Level::Circuit, 0.65, 2.0, Restoration::Staged);
        self.given.sort_by_key(|event| event.start);
    }

    fn storm(&mut self, fleet: &Fleet, index: u64, storm: &Storm, start: i64) {
        let start = start + seconds(&storm.start).unwrap_or_default();
        let longest = ((storm.longest_days * 86_400.0) as i64).min(WINDOW);
        for substation in 0..self.nodes[Level::Substation as usize] {
            let named = storm.substations.iter().any(|id| id == fleet.substation_id(substation));
            if !named && !storm.substations.is_empty() {
                continue;
            }
            // One place fares worse than another: the share varies by substation around its mean.
            let key = Key::new(self.seed, kind::SUBSTATION, u64::from(substation));
            let local = key.stream(stream::STORM).uniform(index as i64);
            let share = if storm.fraction <= 0.5 {
                2.0 * storm.fraction * local
            } else {
                1.0 - 2.0 * (1.0 - storm.fraction) * local
            };
            for circuit in self.tree.circuits_of_substation(substation) {
                let draws = Key::new(self.seed, kind::CIRCUIT, u64::from(circuit)).stream(stream::STORM);
                if draws.uniform(2 * index as i64) >= share {
                    continue;
                }
                // The logistic curve of a front that passes, cut at its ends.
                let chance = 0.02 + 0.96 * draws.uniform(2 * index as i64 + 1);
                let front = 0.5 + libm::log(chance / (1.0 - chance)) / 7.8;
                let start = start + (front * storm.spread_hours * 3600.0) as i64;
                self.given.push(Event {
                    start,
                    end: start + longest,
                    level: Level::Circuit,
                    node: circuit,
                    restoration: Restoration::Storm(storm.restoration_hours * 3600.0),
                    cause: Cause::Storm,
                });
            }
        }
    }

    /// The rule is said in [`crate::scenario`].
    fn cascade(&mut self, fleet: &Fleet, cascade: &Cascade, start: i64, load: &impl Fn(i64) -> f64) {
        let Some((mut level, mut node)) = fleet.node_of_id(&cascade.asset) else { return };
        let mut at = start + seconds(&cascade.start).unwrap_or_default();
        let repair = ((cascade.repair_hours * 3600.0) as i64).min(WINDOW);
        let draws = Key::new(self.seed, kind::REGION, 2).stream(stream::OUTAGE);
        loop {
            let siblings = self.siblings(level, node);
            self.fail(level, node, at, repair);
            for (failed, sibling) in (1..).zip(siblings.clone().filter(|sibling| *sibling != node)) {
                let left = siblings.len() as u32 - failed;
                if load(at) * siblings.len() as f64 / f64::from(left) <= cascade.capacity {
                    return;
                }
                at += 300 + (draws.uniform(at ^ i64::from(sibling)) * 600.0) as i64;
                self.fail(level, sibling, at, repair);
            }
            let Some(parent) = self.parent(level, node) else { return };
            (level, node) = parent;
        }
    }

    fn fail(&mut self, level: Level, node: u32, start: i64, repair: i64) {
        let restoration = Restoration::Together;
        self.given.push(Event { start, end: start + repair, level, node, restoration, cause: Cause::Cascade });
    }

    fn siblings(&self, level: Level, node: u32) -> Range<u32> {
        match level {
            Level::Service => node..node + 1,
            Level::Transformer => self.tree.transformers_of_lateral(self.tree.lateral_of(node)),
            Level::Lateral => {
                let circuit = self.tree.circuit_of(self.tree.transformers_of_lateral(node).start);
                self.tree.laterals_of_circuit(circuit)
            }
            Level::Circuit => self.tree.circuits_of_substation(self.tree.substation_of(node)),
            Level::Substation => 0..self.tree.substations(),
        }
    }

    fn parent(&self, level: Level, node: u32) -> Option<(Level, u32)> {
        Some(match level {
            Level::Service | Level::Substation => return None,
            Level::Transformer => (Level::Lateral, self.tree.lateral_of(node)),
            Level::Lateral => (Level::Circuit, self.tree.circuit_of(self.tree.transformers_of_lateral(node).start)),
            Level::Circuit => (Level::Substation, self.tree.substation_of(node)),
        })
    }

    /// The disturbed meters of [start, start + length), seconds.
    pub(crate) fn during(&self, start: i64, length: i64, windows: &mut Windows) -> Disturbances {
        let mut found: Vec<Disturbance> = Vec::new();
        self.near(start, start + length, PICK_UP, windows, |event| {
            self.each_meter(event, |meter, fault| disturb(&mut found, meter, fault, (start, start + length)));
        });
        found.sort_by_key(|disturbance| disturbance.meter);
        found.dedup_by(|later, first| {
            let same = later.meter == first.meter;
            if same {
                if later.out > first.out {
                    (first.out, first.fault) = (later.out, later.fault);
                }
                first.since = first.since.or(later.since);
            }
            same
        });
        Disturbances(found.into())
    }

    /// Every outage of every meter that touches [start, end), seconds.
    pub(crate) fn touching(&self, start: i64, end: i64, windows: &mut Windows, mut each: impl FnMut(u32, Fault)) {
        self.near(start, end, 0, windows, |event| {
            self.each_meter(event, |meter, fault| {
                if fault.start.0 < end * 1000 && fault.end.0 > start * 1000 {
                    each(meter, fault);
                }
            });
        });
    }

    /// The events that may matter in [start, end), or up to `after` seconds after them.
    fn near(&self, start: i64, end: i64, after: i64, windows: &mut Windows, mut each: impl FnMut(&Event)) {
        let is_near = |event: &&Event| event.start < end && event.end + after > start;
        for window in start.div_euclid(WINDOW) - 1..=(end - 1).div_euclid(WINDOW) {
            let events = windows.0.entry(window).or_insert_with(|| self.events(window)).clone();
            events.iter().filter(is_near).for_each(&mut each);
        }
        self.given.iter().take_while(|event| event.start < end).filter(is_near).for_each(&mut each);
        while windows.0.len() > 64 {
            windows.0.pop_first();
        }
    }

    fn events(&self, window: i64) -> Arc<[Event]> {
        let mut events = Vec::new();
        for level in Level::ALL {
            let (a_year, median_minutes) = level.rate();
            let chance = a_year * 28.0 / 365.25;
            for node in 0..self.nodes[level as usize] {
                let key = Key::new(self.seed, level.kind(), u64::from(node));
                let draws = key.stream(stream::OUTAGE);
                if draws.uniform(window) >= chance {
                    continue;
                }
                let details = key.stream(stream::OUTAGE + 1);
                let mut start = window * WINDOW + (details.uniform(4 * window) * WINDOW as f64) as i64;
                if level.on_summer_afternoons() {
                    start = towards_the_afternoon(self.zone, start, details.uniform(4 * window + 1));
                }
                let minutes = median_minutes * libm::exp(0.8 * details.gaussian(4 * window + 2));
                let end = start + ((minutes * 60.0) as i64).clamp(60, WINDOW);
                let restoration = match level {
                    Level::Circuit | Level::Substation => Restoration::Staged,
                    _ => Restoration::Together,
                };
                events.push(Event { start, end, level, node, restoration, cause: Cause::Ordinary });
            }
        }
        events.into()
    }

    /// Calls `each` with every meter below the event's node and what it sees of it.
    fn each_meter(&self, event: &Event, mut each: impl FnMut(u32, Fault)) {
        let fault = |end: i64| Fault {
            level: event.level,
            node: event.node,
            start: Timestamp::from_seconds(event.start),
            end: Timestamp::from_seconds(end),
            cause: event.cause,
        };
        if event.level == Level::Service {
            return each(event.node, fault(event.end));
        }
        let draws = Key::new(self.seed, event.level.kind(), u64::from(event.node)).stream(stream::OUTAGE + 2);
        for transformer in self.transformers_below(event.level, event.node) {
            let fault = fault(restored(event, transformer, draws));
            let meters = self.starts[transformer as usize]..self.starts[transformer as usize + 1];
            for &meter in &self.meters[meters.start as usize..meters.end as usize] {
                each(meter, fault);
            }
        }
    }

    fn transformers_below(&self, level: Level, node: u32) -> Range<u32> {
        match level {
            Level::Service => 0..0,
            Level::Transformer => node..node + 1,
            Level::Lateral => self.tree.transformers_of_lateral(node),
            Level::Circuit => self.tree.transformers_of_circuit(node),
            Level::Substation => {
                let circuits = self.tree.circuits_of_substation(node);
                self.tree.transformers_of_circuit(circuits.start).start
                    ..self.tree.transformers_of_circuit(circuits.end - 1).end
            }
        }
    }
}

/// When a transformer below the event's node has power again. The order is drawn anew for each event.
fn restored(event: &Event, transformer: u32, draws: Stream) -> i64 {
    let order = || draws.uniform(event.start ^ i64::from(transformer) << 34);
    let length = event.end - event.start;
    match event.restoration {
        Restoration::Together => event.end,
        Restoration::Staged => event.start + (length as f64 * (0.25 + 0.75 * order())) as i64,
        Restoration::Storm(mean) => event.start + ((-mean * libm::log(1.0 - order())) as i64).clamp(60, length),
    }
}

/// Adds what an outage of `meter` means for the interval [start, end), seconds.
fn disturb(found: &mut Vec<Disturbance>, meter: u32, fault: Fault, (start, end): (i64, i64)) {
    let (from, to) = (fault.start.0 / 1000, fault.end.0 / 1000);
    let overlap = (to.min(end) - from.max(start)).max(0);
    let since = Some(start - to).filter(|since| (0..PICK_UP).contains(since) && to - from > 30 * 60);
    if overlap > 0 || since.is_some() {
        let out = overlap as f64 / (end - start) as f64;
        found.push(Disturbance { meter, out, since, fault });
    }
}

/// Moves a third of the summer's events into 14-20 h local time, which makes that hour three times as likely as another.
fn towards_the_afternoon(zone: Zone, start: i64, chance: f64) -> i64 {
    let local = zone.local_seconds(Timestamp::from_seconds(start));
    let summer = (5..=9).contains(&Timestamp::from_seconds(local).date().month);
    let second = local.rem_euclid(86_400);
    if !summer || chance >= 1.0 / 3.0 || (14 * 3600..20 * 3600).contains(&second) {
        return start;
    }
    start - second + 14 * 3600 + (chance * 3.0 * 6.0 * 3600.0) as i64
}

#[cfg(test)]
mod tests;
