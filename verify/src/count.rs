//! Two bits a reading, in pages that come and go.
//!
//! A page is made by its first row and gives its memory back when every reading in it was counted exactly once; a
//! later row brings it back. Places that are roughly in time order keep only a few pages alive.

use std::collections::BTreeMap;

const PAGE: u64 = 65_536;
/// Counters above two live apart; more of them than this, and the place is not countable.
const OVERFLOW_LIMIT: usize = 1_000_000;

#[derive(Debug)]
enum Page {
    /// Every reading once.
    Complete,
    /// Two bits each; `once` counters stand at one, none above, while `clean`.
    Open { bits: Box<[u64]>, once: u32, clean: bool },
}

/// Counts by dense index.
#[derive(Debug, Default)]
pub struct Counts {
    pages: BTreeMap<u64, Page>,
    /// Counts of three and more.
    overflow: BTreeMap<u64, u64>,
    uncountable: bool,
}

impl Counts {
    /// Counts one row.
    pub fn add(&mut self, index: u64) {
        let (number, slot) = (index / PAGE, index % PAGE);
        let page = self.pages.entry(number).or_insert_with(|| Page::Open {
            bits: vec![0; PAGE as usize / 32].into(),
            once: 0,
            clean: true,
        });
        if matches!(page, Page::Complete) {
            *page = Page::Open {
                bits: vec![0x5555_5555_5555_5555; PAGE as usize / 32].into(),
                once: PAGE as u32,
                clean: true,
            };
        }
        let Page::Open { bits, once, clean } = page else { return };
        let (word, shift) = ((slot / 32) as usize, (slot % 32) * 2);
        match bits[word] >> shift & 3 {
            0 => {
                bits[word] |= 1 << shift;
                *once += 1;
                if *once == PAGE as u32 && *clean {
                    *page = Page::Complete;
                }
            }
            1 => {
                bits[word] ^= 3 << shift;
                *clean = false;
            }
            2 => {
                bits[word] |= 3 << shift;
                self.overflow.insert(index, 3);
            }
            _ => *self.overflow.entry(index).or_insert(3) += 1,
        }
        self.uncountable |= self.overflow.len() > OVERFLOW_LIMIT;
    }

    /// How often the index was counted.
    pub fn get(&self, index: u64) -> u64 {
        match self.pages.get(&(index / PAGE)) {
            None => 0,
            Some(Page::Complete) => 1,
            Some(Page::Open { bits, .. }) => match bits[(index % PAGE / 32) as usize] >> (index % 32 * 2) & 3 {
                3 => self.overflow.get(&index).copied().unwrap_or(3),
                count => count,
            },
        }
    }

    /// Whether every index of [index, index + PAGE) that lies in this page was counted once, without looking at each.
    pub fn complete_until(&self, index: u64) -> Option<u64> {
        matches!(self.pages.get(&(index / PAGE)), Some(Page::Complete)).then_some((index / PAGE + 1) * PAGE)
    }

    /// So many readings were found three times and more that counting was given up.
    pub fn uncountable(&self) -> bool {
        self.uncountable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_through_collapse_and_overflow() {
        let mut counts = Counts::default();
        for index in (0..3 * PAGE).rev() {
            counts.add(index);
        }
        assert_eq!(counts.complete_until(5), Some(PAGE));
        assert!(counts.pages.values().all(|page| matches!(page, Page::Complete)));
        for _ in 0..4 {
            counts.add(PAGE + 7);
        }
        assert_eq!(counts.complete_until(PAGE), None);
        for (index, expected) in [(PAGE + 7, 5), (PAGE + 6, 1), (PAGE + 8, 1), (0, 1), (3 * PAGE, 0)] {
            assert_eq!(counts.get(index), expected, "{index}");
        }
        counts.add(9 * PAGE + 1);
        counts.add(9 * PAGE + 1);
        assert_eq!(counts.get(9 * PAGE + 1), 2);
        assert_eq!(counts.get(9 * PAGE), 0);
    }
}
