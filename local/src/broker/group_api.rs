//! Consumer group requests, answered.

use std::time::Duration;

use kafka_protocol::{
    error::ResponseError,
    messages::{
        BrokerId, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
        FindCoordinatorResponse, GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse,
        LeaveGroupRequest, LeaveGroupResponse, ListGroupsResponse, OffsetCommitRequest, OffsetCommitResponse,
        OffsetFetchRequest, OffsetFetchResponse, SyncGroupRequest, SyncGroupResponse, TopicName,
        delete_groups_response::DeletableGroupResult,
        describe_groups_response::{DescribedGroup, DescribedGroupMember},
        join_group_response::JoinGroupResponseMember,
        leave_group_response::MemberResponse,
        list_groups_response::ListedGroup,
        offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic},
        offset_fetch_response::{OffsetFetchResponsePartition, OffsetFetchResponseTopic},
    },
};
use tokio::sync::oneshot;

use super::{
    cluster::{Cluster, NODE},
    groups::Join,
    text,
    transactions::Offsets,
};

fn code<T>(result: &Result<T, ResponseError>) -> i16 {
    result.as_ref().err().map_or(0, ResponseError::code)
}

/// There is one node: it coordinates everything.
pub(super) fn find_coordinator(cluster: &Cluster) -> FindCoordinatorResponse {
    FindCoordinatorResponse::default()
        .with_node_id(BrokerId(NODE))
        .with_host(text(cluster.address.ip().to_string()))
        .with_port(i32::from(cluster.address.port()))
}

pub(super) async fn join(
    cluster: &Cluster,
    request: JoinGroupRequest,
    client: String,
    version: i16,
) -> JoinGroupResponse {
    let millis = |ms: i32| Duration::from_millis(ms.clamp(100, 1_800_000) as u64);
    let protocol_type = request.protocol_type.to_string();
    let join = Join {
        group: request.group_id.0.to_string(),
        member: request.member_id.to_string(),
        instance: request.group_instance_id.map(|instance| instance.to_string()),
        client,
        session: millis(request.session_timeout_ms),
        rebalance: millis(request.rebalance_timeout_ms),
        protocol_type: protocol_type.clone(),
        protocols: request
            .protocols
            .into_iter()
            .map(|protocol| (protocol.name.to_string(), protocol.metadata))
            .collect(),
        id_required: version >= 4,
    };
    let (answer, answered) = oneshot::channel();
    cluster.lock().groups.join(join, answer);
    let response = JoinGroupResponse::default();
    match answered.await.unwrap_or(Err(ResponseError::UnknownMemberId)) {
        Err(error) => response.with_error_code(error.code()).with_generation_id(-1).with_member_id(request.member_id),
        Ok(joined) => {
            let given = if joined.generation < 0 { ResponseError::MemberIdRequired.code() } else { 0 };
            let members = joined.members.into_iter().map(|(name, instance, metadata)| {
                JoinGroupResponseMember::default()
                    .with_member_id(text(name))
                    .with_group_instance_id(instance.map(text))
                    .with_metadata(metadata)
            });
            response
                .with_error_code(given)
                .with_generation_id(joined.generation)
                .with_protocol_type(Some(text(protocol_type)))
                .with_protocol_name(Some(text(joined.protocol)))
                .with_leader(text(joined.leader))
                .with_member_id(text(joined.member))
                .with_members(members.collect())
        }
    }
}

pub(super) async fn sync(cluster: &Cluster, request: SyncGroupRequest) -> SyncGroupResponse {
    let assignments =
        request.assignments.into_iter().map(|given| (given.member_id.to_string(), given.assignment)).collect();
    let (answer, answered) = oneshot::channel();
    cluster.lock().groups.sync(&request.group_id.0, request.generation_id, &request.member_id, assignments, answer);
    match answered.await.unwrap_or(Err(ResponseError::RebalanceInProgress)) {
        Ok((protocol, assignment)) => SyncGroupResponse::default()
            .with_protocol_type(Some(request.protocol_type.unwrap_or_else(|| text("consumer"))))
            .with_protocol_name(Some(text(protocol)))
            .with_assignment(assignment),
        Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
    }
}

pub(super) fn heartbeat(cluster: &Cluster, request: &HeartbeatRequest) -> HeartbeatResponse {
    let beaten = cluster.lock().groups.heartbeat(&request.group_id.0, request.generation_id, &request.member_id);
    HeartbeatResponse::default().with_error_code(code(&beaten))
}

