//! The five calls of the REST API: hostname, token, open channel, append rows, bulk channel status.
//!
//! The service answers host and token as bare text where its documentation shows JSON; both are accepted. A `200` to an
//! append means buffered. 401 and 403 are answered with one new token; what stays refused is said.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{auth::KeyPair, settings::SnowpipeSettings};

/// As Snowflake asks partners to name themselves.
const USER_AGENT: &str = concat!("FluxStreaming/v", env!("CARGO_PKG_VERSION"), " (linux) RUST");
/// A token is renewed this long before it expires.
const RENEW_BEFORE: u64 = 300;

/// What went wrong, by what the caller should do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Try the same request again, later.
    #[error("{doing}: {answer}")]
    Retry {
        /// What we were doing.
        doing: String,
        /// Status and body, or the transport's error.
        answer: String,
        /// The service's wish.
        after: Option<Duration>,
    },
    /// The channel cannot be used any more: open it again.
    #[error("{doing}: {code}: {message}")]
    Channel {
        /// What we were doing.
        doing: String,
        /// The service's code.
        code: String,
        /// The service's words.
        message: String,
    },
    /// The channel holds rows that are not committed yet: wait, then open it again.
    #[error("the channel has uncommitted rows")]
    Uncommitted,
    /// A person must act.
    #[error("{doing}: {answer}; {fix}")]
    Refused {
        /// What we were doing.
        doing: String,
        /// Status and body.
        answer: String,
        /// What to do.
        fix: String,
    },
}

/// What the service says of a channel. Fields that only some versions send are optional.
#[derive(Debug, Clone, Deserialize)]
pub struct ChannelStatus {
    /// `SUCCESS`, or why the channel must be opened again.
    pub channel_status_code: String,
    /// The offset token of the newest committed rows.
    pub last_committed_offset_token: Option<String>,
    /// Rows rejected over the channel's life.
    #[serde(default, alias = "rows_errors")]
    pub rows_error_count: u64,
    /// Why the last one was.
    #[serde(default)]
    pub last_error_message: Option<String>,
    /// Mean time from accepted to committed, ms, as the service measures it.
    #[serde(default)]
    pub snowflake_avg_processing_latency_ms: Option<f64>,
}

/// An opened channel.
#[derive(Debug, Deserialize)]
pub struct Opened {
    /// Goes into the next append.
    pub next_continuation_token: String,
    /// Status at opening.
    pub channel_status: ChannelStatus,
}

#[derive(Debug, Deserialize)]
struct Appended {
    next_continuation_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Statuses {
    channel_statuses: HashMap<String, ChannelStatus>,
}

/// Host and token for the data calls.
#[derive(Debug, Clone)]
struct Session {
    base: Url,
    token: Arc<str>,
    expires: u64,
}

/// One append, frozen: repeated as it is until it is answered.
#[derive(Debug, Clone)]
pub struct Append {
    /// Compressed NDJSON.
    pub body: Bytes,
    /// From the previous answer.
    pub continuation_token: String,
    /// Position before the rows.
    pub start_offset_token: String,
    /// Position after the rows.
    pub end_offset_token: String,
    /// The same for every attempt.
    pub request_id: String,
    /// Attempts so far.
    pub attempts: u32,
}

/// A client of one pipe.
#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    settings: SnowpipeSettings,
    keys: KeyPair,
    session: Mutex<Option<Session>>,
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

/// Bare text, a JSON string, or an object with the field.
fn text_answer(body: &str, field: &str) -> String {
    match serde_json::from_str::<Value>(body.trim()) {
        Ok(Value::String(text)) => text,
        Ok(Value::Object(object)) => object.get(field).and_then(Value::as_str).unwrap_or_default().to_string(),
        _ => body.trim().to_string(),
    }
}

/// `exp` of a JWT; an hour from now when the token is opaque.
fn expiry(token: &str) -> u64 {
    let claims = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part.trim_end_matches('=')).ok());
    let exp = claims.and_then(|claims| serde_json::from_slice::<Value>(&claims).ok()?.get("exp")?.as_u64());
    exp.unwrap_or_else(|| now() + 3000)
}

