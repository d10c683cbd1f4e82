//! Meters and the tree above them: meter, transformer, circuit, substation.
//!
//! A synthetic fleet has exact segment counts; a transformer serves one segment, and a keyed permutation mixes the
//! transformers along the circuits. A fleet may also be somebody's own assets ([`crate::assets`]). Either way
//! transformers are numbered along their circuits and circuits along their substations, so what hangs below a node is
//! a range.

use std::{ops::Range, sync::Arc};

use flux_schemas::{
    reading::Segment,
    source::{Partition, partition_of_key},
};

use crate::{
    area::ServiceArea,
    assets::Assets,
    noise::{Key, Permutation, stream},
};

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

/// Meters of one transformer, by segment, where nobody says otherwise.
const METERS_PER_TRANSFORMER: [u32; 3] = [8, 4, 1];
/// The same where the number of transformers is given: their ratio decides.
const METERS_PER_GIVEN_TRANSFORMER: [u32; 3] = [8, 6, 3];
const CIRCUITS_PER_SUBSTATION: u32 = 4;
/// Neighbouring transformers behind one fuse.
const TRANSFORMERS_PER_LATERAL: u32 = 10;

/// Nodes above the meters; zero means that the number follows from the meters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Shape {
    /// Transformers.
    pub transformers: u32,
    /// Circuits.
    pub circuits: u32,
    /// Substations.
    pub substations: u32,
}

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
}

/// The tree above the transformers: first child of each node, and the end.
#[derive(Debug)]
pub(crate) struct Tree {
    circuits: Vec<u32>,
    laterals: Vec<u32>,
    substations: Vec<u32>,
}

impl Tree {
    /// From the number of transformers of each circuit and of circuits of each substation.
    pub(crate) fn new(transformers_of: &[u32], circuits_of: &[u32]) -> Self {
        let ends = |counts: &[u32]| -> Vec<u32> {
            let sums = counts.iter().scan(0, |sum, count| {
                *sum += count;
                Some(*sum)
            });
            std::iter::once(0).chain(sums).collect()
        };
        let circuits = ends(transformers_of);
        let mut laterals = Vec::new();
        for circuit in circuits.windows(2) {
            laterals.extend((circuit[0]..circuit[1]).step_by(TRANSFORMERS_PER_LATERAL as usize));
        }
        laterals.push(circuits[circuits.len() - 1]);
        Self { circuits, laterals, substations: ends(circuits_of) }
    }

    pub(crate) fn transformers(&self) -> u32 {
        self.circuits[self.circuits.len() - 1]
    }

    pub(crate) fn circuits(&self) -> u32 {
        self.circuits.len() as u32 - 1
    }

    pub(crate) fn laterals(&self) -> u32 {
        self.laterals.len() as u32 - 1
    }

    pub(crate) fn substations(&self) -> u32 {
        self.substations.len() as u32 - 1
    }

    pub(crate) fn transformers_of_lateral(&self, lateral: u32) -> Range<u32> {
        self.laterals[lateral as usize]..self.laterals[lateral as usize + 1]
    }

    pub(crate) fn transformers_of_circuit(&self, circuit: u32) -> Range<u32> {
        self.circuits[circuit as usize]..self.circuits[circuit as usize + 1]
    }

    pub(crate) fn circuits_of_substation(&self, substation: u32) -> Range<u32> {
        self.substations[substation as usize]..self.substations[substation as usize + 1]
    }

    pub(crate) fn circuit_of(&self, transformer: u32) -> u32 {
        self.circuits.partition_point(|first| *first <= transformer) as u32 - 1
    }

    pub(crate) fn lateral_of(&self, transformer: u32) -> u32 {
        self.laterals.partition_point(|first| *first <= transformer) as u32 - 1
    }

    pub(crate) fn substation_of(&self, circuit: u32) -> u32 {
        self.substations.partition_point(|first| *first <= circuit) as u32 - 1
    }

