//! Claim, and the poller that says what is durable.

use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::{Duration, Instant},
};

use flux_runner::contract::{Claim, Durable, Error, Sink, topic_replaced};
use flux_schemas::{
    layout::token::{self, Token},
    source::{Position, Source},
};
use flux_service::logging::chain;
use prometheus::{Gauge, IntCounter, Registry};
use tokio::sync::watch;

use crate::{
    client::{self, ChannelStatus, Client},
    settings::SnowpipeSettings,
    writer::SnowpipeWriter,
};

/// How long a claim waits for the older writer's rows to commit before it throws them away; they are appended again.
const UNCOMMITTED_PATIENCE: Duration = Duration::from_secs(120);
/// Channels in one question; the service's limit is not documented.
const CHANNELS_PER_QUESTION: usize = 100;

/// The destination.
#[derive(Debug)]
pub struct SnowpipeSink {
    client: Arc<Client>,
    name: String,
    channels: Arc<Channels>,
}

/// The channels that are open in this process.
#[derive(Debug)]
struct Channels {
    rows_error: IntCounter,
    server_latency: Gauge,
    open: Mutex<Vec<Weak<Channel>>>,
    /// Rows that the service refused: a person must look before the sink goes on.
    refused: Mutex<Option<String>>,
}

impl Channels {
    fn new(metrics: &Registry) -> Result<Self, prometheus::Error> {
        let channels = Self {
            rows_error: IntCounter::new(
                "flux_snowpipe_channel_rows_error_total",
                "Rows that the service refused after it had accepted them.",
            )?,
            server_latency: Gauge::new(
                "flux_snowpipe_server_latency_seconds",
                "Mean time from accepted to committed, as the service measures it; the slowest channel of the last poll.",
            )?,
            open: Mutex::default(),
            refused: Mutex::default(),
        };
        metrics.register(Box::new(channels.rows_error.clone()))?;
        metrics.register(Box::new(channels.server_latency.clone()))?;
        Ok(channels)
    }

    /// Rows were refused; said once, and the sink does not go on.
    fn refuse(&self, rows: u64, what: &str) {
        tracing::error!(refused = what, "rows refused by the service");
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.is_none() {
            self.rows_error.inc_by(rows);
            *refused = Some(what.into());
        }
    }
}

/// An open channel, shared by its writer and the poller.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) name: String,
    pub(crate) source: Source,
    report: watch::Sender<Durable>,
    errors_at_open: u64,
    /// The newest accepted position, and since when something accepted is not committed.
    accepted: Mutex<(Position, Instant)>,
}

impl Channel {
    /// Rows up to `position` were accepted.
    pub(crate) fn accepted(&self, position: Position) {
        let committed = match &*self.report.borrow() {
            Durable::At(committed) => *committed,
            Durable::Failed(_) => return,
        };
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        let since = if accepted.0 <= committed { Instant::now() } else { accepted.1 };
        *accepted = (position, since);
    }

    fn fail(&self, reason: String) {
        self.report.send_replace(Durable::Failed(reason.into()));
    }

    /// Takes in what the service says; monotone.
    fn observe(&self, status: &ChannelStatus, commit_timeout: Duration) {
        if status.channel_status_code != "SUCCESS" {
            return self.fail(format!("channel {}: {}", self.name, status.channel_status_code));
        }
        let committed = status.last_committed_offset_token.as_deref().and_then(Token::parse);
        let position = match committed {
            Some(token) if token.identity == self.source.identity() => token.next,
            Some(token) => {
                return self.fail(format!("channel {}: its token belongs to identity {}", self.name, token.identity));
            }
            None => Position(0),
        };
        let moved = self.report.send_if_modified(|durable| match durable {
            Durable::At(known) if *known < position => {
                *known = position;
                true
            }
            _ => false,
        });
        let mut accepted = self.accepted.lock().unwrap_or_else(PoisonError::into_inner);
        if moved {
            accepted.1 = Instant::now();
        }
        if accepted.0 > position && accepted.1.elapsed() > commit_timeout {
            // A broken pipe goes on answering 200 and drops the rows.
            self.fail(format!(
                "channel {}: rows were accepted {} s ago and are not committed",
                self.name,
                accepted.1.elapsed().as_secs()
            ));
        }
    }
}

impl SnowpipeSink {
    /// A sink called `name`; channels of different names are apart. Starts the poller, which ends with the sink.
    ///
    /// # Errors
    /// [`Error::Broken`] when key or certificate authority cannot be used.
    pub fn new(settings: SnowpipeSettings, name: &str, metrics: &Registry) -> Result<Self, Error> {
        let client = Arc::new(Client::new(settings.clone()).map_err(classify)?);
        let channels = Channels::new(metrics)
            .map_err(|error| Error::broken(format!("metrics: {error}"), "start each sink in a process of its own"))?;
        let channels = Arc::new(channels);
        tokio::spawn(poll(client.clone(), Arc::downgrade(&channels), settings));
        Ok(Self { client, name: name.into(), channels })
    }
}

