//! What meters report beside their readings: power lost and restored, tampering, voltage, communication.
//!
//! Everything is drawn or derived day by day (UTC), so whoever asks for a bucket of arrivals gets the same events.
//!
//! | event | when | rate |
//! |---|---|---|
//! | LAST_GASP | 30 to 45 s into an outage, if it lasts | received by 85 % (service, transformer), 60 %, in a storm 30 % |
//! | POWER_RESTORED | 5 to 120 s after it | 95 % |
//! | MOMENTARY_INTERRUPTION | a circuit, 1 to 60 s | 8 a year, seen by 90 % of its meters |
//! | VOLTAGE_SAG, VOLTAGE_SWELL | start and end of a voltage anomaly | all of the transformer |
//! | COMM_LOST, COMM_RESTORED | edges of lost blocks | all |
//! | REVERSE_ENERGY | first export of a civil day | meters with generation |
//! | FIRMWARE_UPDATED | a campaign of three days each quarter | all |
//! | TAMPER .02, MAGNETIC_FIELD .005, METER_REMOVED .01, CLOCK_ERROR .05, LOW_BATTERY .02, REMOTE_DISCONNECT .4, REMOTE_CONNECT .4 | any time, the last two Monday to Friday, 8 to 17 | per 1,000 meters and day |

use std::{collections::BTreeMap, sync::Arc};

use flux_schemas::row::Cell;

use crate::{
    fleet::{Fleet, kind},
    model::{Contexts, Recent},
    noise::{Key, mix64, stream},
    outage::{Cause, Fault, Level},
    run::Run,
};

/// A day, ms.
const DAY: i64 = 86_400_000;
/// Events arrive this many days after the day that makes them, at most: a civil day reaches into the next one.
const DAYS_BACK: i64 = 2;
/// Days between firmware campaigns.
const CAMPAIGN: i64 = 91;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the symbols of EVENT_TYPE")]
pub enum EventType {
    LastGasp,
    PowerRestored,
    MomentaryInterruption,
    VoltageSagStart,
    VoltageSagEnd,
    VoltageSwellStart,
    VoltageSwellEnd,
    ReverseEnergy,
    Tamper,
    MagneticField,
    MeterRemoved,
    ClockError,
    LowBattery,
    RemoteDisconnect,
    RemoteConnect,
    CommLost,
    CommRestored,
    FirmwareUpdated,
}

/// The rare ones: type, per 1,000 meters and day.
const RARE: [(EventType, f64); 7] = [
    (EventType::Tamper, 0.02),
    (EventType::MagneticField, 0.005),
    (EventType::MeterRemoved, 0.01),
    (EventType::ClockError, 0.05),
    (EventType::LowBattery, 0.02),
    (EventType::RemoteDisconnect, 0.4 * 7.0 / 5.0),
    (EventType::RemoteConnect, 0.4 * 7.0 / 5.0),
];

impl EventType {
    /// As in EVENT_TYPE.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LastGasp => "LAST_GASP",
            Self::PowerRestored => "POWER_RESTORED",
            Self::MomentaryInterruption => "MOMENTARY_INTERRUPTION",
            Self::VoltageSagStart => "VOLTAGE_SAG_START",
            Self::VoltageSagEnd => "VOLTAGE_SAG_END",
            Self::VoltageSwellStart => "VOLTAGE_SWELL_START",
            Self::VoltageSwellEnd => "VOLTAGE_SWELL_END",
            Self::ReverseEnergy => "REVERSE_ENERGY",
            Self::Tamper => "TAMPER",
            Self::MagneticField => "MAGNETIC_FIELD",
            Self::MeterRemoved => "METER_REMOVED",
            Self::ClockError => "CLOCK_ERROR",
            Self::LowBattery => "LOW_BATTERY",
            Self::RemoteDisconnect => "REMOTE_DISCONNECT",
            Self::RemoteConnect => "REMOTE_CONNECT",
            Self::CommLost => "COMM_LOST",
            Self::CommRestored => "COMM_RESTORED",
            Self::FirmwareUpdated => "FIRMWARE_UPDATED",
        }
    }

    const fn severity(self) -> &'static str {
        match self {
            Self::LastGasp | Self::Tamper | Self::MeterRemoved => "CRITICAL",
            Self::PowerRestored
            | Self::ReverseEnergy
            | Self::RemoteDisconnect
            | Self::RemoteConnect
            | Self::CommRestored
            | Self::VoltageSagEnd
            | Self::VoltageSwellEnd
            | Self::FirmwareUpdated => "INFO",
            _ => "WARN",
        }
    }

    /// IEC 61968-9 codes that public integrations use; the others are left empty.
    const fn cim(self) -> Option<&'static str> {
        match self {
            Self::LastGasp => Some("3.26.9.185"),
            Self::PowerRestored => Some("3.26.9.216"),
            _ => None,
        }
    }
}

