//! The way from meter to head-end, and the reads that are lost on it.
//!
//! Losses are persistent and clustered, as in the field: they last for blocks of four hours, and come in three layers.
//!
//! | layer | what | share of the loss, PARTIAL | DEGRADED |
//! |---|---|---|---|
//! | collector | 1,500 neighbouring meters behind one cell relay, down together | 0.4 of 2 % | 7 of 15 % |
//! | hard to reach | few meters, always the same, behind a poor link | 1.0 of 2 % | 3 of 15 % |
//! | link | any meter | the rest | the rest |
//!
//! With back-fill, a meter that was out of reach keeps its readings, and what becomes of a block is drawn once: most is
//! delivered hours later, some only after the head-end had to estimate it, and a little never. A scenario may put
//! collectors down besides.
//!
//! The layers are independent, and the last one is chosen so that exactly the documented share reports.

use flux_schemas::time::Timestamp;

use crate::{
    emission::Pattern,
    fleet::kind,
    noise::{Key, Stream, stream},
    scenario::{Happenings, seconds},
};

/// 2^64 over the golden ratio.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
/// Length of a block, ms.
const BLOCK_MS: i64 = 4 * 3_600_000;
/// Meters behind one collector, where the fleet is large enough to have [`COLLECTORS`] of them.
const METERS_PER_COLLECTOR: u32 = 1_500;
/// A small fleet has this many collectors, so that one of them is not the whole fleet.
const COLLECTORS: u32 = 8;

/// After the end of a block: longest time until its readings have arrived, ms.
pub(crate) const LONGEST_DELAY_MS: i64 = 6 * 86_400_000;

/// What becomes of the readings of a block; times in ms since the Unix epoch, of the first of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They arrive when the pattern says.
    OnTime,
    /// They never arrive, and nobody minds.
    Lost(Loss),
    /// They arrive later.
    Late {
        /// Why.
        loss: Loss,
        /// When.
        at: i64,
    },
    /// They are estimated for the daily file, and the actuals come after all.
    Revised {
        /// Why.
        loss: Loss,
        /// When they are estimated.
        estimated: i64,
        /// When they arrive.
        at: i64,
    },
    /// They are estimated, and that is all.
    Estimated {
        /// Why.
        loss: Loss,
        /// When.
        estimated: i64,
    },
}

/// Collectors that a scenario puts down.
#[derive(Debug)]
struct Forced {
    blocks: std::ops::Range<i64>,
    share: f64,
}

/// What lost a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// The collector with this number was down.
    Collector(u32),
    /// The meter is hard to reach, and its link failed.
    HardToReach,
    /// The meter's link failed.
    Link,
}

/// What is lost; probabilities of a block.
#[derive(Debug, Clone, Copy)]
struct Losses {
    collector: f64,
    /// Share of the meters that are hard to reach, and how often their link fails.
    hard_to_reach: f64,
    hard_link: f64,
    link: f64,
}

impl Losses {
    fn of(pattern: Pattern) -> Option<Self> {
        let (collector, hard_to_reach, hard_link) = match pattern {
            Pattern::Uniform | Pattern::Staggered => return None,
            Pattern::Partial => (0.004, 0.02, 0.5),
            Pattern::Degraded => (0.07, 0.05, 0.6),
        };
        let link = 1.0 - pattern.reporting_share() / ((1.0 - collector) * (1.0 - hard_to_reach * hard_link));
        Some(Self { collector, hard_to_reach, hard_link, link })
    }
}

/// Which reads reach the head-end.
#[derive(Debug)]
pub(crate) struct Comms {
    losses: Option<Losses>,
    seed: u64,
    interval_ms: i64,
    meters_per_collector: u32,
    /// Distance between two collectors on the circle of 2^64 points.
    collector_step: u64,
    /// How far the circle turns from block to block.
    collector_turn: u64,
    collector_phase: u64,
    backfill: bool,
    forced: Vec<Forced>,
}

