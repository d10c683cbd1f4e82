//! What this process has used, from `/proc`.

use serde::Serialize;

/// CPU and memory of this process since it started.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Usage {
    /// User and system time, seconds.
    pub cpu_seconds: f64,
    /// Largest resident set, MiB.
    pub peak_mib: f64,
}

/// Reads `/proc/self`; zeros where there is none.
pub fn current() -> Usage {
    of("self")
}

/// Reads `/proc/<process>`.
pub fn of(process: &str) -> Usage {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
    let stat = read("stat");
    // utime and stime are fields 14 and 15; the name in field 2 may hold spaces but ends at the last parenthesis.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    let status = read("status");
    let peak_kib: f64 = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0);
    // USER_HZ is 100 on every Linux ABI that Rust supports.
    Usage { cpu_seconds: ticks as f64 / 100.0, peak_mib: peak_kib / 1024.0 }
}
