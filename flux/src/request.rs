//! From flags to the request for a run.

use std::time::{SystemTime, UNIX_EPOCH};

use flux_generator::{
    area::{SERVICE_AREAS, ServiceArea, parse_segments},
    assets::Assets,
    emission::Pattern,
    fleet::Shape,
    model::{BaseUnit, LoadModel},
    preset::Preset,
    run::{Request, Run, TopicsOfRun},
    scenario::Scenario,
};
use flux_schemas::{
    run::RunId,
    time::{Date, Timestamp},
};

use crate::{cli::RunArguments, roles::Usage, scenario};

/// Now, ms since the Unix epoch.
pub(crate) fn now() -> Timestamp {
    Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64))
}

/// 64 bits of chance.
pub(crate) fn random_bits() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}

/// The request, and the settings that a person gave (which must agree with a run that exists).
pub(crate) fn request(arguments: &RunArguments, assets: Option<Assets>) -> Result<(Request, Vec<&'static str>), Usage> {
    let scenario = arguments.scenario.as_deref().map(scenario::load).transpose()?;
    let arguments = &merged(arguments, scenario.as_ref())?;
    let mut explicit = Vec::new();
    let mut given = |name: &'static str, is: bool| {
        if is {
            explicit.push(name);
        }
    };
    given("meters", arguments.meters.is_some() || arguments.preset.is_some());
    given("interval", arguments.interval.is_some());
    given("start", arguments.start.is_some());
    given("pattern", arguments.pattern.is_some());
    given("model", arguments.model.is_some());
    given("base-unit", arguments.base_unit.is_some());
    given("seed", arguments.seed.is_some());
    given("area", arguments.area.is_some());
    given("segments", arguments.segments.is_some());
    given("scenario", arguments.scenario.is_some());
    given("backfill", arguments.backfill.is_some());
    given("duplicates", arguments.duplicates.is_some());
    given("outage-rows", arguments.outage_rows.is_some());
    given("wide", arguments.wide);
    given("events", arguments.events);
    given("fleet", assets.is_some());
    let (meters, days, shape) = match &arguments.preset {
        Some(name) => {
            let preset = Preset::parse(name).map_err(Usage)?;
            (preset.meters, preset.days, preset.shape)
        }
        None => (arguments.meters.unwrap_or(1000), arguments.days.unwrap_or(7), Shape::default()),
    };
    if assets.is_some() && (arguments.meters.is_some() || arguments.preset.is_some() || arguments.segments.is_some()) {
        return Err(Usage(
            "fleet.meters says which meters there are; drop --meters, --preset and --segments, and give --days".into(),
        ));
    }
    let area = arguments.area.as_deref().map_or(Ok(&SERVICE_AREAS[0]), |name| {
        ServiceArea::parse(name).map_err(|rule| Usage(format!("--area is {name:?}; {rule}")))
    })?;
    let segments = arguments.segments.as_deref().map_or(Ok(area.segments), |text| {
        parse_segments(text).map_err(|rule| Usage(format!("--segments is {text:?}; {rule}")))
    })?;
    let switch = |flag: &str, value: &Option<String>, on: &str, off: &str| match value.as_deref() {
        None => Ok(false),
        Some(value) if value == on => Ok(true),
        Some(value) if value == off => Ok(false),
        Some(value) => Err(Usage(format!("--{flag} is {value:?}; use {on} or {off}"))),
    };
    let backfill = switch("backfill", &arguments.backfill, "on", "off")?;
    let duplicates = switch("duplicates", &arguments.duplicates, "realistic", "off")?;
    let after_restore = switch("outage-rows", &arguments.outage_rows, "after_restore", "inline")?;
    let demo_events = match &arguments.demo_events {
        None => arguments.preset.is_some(),
        given => switch("demo-events", given, "on", "off")?,
    };
    if !(1..=730).contains(&days) {
        return Err(Usage(format!("--days is {days}; use 1 to 730")));
    }
    let interval_minutes = arguments.interval.as_deref().map_or(Ok(15), |text| {
        let digits = text.strip_suffix("min").or_else(|| text.strip_suffix('m')).unwrap_or(text);
        digits.parse().map_err(|_| Usage(format!("--interval is {text:?}; use 5, 15, 30 or 60 (minutes)")))
    })?;
    let pattern = arguments.pattern.as_deref().map_or(Ok(Pattern::Uniform), |name| {
        Pattern::parse(name)
            .ok_or_else(|| Usage(format!("--pattern is {name:?}; use uniform, staggered, partial or degraded")))
    })?;
    let base_unit = arguments.base_unit.as_deref().map_or(Ok(BaseUnit::PerReading), |name| {
        BaseUnit::parse(name).ok_or_else(|| Usage(format!("--base-unit is {name:?}; use per_reading or per_hour")))
    })?;
    let load = match arguments.model.as_deref() {
        None => LoadModel::Documented(base_unit),
        Some(name) => LoadModel::parse(name, base_unit)
            .ok_or_else(|| Usage(format!("--model is {name:?}; use documented or utility")))?,
    };
    if load == LoadModel::Utility && arguments.base_unit.is_some() {
        return Err(Usage("--base-unit reads the documented ranges; drop it, or --model utility".into()));
    }
    let span = i64::from(days) * 86_400_000;
    let start = match &arguments.start {
        Some(text) => {
            let day = Date::parse(text).map(|date| Timestamp(date.days() * 86_400_000));
            day.or_else(|| Timestamp::parse(text)).ok_or_else(|| {
                Usage(format!(
                    "--start is {text:?}; use a day such as 2026-01-01, or a moment such as 2026-01-01T06:00:00Z"
                ))
            })?
        }
        // Live: the last complete interval is the back-fill's last. Otherwise whole days.
        None if arguments.live => {
            let interval = i64::from(interval_minutes).max(1) * 60_000;
            Timestamp(now().0.div_euclid(interval) * interval - span)
        }
        // With back-fill, so that the last late reading has arrived by now.
        None => Timestamp((now().days() - if backfill { 7 } else { 0 }) * 86_400_000 - span),
    };
    if start.0 > now().0 {
        return Err(Usage(format!("--start is {start}, in the future: readings are never stamped ahead of time")));
    }
    let end = (!arguments.live).then_some(Timestamp(start.0 + span));
    let seed = arguments.seed.unwrap_or_else(random_bits);
    let request = Request {
        seed,
        area,
        segments,
        meters: assets.as_ref().map_or(meters, Assets::meters),
        shape,
        assets,
        interval_minutes,
        start,
        end,
        pattern,
        load,
        backfill,
        duplicates,
        after_restore,
        demo_events,
        voltage_anomaly_rate: arguments.voltage_anomaly_rate.unwrap_or(0.002),
        happenings: scenario.map(|scenario| scenario.happenings()).unwrap_or_default(),
        wide: arguments.wide,
        events: arguments.events,
    };
    Ok((request, explicit))
}

