//! Civil time in a service area, from a rule in this crate: a time-zone database would change golden hashes when it
//! is updated.

use flux_schemas::time::{Date, Timestamp};

/// Version of the rules below; part of the model version.
pub const RULES_VERSION: i32 = 1;

/// A US time zone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Zone {
    /// UTC-5.
    Eastern,
    /// UTC-6.
    Central,
    /// UTC-8.
    Pacific,
}

impl Zone {
    const fn standard(self) -> i64 {
        3600 * match self {
            Self::Eastern => -5,
            Self::Central => -6,
            Self::Pacific => -8,
        }
    }

    /// Seconds to add to UTC for civil time: an hour more from the second Sunday of March 02:00 to the first Sunday of
    /// November 02:00 (Energy Policy Act of 2005, in force since 2007).
    pub fn offset_seconds(self, at: Timestamp) -> i64 {
        let standard = self.standard();
        let seconds = at.0.div_euclid(1000);
        let (starts, ends) = Self::changes(at.date().year);
        let summer = starts * 86_400 + 2 * 3600 - standard..ends * 86_400 + 2 * 3600 - (standard + 3600);
        if summer.contains(&seconds) { standard + 3600 } else { standard }
    }

    /// Civil time at `at`, seconds.
    pub fn local_seconds(self, at: Timestamp) -> i64 {
        at.0.div_euclid(1000) + self.offset_seconds(at)
    }

    /// The civil days of a year on which clocks change.
    fn changes(year: i64) -> (i64, i64) {
        (nth_sunday(year, 3, 2), nth_sunday(year, 11, 1))
    }

    /// Whether clocks change on a civil day.
    pub fn changes_on(day: i64) -> bool {
        let (starts, ends) = Self::changes(Date::from_days(day).year);
        day == starts || day == ends
    }
}

/// What kind of day a civil day is: 0 for a workday, 1 for a Saturday, 2 for a Sunday or a federal holiday on which shops
/// and plants rest (New Year, Memorial Day, Independence Day, Labor Day, Thanksgiving, Christmas).
pub fn rest_day(day: i64) -> usize {
    // 1970-01-01 was a Thursday.
    let weekday = (day + 4).rem_euclid(7);
    let date = Date::from_days(day);
    let week = (date.day - 1) / 7;
    let holiday = match (date.month, date.day) {
        (1, 1) | (7, 4) | (12, 25) => true,
        (5, last) => weekday == 1 && last > 24,
        (9, _) => weekday == 1 && week == 0,
        (11, _) => weekday == 4 && week == 3,
        _ => false,
    };
    match weekday {
        0 => 2,
        _ if holiday => 2,
        6 => 1,
        _ => 0,
    }
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
    fn days_of_rest_are_weekends_and_the_holidays_of_2026() {
        let rest = |month, day| rest_day(Date { year: 2026, month, day }.days());
        assert_eq!([rest(1, 1), rest(5, 25), rest(9, 7), rest(11, 26), rest(12, 25)], [2; 5]);
        assert_eq!([rest(2, 21), rest(2, 22), rest(2, 23)], [1, 2, 0]);
        assert_eq!([rest(5, 18), rest(9, 14), rest(11, 19)], [0; 3]);
    }

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
            assert_eq!(Zone::Central.offset_seconds(at), hours * 3600, "{text}");
        }
        let at = Timestamp::parse("2026-03-08T07:00:00Z").unwrap();
        assert_eq!([Zone::Eastern, Zone::Pacific].map(|zone| zone.offset_seconds(at) / 3600), [-4, -8]);
    }
}
