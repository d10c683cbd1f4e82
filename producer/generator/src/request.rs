//! What a run may be: what a person asks for, the spec that it becomes, and every rule of it.

use flux_schemas::{
    row::Table,
    run::{RunId, RunSpec},
    time::Timestamp,
};

use crate::{
    area::{ServiceArea, parse_segments},
    assets::Assets,
    emission::{EMISSION_VERSION, Pattern},
    fleet::Shape,
    golden,
    model::{BaseUnit, Conditions, LoadModel, MODEL_VERSION},
    scenario::Happenings,
};

/// Interval lengths a meter reads at, minutes.
pub const INTERVAL_MINUTES: [u32; 4] = [5, 15, 30, 60];
/// Fleet sizes.
pub const METERS: std::ops::RangeInclusive<u32> = 10..=600_000;

/// What a person asks for, checked.
#[derive(Debug, Clone)]
pub struct Request {
    /// Seed.
    pub seed: u64,
    /// Service area.
    pub area: &'static ServiceArea,
    /// Percent of homes, shops and plants.
    pub segments: [u32; 3],
    /// Meters, [`METERS`].
    pub meters: u32,
    /// Nodes above them.
    pub shape: Shape,
    /// Somebody's own fleet, instead of the four above.
    pub assets: Option<Assets>,
    /// Interval length, one of [`INTERVAL_MINUTES`].
    pub interval_minutes: u32,
    /// First interval's start; rounded down to the interval grid.
    pub start: Timestamp,
    /// End of the last interval; `None` runs on.
    pub end: Option<Timestamp>,
    /// Emission pattern.
    pub pattern: Pattern,
    /// Load model.
    pub load: LoadModel,
    /// Missed readings arrive later or are estimated.
    pub backfill: bool,
    /// Some readings are sent twice.
    pub duplicates: bool,
    /// Readings of an outage arrive after it.
    pub after_restore: bool,
    /// Outages are pinned into the first days.
    pub demo_events: bool,
    /// Share of the readings whose voltage is outside 114 to 126 V.
    pub voltage_anomaly_rate: f64,
    /// What befalls the grid.
    pub happenings: Happenings,
    /// Readings have the wide columns.
    pub wide: bool,
    /// Events and assets are emitted too.
    pub events: bool,
}

/// Why a spec makes no run for this binary.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field is out of its range.
    #[error("{field} is {value}; {rule}")]
    Field {
        /// RunSpec field or request setting.
        field: String,
        /// What it says.
        value: String,
        /// What is allowed.
        rule: String,
    },
    /// The run was made by a generator whose values differ.
    #[error(
        "run {run} was made by model version {version} with golden hash {theirs}, this binary makes {ours}; \
         use the flux version that started the run"
    )]
    Golden {
        /// Run.
        run: RunId,
        /// Its model version.
        version: i32,
        /// Its hash.
        theirs: String,
        /// This binary's hash.
        ours: String,
    },
}

pub(crate) fn field(field: impl Into<String>, value: &dyn std::fmt::Display, rule: impl Into<String>) -> Error {
    Error::Field { field: field.into(), value: value.to_string(), rule: rule.into() }
}

impl Request {
    /// A synthetic fleet of the default area, 15-minute readings, nothing special.
    pub fn new(seed: u64, meters: u32, start: Timestamp, end: Option<Timestamp>) -> Self {
        let area = &crate::area::SERVICE_AREAS[0];
        Self {
            seed,
            area,
            segments: area.segments,
            meters,
            shape: Shape::default(),
            assets: None,
            interval_minutes: 15,
            start,
            end,
            pattern: Pattern::Uniform,
            load: LoadModel::Documented(BaseUnit::PerReading),
            backfill: false,
            duplicates: false,
            after_restore: false,
            demo_events: false,
            voltage_anomaly_rate: Conditions::default().voltage_anomaly_rate,
            happenings: Happenings::default(),
            wide: false,
            events: false,
        }
    }

    /// The spec of this request, once the Kafka side is known.
    ///
    /// # Errors
    /// [`Error::Field`] names the setting that is out of range: ask for something else.
    pub fn spec(&self, run_id: RunId, topics: TopicsOfRun, shards: i32) -> Result<RunSpec, Error> {
        let seconds = self.interval_minutes * 60;
        if !INTERVAL_MINUTES.contains(&self.interval_minutes) {
            return Err(field("interval", &format!("{} min", self.interval_minutes), "use 5, 15, 30 or 60 minutes"));
        }
        if !(0.0..=0.02).contains(&self.voltage_anomaly_rate) {
            return Err(field("voltage_anomaly_rate", &self.voltage_anomaly_rate, "use 0 to 0.02"));
        }
        let index = |at: Timestamp| at.0.div_euclid(i64::from(seconds) * 1000);
        let [homes, shops, plants] = self.segments;
        let meters = self.assets.as_ref().map_or(self.meters, Assets::meters);
        let spec = RunSpec {
            run_id,
            seed: self.seed as i64,
            model: self.load.as_str().into(),
            model_version: MODEL_VERSION,
            golden_hash: golden::hash().into(),
            base_unit: self.load.base_unit().as_str().into(),
            service_area: self.area.name.into(),
            segments: format!("{homes}/{shops}/{plants}"),
            meters: i32::try_from(meters).unwrap_or(i32::MAX),
            transformers: self.shape.transformers as i32,
            circuits: self.shape.circuits as i32,
            substations: self.shape.substations as i32,
            assets_hash: self.assets.as_ref().map(Assets::hash).unwrap_or_default(),
            interval_seconds: seconds as i32,
            first_interval: index(self.start),
            end_interval: self.end.map(index),
            pattern: self.pattern.as_str().into(),
            backfill: self.backfill,
            duplicates: self.duplicates,
            after_restore: self.after_restore,
            demo_events: self.demo_events,
            voltage_anomaly_ppm: (self.voltage_anomaly_rate * 1e6).round() as i32,
            scenario: self.happenings.to_spec(),
            wide: self.wide,
            events: self.events,
            emission_version: EMISSION_VERSION,
            cluster_id: topics.cluster_id,
            topic: topics.readings.name,
            topic_id: topics.readings.id,
            events_topic: topics.events.name,
            events_topic_id: topics.events.id,
            assets_topic: topics.assets.name,
            assets_topic_id: topics.assets.id,
            partitions: topics.partitions,
            shards,
            schema_fingerprint: Table::readings().fingerprint(if self.wide {
                Table::readings().columns.len()
            } else {
                Table::readings().narrow
            }),
        };
        check(&spec)?;
        Ok(spec)
    }
}

