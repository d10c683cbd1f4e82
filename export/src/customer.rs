//! What customers download of their own meters: Green Button and the interval CSV of Smart Meter Texas.

use std::{
    io::{self, Write},
    ops::Range,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use flux_generator::{
    emission::{Emit, Kind},
    model::Contexts,
    run::Run,
};
use flux_schemas::{
    layout::json::write_decimal,
    reading::{Quality, Reading},
    time::Timestamp,
};

use crate::Format;

/// Writes one file; returns how many readings are in it, and the writer.
pub(crate) fn write<W: Write>(
    run: &Run,
    contexts: &mut Contexts,
    intervals: Range<i64>,
    format: Format,
    mut out: W,
    watched: &AtomicU64,
) -> io::Result<(u64, W)> {
    let mut rows = 0;
    match format {
        Format::GreenButton => out.write_all(ATOM.as_bytes())?,
        _ => writeln!(
            out,
            "ESIID,USAGE_DATE,REVISION_DATE,USAGE_START_TIME,USAGE_END_TIME,USAGE_KWH,ESTIMATED_ACTUAL,CONSUMPTION_SURPLUSGENERATION"
        )?,
    }
    for meter in 0..run.fleet().len() {
        let mut best = Vec::new();
        for interval in intervals.clone() {
            // What is known in the end: the actual where it came, else the estimate; no copies.
            let mut last: Option<Emit> = None;
            run.variants(meter, interval, contexts, |emit| {
                if emit.kind != Kind::Copy {
                    last = Some(emit);
                }
            });
            best.extend(last);
        }
        if best.is_empty() {
            continue;
        }
        rows += best.len() as u64;
        watched.fetch_add(best.len() as u64, Relaxed);
        if format == Format::GreenButton {
            green_button(run, contexts, meter, &best, &mut out)?;
        } else {
            for emit in best {
                smt(run, &run.reading_of(emit, contexts), &mut out)?;
            }
        }
    }
    if format == Format::GreenButton {
        out.write_all(b"</feed>\n")?;
    }
    Ok((rows, out))
}

/// The service reads kWh: power-of-ten multiplier 0, unit 72 is Wh, values in Wh.
const ATOM: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>
<feed xmlns=\"http://www.w3.org/2005/Atom\" xmlns:espi=\"http://naesb.org/espi\">
<title>Green Button Usage Feed</title>
<entry><title>Reading type</title><content><espi:ReadingType><espi:accumulationBehaviour>4</espi:accumulationBehaviour><espi:commodity>1</espi:commodity><espi:flowDirection>1</espi:flowDirection><espi:kind>12</espi:kind><espi:powerOfTenMultiplier>0</espi:powerOfTenMultiplier><espi:uom>72</espi:uom></espi:ReadingType></content></entry>
";

fn green_button<W: Write>(
    run: &Run,
    contexts: &mut Contexts,
    meter: u32,
    emits: &[Emit],
    out: &mut W,
) -> io::Result<()> {
    let seconds = run.interval_ms() / 1000;
    let start = emits[0].interval * seconds;
    let length = (emits[emits.len() - 1].interval + 1) * seconds - start;
    let id = escaped(run.fleet().meter_id(meter));
    write!(
        out,
        "<entry><title>{id}</title><content><espi:IntervalBlock><espi:interval><espi:duration>{length}</espi:duration><espi:start>{start}</espi:start></espi:interval>"
    )?;
    for emit in emits {
        let reading = run.reading_of(*emit, contexts);
        let quality = match reading.quality {
            Quality::Estimated => "<espi:ReadingQuality><espi:quality>8</espi:quality></espi:ReadingQuality>",
            _ => "",
        };
        write!(
            out,
            "<espi:IntervalReading>{quality}<espi:timePeriod><espi:duration>{seconds}</espi:duration><espi:start>{}</espi:start></espi:timePeriod><espi:value>{}</espi:value></espi:IntervalReading>",
            reading.timestamp.0 / 1000,
            // To whole Wh.
            (reading.usage.0 + 5) / 10
        )?;
    }
    out.write_all(b"</espi:IntervalBlock></content></entry>\n")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Civil time; the day's last interval ends at 00:00. An apostrophe keeps spreadsheets from rounding the id.
fn smt<W: Write>(run: &Run, reading: &Reading<'_>, out: &mut W) -> io::Result<()> {
    let zone = run.fleet().area().zone;
    let civil = |at: Timestamp| Timestamp::from_seconds(zone.local_seconds(at));
    let (start, end) = (civil(reading.timestamp), civil(Timestamp(reading.timestamp.0 + run.interval_ms())));
    let clock = |at: Timestamp| {
        let minutes = (at.0 / 60_000).rem_euclid(1440);
        format!("{:02}:{:02}", minutes / 60, minutes % 60)
    };
    let day = |at: Timestamp| {
        let date = at.date();
        format!("{:02}/{:02}/{:04}", date.month, date.day, date.year)
    };
    let mut kwh = Vec::new();
    write_decimal(&mut kwh, (reading.usage.0 + 5) / 10, 3);
    let kind = if reading.quality == Quality::Estimated { 'E' } else { 'A' };
    writeln!(
        out,
        "'{},{},{},{},{},{},{kind},Consumption",
        reading.meter_id,
        day(start),
        day(end),
        clock(start),
        clock(end),
        String::from_utf8_lossy(&kwh)
    )
}
