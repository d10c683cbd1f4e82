//! Channels: two sequencers, what is buffered, and what is committed.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use flux_schemas::layout::table_files::{ChannelState, STATE_FILE, data_file, segment};
use flux_service::{logging::chain, shutdown::Shutdown};
use serde_json::Value;

use crate::{Error, state};

/// Rows of one append, accepted and not yet committed.
struct Buffered {
    rows: Vec<u8>,
    good: u64,
    bad: u64,
    first_error: Option<String>,
    end_token: Option<String>,
    at: Instant,
    never: bool,
}

/// One channel.
struct Channel {
    state: ChannelState,
    folder: PathBuf,
    row_sequencer: u64,
    buffered: Vec<Buffered>,
    /// Continuation token and request id of the newest accepted append, for a repeat.
    last: Option<(u64, String)>,
}

/// Database, schema, pipe and channel, as in the path, in upper case but for the channel.
pub(super) type Name = [String; 4];

pub(super) struct Channels {
    channels: Mutex<BTreeMap<Name, Channel>>,
    tables: PathBuf,
    commit_delay: Duration,
    acknowledge_repeats: bool,
}

/// Why a call on a channel is refused: code and message of the service.
pub(super) enum Refused {
    Unknown,
    Uncommitted,
    Stale,
    State(Error),
}

/// What becomes of an append's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Commit,
    NeverCommit,
    Drop,
}

impl Channels {
    /// Finds what an earlier process committed.
    pub(super) fn load(tables: &Path, commit_delay: Duration, acknowledge_repeats: bool) -> Result<Self, Error> {
        state::folder(tables)?;
        let mut channels = BTreeMap::new();
        let entries = |folder: &Path| -> Vec<PathBuf> {
            std::fs::read_dir(folder)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| path.is_dir())
                .collect()
        };
        let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for database in entries(tables) {
            for schema in entries(&database) {
                for pipe in entries(&schema) {
                    for folder in entries(&pipe) {
                        let known: ChannelState = state::load(&folder.join(STATE_FILE))?;
                        let key = [name(&database), name(&schema), name(&pipe), known.channel.clone()];
                        channels.insert(
                            key,
                            Channel { state: known, folder, row_sequencer: 0, buffered: Vec::new(), last: None },
                        );
                    }
                }
            }
        }
        Ok(Self { channels: Mutex::new(channels), tables: tables.into(), commit_delay, acknowledge_repeats })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Name, Channel>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a channel: fences the older writer; uncommitted rows make it fail or are thrown away.
    pub(super) fn open(
        &self,
        name: &Name,
        offset_token: Option<String>,
        fail_on_uncommitted: bool,
    ) -> Result<(String, ChannelState), Refused> {
        let mut channels = self.lock();
        if fail_on_uncommitted && channels.get(name).is_some_and(|channel| !channel.buffered.is_empty()) {
            return Err(Refused::Uncommitted);
        }
        let folder = name.iter().fold(self.tables.clone(), |path, part| path.join(segment(part)));
        let channel = channels.entry(name.clone()).or_insert_with(|| Channel {
            state: ChannelState {
                channel: name[3].clone(),
                created_on_ms: SystemTime::now()
                    .duration_since(UNIX_EPOCH)
                    .map_or(0, |elapsed| elapsed.as_millis() as u64),
                ..ChannelState::default()
            },
            folder,
            row_sequencer: 0,
            buffered: Vec::new(),
            last: None,
        });
        channel.buffered.clear();
        channel.state.client_sequencer += 1;
        channel.row_sequencer = 0;
        channel.last = None;
        if offset_token.is_some() {
            channel.state.committed_token = offset_token;
        }
        channel.save().map_err(Refused::State)?;
        Ok((channel.continuation(), channel.state.clone()))
    }

