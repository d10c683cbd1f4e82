//! Somebody's own fleet: meters, transformers, circuits and substations as a utility lists them.
//!
//! Whatever is wrong with a list is refused with its line; nothing is replaced by something made up. Meters are put in
//! the order of their ids, and nodes so that what hangs below one is a range.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use flux_schemas::reading::Segment;

use crate::{
    fleet::{Place, Tree},
    noise::mix64,
};

/// A line of a list of meters.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the columns of the list")]
pub struct MeterLine {
    pub line: u64,
    pub meter_id: String,
    pub transformer_id: String,
    pub circuit_id: String,
    pub substation_id: String,
    /// RESIDENTIAL where the list has no such column.
    pub customer_segment: Option<String>,
    pub latitude: Option<String>,
    pub longitude: Option<String>,
}

/// A line of a list of transformers, circuits or substations.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the columns of the list")]
pub struct NodeLine {
    pub line: u64,
    pub id: String,
    /// Circuit of a transformer, substation of a circuit.
    pub parent: String,
    pub rated_kva: Option<String>,
    pub latitude: Option<String>,
    pub longitude: Option<String>,
}

/// The lists; a level without one is read off the lists below it.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "the levels")]
pub struct Lists {
    pub meters: Vec<MeterLine>,
    pub transformers: Vec<NodeLine>,
    pub circuits: Vec<NodeLine>,
    pub substations: Vec<NodeLine>,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// meters, transformers, circuits or substations.
    pub list: &'static str,
    /// Line in it, from 1.
    pub line: u64,
    /// Column.
    pub column: &'static str,
    /// What it says.
    pub value: String,
    /// What is allowed.
    pub rule: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} line {}: {} is {:?}; {}", self.list, self.line, self.column, self.value, self.rule)
    }
}

/// A meter of the fleet.
#[derive(Debug, Clone)]
pub(crate) struct KnownMeter {
    pub(crate) id: Box<str>,
    segment: Segment,
    transformer: u32,
    pub(crate) location: Option<Location>,
}

/// A node above the meters.
#[derive(Debug, Clone)]
pub(crate) struct KnownNode {
    pub(crate) id: Box<str>,
    parent: u32,
    pub(crate) rated_kva: Option<f64>,
    pub(crate) location: Option<Location>,
}

/// Millionths of a degree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) latitude: i64,
    pub(crate) longitude: i64,
}

/// A checked fleet.
#[derive(Debug, Clone)]
pub struct Assets {
    pub(crate) meters: Vec<KnownMeter>,
    pub(crate) transformers: Vec<KnownNode>,
    pub(crate) circuits: Vec<KnownNode>,
    pub(crate) substations: Vec<KnownNode>,
}

/// The order of ids that Kafka keys and texts have anyway.
type Numbers<'a> = HashMap<&'a str, u32>;

struct Check {
    faults: Vec<Fault>,
}

impl Check {
    fn fault(&mut self, list: &'static str, line: u64, column: &'static str, value: &str, rule: impl Into<String>) {
        self.faults.push(Fault { list, line, column, value: value.into(), rule: rule.into() });
    }

    fn id(&mut self, list: &'static str, line: u64, column: &'static str, value: &str) {
        if value.is_empty() || value.len() > 64 || value.chars().any(|letter| letter.is_control() || letter == '"') {
            self.fault(list, line, column, value, "use 1 to 64 characters without quotes");
        }
    }

    fn location(
        &mut self,
        list: &'static str,
        line: u64,
        latitude: Option<&str>,
        longitude: Option<&str>,
    ) -> Option<Location> {
        let mut degrees = |column, value: Option<&str>, limit: f64| {
            let value = value.filter(|value| !value.is_empty())?;
            match value.parse::<f64>().ok().filter(|degrees| degrees.abs() <= limit) {
                Some(degrees) => Some((degrees * 1e6).round() as i64),
                None => {
                    self.fault(list, line, column, value, format!("use degrees from -{limit} to {limit}"));
                    None
                }
            }
        };
        let (latitude, longitude) = (degrees("LATITUDE", latitude, 90.0), degrees("LONGITUDE", longitude, 180.0));
        Some(Location { latitude: latitude?, longitude: longitude? }).filter(|place| {
            let nowhere = place.latitude == 0 && place.longitude == 0;
            if nowhere {
                self.fault(list, line, "LATITUDE", "0", "0, 0 lies in the Atlantic; leave unknown places empty");
            }
            !nowhere
        })
    }

    /// Ids of a list, each once.
    fn unique<'a>(
        &mut self,
        list: &'static str,
        column: &'static str,
        lines: impl Iterator<Item = (u64, &'a str)>,
    ) -> HashMap<&'a str, u64> {
        let mut first = HashMap::new();
        for (line, id) in lines {
            self.id(list, line, column, id);
            match first.get(id) {
                None => {
                    first.insert(id, line);
                }
                Some(earlier) => {
                    self.fault(list, line, column, id, format!("it is on line {earlier} already; remove one"))
                }
            }
        }
        first
    }
}

