//! Emits a run to Kafka, exactly once.
//!
//! ```text
//! RunSpec in ami.runs ─▶ a thread per owned shard: stream ─▶ pace ─▶ transaction {readings, progress} ─▶ commit
//! ```
//! Every transaction carries readings and the shard's progress, so what is committed and how far the shard has come
//! cannot differ. A restart asks the ledger, never its memory: `init_transactions` first (it finishes or aborts the
//! predecessor's transaction and fences it), then the ledger up to its high watermark, then the stream from there.
//!
//! | what happens | what follows |
//! |---|---|
//! | killed in a transaction | aborted by the successor or by timeout; the rows are generated again, identical |
//! | killed in a commit | the ledger says whether it happened |
//! | frozen past the transaction timeout | fenced; starts over from the ledger if nobody else has written meanwhile |
//! | a second producer of the same shard | one of them finds the other's progress in the ledger and stops |
//! | brokers away | sends wait, then the transaction is abandoned and tried again; nothing is dropped |
//!
//! | module | holds |
//! |---|---|
//! | [`settings`] | the keys of the role |
//! | [`ledger`] | the spec, written once |
//! | [`pace`] | when a row is due, and the rate limit |
//! | [`publish`] | transactions; the only module that names a Kafka producer |
//! | [`shard`] | the loop |
//! | [`progress`] | what the role tells the world |

pub mod ledger;
pub mod pace;
pub mod progress;
pub mod publish;
pub mod settings;
pub mod shard;

use std::sync::Arc;

use flux_generator::run::{Request, Run, TopicOfRun, TopicsOfRun};
use flux_schemas::{framing::SchemaId, row::Table, run::RunId};
use flux_service::{
    kafka::topics::{self, TopicSpec},
    logging::chain,
    registry::{self, Registry},
    shutdown::Shutdown,
};

use crate::{progress::Telemetry, settings::ProducerSettings};

/// Why a producer ends without having finished. Nothing is lost: whatever was not committed is generated again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Kafka.
    #[error(transparent)]
    Kafka(#[from] flux_service::kafka::Error),
    /// The schema registry.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The run cannot be produced by this binary, or not as asked.
    #[error(transparent)]
    Run(#[from] flux_generator::run::Error),
    /// The ledger holds what is no ledger record.
    #[error("topic {topic} holds {finding}; point kafka.runs_topic at the ledger")]
    Ledger {
        /// Ledger topic.
        topic: String,
        /// What was found.
        finding: String,
    },
    /// The run exists and is another one.
    #[error(
        "run {run} exists with {field} {theirs}, {ours} was asked for; drop the flag to go on with it, or choose another --run"
    )]
    Contradiction {
        /// Run.
        run: RunId,
        /// Setting.
        field: &'static str,
        /// In the ledger.
        theirs: String,
        /// Asked for.
        ours: String,
    },
    /// The spec could not be written.
    #[error("run {run}: its spec was not written in {attempts} attempts; the log says why each failed")]
    SpecContended {
        /// Run.
        run: RunId,
        /// How often it was tried.
        attempts: u32,
    },
    /// The topic was replaced under the run.
    #[error(
        "run {run} was written to topic {topic} with id {theirs}, which is now {ours}: the topic was deleted and created again; start a new run"
    )]
    TopicReplaced {
        /// Run.
        run: RunId,
        /// Topic.
        topic: String,
        /// In the ledger.
        theirs: String,
        /// Now.
        ours: String,
    },
    /// Another process produces the shard.
    #[error(
        "shard {shard} of run {run} is being produced by another process (incarnation {rival}); stop one of the two"
    )]
    Rival {
        /// Run.
        run: RunId,
        /// Shard.
        shard: i32,
        /// The other's incarnation.
        rival: String,
    },
}

/// Ids of the schemas that a run writes; those of topics that it has not are zero.
#[derive(Debug, Clone, Copy)]
#[expect(missing_docs, reason = "one for each table")]
pub struct Schemas {
    pub readings: SchemaId,
    pub events: SchemaId,
    pub assets: SchemaId,
}

/// A run that is set up: topics exist, schemas are registered, the spec is in the ledger.
#[derive(Debug)]
pub struct Established {
    /// The run.
    pub run: Arc<Run>,
    schemas: Schemas,
}

/// How the topic of a table is made.
const DELETED: &[(&str, &str)] =
    &[("cleanup.policy", "delete"), ("retention.ms", "604800000"), ("message.timestamp.type", "CreateTime")];
const COMPACTED: &[(&str, &str)] = &[("cleanup.policy", "compact"), ("retention.ms", "-1")];

