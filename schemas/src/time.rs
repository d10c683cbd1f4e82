//! Timestamps and the proleptic Gregorian calendar, without a clock and without a time-zone database.

use std::fmt;

/// Milliseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

/// A calendar day: (year, month 1..=12, day 1..=31).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    /// Year, astronomical numbering.
    pub year: i64,
    /// Month, 1 to 12.
    pub month: u32,
    /// Day of the month, 1 to 31.
    pub day: u32,
}

impl Timestamp {
    /// From whole seconds since the Unix epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds * 1000)
    }

    /// Days since the Unix epoch, rounded towards the past.
    pub const fn days(self) -> i64 {
        self.0.div_euclid(86_400_000)
    }

    /// Hours since the Unix epoch, rounded towards the past.
    pub const fn hours(self) -> i64 {
        self.0.div_euclid(3_600_000)
    }

    /// The UTC calendar day.
    pub fn date(self) -> Date {
        Date::from_days(self.days())
    }

    /// Reads `2026-01-31T23:45:00Z`, with or without a fraction, and with a space instead of the `T`; UTC only.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('Z').unwrap_or(text);
        let (date, clock) = text.split_once(['T', ' '])?;
        let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
        let mut parts = whole.splitn(3, ':').map(|part| part.parse::<i64>().ok());
        let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next().unwrap_or(Some(0))?);
        if !(0..24).contains(&hour) || !(0..60).contains(&minute) || !(0..60).contains(&second) {
            return None;
        }
        let mut millis = 0;
        for (digit, weight) in fraction.bytes().zip([100, 10, 1]) {
            millis += i64::from(digit.checked_sub(b'0').filter(|digit| *digit < 10)?) * weight;
        }
        let seconds = Date::parse(date)?.days() * 86_400 + hour * 3600 + minute * 60 + second;
        Some(Self(seconds * 1000 + millis))
    }

    /// Appends `2026-01-31T23:45:00.000Z`.
    pub fn write_iso(self, out: &mut Vec<u8>) {
        let date = self.date();
        let millis = self.0.rem_euclid(86_400_000);
        write_digits(out, date.year, 4);
        out.push(b'-');
        write_digits(out, i64::from(date.month), 2);
        out.push(b'-');
        write_digits(out, i64::from(date.day), 2);
        out.push(b'T');
        write_digits(out, millis / 3_600_000, 2);
        out.push(b':');
        write_digits(out, millis / 60_000 % 60, 2);
        out.push(b':');
        write_digits(out, millis / 1000 % 60, 2);
        out.push(b'.');
        write_digits(out, millis % 1000, 3);
        out.push(b'Z');
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = Vec::with_capacity(24);
        self.write_iso(&mut out);
        formatter.write_str(&String::from_utf8_lossy(&out))
    }
}

fn write_digits(out: &mut Vec<u8>, mut value: i64, width: usize) {
    let start = out.len();
    out.resize(start + width, b'0');
    for slot in out[start..].iter_mut().rev() {
        *slot = b'0' + value.rem_euclid(10) as u8;
        value /= 10;
    }
}

impl Date {
    /// The day that lies `days` after 1970-01-01. Algorithm: Howard Hinnant, "chrono-compatible low-level date algorithms".
    pub fn from_days(days: i64) -> Self {
        let shifted = days + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let shifted_month = (5 * day_of_year + 2) / 153;
        let day = (day_of_year - (153 * shifted_month + 2) / 5 + 1) as u32;
        let month = (if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 }) as u32;
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year, month, day }
    }

    /// Days since 1970-01-01; the inverse of [`Date::from_days`].
    pub fn days(self) -> i64 {
        let year = self.year - i64::from(self.month <= 2);
        let era = year.div_euclid(400);
        let year_of_era = year.rem_euclid(400);
        let shifted_month = i64::from((self.month + 9) % 12);
        let day_of_year = (153 * shifted_month + 2) / 5 + i64::from(self.day) - 1;
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
    }

    /// Reads `2026-01-31`; `None` for anything that is not a day of the calendar.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let date = Self {
            year: parts.next()?.parse().ok()?,
            month: parts.next()?.parse().ok()?,
            day: parts.next()?.parse().ok()?,
        };
        (Self::from_days(date.days()) == date).then_some(date)
    }
}

impl fmt::Display for Date {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_day_of_eight_centuries_survives_the_round_trip() {
        for days in -146_097..146_097 {
            assert_eq!(Date::from_days(days).days(), days);
        }
        assert_eq!(Date::from_days(20_513).to_string(), "2026-03-01");
    }

    #[test]
    fn timestamps_print_and_parse_back() {
        let stamp = Timestamp(1_772_323_200_123);
        assert_eq!(stamp.to_string(), "2026-03-01T00:00:00.123Z");
        assert_eq!(Timestamp::parse(&stamp.to_string()), Some(stamp));
        assert_eq!(Timestamp::parse("2026-02-30T00:00:00Z"), None);
        assert_eq!(Timestamp::parse("2026-02-28T25:00:00Z"), None);
    }
}
