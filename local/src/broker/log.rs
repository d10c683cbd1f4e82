//! One partition: batches in a file, an index in memory that is rebuilt from them at start.
//!
//! Everything that read-committed needs is in the batches themselves (who wrote, and which markers followed), so no
//! second file can disagree with the log.

use std::{
    collections::{BTreeMap, VecDeque},
    fs::{File, OpenOptions},
    os::unix::fs::FileExt,
    path::Path,
};

use bytes::{Bytes, BytesMut};

use super::batch::{self, Header};
use crate::{Error, state};

/// Batches of a producer that are remembered to recognise a repeat.
const WINDOW: usize = 5;

/// Where a batch is.
#[derive(Debug, Clone, Copy)]
struct Entry {
    header: Header,
    at: u64,
}

/// What the log knows of a producer.
#[derive(Debug, Default)]
struct Producer {
    epoch: i16,
    /// (base sequence, last sequence, base offset) of the newest batches.
    window: VecDeque<(i32, i32, i64)>,
}

/// A transaction that was aborted, for readers that must leave it out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Aborted {
    pub(super) producer_id: i64,
    pub(super) first_offset: i64,
    last_offset: i64,
}

/// Why a batch is not appended.
#[derive(Debug)]
pub(super) enum Refused {
    Corrupt,
    OutOfOrder,
    FencedEpoch,
    Disk(std::io::Error),
}

#[derive(Debug)]
pub(super) struct Log {
    file: File,
    size: u64,
    next_offset: i64,
    entries: Vec<Entry>,
    producers: BTreeMap<i64, Producer>,
    /// First offset of each open transaction, by producer.
    open: BTreeMap<i64, i64>,
    aborted: Vec<Aborted>,
}

/// What a fetch finds.
pub(super) struct Fetched {
    pub(super) records: Bytes,
    pub(super) aborted: Vec<Aborted>,
}