/// One event of one meter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whose.
    pub meter: u32,
    /// What.
    pub event_type: EventType,
    /// When, ms since the Unix epoch, whole seconds.
    pub at: i64,
    /// Arrival at the head-end, ms.
    pub received: i64,
    /// EVENT_ID.
    pub id: [u8; 16],
    /// OUTAGE_ID and its level.
    pub outage: Option<(String, Level)>,
    duration_s: Option<i64>,
    /// Value and threshold, 0.1 V.
    volts: Option<(i64, i64)>,
}

impl Event {
    /// As a row of the events table.
    pub fn cells<'a>(&'a self, fleet: &'a Fleet, cells: &mut Vec<Cell<'a>>) {
        let place = fleet.place(self.meter);
        let number = |value: Option<i64>| value.map_or(Cell::Null, Cell::Int);
        let text = |value: Option<&'a str>| value.map_or(Cell::Null, Cell::Text);
        cells.clear();
        cells.extend([
            Cell::Text(fleet.meter_id(self.meter)),
            Cell::Int(self.at),
            Cell::Id(self.id),
            Cell::Text(self.event_type.as_str()),
            Cell::Text(self.event_type.severity()),
            Cell::Int(self.received),
            Cell::Text(fleet.transformer_id(place.transformer)),
            Cell::Text(fleet.circuit_id(place.circuit)),
            Cell::Text(fleet.substation_id(place.substation)),
            Cell::Text(fleet.area().name),
            text(self.event_type.cim()),
            text(self.outage.as_ref().map(|(id, _)| &**id)),
            text(self.outage.as_ref().map(|(_, level)| level.as_str())),
            number(self.duration_s),
            number(self.volts.map(|(value, _)| value)),
            number(self.volts.map(|(_, threshold)| threshold)),
            text(self.volts.map(|_| "V")),
            Cell::Int(self.at / 1000 * 32 + self.event_type as i64),
        ]);
    }
}

/// Sixteen bytes that stand for a thing under a seed.
pub(crate) fn id(seed: u64, meter: u32, kind: u64, what: i64) -> [u8; 16] {
    let key = mix64(seed ^ mix64(u64::from(meter) << 8 ^ kind)) ^ mix64(what as u64);
    let [high, low] = [mix64(key), mix64(key ^ 0x9e37_79b9_7f4a_7c15)];
    ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
}

/// The events of some meters.
#[derive(Debug)]
pub struct Events {
    run: Arc<Run>,
    ours: Vec<bool>,
    recent: Recent,
    /// By day, in the order of their arrival.
    days: BTreeMap<i64, Vec<Event>>,
}

impl Events {
    /// Of `meters`.
    pub fn new(run: Arc<Run>, meters: &[u32]) -> Self {
        let mut ours = vec![false; run.fleet().len() as usize];
        for meter in meters {
            ours[*meter as usize] = true;
        }
        Self { run, ours, recent: Recent::default(), days: BTreeMap::new() }
    }

    /// Those that arrive in `bucket`, in the order of their arrival.
    pub fn of_bucket(&mut self, bucket: i64, contexts: &mut Contexts, events: &mut Vec<Event>) {
        let (from, to) = ((bucket + 1) * self.run.interval_ms(), (bucket + 2) * self.run.interval_ms());
        let days = from.div_euclid(DAY) - DAYS_BACK..=(to - 1).div_euclid(DAY);
        self.days.retain(|day, _| days.contains(day));
        events.clear();
        for day in days {
            if !self.days.contains_key(&day) {
                let made = self.of_day(day, contexts);
                self.days.insert(day, made);
            }
            let known = &self.days[&day];
            let first = known.partition_point(|event| event.received < from);
            events.extend(known[first..].iter().take_while(|event| event.received < to).cloned());
        }
        sort(events);
    }

    fn of_day(&mut self, day: i64, contexts: &mut Contexts) -> Vec<Event> {
        let mut events = Vec::new();
        self.outages(day, &mut events);
        self.momentaries(day, &mut events);
        self.voltages(day, &mut events);
        self.draws(day, &mut events);
        self.communication(day, &mut events);
        self.exports(day, contexts, &mut events);
        let start = self.run.first_interval() * self.run.interval_ms();
        events.retain(|event| event.at >= start);
        sort(&mut events);
        events
    }

    fn event(&self, meter: u32, event_type: EventType, at: i64, delay_ms: i64) -> Event {
        let at = at / 1000 * 1000;
        let id = id(self.run.seed(), meter, event_type as u64, at);
        Event { meter, event_type, at, received: at + delay_ms, id, outage: None, duration_s: None, volts: None }
    }

