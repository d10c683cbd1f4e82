//! A run, ready to produce rows.

use std::ops::Range;

use flux_schemas::{
    reading::Reading,
    row::{Cell, Row, Table},
    run::{RunId, RunSpec},
    source::{Partition, partition_of_key},
    time::Timestamp,
};

pub use crate::request::{Error, INTERVAL_MINUTES, METERS, Request, TopicOfRun, TopicsOfRun};
use crate::{
    assets::Assets,
    comms::{Comms, Fate, Loss},
    emission::{Emit, Kind, Pattern, Rows},
    fleet::Fleet,
    golden,
    grid::Grid,
    model::{Conditions, Context, Contexts, MODEL_VERSION, Model},
    noise::{Key, stream},
    outage::{Fault, Level},
    request::{Checked, check, field},
};

/// A validated run.
#[derive(Debug)]
pub struct Run {
    spec: RunSpec,
    fleet: Fleet,
    model: Model,
    grid: Grid,
    pattern: Pattern,
    comms: Comms,
    partitions: Vec<Partition>,
}

/// The meters that are out in an interval, and why.
#[derive(Debug)]
pub struct Out(Vec<(u32, Fault)>);

impl Out {
    /// Why `meter` is out, if it is.
    pub fn get(&self, meter: u32) -> Option<&Fault> {
        let index = self.0.binary_search_by_key(&meter, |(meter, _)| *meter).ok()?;
        Some(&self.0[index].1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &Fault)> {
        self.0.iter().map(|(meter, fault)| (*meter, fault))
    }
}

impl Run {
    /// Builds what the spec describes. `assets` is the fleet that its hash stands for, where it is not synthetic.
    ///
    /// # Errors
    /// [`Error`] when this binary cannot make the run's rows: it must neither resume nor judge it.
    pub fn new(spec: RunSpec, assets: Option<Assets>) -> Result<Self, Error> {
        let Checked { pattern, load, area, segments, shape, happenings } = check(&spec)?;
        if spec.model_version != MODEL_VERSION || spec.golden_hash != golden::hash() {
            return Err(Error::Golden {
                run: spec.run_id,
                version: spec.model_version,
                theirs: spec.golden_hash,
                ours: golden::hash().into(),
            });
        }
        let fingerprint = Table::readings().fingerprint(spec.width());
        if spec.schema_fingerprint != fingerprint {
            return Err(field(
                "schema_fingerprint",
                &spec.schema_fingerprint,
                format!("this binary writes {fingerprint}"),
            ));
        }
        let theirs = assets.as_ref().map(Assets::hash).unwrap_or_default();
        if spec.assets_hash != theirs {
            let rule = format!(
                "the run was started with the lists whose hash is {:?}: give the same fleet.* files",
                spec.assets_hash
            );
            return Err(field("fleet.meters", &format!("a fleet with hash {theirs:?}"), rule));
        }
        let seed = spec.seed as u64;
        let fleet = match assets {
            Some(assets) => Fleet::of_assets(assets, area),
            None => Fleet::new(seed, spec.meters as u32, area, segments, shape),
        };
        for (index, cascade) in happenings.cascade.iter().enumerate() {
            if fleet.node_of_id(&cascade.asset).is_none() {
                let rule = format!("the fleet has no such asset; its first transformer is {}", fleet.transformer_id(0));
                return Err(field(format!("scenario cascade[{index}].asset"), &cascade.asset, rule));
            }
        }
        for (index, storm) in happenings.storm.iter().enumerate() {
            let unknown = |id: &&String| !matches!(fleet.node_of_id(id), Some((Level::Substation, _)));
            if let Some(id) = storm.substations.iter().find(unknown) {
                let rule = format!("the fleet has no such substation; its first is {}", fleet.substation_id(0));
                return Err(field(format!("scenario storm[{index}].substations"), id, rule));
            }
        }
        let interval_ms = i64::from(spec.interval_seconds) * 1000;
        let start = Timestamp(spec.first_interval * interval_ms);
        let length = spec.end_interval.map_or(i64::MAX, |end| (end - spec.first_interval) * interval_ms / 1000);
        let comms = Comms::new(seed, fleet.len(), interval_ms, pattern, spec.backfill, &happenings, start);
        let conditions = Conditions {
            voltage_anomaly_rate: f64::from(spec.voltage_anomaly_ppm) / 1e6,
            // With what was missed and estimated, 2 % of the readings are estimates in PARTIAL and 5 % in DEGRADED.
            estimated_share: match pattern {
                Pattern::Partial if spec.backfill => 0.017,
                Pattern::Degraded if spec.backfill => 0.0275,
                _ => Conditions::default().estimated_share,
            },
            happenings,
            start,
            demo_events: spec.demo_events.then_some(length),
        };
        let model = Model::new(seed, &fleet, spec.interval_seconds, load, &conditions);
        let collectors = comms.collector(fleet.len() - 1) + 1;
        let grid = Grid::new(seed, &fleet, collectors);
        let partitions = fleet.partitions(spec.partitions);
        Ok(Self { spec, fleet, model, grid, pattern, comms, partitions })
    }