impl Assets {
    /// Checks the lists.
    ///
    /// # Errors
    /// Everything that is wrong with them.
    pub fn new(mut lists: Lists) -> Result<Self, Vec<Fault>> {
        let mut check = Check { faults: Vec::new() };
        derive_missing(&mut lists, &mut check);
        check.unique("meters", "METER_ID", lists.meters.iter().map(|line| (line.line, &*line.meter_id)));
        let substations = nodes(&mut check, "substations", "SUBSTATION_ID", &lists.substations, None);
        let circuits = nodes(
            &mut check,
            "circuits",
            "CIRCUIT_ID",
            &lists.circuits,
            Some(("SUBSTATION_ID", &numbers(&substations))),
        );
        let transformers = nodes(
            &mut check,
            "transformers",
            "TRANSFORMER_ID",
            &lists.transformers,
            Some(("CIRCUIT_ID", &numbers(&circuits))),
        );
        let number_of = numbers(&transformers);
        let mut meters = Vec::with_capacity(lists.meters.len());
        for line in &lists.meters {
            let location = check.location("meters", line.line, line.latitude.as_deref(), line.longitude.as_deref());
            let segment = match line.customer_segment.as_deref() {
                None => Some(Segment::Residential),
                Some(text) => Segment::parse(&text.to_uppercase()),
            };
            if segment.is_none() {
                let value = line.customer_segment.as_deref().unwrap_or_default();
                check.fault(
                    "meters",
                    line.line,
                    "CUSTOMER_SEGMENT",
                    value,
                    "use RESIDENTIAL, COMMERCIAL or INDUSTRIAL",
                );
            }
            let transformer = number_of.get(&*line.transformer_id).copied();
            if transformer.is_none() {
                let rule = "no transformer has this id: an orphan; add the transformer or remove the meter";
                check.fault("meters", line.line, "TRANSFORMER_ID", &line.transformer_id, rule);
            }
            if let (Some(segment), Some(transformer)) = (segment, transformer) {
                meters.push(KnownMeter { id: line.meter_id.as_str().into(), segment, transformer, location });
            }
        }
        if lists.meters.len() < 10 || lists.meters.len() > 600_000 {
            let value = lists.meters.len().to_string();
            check.fault("meters", 0, "METER_ID", &value, "use 10 to 600000 meters");
        }
        if !check.faults.is_empty() {
            return Err(check.faults);
        }
        meters.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        Ok(Self { meters, transformers, circuits, substations })
    }

    /// Sixteen hexadecimal digits over everything in it: a run's spec holds them.
    pub fn hash(&self) -> String {
        let mut hash = 0u64;
        let mut absorb = |value: u64| hash = mix64(hash ^ value).rotate_left(17);
        let mut text = |text: &str| {
            absorb(text.len() as u64);
            for chunk in text.as_bytes().chunks(8) {
                absorb(chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
            }
        };
        for meter in &self.meters {
            text(&meter.id);
            text(&format!("{} {} {:?}", meter.segment as u8, meter.transformer, meter.location));
        }
        for node in [&self.transformers, &self.circuits, &self.substations].into_iter().flatten() {
            text(&node.id);
            text(&format!("{} {:?} {:?}", node.parent, node.rated_kva, node.location));
        }
        format!("{hash:016x}")
    }

    /// Number of meters.
    pub fn meters(&self) -> u32 {
        self.meters.len() as u32
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.meters.iter().map(|meter| {
            let circuit = self.transformers[meter.transformer as usize].parent;
            let substation = self.circuits[circuit as usize].parent;
            Place { segment: meter.segment, transformer: meter.transformer, circuit, substation }
        })
    }

    pub(crate) fn tree(&self) -> Tree {
        let count = |children: &[KnownNode], parents: usize| {
            let mut counts = vec![0; parents];
            for child in children {
                counts[child.parent as usize] += 1;
            }
            counts
        };
        Tree::new(&count(&self.transformers, self.circuits.len()), &count(&self.circuits, self.substations.len()))
    }
}

fn numbers(nodes: &[KnownNode]) -> Numbers<'_> {
    nodes.iter().enumerate().map(|(number, node)| (&*node.id, number as u32)).collect()
}

/// Checked nodes, in the order of their parents and then of their ids.
fn nodes(
    check: &mut Check,
    list: &'static str,
    column: &'static str,
    lines: &[NodeLine],
    parents: Option<(&'static str, &Numbers<'_>)>,
) -> Vec<KnownNode> {
    check.unique(list, column, lines.iter().map(|line| (line.line, &*line.id)));
    let mut nodes = Vec::with_capacity(lines.len());
    for line in lines {
        let location = check.location(list, line.line, line.latitude.as_deref(), line.longitude.as_deref());
        let rated_kva = line.rated_kva.as_deref().filter(|text| !text.is_empty()).and_then(|text| {
            let kva = text.parse::<f64>().ok().filter(|kva| (1.0..=100_000.0).contains(kva));
            if kva.is_none() {
                check.fault(list, line.line, "RATED_KVA", text, "use 1 to 100000 kVA, or leave it empty");
            }
            kva
        });
        let parent = match parents {
            None => 0,
            Some((parent_column, numbers)) => match numbers.get(&*line.parent) {
                Some(number) => *number,
                None => {
                    let rule = "nothing has this id: an orphan; add its parent or remove it";
                    check.fault(list, line.line, parent_column, &line.parent, rule);
                    // It is there all the same: what hangs on it is no orphan.
                    0
                }
            },
        };
        nodes.push(KnownNode { id: line.id.as_str().into(), parent, rated_kva, location });
    }
    nodes.sort_by(|one, other| one.parent.cmp(&other.parent).then_with(|| one.id.cmp(&other.id)));
    nodes
}

