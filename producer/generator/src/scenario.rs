//! Scenarios: what befalls the grid in a run, beyond the ordinary.
//!
//! A scenario is a TOML file; the parts that change values stand in the run's spec, so that whoever recomputes the run
//! has them.
//!
//! **The rule of a cascade.** The first asset fails and stays out until it is repaired. Its load moves to its siblings
//! (transformers of a lateral, laterals of a circuit, circuits of a substation, all substations), equally. A sibling
//! whose load then exceeds its capacity trips five to fifteen minutes later; its own load moves on. When all siblings
//! are out, their parent is, and the same goes on one level higher. A node's load is that of its feeder: daily shape and
//! temperature, 0 to 1.

use serde::{Deserialize, Serialize};

/// A scenario file. It repeats the fields of [`Happenings`], as a flattened part would let unknown fields pass.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it shows, for people.
    #[serde(default)]
    pub description: String,
    /// Emission pattern, unless the command line says otherwise.
    #[serde(default)]
    pub pattern: Option<String>,
    /// Whether missed reads are delivered later.
    #[serde(default)]
    pub backfill: Option<bool>,
    /// `off` or `realistic`.
    #[serde(default)]
    pub duplicates: Option<String>,
    /// `inline` or `after_restore`.
    #[serde(default)]
    pub outage_rows: Option<String>,
    /// Share of the readings outside 114 to 126 V, 0 to 0.02.
    #[serde(default)]
    pub voltage_anomaly_rate: Option<f64>,
    /// See [`Happenings::temperature_offset`].
    #[serde(default)]
    pub temperature_offset: f64,
    /// Storms.
    #[serde(default)]
    pub storm: Vec<Storm>,
    /// Collectors that are down.
    #[serde(default)]
    pub comms_outage: Vec<CommsOutage>,
    /// Failures that spread.
    #[serde(default)]
    pub cascade: Vec<Cascade>,
}

impl Scenario {
    /// The parts that stand in the run's spec.
    pub fn happenings(&self) -> Happenings {
        Happenings {
            temperature_offset: self.temperature_offset,
            storm: self.storm.clone(),
            comms_outage: self.comms_outage.clone(),
            cascade: self.cascade.clone(),
        }
    }
}

/// The parts of a scenario that stand in the run's spec.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Happenings {
    /// Warmer than the normals by so many degrees Celsius, all the time; colder when negative.
    #[serde(default)]
    pub temperature_offset: f64,
    /// Storms.
    #[serde(default)]
    pub storm: Vec<Storm>,
    /// Collectors that are down.
    #[serde(default)]
    pub comms_outage: Vec<CommsOutage>,
    /// Failures that spread.
    #[serde(default)]
    pub cascade: Vec<Cascade>,
}

/// A storm: circuits fail over some hours and come back exponentially.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storm {
    /// After the run's start, such as `2d18h`.
    pub start: String,
    /// Share of the circuits that it hits, 0 to 1; those of one substation fare alike.
    pub fraction: f64,
    /// Mean time to restore a transformer, hours: after t the share exp(-t / restoration_hours) is still out.
    pub restoration_hours: f64,
    /// Hours over which circuits fail.
    #[serde(default = "four")]
    pub spread_hours: f64,
    /// Longest outage, days.
    #[serde(default = "ten")]
    pub longest_days: f64,
    /// Only these substations; all when empty.
    #[serde(default)]
    pub substations: Vec<String>,
}

/// Collectors that are down for a while.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommsOutage {
    /// After the run's start, such as `1d6h`.
    pub start: String,
    /// How long, such as `12h`.
    pub duration: String,
    /// Share of the collectors, 0 to 1.
    pub collectors: f64,
}

/// A failure that spreads from one asset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cascade {
    /// After the run's start, such as `1d15h`.
    pub start: String,
    /// The asset that fails first: a transformer, circuit or substation.
    pub asset: String,
    /// Time to repair each failed asset, hours.
    #[serde(default = "four")]
    pub repair_hours: f64,
    /// Load at which a node trips, as a multiple of the largest feeder load.
    #[serde(default = "one")]
    pub capacity: f64,
}

fn one() -> f64 {
    1.0
}

