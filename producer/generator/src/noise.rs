//! Random numbers by hashing, and noise that remembers without a history.
//!
//! Every draw is a function of (stream, index). A stream belongs to one meter, circuit or region and one purpose; the
//! purposes are numbered in [`stream`] and never renumbered.

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): a bijection of 64 bits that passes BigCrush on a counter.
pub(crate) const fn mix64(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// What a stream of draws is for. Numbers are part of the model version: never renumber.
pub(crate) mod stream {
    /// Static draws of a meter, transformer or circuit.
    pub(crate) const STATIC: u64 = 1;
    /// Blocks of days away from home.
    pub(crate) const VACATION: u64 = 2;
    /// Load noise, first of four octaves.
    pub(crate) const LOAD: u64 = 3;
    /// Base load.
    pub(crate) const BASE: u64 = 7;
    /// Wander of a thermostat's phase.
    pub(crate) const HVAC: u64 = 8;
    /// Appliance runs, first of five.
    pub(crate) const APPLIANCE: u64 = 16;
    /// Batches of a plant.
    pub(crate) const BATCH: u64 = 21;
    /// Charging a car.
    pub(crate) const CHARGE: u64 = 30;
    /// Clouds over one roof.
    pub(crate) const ROOF: u64 = 31;
    /// Estimated readings.
    pub(crate) const QUALITY: u64 = 40;
    /// Whether a node fails, how, and in which order it comes back.
    pub(crate) const OUTAGE: u64 = 50;
    /// Storms.
    pub(crate) const STORM: u64 = 54;
    /// Voltage noise.
    pub(crate) const VOLTAGE: u64 = 60;
    /// Voltage that is wrong for hours or days.
    pub(crate) const ANOMALY: u64 = 62;
    /// Offset of a staggered meter in its interval, and its jitter.
    pub(crate) const STAGGER: u64 = 70;
    /// Delay in the mesh.
    pub(crate) const MESH: u64 = 71;
    /// A meter's link to its collector, and the link of a meter that is hard to reach.
    pub(crate) const LINK: u64 = 72;
    pub(crate) const HARD_LINK: u64 = 73;
    /// What becomes of a missed read.
    pub(crate) const FATE: u64 = 74;
    /// Rows that are sent twice.
    pub(crate) const DUPLICATE: u64 = 75;
    /// Weather.
    pub(crate) const WEATHER: u64 = 77;
    /// Events of a meter, of several kinds.
    pub(crate) const EVENT: u64 = 80;
    /// Static draws of the wide columns, and their noise.
    pub(crate) const WIDE: u64 = 90;
    /// Where things lie.
    pub(crate) const LOCATION: u64 = 92;
    /// Static draws of the utility model, and the daily jitter of opening hours.
    pub(crate) const UTILITY: u64 = 110;
    /// Parts of a quarter of an hour.
    pub(crate) const PARTS: u64 = 112;
}

/// One endless sequence of independent draws, addressed by index.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream(u64);

/// The family of streams of one thing (a meter, a circuit).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Key(u64);

impl Key {
    /// The key of thing `index` of a `kind` under `seed`; kinds keep meter 3 and circuit 3 apart.
    pub(crate) const fn new(seed: u64, kind: u64, index: u64) -> Self {
        Self(mix64(seed ^ mix64(index.wrapping_mul(GOLDEN_GAMMA) ^ kind.rotate_left(48))))
    }

    /// The stream for one purpose.
    pub(crate) const fn stream(self, purpose: u64) -> Stream {
        Stream(self.0 ^ purpose.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }
}

impl Stream {
    /// 64 bits.
    #[inline]
    pub(crate) const fn bits(self, index: i64) -> u64 {
        mix64(self.0.wrapping_add((index as u64).wrapping_mul(GOLDEN_GAMMA)))
    }

    /// Uniform in [0, 1), 24 bits.
    #[inline]
    pub(crate) fn uniform(self, index: i64) -> f64 {
        (self.bits(index) >> 40) as f64 * (1.0 / 16_777_216.0)
    }

    /// Unit variance, mean zero, |z| < 3.47: Irwin-Hall of the four 16-bit lanes, (sum - 2) * sqrt(3).
    #[inline]
    pub(crate) fn gaussian(self, index: i64) -> f64 {
        let bits = self.bits(index);
        let lanes = (bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48);
        const SQRT_3: f64 = 1.732_050_807_568_877_2;
        (lanes as f64 * (1.0 / 65_536.0) - 2.0 + 2.0 / 65_536.0) * SQRT_3
    }
}

/// Weights cos(pi f / 2), sin(pi f / 2) for f = 0, 1/period, ..: squared they sum to one, so an octave has variance
/// one at every phase, which linear interpolation has not.
#[derive(Debug)]
pub(crate) struct Lattice {
    weights: Vec<(f64, f64)>,
    shift: u32,
}

impl Lattice {
    /// An octave whose nodes lie `1 << shift` intervals apart.
    pub(crate) fn new(shift: u32) -> Self {
        let period = 1u32 << shift;
        let weights = (0..period)
            .map(|step| {
                let angle = std::f64::consts::FRAC_PI_2 * f64::from(step) / f64::from(period);
                (libm::cos(angle), libm::sin(angle))
            })
            .collect();
        Self { weights, shift }
    }

    /// Noise at interval `k`, its lattice moved by `phase` intervals so that meters do not turn in step.
    #[inline]
    pub(crate) fn at(&self, stream: Stream, k: i64, phase: i64) -> f64 {
        let moved = k + phase;
        let node = moved >> self.shift;
        let (near, far) = self.weights[(moved & ((1 << self.shift) - 1)) as usize];
        near * stream.gaussian(node) + far * stream.gaussian(node + 1)
    }
}

/// A keyed permutation of [0, size): four Feistel rounds on the next even number of bits, walking the cycle until the
/// value falls inside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Permutation {
    size: u64,
    half_bits: u32,
    keys: [u64; 4],
}

impl Permutation {
    pub(crate) fn new(size: u64, key: Key) -> Self {
        let bits = 64 - size.saturating_sub(1).leading_zeros();
        let stream = key.stream(stream::STATIC);
        Self { size, half_bits: bits.div_ceil(2).max(1), keys: std::array::from_fn(|round| stream.bits(round as i64)) }
    }

    /// Where `value` goes.
    pub(crate) fn apply(&self, value: u64) -> u64 {
        let mask = (1 << self.half_bits) - 1;
        let mut value = value;
        loop {
            let (mut left, mut right) = (value >> self.half_bits, value & mask);
            for key in self.keys {
                (left, right) = (right, left ^ (mix64(right ^ key) & mask));
            }
            value = left << self.half_bits | right;
            if value < self.size {
                return value;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_visits_every_value_once() {
        for size in [1, 2, 3, 10, 100, 1000, 4097] {
            let permutation = Permutation::new(size, Key::new(7, 0, 0));
            let mut seen: Vec<u64> = (0..size).map(|value| permutation.apply(value)).collect();
            seen.sort_unstable();
            assert!(seen.iter().copied().eq(0..size), "{size}");
        }
    }

    #[test]
    fn lattice_noise_has_unit_variance_and_the_stated_memory() {
        let lattice = Lattice::new(4);
        let samples = 200_000i64;
        let (mut sum, mut squares, mut lagged) = (0.0, 0.0, 0.0);
        for meter in 0..20 {
            let stream = Key::new(1, 0, meter).stream(stream::LOAD);
            for k in 0..samples / 20 {
                let value = lattice.at(stream, k, meter as i64);
                sum += value;
                squares += value * value;
                lagged += value * lattice.at(stream, k + 1, meter as i64);
            }
        }
        let count = samples as f64;
        assert!((sum / count).abs() < 0.05, "mean {}", sum / count);
        assert!((squares / count - 1.0).abs() < 0.06, "variance {}", squares / count);
        // rho(r) = (1 - r/2) cos(pi r / 2) + sin(pi r / 2) / pi, r = 1/16.
        let ratio = lagged / squares;
        assert!((ratio - 0.995).abs() < 0.02, "lag-1 {ratio}");
    }
}
