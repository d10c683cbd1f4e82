//! What fails on purpose: `POST /_emulator/faults` with a list such as
//! `[{"on": "append", "answer": "503", "count": 2, "channel": "flux_snowpipe_ami.readings_0"}]`.

use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};

/// The call that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Call {
    Hostname,
    Token,
    Open,
    Append,
    Status,
}

/// How it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    #[serde(rename = "401")]
    Unauthorized,
    #[serde(rename = "409")]
    Conflict,
    #[serde(rename = "410")]
    Gone,
    #[serde(rename = "429")]
    TooMany,
    #[serde(rename = "503")]
    Unavailable,
    #[serde(rename = "500")]
    Internal,
    /// 400 with the code of a stale continuation token.
    #[serde(rename = "stale")]
    Stale,
    /// 404 with an HTML body, as a gateway gives it.
    #[serde(rename = "html_404")]
    Html,
    /// The call is carried out and answered with 503: the client does not know.
    #[serde(rename = "lost")]
    Lost,
    /// An append is answered with 200 and its rows never commit.
    #[serde(rename = "never_commit")]
    NeverCommit,
    /// An append's rows vanish while its token commits: what no service should do, and verify must find.
    #[serde(rename = "drop")]
    Drop,
}

/// A fault that is still to come.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Fault {
    on: Call,
    answer: Answer,
    #[serde(default = "once")]
    count: u32,
    #[serde(default)]
    channel: Option<String>,
}

fn once() -> u32 {
    1
}

#[derive(Debug, Default)]
pub(super) struct Faults(Mutex<Vec<Fault>>);

impl Faults {
    pub(super) fn set(&self, faults: Vec<Fault>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = faults;
    }

    pub(super) fn left(&self) -> Vec<Fault> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The fault for this call, used up once.
    pub(super) fn take(&self, on: Call, channel: Option<&str>) -> Option<Answer> {
        let mut faults = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let matches =
            |fault: &Fault| fault.on == on && (fault.channel.is_none() || fault.channel.as_deref() == channel);
        let index = faults.iter().position(matches)?;
        let answer = faults[index].answer;
        faults[index].count = faults[index].count.saturating_sub(1);
        faults.retain(|fault| fault.count > 0);
        Some(answer)
    }
}