fn four() -> f64 {
    4.0
}

fn ten() -> f64 {
    10.0
}

/// What is wrong with a scenario: field, value, rule.
pub type Wrong = (String, String, String);

/// Seconds of a time such as `2d18h30m`.
pub fn seconds(text: &str) -> Option<i64> {
    let mut total = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).filter(|digits| *digits > 0)?;
        let value: i64 = rest[..digits].parse().ok()?;
        let unit = match rest.as_bytes().get(digits)? {
            b'd' => 86_400,
            b'h' => 3600,
            b'm' => 60,
            _ => return None,
        };
        total += value.checked_mul(unit).filter(|seconds| *seconds <= 3660 * 86_400)?;
        rest = &rest[digits + 1..];
    }
    (!text.is_empty()).then_some(total)
}

impl Happenings {
    /// Whether nothing happens.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Every rule that needs no fleet.
    ///
    /// # Errors
    /// The first field that breaks one.
    pub fn check(&self) -> Result<(), Wrong> {
        let range = |field: String, value: f64, low: f64, high: f64| {
            let inside = (low..=high).contains(&value);
            if inside { Ok(()) } else { Err((field, value.to_string(), format!("use {low} to {high}"))) }
        };
        let time = |field: String, text: &str| match seconds(text) {
            Some(_) => Ok(()),
            None => Err((
                field,
                text.to_string(),
                "use days, hours and minutes after the run's start, such as 2d18h".into(),
            )),
        };
        range("temperature_offset".into(), self.temperature_offset, -25.0, 25.0)?;
        for (index, storm) in self.storm.iter().enumerate() {
            let field = |name: &str| format!("storm[{index}].{name}");
            time(field("start"), &storm.start)?;
            range(field("fraction"), storm.fraction, 0.0, 1.0)?;
            range(field("restoration_hours"), storm.restoration_hours, 0.1, 500.0)?;
            range(field("spread_hours"), storm.spread_hours, 0.0, 48.0)?;
            range(field("longest_days"), storm.longest_days, 0.01, 27.0)?;
        }
        for (index, outage) in self.comms_outage.iter().enumerate() {
            let field = |name: &str| format!("comms_outage[{index}].{name}");
            time(field("start"), &outage.start)?;
            time(field("duration"), &outage.duration)?;
            range(field("collectors"), outage.collectors, 0.0, 1.0)?;
        }
        for (index, cascade) in self.cascade.iter().enumerate() {
            let field = |name: &str| format!("cascade[{index}].{name}");
            time(field("start"), &cascade.start)?;
            range(field("repair_hours"), cascade.repair_hours, 0.1, 500.0)?;
            range(field("capacity"), cascade.capacity, 0.1, 10.0)?;
        }
        Ok(())
    }

    /// As it stands in a spec; empty when nothing happens.
    pub fn to_spec(&self) -> String {
        if self.is_empty() { String::new() } else { serde_json::to_string(self).expect("a scenario is JSON") }
    }

    /// From a spec.
    ///
    /// # Errors
    /// A sentence, when it is none.
    pub fn from_spec(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_days_hours_and_minutes() {
        assert_eq!(seconds("2d18h30m"), Some(2 * 86_400 + 18 * 3600 + 1800));
        assert_eq!(seconds("90m"), Some(5400));
        for wrong in ["", "2", "d", "2x", "-1d", "99999999999999999999d", "1d 2h", "2é"] {
            assert_eq!(seconds(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_wrong_field_is_named_and_a_scenario_survives_the_spec() {
        let storm = Storm {
            start: "1d".into(),
            fraction: 0.3,
            restoration_hours: 40.0,
            spread_hours: 6.0,
            longest_days: 10.0,
            substations: vec![],
        };
        let good = Happenings { storm: vec![storm.clone()], ..Happenings::default() };
        assert_eq!(good.check(), Ok(()));
        assert_eq!(Happenings::from_spec(&good.to_spec()), Ok(good.clone()));
        assert_eq!(Happenings::default().to_spec(), "");
        let wrong = Happenings { storm: vec![Storm { fraction: 1.5, ..storm }], ..good };
        assert_eq!(wrong.check().unwrap_err().0, "storm[0].fraction");
    }
}
