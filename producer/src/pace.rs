//! When a row is due, and how fast rows may go.
//!
//! Due times are absolute: a row that is sent late does not move the next one. The rate limit only smooths; it is one
//! bucket for the whole process, so neither the number of shards nor the size of the fleet changes it.

use std::{
    num::NonZeroU32,
    sync::{PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock, DefaultClock},
};

/// Wall time, ms since the Unix epoch.
pub fn wall_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as i64)
}

/// Maps arrivals to wall time.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    speed: f64,
    wall: i64,
    virtual_start: i64,
}

impl Schedule {
    /// The real clock at speed 1; otherwise a clock that starts at `first_arrival` now and runs `speed` times as fast.
    pub fn new(speed: f64, first_arrival: i64, wall: i64) -> Self {
        Self { speed, wall, virtual_start: first_arrival }
    }

    /// Wall time at which a row with this arrival is due, ms since the Unix epoch.
    pub fn due(&self, arrival: i64) -> i64 {
        if self.speed == 1.0 {
            return arrival;
        }
        self.wall + ((arrival - self.virtual_start) as f64 / self.speed) as i64
    }

    /// Whether a row that is due then was due after the start; what was due before is back-fill.
    pub fn is_live(&self, due: i64) -> bool {
        due >= self.wall
    }

    /// Record timestamp of a row offered at `now`: its due time when it was due after the start, otherwise it is
    /// back-fill and was never due, so `now`. Never in the future.
    pub fn stamp(&self, due: i64, now: i64) -> i64 {
        if self.is_live(due) { due.min(now) } else { now }
    }
}

/// A rate limit that can be changed while it holds.
#[derive(Debug)]
pub struct RateLimit {
    state: RwLock<State>,
    clock: DefaultClock,
}

#[derive(Debug)]
struct State {
    rate: u32,
    limiter: Option<DefaultDirectRateLimiter>,
    grant: NonZeroU32,
}

impl RateLimit {
    /// Rows per second; 0 is unlimited.
    pub fn new(rate: u32) -> Self {
        Self { state: RwLock::new(State::new(rate)), clock: DefaultClock::default() }
    }

    /// Changes the limit from now on.
    pub fn set(&self, rate: u32) {
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = State::new(rate);
    }

    /// The limit, rows per second.
    pub fn rate(&self) -> u32 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).rate
    }

    /// Permission for some rows now, or how long to wait for it.
    pub fn take(&self) -> Result<u32, Duration> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Some(limiter) = &state.limiter else { return Ok(4096) };
        match limiter.check_n(state.grant) {
            Ok(Ok(())) => Ok(state.grant.get()),
            Ok(Err(not_until)) => Err(not_until.wait_time_from(self.clock.now())),
            // The bucket is never smaller than a grant.
            Err(_) => Err(Duration::from_millis(10)),
        }
    }
}

impl State {
    /// Grants of a hundredth of a second and a bucket of a twentieth: over ten seconds the burst is half a percent.
    fn new(rate: u32) -> Self {
        let grant = NonZeroU32::new((rate / 100).max(1)).expect("at least one");
        let limiter = NonZeroU32::new(rate).map(|rate| {
            let bucket = NonZeroU32::new((rate.get() / 20).max(1)).expect("at least one");
            RateLimiter::direct(Quota::per_second(rate).allow_burst(bucket))
        });
        Self { rate, limiter, grant }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// Rows granted in `period`, asked for by `threads` threads that never tire.
    fn granted(limit: &RateLimit, threads: usize, period: Duration) -> u64 {
        let end = Instant::now() + period;
        std::thread::scope(|scope| {
            let workers: Vec<_> = (0..threads)
                .map(|_| {
                    scope.spawn(|| {
                        let mut rows = 0u64;
                        while Instant::now() < end {
                            match limit.take() {
                                Ok(grant) => rows += u64::from(grant),
                                Err(wait) => std::thread::sleep(wait.min(Duration::from_millis(20))),
                            }
                        }
                        rows
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        })
    }

    #[test]
    fn a_rate_is_never_exceeded_whatever_the_number_of_threads_and_changes_at_once() {
        let limit = RateLimit::new(10_000);
        for (rate, threads) in [(10_000, 1), (10_000, 7), (50_000, 4)] {
            limit.set(rate);
            let rows = granted(&limit, threads, Duration::from_secs(1));
            // One second of rate, one bucket, and the time the threads need to notice the end.
            assert!(rows <= u64::from(rate) * 115 / 100, "{rows} rows in a second at {rate}");
            assert!(rows > 0);
        }
        assert_eq!(limit.rate(), 50_000);
    }

    #[test]
    fn due_times_are_absolute_and_stamps_never_lie_in_the_future() {
        let real = Schedule::new(1.0, 0, 1_000_000);
        assert_eq!(real.due(2_000_000), 2_000_000);
        assert_eq!(real.stamp(2_000_000, 2_000_005), 2_000_000, "live: when it was due");
        assert_eq!(real.stamp(2_000_000, 1_999_990), 1_999_990, "never in the future");
        assert_eq!(real.stamp(500_000, 1_000_100), 1_000_100, "back-fill: when it was offered");
        let fast = Schedule::new(60.0, 500_000, 1_000_000);
        assert_eq!(fast.due(500_000), 1_000_000);
        assert_eq!(fast.due(500_000 + 3_600_000), 1_000_000 + 60_000);
    }
}
