//! The narrow reading, typed: what the generator makes and the hot path encodes.

use crate::{row::Cell, time::Timestamp};

/// Energy in units of 0.0001 kWh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Energy(pub i64);

/// Voltage in units of 0.1 V.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Voltage(pub i32);

impl Energy {
    /// kWh as the nearest double: what every destination stores.
    pub fn kwh(self) -> f64 {
        self.0 as f64 / 10_000.0
    }
}

impl Voltage {
    /// Volts as the nearest double.
    pub fn volts(self) -> f64 {
        f64::from(self.0) / 10.0
    }
}

/// Declares an enumeration whose symbols and order are those of the Avro schema.
macro_rules! symbols {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $symbol:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $name { $($(#[$variant_doc])* $variant),+ }

        impl $name {
            /// All values, in schema order.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The symbol that every wire and store carries.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $symbol),+ }
            }

            /// The value with this symbol.
            pub fn parse(symbol: &str) -> Option<Self> {
                match symbol { $($symbol => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

symbols! {
    /// Rate class of the customer behind a meter.
    Segment {
        /// Homes.
        Residential = "RESIDENTIAL",
        /// Shops, offices, schools.
        Commercial = "COMMERCIAL",
        /// Plants.
        Industrial = "INDUSTRIAL",
    }
}

symbols! {
    /// How a value came to be.
    Quality {
        /// Measured.
        Valid = "VALID",
        /// Filled in by validation, estimation and editing.
        Estimated = "ESTIMATED",
        /// No power for the whole interval.
        Outage = "OUTAGE",
    }
}

/// One interval of one meter: the eleven columns, in schema order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading<'a> {
    /// METER_ID.
    pub meter_id: &'a str,
    /// READING_TIMESTAMP: interval start, UTC.
    pub timestamp: Timestamp,
    /// USAGE_KWH.
    pub usage: Energy,
    /// VOLTAGE.
    pub voltage: Voltage,
    /// TRANSFORMER_ID.
    pub transformer_id: &'a str,
    /// CIRCUIT_ID.
    pub circuit_id: &'a str,
    /// SUBSTATION_ID.
    pub substation_id: &'a str,
    /// CUSTOMER_SEGMENT.
    pub segment: Segment,
    /// SERVICE_AREA.
    pub service_area: &'a str,
    /// IS_OUTAGE.
    pub is_outage: bool,
    /// DATA_QUALITY.
    pub quality: Quality,
}

impl<'a> Reading<'a> {
    /// As a row.
    pub fn cells(&self) -> [Cell<'a>; 11] {
        [
            Cell::Text(self.meter_id),
            Cell::Int(self.timestamp.0),
            Cell::Int(self.usage.0),
            Cell::Int(self.voltage.0.into()),
            Cell::Text(self.transformer_id),
            Cell::Text(self.circuit_id),
            Cell::Text(self.substation_id),
            Cell::Text(self.segment.as_str()),
            Cell::Text(self.service_area),
            Cell::Boolean(self.is_outage),
            Cell::Text(self.quality.as_str()),
        ]
    }
}