    /// The laterals of a circuit. No lateral crosses circuits.
    pub(crate) fn laterals_of_circuit(&self, circuit: u32) -> Range<u32> {
        let transformers = self.transformers_of_circuit(circuit);
        if transformers.is_empty() {
            return 0..0;
        }
        self.lateral_of(transformers.start)..self.lateral_of(transformers.end - 1) + 1
    }
}

/// The meters of a run with their places and identifiers.
#[derive(Debug)]
pub struct Fleet {
    area: &'static ServiceArea,
    places: Vec<Place>,
    pub(crate) tree: Arc<Tree>,
    meter_ids: Texts,
    transformer_ids: Texts,
    circuit_ids: Texts,
    substation_ids: Texts,
    /// What somebody's own assets say beyond the tree.
    pub(crate) known: Option<Assets>,
}

impl Fleet {
    /// A synthetic fleet: `segments` are percentages of homes, shops and plants.
    pub fn new(seed: u64, meters: u32, area: &'static ServiceArea, segments: [u32; 3], shape: Shape) -> Self {
        let homes = share(meters, segments[0]);
        let shops = share(meters, segments[0] + segments[1]) - homes;
        let counts = [homes, shops, meters - homes - shops];
        let banks = transformers_by_segment(counts, shape.transformers);
        let transformers: u32 = banks.iter().sum();
        let circuits = match shape.circuits {
            0 => transformers.div_ceil(transformers.div_ceil(8).clamp(1, 120)),
            given => given.min(transformers),
        };
        let substations = match shape.substations {
            0 => circuits.div_ceil(CIRCUITS_PER_SUBSTATION),
            given => given.min(circuits),
        };
        let tree = Tree::new(&spread(transformers, circuits), &spread(circuits, substations));
        let segment_order = Permutation::new(u64::from(meters), Key::new(seed, kind::SEGMENT_ORDER, 0));
        let transformer_order = Permutation::new(u64::from(transformers), Key::new(seed, kind::TRANSFORMER_ORDER, 0));
        let circuit_of: Vec<u32> =
            (0..circuits).flat_map(|circuit| tree.transformers_of_circuit(circuit).map(move |_| circuit)).collect();
        let places = (0..meters)
            .map(|meter| {
                let slot = segment_order.apply(u64::from(meter)) as u32;
                let class = usize::from(slot >= counts[0]) + usize::from(slot >= counts[0] + counts[1]);
                let before: u32 = counts[..class].iter().sum();
                let banks_before: u32 = banks[..class].iter().sum();
                // Meters spread over the banks of their segment as evenly as can be, neighbours together.
                let bank = u64::from(slot - before) * u64::from(banks[class]) / u64::from(counts[class]);
                let transformer = transformer_order.apply(u64::from(banks_before) + bank) as u32;
                let circuit = circuit_of[transformer as usize];
                let substation = tree.substation_of(circuit);
                Place { segment: Segment::ALL[class], transformer, circuit, substation }
            })
            .collect();
        Self {
            places,
            meter_ids: Texts::numbered("MTR", area.code, 7, meters),
            transformer_ids: Texts::numbered("XFMR", area.code, 6, transformers),
            circuit_ids: Texts::numbered("CIRCUIT", area.code, 5, circuits),
            substation_ids: Texts::numbered("SUB", area.code, 4, substations),
            tree: Arc::new(tree),
            area,
            known: None,
        }
    }