    /// The spec it was built from.
    pub fn spec(&self) -> &RunSpec {
        &self.spec
    }

    /// Run id.
    pub fn id(&self) -> RunId {
        self.spec.run_id
    }

    /// Seed.
    pub fn seed(&self) -> u64 {
        self.spec.seed as u64
    }

    /// The meters.
    pub fn fleet(&self) -> &Fleet {
        &self.fleet
    }

    /// The values.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// What stands above the meters, and where.
    pub fn grid(&self) -> &Grid {
        &self.grid
    }

    /// The emission pattern.
    pub fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// Whether readings have the wide columns.
    pub fn is_wide(&self) -> bool {
        self.spec.wide
    }

    /// Whether events and assets are emitted.
    pub fn has_events(&self) -> bool {
        self.spec.events
    }

    /// Whether missed readings arrive later.
    pub fn has_backfill(&self) -> bool {
        self.spec.backfill
    }

    /// Whether readings are sent twice.
    pub fn has_copies(&self) -> bool {
        self.spec.duplicates
    }

    /// Whether readings of an outage arrive after it.
    pub fn after_restore(&self) -> bool {
        self.spec.after_restore
    }

    /// Whether every reading that is emitted is on time, once, and nothing else is emitted.
    pub fn is_plain(&self) -> bool {
        !(self.has_backfill() || self.has_copies() || self.after_restore() || self.has_events())
    }

    /// First interval index.
    pub fn first_interval(&self) -> i64 {
        self.spec.first_interval
    }

    /// First arrival bucket: that of the assets, where there are any.
    pub fn first_bucket(&self) -> i64 {
        self.first_interval() - i64::from(self.has_events())
    }

    /// First interval index after the run; `None` while it is open-ended.
    pub fn end_interval(&self) -> Option<i64> {
        self.spec.end_interval
    }

    /// Whether the run has readings of this interval.
    pub fn contains(&self, interval: i64) -> bool {
        interval >= self.first_interval() && self.end_interval().is_none_or(|end| interval < end)
    }

    /// Interval length, ms.
    pub fn interval_ms(&self) -> i64 {
        i64::from(self.spec.interval_seconds) * 1000
    }

    /// Readings of the finished run, each counted once; `None` while it is open-ended.
    pub fn readings(&self) -> Option<u64> {
        let intervals = self.first_interval()..self.end_interval()?;
        if self.has_backfill() {
            return Some((intervals.end - intervals.start) as u64 * u64::from(self.fleet.len()));
        }
        Some(self.rows(0..self.fleet.len(), intervals))
    }

    /// Whether the reading of (meter, interval) reaches the head-end on time.
    pub fn reports(&self, meter: u32, interval: i64) -> bool {
        self.loss(meter, interval).is_none()
    }

    /// Whether everything reaches the head-end.
    pub fn is_lossless(&self) -> bool {
        self.comms.is_lossless()
    }

    /// What keeps the reading of (meter, interval) on its way, if anything does.
    pub fn loss(&self, meter: u32, interval: i64) -> Option<Loss> {
        self.comms.loss(meter, self.comms.block(interval))
    }

    /// What becomes of the reading of (meter, interval) on its way.
    pub fn fate(&self, meter: u32, interval: i64) -> Fate {
        self.comms.fate(meter, self.block(interval))
    }

    pub(crate) fn loss_in_block(&self, meter: u32, block: i64) -> Option<Loss> {
        self.comms.loss(meter, block)
    }

    /// The block of interval `k`: its readings share their fate.
    pub fn block(&self, k: i64) -> i64 {
        self.comms.block(k)
    }

    /// The run's intervals of a block.
    pub fn intervals_of_block(&self, block: i64) -> Range<i64> {
        let (from, to) = (self.comms.first_interval(block), self.comms.first_interval(block + 1));
        from.max(self.first_interval())..self.end_interval().map_or(to, |end| to.min(end))
    }

    /// The bucket of an arrival.
    pub fn bucket_of(&self, arrival: i64) -> i64 {
        arrival.div_euclid(self.interval_ms()) - 1
    }

    /// The collector of a meter.
    pub fn collector(&self, meter: u32) -> u32 {
        self.comms.collector(meter)
    }

    pub(crate) fn hops(&self, meter: u32) -> i64 {
        self.comms.hops(meter)
    }

    /// The meters that are out in an interval.
    pub fn out(&self, interval: i64, contexts: &mut Contexts) -> Out {
        if self.is_plain() {
            return Out(Vec::new());
        }
        Out(self.model.meters_out(contexts.get(&self.model, interval)).collect())
    }

    /// A reading that arrives on time.
    #[inline]
    pub fn on_time(&self, meter: u32, interval: i64) -> Emit {
        Emit { arrival: self.arrival(meter, interval), interval, meter, kind: Kind::Reading }
    }

