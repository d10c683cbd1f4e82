//! The places, and how each is read.

mod dead_letters;
mod kafka;
mod postgres;
mod s3;
mod snowpipe;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    str::FromStr,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use flux_generator::assets::Assets;
use flux_schemas::{
    layout::table::pipe,
    row::Table,
    source::{Partition, Source},
};
use flux_service::{kafka::KafkaSettings, postgres::PostgresLogin, s3::S3Login};

use crate::{Error, expectation::Expectation, tally::Tally, verdict::PlaceVerdict};

/// A place that rows reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The readings topic.
    Kafka,
    /// `ami_interval_readings`.
    Postgres,
    /// The bronze objects.
    S3,
    /// The local Snowpipe emulator's table files.
    Snowpipe,
}

impl Place {
    /// All places, in the order of the table.
    pub const ALL: [Self; 4] = [Self::Kafka, Self::Postgres, Self::S3, Self::Snowpipe];

    /// As printed.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Postgres => "postgres",
            Self::S3 => "s3",
            Self::Snowpipe => "snowpipe",
        }
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|place| place.as_str() == name)
            .ok_or_else(|| format!("unknown place {name:?}; use kafka, postgres, s3, snowpipe or all"))
    }
}

/// Where the places are.
#[derive(Debug, Clone)]
pub struct Places {
    /// The cluster.
    pub kafka: KafkaSettings,
    /// The ledger topic.
    pub runs_topic: String,
    /// The database.
    pub postgres: Option<PostgresLogin>,
    /// The bucket.
    pub s3: Option<S3Login>,
    /// Folder of the pipe's table files: `<root>/<database>/<schema>/<pipe>`.
    pub snowpipe: Option<PathBuf>,
    /// The fleet, of runs over somebody's own.
    pub assets: Option<Assets>,
    /// Name of each sink.
    pub sink_names: BTreeMap<&'static str, String>,
}

impl Places {
    fn sink_name(&self, place: Place) -> &str {
        self.sink_names.get(place.as_str()).map_or(place.as_str(), String::as_str)
    }

    /// Reads one place and judges it, after waiting until its position has passed what the ledger had committed.
    pub(crate) async fn judge(
        &self,
        place: Place,
        table: &'static Table,
        expectation: &Arc<Expectation>,
        wait: Duration,
        scanned: &Arc<AtomicU64>,
    ) -> Result<PlaceVerdict, Error> {
        let deadline = Instant::now() + wait;
        let mut tally = {
            let (expectation, scanned) = (expectation.clone(), scanned.clone());
            tokio::task::spawn_blocking(move || Tally::new(table, expectation, scanned))
                .await
                .expect("an expectation does not panic")
        };
        if place != Place::Kafka {
            loop {
                let behind = self.behind(place, table, expectation).await?;
                if behind.is_empty() {
                    break;
                }
                if Instant::now() >= deadline {
                    for (partition, (position, end)) in behind {
                        tally.note(format!("partition {partition}: the sink is at {position}, the run ends at {end}"));
                    }
                    break;
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            let (kafka, topic) = (self.kafka.clone(), format!("ami.dead-letter.{}", self.sink_name(place)));
            let origin = topic_of(expectation, table).topic.to_string();
            tally = blocking(tally, move |tally| dead_letters::scan(&kafka, &topic, &origin, tally)).await?;
        }
        tally = match place {
            Place::Kafka => {
                let (kafka, expectation) = (self.kafka.clone(), expectation.clone());
                blocking(tally, move |tally| kafka::scan(&kafka, &expectation, tally)).await?
            }
            Place::Postgres => {
                postgres::scan(self.postgres()?, &mut tally).await?;
                tally
            }
            Place::S3 => {
                s3::scan(self.s3()?, self.sink_name(place), &topic_of(expectation, table).topic, &mut tally).await?;
                tally
            }
            Place::Snowpipe => {
                let root = self.snowpipe(table)?;
                blocking(tally, move |tally| snowpipe::scan(&root, tally)).await?
            }
        };
        Ok(tally.judge(place.as_str()))
    }

    /// Partitions whose position lies before the run's committed end, with (position, end).
    async fn behind(
        &self,
        place: Place,
        table: &'static Table,
        expectation: &Expectation,
    ) -> Result<BTreeMap<i32, (i64, i64)>, Error> {
        let name = self.sink_name(place);
        let source = topic_of(expectation, table);
        let positions = match place {
            Place::Kafka => return Ok(BTreeMap::new()),
            Place::Postgres => postgres::positions(self.postgres()?, name, &source).await?,
            Place::S3 => s3::positions(self.s3()?, name, &source, expectation.run().spec().partitions).await?,
            Place::Snowpipe => {
                snowpipe::positions(&self.snowpipe(table)?, name, &source, expectation.run().spec().partitions)?
            }
        };
        let ends = expectation.ends(table);
        Ok(ends
            .map(|(partition, end)| (partition, (positions.get(&partition).copied().unwrap_or(0), end)))
            .filter(|(_, (position, end))| position < end)
            .collect())
    }

    fn postgres(&self) -> Result<&PostgresLogin, Error> {
        self.postgres.as_ref().ok_or_else(|| Error::Unset {
            place: "postgres",
            missing: "set postgres.url_file, or leave postgres out of --at".into(),
        })
    }

    fn s3(&self) -> Result<&S3Login, Error> {
        self.s3
            .as_ref()
            .ok_or_else(|| Error::Unset { place: "s3", missing: "set s3.bucket, or leave s3 out of --at".into() })
    }

    /// The pipes of a run lie side by side.
    fn snowpipe(&self, table: &Table) -> Result<PathBuf, Error> {
        let readings = self.snowpipe.as_ref().ok_or_else(|| Error::Unset {
            place: "snowpipe",
            missing: "set snowpipe.files to the emulator's folder; verifying in a Snowflake account needs its SQL API, which this version does not speak".into(),
        })?;
        let of_readings = table.name == Table::readings().name;
        Ok(if of_readings { readings.clone() } else { readings.with_file_name(pipe(table)) })
    }
}

/// The run's topic of a table, partition 0.
fn topic_of(expectation: &Expectation, table: &Table) -> Source {
    let spec = expectation.run().spec();
    let (topic, topic_id) = spec.topic_of(table).unwrap_or_default();
    Source {
        cluster_id: spec.cluster_id.as_str().into(),
        topic: topic.into(),
        topic_id: topic_id.into(),
        partition: Partition(0),
    }
}

/// Runs a blocking scan that fills the tally.
async fn blocking(
    mut tally: Tally,
    scan: impl FnOnce(&mut Tally) -> Result<(), Error> + Send + 'static,
) -> Result<Tally, Error> {
    tokio::task::spawn_blocking(move || scan(&mut tally).map(|()| tally)).await.expect("a scan does not panic")
}
