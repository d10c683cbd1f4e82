//! One place's rows against the expectation.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use flux_generator::model::Contexts;
use flux_schemas::{reading::Reading, run::RunId, time::Timestamp};

use crate::{
    count::Counts,
    expectation::Expectation,
    verdict::{Example, PlaceVerdict},
};

/// Examples kept of each finding.
const EXAMPLES: usize = 5;

/// Counts the rows of one place.
#[derive(Debug)]
pub struct Tally {
    expectation: Arc<Expectation>,
    contexts: Contexts,
    counts: Counts,
    found: u64,
    ahead: u64,
    altered: u64,
    unexpected: u64,
    dead: BTreeMap<u64, bool>,
    dead_undecoded: u64,
    examples: Vec<Example>,
    notes: Vec<String>,
    faults: Vec<String>,
    scanned: Arc<AtomicU64>,
}

impl Tally {
    /// Nothing counted yet.
    pub fn new(expectation: Arc<Expectation>, scanned: Arc<AtomicU64>) -> Self {
        Self {
            expectation,
            contexts: Contexts::default(),
            counts: Counts::default(),
            found: 0,
            ahead: 0,
            altered: 0,
            unexpected: 0,
            dead: BTreeMap::new(),
            dead_undecoded: 0,
            examples: Vec::new(),
            notes: Vec::new(),
            faults: Vec::new(),
            scanned,
        }
    }

    /// The run that rows must belong to.
    pub fn run_id(&self) -> RunId {
        self.expectation.run().id()
    }

    /// A row of the run, read as a reading; `origin` says where it was found.
    pub fn row(&mut self, reading: &Reading<'_>, origin: impl FnOnce() -> String) {
        self.count(reading, None, origin);
    }

    /// A row of the run with a value that no reading has, said in `why`; `nearest` is what comes closest.
    pub fn altered(&mut self, nearest: &Reading<'_>, why: &str, origin: impl FnOnce() -> String) {
        self.count(nearest, Some(why), origin);
    }

    fn count(&mut self, reading: &Reading<'_>, inexact: Option<&str>, origin: impl FnOnce() -> String) {
        self.scanned.fetch_add(1, Relaxed);
        let Some((meter, interval)) = self.locate(reading) else {
            self.unexpected += 1;
            return self.example("unexpected", reading.meter_id, reading.timestamp, origin());
        };
        if !self.expectation.judges(interval) {
            self.ahead += 1;
            return;
        }
        let run = self.expectation.run();
        let expected = run.reading(meter, self.contexts.get(run.model(), interval));
        if inexact.is_some() || expected != *reading {
            self.altered += 1;
            let difference = inexact.map_or_else(|| difference(&expected, reading), Into::into);
            self.example("altered", reading.meter_id, reading.timestamp, format!("{difference} at {}", origin()));
        }
        if self.expectation.must(meter, interval) {
            self.found += 1;
        } else {
            self.ahead += 1;
        }
        self.counts.add(self.index(meter, interval));
    }

    /// A row of the run that is no reading at all.
    pub fn unreadable(&mut self, reason: &str, origin: impl FnOnce() -> String) {
        self.scanned.fetch_add(1, Relaxed);
        self.unexpected += 1;
        self.example("unexpected", "", Timestamp(0), format!("{reason} at {}", origin()));
    }

    /// A dead letter of the run: `None` when its bytes are no reading.
    pub fn dead_letter(&mut self, reading: Option<&Reading<'_>>) {
        match reading.and_then(|reading| self.locate(reading)) {
            Some((meter, interval)) => {
                self.dead.insert(self.index(meter, interval), true);
            }
            None => self.dead_undecoded += 1,
        }
    }

    /// Something to say that changes nothing.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Something that makes the place unproven by itself.
    pub fn fault(&mut self, fault: String) {
        self.faults.push(fault);
    }

    fn locate(&self, reading: &Reading<'_>) -> Option<(u32, i64)> {
        let run = self.expectation.run();
        let meter = run.fleet().meter_of_id(reading.meter_id)?;
        let interval = reading.timestamp.0.div_euclid(run.interval_ms());
        let on_grid = reading.timestamp.0 % run.interval_ms() == 0;
        let inside = interval >= run.first_interval() && run.end_interval().is_none_or(|end| interval < end);
        (on_grid && inside && run.reports(meter, interval)).then_some((meter, interval))
    }

