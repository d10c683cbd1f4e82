//! The service areas: where they lie, who lives there, and their weather.
//!
//! Climate: NOAA U.S. Climate Normals 1991-2020, monthly means of the daily maximum and minimum, degrees Celsius, of the
//! station named with each area; all but Houston's were not checked to the tenth. Segment mixes and centres are those of the systems that this project replaces. The share
//! of homes heated by electricity follows the census regions of EIA's Residential Energy Consumption Survey 2020.

use crate::calendar::Zone;

/// A service area.
#[derive(Debug)]
pub struct ServiceArea {
    /// As in SERVICE_AREA.
    pub name: &'static str,
    /// As in the identifiers.
    pub code: &'static str,
    /// Civil time.
    pub zone: Zone,
    /// Its centre, degrees.
    pub latitude: f64,
    /// Its centre, degrees.
    pub longitude: f64,
    /// Percent of the meters: homes, shops, plants.
    pub segments: [u32; 3],
    /// Share of homes that heat with electricity.
    pub electric_heating: f64,
    /// Monthly mean daily maximum.
    pub maximum: [f64; 12],
    /// Monthly mean daily minimum.
    pub minimum: [f64; 12],
}

/// All areas; the first is the default.
pub const SERVICE_AREAS: [ServiceArea; 6] = [
    // Houston Intercontinental.
    ServiceArea {
        name: "TEXAS_GULF_COAST",
        code: "TGC",
        zone: Zone::Central,
        latitude: 29.7604,
        longitude: -95.3698,
        segments: [70, 20, 10],
        electric_heating: 0.55,
        maximum: [17.7, 19.9, 23.3, 26.7, 30.5, 33.5, 34.7, 34.9, 32.4, 28.2, 22.6, 18.5],
        minimum: [6.5, 8.7, 12.0, 15.4, 19.9, 23.2, 24.3, 24.1, 21.4, 16.1, 10.8, 7.6],
    },
    // Los Angeles Downtown.
    ServiceArea {
        name: "CALIFORNIA_COASTAL",
        code: "CAC",
        zone: Zone::Pacific,
        latitude: 34.0522,
        longitude: -118.2437,
        segments: [65, 28, 7],
        electric_heating: 0.25,
        maximum: [20.0, 20.0, 21.0, 22.5, 23.0, 25.0, 28.0, 29.0, 28.5, 26.0, 23.0, 19.5],
        minimum: [9.5, 10.0, 11.5, 13.0, 15.0, 17.0, 18.5, 19.0, 18.0, 15.5, 12.0, 9.5],
    },
    // New York Central Park.
    ServiceArea {
        name: "NORTHEAST_CORRIDOR",
        code: "NEC",
        zone: Zone::Eastern,
        latitude: 40.7128,
        longitude: -74.0060,
        segments: [55, 38, 7],
        electric_heating: 0.15,
        maximum: [4.2, 5.7, 9.9, 16.6, 21.9, 26.5, 29.4, 28.5, 24.6, 18.1, 12.2, 6.8],
        minimum: [-2.3, -1.4, 2.1, 7.5, 12.8, 18.0, 21.2, 20.5, 16.8, 10.8, 5.6, 1.0],
    },
    // Chicago O'Hare.
    ServiceArea {
        name: "MIDWEST_GREAT_LAKES",
        code: "MGL",
        zone: Zone::Central,
        latitude: 41.8781,
        longitude: -87.6298,
        segments: [60, 30, 10],
        electric_heating: 0.15,
        maximum: [-0.2, 2.1, 8.3, 15.0, 21.4, 26.9, 29.2, 28.1, 24.2, 17.1, 9.1, 2.6],
        minimum: [-7.3, -5.7, -0.6, 4.6, 10.3, 16.0, 19.1, 18.4, 14.1, 7.3, 0.9, -4.2],
    },
    // Atlanta Hartsfield.
    ServiceArea {
        name: "SOUTHEAST_SUNBELT",
        code: "SES",
        zone: Zone::Eastern,
        latitude: 33.7490,
        longitude: -84.3880,
        segments: [68, 24, 8],
        electric_heating: 0.55,
        maximum: [12.2, 14.6, 18.8, 23.2, 27.3, 30.6, 32.3, 31.7, 28.8, 23.6, 17.8, 13.4],
        minimum: [2.0, 3.8, 7.4, 11.4, 16.3, 20.4, 22.1, 21.8, 18.8, 12.7, 6.9, 3.7],
    },
    // Seattle-Tacoma.
    ServiceArea {
        name: "PACIFIC_NORTHWEST",
        code: "PNW",
        zone: Zone::Pacific,
        latitude: 47.6062,
        longitude: -122.3321,
        segments: [62, 28, 10],
        electric_heating: 0.50,
        maximum: [8.9, 10.2, 12.3, 15.2, 19.1, 21.7, 25.2, 25.3, 22.0, 15.8, 11.2, 8.3],
        minimum: [3.2, 3.2, 4.4, 6.4, 9.8, 12.4, 14.7, 14.8, 12.3, 8.6, 5.3, 3.1],
    },
];

impl ServiceArea {
    /// The area with this name.
    ///
    /// # Errors
    /// The names there are.
    pub fn parse(name: &str) -> Result<&'static Self, String> {
        SERVICE_AREAS.iter().find(|area| area.name == name).ok_or_else(|| {
            let names: Vec<_> = SERVICE_AREAS.iter().map(|area| area.name).collect();
            format!("use one of {}", names.join(", "))
        })
    }
}

/// Percent of homes, shops and plants, as `70/20/10`.
///
/// # Errors
/// What is wrong with them.
pub fn parse_segments(text: &str) -> Result<[u32; 3], String> {
    let parts: Vec<u32> = text.split('/').map_while(|part| part.trim().parse().ok()).collect();
    let rule = "use three whole percentages that add up to 100: homes/shops/plants, such as 70/20/10";
    let segments: [u32; 3] =
        parts.try_into().ok().filter(|_| text.split('/').count() == 3).ok_or_else(|| rule.to_string())?;
    let sum: u64 = segments.iter().map(|percent| u64::from(*percent)).sum();
    if sum == 100 { Ok(segments) } else { Err(format!("they add up to {sum}; {rule}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_or_are_refused() {
        assert!(SERVICE_AREAS.iter().all(|area| area.segments.iter().sum::<u32>() == 100));
        assert_eq!(parse_segments("60/30/10"), Ok([60, 30, 10]));
        assert!(parse_segments("60/30/20").unwrap_err().contains("add up to 110"));
        for wrong in ["", "100", "60/40", "60/30/10/0", "a/b/c", "60/30/x"] {
            assert!(parse_segments(wrong).is_err(), "{wrong}");
        }
        assert!(ServiceArea::parse("HOUSTON").unwrap_err().contains("TEXAS_GULF_COAST, CALIFORNIA_COASTAL"));
    }

    #[test]
    fn codes_and_names_tell_areas_apart() {
        let mut codes: Vec<_> = SERVICE_AREAS.iter().flat_map(|area| [area.name, area.code]).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), 12);
    }
}