    /// The rows of a reading, without its copy. `out` says why the meter is without power, if it is.
    pub fn outcome(&self, meter: u32, interval: i64, out: Option<&Fault>) -> Rows {
        let emit = |arrival, kind| Emit { arrival, interval, meter, kind };
        if let Some(fault) = out.filter(|_| self.after_restore()) {
            return Rows::one(emit(self.after_fault(meter, interval, fault), Kind::Late));
        }
        // A block's readings are delivered oldest first, one a second.
        let turn = || 1000 * (interval - self.comms.first_interval(self.block(interval)));
        match self.fate(meter, interval) {
            Fate::OnTime => Rows::one(self.on_time(meter, interval)),
            Fate::Lost(_) => Rows::default(),
            Fate::Late { at, .. } => Rows::one(emit(at + turn(), Kind::Late)),
            // That a meter is out is known without it: no estimate.
            Fate::Revised { at, .. } if out.is_some() => Rows::one(emit(at + turn(), Kind::Late)),
            Fate::Revised { estimated, at, .. } => {
                Rows::two(emit(estimated + turn(), Kind::Estimate), emit(at + turn(), Kind::Revised))
            }
            Fate::Estimated { estimated, .. } => Rows::one(emit(estimated + turn(), Kind::Estimate)),
        }
    }

    /// When a reading of an outage arrives after it: from one to thirty minutes later, by collector, twenty intervals of a
    /// meter a second.
    fn after_fault(&self, meter: u32, interval: i64, fault: &Fault) -> i64 {
        let key = Key::new(self.seed(), crate::fleet::kind::COLLECTOR, u64::from(self.collector(meter)) + 1);
        let turn = key.stream(stream::MESH).uniform(fault.start.0 / 1000);
        let drained = 50 * (interval - fault.start.0.div_euclid(self.interval_ms())).max(0);
        let restored = fault.end.0 + 60_000 + (turn * 1_740_000.0) as i64 + drained;
        restored.max((interval + 1) * self.interval_ms())
    }

    /// The copy of a reading that arrives on time, if it is sent again.
    pub fn copy(&self, meter: u32, interval: i64) -> Option<Emit> {
        let delay = self.pattern.copy_delay(self.seed(), meter, interval).filter(|_| self.has_copies())?;
        let arrival = self.arrival(meter, interval) + delay;
        Some(Emit { arrival, interval, meter, kind: Kind::Copy })
    }

    /// Every row of a reading.
    pub fn variants(&self, meter: u32, interval: i64, contexts: &mut Contexts, mut each: impl FnMut(Emit)) {
        let out = if self.is_plain() { None } else { self.model.fault(meter, contexts.get(&self.model, interval)) };
        let rows = self.outcome(meter, interval, out.as_ref());
        rows.iter().copied().for_each(&mut each);
        if rows.iter().any(|row| row.kind == Kind::Reading) {
            self.copy(meter, interval).into_iter().for_each(each);
        }
    }

    /// How many readings of these meters arrive on time.
    pub fn rows(&self, meters: impl Iterator<Item = u32> + Clone, intervals: Range<i64>) -> u64 {
        if self.comms.is_lossless() {
            return meters.count() as u64 * (intervals.end - intervals.start).max(0) as u64;
        }
        let (mut rows, mut from) = (0, intervals.start);
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

    /// Number of assets.
    pub fn assets(&self) -> u32 {
        self.grid.len(&self.fleet)
    }

    /// ASSET_ID of asset number `index`.
    pub fn asset_id(&self, index: u32) -> &str {
        self.grid.id(&self.fleet, self.grid.asset(&self.fleet, index))
    }

    /// Partition of an asset.
    pub fn partition_of_asset(&self, index: u32) -> Partition {
        partition_of_key(self.asset_id(index).as_bytes(), self.spec.partitions)
    }

    /// The row of asset number `index`.
    pub fn asset_cells<'a>(&'a self, index: u32, cells: &mut Vec<Cell<'a>>) {
        let asset = self.grid.asset(&self.fleet, index);
        let collector = match asset {
            crate::grid::Asset::Meter(meter) => self.collector(meter),
            _ => 0,
        };
        self.grid.cells(&self.fleet, asset, self.first_interval() * self.interval_ms(), collector, cells);
    }

    /// The assets of a shard, at the run's start.
    pub(crate) fn grid_rows(&self, shard: i32, bucket: i64, rows: &mut Vec<Emit>) {
        let arrival = (bucket + 1) * self.interval_ms();
        let ours = (0..self.assets()).filter(|index| self.partition_of_asset(*index).0 % self.spec.shards == shard);
        rows.extend(ours.map(|index| Emit { arrival, interval: 0, meter: index, kind: Kind::Asset }));
    }

    /// Arrival of the reading of (meter, interval) when nothing keeps it, ms since the Unix epoch.
    pub fn arrival(&self, meter: u32, interval: i64) -> i64 {
        self.pattern.arrival(self.seed(), meter, interval, self.interval_ms())
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
            service_area: self.fleet.area().name,
            is_outage: values.is_outage,
            quality: values.quality,
        }
    }
}

/// A row of the readings table.
pub fn reading_row<'a>(cells: &'a [Cell<'a>]) -> Row<'a> {
    Row { table: Table::readings(), cells }
}

#[cfg(test)]
pub(crate) mod tests;