impl Comms {
    /// `start` is the run's start, from which a scenario counts.
    pub(crate) fn new(
        seed: u64,
        meters: u32,
        interval_ms: i64,
        pattern: Pattern,
        backfill: bool,
        happenings: &Happenings,
        start: Timestamp,
    ) -> Self {
        let forced = happenings.comms_outage.iter().map(|outage| {
            let from = start.0 + 1000 * seconds(&outage.start).unwrap_or_default();
            let to = from + 1000 * seconds(&outage.duration).unwrap_or_default();
            // Blocks that begin in it.
            let block = |ms: i64| (ms + BLOCK_MS - 1).div_euclid(BLOCK_MS);
            Forced { blocks: block(from)..block(to), share: outage.collectors }
        });
        let meters_per_collector = METERS_PER_COLLECTOR.min(meters.div_ceil(COLLECTORS)).max(1);
        let collectors = u64::from(meters.div_ceil(meters_per_collector));
        let collector_step = u64::MAX / collectors;
        let golden = |of: u64| ((u128::from(of) * u128::from(GOLDEN_RATIO)) >> 64) as u64;
        Self {
            losses: Losses::of(pattern),
            seed,
            interval_ms,
            meters_per_collector,
            collector_step,
            collector_turn: collector_step.wrapping_mul(golden(collectors)).wrapping_add(golden(collector_step)),
            collector_phase: Key::new(seed, kind::COLLECTOR, 0).stream(stream::STATIC).bits(0),
            backfill,
            forced: forced.collect(),
        }
    }

    /// Whether nothing is ever lost.
    pub(crate) fn is_lossless(&self) -> bool {
        self.losses.is_none() && self.forced.is_empty()
    }

    /// The collector of a meter: neighbours share one.
    pub(crate) fn collector(&self, meter: u32) -> u32 {
        meter / self.meters_per_collector
    }

    /// Hops through the mesh from a meter to its collector, 1 to 8.
    pub(crate) fn hops(&self, meter: u32) -> i64 {
        let draws = Key::new(self.seed, kind::METER, u64::from(meter)).stream(stream::MESH);
        1 + (draws.uniform(-1) * draws.uniform(-2) * 8.0) as i64
    }

    /// What becomes of the readings of `meter` in `block`.
    pub(crate) fn fate(&self, meter: u32, block: i64) -> Fate {
        let Some(loss) = self.loss(meter, block) else { return Fate::OnTime };
        if !self.backfill {
            return Fate::Lost(loss);
        }
        let draws = Key::new(self.seed, kind::METER, u64::from(meter)).stream(stream::FATE);
        let end = (block + 1) * BLOCK_MS;
        let chance = draws.uniform(2 * block);
        if chance < 0.85 {
            let hours = 6.0 * libm::exp(1.1 * draws.gaussian(2 * block + 1));
            return Fate::Late { loss, at: end + ((hours * 3_600_000.0) as i64).min(5 * 86_400_000) };
        }
        // The daily file of the day after is made at 06:00 UTC.
        let estimated = (end.div_euclid(86_400_000) + 1) * 86_400_000 + 6 * 3_600_000;
        if chance < 0.97 {
            let days = 4.0 * draws.uniform(2 * block + 1);
            return Fate::Revised { loss, estimated, at: estimated + 3_600_000 + (days * 86_400_000.0) as i64 };
        }
        Fate::Estimated { loss, estimated }
    }

    /// The block of interval `k`; a block's intervals share their fate.
    pub(crate) fn block(&self, k: i64) -> i64 {
        (k * self.interval_ms).div_euclid(BLOCK_MS)
    }

    /// First interval of a block.
    pub(crate) fn first_interval(&self, block: i64) -> i64 {
        (block * BLOCK_MS).div_euclid(self.interval_ms)
    }

    /// What loses the reads of `meter` in `block`; `None` when they arrive.
    pub(crate) fn loss(&self, meter: u32, block: i64) -> Option<Loss> {
        if self.is_lossless() {
            return None;
        }
        let collector = self.collector(meter);
        let down = |forced: &Forced| {
            let key = Key::new(self.seed, kind::COLLECTOR, u64::from(collector) + 1);
            forced.blocks.contains(&block) && key.stream(stream::LINK).uniform(forced.blocks.start) < forced.share
        };
        if self.forced.iter().any(down) {
            return Some(Loss::Collector(collector));
        }
        let losses = self.losses?;
        if self.collector_is_down(collector, block, losses.collector) {
            return Some(Loss::Collector(collector));
        }
        let draws = |purpose| -> Stream { Key::new(self.seed, kind::METER, u64::from(meter)).stream(purpose) };
        let link = draws(stream::LINK);
        // Draw -1 is the meter's own; blocks of this century are positive.
        let hard_to_reach = link.uniform(-1) < losses.hard_to_reach;
        if link.uniform(block) < losses.link {
            return Some(Loss::Link);
        }
        let fails = hard_to_reach && draws(stream::HARD_LINK).uniform(block) < losses.hard_link;
        fails.then_some(Loss::HardToReach)
    }