    fn index(&self, meter: u32, interval: i64) -> u64 {
        let run = self.expectation.run();
        (interval - run.first_interval()) as u64 * u64::from(run.fleet().len()) + u64::from(meter)
    }

    fn example(&mut self, finding: &'static str, meter: &str, timestamp: Timestamp, detail: String) {
        if self.examples.iter().filter(|example| example.finding == finding).count() < EXAMPLES {
            let timestamp = if meter.is_empty() { String::new() } else { timestamp.to_string() };
            self.examples.push(Example { finding, meter_id: meter.into(), reading_timestamp: timestamp, detail });
        }
    }

    /// Compares the counts with what must be there.
    pub fn judge(mut self, place: &'static str) -> PlaceVerdict {
        let expectation = self.expectation.clone();
        let run = expectation.run();
        let meters = u64::from(run.fleet().len());
        let (mut missing, mut duplicate, mut dead_lettered) = (0, 0, self.dead_undecoded);
        let first = run.first_interval();
        // One interval past what must be there: rows that may be there may be there once.
        let last = (expectation.intervals().end - first + 1).max(0) as u64 * meters;
        let mut index = 0;
        while index < last {
            if let Some(next) = self.counts.complete_until(index).filter(|next| *next + meters < last) {
                index = next;
                continue;
            }
            let (meter, interval) = ((index % meters) as u32, first + (index / meters) as i64);
            let count = self.counts.get(index);
            let must = u64::from(expectation.must(meter, interval));
            if count < must {
                if self.dead.contains_key(&index) {
                    dead_lettered += 1;
                } else {
                    missing += 1;
                    self.example(
                        "missing",
                        run.fleet().meter_id(meter),
                        Timestamp(interval * run.interval_ms()),
                        String::new(),
                    );
                }
            } else if count > 1 {
                duplicate += count - 1;
                self.example(
                    "duplicate",
                    run.fleet().meter_id(meter),
                    Timestamp(interval * run.interval_ms()),
                    format!("{count} times"),
                );
            }
            index += 1;
        }
        if self.counts.uncountable() {
            self.fault("not countable: more than a million readings were found three times or more".into());
        }
        let clean = missing + duplicate + self.altered + self.unexpected + dead_lettered == 0;
        PlaceVerdict {
            place,
            expected: expectation.expected(),
            found: self.found,
            missing,
            duplicate,
            altered: self.altered,
            unexpected: self.unexpected,
            dead_lettered,
            ahead: self.ahead,
            proven: clean && self.faults.is_empty(),
            examples: self.examples,
            notes: self.faults.into_iter().chain(self.notes).collect(),
        }
    }
}

/// The first column that differs, for a person.
fn difference(expected: &Reading<'_>, found: &Reading<'_>) -> String {
    let columns = [
        ("USAGE_KWH", expected.usage.kwh().to_string(), found.usage.kwh().to_string()),
        ("VOLTAGE", expected.voltage.volts().to_string(), found.voltage.volts().to_string()),
        ("TRANSFORMER_ID", expected.transformer_id.into(), found.transformer_id.into()),
        ("CIRCUIT_ID", expected.circuit_id.into(), found.circuit_id.into()),
        ("SUBSTATION_ID", expected.substation_id.into(), found.substation_id.into()),
        ("CUSTOMER_SEGMENT", expected.segment.as_str().into(), found.segment.as_str().into()),
        ("SERVICE_AREA", expected.service_area.into(), found.service_area.into()),
        ("IS_OUTAGE", expected.is_outage.to_string(), found.is_outage.to_string()),
        ("DATA_QUALITY", expected.quality.as_str().into(), found.quality.as_str().into()),
    ];
    columns
        .into_iter()
        .find(|(_, expected, found): &(_, String, String)| expected != found)
        .map_or_else(String::new, |(column, expected, found)| format!("{column} is {found}, the run makes {expected}"))
}