    /// Takes rows in; returns the next continuation token.
    pub(super) fn append(
        &self,
        name: &Name,
        token: &str,
        request: &str,
        end_token: Option<String>,
        text: &[u8],
        fate: Fate,
    ) -> Result<String, Refused> {
        let mut channels = self.lock();
        let channel = channels.get_mut(name).ok_or(Refused::Unknown)?;
        let sequencers = |text: &str| {
            let (client, row) = text.split_once('_')?;
            Some((client.parse::<u64>().ok()?, row.parse::<u64>().ok()?))
        };
        let (client, row) = sequencers(token).ok_or(Refused::Stale)?;
        if client != channel.state.client_sequencer {
            return Err(Refused::Stale);
        }
        if row != channel.row_sequencer {
            let repeat = channel.last.as_ref().is_some_and(|(last, id)| *last == row && id == request);
            return if repeat && self.acknowledge_repeats { Ok(channel.continuation()) } else { Err(Refused::Stale) };
        }
        let mut buffered = Buffered {
            rows: Vec::with_capacity(text.len()),
            good: 0,
            bad: 0,
            first_error: None,
            end_token,
            at: Instant::now(),
            never: fate == Fate::NeverCommit,
        };
        for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
            match serde_json::from_slice::<Value>(line) {
                Ok(Value::Object(_)) if fate == Fate::Drop => {}
                Ok(Value::Object(_)) => {
                    buffered.rows.extend_from_slice(line);
                    buffered.rows.push(b'\n');
                    buffered.good += 1;
                }
                // A bad row never fails an append: it is counted, and the token goes on.
                Ok(_) => buffered.refuse("row is not a JSON object".into()),
                Err(error) => buffered.refuse(error.to_string()),
            }
        }
        channel.buffered.push(buffered);
        channel.last = Some((row, request.into()));
        channel.row_sequencer += 1;
        Ok(channel.continuation())
    }

    /// Status of a channel.
    pub(super) fn status(&self, name: &Name) -> Option<ChannelState> {
        self.lock().get(name).map(|channel| channel.state.clone())
    }

    /// Forgets a channel and its token; its rows stay in the table.
    pub(super) fn drop_channel(&self, name: &Name) -> Option<Result<Option<String>, Error>> {
        let mut channel = self.lock().remove(name)?;
        let token = channel.state.committed_token.take();
        // The rows were committed to the table; only the channel goes. A new channel of the name writes after them.
        channel.buffered.clear();
        let (files, sequencer) = (channel.state.files, channel.state.client_sequencer);
        channel.state = ChannelState {
            channel: channel.state.channel,
            files,
            client_sequencer: sequencer,
            ..ChannelState::default()
        };
        Some(channel.save().map(|()| token))
    }

    /// Commits what has waited long enough.
    fn commit(&self) -> Result<(), Error> {
        let mut channels = self.lock();
        for channel in channels.values_mut() {
            while channel
                .buffered
                .first()
                .is_some_and(|buffered| !buffered.never && buffered.at.elapsed() >= self.commit_delay)
            {
                channel.commit_first()?;
            }
        }
        Ok(())
    }
}

impl Buffered {
    fn refuse(&mut self, why: String) {
        self.bad += 1;
        self.first_error.get_or_insert(why);
    }
}

impl Channel {
    fn continuation(&self) -> String {
        format!("{}_{}", self.state.client_sequencer, self.row_sequencer)
    }

    fn save(&self) -> Result<(), Error> {
        state::folder(&self.folder)?;
        state::save(&self.folder.join(STATE_FILE), &self.state)
    }

    /// The rows first, then the state that makes them count.
    fn commit_first(&mut self) -> Result<(), Error> {
        let buffered = &self.buffered[0];
        let mut next = self.state.clone();
        if !buffered.rows.is_empty() {
            let path = self.folder.join(data_file(next.files));
            let bytes =
                zstd::bulk::compress(&buffered.rows, 1).map_err(state::state_error(&path, "cannot compress"))?;
            state::replace(&path, &bytes)?;
            next.files += 1;
        }
        next.rows_inserted += buffered.good;
        next.rows_parsed += buffered.good + buffered.bad;
        next.rows_error_count += buffered.bad;
        if buffered.first_error.is_some() {
            next.last_error_message = buffered.first_error.clone();
        }
        if buffered.end_token.is_some() {
            next.committed_token = buffered.end_token.clone();
        }
        state::save(&self.folder.join(STATE_FILE), &next)?;
        self.state = next;
        self.buffered.remove(0);
        Ok(())
    }
}

/// Commits again and again; a full disk delays commits and loses nothing that was acknowledged as committed.
pub(super) async fn commit_loop(channels: Arc<Channels>, mut shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = shutdown.wait() => return,
            () = tokio::time::sleep(Duration::from_millis(50)) => {}
        }
        let committing = channels.clone();
        let outcome = tokio::task::spawn_blocking(move || committing.commit()).await.expect("a commit does not panic");
        if let Err(error) = outcome {
            tracing::error!(error = chain(&error), "rows not committed yet");
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
}