    /// Collectors lie evenly on a circle that turns from block to block, by the golden ratio of their distance (and of
    /// the circle): in every block, and over time, the share that is down is as near to `share` as can be.
    fn collector_is_down(&self, collector: u32, block: i64, share: f64) -> bool {
        let place = u64::from(collector)
            .wrapping_mul(self.collector_step)
            .wrapping_add((block as u64).wrapping_mul(self.collector_turn))
            .wrapping_add(self.collector_phase);
        place < (share * 18_446_744_073_709_551_616.0) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCKS: std::ops::Range<i64> = 122_000..122_000 + 6 * 30;

    fn made(pattern: Pattern) -> Comms {
        Comms::new(7, 10_000, 900_000, pattern, true, &Happenings::default(), Timestamp(0))
    }

    #[test]
    fn missed_reads_arrive_late_are_estimated_or_both_and_never_before_their_time() {
        let comms = made(Pattern::Degraded);
        let (mut late, mut revised, mut estimated) = (0, 0, 0);
        for block in BLOCKS {
            let end = (block + 1) * BLOCK_MS;
            for meter in 0..2_000 {
                let after = |at: i64| assert!((end..=end + LONGEST_DELAY_MS - 3_600_000).contains(&at), "{at} {end}");
                match comms.fate(meter, block) {
                    Fate::OnTime | Fate::Lost(_) => {}
                    Fate::Late { at, .. } => {
                        after(at);
                        late += 1;
                    }
                    Fate::Revised { estimated, at, .. } => {
                        after(estimated);
                        after(at);
                        assert!(estimated < at);
                        revised += 1;
                    }
                    Fate::Estimated { estimated: at, .. } => {
                        after(at);
                        estimated += 1;
                    }
                }
            }
        }
        let all = f64::from(late + revised + estimated);
        for (count, share) in [(late, 0.85), (revised, 0.12), (estimated, 0.03)] {
            assert!((f64::from(count) / all - share).abs() < 0.02, "{count} of {all}");
        }
    }

    #[test]
    fn the_documented_share_reports() {
        for (pattern, share, tolerance) in
            [(Pattern::Uniform, 1.0, 0.0), (Pattern::Partial, 0.98, 0.003), (Pattern::Degraded, 0.85, 0.01)]
        {
            let comms = made(pattern);
            let reported: u64 = BLOCKS
                .map(|block| (0..10_000).filter(|meter| comms.loss(*meter, block).is_none()).count() as u64)
                .sum();
            let found = reported as f64 / (10_000.0 * 180.0);
            assert!((found - share).abs() <= tolerance, "{pattern:?}: {found}");
            // Also on a single day.
            let day: u64 = BLOCKS
                .take(6)
                .map(|block| (0..10_000).filter(|meter| comms.loss(*meter, block).is_none()).count() as u64)
                .sum();
            let found = day as f64 / 60_000.0;
            assert!((found - share).abs() <= 4.0 * tolerance, "{pattern:?} on a day: {found}");
        }
    }

    #[test]
    fn few_meters_carry_much_of_the_loss_and_collectors_fail_together() {
        let comms = made(Pattern::Partial);
        let lost = |meter: u32| BLOCKS.filter(|block| comms.loss(meter, *block).is_some()).count();
        let mut losses: Vec<usize> = (0..10_000).map(lost).collect();
        losses.sort_unstable_by(|one, other| other.cmp(one));
        let worst: usize = losses[..200].iter().sum();
        assert!(worst * 10 >= losses.iter().sum::<usize>() * 3, "the worst 2 % lost {worst}");
        let comms = made(Pattern::Degraded);
        let down = BLOCKS.filter(|block| (1_250..2_500).all(|meter| comms.loss(meter, *block).is_some())).count();
        assert!((8..18).contains(&down), "a collector was down in {down} of 180 blocks");
    }
}
