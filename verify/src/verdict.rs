//! What `verify` says.

use serde::Serialize;

use crate::expectation::Expectation;

/// The whole answer; serialises to the documented JSON.
#[derive(Debug, Clone, Serialize)]
pub struct Verdict {
    /// Run id.
    pub run: String,
    /// Every place is proven.
    pub proven: bool,
    /// What the places were judged against.
    pub as_of: AsOf,
    /// One for each place.
    pub places: Vec<PlaceVerdict>,
}

/// The moment in the run that a verdict speaks of.
#[derive(Debug, Clone, Serialize)]
pub struct AsOf {
    /// The run had emitted everything.
    pub finished: bool,
    /// First interval judged, start time.
    pub from: String,
    /// Start time of the first interval that did not have to be there.
    pub before: String,
}

/// One place.
#[derive(Debug, Clone, Serialize)]
pub struct PlaceVerdict {
    /// Which.
    pub place: &'static str,
    /// readings, events or assets.
    pub records: &'static str,
    /// Rows that must be there.
    pub expected: u64,
    /// Rows of those that are there, each time counted.
    pub found: u64,
    /// Rows that are not there.
    pub missing: u64,
    /// Rows beyond those that the run makes.
    pub duplicate: u64,
    /// Rows whose values the run does not make.
    pub altered: u64,
    /// Rows of the run that it never emits: unknown meter, off the grid, outside its time, unreadable.
    pub unexpected: u64,
    /// Rows that the sink set aside.
    pub dead_lettered: u64,
    /// Rows that need not be there yet, and are.
    pub ahead: u64,
    /// Nothing missing, duplicate, altered, unexpected or set aside.
    pub proven: bool,
    /// Some of each finding.
    pub examples: Vec<Example>,
    /// What else there is to say.
    pub notes: Vec<String>,
}

/// One row that is not as it should be.
#[derive(Debug, Clone, Serialize)]
pub struct Example {
    /// missing, duplicate, altered or unexpected.
    pub finding: &'static str,
    /// METER_ID; ASSET_ID of an asset.
    pub meter_id: String,
    /// READING_TIMESTAMP; EVENT_TIMESTAMP of an event.
    pub reading_timestamp: String,
    /// Where, and what.
    pub detail: String,
}

impl Verdict {
    pub(crate) fn new(expectation: &Expectation, places: Vec<PlaceVerdict>) -> Self {
        let run = expectation.run();
        let start = |interval: i64| flux_schemas::time::Timestamp(interval * run.interval_ms()).to_string();
        let intervals = expectation.intervals();
        Self {
            run: run.id().to_string(),
            proven: !places.is_empty() && places.iter().all(|place| place.proven),
            as_of: AsOf {
                finished: expectation.finished(),
                from: start(intervals.start),
                before: start(intervals.end),
            },
            places,
        }
    }
}

impl std::fmt::Display for Verdict {
    /// The table for a person.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(
            formatter,
            "{:<10} {:<8} {:>12} {:>12} {:>9} {:>9} {:>9} {:>10} {:>12}",
            "place", "records", "expected", "found", "missing", "duplicate", "altered", "unexpected", "dead-letter"
        )?;
        for place in &self.places {
            writeln!(
                formatter,
                "{:<10} {:<8} {:>12} {:>12} {:>9} {:>9} {:>9} {:>10} {:>12}",
                place.place,
                place.records,
                grouped(place.expected),
                grouped(place.found),
                grouped(place.missing),
                grouped(place.duplicate),
                grouped(place.altered),
                grouped(place.unexpected),
                grouped(place.dead_lettered)
            )?;
        }
        for place in &self.places {
            for example in &place.examples {
                writeln!(
                    formatter,
                    "  {} {}: {} {} {} {}",
                    place.place,
                    place.records,
                    example.finding,
                    example.meter_id,
                    example.reading_timestamp,
                    example.detail
                )?;
            }
            for note in &place.notes {
                writeln!(formatter, "  {} {}: {note}", place.place, place.records)?;
            }
        }
        let state = if self.as_of.finished { "finished" } else { "still going" };
        let verdict = if self.proven { "PROVEN" } else { "NOT PROVEN" };
        write!(
            formatter,
            "{verdict}: run {}, {state}, intervals from {} to before {}",
            self.run, self.as_of.from, self.as_of.before
        )
    }
}

/// 67200 as 67,200.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
