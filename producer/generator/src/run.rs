//! A run, ready to produce rows.

use std::ops::Range;

use flux_schemas::{
    codec::schema_fingerprint,
    reading::Reading,
    run::{RunId, RunSpec},
    source::Partition,
    time::Timestamp,
};

use crate::{
    comms::{Comms, Loss},
    emission::{EMISSION_VERSION, Pattern},
    fleet::{Fleet, SERVICE_AREAS, ServiceArea},
    golden,
    model::{BaseUnit, Context, LoadModel, MODEL_VERSION, Model},
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
    /// Meters, [`METERS`].
    pub meters: u32,
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
}

/// Why a spec makes no run for this binary.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field is out of its range.
    #[error("{field} is {value}; {rule}")]
    Field {
        /// RunSpec field or request setting.
        field: &'static str,
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

fn field(field: &'static str, value: &dyn std::fmt::Display, rule: impl Into<String>) -> Error {
    Error::Field { field, value: value.to_string(), rule: rule.into() }
}

impl Request {
    /// The spec of this request, once the Kafka side is known.
    ///
    /// # Errors
    /// [`Error::Field`] names the setting that is out of range: ask for something else.
    pub fn spec(&self, run_id: RunId, topic: TopicOfRun, shards: i32) -> Result<RunSpec, Error> {
        let seconds = self.interval_minutes * 60;
        if !INTERVAL_MINUTES.contains(&self.interval_minutes) {
            return Err(field("interval", &format!("{} min", self.interval_minutes), "use 5, 15, 30 or 60 minutes"));
        }
        let index = |at: Timestamp| at.0.div_euclid(i64::from(seconds) * 1000);
        let spec = RunSpec {
            run_id,
            seed: self.seed as i64,
            model: self.load.as_str().into(),
            model_version: MODEL_VERSION,
            golden_hash: golden::hash().into(),
            base_unit: self.load.base_unit().as_str().into(),
            service_area: SERVICE_AREAS[0].name.into(),
            meters: i32::try_from(self.meters).unwrap_or(i32::MAX),
            interval_seconds: seconds as i32,
            first_interval: index(self.start),
            end_interval: self.end.map(index),
            pattern: self.pattern.as_str().into(),
            emission_version: EMISSION_VERSION,
            topic: topic.name,
            cluster_id: topic.cluster_id,
            topic_id: topic.topic_id,
            partitions: topic.partitions,
            shards,
            schema_fingerprint: schema_fingerprint(),
        };
        check(&spec)?;
        Ok(spec)
    }
}

/// The readings topic as it exists.
#[derive(Debug, Clone)]
pub struct TopicOfRun {
    /// Name.
    pub name: String,
    /// Cluster id.
    pub cluster_id: String,
    /// Topic UUID.
    pub topic_id: String,
    /// Partition count.
    pub partitions: i32,
}

/// Every rule of a spec, in one place.
fn check(spec: &RunSpec) -> Result<(Pattern, LoadModel, &'static ServiceArea), Error> {
    if !u32::try_from(spec.meters).is_ok_and(|meters| METERS.contains(&meters)) {
        return Err(field("meters", &spec.meters, format!("use {} to {}", METERS.start(), METERS.end())));
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
    let area = SERVICE_AREAS.iter().find(|area| area.name == spec.service_area).ok_or_else(|| {
        let names: Vec<_> = SERVICE_AREAS.iter().map(|area| area.name).collect();
        field("service_area", &spec.service_area, format!("this version knows: {}", names.join(", ")))
    })?;
    Ok((pattern, load, area))
}

/// A validated run.
#[derive(Debug)]
pub struct Run {
    spec: RunSpec,
    fleet: Fleet,
    model: Model,
    pattern: Pattern,
    comms: Comms,
    partitions: Vec<Partition>,
}

impl Run {
    /// Builds what the spec describes.
    ///
    /// # Errors
    /// [`Error`] when this binary cannot make the run's rows: it must neither resume nor judge it.
    pub fn new(spec: RunSpec) -> Result<Self, Error> {
        let (pattern, load, area) = check(&spec)?;
        if spec.model_version != MODEL_VERSION || spec.golden_hash != golden::hash() {
            return Err(Error::Golden {
                run: spec.run_id,
                version: spec.model_version,
                theirs: spec.golden_hash,
                ours: golden::hash().into(),
            });
        }
        if spec.schema_fingerprint != schema_fingerprint() {
            return Err(field(
                "schema_fingerprint",
                &spec.schema_fingerprint,
                format!("this binary writes {}", schema_fingerprint()),
            ));
        }
        let seed = spec.seed as u64;
        let fleet = Fleet::new(seed, spec.meters as u32, area);
        let model = Model::new(seed, &fleet, spec.interval_seconds, load);
        let partitions = fleet.partitions(spec.partitions);
        let comms = Comms::new(seed, fleet.len(), i64::from(spec.interval_seconds) * 1000, pattern);
        Ok(Self { spec, fleet, model, pattern, comms, partitions })
    }

    /// The spec it was built from.
    pub fn spec(&self) -> &RunSpec {
        &self.spec
    }

    /// Run id.
    pub fn id(&self) -> RunId {
        self.spec.run_id
    }

    /// The meters.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The values.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The emission pattern.
    pub fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// First interval index.
    pub fn first_interval(&self) -> i64 {
        self.spec.first_interval
    }

    /// First interval index after the run; `None` while it is open-ended.
    pub fn end_interval(&self) -> Option<i64> {
        self.spec.end_interval
    }

    /// Interval length, ms.
    pub fn interval_ms(&self) -> i64 {
        i64::from(self.spec.interval_seconds) * 1000
    }

    /// Readings that the finished run emits; `None` while it is open-ended.
    pub fn readings(&self) -> Option<u64> {
        Some(self.rows(0..self.fleet.len(), self.spec.first_interval..self.spec.end_interval?))
    }

    /// Whether the reading of (meter, interval) reaches the head-end; what does not is never emitted.
    pub fn reports(&self, meter: u32, interval: i64) -> bool {
        self.loss(meter, interval).is_none()
    }

    /// What loses the reading of (meter, interval) on its way, if anything does.
    pub fn loss(&self, meter: u32, interval: i64) -> Option<Loss> {
        self.comms.loss(meter, self.comms.block(interval))
    }

    /// Readings of some meters in some intervals that are emitted.
    pub fn rows(&self, meters: impl Iterator<Item = u32> + Clone, intervals: Range<i64>) -> u64 {
        if self.comms.is_lossless() {
            return (intervals.end - intervals.start).max(0) as u64 * meters.count() as u64;
        }
        let mut rows = 0;
        let mut from = intervals.start;
        while from < intervals.end {
            let block = self.comms.block(from);
            let to = self.comms.first_interval(block + 1).min(intervals.end);
            let reporting = meters.clone().filter(|meter| self.comms.loss(*meter, block).is_none()).count();
            rows += (to - from) as u64 * reporting as u64;
            from = to;
        }
        rows
    }

    /// Partition of a meter.
    pub fn partition(&self, meter: u32) -> Partition {
        self.partitions[meter as usize]
    }

    /// Shard of a meter: its partition modulo the shard count, so that every partition has one writer.
    pub fn shard(&self, meter: u32) -> i32 {
        self.partition(meter).0 % self.spec.shards
    }

    /// The meters of one shard, ascending.
    pub fn meters_of_shard(&self, shard: i32) -> Vec<u32> {
        (0..self.fleet.len()).filter(|meter| self.shard(*meter) == shard).collect()
    }

    /// Arrival of the reading of (meter, interval), ms since the Unix epoch.
    pub fn arrival(&self, meter: u32, interval: i64) -> i64 {
        self.pattern.arrival(self.spec.seed as u64, meter, interval, self.interval_ms())
    }

    /// The reading of one meter in the interval of `context`.
    pub fn reading(&self, meter: u32, context: &Context) -> Reading<'_> {
        let values = self.model.values(meter, context);
        let place = self.fleet.place(meter);
        Reading {
            meter_id: self.fleet.meter_id(meter),
            timestamp: context.timestamp,
            usage: values.usage,
            voltage: values.voltage,
            transformer_id: self.fleet.transformer_id(place.transformer),
            circuit_id: self.fleet.circuit_id(place.circuit),
            substation_id: self.fleet.substation_id(place.substation),
            segment: place.segment,
            service_area: self.fleet.service_area(),
            is_outage: values.is_outage,
            quality: values.quality,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn request(meters: u32, days: i64, pattern: Pattern) -> Request {
        let start = Timestamp::parse("2026-01-01T00:00:00Z").unwrap();
        Request {
            seed: 42,
            meters,
            interval_minutes: 15,
            start,
            end: Some(Timestamp(start.0 + days * 86_400_000)),
            pattern,
            load: LoadModel::Documented(BaseUnit::PerReading),
        }
    }

    fn topic(partitions: i32) -> TopicOfRun {
        TopicOfRun { name: "t".into(), cluster_id: "c".into(), topic_id: "i".into(), partitions }
    }

    pub(crate) fn run(meters: u32, days: i64, pattern: Pattern, partitions: i32, shards: i32) -> Run {
        Run::new(request(meters, days, pattern).spec(RunId(1), topic(partitions), shards).unwrap()).unwrap()
    }

    #[test]
    fn the_quick_demo_is_67_200_readings_from_midnight_to_a_quarter_to() {
        let run = run(100, 7, Pattern::Uniform, 4, 4);
        assert_eq!(run.readings(), Some(67_200));
        let stamp = |k| run.model().context(k).timestamp.to_string();
        assert_eq!(stamp(run.first_interval()), "2026-01-01T00:00:00.000Z");
        assert_eq!(stamp(run.end_interval().unwrap() - 1), "2026-01-07T23:45:00.000Z");
    }

    #[test]
    fn a_wrong_request_names_the_setting() {
        let spec = |request: Request| request.spec(RunId(1), topic(4), 4).unwrap_err().to_string();
        let good = request(100, 7, Pattern::Uniform);
        assert!(
            spec(Request { interval_minutes: 10, ..good.clone() }).contains("interval is 10 min; use 5, 15, 30 or 60")
        );
        assert!(spec(Request { meters: 9, ..good.clone() }).contains("meters is 9; use 10 to 600000"));
        assert!(spec(Request { end: Some(good.start), ..good.clone() }).contains("end_interval"));
        assert!(good.spec(RunId(1), topic(4), 5).unwrap_err().to_string().contains("shards is 5"));
    }

    #[test]
    fn another_generators_run_is_refused() {
        let mut spec = request(100, 7, Pattern::Uniform).spec(RunId(1), topic(4), 4).unwrap();
        spec.golden_hash = "beef".into();
        assert!(matches!(Run::new(spec), Err(Error::Golden { .. })));
    }
}