impl Log {
    /// Opens or makes the file; a batch that a crash tore is cut off.
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(state::state_error(path, "cannot open the partition"))?;
        let length = file.metadata().map_err(state::state_error(path, "cannot open the partition"))?.len();
        let mut log = Self {
            file,
            size: 0,
            next_offset: 0,
            entries: Vec::new(),
            producers: BTreeMap::new(),
            open: BTreeMap::new(),
            aborted: Vec::new(),
        };
        let mut head = [0; batch::HEADER];
        while log.size + batch::HEADER as u64 <= length && log.file.read_exact_at(&mut head, log.size).is_ok() {
            let Some(header) = Header::read(&head).filter(|header| log.size + header.size as u64 <= length) else {
                break;
            };
            let mut bytes = vec![0; header.size];
            let whole = log.file.read_exact_at(&mut bytes, log.size).is_ok();
            if !whole || !batch::is_sound(&bytes, &header) || header.base_offset < log.next_offset {
                break;
            }
            log.remember(header, &bytes);
        }
        if log.size < length {
            tracing::warn!(path = %path.display(), bytes = length - log.size, "cutting off a torn batch");
            log.file.set_len(log.size).map_err(state::state_error(path, "cannot cut off a torn batch"))?;
        }
        Ok(log)
    }

    pub(super) fn next_offset(&self) -> i64 {
        self.next_offset
    }

    /// Everything below it belongs to no open transaction.
    pub(super) fn stable_offset(&self) -> i64 {
        self.open.values().copied().min().unwrap_or(self.next_offset)
    }

    /// The largest producer id in the log.
    pub(super) fn largest_producer(&self) -> i64 {
        self.producers.keys().next_back().copied().unwrap_or(-1)
    }

    /// Appends the batches of a produce request; returns the first one's base offset. A repeat is not appended again.
    pub(super) fn append(&mut self, records: &[u8]) -> Result<i64, Refused> {
        let mut rest = records;
        let mut first = None;
        while !rest.is_empty() {
            let header = Header::read(rest).filter(|header| rest.len() >= header.size).ok_or(Refused::Corrupt)?;
            let (bytes, after) = rest.split_at(header.size);
            if !batch::is_sound(bytes, &header) || header.last_delta < 0 {
                return Err(Refused::Corrupt);
            }
            let base = match self.repeat(&header)? {
                Some(base) => base,
                None => self.write(bytes.to_vec())?,
            };
            first.get_or_insert(base);
            rest = after;
        }
        first.ok_or(Refused::Corrupt)
    }

    /// Writes the marker that ends a producer's transaction.
    pub(super) fn end_transaction(
        &mut self,
        producer_id: i64,
        epoch: i16,
        commit: bool,
        now_ms: i64,
    ) -> Result<(), Refused> {
        self.write(batch::control(producer_id, epoch, commit, now_ms)).map(|_| ())
    }

    /// The offset at which this batch stands already; an error when it does not follow.
    fn repeat(&self, header: &Header) -> Result<Option<i64>, Refused> {
        if header.producer_id < 0 {
            return Ok(None);
        }
        let Some(producer) = self.producers.get(&header.producer_id) else { return Ok(None) };
        if header.producer_epoch < producer.epoch {
            return Err(Refused::FencedEpoch);
        }
        if header.producer_epoch > producer.epoch {
            return if header.base_sequence == 0 { Ok(None) } else { Err(Refused::OutOfOrder) };
        }
        let last_sequence = next_sequence(header.base_sequence, header.last_delta);
        let known =
            producer.window.iter().find(|(base, last, _)| (*base, *last) == (header.base_sequence, last_sequence));
        if let Some((_, _, offset)) = known {
            return Ok(Some(*offset));
        }
        match producer.window.back() {
            Some((_, last, _)) if next_sequence(*last, 1) != header.base_sequence => Err(Refused::OutOfOrder),
            _ => Ok(None),
        }
    }

    fn write(&mut self, mut bytes: Vec<u8>) -> Result<i64, Refused> {
        let base = self.next_offset;
        batch::place(&mut bytes, base);
        if let Err(error) = self.file.write_all_at(&bytes, self.size) {
            // Whatever was written of it is overwritten by the next append, or cut off at the next start.
            return Err(Refused::Disk(error));
        }
        let header = Header::read(&bytes).ok_or(Refused::Corrupt)?;
        self.remember(header, &bytes);
        Ok(base)
    }

    fn remember(&mut self, header: Header, bytes: &[u8]) {
        self.entries.push(Entry { header, at: self.size });
        self.size += header.size as u64;
        self.next_offset = header.last_offset() + 1;
        if header.producer_id < 0 {
            return;
        }
        let producer = self.producers.entry(header.producer_id).or_default();
        if header.producer_epoch != producer.epoch {
            *producer = Producer { epoch: header.producer_epoch, window: VecDeque::new() };
        }
        if header.is_control() {
            if let Some(first_offset) = self.open.remove(&header.producer_id).filter(|_| !batch::is_commit(bytes)) {
                self.aborted.push(Aborted {
                    producer_id: header.producer_id,
                    first_offset,
                    last_offset: header.base_offset,
                });
            }
            return;
        }
        producer.window.push_back((
            header.base_sequence,
            next_sequence(header.base_sequence, header.last_delta),
            header.base_offset,
        ));
        if producer.window.len() > WINDOW {
            producer.window.pop_front();
        }
        if header.is_transactional() {
            self.open.entry(header.producer_id).or_insert(header.base_offset);
        }
    }

    /// Whole batches from `offset` on, below `end`, up to `max_bytes` but at least one.
    pub(super) fn fetch(&self, offset: i64, end: i64, max_bytes: usize, committed: bool) -> std::io::Result<Fetched> {
        let start = self.entries.partition_point(|entry| entry.header.last_offset() < offset);
        let mut size = 0;
        let mut upto = offset;
        for entry in self.entries[start..].iter().take_while(|entry| entry.header.base_offset < end) {
            if size > 0 && size + entry.header.size > max_bytes {
                break;
            }
            size += entry.header.size;
            upto = entry.header.last_offset() + 1;
        }
        let mut records = BytesMut::zeroed(size);
        if size > 0 {
            self.file.read_exact_at(&mut records, self.entries[start].at)?;
        }
        let overlaps = |aborted: &&Aborted| committed && aborted.first_offset < upto && aborted.last_offset >= offset;
        Ok(Fetched { records: records.freeze(), aborted: self.aborted.iter().filter(overlaps).copied().collect() })
    }

    /// Bytes from `offset` to `end`, for a fetch that waits for some.
    pub(super) fn bytes_between(&self, offset: i64, end: i64) -> u64 {
        let start = self.entries.partition_point(|entry| entry.header.last_offset() < offset);
        let after = self.entries.partition_point(|entry| entry.header.base_offset < end);
        let at = |index: usize| self.entries.get(index).map_or(self.size, |entry| entry.at);
        at(after.max(start)) - at(start)
    }

    /// (timestamp, offset) of the first batch whose records reach `timestamp`.
    pub(super) fn offset_for_time(&self, timestamp: i64) -> Option<(i64, i64)> {
        let entry =
            self.entries.iter().find(|entry| !entry.header.is_control() && entry.header.max_timestamp >= timestamp)?;
        Some((entry.header.base_timestamp.max(timestamp.min(entry.header.max_timestamp)), entry.header.base_offset))
    }
}

