//! One unit: NDJSON, compressed once, sent as one append.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use flux_runner::contract::{Error, Fill, Record, RejectedRow, Writer};
use flux_schemas::{
    layout::{
        json::{Keys, write_row},
        token::Token,
    },
    source::Position,
};

use crate::{
    client::{Append, Client},
    sink::{Channel, classify},
};

/// A unit is cut here, uncompressed: whatever it holds, compressed it stays below the service's 4 MB.
const UNIT_BYTES: usize = 3_500_000;
/// The service takes ten requests a second and channel.
const REQUEST_INTERVAL: Duration = Duration::from_millis(100);

/// Writes one partition.
#[derive(Debug)]
pub struct SnowpipeWriter {
    client: Arc<Client>,
    channel: Arc<Channel>,
    continuation_token: String,
    from: Position,
    open: Vec<u8>,
    frozen: Option<(Position, Append)>,
    last_request: Option<Instant>,
}

impl SnowpipeWriter {
    pub(crate) fn new(
        client: Arc<Client>,
        channel: Arc<Channel>,
        continuation_token: String,
        from: Option<Position>,
    ) -> Self {
        Self {
            client,
            channel,
            continuation_token,
            from: from.unwrap_or(Position(0)),
            open: Vec::new(),
            frozen: None,
            last_request: None,
        }
    }

    fn freeze(&mut self, upto: Position) -> Result<Append, Error> {
        let rows = std::mem::take(&mut self.open);
        let body = zstd::bulk::compress(&rows, 1).map_err(Error::unavailable)?;
        Ok(Append {
            body: body.into(),
            continuation_token: self.continuation_token.clone(),
            start_offset_token: Token::new(&self.channel.source, self.from).to_string(),
            end_offset_token: Token::new(&self.channel.source, upto).to_string(),
            request_id: uuid::Uuid::new_v4().to_string(),
            attempts: 0,
        })
    }
}

impl Writer for SnowpipeWriter {
    fn push(&mut self, record: &Record<'_>) -> Result<Fill, RejectedRow> {
        // The service cannot dead-letter for us: what it could refuse is refused here.
        record.row.check_time().map_err(RejectedRow)?;
        let before = self.open.len();
        write_row(&mut self.open, Keys::Upper, &record.row, record.run, self.channel.source.partition, record.offset);
        Ok(Fill { bytes: self.open.len() - before, should_cut: self.open.len() >= UNIT_BYTES })
    }

    async fn submit(&mut self, upto: Position) -> Result<(), Error> {
        if self.frozen.is_none() {
            if self.open.is_empty() {
                // Only dead letters: an append without rows does not exist. The position passes with the next rows.
                return Ok(());
            }
            let append = self.freeze(upto)?;
            self.frozen = Some((upto, append));
        }
        if let Some(last) = self.last_request {
            tokio::time::sleep(REQUEST_INTERVAL.saturating_sub(last.elapsed())).await;
        }
        let Some((upto, append)) = &mut self.frozen else { return Ok(()) };
        self.last_request = Some(Instant::now());
        let answered = self.client.append(&self.channel.name, append).await;
        append.attempts += 1;
        self.continuation_token = answered.map_err(classify)?;
        self.from = *upto;
        self.channel.accepted(*upto);
        self.frozen = None;
        Ok(())
    }
}
