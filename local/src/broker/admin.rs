//! What there is, and how it is made.

use std::collections::BTreeMap;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
        DeleteTopicsRequest, DeleteTopicsResponse, DescribeClusterResponse, DescribeConfigsRequest,
        DescribeConfigsResponse, MetadataRequest, MetadataResponse, TopicName,
        create_partitions_response::CreatePartitionsTopicResult,
        create_topics_response::CreatableTopicResult,
        delete_topics_response::DeletableTopicResult,
        describe_cluster_response::DescribeClusterBroker,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult},
        metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
    },
};

use super::{
    cluster::{Cluster, Inner, NODE},
    text,
};

/// What a topic has unless it says otherwise.
const DEFAULTS: [(&str, &str); 4] = [
    ("cleanup.policy", "delete"),
    ("retention.ms", "-1"),
    ("message.timestamp.type", "CreateTime"),
    ("min.insync.replicas", "1"),
];
/// Kafka's number for topics in DescribeConfigs.
const RESOURCE_TOPIC: i8 = 2;
/// Kafka's word for "authorised operations were not asked for".
const NOT_ASKED: i32 = i32::MIN;

pub(super) fn metadata(cluster: &Cluster, request: MetadataRequest) -> MetadataResponse {
    let inner = cluster.lock();
    let topics = match request.topics {
        None => inner.topics.keys().map(|name| describe(&inner, Some(name.clone()), uuid::Uuid::nil())).collect(),
        Some(asked) => asked
            .into_iter()
            .map(|topic| {
                let name =
                    topic.name.map(|name| name.0.to_string()).or_else(|| inner.topic_of_id(topic.topic_id).cloned());
                describe(&inner, name, topic.topic_id)
            })
            .collect(),
    };
    let broker = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE))
        .with_host(text(cluster.address.ip().to_string()))
        .with_port(i32::from(cluster.address.port()));
    MetadataResponse::default()
        .with_brokers(vec![broker])
        .with_cluster_id(Some(text(&inner.cluster_id)))
        .with_controller_id(BrokerId(NODE))
        .with_cluster_authorized_operations(NOT_ASKED)
        .with_topics(topics)
}

/// Topics are never made by asking for them.
fn describe(inner: &Inner, name: Option<String>, asked: uuid::Uuid) -> MetadataResponseTopic {
    let answer = MetadataResponseTopic::default().with_topic_authorized_operations(NOT_ASKED);
    let Some(name) = name else {
        return answer.with_error_code(ResponseError::UnknownTopicId.code()).with_topic_id(asked);
    };
    let answer = answer.with_name(Some(TopicName(text(&name))));
    let Some(topic) = inner.topics.get(&name) else {
        return answer.with_error_code(ResponseError::UnknownTopicOrPartition.code()).with_topic_id(asked);
    };
    let node = vec![BrokerId(NODE)];
    let partitions = (0..topic.meta.partitions).map(|index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(NODE))
            .with_leader_epoch(0)
            .with_replica_nodes(node.clone())
            .with_isr_nodes(node.clone())
    });
    answer.with_topic_id(topic.meta.id).with_partitions(partitions.collect())
}

pub(super) fn describe_cluster(cluster: &Cluster) -> DescribeClusterResponse {
    let inner = cluster.lock();
    let broker = DescribeClusterBroker::default()
        .with_broker_id(BrokerId(NODE))
        .with_host(text(cluster.address.ip().to_string()))
        .with_port(i32::from(cluster.address.port()));
    DescribeClusterResponse::default()
        .with_cluster_id(text(&inner.cluster_id))
        .with_controller_id(BrokerId(NODE))
        .with_brokers(vec![broker])
        .with_cluster_authorized_operations(NOT_ASKED)
}

pub(super) fn create_topics(cluster: &Cluster, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut inner = cluster.lock();
    let topics = request.topics.into_iter().map(|topic| {
        let config: BTreeMap<String, String> = topic
            .configs
            .iter()
            .filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())))
            .collect();
        let assigned = topic.assignments.len() as i32;
        let partitions = if assigned > 0 { assigned } else { topic.num_partitions };
        let answer = CreatableTopicResult::default().with_name(topic.name.clone());
        if topic.replication_factor > 1 {
            return answer
                .with_error_code(ResponseError::InvalidReplicationFactor.code())
                .with_error_message(Some(text("this broker is one node: use replication factor 1 or -1")));
        }
        match inner.create(&topic.name.0, partitions, config, request.validate_only) {
            Ok(meta) => answer
                .with_topic_id(meta.id)
                .with_num_partitions(meta.partitions)
                .with_replication_factor(1)
                .with_configs(Some(Vec::new())),
            Err(error) => answer.with_error_code(error.code()).with_error_message(Some(text(error.to_string()))),
        }
    });
    let topics = topics.collect();
    CreateTopicsResponse::default().with_topics(topics)
}

pub(super) fn create_partitions(cluster: &Cluster, request: CreatePartitionsRequest) -> CreatePartitionsResponse {
    let mut inner = cluster.lock();
    let results = request.topics.into_iter().map(|topic| {
        let grown = inner.grow(&topic.name.0, topic.count, request.validate_only);
        CreatePartitionsTopicResult::default()
            .with_name(topic.name)
            .with_error_code(grown.err().map_or(0, |error| error.code()))
    });
    let results = results.collect();
    CreatePartitionsResponse::default().with_results(results)
}

pub(super) fn delete_topics(cluster: &Cluster, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let mut inner = cluster.lock();
    let named = request.topic_names.into_iter().map(Some);
    let stated: Vec<Option<TopicName>> = request
        .topics
        .into_iter()
        .map(|topic| topic.name.or_else(|| inner.topic_of_id(topic.topic_id).map(|name| TopicName(text(name)))))
        .collect();
    let responses = named.chain(stated).map(|name| {
        let deleted = name.as_ref().map_or(Err(ResponseError::UnknownTopicId), |name| inner.delete(&name.0));
        let answer = DeletableTopicResult::default().with_name(name);
        match deleted {
            Ok(id) => answer.with_topic_id(id),
            Err(error) => answer.with_error_code(error.code()),
        }
    });
    let responses = responses.collect();
    DeleteTopicsResponse::default().with_responses(responses)
}

pub(super) fn describe_configs(cluster: &Cluster, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let inner = cluster.lock();
    let results = request.resources.into_iter().map(|resource| {
        let answer = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        if resource.resource_type != RESOURCE_TOPIC {
            return answer;
        }
        let Some(topic) = inner.topics.get(&*resource.resource_name) else {
            return answer.with_error_code(ResponseError::UnknownTopicOrPartition.code());
        };
        let mut config: BTreeMap<&str, (&str, bool)> =
            DEFAULTS.into_iter().map(|(name, value)| (name, (value, true))).collect();
        config.extend(topic.meta.config.iter().map(|(name, value)| (name.as_str(), (value.as_str(), false))));
        let wanted = resource.configuration_keys.as_ref();
        let asked = |name: &str| wanted.is_none_or(|keys| keys.iter().any(|key| &**key == name));
        let configs = config.into_iter().filter(|(name, _)| asked(name)).map(|(name, (value, default))| {
            // 1 is the topic's own setting, 5 a default.
            DescribeConfigsResourceResult::default()
                .with_name(text(name))
                .with_value(Some(text(value)))
                .with_config_source(if default { 5 } else { 1 })
        });
        answer.with_configs(configs.collect())
    });
    let results = results.collect();
    DescribeConfigsResponse::default().with_results(results)
}
