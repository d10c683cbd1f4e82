//! The fixed header of a record batch (magic 2), read and patched in place; and control batches.
//!
//! Layout: base offset 8, length 4, leader epoch 4, magic 1, CRC-32C 4, then, covered by the CRC: attributes 2, last
//! offset delta 4, base timestamp 8, max timestamp 8, producer id 8, producer epoch 2, base sequence 4, count 4.

/// Bytes of the header.
pub(super) const HEADER: usize = 61;
/// Bytes before what the length counts.
const BEFORE_LENGTH_ENDS: usize = 12;
const CRC_AT: usize = 17;
const CRC_COVERS_FROM: usize = 21;

/// The fields of a header that the broker looks at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header {
    pub(super) base_offset: i64,
    /// Bytes of the whole batch.
    pub(super) size: usize,
    pub(super) last_delta: i32,
    pub(super) base_timestamp: i64,
    pub(super) max_timestamp: i64,
    pub(super) producer_id: i64,
    pub(super) producer_epoch: i16,
    pub(super) base_sequence: i32,
    attributes: i16,
}

fn read<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

impl Header {
    /// Reads a header; `None` when the bytes are too short or no batch of magic 2.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let length = i32::from_be_bytes(read(bytes, 8)?);
        let size = usize::try_from(length).ok()? + BEFORE_LENGTH_ENDS;
        if bytes.get(16) != Some(&2) || size < HEADER || bytes.len() < HEADER {
            return None;
        }
        Some(Self {
            base_offset: i64::from_be_bytes(read(bytes, 0)?),
            size,
            attributes: i16::from_be_bytes(read(bytes, 21)?),
            last_delta: i32::from_be_bytes(read(bytes, 23)?),
            base_timestamp: i64::from_be_bytes(read(bytes, 27)?),
            max_timestamp: i64::from_be_bytes(read(bytes, 35)?),
            producer_id: i64::from_be_bytes(read(bytes, 43)?),
            producer_epoch: i16::from_be_bytes(read(bytes, 51)?),
            base_sequence: i32::from_be_bytes(read(bytes, 53)?),
        })
    }

    pub(super) fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_delta)
    }

    pub(super) fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    pub(super) fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }
}

/// Whether the whole batch is there and its checksum agrees.
pub(super) fn is_sound(batch: &[u8], header: &Header) -> bool {
    let crc = read(batch, CRC_AT).map(u32::from_be_bytes);
    batch.len() >= header.size && crc == Some(crc32c::crc32c(&batch[CRC_COVERS_FROM..header.size]))
}

/// Gives the batch its place in the log; the checksum does not cover these fields.
pub(super) fn place(batch: &mut [u8], base_offset: i64) {
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&0i32.to_be_bytes());
}

/// Whether a control batch says commit.
pub(super) fn is_commit(batch: &[u8]) -> bool {
    // One record: length, attributes, timestamp delta, offset delta (a byte each, as written below), key length, then
    // the key: version 2 bytes, type 2 bytes.
    batch.get(HEADER + 7..HEADER + 9) == Some(&[0, 1])
}

/// A marker that ends a producer's transaction.
pub(super) fn control(producer_id: i64, producer_epoch: i16, commit: bool, now_ms: i64) -> Vec<u8> {
    // Varints of small numbers are one byte, zigzag: n is written as 2n.
    let key = [0, 0, 0, u8::from(commit)];
    let value = [0, 0, 0, 0, 0, 0];
    let mut record = vec![0, 0, 0, 2 * key.len() as u8];
    record.extend_from_slice(&key);
    record.push(2 * value.len() as u8);
    record.extend_from_slice(&value);
    record.push(0);
    let mut batch = Vec::with_capacity(HEADER + record.len() + 1);
    batch.extend_from_slice(&0i64.to_be_bytes());
    batch.extend_from_slice(&((HEADER - BEFORE_LENGTH_ENDS + 1 + record.len()) as i32).to_be_bytes());
    batch.extend_from_slice(&0i32.to_be_bytes());
    batch.push(2);
    batch.extend_from_slice(&0u32.to_be_bytes());
    batch.extend_from_slice(&0x30i16.to_be_bytes());
    batch.extend_from_slice(&0i32.to_be_bytes());
    batch.extend_from_slice(&now_ms.to_be_bytes());
    batch.extend_from_slice(&now_ms.to_be_bytes());
    batch.extend_from_slice(&producer_id.to_be_bytes());
    batch.extend_from_slice(&producer_epoch.to_be_bytes());
    batch.extend_from_slice(&(-1i32).to_be_bytes());
    batch.extend_from_slice(&1i32.to_be_bytes());
    batch.push(2 * record.len() as u8);
    batch.extend_from_slice(&record);
    let crc = crc32c::crc32c(&batch[CRC_COVERS_FROM..]);
    batch[CRC_AT..CRC_COVERS_FROM].copy_from_slice(&crc.to_be_bytes());
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_batch_reads_back() {
        for commit in [true, false] {
            let mut batch = control(7, 3, commit, 1000);
            place(&mut batch, 42);
            let header = Header::read(&batch).unwrap();
            assert!(is_sound(&batch, &header) && header.is_control() && header.is_transactional());
            assert_eq!((header.base_offset, header.last_offset(), header.size), (42, 42, batch.len()));
            assert_eq!((header.producer_id, header.producer_epoch), (7, 3));
            assert_eq!(is_commit(&batch), commit);
            batch[HEADER + 2] ^= 1;
            assert!(!is_sound(&batch, &header));
        }
    }
}
