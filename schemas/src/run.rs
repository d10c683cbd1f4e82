//! The records of `ami.runs`: what a run must produce, and how far each shard has come.

use std::{collections::BTreeMap, fmt, str::FromStr, sync::LazyLock};

use apache_avro::{Schema, reader::datum::GenericDatumReader, writer::datum::GenericDatumWriter};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::row::Table;

/// Name of the header that every reading record carries: the eight big-endian bytes of its [`RunId`].
pub const RUN_HEADER: &str = "run";

/// Names a run. Printed as 16 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(pub u64);

impl RunId {
    /// The sixteen digits as they are printed, without an allocation.
    pub fn hex(self) -> [u8; 16] {
        std::array::from_fn(|digit| b"0123456789abcdef"[(self.0 >> (60 - 4 * digit)) as usize & 15])
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

impl FromStr for RunId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Some(text)
            .filter(|text| text.len() == 16)
            .and_then(|text| u64::from_str_radix(text, 16).ok())
            .map(Self)
            .ok_or_else(|| format!("run id {text:?} is not 16 hexadecimal digits; `flux runs` lists the ids"))
    }
}

impl Serialize for RunId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for RunId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a run must produce, completely. Field by field as `avro/run_spec.avsc`, which documents them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "documented in avro/run_spec.avsc, the source of truth")]
pub struct RunSpec {
    pub run_id: RunId,
    pub seed: i64,
    pub model: String,
    pub model_version: i32,
    pub golden_hash: String,
    pub base_unit: String,
    pub service_area: String,
    pub segments: String,
    pub meters: i32,
    pub transformers: i32,
    pub circuits: i32,
    pub substations: i32,
    pub assets_hash: String,
    pub interval_seconds: i32,
    pub first_interval: i64,
    pub end_interval: Option<i64>,
    pub pattern: String,
    pub backfill: bool,
    pub duplicates: bool,
    pub after_restore: bool,
    pub demo_events: bool,
    pub voltage_anomaly_ppm: i32,
    pub scenario: String,
    pub wide: bool,
    pub events: bool,
    pub emission_version: i32,
    pub topic: String,
    pub cluster_id: String,
    pub topic_id: String,
    pub events_topic: String,
    pub events_topic_id: String,
    pub assets_topic: String,
    pub assets_topic_id: String,
    pub partitions: i32,
    pub shards: i32,
    pub schema_fingerprint: String,
}

/// How far one shard has come. Field by field as `avro/progress.avsc`, which documents them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "documented in avro/progress.avsc, the source of truth")]
pub struct Progress {
    pub run_id: RunId,
    pub shard: i32,
    pub spec_hash: String,
    pub bucket: i64,
    pub ordinal: i64,
    pub ends: Vec<PartitionEnd>,
    pub on_time: i64,
    pub late: i64,
    pub estimated: i64,
    pub lost: i64,
    pub revised: i64,
    pub duplicates: i64,
    pub events: i64,
    pub assets: i64,
    pub finished: bool,
    pub incarnation: String,
}

/// Rows that an overloaded producer chose not to emit. Field by field as `avro/dropped.avsc`, which documents them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "documented in avro/dropped.avsc, the source of truth")]
pub struct Dropped {
    pub run_id: RunId,
    pub shard: i32,
    pub from_bucket: i64,
    pub from_ordinal: i64,
    pub to_bucket: i64,
    pub to_ordinal: i64,
}

/// The end of a shard's rows in one partition of one of the run's topics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "documented in avro/progress.avsc, the source of truth")]
pub struct PartitionEnd {
    pub table: String,
    pub partition: i32,
    pub end: i64,
}

impl RunSpec {
    /// Key of this record in `ami.runs`.
    pub fn key(&self) -> String {
        self.run_id.to_string()
    }

    /// Sixteen hexadecimal digits over the whole spec: two runs that must produce different rows differ in it.
    pub fn hash(&self) -> String {
        use sha2::{Digest, Sha256};
        Sha256::digest(self.encode()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl RunSpec {
    /// Name and UUID of the topic that holds rows of a table; `None` for one that the run does not have.
    pub fn topic_of(&self, table: &Table) -> Option<(&str, &str)> {
        let topic = match table.name {
            "events" => (&self.events_topic, &self.events_topic_id),
            "assets" => (&self.assets_topic, &self.assets_topic_id),
            _ => (&self.topic, &self.topic_id),
        };
        Some((topic.0.as_str(), topic.1.as_str())).filter(|(name, _)| !name.is_empty())
    }

    /// Columns of a reading.
    pub fn width(&self) -> usize {
        let table = Table::readings();
        if self.wide { table.columns.len() } else { table.narrow }
    }
}

impl Dropped {
    /// Key of this record in `ami.runs`.
    pub fn key(&self) -> String {
        format!("{}/{}/{}.{}", self.run_id, self.shard, self.from_bucket, self.from_ordinal)
    }
}

impl Progress {
    /// Key of this record in `ami.runs`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.run_id, self.shard)
    }
}

/// What `ami.runs` says, folded record by record: for each run its spec and the newest progress of every shard.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// By run.
    pub runs: BTreeMap<RunId, RunRecord>,
}

/// One run in the ledger.
#[derive(Debug, Clone, Default)]
pub struct RunRecord {
    /// What it must produce; the first one written holds.
    pub spec: Option<RunSpec>,
    /// How far each shard has come.
    pub progress: BTreeMap<i32, Progress>,
    /// What was dropped, by shard and place in the stream.
    pub dropped: BTreeMap<(i32, i64, i64), Dropped>,
}

impl Ledger {
    /// Takes in one record.
    ///
    /// # Errors
    /// A sentence when the record is not one of the ledger's: the topic holds something else.
    pub fn absorb(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        let text = std::str::from_utf8(key).map_err(|_| "a key that is not UTF-8".to_string())?;
        let parts = text.split('/').count();
        if parts == 3 {
            let dropped = Dropped::decode(value)?;
            let key = (dropped.shard, dropped.from_bucket, dropped.from_ordinal);
            self.runs.entry(dropped.run_id).or_default().dropped.insert(key, dropped);
        } else if parts == 2 {
            let progress = Progress::decode(value)?;
            self.runs.entry(progress.run_id).or_default().progress.insert(progress.shard, progress);
        } else {
            let spec = RunSpec::decode(value)?;
            self.runs.entry(spec.run_id).or_default().spec.get_or_insert(spec);
        }
        Ok(())
    }

