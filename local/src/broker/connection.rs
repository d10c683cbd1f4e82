//! Frames, limits, versions and dispatch.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::{
    error::ResponseError,
    messages::{
        ApiKey, ApiVersionsResponse, RequestHeader, RequestKind, ResponseHeader, ResponseKind,
        api_versions_response::ApiVersion,
    },
    protocol::{Decodable, Encodable},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{admin, cluster::Cluster, data, group_api, transaction_api};

/// Largest request, bytes: a few times librdkafka's largest message.
const FRAME_LIMIT: usize = 32 << 20;

/// What is understood, oldest and newest version.
const VERSIONS: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 3, 9),
    (ApiKey::Fetch, 4, 12),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 1, 12),
    (ApiKey::OffsetCommit, 2, 8),
    (ApiKey::OffsetFetch, 1, 7),
    (ApiKey::FindCoordinator, 0, 3),
    (ApiKey::JoinGroup, 2, 7),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 4),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 5),
    (ApiKey::ListGroups, 0, 4),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::AddPartitionsToTxn, 0, 3),
    (ApiKey::AddOffsetsToTxn, 0, 3),
    (ApiKey::EndTxn, 0, 3),
    (ApiKey::TxnOffsetCommit, 0, 3),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::DescribeCluster, 0, 1),
];

/// Answers requests in order until the client goes.
pub(super) async fn serve(mut stream: TcpStream, cluster: &Cluster) -> Result<(), String> {
    let text = |error: std::io::Error| error.to_string();
    stream.set_nodelay(true).map_err(text)?;
    loop {
        let mut size = [0; 4];
        match stream.read_exact(&mut size).await {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(text(error)),
        }
        let size = usize::try_from(i32::from_be_bytes(size)).unwrap_or(usize::MAX);
        if !(8..=FRAME_LIMIT).contains(&size) {
            return Err(format!("a frame of {size} bytes; the limit is {FRAME_LIMIT}"));
        }
        let mut frame = BytesMut::zeroed(size);
        stream.read_exact(&mut frame).await.map_err(text)?;
        if let Some(answer) = answer(frame.freeze(), cluster).await? {
            stream.write_all(&answer).await.map_err(text)?;
        }
    }
}

