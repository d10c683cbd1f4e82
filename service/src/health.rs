//! Health from progress.
//!
//! A process that waits for the next quarter of an hour is IDLE, not broken; one that has work and does not move is
//! BUFFERING, then STALLED. Connectivity is not asked: a connected process that moves nothing is not ready.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use serde::Serialize;

/// What a role is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum State {
    /// Not yet at work.
    Starting,
    /// Work is pending, and some became durable lately.
    Healthy,
    /// Work is pending and nothing became durable for a while; nothing is lost.
    Buffering,
    /// The same, for so long that a person should look.
    Stalled,
    /// No work is pending.
    Idle,
}

impl State {
    /// As printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "STARTING",
            Self::Healthy => "HEALTHY",
            Self::Buffering => "BUFFERING",
            Self::Stalled => "STALLED",
            Self::Idle => "IDLE",
        }
    }
}

/// After how long without progress pending work counts as buffering, and as stalled.
#[derive(Debug, Clone, Copy)]
pub struct Thresholds {
    /// To BUFFERING.
    pub buffering: Duration,
    /// To STALLED.
    pub stalled: Duration,
}

impl Default for Thresholds {
    /// 60 s and 300 s.
    fn default() -> Self {
        Self { buffering: Duration::from_secs(60), stalled: Duration::from_secs(300) }
    }
}

#[derive(Debug)]
struct Inner {
    started: bool,
    pending: bool,
    since: Instant,
}

/// Shared by a role and its HTTP server.
#[derive(Debug, Clone)]
pub struct Health {
    inner: Arc<Mutex<Inner>>,
    thresholds: Thresholds,
}

impl Health {
    /// A role that is starting.
    pub fn new(thresholds: Thresholds) -> Self {
        let inner = Inner { started: false, pending: false, since: Instant::now() };
        Self { inner: Arc::new(Mutex::new(inner)), thresholds }
    }

    fn edit(&self, change: impl FnOnce(&mut Inner)) {
        change(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Whether there is work that is not durable yet. The clock of BUFFERING starts when work first appears.
    pub fn pending(&self, pending: bool) {
        self.edit(|inner| {
            if pending && !inner.pending {
                inner.since = Instant::now();
            }
            inner.started = true;
            inner.pending = pending;
        });
    }

    /// Something became durable just now.
    pub fn progressed(&self) {
        self.edit(|inner| {
            inner.started = true;
            inner.since = Instant::now();
        });
    }

    /// The state now.
    pub fn state(&self) -> State {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let quiet = inner.since.elapsed();
        match (inner.started, inner.pending) {
            (false, _) => State::Starting,
            (true, false) => State::Idle,
            (true, true) if quiet >= self.thresholds.stalled => State::Stalled,
            (true, true) if quiet >= self.thresholds.buffering => State::Buffering,
            (true, true) => State::Healthy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_work_that_does_not_move_buffers_then_stalls_and_idleness_is_neither() {
        let thresholds = Thresholds { buffering: Duration::from_millis(20), stalled: Duration::from_millis(60) };
        let health = Health::new(thresholds);
        assert_eq!(health.state(), State::Starting);
        health.pending(false);
        std::thread::sleep(Duration::from_millis(70));
        assert_eq!(health.state(), State::Idle, "quiet without work is idle");
        health.pending(true);
        assert_eq!(health.state(), State::Healthy, "the clock starts with the work");
        std::thread::sleep(Duration::from_millis(25));
        assert_eq!(health.state(), State::Buffering);
        std::thread::sleep(Duration::from_millis(45));
        assert_eq!(health.state(), State::Stalled);
        health.progressed();
        assert_eq!(health.state(), State::Healthy);
    }
}