    /// Draws of a meter for one thing that happened to it.
    fn uniform(&self, meter: u32, what: i64, draw: i64) -> f64 {
        let draws = Key::new(self.run.seed(), kind::METER, u64::from(meter)).stream(stream::EVENT);
        draws.uniform(what.wrapping_mul(8) + draw)
    }

    /// Power lost and restored. Where outages overlap, the first one takes the power and the last one gives it back.
    fn outages(&mut self, day: i64, events: &mut Vec<Event>) {
        let (start, end) = (day * 86_400, (day + 1) * 86_400);
        let mut faults: BTreeMap<u32, Vec<Fault>> = BTreeMap::new();
        let (run, ours) = (self.run.clone(), &self.ours);
        run.model().outages(start, end, &mut self.recent, |meter, fault| {
            if ours[meter as usize] {
                faults.entry(meter).or_default().push(fault);
            }
        });
        let today = |ms: i64| (start * 1000..end * 1000).contains(&ms);
        for (meter, faults) in faults {
            for (index, fault) in faults.iter().enumerate() {
                let others = || faults.iter().enumerate().filter(move |(other, _)| *other != index);
                let outage = || Some((fault.outage_id(), fault.level));
                let draw = |number: i64| self.uniform(meter, fault.start.0 / 1000, number);
                let covered = others().any(|(other, one)| {
                    let before = one.start < fault.start || one.start == fault.start && other < index;
                    before && one.end >= fault.start
                });
                let received = match (fault.cause, fault.level) {
                    (Cause::Storm, _) => 0.30,
                    (_, Level::Service | Level::Transformer) => 0.85,
                    _ => 0.60,
                };
                let lasts = fault.end.0 - fault.start.0 > 45_000;
                if today(fault.start.0) && !covered && lasts && draw(0) < received {
                    let hold = 30_000 + (draw(1) * 15_000.0) as i64;
                    let gasp = self.event(
                        meter,
                        EventType::LastGasp,
                        fault.start.0 + hold,
                        1_000 + (draw(2) * 4_000.0) as i64,
                    );
                    events.push(Event { outage: outage(), ..gasp });
                }
                let covered = others().any(|(other, one)| {
                    let after = one.end > fault.end || one.end == fault.end && other < index;
                    after && one.start <= fault.end
                });
                if today(fault.end.0) && !covered && draw(3) < 0.95 {
                    let at = fault.end.0 + 5_000 + (draw(4) * 115_000.0) as i64;
                    let restored = self.event(meter, EventType::PowerRestored, at, 1_000 + (draw(5) * 9_000.0) as i64);
                    let duration_s = Some((fault.end.0 - fault.start.0) / 1000);
                    events.push(Event { outage: outage(), duration_s, ..restored });
                }
            }
        }
    }

    /// A circuit is interrupted for less than a minute: its meters say so with their next reading.
    fn momentaries(&self, day: i64, events: &mut Vec<Event>) {
        let fleet = self.run.fleet();
        let struck: BTreeMap<u32, (i64, i64)> = (0..fleet.tree.circuits())
            .filter_map(|circuit| {
                let key = Key::new(self.run.seed(), kind::CIRCUIT, u64::from(circuit));
                let draws = key.stream(stream::EVENT);
                let strikes = draws.uniform(4 * day) < 8.0 / 365.25;
                let at = day * DAY + (draws.uniform(4 * day + 1) * DAY as f64) as i64;
                strikes.then_some((circuit, (at, 1 + (draws.uniform(4 * day + 2) * 60.0) as i64)))
            })
            .collect();
        if struck.is_empty() {
            return;
        }
        for meter in self.meters() {
            let Some((at, duration)) = struck.get(&fleet.place(meter).circuit) else { continue };
            let draw = |number: i64| self.uniform(meter, *at, number);
            if draw(0) < 0.9 {
                let event = self.event(meter, EventType::MomentaryInterruption, *at, (draw(1) * 900_000.0) as i64);
                events.push(Event { duration_s: Some(*duration), ..event });
            }
        }
    }

