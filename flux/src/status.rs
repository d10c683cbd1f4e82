//! How a long command shows its work: a bar on a terminal, a JSON line a second when piped.

use std::{
    io::{IsTerminal, Write},
    time::{Duration, Instant},
};

use flux_service::{health::State, usage};
use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::roles::STATUS_INTERVAL;

/// One moment of a role.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    /// Which role.
    pub(crate) role: String,
    /// Rows so far.
    pub(crate) rows: u64,
    /// Rows when it is done, where that is known.
    pub(crate) target: Option<u64>,
    /// Rows a second, over the last seconds.
    pub(crate) rows_per_second: f64,
    /// How far behind: seconds for the producer, records for a sink.
    pub(crate) lag: f64,
    /// Health.
    pub(crate) health: String,
    /// Everything that was due is done.
    pub(crate) caught_up: bool,
    /// CPU time of the process, seconds.
    pub(crate) cpu_seconds: f64,
    /// Largest resident set, MiB.
    pub(crate) peak_mib: f64,
}

/// What a role knows of itself; the rest is computed.
pub(crate) struct Snapshot {
    pub(crate) rows: u64,
    pub(crate) target: Option<u64>,
    pub(crate) lag: f64,
    pub(crate) health: State,
    pub(crate) caught_up: bool,
}

/// Shows a role until the task is aborted, and once more at the end.
pub(crate) struct Reporter {
    role: String,
    bar: Option<ProgressBar>,
    last: (Instant, u64),
    rate: f64,
}

impl Reporter {
    pub(crate) fn new(role: &str, target: Option<u64>) -> Self {
        let bar = std::io::stdout().is_terminal().then(|| bar(role, target));
        Self { role: role.into(), bar, last: (Instant::now(), 0), rate: 0.0 }
    }

    /// Calls `snapshot` again and again.
    pub(crate) async fn run(mut self, snapshot: impl Fn() -> Snapshot) {
        loop {
            tokio::time::sleep(STATUS_INTERVAL).await;
            self.show(&snapshot());
        }
    }

    /// Shows one moment.
    pub(crate) fn show(&mut self, now: &Snapshot) {
        let elapsed = self.last.0.elapsed().as_secs_f64().max(0.001);
        let speed = now.rows.saturating_sub(self.last.1) as f64 / elapsed;
        self.rate = if self.last.1 == 0 { speed } else { 0.5 * self.rate + 0.5 * speed };
        self.last = (Instant::now(), now.rows);
        if let Some(bar) = &self.bar {
            bar.set_position(now.rows);
            bar.set_message(format!("{}  lag {:.0}", now.health.as_str(), now.lag));
            return;
        }
        let usage = usage::current();
        let status = Status {
            role: self.role.clone(),
            rows: now.rows,
            target: now.target,
            rows_per_second: (self.rate * 10.0).round() / 10.0,
            lag: now.lag,
            health: now.health.as_str().into(),
            caught_up: now.caught_up,
            cpu_seconds: usage.cpu_seconds,
            peak_mib: (usage.peak_mib * 10.0).round() / 10.0,
        };
        let line = serde_json::to_string(&status).expect("a status is plain data");
        // Nobody reads any more: that is no reason to stop the work.
        writeln!(std::io::stdout(), "{line}").ok();
    }
}

/// A bar with rate and ETA; without a target, a counter.
pub(crate) fn bar(role: &str, target: Option<u64>) -> ProgressBar {
    let template = match target {
        Some(_) => "{prefix:<14} {bar:30} {human_pos:>12}/{human_len} {per_sec:>14} ETA {eta:>5}  {msg}",
        None => "{prefix:<14} {human_pos:>12} rows {per_sec:>14}  {msg}",
    };
    let bar = target.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
    bar.set_style(ProgressStyle::with_template(template).expect("the template is ours"));
    bar.set_prefix(role.to_string());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}