impl Client {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// [`Error::Refused`] when key or certificate authority cannot be used.
    pub fn new(settings: SnowpipeSettings) -> Result<Self, Error> {
        let refused = |answer: String, fix: &str| Error::Refused {
            doing: "preparing the client".into(),
            answer,
            fix: fix.into(),
        };
        let keys = KeyPair::read(&settings.private_key_file, &settings.account, &settings.user).map_err(|error| {
            refused(flux_service::logging::chain(&error), "use the key whose public half is registered for the user")
        })?;
        let mut builder = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .https_only(true)
            .connect_timeout(Duration::from_secs(10))
            .timeout(Duration::from_secs(60));
        if let Some(path) = &settings.ca {
            let fix = "name a PEM file with the authority's certificate in snowpipe.ca";
            let pem = std::fs::read(path).map_err(|error| refused(format!("{}: {error}", path.display()), fix))?;
            let authority =
                reqwest::Certificate::from_pem_bundle(&pem).map_err(|error| refused(error.to_string(), fix))?;
            builder = builder.tls_certs_only(authority);
        }
        let http = builder.build().map_err(|error| refused(error.to_string(), "check snowpipe.ca"))?;
        Ok(Self { http, settings, keys, session: Mutex::new(None) })
    }

    /// Discovers the ingest host and exchanges the JWT for a token of that host.
    async fn session(&self, renew: bool) -> Result<Session, Error> {
        let mut session = self.session.lock().await;
        if let Some(current) = session.as_ref().filter(|current| !renew && current.expires > now() + RENEW_BEFORE) {
            return Ok(current.clone());
        }
        let jwt = self.keys.token(now(), self.settings.role.as_deref());
        let url = |path: &str| self.settings.url.join(path).expect("a constant path joins");
        let host =
            self.account_call("asking for the ingest host", self.http.get(url("/v2/streaming/hostname")), &jwt).await?;
        let host = text_answer(&host, "hostname").replace('_', "-").to_lowercase();
        let form = [("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer"), ("scope", host.as_str())];
        let token =
            self.account_call("exchanging the JWT", self.http.post(url("/oauth/token")).form(&form), &jwt).await?;
        let token = text_answer(&token, "token");
        let mut base = self.settings.url.clone();
        if base.set_host(Some(&host)).is_err() || token.is_empty() {
            return Err(Error::Retry {
                doing: "discovering the ingest host".into(),
                answer: format!("host {host:?}"),
                after: None,
            });
        }
        let current = Session { base, expires: expiry(&token), token: token.into() };
        *session = Some(current.clone());
        Ok(current)
    }

    /// A call to the account host with the JWT.
    async fn account_call(&self, doing: &str, request: reqwest::RequestBuilder, jwt: &str) -> Result<String, Error> {
        let sent = request
            .bearer_auth(jwt)
            .header("X-Snowflake-Authorization-Token-Type", "KEYPAIR_JWT")
            .header("Accept", "application/json")
            .query(&[("requestId", uuid::Uuid::new_v4().to_string()), ("retryCount", "0".into())])
            .send()
            .await;
        let (status, after, body) = answer(doing, sent).await?;
        match status {
            StatusCode::OK => Ok(body),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => Err(Error::Refused {
                doing: doing.into(),
                answer: format!("{status} {body}"),
                fix: format!(
                    "check that the public key of {} is registered for user {} of account {}",
                    self.settings.private_key_file.display(),
                    self.settings.user,
                    self.settings.account
                ),
            }),
            _ => Err(Error::Retry { doing: doing.into(), answer: format!("{status} {body}"), after }),
        }
    }

    /// `/v2/streaming[/data]/databases/D/schemas/S/pipes/P...`, each segment encoded by itself.
    fn path(&self, session: &Session, data: bool, tail: &[&str], verb: &str) -> Url {
        let mut url = session.base.clone();
        let pipe = format!("{}{verb}", self.settings.pipe);
        let head: &[&str] = if data { &["v2", "streaming", "data"] } else { &["v2", "streaming"] };
        url.path_segments_mut()
            .expect("https has segments")
            .clear()
            .extend(head)
            .extend(["databases", &self.settings.database, "schemas", &self.settings.schema, "pipes", &pipe])
            .extend(tail);
        url
    }