    /// Somebody's own fleet.
    pub fn of_assets(assets: Assets, area: &'static ServiceArea) -> Self {
        Self {
            places: assets.places().collect(),
            meter_ids: Texts::from_iter(assets.meters.iter().map(|meter| &*meter.id)),
            transformer_ids: Texts::from_iter(assets.transformers.iter().map(|node| &*node.id)),
            circuit_ids: Texts::from_iter(assets.circuits.iter().map(|node| &*node.id)),
            substation_ids: Texts::from_iter(assets.substations.iter().map(|node| &*node.id)),
            tree: Arc::new(assets.tree()),
            area,
            known: Some(assets),
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

    /// The service area.
    pub fn area(&self) -> &'static ServiceArea {
        self.area
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

    /// The meter with this METER_ID, if the fleet has it. Ids ascend; where they are numbers, the number says which.
    pub fn meter_of_id(&self, meter_id: &str) -> Option<u32> {
        let number = meter_id.rsplit('-').next().and_then(|number| number.parse::<u32>().ok());
        let guess = number.and_then(|number| number.checked_sub(1)).filter(|meter| *meter < self.len());
        match guess {
            Some(meter) if self.meter_id(meter) == meter_id => Some(meter),
            _ if self.known.is_some() => self.meter_ids.search(meter_id),
            _ => None,
        }
    }

    /// The node with this id: its level as in [`crate::outage::Level`], and its number.
    pub(crate) fn node_of_id(&self, id: &str) -> Option<(crate::outage::Level, u32)> {
        use crate::outage::Level;
        let find = |ids: &Texts| (0..ids.len()).find(|index| ids.get(*index) == id);
        find(&self.substation_ids)
            .map(|node| (Level::Substation, node))
            .or_else(|| find(&self.circuit_ids).map(|node| (Level::Circuit, node)))
            .or_else(|| find(&self.transformer_ids).map(|node| (Level::Transformer, node)))
            .or_else(|| self.meter_of_id(id).map(|node| (Level::Service, node)))
    }

    /// The Kafka partition of every meter: murmur2 of its id, as the Java client does it.
    pub fn partitions(&self, partitions: i32) -> Vec<Partition> {
        (0..self.len()).map(|meter| partition_of_key(self.meter_id(meter).as_bytes(), partitions)).collect()
    }

    /// Distance of a transformer along its circuit, 0 at the substation and 1 at the far end.
    pub(crate) fn distance(&self, transformer: u32, circuit: u32) -> f64 {
        let range = self.tree.transformers_of_circuit(circuit);
        (f64::from(transformer - range.start) + 0.5) / f64::from(range.end - range.start)
    }
}

/// Transformers for each segment: as many as the meters need, or a given number in the same proportions.
fn transformers_by_segment(meters: [u32; 3], given: u32) -> [u32; 3] {
    let natural = |per: [u32; 3]| -> [u32; 3] { std::array::from_fn(|class| meters[class].div_ceil(per[class])) };
    if given == 0 {
        return natural(METERS_PER_TRANSFORMER);
    }
    let weights = natural(METERS_PER_GIVEN_TRANSFORMER);
    let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
    let part = |class: usize| {
        let part = u64::from(given) * u64::from(weights[class]) / total.max(1);
        (part as u32).clamp(u32::from(meters[class] > 0), meters[class])
    };
    let (shops, plants) = (part(1), part(2));
    [given.saturating_sub(shops + plants).clamp(u32::from(meters[0] > 0), meters[0]), shops, plants]
}

/// `count` things over `nodes` nodes, as evenly as can be.
fn spread(count: u32, nodes: u32) -> Vec<u32> {
    let before = |node: u32| (u64::from(count) * u64::from(node) / u64::from(nodes)) as u32;
    (0..nodes).map(|node| before(node + 1) - before(node)).collect()
}

/// `percent` of the meters, rounded to whole meters.
fn share(meters: u32, percent: u32) -> u32 {
    ((u64::from(meters) * u64::from(percent) + 50) / 100) as u32
}

/// Static uniform draws of a thing, by index.
pub(crate) fn static_draw(seed: u64, kind: u64, index: u32, draw: i64) -> f64 {
    Key::new(seed, kind, u64::from(index)).stream(stream::STATIC).uniform(draw)
}

/// Many short texts in one allocation.
#[derive(Debug)]
pub(crate) struct Texts {
    text: String,
    /// End of each, where they are not of one width.
    ends: Vec<u32>,
    width: usize,
}

impl Texts {
    /// `<prefix>-<code>-<number>` for 1..=count.
    pub(crate) fn numbered(prefix: &str, code: &str, digits: usize, count: u32) -> Self {
        use std::fmt::Write;
        let width = prefix.len() + code.len() + digits + 2;
        let mut text = String::with_capacity(width * count as usize);
        for number in 1..=count {
            write!(text, "{prefix}-{code}-{number:0digits$}").expect("a String takes every write");
        }
        Self { text, ends: Vec::new(), width }
    }

    #[inline]
    pub(crate) fn get(&self, index: u32) -> &str {
        let index = index as usize;
        if self.width > 0 {
            return &self.text[index * self.width..(index + 1) * self.width];
        }
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before] as usize);
        &self.text[start..self.ends[index] as usize]
    }

