//! From what is to be emitted to the row itself.

use flux_schemas::{
    reading::{Energy, Quality, Reading, Segment, Voltage},
    row::Cell,
};

use crate::{
    emission::{Emit, Kind},
    events,
    fleet::kind,
    model::{Contexts, Values, flags},
    noise::{Key, stream},
    register::Registers,
    run::Run,
};

/// Meters with a clock that is far off: one in a thousand.
const BAD_CLOCKS: f64 = 0.001;
/// CIM reading type of interval data: fifteen minutes is 2, and so on.
const READING_TYPES: [(i32, &str); 4] = [
    (300, "0.0.6.4.1.1.12.0.0.0.0.0.0.0.0.3.72.0"),
    (900, "0.0.2.4.1.1.12.0.0.0.0.0.0.0.0.3.72.0"),
    (1800, "0.0.5.4.1.1.12.0.0.0.0.0.0.0.0.3.72.0"),
    (3600, "0.0.7.4.1.1.12.0.0.0.0.0.0.0.0.3.72.0"),
];

impl Run {
    /// The narrow reading of a row.
    pub fn reading_of(&self, emit: Emit, contexts: &mut Contexts) -> Reading<'_> {
        let reading = self.reading(emit.meter, contexts.get(self.model(), emit.interval));
        if emit.kind != Kind::Estimate || reading.is_outage {
            return reading;
        }
        let Values { usage, voltage, .. } = self.estimate(emit.meter, emit.interval, contexts);
        Reading { usage, voltage, quality: Quality::Estimated, ..reading }
    }

    /// What validation, estimation and editing puts in the place of a reading: the mean of the same time of day on the
    /// seven days before, of a home; of the same time in the three weeks before, of a shop or plant.
    pub fn estimate(&self, meter: u32, k: i64, contexts: &mut Contexts) -> Values {
        let a_day = 86_400_000 / self.interval_ms();
        let (days, step) = match self.fleet().place(meter).segment {
            Segment::Residential => (7, 1),
            _ => (3, 7),
        };
        let (mut usage, mut voltage, mut count) = (0, 0, 0);
        for day in 1..=days {
            let values = self.model().values(meter, contexts.get(self.model(), k - day * step * a_day));
            if !values.is_outage {
                usage += values.usage.0;
                voltage += i64::from(values.voltage.0);
                count += 1;
            }
        }
        let count = count.max(1);
        Values {
            usage: Energy(usage / count),
            voltage: Voltage((voltage / count) as i32),
            is_outage: false,
            quality: Quality::Estimated,
        }
    }

    /// The row of a reading: narrow or wide, as the run has it.
    pub fn reading_cells<'a>(
        &'a self,
        emit: Emit,
        contexts: &mut Contexts,
        registers: &mut Registers,
        cells: &mut Vec<Cell<'a>>,
    ) {
        let reading = self.reading_of(emit, contexts);
        cells.clear();
        cells.extend(reading.cells());
        if !self.is_wide() {
            return;
        }
        let Emit { meter, interval, kind, .. } = emit;
        let context = contexts.get(self.model(), interval);
        let mut wide = self.model().wide(meter, reading.segment, context);
        let place = self.fleet().place(meter);
        let collector = self.collector(meter);
        if matches!(kind, Kind::Late | Kind::Revised) {
            wide.flags |= flags::BACKFILLED;
        }
        let estimated = reading.quality == Quality::Estimated;
        // An estimate knows what the meter would have counted, and nothing else.
        let measured = |cell: Cell<'a>| if kind == Kind::Estimate { Cell::Null } else { cell };
        let (code, method) = match (kind, estimated, reading.segment) {
            (Kind::Estimate, false, _) => (8, "ZERO_FILL"),
            (Kind::Estimate, true, Segment::Residential) => (8, "PROFILE"),
            (Kind::Estimate, true, _) => (8, "LIKE_DAY"),
            (_, true, _) => (9, "LINEAR"),
            (Kind::Revised, false, _) => (17, "NONE"),
            (_, false, _) => (0, "NONE"),
        };
        let revision = i64::from(kind == Kind::Revised);
        let register = registers.at_end(self, meter, interval, contexts);
        let float = |value: Option<i64>| value.map_or(Cell::Null, Cell::Int);
        let net = reading.usage.0 - wide.received.map_or(0, |energy| energy.0);
        // 1 and 2 in a pair: delivered interval energy, and its revision.
        let what = interval.wrapping_mul(4) + revision;
        let location = self.grid().meter(self.fleet(), meter);
        let degrees = |of: fn(&crate::assets::Location) -> i64| float(location.as_ref().map(of));
        cells.extend([
            Cell::Id(events::id(self.seed(), meter, 0xff, what)),
            Cell::Int(self.interval_ms() / 1000),
            measured(float(wide.received.map(|energy| energy.0))),
            measured(Cell::Int(net)),
            measured(Cell::Int(wide.reactive)),
            measured(float(wide.power_factor)),
            measured(float(wide.demand)),
            measured(Cell::Int(wide.voltage.0)),
            measured(Cell::Int(wide.voltage.1)),
            Cell::Int(nominal_voltage(reading.segment, self.static_uniform(meter, -4))),
            Cell::Text(self.grid().phase_of_meter(reading.segment, place.transformer)),
            measured(Cell::Int(register)),
            Cell::Int(wide.temperature),
            Cell::Int(code),
            Cell::Text(method),
            Cell::Int(wide.flags.into()),
            Cell::Int(revision),
            Cell::Text(self.grid().collector_id(collector)),
            Cell::Int(self.hops(meter)),
            measured(Cell::Int(self.clock_offset_ms(meter, interval))),
            Cell::Int(emit.arrival),
            // The producer's wall clock; a replay has another.
            Cell::Null,
            Cell::Text(reading_type(self.spec().interval_seconds)),
            degrees(|location| location.latitude),
            degrees(|location| location.longitude),
            Cell::Text(self.pattern().symbol()),
        ]);
    }

    fn static_uniform(&self, meter: u32, draw: i64) -> f64 {
        Key::new(self.seed(), kind::METER, u64::from(meter)).stream(stream::WIDE).uniform(draw)
    }

    /// The meter's clock less true time: it drifts by some parts per million and is set every day.
    fn clock_offset_ms(&self, meter: u32, interval: i64) -> i64 {
        let draws = Key::new(self.seed(), kind::METER, u64::from(meter)).stream(stream::WIDE);
        let since = (interval * self.interval_ms()).rem_euclid(86_400_000) as f64;
        let drift = 8.0 * draws.gaussian(-5) * since / 1e6;
        let off = if draws.uniform(-6) < BAD_CLOCKS { 360_000.0 * (draws.uniform(-7) - 0.5) } else { 0.0 };
        (drift + off).round() as i64
    }

    /// The column of [`Run::reading_cells`] that a replay changes.
    pub const EMITTED_AT: usize = 32;
}

fn nominal_voltage(segment: Segment, chance: f64) -> i64 {
    match segment {
        Segment::Residential => 240,
        Segment::Commercial if chance < 0.6 => 208,
        _ => 480,
    }
}

fn reading_type(interval_seconds: i32) -> &'static str {
    READING_TYPES.iter().find(|(seconds, _)| *seconds == interval_seconds).map_or("", |(_, text)| text)
}
