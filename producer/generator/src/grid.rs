//! The things of the grid as rows: substations, circuits, transformers, collectors and meters, and where they lie.

use flux_schemas::{reading::Segment, row::Cell};

use crate::{
    assets::Location,
    fleet::{Fleet, Texts, kind},
    noise::{Key, Stream, stream},
};

/// Ratings that transformers are made in, kVA.
const RATINGS: [f64; 15] =
    [10.0, 15.0, 25.0, 37.5, 50.0, 75.0, 100.0, 167.0, 300.0, 500.0, 750.0, 1000.0, 1500.0, 2500.0, 5000.0];
/// Half the side of the box that substations lie in, degrees.
const BOX: f64 = 0.5;
/// Length of a circuit, degrees.
const CIRCUIT: f64 = 0.05;
/// How far a meter lies from its transformer, degrees: 30 to 80 m.
const SERVICE: (f64, f64) = (0.000_27, 0.000_72);

/// A kind of asset and its number among those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asset {
    /// A substation.
    Substation(u32),
    /// A circuit.
    Circuit(u32),
    /// A transformer.
    Transformer(u32),
    /// A cell relay.
    Collector(u32),
    /// A meter.
    Meter(u32),
}

/// The grid of a fleet.
#[derive(Debug)]
pub struct Grid {
    seed: u64,
    collector_ids: Texts,
    lateral_ids: Texts,
    ratings: Vec<f32>,
}

impl Grid {
    pub(crate) fn new(seed: u64, fleet: &Fleet, collectors: u32) -> Self {
        let code = fleet.area().code;
        let mut loads = vec![0.0; fleet.tree.transformers() as usize];
        for meter in 0..fleet.len() {
            let place = fleet.place(meter);
            // Peak of one among its neighbours, kVA.
            loads[place.transformer as usize] += match place.segment {
                Segment::Residential => 4.5,
                Segment::Commercial => 22.0,
                Segment::Industrial => 70.0,
            };
        }
        let rating = |(transformer, load): (usize, &f64)| {
            let known = fleet.known.as_ref().and_then(|assets| assets.transformers[transformer].rated_kva);
            let draws = Key::new(seed, kind::TRANSFORMER, transformer as u64).stream(stream::WIDE);
            let needed = load * libm::exp(0.25 * draws.gaussian(0));
            let made = RATINGS.into_iter().find(|rating| *rating >= needed);
            known.unwrap_or(made.unwrap_or(RATINGS[RATINGS.len() - 1])) as f32
        };
        Self {
            seed,
            collector_ids: Texts::numbered("COL", code, 4, collectors),
            lateral_ids: Texts::numbered("LAT", code, 6, fleet.tree.laterals()),
            ratings: loads.iter().enumerate().map(rating).collect(),
        }
    }

    /// COLLECTOR_ID.
    pub fn collector_id(&self, collector: u32) -> &str {
        self.collector_ids.get(collector)
    }

    /// Number of assets.
    pub(crate) fn len(&self, fleet: &Fleet) -> u32 {
        let tree = &fleet.tree;
        tree.substations() + tree.circuits() + tree.transformers() + self.collector_ids.len() + fleet.len()
    }

    /// Asset number `index`: from the top down, and meters last.
    pub(crate) fn asset(&self, fleet: &Fleet, index: u32) -> Asset {
        let tree = &fleet.tree;
        let mut index = index;
        for (count, make) in [
            (tree.substations(), Asset::Substation as fn(u32) -> Asset),
            (tree.circuits(), Asset::Circuit),
            (tree.transformers(), Asset::Transformer),
            (self.collector_ids.len(), Asset::Collector),
        ] {
            if index < count {
                return make(index);
            }
            index -= count;
        }
        Asset::Meter(index)
    }

    /// ASSET_ID.
    pub(crate) fn id<'a>(&'a self, fleet: &'a Fleet, asset: Asset) -> &'a str {
        match asset {
            Asset::Substation(node) => fleet.substation_id(node),
            Asset::Circuit(node) => fleet.circuit_id(node),
            Asset::Transformer(node) => fleet.transformer_id(node),
            Asset::Collector(node) => self.collector_id(node),
            Asset::Meter(meter) => fleet.meter_id(meter),
        }
    }