    pub(crate) fn len(&self) -> u32 {
        self.text.len().checked_div(self.width).unwrap_or(self.ends.len()) as u32
    }

    /// The index of a text, where they ascend.
    fn search(&self, wanted: &str) -> Option<u32> {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.get(middle).cmp(wanted) {
                std::cmp::Ordering::Equal => return Some(middle),
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
            }
        }
        None
    }
}

impl<'a> FromIterator<&'a str> for Texts {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let mut all = Self { text: String::new(), ends: Vec::new(), width: 0 };
        for text in texts {
            all.text.push_str(text);
            all.ends.push(all.text.len() as u32);
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::area::SERVICE_AREAS;

    fn fleet(seed: u64, meters: u32) -> Fleet {
        Fleet::new(seed, meters, &SERVICE_AREAS[0], [70, 20, 10], Shape::default())
    }

    #[test]
    fn segment_shares_are_exact_counts() {
        for meters in [10, 100, 1000, 10_001, 99_999] {
            let fleet = fleet(3, meters);
            let count = |segment| (0..meters).filter(|meter| fleet.place(*meter).segment == segment).count() as u32;
            assert_eq!(count(Segment::Residential), (meters * 7 + 5) / 10);
            assert_eq!(count(Segment::Residential) + count(Segment::Commercial), (meters * 9 + 5) / 10);
        }
    }

    #[test]
    fn every_meter_has_one_path_to_a_substation_and_a_transformer_serves_one_segment() {
        let fleet = fleet(5, 5000);
        let mut segments = std::collections::BTreeMap::new();
        for meter in 0..fleet.len() {
            let place = fleet.place(meter);
            assert_eq!(*segments.entry(place.transformer).or_insert(place.segment), place.segment);
            assert_eq!(fleet.tree.circuit_of(place.transformer), place.circuit);
            assert_eq!(fleet.tree.substation_of(place.circuit), place.substation);
            assert!(fleet.transformer_id(place.transformer).starts_with("XFMR-TGC-"));
            assert!(fleet.circuit_id(place.circuit).starts_with("CIRCUIT-TGC-"));
            assert!(fleet.substation_id(place.substation).starts_with("SUB-TGC-"));
            assert_eq!(fleet.meter_of_id(fleet.meter_id(meter)), Some(meter));
        }
        for unknown in ["MTR-TGC-0005001", "MTR-TGC-0000000", "MTR-ABC-0000001", "", "MTR-TGC-1"] {
            assert_eq!(fleet.meter_of_id(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_given_shape_is_exact() {
        let shape = Shape { transformers: 91_554, circuits: 8_842, substations: 275 };
        let fleet = Fleet::new(5, 596_906, &SERVICE_AREAS[0], [70, 20, 10], shape);
        let tree = &fleet.tree;
        assert_eq!((tree.transformers(), tree.circuits(), tree.substations()), (91_554, 8_842, 275));
        let mut used = vec![false; 91_554];
        for meter in 0..fleet.len() {
            used[fleet.place(meter).transformer as usize] = true;
        }
        assert!(used.iter().all(|used| *used), "every transformer serves somebody");
        assert!((0..tree.laterals()).all(|lateral| (1..=10).contains(&tree.transformers_of_lateral(lateral).len())));
    }
}
