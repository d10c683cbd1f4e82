//! Meters and the tree above them: meter, transformer, circuit, substation.
//!
//! Segment shares are exact counts (70/20/10). A transformer serves one segment: eight homes, four shops or one plant;
//! a keyed permutation then mixes the transformers along the circuits.

use flux_schemas::{
    reading::Segment,
    source::{Partition, partition_of_key},
};

use crate::noise::{Key, Permutation, stream};

/// Kinds of things that have keys of their own.
pub(crate) mod kind {
    pub(crate) const METER: u64 = 0;
    pub(crate) const TRANSFORMER: u64 = 1;
    pub(crate) const CIRCUIT: u64 = 2;
    pub(crate) const SEGMENT_ORDER: u64 = 3;
    pub(crate) const TRANSFORMER_ORDER: u64 = 4;
    pub(crate) const REGION: u64 = 5;
    pub(crate) const COLLECTOR: u64 = 6;
    pub(crate) const LATERAL: u64 = 7;
    pub(crate) const SUBSTATION: u64 = 8;
}

const HOMES_PER_TRANSFORMER: u32 = 8;
const SHOPS_PER_TRANSFORMER: u32 = 4;
pub(crate) const CIRCUITS_PER_SUBSTATION: u32 = 4;
/// Neighbouring transformers behind one fuse.
pub(crate) const TRANSFORMERS_PER_LATERAL: u32 = 10;

/// Where a meter hangs: indexes, all from zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Rate class.
    pub segment: Segment,
    /// Transformer.
    pub transformer: u32,
    /// Circuit.
    pub circuit: u32,
    /// Substation.
    pub substation: u32,
    /// Transformers on the circuit before this one.
    pub position_on_circuit: u32,
}

/// The meters of a run with their places and identifiers.
#[derive(Debug)]
pub struct Fleet {
    area: &'static ServiceArea,
    places: Vec<Place>,
    transformers: u32,
    transformers_per_circuit: u32,
    /// Identifiers, each of a fixed width: meter `m` is at `m * width`.
    meter_ids: FixedText,
    transformer_ids: FixedText,
    circuit_ids: FixedText,
    substation_ids: FixedText,
}

/// A service area: its name and the three letters in its identifiers.
#[derive(Debug)]
pub struct ServiceArea {
    /// As in SERVICE_AREA.
    pub name: &'static str,
    /// As in the identifiers.
    pub code: &'static str,
}

/// The areas that this version knows.
pub const SERVICE_AREAS: [ServiceArea; 1] = [ServiceArea { name: "TEXAS_GULF_COAST", code: "TGC" }];

impl Fleet {
    /// The fleet of `meters` meters under `seed`.
    pub fn new(seed: u64, meters: u32, area: &'static ServiceArea) -> Self {
        let homes = share(meters, 7);
        let shops = share(meters, 9) - homes;
        let home_transformers = homes.div_ceil(HOMES_PER_TRANSFORMER);
        let shop_transformers = shops.div_ceil(SHOPS_PER_TRANSFORMER);
        let transformers = home_transformers + shop_transformers + (meters - homes - shops);
        let transformers_per_circuit = transformers.div_ceil(8).clamp(1, 120);
        let segment_order = Permutation::new(u64::from(meters), Key::new(seed, kind::SEGMENT_ORDER, 0));
        let transformer_order = Permutation::new(u64::from(transformers), Key::new(seed, kind::TRANSFORMER_ORDER, 0));
        let places: Vec<Place> = (0..meters)
            .map(|meter| {
                let slot = segment_order.apply(u64::from(meter)) as u32;
                let (segment, block) = if slot < homes {
                    (Segment::Residential, slot / HOMES_PER_TRANSFORMER)
                } else if slot < homes + shops {
                    (Segment::Commercial, home_transformers + (slot - homes) / SHOPS_PER_TRANSFORMER)
                } else {
                    (Segment::Industrial, home_transformers + shop_transformers + slot - homes - shops)
                };
                let transformer = transformer_order.apply(u64::from(block)) as u32;
                let circuit = transformer / transformers_per_circuit;
                Place {
                    segment,
                    transformer,
                    circuit,
                    substation: circuit / CIRCUITS_PER_SUBSTATION,
                    position_on_circuit: transformer % transformers_per_circuit,
                }
            })
            .collect();
        let circuits = transformers.div_ceil(transformers_per_circuit);
        Self {
            places,
            transformers,
            transformers_per_circuit,
            meter_ids: FixedText::numbered("MTR", area.code, 7, meters),
            transformer_ids: FixedText::numbered("XFMR", area.code, 6, transformers),
            circuit_ids: FixedText::numbered("CIRCUIT", area.code, 5, circuits),
            substation_ids: FixedText::numbered("SUB", area.code, 4, circuits.div_ceil(CIRCUITS_PER_SUBSTATION)),
            area,
        }
    }

    /// Number of meters.
    pub fn len(&self) -> u32 {
        self.places.len() as u32
    }

