//! Tracing: lines for a person on a terminal, JSON for a machine otherwise; always on stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts tracing with a filter such as `info` or `info,flux_runner=debug`.
///
/// # Errors
/// A sentence when the filter does not parse.
pub fn start(filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        format!("log.filter is {filter:?}: {error}; use a level such as info, or info,flux_runner=debug")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    result.map_err(|error| error.to_string())
}

/// An error with its causes, for whoever prints it. Our own `Display` never repeats the cause; where a library's does,
/// the cause is not said twice.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    for cause in std::iter::successors(error.source(), |error| error.source()).map(ToString::to_string) {
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}
