//! The REST API. Answers are those that the official SDK accepts, not those of the documentation's examples.

use std::{
    io::Read,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use flux_schemas::layout::table_files::ChannelState;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    channels::{Channels, Fate, Name, Refused},
    faults::{Answer, Call, Fault, Faults},
    tokens::Tokens,
};

/// The service's hard limit for a request on the wire, bytes.
const WIRE_LIMIT: usize = 4_000_000;
/// Largest body after decompression, bytes: a bomb ends here.
const BODY_LIMIT: u64 = 64 << 20;

struct Emulator {
    channels: Arc<Channels>,
    tokens: Tokens,
    faults: Faults,
    host: String,
}

type Shared = State<Arc<Emulator>>;

pub(super) fn router(channels: Arc<Channels>, tokens: Tokens, host: String) -> Router {
    let emulator = Arc::new(Emulator { channels, tokens, faults: Faults::default(), host });
    let pipe = "/v2/streaming/databases/{database}/schemas/{schema}/pipes/{pipe}";
    let data = "/v2/streaming/data/databases/{database}/schemas/{schema}/pipes/{pipe}";
    Router::new()
        .route("/v2/streaming/hostname", get(hostname))
        .route("/oauth/token", post(token))
        .route(
            "/telemetry/send/sessionless",
            post(async || Json(json!({ "data": "ok", "code": null, "message": null, "success": true }))),
        )
        // The verb is glued to the pipe's name: `<pipe>:pipe-info`, `<pipe>:bulk-channel-status`.
        .route(pipe, post(pipe_verb))
        .route(&format!("{pipe}/channels/{{channel}}"), put(open).delete(drop_channel))
        .route(&format!("{data}/channels/{{channel}}/rows"), post(append))
        .route("/_emulator/faults", get(faults).post(set_faults))
        .fallback(async || failure(StatusCode::NOT_FOUND, "ERR_NOT_FOUND", "no such route in the emulator"))
        .layer(DefaultBodyLimit::max(WIRE_LIMIT))
        .with_state(emulator)
}

fn failure(status: StatusCode, code: &str, message: &str) -> Response {
    (status, Json(json!({ "code": code, "message": message }))).into_response()
}

/// The answer of a fault that is decided before the call is carried out.
fn refuse(answer: Answer) -> Option<Response> {
    Some(match answer {
        Answer::Unauthorized => failure(StatusCode::UNAUTHORIZED, "390303", "Invalid OAuth access token."),
        Answer::Conflict => {
            failure(StatusCode::CONFLICT, "ERR_CHANNEL_HAS_UNCOMMITTED_DATA", "Channel has uncommitted data")
        }
        Answer::Gone => failure(StatusCode::GONE, "ERR_PIPE_FAILED_OVER", "Pipe failed over"),
        Answer::TooMany => failure(StatusCode::TOO_MANY_REQUESTS, "390701", "Request rate exceeds max. Try later."),
        // The service sends a bare JSON string here.
        Answer::Unavailable => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!("ERR_GENERAL_EXCEPTION_RETRY_REQUEST"))).into_response()
        }
        Answer::Internal => {
            (StatusCode::INTERNAL_SERVER_ERROR, Json(json!("ERR_GENERAL_EXCEPTION_RETRY_REQUEST"))).into_response()
        }
        Answer::Stale => stale(),
        Answer::Html => {
            (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/html")], "<html>404</html>").into_response()
        }
        Answer::Lost | Answer::NeverCommit | Answer::Drop => return None,
    })
}

fn stale() -> Response {
    let message = "Channel sequencer in the continuation token is stale. Please reopen the channel";
    failure(StatusCode::BAD_REQUEST, "STALE_CONTINUATION_TOKEN_SEQUENCER", message)
}

fn refused(refused: Refused) -> Response {
    match refused {
        Refused::Unknown => failure(
            StatusCode::NOT_FOUND,
            "ERR_CHANNEL_DOES_NOT_EXIST_OR_NOT_AUTHORIZED",
            "The channel does not exist or is not authorized",
        ),
        Refused::Uncommitted => {
            failure(StatusCode::CONFLICT, "ERR_CHANNEL_HAS_UNCOMMITTED_DATA", "Channel has uncommitted data")
        }
        Refused::Stale => stale(),
        Refused::State(error) => failure(
            StatusCode::SERVICE_UNAVAILABLE,
            "ERR_GENERAL_EXCEPTION_RETRY_REQUEST",
            &flux_service::logging::chain(&error),
        ),
    }
}

fn bearer(headers: &HeaderMap) -> &str {
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "))
        .unwrap_or_default()
}

