//! Temperature of the service area: monthly normals, a daily wave and weather systems that last for days.

use flux_schemas::time::{Date, Timestamp};

use crate::{
    area::ServiceArea,
    fleet::kind,
    noise::{Key, Lattice, Stream, stream},
};

/// Weather on the 15-minute lattice, whatever the interval of the run.
#[derive(Debug)]
pub(crate) struct Weather {
    area: &'static ServiceArea,
    /// A heat wave or a cold spell, degrees.
    warmer: f64,
    days: Stream,
    fronts: Stream,
    gusts: Stream,
    clouds: Stream,
    octave_4: Lattice,
    octave_16: Lattice,
    octave_64: Lattice,
    octave_128: Lattice,
    octave_256: Lattice,
}

impl Weather {
    pub(crate) fn new(seed: u64, area: &'static ServiceArea, warmer: f64) -> Self {
        let key = Key::new(seed, kind::REGION, 0);
        Self {
            area,
            warmer,
            days: key.stream(stream::WEATHER),
            fronts: key.stream(stream::WEATHER + 1),
            gusts: key.stream(stream::WEATHER + 2),
            clouds: key.stream(stream::WEATHER + 3),
            octave_4: Lattice::new(2),
            octave_16: Lattice::new(4),
            octave_64: Lattice::new(6),
            octave_128: Lattice::new(7),
            octave_256: Lattice::new(8),
        }
    }

    /// Degrees Celsius at `at`.
    pub(crate) fn temperature(&self, at: Timestamp) -> f64 {
        let local_seconds = self.area.zone.local_seconds(at);
        let quarter = at.0.div_euclid(900_000);
        let (maximum, minimum, summer) = self.normals(local_seconds.div_euclid(86_400));
        let (middle, amplitude) = ((maximum + minimum) / 2.0, (maximum - minimum) / 2.0);
        let hour = local_seconds.rem_euclid(86_400) as f64 / 3600.0;
        let daily = libm::cos(2.0 * std::f64::consts::PI * (hour - 15.0) / 24.0);
        let swing = amplitude * (1.0 + 0.25 * self.octave_128.at(self.days, quarter, 0)) * daily;
        // Fronts move the temperature by 1.4 degrees in summer and 5.6 in winter.
        let front_size = 5.6 - 4.2 * summer;
        let front =
            0.8 * self.octave_256.at(self.fronts, quarter, 0) + 0.6 * self.octave_128.at(self.fronts, quarter, 31);
        middle + self.warmer + swing + front_size * front + 0.4 * self.octave_4.at(self.gusts, quarter, 0)
    }
}

impl Weather {
    /// The sun on a flat roof and the clouds before it, each 0 to 1.
    pub(crate) fn sky(&self, at: Timestamp) -> (f64, f64) {
        use std::f64::consts::PI;
        let day = at.days() - Date { year: at.date().year, month: 1, day: 1 }.days();
        let declination = 23.45 / 180.0 * PI * libm::sin(2.0 * PI * (285 + day) as f64 / 365.0);
        let latitude = self.area.latitude / 180.0 * PI;
        let solar_hour = at.0.rem_euclid(86_400_000) as f64 / 3_600_000.0 + self.area.longitude / 15.0;
        let hour_angle = (solar_hour - 12.0) / 12.0 * PI;
        let height = libm::sin(latitude) * libm::sin(declination)
            + libm::cos(latitude) * libm::cos(declination) * libm::cos(hour_angle);
        let sun = libm::pow(height.max(0.0), 1.15);
        let quarter = at.0.div_euclid(900_000);
        let systems = self.octave_64.at(self.clouds, quarter, 0) + self.octave_16.at(self.clouds, quarter, 1 << 20);
        (sun, (0.5 + 0.45 * 0.7 * systems).clamp(0.0, 1.0))
    }
}

impl Weather {
    /// Normals of a civil day, interpolated between the middles of the months, and how much of summer it is (0 to 1).
    fn normals(&self, day: i64) -> (f64, f64, f64) {
        let ServiceArea { maximum: maxima, minimum: minima, .. } = self.area;
        let date = Date::from_days(day);
        let this = (date.month - 1) as usize;
        let fraction = (f64::from(date.day) - 15.0) / 30.0;
        let other = if fraction < 0.0 { (this + 11) % 12 } else { (this + 1) % 12 };
        let weight = if fraction < 0.0 { -fraction } else { fraction };
        let blend = |table: &[f64; 12]| table[this] * (1.0 - weight) + table[other] * weight;
        let (maximum, minimum) = (blend(maxima), blend(minima));
        let means = maxima.iter().zip(minima).map(|(maximum, minimum)| (maximum + minimum) / 2.0);
        let (coldest, hottest) = means.fold((f64::MAX, f64::MIN), |(low, high), mean| (low.min(mean), high.max(mean)));
        let summer = (((maximum + minimum) / 2.0 - coldest) / (hottest - coldest)).clamp(0.0, 1.0);
        (maximum, minimum, summer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::area::SERVICE_AREAS;

    #[test]
    fn monthly_means_stay_near_the_normals() {
        for (area, month, normal) in [(0, 1, 12.1), (0, 8, 29.5), (3, 1, -3.7), (5, 7, 20.0)] {
            let weather = Weather::new(11, &SERVICE_AREAS[area], 0.0);
            let first = Date { year: 2025, month, day: 1 }.days();
            let hours = 30 * 24;
            let sum: f64 =
                (0..hours).map(|hour| weather.temperature(Timestamp::from_seconds(first * 86_400 + hour * 3600))).sum();
            let mean = sum / hours as f64;
            assert!((mean - normal).abs() < 4.0, "month {month}: {mean}");
        }
    }
}