impl Sink for SnowpipeSink {
    type Writer = SnowpipeWriter;

    async fn claim(&self, source: &Source) -> Result<Claim<SnowpipeWriter>, Error> {
        if let Some(refused) = self.channels.refused.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(Error::broken(
                refused,
                "look into the pipe's error table (ERROR_LOGGING = TRUE), mend the table, and start the sink again; verify names the rows",
            ));
        }
        let name = token::channel(&self.name, source);
        let started = Instant::now();
        let mut wait = Duration::from_millis(500);
        let opened = loop {
            let discard = started.elapsed() > UNCOMMITTED_PATIENCE;
            match self.client.open(&name, discard).await {
                Ok(opened) => break opened,
                Err(client::Error::Uncommitted) => {
                    tracing::info!(channel = name, "the channel has uncommitted rows: waiting for them");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(Duration::from_secs(10));
                }
                Err(error) => return Err(classify(error)),
            }
        };
        if opened.channel_status.channel_status_code != "SUCCESS" {
            return Err(Error::unavailable(format!(
                "channel {name} opened with {}",
                opened.channel_status.channel_status_code
            )));
        }
        let position = match &opened.channel_status.last_committed_offset_token {
            None => None,
            Some(text) => match Token::parse(text) {
                Some(token) if token.identity == source.identity() => Some(token.next),
                Some(token) => return Err(topic_replaced(source, &format!("(identity {})", token.identity))),
                None => {
                    return Err(Error::broken(
                        format!("channel {name} holds the offset token {text:?}, which no flux wrote"),
                        "give the sink another name (sink.name)",
                    ));
                }
            },
        };
        let (report, durable) = watch::channel(Durable::At(position.unwrap_or(Position(0))));
        let channel = Arc::new(Channel {
            name,
            source: source.clone(),
            report,
            errors_at_open: opened.channel_status.rows_error_count,
            accepted: Mutex::new((Position(0), Instant::now())),
        });
        self.channels.open.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(&channel));
        let writer = SnowpipeWriter::new(self.client.clone(), channel, opened.next_continuation_token, position);
        Ok(Claim { writer, position, durable })
    }
}

/// What the runner should do about a client's error.
pub(crate) fn classify(error: client::Error) -> Error {
    match error {
        client::Error::Retry { after, .. } => Error::Unavailable { after, source: error.into() },
        client::Error::Uncommitted => Error::unavailable(error),
        client::Error::Channel { .. } => Error::Fenced(error.to_string()),
        client::Error::Refused { doing, answer, fix } => Error::broken(format!("Snowpipe: {doing}: {answer}"), fix),
    }
}

/// One question for all channels, again and again; idle channels too, because an idle channel can become invalid.
async fn poll(client: Arc<Client>, channels: Weak<Channels>, settings: SnowpipeSettings) {
    loop {
        tokio::time::sleep(settings.poll_interval).await;
        let Some(channels) = channels.upgrade() else { return };
        let open: Vec<Arc<Channel>> = {
            let mut open = channels.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|channel| channel.strong_count() > 0);
            open.iter().filter_map(Weak::upgrade).collect()
        };
        for group in open.chunks(CHANNELS_PER_QUESTION) {
            let mut names: Vec<String> = group.iter().map(|channel| channel.name.clone()).collect();
            names.sort_unstable();
            names.dedup();
            let statuses = match client.status(&names).await {
                Ok(statuses) => statuses,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "channel status not known");
                    continue;
                }
            };
            let slowest = statuses.values().filter_map(|status| status.snowflake_avg_processing_latency_ms);
            channels.server_latency.set(slowest.fold(0.0, f64::max) / 1000.0);
            for channel in group {
                match statuses.get(&channel.name) {
                    None => channel.fail(format!("channel {} no longer exists", channel.name)),
                    Some(status) if status.rows_error_count > channel.errors_at_open => {
                        let rows = status.rows_error_count - channel.errors_at_open;
                        let reason = status.last_error_message.as_deref().unwrap_or("no reason given");
                        let refused = format!("channel {}: the service refused {rows} rows: {reason}", channel.name);
                        channels.refuse(rows, &refused);
                        channel.fail(refused);
                    }
                    Some(status) => channel.observe(status, settings.commit_timeout),
                }
            }
        }
    }
}
