//! Files in which the local Snowpipe emulator keeps a table.
//!
//! ```text
//! <root>/<database>/<schema>/<pipe>/<channel>/000000000000.ndjson.zst     one committed append each
//! <root>/<database>/<schema>/<pipe>/<channel>/channel.json                [`ChannelState`], replaced by rename
//! ```
//! A data file counts only once `channel.json` says so; a crash between the two leaves a file that the next commit
//! overwrites.

use serde::{Deserialize, Serialize};

/// Name of the state file.
pub const STATE_FILE: &str = "channel.json";

/// Name of the data file with this number.
pub fn data_file(number: u64) -> String {
    format!("{number:012}.ndjson.zst")
}

/// A path segment for a name that may hold anything.
pub fn segment(name: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '_' | '-' | '.');
    let text: String = name.chars().map(|letter| if plain(letter) { letter } else { '~' }).collect();
    if text.starts_with('.') { format!("~{text}") } else { text }
}

/// What the service remembers of a channel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelState {
    /// Channel name as opened.
    pub channel: String,
    /// Incremented by every open: fences older writers.
    pub client_sequencer: u64,
    /// Offset token of the newest committed rows.
    pub committed_token: Option<String>,
    /// Data files that count: numbers below this.
    pub files: u64,
    /// Rows committed over the channel's life.
    pub rows_inserted: u64,
    /// Rows parsed over the channel's life.
    pub rows_parsed: u64,
    /// Rows refused over the channel's life.
    pub rows_error_count: u64,
    /// Why the last row was refused.
    pub last_error_message: Option<String>,
    /// When it was first opened, ms since the Unix epoch.
    pub created_on_ms: u64,
}