    /// As a row of the assets table.
    pub(crate) fn cells<'a>(
        &'a self,
        fleet: &'a Fleet,
        asset: Asset,
        valid_from: i64,
        collector: u32,
        cells: &mut Vec<Cell<'a>>,
    ) {
        let tree = &fleet.tree;
        let mut row = [Cell::Null; 13];
        row[0] = Cell::Text(self.id(fleet, asset));
        row[1] = Cell::Int(valid_from);
        row[4] = Cell::Text(fleet.area().name);
        let mut locate = |location: Option<Location>| {
            if let Some(Location { latitude, longitude }) = location {
                (row[11], row[12]) = (Cell::Int(latitude), Cell::Int(longitude));
            }
        };
        match asset {
            Asset::Substation(node) => {
                locate(self.substation(fleet, node));
                row[2] = Cell::Text("SUBSTATION");
            }
            Asset::Circuit(node) => {
                row[2] = Cell::Text("CIRCUIT");
                row[3] = Cell::Text(fleet.substation_id(tree.substation_of(node)));
                row[8] = Cell::Text("ABC");
            }
            Asset::Transformer(node) => {
                let circuit = tree.circuit_of(node);
                locate(self.transformer(fleet, node, circuit));
                row[2] = Cell::Text("TRANSFORMER");
                row[3] = Cell::Text(fleet.circuit_id(circuit));
                row[6] = Cell::Text(self.lateral_ids.get(tree.lateral_of(node)));
                row[7] = Cell::Int((fleet.distance(node, circuit) * 1000.0).round() as i64);
                row[8] = Cell::Text(self.phase(node));
                row[9] = Cell::Int((f64::from(self.ratings[node as usize]) * 10.0).round() as i64);
            }
            Asset::Collector(_) => row[2] = Cell::Text("COLLECTOR"),
            Asset::Meter(meter) => {
                let place = fleet.place(meter);
                locate(self.meter(fleet, meter));
                row[2] = Cell::Text("METER");
                row[3] = Cell::Text(fleet.transformer_id(place.transformer));
                row[5] = Cell::Text(place.segment.as_str());
                row[8] = Cell::Text(self.phase_of_meter(place.segment, place.transformer));
                row[10] = Cell::Text(self.collector_id(collector));
            }
        }
        cells.clear();
        cells.extend(row);
    }

    fn draws(&self, kind: u64, index: u32) -> Stream {
        Key::new(self.seed, kind, u64::from(index)).stream(stream::LOCATION)
    }

    /// Phase of a transformer: one of three.
    fn phase(&self, transformer: u32) -> &'static str {
        ["A", "B", "C"][(self.draws(kind::TRANSFORMER, transformer).bits(9) % 3) as usize]
    }

    /// Phase of a service: shops and plants have all three.
    pub(crate) fn phase_of_meter(&self, segment: Segment, transformer: u32) -> &'static str {
        if segment == Segment::Residential { self.phase(transformer) } else { "ABC" }
    }

    fn substation(&self, fleet: &Fleet, node: u32) -> Option<Location> {
        if let Some(assets) = &fleet.known {
            return assets.substations[node as usize].location;
        }
        let (latitude, longitude) = self.centre(fleet, node);
        Some(micro(latitude, longitude))
    }

    fn centre(&self, fleet: &Fleet, substation: u32) -> (f64, f64) {
        let draws = self.draws(kind::SUBSTATION, substation);
        let (area, offset) = (fleet.area(), |draw: i64| BOX * (2.0 * draws.uniform(draw) - 1.0));
        (area.latitude + offset(0), area.longitude + offset(1))
    }

    fn transformer(&self, fleet: &Fleet, node: u32, circuit: u32) -> Option<Location> {
        if let Some(assets) = &fleet.known {
            return assets.transformers[node as usize].location;
        }
        let (latitude, longitude) = self.along(fleet, node, circuit);
        Some(micro(latitude, longitude))
    }

    /// Circuits are rays from their substation.
    fn along(&self, fleet: &Fleet, transformer: u32, circuit: u32) -> (f64, f64) {
        let (latitude, longitude) = self.centre(fleet, fleet.tree.substation_of(circuit));
        let angle = 2.0 * std::f64::consts::PI * self.draws(kind::CIRCUIT, circuit).uniform(0);
        let draws = self.draws(kind::TRANSFORMER, transformer);
        let reach = CIRCUIT * fleet.distance(transformer, circuit);
        let aside = 0.004 * (draws.uniform(0) - 0.5);
        (
            latitude + reach * libm::sin(angle) + aside * libm::cos(angle),
            longitude + reach * libm::cos(angle) - aside * libm::sin(angle),
        )
    }

    /// Where a meter lies.
    pub(crate) fn meter(&self, fleet: &Fleet, meter: u32) -> Option<Location> {
        if let Some(assets) = &fleet.known {
            return assets.meters[meter as usize].location;
        }
        let place = fleet.place(meter);
        let (latitude, longitude) = self.along(fleet, place.transformer, place.circuit);
        let draws = self.draws(kind::METER, meter);
        let angle = 2.0 * std::f64::consts::PI * draws.uniform(0);
        let reach = SERVICE.0 + (SERVICE.1 - SERVICE.0) * draws.uniform(1);
        Some(micro(latitude + reach * libm::sin(angle), longitude + reach * libm::cos(angle)))
    }
}

fn micro(latitude: f64, longitude: f64) -> Location {
    Location { latitude: (latitude * 1e6).round() as i64, longitude: (longitude * 1e6).round() as i64 }
}