/// Levels without a list of their own, read off the lines below, which must agree.
fn derive_missing(lists: &mut Lists, check: &mut Check) {
    let mut gather = |list, column: &'static str, rows: &mut dyn Iterator<Item = (u64, &str, &str)>| -> Vec<NodeLine> {
        let mut parents: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for (line, id, parent) in rows {
            let (first, known) = parents.entry(id.into()).or_insert_with(|| (line, parent.into()));
            if known != parent {
                let rule = format!("line {first} says {known:?} of {id}; one node has one parent");
                check.fault(list, line, column, parent, rule);
            }
        }
        let node = |(id, (line, parent))| NodeLine { line, id, parent, ..NodeLine::default() };
        parents.into_iter().map(node).collect()
    };
    if lists.transformers.is_empty() {
        let mut rows = lists.meters.iter().map(|line| (line.line, &*line.transformer_id, &*line.circuit_id));
        lists.transformers = gather("meters", "CIRCUIT_ID", &mut rows);
    }
    if lists.circuits.is_empty() {
        let named = lists.meters.iter().filter(|line| !line.circuit_id.is_empty());
        let mut rows = named.map(|line| (line.line, &*line.circuit_id, &*line.substation_id));
        lists.circuits = gather("meters", "SUBSTATION_ID", &mut rows);
    }
    if lists.substations.is_empty() {
        let mut rows = lists.circuits.iter().map(|line| (line.line, &*line.parent, ""));
        lists.substations = gather("circuits", "SUBSTATION_ID", &mut rows);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lists(meters: u64) -> Lists {
        let meter = |line: u64| MeterLine {
            line,
            meter_id: format!("M{line:05}"),
            transformer_id: format!("T{}", line / 3),
            circuit_id: format!("C{}", line / 9),
            substation_id: format!("S{}", line / 27),
            latitude: Some("29.7".into()),
            longitude: Some("-95.4".into()),
            ..MeterLine::default()
        };
        Lists { meters: (2..meters + 2).map(meter).collect(), ..Lists::default() }
    }

    #[test]
    fn the_tree_is_read_off_the_meters() {
        let assets = Assets::new(lists(60)).unwrap();
        let tree = assets.tree();
        assert_eq!((tree.transformers(), tree.circuits(), tree.substations()), (21, 7, 3));
        for place in assets.places() {
            assert_eq!(tree.circuit_of(place.transformer), place.circuit);
            assert_eq!(tree.substation_of(place.circuit), place.substation);
        }
        assert_eq!(assets.hash(), Assets::new(lists(60)).unwrap().hash());
        assert_ne!(assets.hash(), Assets::new(lists(61)).unwrap().hash());
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        let mut wrong = lists(60);
        wrong.meters[3].meter_id = "M00002".into();
        wrong.meters[5].circuit_id = "C7".into();
        wrong.meters[9].latitude = Some("95".into());
        wrong.meters[11].customer_segment = Some("FARM".into());
        wrong.meters[12].latitude = Some("0".into());
        wrong.meters[12].longitude = Some("0".into());
        let faults: Vec<String> = Assets::new(wrong).unwrap_err().iter().map(ToString::to_string).collect();
        for expected in [
            "meters line 5: METER_ID is \"M00002\"; it is on line 2 already",
            "meters line 7: CIRCUIT_ID is \"C7\"; line 6 says \"C0\" of T2",
            "meters line 11: LATITUDE is \"95\"; use degrees from -90 to 90",
            "meters line 13: CUSTOMER_SEGMENT is \"FARM\"; use RESIDENTIAL",
            "meters line 14: LATITUDE is \"0\"; 0, 0 lies in the Atlantic",
        ] {
            assert!(faults.iter().any(|fault| fault.starts_with(expected)), "{expected}: {faults:#?}");
        }
        let mut orphan = lists(60);
        orphan.transformers = (0..20)
            .map(|number| NodeLine {
                line: number + 2,
                id: format!("T{number}"),
                parent: "C0".into(),
                ..NodeLine::default()
            })
            .collect();
        orphan.circuits = vec![NodeLine { line: 2, id: "C0".into(), parent: "S0".into(), ..NodeLine::default() }];
        let faults = Assets::new(orphan).unwrap_err();
        assert!(faults.iter().all(|fault| fault.list == "meters" && fault.column == "TRANSFORMER_ID"), "{faults:?}");
        assert_eq!(faults.len(), 2, "meters 60 and 61 hang on transformer T20: {faults:?}");
    }
}
