//! The named back-fills: their row counts are a promise.

use crate::fleet::Shape;

/// No given number of nodes.
const FREE: Shape = Shape { transformers: 0, circuits: 0, substations: 0 };
/// The nodes of a utility of 596,906 meters.
const UTILITY: Shape = Shape { transformers: 91_554, circuits: 8_842, substations: 275 };

/// A named back-fill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// Name on the command line.
    pub name: &'static str,
    /// Meters.
    pub meters: u32,
    /// Days of 96 intervals.
    pub days: u32,
    /// Nodes above the meters, where they are given.
    pub shape: Shape,
    /// Readings under UNIFORM or STAGGERED: meters x days x 96.
    pub readings: u64,
}

/// All presets, smallest first.
pub const PRESETS: [Preset; 5] = [
    Preset { name: "quick-demo", meters: 100, days: 7, shape: FREE, readings: 67_200 },
    Preset { name: "se-demo", meters: 1_000, days: 90, shape: FREE, readings: 8_640_000 },
    Preset { name: "utility-day", meters: 596_906, days: 1, shape: UTILITY, readings: 57_302_976 },
    Preset { name: "enterprise", meters: 10_000, days: 90, shape: FREE, readings: 86_400_000 },
    Preset { name: "ml-training", meters: 10_000, days: 365, shape: FREE, readings: 350_400_000 },
];

impl Preset {
    /// The preset with this name.
    ///
    /// # Errors
    /// A sentence that lists the names there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        PRESETS.into_iter().find(|preset| preset.name == name).ok_or_else(|| {
            let names: Vec<_> = PRESETS.iter().map(|preset| preset.name).collect();
            format!("unknown preset {name:?}; one of {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_counts_are_exact() {
        for preset in PRESETS {
            assert_eq!(u64::from(preset.meters) * u64::from(preset.days) * 96, preset.readings, "{}", preset.name);
        }
    }
}