impl Emulator {
    /// A fault for this call, or a missing right, or `Ok` with the fault that takes effect later.
    fn admit(&self, call: Call, channel: Option<&str>, headers: &HeaderMap) -> Result<Option<Answer>, Response> {
        if !headers.contains_key(header::ACCEPT) {
            return Err(failure(StatusCode::BAD_REQUEST, "391902", "Unsupported Accept header null is specified"));
        }
        let fault = self.faults.take(call, channel);
        if let Some(response) = fault.and_then(refuse) {
            return Err(response);
        }
        let account_call = matches!(call, Call::Hostname | Call::Token);
        let allowed = if account_call {
            self.tokens.check_jwt(bearer(headers))
        } else {
            self.tokens.check(bearer(headers)).then_some(()).ok_or("Invalid OAuth access token.".into())
        };
        match allowed {
            Ok(()) => Ok(fault),
            Err(message) => Err(failure(StatusCode::UNAUTHORIZED, "390144", &message)),
        }
    }
}

/// A call that was carried out, and whose answer may be lost on purpose.
fn unless_lost(fault: Option<Answer>, response: Response) -> Response {
    match fault {
        Some(Answer::Lost) => refuse(Answer::Unavailable).expect("503 is an answer"),
        _ => response,
    }
}

async fn hostname(State(emulator): Shared, headers: HeaderMap) -> Response {
    match emulator.admit(Call::Hostname, None, &headers) {
        // Bare text, without a port.
        Ok(_) => emulator.host.clone().into_response(),
        Err(response) => response,
    }
}

async fn token(State(emulator): Shared, headers: HeaderMap, body: String) -> Response {
    if let Err(response) = emulator.admit(Call::Token, None, &headers) {
        return response;
    }
    if !body.contains("grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer") || !body.contains("scope=") {
        return failure(StatusCode::BAD_REQUEST, "390000", "grant_type jwt-bearer and scope are needed");
    }
    // Bare text, no newline: the SDK refuses anything else.
    emulator.tokens.grant().into_response()
}

type PipePath = Path<(String, String, String)>;
type ChannelPath = Path<(String, String, String, String)>;

/// Database, schema and pipe are case-insensitive, channels are not.
fn name(database: &str, schema: &str, pipe: &str, channel: &str) -> Name {
    [database.to_uppercase(), schema.to_uppercase(), pipe.to_uppercase(), channel.into()]
}

fn status_json(name: &Name, state: &ChannelState) -> Value {
    json!({
        "database_name": name[0], "schema_name": name[1], "pipe_name": name[2], "channel_name": name[3],
        "channel_status_code": "SUCCESS",
        "last_committed_offset_token": state.committed_token,
        "created_on_ms": state.created_on_ms,
        "rows_inserted": state.rows_inserted, "rows_parsed": state.rows_parsed, "rows_error_count": state.rows_error_count,
        "last_error_offset_upper_bound": null,
        "last_error_message": state.last_error_message,
        "last_error_timestamp": null,
        "snowflake_avg_processing_latency_ms": 0,
    })
}

#[derive(Debug, Default, Deserialize)]
struct OpenBody {
    #[serde(default)]
    offset_token: Option<String>,
    #[serde(default)]
    fail_on_uncommitted_rows: bool,
}

async fn open(
    State(emulator): Shared,
    Path((database, schema, pipe, channel)): ChannelPath,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let fault = match emulator.admit(Call::Open, Some(&channel), &headers) {
        Ok(fault) => fault,
        Err(response) => return response,
    };
    let body: OpenBody = if body.is_empty() {
        OpenBody::default()
    } else {
        match serde_json::from_slice(&body) {
            Ok(body) => body,
            Err(error) => return failure(StatusCode::BAD_REQUEST, "ERR_BAD_REQUEST", &error.to_string()),
        }
    };
    let name = name(&database, &schema, &pipe, &channel);
    match emulator.channels.open(&name, body.offset_token, body.fail_on_uncommitted_rows) {
        Ok((token, state)) => {
            let answer = json!({ "status_code": 0, "message": "Success", "next_continuation_token": token, "channel_status": status_json(&name, &state) });
            unless_lost(fault, Json(answer).into_response())
        }
        Err(error) => refused(error),
    }
}