/// Sets a run up, or finds the one that is there. `request` is what a new run would be; `explicit` names the settings
/// that a person gave, which must agree with an existing run.
///
/// # Errors
/// [`Error`]: nothing was emitted.
pub async fn establish(
    settings: &ProducerSettings,
    run: RunId,
    request: &Request,
    explicit: &[&str],
) -> Result<Established, Error> {
    let ensure = async |name: &str, partitions: i32, config: &[(&str, &str)]| {
        let spec = TopicSpec { name, partitions, exact_partitions: true, replication: settings.replication, config };
        topics::ensure(&settings.kafka, &spec).await
    };
    let readings = ensure(&settings.readings_topic, settings.partitions, DELETED).await?;
    ensure(&settings.runs_topic, 1, COMPACTED).await?;
    let named = |name: &str, id: &str| TopicOfRun { name: name.into(), id: id.into() };
    let mut topics = TopicsOfRun {
        cluster_id: readings.cluster_id,
        partitions: readings.partitions,
        readings: named(&settings.readings_topic, &readings.topic_id),
        ..TopicsOfRun::default()
    };
    if request.events {
        let events = ensure(&settings.events_topic, settings.partitions, DELETED).await?;
        let assets = ensure(&settings.assets_topic, settings.partitions, COMPACTED).await?;
        topics.events = named(&settings.events_topic, &events.topic_id);
        topics.assets = named(&settings.assets_topic, &assets.topic_id);
    }
    let spec = request.spec(run, topics, settings.shards)?;
    // Before it is written: a run that cannot be made must not stand in the ledger.
    Run::new(spec.clone(), request.assets.clone())?;
    let (kafka, runs_topic) = (settings.kafka.clone(), settings.runs_topic.clone());
    let written = {
        let spec = spec.clone();
        tokio::task::spawn_blocking(move || ledger::write_once(&kafka, &runs_topic, &spec))
            .await
            .expect("the ledger does not panic")?
    };
    ledger::agree(&written, &spec, explicit)?;
    for table in Table::all() {
        if let (Some((topic, theirs)), Some((_, ours))) = (written.topic_of(table), spec.topic_of(table))
            && theirs != ours
        {
            return Err(Error::TopicReplaced { run, topic: topic.into(), theirs: theirs.into(), ours: ours.into() });
        }
    }
    let registry = Registry::new(&settings.registry)?;
    let mut ids = [SchemaId(0); 3];
    for (id, (table, width)) in ids.iter_mut().zip(Table::all().map(|table| (table, table.narrow))) {
        if let Some((topic, _)) = written.topic_of(table) {
            let width = if table.name == Table::readings().name { written.width() } else { width };
            *id = register(&registry, topic, table.schema(width)).await?;
        }
    }
    let [readings, events, assets] = ids;
    let schemas = Schemas { readings, events, assets };
    Ok(Established { run: Arc::new(Run::new(written, request.assets.clone())?), schemas })
}

/// The registry may start after us: wait for it a while.
async fn register(registry: &Registry, topic: &str, schema: &str) -> Result<SchemaId, Error> {
    let subject = format!("{topic}-value");
    let mut attempts = 0;
    loop {
        match registry.register(&subject, schema).await {
            Ok(id) => return Ok(SchemaId(id)),
            Err(error @ registry::Error::Unavailable { .. }) if attempts < 10 => {
                attempts += 1;
                tracing::warn!(error = chain(&error), "waiting for the schema registry");
                tokio::time::sleep(std::time::Duration::from_millis(500)).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Emits the owned shards until the run is over or shutdown is asked for. Returns whether they are all finished.
///
/// # Errors
/// The first shard's [`Error`]; the other shards are stopped after their open transaction.
pub async fn produce(
    settings: &ProducerSettings,
    established: &Established,
    telemetry: &Arc<Telemetry>,
    shutdown: &Shutdown,
) -> Result<bool, Error> {
    let spec = established.run.spec();
    let owned: Vec<i32> = (0..spec.shards).filter(|shard| settings.owns(*shard)).collect();
    tracing::info!(run = %spec.run_id, seed = spec.seed as u64, shards = ?owned, "producing");
    let (stop, stopped) = Shutdown::manual();
    let forward = {
        let (stop, mut shutdown) = (stop.clone(), shutdown.clone());
        tokio::spawn(async move {
            shutdown.wait().await;
            stop.request();
        })
    };
    let mut threads = tokio::task::JoinSet::new();
    for shard in owned {
        let work = shard::Shard {
            settings: settings.clone(),
            run: established.run.clone(),
            schemas: established.schemas,
            shard,
            telemetry: telemetry.clone(),
            shutdown: stopped.clone(),
        };
        threads.spawn_blocking(move || work.produce());
    }
    let mut finished = true;
    let mut failed = None;
    while let Some(ended) = threads.join_next().await {
        match ended.expect("a shard does not panic") {
            Ok(done) => finished &= done,
            Err(error) => {
                stop.request();
                failed.get_or_insert(error);
            }
        }
    }
    forward.abort();
    failed.map_or(Ok(finished), Err)
}