    /// One run; empty when the ledger does not know it.
    pub fn run(&self, run: RunId) -> RunRecord {
        self.runs.get(&run).cloned().unwrap_or_default()
    }
}

/// A record of `ami.runs`: a plain Avro datum, keyed so that compaction keeps the spec and the newest progress.
pub trait LedgerRecord: Serialize + DeserializeOwned {
    /// Its schema.
    fn schema() -> &'static Schema;

    /// The Avro datum.
    fn encode(&self) -> Vec<u8> {
        GenericDatumWriter::builder(Self::schema())
            .build()
            .and_then(|writer| writer.write_ser_to_vec(self))
            .expect("the record mirrors its schema")
    }

    /// Reads a datum.
    ///
    /// # Errors
    /// A sentence for a person, when the bytes are not such a record.
    fn decode(mut datum: &[u8]) -> Result<Self, String> {
        GenericDatumReader::builder(Self::schema())
            .build()
            .and_then(|reader| reader.read_deser(&mut datum))
            .map_err(|error| error.to_string())
    }
}

impl LedgerRecord for RunSpec {
    fn schema() -> &'static Schema {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(|| parse(include_str!("../avro/run_spec.avsc")));
        &SCHEMA
    }
}

impl LedgerRecord for Dropped {
    fn schema() -> &'static Schema {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(|| parse(include_str!("../avro/dropped.avsc")));
        &SCHEMA
    }
}

impl LedgerRecord for Progress {
    fn schema() -> &'static Schema {
        static SCHEMA: LazyLock<Schema> = LazyLock::new(|| parse(include_str!("../avro/progress.avsc")));
        &SCHEMA
    }
}

fn parse(schema: &str) -> Schema {
    Schema::parse_str(schema).expect("the schema in the source tree parses")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ledger_records_round_trip_and_the_hash_covers_every_field() {
        let spec = RunSpec {
            run_id: RunId(7),
            seed: -1,
            model: "documented".into(),
            model_version: 1,
            golden_hash: "00".into(),
            base_unit: "per_reading".into(),
            service_area: "TEXAS_GULF_COAST".into(),
            segments: "70/20/10".into(),
            meters: 100,
            transformers: 0,
            circuits: 0,
            substations: 0,
            assets_hash: String::new(),
            interval_seconds: 900,
            first_interval: 1_900_000,
            end_interval: Some(1_900_672),
            pattern: "uniform".into(),
            backfill: false,
            duplicates: false,
            after_restore: false,
            demo_events: false,
            voltage_anomaly_ppm: 2000,
            scenario: String::new(),
            wide: false,
            events: false,
            emission_version: 1,
            topic: "ami.readings".into(),
            cluster_id: "c".into(),
            topic_id: "t".into(),
            events_topic: String::new(),
            events_topic_id: String::new(),
            assets_topic: String::new(),
            assets_topic_id: String::new(),
            partitions: 4,
            shards: 4,
            schema_fingerprint: "f".into(),
        };
        assert_eq!(RunSpec::decode(&spec.encode()).unwrap(), spec);
        let open = RunSpec { end_interval: None, ..spec.clone() };
        assert_eq!(RunSpec::decode(&open.encode()).unwrap(), open);
        assert_ne!(open.hash(), spec.hash());
        let progress = Progress {
            run_id: RunId(7),
            shard: 3,
            spec_hash: spec.hash(),
            bucket: 1_900_001,
            ordinal: 12,
            ends: vec![PartitionEnd { table: "readings".into(), partition: 3, end: 99 }],
            on_time: 5,
            late: 0,
            estimated: 0,
            lost: 0,
            revised: 0,
            duplicates: 0,
            events: 0,
            assets: 0,
            finished: false,
            incarnation: "i".into(),
        };
        assert_eq!(Progress::decode(&progress.encode()).unwrap(), progress);
        assert_eq!(progress.key(), "0000000000000007/3");
        let dropped =
            Dropped { run_id: RunId(7), shard: 3, from_bucket: 5, from_ordinal: 1, to_bucket: 6, to_ordinal: 0 };
        let mut ledger = Ledger::default();
        for (key, value) in
            [(spec.key(), spec.encode()), (progress.key(), progress.encode()), (dropped.key(), dropped.encode())]
        {
            ledger.absorb(key.as_bytes(), &value).unwrap();
        }
        let run = ledger.run(RunId(7));
        assert_eq!((run.spec.as_ref(), &run.progress[&3]), (Some(&spec), &progress));
        assert_eq!(run.dropped[&(3, 5, 1)], dropped);
        assert_eq!(RunId(0x0123_4567_89ab_cdef).hex(), *b"0123456789abcdef");
        assert_eq!(RunId(7).to_string().as_bytes(), RunId(7).hex());
        assert!("xyz".parse::<RunId>().is_err());
    }
}
