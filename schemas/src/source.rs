//! Where a record came from, and how far a destination has read.

use std::{fmt, sync::Arc};

/// Partition index of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub i32);

/// The next offset to read, exclusive: everything below it is durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

/// A topic partition that cannot be mistaken for another: a topic that is deleted and created again under the same
/// name has another topic id, and another cluster another cluster id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Source {
    /// Cluster id, as the brokers report it.
    pub cluster_id: Arc<str>,
    /// Topic name.
    pub topic: Arc<str>,
    /// Topic UUID in Kafka's base64 form.
    pub topic_id: Arc<str>,
    /// Partition.
    pub partition: Partition,
}

impl Source {
    /// Sixteen hexadecimal digits that stand for cluster and topic id where a destination has little room.
    pub fn identity(&self) -> String {
        use sha2::{Digest, Sha256};
        let digest = Sha256::digest(format!("{}\n{}", self.cluster_id, self.topic_id));
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}[{}]", self.topic, self.partition)
    }
}

/// Kafka's default partitioner for a keyed record: murmur2 of the key, sign bit cleared, modulo the partition count.
pub fn partition_of_key(key: &[u8], partitions: i32) -> Partition {
    Partition((murmur2(key) & 0x7fff_ffff) as i32 % partitions)
}

/// Murmur2 with the seed and tail order of `org.apache.kafka.common.utils.Utils`.
fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut value = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(M);
        value = (value ^ (value >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ value;
    }
    let tail = words.remainder();
    for (index, byte) in tail.iter().enumerate().rev() {
        hash ^= u32::from(*byte) << (8 * index);
    }
    if !tail.is_empty() {
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors of Apache Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_gives_the_values_of_the_java_client() {
        for (key, expected) in [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key.as_bytes()) as i32, expected, "{key}");
        }
    }

    #[test]
    fn a_recreated_topic_has_another_identity() {
        let source = |topic_id: &str| Source {
            cluster_id: "c".into(),
            topic: "t".into(),
            topic_id: topic_id.into(),
            partition: Partition(0),
        };
        assert_ne!(source("first").identity(), source("second").identity());
        assert_eq!(source("first").identity().len(), 16);
    }
}