    /// A call to the ingest host; a refused token is renewed once.
    async fn call(
        &self,
        doing: &str,
        request: impl Fn(&Session) -> reqwest::RequestBuilder,
    ) -> Result<(StatusCode, Option<Duration>, String), Error> {
        let mut renew = false;
        loop {
            let session = self.session(renew).await?;
            let sent = request(&session)
                .bearer_auth(&session.token)
                .header("X-Snowflake-Authorization-Token-Type", "OAUTH")
                .header("Accept", "application/json")
                .send()
                .await;
            let (status, after, body) = answer(doing, sent).await?;
            if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) && !renew {
                tracing::info!(%status, "token refused: taking a new one");
                renew = true;
                continue;
            }
            if status == StatusCode::GONE {
                // The pipe has moved to another host: forget the session, so that the next call discovers it.
                *self.session.lock().await = None;
            }
            return Ok((status, after, body));
        }
    }

    /// Opens a channel, which fences whoever had it open. `discard` throws uncommitted rows away; otherwise they make it fail.
    ///
    /// # Errors
    /// [`Error::Uncommitted`]: wait. Others as they say.
    pub async fn open(&self, channel: &str, discard: bool) -> Result<Opened, Error> {
        let doing = format!("opening channel {channel}");
        let id = uuid::Uuid::new_v4().to_string();
        let (status, after, body) = self
            .call(&doing, |session| {
                self.http
                    .request(Method::PUT, self.path(session, false, &["channels", channel], ""))
                    .query(&[("requestId", id.as_str()), ("retryCount", "0")])
                    .json(&json!({ "fail_on_uncommitted_rows": !discard }))
            })
            .await?;
        if status == StatusCode::OK {
            return parse(&doing, &body);
        }
        let (code, _) = code_and_message(&body);
        if status == StatusCode::CONFLICT
            && (code == "ERR_CHANNEL_HAS_UNCOMMITTED_DATA" || code == "ERR_OPEN_CHANNEL_IN_PROGRESS")
        {
            return Err(Error::Uncommitted);
        }
        if retryable(status, &body) {
            return Err(Error::Retry { doing, answer: format!("{status} {body}"), after });
        }
        Err(Error::Refused {
            doing,
            answer: format!("{status} {body}"),
            fix: format!(
                "check that pipe {}.{}.{} exists and that the role may use it (INSERT on the table, USAGE on database and schema, OPERATE on a custom pipe)",
                self.settings.database, self.settings.schema, self.settings.pipe
            ),
        })
    }

    /// Sends one append; returns the next continuation token. 200 means buffered.
    ///
    /// # Errors
    /// [`Error::Retry`]: the same append again. [`Error::Channel`]: open the channel again.
    pub async fn append(&self, channel: &str, append: &Append) -> Result<String, Error> {
        let doing = format!("appending to channel {channel}");
        let retries = append.attempts.to_string();
        let (status, after, body) = self
            .call(&doing, |session| {
                self.http
                    .request(Method::POST, self.path(session, true, &["channels", channel, "rows"], ""))
                    .query(&[
                        ("continuationToken", append.continuation_token.as_str()),
                        ("startOffsetToken", &append.start_offset_token),
                        ("endOffsetToken", &append.end_offset_token),
                        ("requestId", &append.request_id),
                        ("retryCount", &retries),
                    ])
                    .header("Content-Type", "application/x-ndjson")
                    .header("Content-Encoding", "zstd")
                    .body(append.body.clone())
            })
            .await?;
        if status == StatusCode::OK {
            let appended: Appended = parse(&doing, &body)?;
            return appended.next_continuation_token.ok_or_else(|| Error::Channel {
                doing,
                code: "no continuation token".into(),
                message: "the answer to an append carries none".into(),
            });
        }
        if retryable(status, &body) {
            return Err(Error::Retry { doing, answer: format!("{status} {body}"), after });
        }
        let (code, message) = code_and_message(&body);
        Err(Error::Channel { doing, code: if code.is_empty() { status.to_string() } else { code }, message })
    }

    /// The status of channels; a channel that the service does not know is absent.
    ///
    /// # Errors
    /// [`Error::Retry`] or [`Error::Refused`].
    pub async fn status(&self, channels: &[String]) -> Result<HashMap<String, ChannelStatus>, Error> {
        let doing = "asking for channel status";
        let (status, after, body) = self
            .call(doing, |session| {
                self.http
                    .request(Method::POST, self.path(session, false, &[], ":bulk-channel-status"))
                    .query(&[("requestId", uuid::Uuid::new_v4().to_string()), ("retryCount", "0".into())])
                    .json(&json!({ "channel_names": channels }))
            })
            .await?;
        if status == StatusCode::OK {
            return parse::<Statuses>(doing, &body).map(|statuses| statuses.channel_statuses);
        }
        Err(Error::Retry { doing: doing.into(), answer: format!("{status} {body}"), after })
    }
}