    /// Whether the fleet has no meters.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The service area's name.
    pub fn service_area(&self) -> &'static str {
        self.area.name
    }

    /// Where meter `meter` hangs.
    pub fn place(&self, meter: u32) -> Place {
        self.places[meter as usize]
    }

    /// METER_ID.
    pub fn meter_id(&self, meter: u32) -> &str {
        self.meter_ids.get(meter)
    }

    /// TRANSFORMER_ID.
    pub fn transformer_id(&self, transformer: u32) -> &str {
        self.transformer_ids.get(transformer)
    }

    /// CIRCUIT_ID.
    pub fn circuit_id(&self, circuit: u32) -> &str {
        self.circuit_ids.get(circuit)
    }

    /// SUBSTATION_ID.
    pub fn substation_id(&self, substation: u32) -> &str {
        self.substation_ids.get(substation)
    }

    /// The meter with this METER_ID, if the fleet has it.
    pub fn meter_of_id(&self, meter_id: &str) -> Option<u32> {
        let number: u32 = meter_id.rsplit('-').next()?.parse().ok()?;
        let meter = number.checked_sub(1).filter(|meter| *meter < self.len())?;
        (self.meter_id(meter) == meter_id).then_some(meter)
    }

    /// The Kafka partition of every meter: murmur2 of its id, as the Java client does it.
    pub fn partitions(&self, partitions: i32) -> Vec<Partition> {
        (0..self.len()).map(|meter| partition_of_key(self.meter_id(meter).as_bytes(), partitions)).collect()
    }

    /// Number of transformers; transformer `t` hangs on circuit `t / transformers_per_circuit`.
    pub(crate) fn transformers(&self) -> u32 {
        self.transformers
    }

    /// Transformers of a circuit; the last one may have fewer.
    pub(crate) fn transformers_per_circuit(&self) -> u32 {
        self.transformers_per_circuit
    }

    /// Number of circuits.
    pub(crate) fn circuits(&self) -> u32 {
        self.transformers.div_ceil(self.transformers_per_circuit)
    }

    /// Distance of a place along its circuit, 0 at the substation and 1 at the far end.
    pub(crate) fn distance(&self, place: Place) -> f64 {
        (f64::from(place.position_on_circuit) + 0.5) / f64::from(self.transformers_per_circuit)
    }
}

/// `tenths` of ten of the meters, rounded to whole meters.
fn share(meters: u32, tenths: u32) -> u32 {
    ((u64::from(meters) * u64::from(tenths) + 5) / 10) as u32
}

/// Static uniform draws of a thing, by index.
pub(crate) fn static_draw(seed: u64, kind: u64, index: u32, draw: i64) -> f64 {
    Key::new(seed, kind, u64::from(index)).stream(stream::STATIC).uniform(draw)
}

/// Many short texts of one width in one allocation.
#[derive(Debug)]
struct FixedText {
    text: String,
    width: usize,
}

impl FixedText {
    /// `<prefix>-<code>-<number>` for 1..=count.
    fn numbered(prefix: &str, code: &str, digits: usize, count: u32) -> Self {
        use std::fmt::Write;
        let width = prefix.len() + code.len() + digits + 2;
        let mut text = String::with_capacity(width * count as usize);
        for number in 1..=count {
            write!(text, "{prefix}-{code}-{number:0digits$}").expect("a String takes every write");
        }
        Self { text, width }
    }

    fn get(&self, index: u32) -> &str {
        let start = index as usize * self.width;
        &self.text[start..start + self.width]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_shares_are_exact_counts() {
        for meters in [10, 100, 1000, 10_001, 99_999] {
            let fleet = Fleet::new(3, meters, &SERVICE_AREAS[0]);
            let count = |segment| (0..meters).filter(|meter| fleet.place(*meter).segment == segment).count() as u32;
            assert_eq!(count(Segment::Residential), (meters * 7 + 5) / 10);
            assert_eq!(count(Segment::Residential) + count(Segment::Commercial), (meters * 9 + 5) / 10);
        }
    }

    #[test]
    fn every_meter_has_one_path_to_a_substation_and_a_transformer_serves_one_segment() {
        let fleet = Fleet::new(5, 5000, &SERVICE_AREAS[0]);
        let mut segments = std::collections::BTreeMap::new();
        for meter in 0..fleet.len() {
            let place = fleet.place(meter);
            assert_eq!(*segments.entry(place.transformer).or_insert(place.segment), place.segment);
            assert!(fleet.transformer_id(place.transformer).starts_with("XFMR-TGC-"));
            assert!(fleet.circuit_id(place.circuit).starts_with("CIRCUIT-TGC-"));
            assert!(fleet.substation_id(place.substation).starts_with("SUB-TGC-"));
            assert_eq!(fleet.meter_of_id(fleet.meter_id(meter)), Some(meter));
        }
        for unknown in ["MTR-TGC-0005001", "MTR-TGC-0000000", "MTR-ABC-0000001", "", "MTR-TGC-1"] {
            assert_eq!(fleet.meter_of_id(unknown), None, "{unknown}");
        }
    }
}
