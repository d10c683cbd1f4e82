//! Topics are created on purpose, with stated partitions and configuration, and checked when they exist.

use std::time::Duration;

use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::DefaultClientContext,
    error::RDKafkaErrorCode,
};

use super::{
    Error, KafkaSettings,
    identity::{Identities, TopicIdentity},
};

/// What a topic must be.
#[derive(Debug, Clone)]
pub struct TopicSpec<'a> {
    /// Name.
    pub name: &'a str,
    /// Partition count for a new topic; an existing one may have more or fewer when `exact_partitions` is false.
    pub partitions: i32,
    /// Whether an existing topic must have exactly `partitions`.
    pub exact_partitions: bool,
    /// Replication factor for a new topic; -1 is the broker's default.
    pub replication: i32,
    /// Configuration: set on a new topic; on an existing one `cleanup.policy` must agree.
    pub config: &'a [(&'a str, &'a str)],
}

/// Creates the topic, or checks the one that exists; returns what it is.
///
/// # Errors
/// [`Error::Topic`] when an existing topic differs where it matters. Nothing was changed.
pub async fn ensure(kafka: &KafkaSettings, spec: &TopicSpec<'_>) -> Result<TopicIdentity, Error> {
    let refused = |source| Error::Refused { doing: format!("creating topic {}", spec.name), source };
    let identity = async || {
        let kafka = kafka.clone();
        let name = spec.name.to_string();
        tokio::task::spawn_blocking(move || Identities::new(&kafka)?.topic(&name, Duration::from_secs(20)))
            .await
            .expect("the look-up does not panic")
    };
    let admin: AdminClient<DefaultClientContext> = kafka.client().create().map_err(refused)?;
    let mut found = identity().await?;
    if found.is_none() {
        let replication = TopicReplication::Fixed(spec.replication);
        let mut topic = NewTopic::new(spec.name, spec.partitions, replication);
        for (name, value) in spec.config {
            topic = topic.set(name, value);
        }
        let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(20)));
        let results = admin.create_topics([&topic], &options).await.map_err(refused)?;
        for result in results {
            match result {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((_, code)) => return Err(refused(rdkafka::error::KafkaError::AdminOp(code))),
            }
        }
        // Creation is acknowledged by the controller; the broker that answers next may learn of it a moment later.
        for _ in 0..100 {
            found = identity().await?;
            if found.is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let found = found.ok_or_else(|| Error::Topic {
        topic: spec.name.into(),
        finding: "it was created but does not appear".into(),
        fix: "check the cluster's health".into(),
    })?;
    if spec.exact_partitions && found.partitions != spec.partitions {
        return Err(Error::Topic {
            topic: spec.name.into(),
            finding: format!("it has {} partitions, {} were asked for", found.partitions, spec.partitions),
            fix: "use the topic's count, or another topic: a run's partitioning is fixed when it starts".into(),
        });
    }
    check_config(&admin, spec).await?;
    Ok(found)
}

/// The one setting of an existing topic that would lose data: compaction where there must be none, or the reverse.
async fn check_config(admin: &AdminClient<DefaultClientContext>, spec: &TopicSpec<'_>) -> Result<(), Error> {
    let Some((_, wanted)) = spec.config.iter().find(|(name, _)| *name == "cleanup.policy") else { return Ok(()) };
    let resource = ResourceSpecifier::Topic(spec.name);
    let answer = admin
        .describe_configs([&resource], &AdminOptions::new())
        .await
        .map_err(|source| Error::Refused { doing: format!("reading the configuration of {}", spec.name), source })?;
    let resource = answer.into_iter().next().and_then(Result::ok);
    let actual =
        resource.as_ref().and_then(|resource| resource.get("cleanup.policy")).and_then(|entry| entry.value.clone());
    match actual {
        Some(actual) if actual != *wanted => Err(Error::Topic {
            topic: spec.name.into(),
            finding: format!("cleanup.policy is {actual}"),
            fix: format!(
                "it must be {wanted}, else Kafka removes rows that verify expects: alter the topic or use another"
            ),
        }),
        _ => Ok(()),
    }
}
