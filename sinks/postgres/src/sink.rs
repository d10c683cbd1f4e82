//! Claim: a new epoch for the partition, which ends the old one.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use flux_runner::contract::{Claim, Durable, Error, Sink, topic_replaced};
use flux_schemas::{
    row::Table,
    source::{Position, Source},
};
use tokio::sync::{Mutex, OnceCell, watch};
use tokio_postgres::{Client, error::SqlState, types::ToSql};

use crate::{
    connect::{classify, connect},
    schema,
    settings::PostgresSettings,
    writer::PostgresWriter,
};

/// How long a claim waits for the owner's open transaction before it ends that owner's connection.
const OWNER_PATIENCE: Duration = Duration::from_secs(3);

/// The destination.
#[derive(Debug)]
pub struct PostgresSink {
    settings: PostgresSettings,
    table: &'static Table,
    name: Arc<str>,
    days: Arc<Days>,
}

/// The day partitions that are known to exist, and a connection of their own to make more.
#[derive(Debug)]
pub(crate) struct Days {
    settings: PostgresSettings,
    table: &'static Table,
    schema: OnceCell<()>,
    known: Mutex<(BTreeSet<i64>, Option<Client>)>,
}

impl Days {
    /// Makes sure of partitions for `days`.
    pub(crate) async fn ensure(&self, days: &BTreeSet<i64>) -> Result<(), Error> {
        let mut state = self.known.lock().await;
        let (known, connection) = &mut *state;
        let missing: Vec<i64> = days.difference(known).copied().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let client = match connection.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => connect(&self.settings).await?,
        };
        schema::ensure_days(&client, self.table, &missing).await?;
        known.extend(missing);
        *connection = Some(client);
        Ok(())
    }
}

impl PostgresSink {
    /// A sink of `table` called `name`; positions of different names are apart.
    pub fn new(settings: PostgresSettings, table: &'static Table, name: &str) -> Self {
        let days = Days { settings: settings.clone(), table, schema: OnceCell::new(), known: Mutex::default() };
        Self { settings, table, name: name.into(), days: Arc::new(days) }
    }
}

impl Sink for PostgresSink {
    type Writer = PostgresWriter;

    async fn claim(&self, source: &Source) -> Result<Claim<PostgresWriter>, Error> {
        let client = connect(&self.settings).await?;
        self.days.schema.get_or_try_init(|| schema::ensure(&client, self.table)).await?;
        if self.settings.realtime {
            schema::ensure_latest(&client).await?;
        }
        let (epoch, next) = take_over(&client, &self.name, source).await?;
        let position = next.map(|next| Position(next as u64));
        let (report, durable) = watch::channel(Durable::At(position.unwrap_or(Position(0))));
        let writer = PostgresWriter::new(
            client,
            self.settings.clone(),
            self.name.clone(),
            self.table,
            source.clone(),
            epoch,
            position,
            self.days.clone(),
            report,
        );
        Ok(Claim { writer, position, durable })
    }
}

/// Increments the epoch and reads the position, once no transaction of the owner is open.
async fn take_over(client: &Client, sink: &str, source: &Source) -> Result<(i64, Option<i64>), Error> {
    let claim = "insert into flux_positions as p (sink, cluster_id, topic, partition, topic_id, epoch, owner_pid)
                 values ($1, $2, $3, $4, $5, 1, pg_backend_pid())
                 on conflict (sink, cluster_id, topic, partition)
                 do update set epoch = p.epoch + 1, owner_pid = pg_backend_pid() where p.topic_id = excluded.topic_id
                 returning epoch, next";
    let with_topic: [&(dyn ToSql + Sync); 5] =
        [&sink, &&*source.cluster_id, &&*source.topic, &source.partition.0, &&*source.topic_id];
    let key = &with_topic[..4];
    for _ in 0..10 {
        client.batch_execute(&format!("set lock_timeout = {}", OWNER_PATIENCE.as_millis())).await.map_err(classify)?;
        match client.query_opt(claim, &with_topic).await {
            Ok(Some(row)) => return Ok((row.get(0), row.get(1))),
            Ok(None) => {
                let theirs = client
                    .query_one("select topic_id from flux_positions where sink = $1 and cluster_id = $2 and topic = $3 and partition = $4", key)
                    .await
                    .map_err(classify)?;
                return Err(topic_replaced(source, theirs.get(0)));
            }
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                // A frozen owner holds the row in a transaction that it will not finish: end its connection.
                let ended = client
                    .query_opt(
                        "select pg_terminate_backend(a.pid) from flux_positions p join pg_stat_activity a
                         on a.pid = p.owner_pid and a.usename = current_user and a.application_name = 'flux' and a.xact_start is not null
                         where sink = $1 and cluster_id = $2 and topic = $3 and partition = $4",
                        key,
                    )
                    .await
                    .map_err(classify)?;
                tracing::warn!(%source, ended = ended.is_some(), "the owner's transaction blocks the claim");
            }
            Err(error) => return Err(classify(error)),
        }
    }
    Err(Error::unavailable(format!("{source}: the owner's transaction does not end")))
}
