//! Bytes held, over all partitions of a process.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

/// A ceiling for the bytes between push and durable. A partition that finds it full submits what it has and stops
/// polling; Kafka keeps the rest.
#[derive(Debug, Clone)]
pub struct Budget {
    held: Arc<AtomicUsize>,
    ceiling: usize,
}

impl Budget {
    /// At most `ceiling` bytes, give or take one row a partition.
    pub fn new(ceiling: usize) -> Self {
        Self { held: Arc::default(), ceiling }
    }

    /// Whether no more should be taken.
    pub fn is_full(&self) -> bool {
        self.held() >= self.ceiling
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.held.load(Relaxed)
    }

    /// An account of one partition; what it still holds is released when it is dropped.
    pub fn account(&self) -> Account {
        Account { budget: self.clone(), held: 0 }
    }
}

/// One partition's share.
#[derive(Debug)]
pub struct Account {
    budget: Budget,
    held: usize,
}

impl Account {
    /// Takes bytes.
    pub fn charge(&mut self, bytes: usize) {
        self.held += bytes;
        self.budget.held.fetch_add(bytes, Relaxed);
    }

    /// Gives bytes back.
    pub fn release(&mut self, bytes: usize) {
        let bytes = bytes.min(self.held);
        self.held -= bytes;
        self.budget.held.fetch_sub(bytes, Relaxed);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.release(self.held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_share_the_ceiling_and_give_back_on_drop() {
        let budget = Budget::new(100);
        let mut first = budget.account();
        first.charge(60);
        {
            let mut second = budget.account();
            second.charge(40);
            assert!(budget.is_full());
            second.release(10);
            assert!(!budget.is_full());
        }
        assert_eq!(budget.held(), 60);
        first.release(1000);
        assert_eq!(budget.held(), 0);
    }
}
