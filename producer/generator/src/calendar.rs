//! Civil time in a service area, from a rule in this crate: a time-zone database would change golden hashes when it
//! is updated.

use flux_schemas::time::{Date, Timestamp};

/// Version of the rules below; part of the model version.
pub const RULES_VERSION: i32 = 1;

/// Seconds to add to UTC for US Central time: UTC-6, and UTC-5 from the second Sunday of March 02:00 to the first
/// Sunday of November 02:00 local time (Energy Policy Act of 2005, in force since 2007).
pub fn us_central_offset_seconds(at: Timestamp) -> i64 {
    const STANDARD: i64 = -6 * 3600;
    let year = at.date().year;
    let seconds = at.0.div_euclid(1000);
    let starts = nth_sunday(year, 3, 2) * 86_400 + 2 * 3600 - STANDARD;
    let ends = nth_sunday(year, 11, 1) * 86_400 + 2 * 3600 - (STANDARD + 3600);
    if (starts..ends).contains(&seconds) { STANDARD + 3600 } else { STANDARD }
}

/// Days since the epoch of the `n`-th Sunday of a month.
fn nth_sunday(year: i64, month: u32, n: i64) -> i64 {
    let first = Date { year, month, day: 1 }.days();
    // 1970-01-01 was a Thursday, so day 3 was a Sunday.
    let to_sunday = (3 - first).rem_euclid(7);
    first + to_sunday + 7 * (n - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn daylight_saving_follows_the_statute() {
        // Transitions of America/Chicago in 2026: 2026-03-08T08:00Z and 2026-11-01T07:00Z.
        for (text, hours) in [
            ("2026-03-08T07:59:59Z", -6),
            ("2026-03-08T08:00:00Z", -5),
            ("2026-11-01T06:59:59Z", -5),
            ("2026-11-01T07:00:00Z", -6),
            ("2026-01-01T00:00:00Z", -6),
            ("2024-03-10T08:00:00Z", -5),
        ] {
            let at = Timestamp::parse(text).unwrap();
            assert_eq!(us_central_offset_seconds(at), hours * 3600, "{text}");
        }
    }
}
