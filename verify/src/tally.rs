//! One place's rows of one table against the expectation.

use std::{
    collections::HashMap,
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use flux_generator::{
    emission::{Emit, Kind},
    model::Contexts,
    register::Registers,
    run::Run,
};
use flux_schemas::{
    layout::json::write_plain,
    row::{Cell, Row, Table},
    run::RunId,
    time::Timestamp,
};

use crate::{
    count::Counts,
    expectation::{Expectation, Keyed, exact_datum},
    verdict::{Example, PlaceVerdict},
};

/// Examples kept of each finding.
const EXAMPLES: usize = 5;

/// Counts the rows of one table at one place.
#[derive(Debug)]
pub struct Tally {
    table: &'static Table,
    expectation: Arc<Expectation>,
    book: Book,
    findings: Findings,
    scanned: Arc<AtomicU64>,
}

/// How rows are counted.
#[derive(Debug)]
enum Book {
    /// By a dense index.
    Readings(Box<Readings>),
    /// By their key. Rows that arrive from `known` on were not recomputed.
    Keyed { rows: HashMap<Box<[u8]>, Keyed>, known: i64, dead: HashSet<Box<[u8]>> },
}

#[derive(Debug)]
struct Readings {
    contexts: Contexts,
    registers: Option<Registers>,
    /// Values of a reading; actuals that replace an estimate; copies that can be told apart.
    counts: [Counts; 3],
    dead: HashSet<(usize, u64)>,
}

#[derive(Debug, Default)]
struct Findings {
    found: u64,
    ahead: u64,
    altered: u64,
    unexpected: u64,
    missing: u64,
    duplicate: u64,
    dead_lettered: u64,
    examples: Vec<Example>,
    notes: Vec<String>,
    faults: Vec<String>,
}

impl Findings {
    fn example(&mut self, finding: &'static str, key: &str, timestamp: Timestamp, detail: String) {
        if self.examples.iter().filter(|example| example.finding == finding).count() < EXAMPLES {
            let timestamp = if key.is_empty() { String::new() } else { timestamp.to_string() };
            self.examples.push(Example { finding, meter_id: key.into(), reading_timestamp: timestamp, detail });
        }
    }

    fn unexpected(&mut self, row: &Row<'_>, detail: String) {
        self.unexpected += 1;
        self.example("unexpected", row.key(), row.time(), detail);
    }
}

/// Which counter a row of a reading belongs to. Copies of a narrow row cannot be told from it.
fn slot(kind: Kind, wide: bool) -> usize {
    match kind {
        Kind::Revised => 1,
        Kind::Copy if wide => 2,
        _ => 0,
    }
}

impl Tally {
    /// Nothing counted yet.
    pub fn new(table: &'static Table, expectation: Arc<Expectation>, scanned: Arc<AtomicU64>) -> Self {
        let run = expectation.run();
        let book = match table.name {
            "events" => {
                let (rows, known) = expectation.events();
                Book::Keyed { rows, known, dead: HashSet::new() }
            }
            "assets" => Book::Keyed { rows: expectation.assets(), known: i64::MAX, dead: HashSet::new() },
            _ => Book::Readings(Box::new(Readings {
                contexts: Contexts::default(),
                registers: run.is_wide().then(|| Registers::new(run, (0..run.fleet().len()).collect())),
                counts: Default::default(),
                dead: HashSet::new(),
            })),
        };
        Self { table, expectation, book, findings: Findings::default(), scanned }
    }

    /// The table that rows are read as.
    pub fn table(&self) -> &'static Table {
        self.table
    }

    /// Columns of a row of the run.
    pub fn width(&self) -> usize {
        match self.book {
            Book::Readings(_) => self.expectation.run().spec().width(),
            Book::Keyed { .. } => self.table.columns.len(),
        }
    }

    /// The run that rows must belong to.
    pub fn run_id(&self) -> RunId {
        self.expectation.run().id()
    }

    /// A row of the run; `origin` says where it was found.
    pub fn row(&mut self, cells: &[Cell<'_>], origin: impl FnOnce() -> String) {
        self.scanned.fetch_add(1, Relaxed);
        let row = Row { table: self.table, cells };
        match &mut self.book {
            Book::Readings(readings) => readings.row(&self.expectation, &mut self.findings, &row, origin),
            Book::Keyed { rows, known, .. } => {
                let Some(entry) = key_of(&row).and_then(|key| rows.get_mut(&key)) else {
                    if arrival_of_event(&row).is_some_and(|arrival| arrival >= *known) {
                        self.findings.ahead += 1;
                        return;
                    }
                    return self.findings.unexpected(&row, origin());
                };
                entry.count += 1;
                *if entry.must { &mut self.findings.found } else { &mut self.findings.ahead } += 1;
                if exact_datum(&row).is_none_or(|datum| datum != entry.datum) {
                    self.findings.altered += 1;
                    self.findings.example("altered", row.key(), row.time(), origin());
                }
            }
        }
    }

    /// A row of the run that cannot be read as one.
    pub fn unreadable(&mut self, reason: &str, origin: impl FnOnce() -> String) {
        self.scanned.fetch_add(1, Relaxed);
        self.findings.unexpected += 1;
        self.findings.example("unexpected", "", Timestamp(0), format!("{reason} at {}", origin()));
    }

    /// A dead letter of the run: `None` when its bytes are no row.
    pub fn dead_letter(&mut self, cells: Option<&[Cell<'_>]>) {
        let row = cells.map(|cells| Row { table: self.table, cells });
        let known = match (&mut self.book, &row) {
            (Book::Readings(readings), Some(row)) => readings.dead_letter(&self.expectation, row),
            (Book::Keyed { rows, dead, .. }, Some(row)) => {
                key_of(row).filter(|key| rows.contains_key(key)).map(|key| dead.insert(key)).is_some()
            }
            (_, None) => false,
        };
        self.findings.dead_lettered += u64::from(!known);
    }

    /// Something to say that changes nothing.
    pub fn note(&mut self, note: String) {
        self.findings.notes.push(note);
    }

    /// Something that makes the place unproven by itself.
    pub fn fault(&mut self, fault: String) {
        self.findings.faults.push(fault);
    }

    /// Compares the counts with what must be there.
    pub fn judge(mut self, place: &'static str) -> PlaceVerdict {
        let expected = match self.book {
            Book::Readings(mut readings) => readings.judge(&self.expectation, &mut self.findings),
            Book::Keyed { rows, dead, .. } => judge_keyed(self.table, rows, &dead, &mut self.findings),
        };
        let Findings { found, ahead, altered, unexpected, missing, duplicate, dead_lettered, examples, notes, faults } =
            self.findings;
        let clean = missing + duplicate + altered + unexpected + dead_lettered == 0;
        PlaceVerdict {
            place,
            records: self.table.name,
            expected,
            found,
            missing,
            duplicate,
            altered,
            unexpected,
            dead_lettered,
            ahead,
            proven: clean && faults.is_empty(),
            examples,
            notes: faults.into_iter().chain(notes).collect(),
        }
    }
}

/// EVENT_ID or ASSET_ID.
fn key_of(row: &Row<'_>) -> Option<Box<[u8]>> {
    let id = row.cells.iter().find_map(|cell| match cell {
        Cell::Id(id) => Some(id),
        _ => None,
    });
    match row.table.name {
        "events" => Some((*id?).into()),
        _ => Some(row.key().as_bytes().into()),
    }
}

/// When an event arrived.
fn arrival_of_event(row: &Row<'_>) -> Option<i64> {
    match row.cells.get(Table::events().index("HES_RECEIVED_AT")) {
        Some(Cell::Int(ms)) if row.table.name == Table::events().name => Some(*ms),
        _ => None,
    }
}

fn judge_keyed(
    table: &'static Table,
    rows: HashMap<Box<[u8]>, Keyed>,
    dead: &HashSet<Box<[u8]>>,
    findings: &mut Findings,
) -> u64 {
    let mut expected = 0;
    for (key, entry) in rows {
        expected += u64::from(entry.must);
        let mut cells = Vec::new();
        let mut example = |finding, detail: String| {
            flux_schemas::codec::decode_row(table, table.columns.len(), &entry.datum, &mut cells)
                .expect("it was encoded here");
            let row = Row { table, cells: &cells };
            findings.example(finding, row.key(), row.time(), detail);
        };
        if entry.count == 0 && entry.must {
            if dead.contains(&key) {
                findings.dead_lettered += 1;
            } else {
                example("missing", String::new());
                findings.missing += 1;
            }
        } else if entry.count > 1 {
            example("duplicate", format!("{} times", entry.count));
            findings.duplicate += entry.count - 1;
        }
    }
    expected
}

impl Readings {
    fn row(
        &mut self,
        expectation: &Expectation,
        findings: &mut Findings,
        row: &Row<'_>,
        origin: impl FnOnce() -> String,
    ) {
        let run = expectation.run();
        let Some((meter, interval)) = locate(run, row) else { return findings.unexpected(row, origin()) };
        if !expectation.judges(interval) {
            findings.ahead += 1;
            return;
        }
        let Some((emit, must, exact)) = self.nearest(expectation, meter, interval, row) else {
            return findings.unexpected(row, origin());
        };
        if !exact {
            findings.altered += 1;
            let difference = self.difference(run, emit, row);
            findings.example("altered", row.key(), row.time(), format!("{difference} at {}", origin()));
        }
        *if must { &mut findings.found } else { &mut findings.ahead } += 1;
        self.counts[slot(emit.kind, run.is_wide())].add(index(run, meter, interval));
    }

    /// The row of the reading that this is, or comes nearest to; whether it must be there, and whether it is equal.
    fn nearest(
        &mut self,
        expectation: &Expectation,
        meter: u32,
        interval: i64,
        row: &Row<'_>,
    ) -> Option<(Emit, bool, bool)> {
        let run = expectation.run();
        if expectation.is_plain() {
            if !run.reports(meter, interval) {
                return None;
            }
            let emit = run.on_time(meter, interval);
            return Some((emit, expectation.must(meter, interval), self.equals(run, emit, row)));
        }
        let mut candidates = [None; 4];
        let mut count = 0;
        expectation.rows_of(meter, interval, &mut self.contexts, |emit, must| {
            candidates[count] = Some((emit, must));
            count += 1;
        });
        let candidates = candidates.into_iter().flatten();
        for (emit, must) in candidates.clone() {
            if self.equals(run, emit, row) {
                return Some((emit, must, true));
            }
        }
        let estimated = row.text(10) == "ESTIMATED";
        let alike = |(emit, _): &(Emit, bool)| (emit.kind == Kind::Estimate) == estimated;
        let (emit, must) = candidates.clone().find(alike).or_else(|| candidates.clone().next())?;
        Some((emit, must, false))
    }

    fn equals(&mut self, run: &Run, emit: Emit, row: &Row<'_>) -> bool {
        match &mut self.registers {
            None => run.reading_of(emit, &mut self.contexts).cells() == *row.cells,
            Some(registers) => {
                let mut cells = Vec::new();
                run.reading_cells(emit, &mut self.contexts, registers, &mut cells);
                // A wall clock that no replay has; that it is there is all.
                let emitted = row.cells.get(Run::EMITTED_AT).copied().filter(|cell| matches!(cell, Cell::Int(_)));
                cells[Run::EMITTED_AT] = emitted.unwrap_or(Cell::Inexact(0.0));
                cells == row.cells
            }
        }
    }

    /// The first column that differs, for a person.
    fn difference(&mut self, run: &Run, emit: Emit, row: &Row<'_>) -> String {
        let mut cells = run.reading_of(emit, &mut self.contexts).cells().to_vec();
        if let Some(registers) = &mut self.registers {
            run.reading_cells(emit, &mut self.contexts, registers, &mut cells);
            cells[Run::EMITTED_AT] = row.cells[Run::EMITTED_AT];
        }
        let differs = cells.iter().zip(row.cells).position(|(expected, found)| expected != found);
        differs.map_or_else(String::new, |index| {
            let column = &row.table.columns[index];
            let text = |cell: Cell<'_>| {
                let mut text = Vec::new();
                write_plain(&mut text, cell, &column.kind);
                String::from_utf8_lossy(&text).into_owned()
            };
            format!("{} is {}, the run makes {}", column.name, text(row.cells[index]), text(cells[index]))
        })
    }

    fn dead_letter(&mut self, expectation: &Expectation, row: &Row<'_>) -> bool {
        let run = expectation.run();
        let Some((meter, interval)) = locate(run, row) else { return false };
        let Some((emit, ..)) = self.nearest(expectation, meter, interval, row) else { return false };
        self.dead.insert((slot(emit.kind, run.is_wide()), index(run, meter, interval)));
        true
    }

    /// Returns how many rows must be there.
    fn judge(&mut self, expectation: &Expectation, findings: &mut Findings) -> u64 {
        if self.counts.iter().any(Counts::uncountable) {
            let fault = "not countable: more than a million readings were found three times or more";
            findings.faults.push(fault.into());
        }
        let run = expectation.run();
        let meters = u64::from(run.fleet().len());
        let first = run.first_interval();
        // One interval past what must be there: rows that may be there may be there once.
        let end = expectation.intervals().end + 1;
        if expectation.is_plain() {
            let last = (end - first).max(0) as u64 * meters;
            let mut index = 0;
            while index < last {
                if let Some(next) = self.counts[0].complete_until(index).filter(|next| *next + meters < last) {
                    index = next;
                    continue;
                }
                let (meter, interval) = ((index % meters) as u32, first + (index / meters) as i64);
                let must = u64::from(expectation.must(meter, interval));
                self.compare(run, findings, (0, index), must, 1);
                index += 1;
            }
            return expectation.expected_plain();
        }
        let mut expected = 0;
        let mut contexts = Contexts::default();
        for interval in (first..end).filter(|interval| run.contains(*interval) && expectation.judges(*interval)) {
            for meter in 0..run.fleet().len() {
                let (mut must, mut may) = ([0; 3], [0; 3]);
                expectation.rows_of(meter, interval, &mut contexts, |emit, is_due| {
                    let slot = slot(emit.kind, run.is_wide());
                    must[slot] += u64::from(is_due);
                    may[slot] += 1;
                });
                expected += must.iter().sum::<u64>();
                for slot in 0..3 {
                    self.compare(run, findings, (slot, index(run, meter, interval)), must[slot], may[slot]);
                }
            }
        }
        expected
    }

    fn compare(&self, run: &Run, findings: &mut Findings, at: (usize, u64), must: u64, may: u64) {
        let count = self.counts[at.0].get(at.1);
        if (must..=may).contains(&count) {
            return;
        }
        let meters = u64::from(run.fleet().len());
        let (meter, interval) = ((at.1 % meters) as u32, run.first_interval() + (at.1 / meters) as i64);
        let time = Timestamp(interval * run.interval_ms());
        if count < must {
            if self.dead.contains(&at) {
                findings.dead_lettered += must - count;
            } else {
                findings.missing += must - count;
                findings.example("missing", run.fleet().meter_id(meter), time, String::new());
            }
        } else {
            findings.duplicate += count - may;
            findings.example("duplicate", run.fleet().meter_id(meter), time, format!("{count} times"));
        }
    }
}

fn locate(run: &Run, row: &Row<'_>) -> Option<(u32, i64)> {
    let meter = run.fleet().meter_of_id(row.key())?;
    let interval = row.time().0.div_euclid(run.interval_ms());
    let on_grid = row.time().0 % run.interval_ms() == 0;
    (on_grid && run.contains(interval)).then_some((meter, interval))
}

fn index(run: &Run, meter: u32, interval: i64) -> u64 {
    (interval - run.first_interval()) as u64 * u64::from(run.fleet().len()) + u64::from(meter)
}