/// A topic as it exists.
#[derive(Debug, Clone, Default)]
pub struct TopicOfRun {
    /// Name.
    pub name: String,
    /// UUID.
    pub id: String,
}

/// The topics of a run.
#[derive(Debug, Clone, Default)]
pub struct TopicsOfRun {
    /// Cluster id.
    pub cluster_id: String,
    /// Partition count, of each.
    pub partitions: i32,
    /// Readings.
    pub readings: TopicOfRun,
    /// Events; empty without.
    pub events: TopicOfRun,
    /// Assets; empty without.
    pub assets: TopicOfRun,
}

impl TopicsOfRun {
    /// Of a run that is in no Kafka.
    pub fn none() -> Self {
        Self { partitions: 1, readings: TopicOfRun { name: "none".into(), id: String::new() }, ..Self::default() }
    }
}

/// What a spec says, read.
pub(crate) struct Checked {
    pub(crate) pattern: Pattern,
    pub(crate) load: LoadModel,
    pub(crate) area: &'static ServiceArea,
    pub(crate) segments: [u32; 3],
    pub(crate) shape: Shape,
    pub(crate) happenings: Happenings,
}

/// Every rule of a spec, in one place.
pub(crate) fn check(spec: &RunSpec) -> Result<Checked, Error> {
    if !u32::try_from(spec.meters).is_ok_and(|meters| METERS.contains(&meters)) {
        return Err(field("meters", &spec.meters, format!("use {} to {}", METERS.start(), METERS.end())));
    }
    let mut below = (spec.meters, "meters");
    for (name, count) in
        [("transformers", spec.transformers), ("circuits", spec.circuits), ("substations", spec.substations)]
    {
        if count < 0 || count > below.0 {
            return Err(field(name, &count, format!("use 1 to the number of {}, {}", below.1, below.0)));
        }
        if count > 0 {
            below = (count, name);
        }
    }
    if !INTERVAL_MINUTES.iter().any(|minutes| minutes * 60 == spec.interval_seconds as u32) {
        return Err(field("interval_seconds", &spec.interval_seconds, "use 300, 900, 1800 or 3600"));
    }
    if let Some(end) = spec.end_interval.filter(|end| *end <= spec.first_interval) {
        return Err(field("end_interval", &end, format!("it must lie after first_interval, {}", spec.first_interval)));
    }
    if spec.partitions < 1 {
        return Err(field("partitions", &spec.partitions, "use at least 1"));
    }
    if !(1..=spec.partitions).contains(&spec.shards) {
        return Err(field("shards", &spec.shards, format!("use 1 to the number of partitions, {}", spec.partitions)));
    }
    if spec.emission_version != EMISSION_VERSION {
        return Err(field(
            "emission_version",
            &spec.emission_version,
            format!("this binary emits version {EMISSION_VERSION}"),
        ));
    }
    let pattern = Pattern::parse(&spec.pattern)
        .ok_or_else(|| field("pattern", &spec.pattern, "use uniform, staggered, partial or degraded"))?;
    let base_unit = BaseUnit::parse(&spec.base_unit)
        .ok_or_else(|| field("base_unit", &spec.base_unit, "use per_reading or per_hour"))?;
    let load = LoadModel::parse(&spec.model, base_unit)
        .ok_or_else(|| field("model", &spec.model, "use documented or utility"))?;
    let area =
        ServiceArea::parse(&spec.service_area).map_err(|rule| field("service_area", &spec.service_area, rule))?;
    let segments = parse_segments(&spec.segments).map_err(|rule| field("segments", &spec.segments, rule))?;
    let happenings = Happenings::from_spec(&spec.scenario).map_err(|error| field("scenario", &spec.scenario, error))?;
    happenings.check().map_err(|(name, value, rule)| field(format!("scenario {name}"), &value, rule))?;
    let can_lose = pattern.reporting_share() < 1.0 || !happenings.comms_outage.is_empty();
    if spec.backfill && !can_lose {
        let rule = format!(
            "pattern {} loses nothing that could arrive later; drop it, or use partial or degraded",
            spec.pattern
        );
        return Err(field("backfill", &"on", rule));
    }
    let shape = Shape {
        transformers: spec.transformers as u32,
        circuits: spec.circuits as u32,
        substations: spec.substations as u32,
    };
    Ok(Checked { pattern, load, area, segments, shape, happenings })
}
