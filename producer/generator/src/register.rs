//! The cumulative register of each meter.
//!
//! A sum has no short cut: whoever wants a register adds up the readings from the run's start, once for all meters of
//! interest, and keeps what each had at midnight, so that an older value costs a day and not a year.

use flux_schemas::reading::Segment;

use crate::{
    fleet::kind,
    model::Contexts,
    noise::{Key, stream},
    run::Run,
};

/// Registers of homes have five digits.
const ROLLOVER: i64 = 100_000 * 10_000;

/// The registers of some meters, in units of 0.0001 kWh.
#[derive(Debug)]
pub struct Registers {
    meters: Vec<u32>,
    /// Position in `meters` by meter.
    slots: Vec<u32>,
    /// First interval that is not in the sums.
    next: i64,
    sums: Vec<i64>,
    /// Sums at the first interval of each UTC day since the run's start.
    midnights: Vec<Vec<i64>>,
}

impl Registers {
    /// Of `meters`, at the run's start.
    pub fn new(run: &Run, meters: Vec<u32>) -> Self {
        let mut slots = vec![u32::MAX; run.fleet().len() as usize];
        for (slot, meter) in meters.iter().enumerate() {
            slots[*meter as usize] = slot as u32;
        }
        let sums = vec![0; meters.len()];
        Self { meters, slots, next: run.first_interval(), sums, midnights: Vec::new() }
    }

    /// The register of `meter` at the end of interval `k`.
    pub fn at_end(&mut self, run: &Run, meter: u32, k: i64, contexts: &mut Contexts) -> i64 {
        while self.next <= k {
            self.advance(run, contexts);
        }
        let slot = self.slots[meter as usize] as usize;
        let mut sum = self.sums[slot];
        if k + 1 < self.next {
            let first = run.first_interval();
            let day = self.day(run, k) - self.day(run, first);
            let midnight = self.midnights[day as usize][slot];
            let from = self.first_of_day(run, self.day(run, k)).max(first);
            sum = midnight + (from..=k).map(|k| usage(run, meter, k, contexts)).sum::<i64>();
        }
        let draws = Key::new(run.seed(), kind::METER, u64::from(meter)).stream(stream::WIDE);
        let register = (1_000.0 + 80_000.0 * draws.uniform(-3)) as i64 * 10_000 + sum;
        match run.fleet().place(meter).segment {
            Segment::Residential => register % ROLLOVER,
            _ => register,
        }
    }

    fn advance(&mut self, run: &Run, contexts: &mut Contexts) {
        let k = self.next;
        if self.midnights.is_empty() || self.first_of_day(run, self.day(run, k)) == k {
            self.midnights.push(self.sums.clone());
        }
        let context = contexts.get(run.model(), k);
        for (meter, sum) in self.meters.iter().zip(&mut self.sums) {
            *sum += run.model().values(*meter, context).usage.0;
        }
        self.next = k + 1;
    }

    fn day(&self, run: &Run, k: i64) -> i64 {
        (k * run.interval_ms()).div_euclid(86_400_000)
    }

    fn first_of_day(&self, run: &Run, day: i64) -> i64 {
        (day * 86_400_000).div_euclid(run.interval_ms())
    }
}

fn usage(run: &Run, meter: u32, k: i64, contexts: &mut Contexts) -> i64 {
    run.model().values(meter, contexts.get(run.model(), k)).usage.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{emission::Pattern, run::tests::run};

    #[test]
    fn a_register_grows_by_the_readings_and_is_the_same_in_any_order() {
        let run = run(20, 5, Pattern::Uniform, 4, 1);
        let all = || Registers::new(&run, (0..20).collect());
        let (mut forward, mut backward) = (all(), all());
        let mut contexts = Contexts::default();
        let (first, end) = (run.first_interval(), run.end_interval().unwrap());
        backward.at_end(&run, 0, end - 1, &mut contexts);
        for meter in 0..20 {
            let mut before = None;
            for k in first..end {
                let register = forward.at_end(&run, meter, k, &mut contexts);
                let used = usage(&run, meter, k, &mut contexts);
                if let Some(before) = before {
                    assert_eq!((register - before + ROLLOVER) % ROLLOVER, used % ROLLOVER);
                }
                if k % 37 == 0 {
                    assert_eq!(backward.at_end(&run, meter, k, &mut contexts), register);
                }
                before = Some(register);
            }
        }
    }
}