/// The arguments, with what a scenario says where they say nothing. What both say must agree.
fn merged(arguments: &RunArguments, scenario: Option<&Scenario>) -> Result<RunArguments, Usage> {
    let mut merged = arguments.clone();
    let Some(scenario) = scenario else { return Ok(merged) };
    let backfill = scenario.backfill.map(|on| if on { "on" } else { "off" }.to_string());
    for (name, flag, field, said) in [
        ("pattern", "--pattern", &mut merged.pattern, &scenario.pattern),
        ("backfill", "--backfill", &mut merged.backfill, &backfill),
        ("duplicates", "--duplicates", &mut merged.duplicates, &scenario.duplicates),
        ("outage_rows", "--outage-rows", &mut merged.outage_rows, &scenario.outage_rows),
    ] {
        match (&*field, said) {
            (Some(given), Some(said)) if given != said => {
                let source = arguments.scenario.as_deref().unwrap_or_default();
                return Err(Usage(format!(
                    "{flag} is {given:?}, scenario {source} says {name} = {said:?}; drop the flag, or change the scenario"
                )));
            }
            (None, Some(said)) => *field = Some(said.clone()),
            _ => {}
        }
    }
    merged.voltage_anomaly_rate = merged.voltage_anomaly_rate.or(scenario.voltage_anomaly_rate);
    Ok(merged)
}

/// A run that no topic holds: its id is its seed.
pub(crate) fn detached(request: &Request) -> Result<Run, Usage> {
    let usage = |error: flux_generator::run::Error| Usage(error.to_string());
    let spec = request.spec(RunId(request.seed), TopicsOfRun::none(), 1).map_err(usage)?;
    Run::new(spec, request.assets.clone()).map_err(usage)
}