/// Sequences wrap to zero after the largest.
fn next_sequence(sequence: i32, step: i32) -> i32 {
    ((i64::from(sequence) + i64::from(step)) % (i64::from(i32::MAX) + 1)) as i32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A batch without records: the log looks at headers only.
    fn data(producer_id: i64, epoch: i16, sequence: i32, records: i32, transactional: bool) -> Vec<u8> {
        let mut bytes = batch::control(producer_id, epoch, true, 5);
        bytes[21..23].copy_from_slice(&(if transactional { 0x10i16 } else { 0 }).to_be_bytes());
        bytes[23..27].copy_from_slice(&(records - 1).to_be_bytes());
        bytes[53..57].copy_from_slice(&sequence.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    fn folder() -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("flux-log-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn a_repeat_is_acknowledged_and_not_appended_and_a_gap_is_refused() {
        let mut log = Log::open(&folder().join("0.log")).unwrap();
        assert_eq!(log.append(&data(1, 0, 0, 10, false)).unwrap(), 0);
        assert_eq!(log.append(&data(1, 0, 10, 5, false)).unwrap(), 10);
        assert_eq!(log.append(&data(1, 0, 0, 10, false)).unwrap(), 0, "repeat");
        assert_eq!(log.next_offset(), 15);
        assert!(matches!(log.append(&data(1, 0, 16, 1, false)), Err(Refused::OutOfOrder)));
        assert_eq!(log.append(&data(1, 1, 0, 1, false)).unwrap(), 15);
        assert!(matches!(log.append(&data(1, 0, 15, 1, false)), Err(Refused::FencedEpoch)));
    }

    #[test]
    fn transactions_and_torn_batches_survive_a_restart() {
        let path = folder().join("0.log");
        {
            let mut log = Log::open(&path).unwrap();
            log.append(&data(1, 0, 0, 10, true)).unwrap();
            log.end_transaction(1, 0, false, 9).unwrap();
            log.append(&data(2, 0, 0, 4, true)).unwrap();
            log.append(&data(3, 0, 0, 1, false)).unwrap();
            assert_eq!((log.stable_offset(), log.next_offset()), (11, 16));
        }
        let torn = data(3, 0, 1, 7, false);
        let length = std::fs::metadata(&path).unwrap().len();
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&torn[..torn.len() - 3], length).unwrap();
        let mut log = Log::open(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), length, "the torn batch is gone");
        assert_eq!((log.stable_offset(), log.next_offset()), (11, 16));
        let fetched = log.fetch(0, log.stable_offset(), 1 << 20, true).unwrap();
        assert_eq!(fetched.aborted.len(), 1);
        assert_eq!((fetched.aborted[0].producer_id, fetched.aborted[0].first_offset), (1, 0));
        log.end_transaction(2, 0, true, 9).unwrap();
        assert_eq!(log.stable_offset(), 17);
        assert!(log.fetch(11, 17, 1 << 20, true).unwrap().aborted.is_empty());
    }
}
