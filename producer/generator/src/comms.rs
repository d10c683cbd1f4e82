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
//! The layers are independent, and the last one is chosen so that exactly the documented share reports.

use crate::{
    emission::Pattern,
    fleet::kind,
    noise::{Key, Stream, stream},
};

/// 2^64 over the golden ratio.
const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
/// Length of a block, ms.
const BLOCK_MS: i64 = 4 * 3_600_000;
/// Meters behind one collector, where the fleet is large enough to have [`COLLECTORS`] of them.
const METERS_PER_COLLECTOR: u32 = 1_500;
/// A small fleet has this many collectors, so that one of them is not the whole fleet.
const COLLECTORS: u32 = 8;

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
}

impl Comms {
    pub(crate) fn new(seed: u64, meters: u32, interval_ms: i64, pattern: Pattern) -> Self {
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
        }
    }

    /// Whether nothing is ever lost.
    pub(crate) fn is_lossless(&self) -> bool {
        self.losses.is_none()
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
        let losses = self.losses?;
        let collector = meter / self.meters_per_collector;
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

    #[test]
    fn the_documented_share_reports() {
        for (pattern, share, tolerance) in
            [(Pattern::Uniform, 1.0, 0.0), (Pattern::Partial, 0.98, 0.003), (Pattern::Degraded, 0.85, 0.01)]
        {
            let comms = Comms::new(7, 10_000, 900_000, pattern);
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
        let comms = Comms::new(7, 10_000, 900_000, Pattern::Partial);
        let lost = |meter: u32| BLOCKS.filter(|block| comms.loss(meter, *block).is_some()).count();
        let mut losses: Vec<usize> = (0..10_000).map(lost).collect();
        losses.sort_unstable_by(|one, other| other.cmp(one));
        let worst: usize = losses[..200].iter().sum();
        assert!(worst * 10 >= losses.iter().sum::<usize>() * 3, "the worst 2 % lost {worst}");
        let comms = Comms::new(7, 10_000, 900_000, Pattern::Degraded);
        let down = BLOCKS.filter(|block| (1_250..2_500).all(|meter| comms.loss(meter, *block).is_some())).count();
        assert!((8..18).contains(&down), "a collector was down in {down} of 180 blocks");
    }
}