/// The answer's frame; `None` when the client wants none.
async fn answer(mut frame: Bytes, cluster: &Cluster) -> Result<Option<Bytes>, String> {
    let (code, version) = (frame.clone().get_i16(), i16::from_be_bytes([frame[2], frame[3]]));
    let key = ApiKey::try_from(code).map_err(|()| format!("unknown request {code}"))?;
    let supported = VERSIONS.iter().find(|(known, _, _)| *known == key);
    let within = supported.is_some_and(|(_, oldest, newest)| (*oldest..=*newest).contains(&version));
    if key == ApiKey::ApiVersions && !within {
        // The one request that is answered in its oldest form: the client learns what it may ask.
        let correlation = frame.slice(4..8).get_i32();
        let response = api_versions(ResponseError::UnsupportedVersion.code());
        return encode(correlation, key, 0, &ResponseKind::ApiVersions(response)).map(Some);
    }
    if !within {
        // As Apache Kafka does: a client that asked for the versions does not come here.
        return Err(format!("{key:?} version {version} is not supported; see ApiVersions"));
    }
    let header =
        RequestHeader::decode(&mut frame, key.request_header_version(version)).map_err(|error| error.to_string())?;
    let request = RequestKind::decode(key, &mut frame, version).map_err(|error| format!("{key:?}: {error}"))?;
    let client = header.client_id.as_ref().map(|client| client.to_string()).unwrap_or_default();
    let response = match request {
        RequestKind::ApiVersions(_) => ResponseKind::ApiVersions(api_versions(0)),
        RequestKind::Metadata(request) => ResponseKind::Metadata(admin::metadata(cluster, request)),
        RequestKind::DescribeCluster(_) => ResponseKind::DescribeCluster(admin::describe_cluster(cluster)),
        RequestKind::CreateTopics(request) => ResponseKind::CreateTopics(admin::create_topics(cluster, request)),
        RequestKind::CreatePartitions(request) => {
            ResponseKind::CreatePartitions(admin::create_partitions(cluster, request))
        }
        RequestKind::DeleteTopics(request) => ResponseKind::DeleteTopics(admin::delete_topics(cluster, request)),
        RequestKind::DescribeConfigs(request) => {
            ResponseKind::DescribeConfigs(admin::describe_configs(cluster, request))
        }
        RequestKind::Produce(request) => {
            let silent = request.acks == 0;
            let response = data::produce(cluster, request);
            if silent {
                return Ok(None);
            }
            ResponseKind::Produce(response)
        }
        RequestKind::Fetch(request) => ResponseKind::Fetch(data::fetch(cluster, request).await),
        RequestKind::ListOffsets(request) => ResponseKind::ListOffsets(data::list_offsets(cluster, request)),
        RequestKind::OffsetForLeaderEpoch(request) => {
            ResponseKind::OffsetForLeaderEpoch(data::offset_for_leader_epoch(cluster, request))
        }
        RequestKind::FindCoordinator(_) => ResponseKind::FindCoordinator(group_api::find_coordinator(cluster)),
        RequestKind::JoinGroup(request) => {
            ResponseKind::JoinGroup(group_api::join(cluster, request, client, version).await)
        }
        RequestKind::SyncGroup(request) => ResponseKind::SyncGroup(group_api::sync(cluster, request).await),
        RequestKind::Heartbeat(request) => ResponseKind::Heartbeat(group_api::heartbeat(cluster, &request)),
        RequestKind::LeaveGroup(request) => ResponseKind::LeaveGroup(group_api::leave(cluster, request, version)),
        RequestKind::OffsetCommit(request) => ResponseKind::OffsetCommit(group_api::commit(cluster, request)),
        RequestKind::OffsetFetch(request) => ResponseKind::OffsetFetch(group_api::fetch(cluster, request)),
        RequestKind::ListGroups(_) => ResponseKind::ListGroups(group_api::list(cluster)),
        RequestKind::DescribeGroups(request) => ResponseKind::DescribeGroups(group_api::describe(cluster, request)),
        RequestKind::DeleteGroups(request) => ResponseKind::DeleteGroups(group_api::delete(cluster, request)),
        RequestKind::InitProducerId(request) => ResponseKind::InitProducerId(transaction_api::init(cluster, &request)),
        RequestKind::AddPartitionsToTxn(request) => {
            ResponseKind::AddPartitionsToTxn(transaction_api::add_partitions(cluster, request))
        }
        RequestKind::AddOffsetsToTxn(request) => {
            ResponseKind::AddOffsetsToTxn(transaction_api::add_offsets(cluster, &request))
        }
        RequestKind::TxnOffsetCommit(request) => {
            ResponseKind::TxnOffsetCommit(transaction_api::commit_offsets(cluster, request))
        }
        RequestKind::EndTxn(request) => ResponseKind::EndTxn(transaction_api::end(cluster, &request)),
        _ => return Err(format!("{key:?} is listed and not answered")),
    };
    encode(header.correlation_id, key, version, &response).map(Some)
}

fn api_versions(error: i16) -> ApiVersionsResponse {
    let keys = VERSIONS.iter().map(|(key, oldest, newest)| {
        ApiVersion::default().with_api_key(*key as i16).with_min_version(*oldest).with_max_version(*newest)
    });
    ApiVersionsResponse::default().with_error_code(error).with_api_keys(keys.collect())
}

fn encode(correlation: i32, key: ApiKey, version: i16, response: &ResponseKind) -> Result<Bytes, String> {
    let mut out = BytesMut::with_capacity(256);
    out.put_i32(0);
    ResponseHeader::default()
        .with_correlation_id(correlation)
        .encode(&mut out, key.response_header_version(version))
        .map_err(|error| error.to_string())?;
    response.encode(&mut out, version).map_err(|error| format!("{key:?}: {error}"))?;
    let size = (out.len() - 4) as i32;
    out[..4].copy_from_slice(&size.to_be_bytes());
    Ok(out.freeze())
}