async fn answer(
    doing: &str,
    sent: Result<reqwest::Response, reqwest::Error>,
) -> Result<(StatusCode, Option<Duration>, String), Error> {
    let failed = |error: reqwest::Error| Error::Retry {
        doing: doing.into(),
        answer: flux_service::logging::chain(&error),
        after: None,
    };
    let response = sent.map_err(failed)?;
    let status = response.status();
    let after = response
        .headers()
        .get("retry-after")
        .and_then(|value| value.to_str().ok()?.parse().ok())
        .map(Duration::from_secs);
    let body = response.text().await.map_err(failed)?;
    Ok((status, after, body))
}

/// Transient by status; a 404 that is no JSON comes from a gateway, not from the service.
fn retryable(status: StatusCode, body: &str) -> bool {
    match status.as_u16() {
        401 | 403 | 408 | 429 | 499 | 500..=599 => true,
        404 => serde_json::from_str::<Value>(body).is_err(),
        _ => false,
    }
}

/// Errors carry `code` in some places and `error_code` in others.
fn code_and_message(body: &str) -> (String, String) {
    let value: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let text = |field: &str| value.get(field).and_then(Value::as_str).map(ToString::to_string);
    let code = text("code").or_else(|| text("error_code")).unwrap_or_default();
    (code, text("message").unwrap_or_else(|| body.chars().take(300).collect()))
}

fn parse<T: serde::de::DeserializeOwned>(doing: &str, body: &str) -> Result<T, Error> {
    serde_json::from_str(body).map_err(|error| Error::Channel {
        doing: doing.into(),
        code: "unreadable answer".into(),
        message: format!("{error}: {}", body.chars().take(300).collect::<String>()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_token_are_read_in_all_three_shapes() {
        for body in ["h.example", "\"h.example\"", "{\"hostname\":\"h.example\"}", " h.example\n"] {
            assert_eq!(text_answer(body, "hostname"), "h.example", "{body}");
        }
    }

    #[test]
    fn errors_are_sorted_by_what_to_do() {
        assert!(retryable(StatusCode::SERVICE_UNAVAILABLE, "\"ERR_GENERAL_EXCEPTION_RETRY_REQUEST\""));
        assert!(retryable(StatusCode::NOT_FOUND, "<html>"));
        assert!(!retryable(StatusCode::NOT_FOUND, "{\"code\":\"ERR_CHANNEL_DOES_NOT_EXIST_OR_NOT_AUTHORIZED\"}"));
        assert!(!retryable(StatusCode::BAD_REQUEST, "{}"));
        assert_eq!(code_and_message("{\"error_code\":\"X\",\"message\":\"m\"}"), ("X".into(), "m".into()));
    }

    #[test]
    fn expiry_is_read_from_a_jwt() {
        let token = format!("h.{}.s", URL_SAFE_NO_PAD.encode("{\"exp\":123}"));
        assert_eq!(expiry(&token), 123);
        assert!(expiry("opaque") > now());
    }
}
