//! The wide columns that a meter measures: power factor, reactive energy, demand, extremes of the voltage, generation.

use flux_schemas::reading::{Energy, Segment};

use super::{Context, Load, Model, pick_up};
use crate::{calendar::Zone, noise::stream};

/// Bits of STATUS_FLAGS.
pub mod flags {
    /// Power failed in the interval.
    pub const POWER_FAILED: i32 = 1;
    /// Part of the interval was without power.
    pub const PARTIAL: i32 = 2;
    /// More was given than taken at some time.
    pub const REVERSE_FLOW: i32 = 8;
    /// A civil day on which clocks change.
    pub const CLOCK_CHANGE: i32 = 32;
    /// Delivered after the fact.
    pub const BACKFILLED: i32 = 64;
    /// The load after an outage.
    pub const COLD_LOAD: i32 = 128;
}

/// What a meter measures beyond the narrow columns, in units of the last place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wide {
    /// RECEIVED_KWH, of meters with generation.
    pub received: Option<Energy>,
    /// REACTIVE_KVARH, 0.0001.
    pub reactive: i64,
    /// POWER_FACTOR, 0.001; nothing without power.
    pub power_factor: Option<i64>,
    /// DEMAND_KW, 0.01; of shops and plants.
    pub demand: Option<i64>,
    /// VOLTAGE_MIN and VOLTAGE_MAX, 0.1.
    pub voltage: (i64, i64),
    /// TEMPERATURE_C, 0.1.
    pub temperature: i64,
    /// STATUS_FLAGS.
    pub flags: i32,
}

impl Model {
    /// The wide measurements of `meter` in the interval of `context`.
    pub fn wide(&self, meter: u32, segment: Segment, context: &Context) -> Wide {
        let constants = &self.meters[meter as usize];
        let (k, statics) = (context.interval, constants.key.stream(stream::WIDE));
        let disturbance = context.disturbances.of(meter);
        let day = self.zone.local_seconds(context.timestamp).div_euclid(86_400);
        let mut flags = if Zone::changes_on(day) { flags::CLOCK_CHANGE } else { 0 };
        if disturbance.is_some_and(|disturbance| disturbance.out > 0.0) {
            flags |= flags::POWER_FAILED;
        }
        let temperature = (context.temperature * 10.0).round() as i64;
        let generates = match &self.load {
            Load::Utility { customers, .. } => customers[meter as usize].generates(),
            Load::Documented { .. } => false,
        };
        let Some(energy) = self.energy(meter, context) else {
            let received = generates.then_some(Energy(0));
            return Wide { received, temperature, flags, ..Wide::default() };
        };
        if flags & flags::POWER_FAILED != 0 {
            flags |= flags::PARTIAL;
        }
        let since = disturbance.and_then(|disturbance| disturbance.since);
        if matches!(self.load, Load::Utility { .. }) && since.is_some_and(|seconds| pick_up(seconds) > 0.05) {
            flags |= flags::COLD_LOAD;
        }
        let received = energy.delivered - energy.net;
        if received > 0.0 {
            flags |= flags::REVERSE_FLOW;
        }
        let own = statics.gaussian(-1);
        let power_factor = match segment {
            // Motors of air conditioners take more of a hot home's load.
            Segment::Residential => 0.975 + 0.012 * own - 0.03 * context.feeder_load,
            Segment::Commercial => 0.93 + 0.03 * own,
            Segment::Industrial if statics.uniform(-2) < 0.5 => 0.97 + 0.008 * own,
            Segment::Industrial => 0.85 + 0.04 * own,
        };
        let power_factor = (power_factor + 0.006 * self.octave_16.at(statics, k, 3)).clamp(0.80, 1.0);
        // tan(acos pf)
        let tangent = (1.0 - power_factor * power_factor).max(0.0).sqrt() / power_factor;
        let spread = statics.bits(k);
        let lane = |lane: u32| (spread >> (16 * lane) & 0xffff) as f64 / 65_536.0;
        let volts = self.volts(constants, energy.net, context);
        let kw = energy.delivered * 3_600_000.0 / self.interval_ms as f64;
        Wide {
            received: generates.then_some(Energy((received.max(0.0) * 10_000.0).round() as i64)),
            reactive: (energy.delivered * tangent * 10_000.0).round() as i64,
            power_factor: Some((power_factor * 1000.0).round() as i64),
            demand: (segment != Segment::Residential).then(|| (kw * (1.02 + 0.25 * lane(0)) * 100.0).round() as i64),
            voltage: (
                ((volts - 0.2 - 0.8 * lane(1)) * 10.0).round() as i64,
                ((volts + 0.2 + 0.6 * lane(2)) * 10.0).round() as i64,
            ),
            temperature,
            flags,
        }
    }

    /// Whether a meter gave more than it took in the interval of `context`.
    pub(crate) fn gives_back(&self, meter: u32, context: &Context) -> bool {
        self.energy(meter, context).is_some_and(|energy| energy.delivered > energy.net)
    }

    /// The meters with generation.
    pub(crate) fn generators(&self) -> Vec<u32> {
        match &self.load {
            Load::Documented { .. } => Vec::new(),
            Load::Utility { customers, .. } => {
                (0..customers.len() as u32).filter(|meter| customers[*meter as usize].generates()).collect()
            }
        }
    }
}
