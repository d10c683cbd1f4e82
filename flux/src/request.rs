//! From flags to the request for a run.

use std::time::{SystemTime, UNIX_EPOCH};

use flux_generator::{
    emission::Pattern,
    model::{BaseUnit, LoadModel},
    preset::Preset,
    run::Request,
};
use flux_schemas::time::{Date, Timestamp};

use crate::{cli::RunArguments, roles::Usage};

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
pub(crate) fn request(arguments: &RunArguments) -> Result<(Request, Vec<&'static str>), Usage> {
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
    let (meters, days) = match &arguments.preset {
        Some(name) => {
            let preset = Preset::parse(name).map_err(Usage)?;
            (preset.meters, preset.days)
        }
        None => (arguments.meters.unwrap_or(1000), arguments.days.unwrap_or(7)),
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
        None => Timestamp(now().days() * 86_400_000 - span),
    };
    if start.0 > now().0 {
        return Err(Usage(format!("--start is {start}, in the future: readings are never stamped ahead of time")));
    }
    let end = (!arguments.live).then_some(Timestamp(start.0 + span));
    let seed = arguments.seed.unwrap_or_else(random_bits);
    Ok((Request { seed, meters, interval_minutes, start, end, pattern, load }, explicit))
}