    fn voltages(&mut self, day: i64, events: &mut Vec<Event>) {
        let (start, end) = (day * 86_400, (day + 1) * 86_400);
        let run = self.run.clone();
        let mut anomalies: BTreeMap<u32, Vec<(i64, i64, f64)>> = BTreeMap::new();
        run.model().anomalies(start, end, &mut self.recent, |anomaly| {
            let known = anomalies.entry(anomaly.transformer).or_default();
            known.push((anomaly.start, anomaly.end, anomaly.volts));
        });
        if anomalies.is_empty() {
            return;
        }
        for meter in self.meters() {
            for &(from, to, volts) in anomalies.get(&run.fleet().place(meter).transformer).into_iter().flatten() {
                let sag = volts < 0.0;
                let threshold = if sag { 1140 } else { 1260 };
                let value = (1213.0 + 10.0 * volts).round() as i64;
                let delay = (self.uniform(meter, from, 6) * 60_000.0) as i64 + 1_000;
                if (start..end).contains(&from) {
                    let kind = if sag { EventType::VoltageSagStart } else { EventType::VoltageSwellStart };
                    let event = self.event(meter, kind, from * 1000, delay);
                    events.push(Event { volts: Some((value, threshold)), ..event });
                }
                if (start..end).contains(&to) {
                    let kind = if sag { EventType::VoltageSagEnd } else { EventType::VoltageSwellEnd };
                    let event = self.event(meter, kind, to * 1000, delay);
                    events.push(Event { volts: Some((1213, threshold)), duration_s: Some(to - from), ..event });
                }
            }
        }
    }

    /// What a meter reports once in years, and the firmware of the quarter.
    fn draws(&self, day: i64, events: &mut Vec<Event>) {
        // 1970-01-01 was a Thursday.
        let workday = (1..=5).contains(&(day + 4).rem_euclid(7));
        let campaign = day.rem_euclid(CAMPAIGN);
        let zone = self.run.fleet().area().zone;
        let midnight = day * DAY - 1000 * zone.offset_seconds(flux_schemas::time::Timestamp(day * DAY));
        for meter in self.meters() {
            let draw = |number: i64| self.uniform(meter, -day, number);
            let at_work = || midnight + 8 * 3_600_000 + (draw(2) * 9.0 * 3_600_000.0) as i64;
            let chance = draw(0) * 1000.0;
            let mut sum = 0.0;
            let drawn = RARE.iter().find(|(_, rate)| {
                sum += rate;
                chance < sum
            });
            if let Some((event_type, _)) = drawn {
                let remote = matches!(event_type, EventType::RemoteDisconnect | EventType::RemoteConnect);
                if !remote || workday {
                    let at = if remote { at_work() } else { day * DAY + (draw(2) * DAY as f64) as i64 };
                    events.push(self.event(meter, *event_type, at, 1_000 + (draw(3) * 29_000.0) as i64));
                }
            }
            if campaign < 3 && (self.uniform(meter, day - campaign, 7) * 3.0) as i64 == campaign {
                events.push(self.event(meter, EventType::FirmwareUpdated, at_work(), 2_000));
            }
        }
    }

    /// The edges of lost blocks.
    fn communication(&self, day: i64, events: &mut Vec<Event>) {
        let run = &self.run;
        if run.is_lossless() {
            return;
        }
        let interval = |ms: i64| ms.div_euclid(run.interval_ms());
        let blocks = run.block(interval(day * DAY))..run.block(interval((day + 1) * DAY));
        for meter in self.meters() {
            let mut before = run.loss_in_block(meter, blocks.start - 1).is_some();
            for block in blocks.clone() {
                let lost = run.loss_in_block(meter, block).is_some();
                let start = run.intervals_of_block(block).start * run.interval_ms();
                let at = start + (self.uniform(meter, block, 5) * 900_000.0) as i64;
                if lost && !before {
                    // The head-end notices when a reading is half an hour overdue.
                    events.push(self.event(meter, EventType::CommLost, at, 1_800_000));
                } else if before && !lost {
                    events.push(self.event(meter, EventType::CommRestored, at, 5_000));
                }
                before = lost;
            }
        }
    }

    /// The first export of each civil day.
    fn exports(&self, day: i64, contexts: &mut Contexts, events: &mut Vec<Event>) {
        let run = &self.run;
        let midnight =
            day * DAY - 1000 * run.fleet().area().zone.offset_seconds(flux_schemas::time::Timestamp(day * DAY));
        let interval = |ms: i64| ms.div_euclid(run.interval_ms());
        for meter in run.model().generators().into_iter().filter(|meter| self.ours[*meter as usize]) {
            let exports = |k: &i64| run.model().gives_back(meter, contexts.get(run.model(), *k));
            let first = (interval(midnight)..interval(midnight + DAY)).find(exports);
            if let Some(k) = first {
                events.push(self.event(meter, EventType::ReverseEnergy, k * run.interval_ms() + 60_000, 4_000));
            }
        }
    }

    fn meters(&self) -> impl Iterator<Item = u32> + '_ {
        (0..self.ours.len() as u32).filter(|meter| self.ours[*meter as usize])
    }
}

fn sort(events: &mut [Event]) {
    events.sort_unstable_by_key(|event| (event.received, event.meter, event.event_type, event.at));
}

#[cfg(test)]
mod tests;