async fn drop_channel(
    State(emulator): Shared,
    Path((database, schema, pipe, channel)): ChannelPath,
    headers: HeaderMap,
) -> Response {
    if let Err(response) = emulator.admit(Call::Open, Some(&channel), &headers) {
        return response;
    }
    match emulator.channels.drop_channel(&name(&database, &schema, &pipe, &channel)) {
        Some(Ok(token)) => Json(json!({ "last_committed_offset_token": token })).into_response(),
        Some(Err(error)) => refused(Refused::State(error)),
        None => refused(Refused::Unknown),
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct AppendQuery {
    continuation_token: String,
    #[serde(default)]
    end_offset_token: Option<String>,
    /// The older single token.
    #[serde(default)]
    offset_token: Option<String>,
    #[serde(default)]
    request_id: String,
}

async fn append(
    State(emulator): Shared,
    Path((database, schema, pipe, channel)): ChannelPath,
    Query(query): Query<AppendQuery>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let fault = match emulator.admit(Call::Append, Some(&channel), &headers) {
        Ok(fault) => fault,
        Err(response) => return response,
    };
    let encoding = headers.get(header::CONTENT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or("identity");
    let text = match decode(encoding, &body) {
        Ok(text) => text,
        Err(error) => {
            return failure(StatusCode::BAD_REQUEST, "ERR_BAD_REQUEST", &format!("body is not {encoding}: {error}"));
        }
    };
    let fate = match fault {
        Some(Answer::NeverCommit) => Fate::NeverCommit,
        Some(Answer::Drop) => Fate::Drop,
        _ => Fate::Commit,
    };
    let end = query.end_offset_token.or(query.offset_token).filter(|token| !token.is_empty());
    match emulator.channels.append(
        &name(&database, &schema, &pipe, &channel),
        &query.continuation_token,
        &query.request_id,
        end,
        &text,
        fate,
    ) {
        Ok(next) => unless_lost(
            fault,
            Json(json!({ "status_code": 0, "message": "Success", "next_continuation_token": next })).into_response(),
        ),
        Err(error) => refused(error),
    }
}

fn decode(encoding: &str, body: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let read = match encoding {
        "zstd" => zstd::Decoder::new(body)?.take(BODY_LIMIT + 1).read_to_end(&mut text)?,
        "gzip" => flate2::read::MultiGzDecoder::new(body).take(BODY_LIMIT + 1).read_to_end(&mut text)?,
        _ => body.take(BODY_LIMIT + 1).read_to_end(&mut text)?,
    };
    if read as u64 > BODY_LIMIT {
        return Err(std::io::Error::other("more than 64 MiB"));
    }
    Ok(text)
}

#[derive(Debug, Deserialize)]
struct StatusBody {
    channel_names: Vec<String>,
}

async fn pipe_verb(
    State(emulator): Shared,
    Path((database, schema, pipe)): PipePath,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let Some((pipe, verb)) = pipe.rsplit_once(':') else {
        return failure(StatusCode::NOT_FOUND, "ERR_NOT_FOUND", "no verb after the pipe's name");
    };
    match verb {
        "bulk-channel-status" => {
            if let Err(response) = emulator.admit(Call::Status, None, &headers) {
                return response;
            }
            let Ok(body) = serde_json::from_slice::<StatusBody>(&body) else {
                return failure(StatusCode::BAD_REQUEST, "ERR_BAD_REQUEST", "channel_names is needed");
            };
            // Keyed as asked for; a channel that does not exist is absent.
            let statuses: Map<String, Value> = body
                .channel_names
                .into_iter()
                .filter_map(|channel| {
                    let name = name(&database, &schema, pipe, &channel);
                    let state = emulator.channels.status(&name)?;
                    Some((channel, status_json(&name, &state)))
                })
                .collect();
            Json(json!({ "channel_statuses": statuses })).into_response()
        }
        "pipe-info" => pipe_info(&emulator.host),
        _ => failure(StatusCode::NOT_FOUND, "ERR_NOT_FOUND", "unknown verb"),
    }
}

/// What the SDK asks before its first append. File mode is not emulated: keep a flush below the SDK's
/// `max_buffered_kb_for_rowset_mode`.
fn pipe_info(host: &str) -> Response {
    let expires =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64) + 3_600_000;
    let location = json!({
        "expiry_time_ms": expires, "location_type": "S3", "location": "flux-local/rowsets/", "use_s3_regional_url": false,
        "region": "us-east-1", "storage_endpoint": host,
        "creds": { "AWS_KEY_ID": "none", "AWS_SECRET_KEY": "none", "AWS_TOKEN": "none" },
    });
    Json(json!({
        "rowset_stage_location": location,
        "durable_stage_location": location,
        "pipe_encryption_info": { "pipe_key": STANDARD.encode([0u8; 32]), "pipe_key_id": "1", "diversifier": "flux" },
    }))
    .into_response()
}

async fn faults(State(emulator): Shared) -> Json<Vec<Fault>> {
    Json(emulator.faults.left())
}

async fn set_faults(State(emulator): Shared, Json(faults): Json<Vec<Fault>>) -> StatusCode {
    emulator.faults.set(faults);
    StatusCode::NO_CONTENT
}