pub(super) fn leave(cluster: &Cluster, request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    let mut inner = cluster.lock();
    if version < 3 {
        let left = inner.groups.leave(&request.group_id.0, &request.member_id);
        return LeaveGroupResponse::default().with_error_code(code(&left));
    }
    let members = request.members.into_iter().map(|member| {
        let left = inner.groups.leave(&request.group_id.0, &member.member_id);
        MemberResponse::default()
            .with_member_id(member.member_id)
            .with_group_instance_id(member.group_instance_id)
            .with_error_code(code(&left))
    });
    let members = members.collect();
    LeaveGroupResponse::default().with_members(members)
}

pub(super) fn commit(cluster: &Cluster, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let mut inner = cluster.lock();
    let group = request.group_id.0.to_string();
    let mut outcome = inner.groups.may_commit(&group, request.generation_id_or_member_epoch, &request.member_id);
    if outcome.is_ok() {
        let offsets: Offsets = request
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |partition| (topic, partition)))
            .map(|(topic, partition)| {
                let metadata = partition.committed_metadata.as_ref().map(|metadata| metadata.to_string());
                ((topic.name.0.to_string(), partition.partition_index), (partition.committed_offset, metadata))
            })
            .collect();
        inner.groups.store_offsets(&group, offsets);
        outcome = inner.groups.save();
    }
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code(&outcome))
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default().with_name(topic.name).with_partitions(partitions)
    });
    let topics = topics.collect();
    OffsetCommitResponse::default().with_topics(topics)
}

pub(super) fn fetch(cluster: &Cluster, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let inner = cluster.lock();
    let group = &request.group_id.0;
    let asked: Vec<(String, Vec<i32>)> = match request.topics {
        Some(topics) => topics.into_iter().map(|topic| (topic.name.0.to_string(), topic.partition_indexes)).collect(),
        None => {
            let mut all: std::collections::BTreeMap<String, Vec<i32>> = std::collections::BTreeMap::new();
            for (topic, partition) in inner.groups.all_offsets(group).into_keys() {
                all.entry(topic).or_default().push(partition);
            }
            all.into_iter().collect()
        }
    };
    let topics = asked.into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|partition| {
            let known = inner.groups.offset(group, &(topic.clone(), partition)).cloned();
            let (offset, metadata) = known.unwrap_or((-1, None));
            OffsetFetchResponsePartition::default()
                .with_partition_index(partition)
                .with_committed_offset(offset)
                .with_committed_leader_epoch(-1)
                .with_metadata(Some(text(metadata.unwrap_or_default())))
        });
        let partitions = partitions.collect();
        OffsetFetchResponseTopic::default().with_name(TopicName(text(topic))).with_partitions(partitions)
    });
    let topics = topics.collect();
    OffsetFetchResponse::default().with_topics(topics)
}

pub(super) fn list(cluster: &Cluster) -> ListGroupsResponse {
    let inner = cluster.lock();
    let groups = inner.groups.names().into_iter().map(|name| {
        let group = inner.groups.groups.get(&name);
        ListedGroup::default()
            .with_protocol_type(text(group.map_or("", |group| group.protocol_type.as_str())))
            .with_group_state(text(group.map_or("Empty", |group| group.phase.as_str())))
            .with_group_id(GroupId(text(name)))
    });
    let groups = groups.collect();
    ListGroupsResponse::default().with_groups(groups)
}

pub(super) fn describe(cluster: &Cluster, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let inner = cluster.lock();
    let groups = request.groups.into_iter().map(|id| {
        let answer = DescribedGroup::default().with_authorized_operations(i32::MIN);
        let Some(group) = inner.groups.groups.get(&*id.0) else {
            let state = if inner.groups.names().contains(&*id.0) { "Empty" } else { "Dead" };
            return answer.with_group_id(id).with_group_state(text(state));
        };
        let members = group.members.iter().map(|(name, member)| {
            DescribedGroupMember::default()
                .with_member_id(text(name))
                .with_group_instance_id(member.instance.clone().map(text))
                .with_client_id(text(&member.client))
                .with_client_host(text("/127.0.0.1"))
                .with_member_metadata(group.metadata(member))
                .with_member_assignment(member.assignment.clone())
        });
        answer
            .with_group_id(id)
            .with_group_state(text(group.phase.as_str()))
            .with_protocol_type(text(&group.protocol_type))
            .with_protocol_data(text(&group.protocol))
            .with_members(members.collect())
    });
    let groups = groups.collect();
    DescribeGroupsResponse::default().with_groups(groups)
}

pub(super) fn delete(cluster: &Cluster, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut inner = cluster.lock();
    let results = request.groups_names.into_iter().map(|id| {
        let deleted = inner.groups.delete(&id.0);
        DeletableGroupResult::default().with_group_id(id).with_error_code(code(&deleted))
    });
    let results = results.collect();
    DeleteGroupsResponse::default().with_results(results)
}
