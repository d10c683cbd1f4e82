//! A schema registry with Confluent's REST API: what our clients, confluent-kafka and the Java serialiser call.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path as FilePath, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use apache_avro::{Schema, schema_compatibility::SchemaCompatibility};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use flux_service::shutdown::Shutdown;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{Error, listen, state};

/// Largest request, bytes.
const BODY_LIMIT: usize = 1 << 20;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Contents {
    /// Schema `n` has id `n + 1`.
    schemas: Vec<String>,
    /// By subject: ids in the order of registration; version `n` is the `n`-th.
    subjects: BTreeMap<String, Vec<usize>>,
    /// Compatibility by subject; the empty subject is the default.
    levels: BTreeMap<String, String>,
}

struct Registry {
    contents: Mutex<Contents>,
    file: PathBuf,
}

type Shared = State<Arc<Registry>>;

/// An error answer.
struct Failure(StatusCode, u32, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error_code": self.1, "message": self.2 }))).into_response()
    }
}

fn no_subject(subject: &str) -> Failure {
    Failure(StatusCode::NOT_FOUND, 40401, format!("Subject '{subject}' not found."))
}

fn no_version() -> Failure {
    Failure(StatusCode::NOT_FOUND, 40402, "Version not found.".into())
}

fn no_schema() -> Failure {
    Failure(StatusCode::NOT_FOUND, 40403, "Schema not found".into())
}

/// Serves until shutdown; returns the address.
///
/// # Errors
/// [`Error`] when state or port cannot be had.
pub async fn serve(address: SocketAddr, folder: &FilePath, mut shutdown: Shutdown) -> Result<SocketAddr, Error> {
    state::folder(folder)?;
    let file = folder.join("registry.json");
    let registry = Arc::new(Registry { contents: Mutex::new(state::load(&file)?), file });
    let router = Router::new()
        .route("/", get(async || Json(json!({}))))
        .route("/subjects", get(subjects))
        .route("/subjects/{subject}", post(look_up).delete(delete))
        .route("/subjects/{subject}/versions", get(versions).post(register))
        .route("/subjects/{subject}/versions/{version}", get(version))
        .route("/schemas/ids/{id}", get(by_id))
        .route("/schemas/types", get(async || Json(json!(["AVRO"]))))
        .route("/config", get(default_level).put(set_default_level))
        .route("/config/{subject}", get(level).put(set_level))
        .route("/mode", get(async || Json(json!({ "mode": "READWRITE" }))))
        .route("/compatibility/subjects/{subject}/versions/{version}", post(compatible))
        .route("/compatibility/subjects/{subject}/versions", post(compatible_with_all))
        .fallback(async || Failure(StatusCode::NOT_FOUND, 404, "HTTP 404 Not Found".into()))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(registry);
    let (listener, bound) = listen(address).await?;
    tokio::spawn(async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.wait().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "schema registry ended");
        }
    });
    Ok(bound)
}

#[derive(Debug, Deserialize)]
struct Supplied {
    schema: String,
    #[serde(default, rename = "schemaType")]
    schema_type: Option<String>,
}

impl Supplied {
    fn parse(&self) -> Result<Schema, Failure> {
        let invalid = |message: String| Failure(StatusCode::UNPROCESSABLE_ENTITY, 42201, message);
        match self.schema_type.as_deref() {
            None | Some("AVRO") => {
                Schema::parse_str(&self.schema).map_err(|error| invalid(format!("Invalid schema: {error}")))
            }
            Some(other) => Err(invalid(format!("Invalid schema type {other}: this registry knows AVRO"))),
        }
    }
}

impl Registry {
    fn read(&self) -> std::sync::MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, contents: &Contents) -> Result<(), Failure> {
        state::save(&self.file, contents)
            .map_err(|error| Failure(StatusCode::INTERNAL_SERVER_ERROR, 50001, flux_service::logging::chain(&error)))
    }
}

impl Contents {
    /// The schemas of a subject, oldest first.
    fn of_subject(&self, subject: &str) -> Result<&[usize], Failure> {
        self.subjects.get(subject).map(Vec::as_slice).filter(|ids| !ids.is_empty()).ok_or_else(|| no_subject(subject))
    }

    fn level(&self, subject: &str) -> &str {
        self.levels.get(subject).or_else(|| self.levels.get("")).map_or("BACKWARD", String::as_str)
    }

    /// Whether the subject's rule lets `candidate` follow what is there.
    fn compatible(&self, subject: &str, candidate: &Schema) -> Result<(), String> {
        let level = self.level(subject);
        let ids = self.subjects.get(subject).map(Vec::as_slice).unwrap_or_default();
        let checked = if level.ends_with("_TRANSITIVE") { ids } else { &ids[ids.len().saturating_sub(1)..] };
        for id in checked {
            let known = Schema::parse_str(&self.schemas[id - 1]).map_err(|error| error.to_string())?;
            let reads = |writer: &Schema, reader: &Schema| {
                SchemaCompatibility::can_read(writer, reader).map(|_| ()).map_err(|error| error.to_string())
            };
            if level.starts_with("BACKWARD") || level.starts_with("FULL") {
                reads(&known, candidate)?;
            }
            if level.starts_with("FORWARD") || level.starts_with("FULL") {
                reads(candidate, &known)?;
            }
        }
        Ok(())
    }

    /// The id of the same schema in the subject, by canonical form.
    fn find(&self, subject: &str, schema: &Schema) -> Option<usize> {
        let same = |id: &&usize| {
            Schema::parse_str(&self.schemas[**id - 1])
                .is_ok_and(|known| known.canonical_form() == schema.canonical_form())
        };
        self.subjects.get(subject)?.iter().find(same).copied()
    }

    fn entry(&self, subject: &str, version: usize) -> Value {
        let id = self.subjects[subject][version - 1];
        json!({ "subject": subject, "version": version, "id": id, "schemaType": "AVRO", "schema": self.schemas[id - 1] })
    }
}

async fn subjects(State(registry): Shared) -> Json<Vec<String>> {
    Json(registry.read().subjects.keys().cloned().collect())
}

async fn versions(State(registry): Shared, Path(subject): Path<String>) -> Result<Json<Vec<usize>>, Failure> {
    let contents = registry.read();
    Ok(Json((1..=contents.of_subject(&subject)?.len()).collect()))
}

async fn register(
    State(registry): Shared,
    Path(subject): Path<String>,
    Json(supplied): Json<Supplied>,
) -> Result<Json<Value>, Failure> {
    let schema = supplied.parse()?;
    let mut contents = registry.read();
    if let Some(id) = contents.find(&subject, &schema) {
        return Ok(Json(json!({ "id": id })));
    }
    contents.compatible(&subject, &schema).map_err(|error| {
        Failure(
            StatusCode::CONFLICT,
            409,
            format!(
                "Schema being registered is incompatible with an earlier schema for subject \"{subject}\": {error}"
            ),
        )
    })?;
    let id = match contents.schemas.iter().position(|known| *known == supplied.schema) {
        Some(index) => index + 1,
        None => {
            contents.schemas.push(supplied.schema);
            contents.schemas.len()
        }
    };
    contents.subjects.entry(subject).or_default().push(id);
    registry.save(&contents)?;
    Ok(Json(json!({ "id": id })))
}

async fn look_up(
    State(registry): Shared,
    Path(subject): Path<String>,
    Json(supplied): Json<Supplied>,
) -> Result<Json<Value>, Failure> {
    let schema = supplied.parse()?;
    let contents = registry.read();
    let ids = contents.of_subject(&subject)?;
    let id = contents.find(&subject, &schema).ok_or_else(no_schema)?;
    let version = ids.iter().position(|known| *known == id).map_or(1, |index| index + 1);
    Ok(Json(contents.entry(&subject, version)))
}

async fn version(
    State(registry): Shared,
    Path((subject, version)): Path<(String, String)>,
) -> Result<Json<Value>, Failure> {
    let contents = registry.read();
    let count = contents.of_subject(&subject)?.len();
    let version = if version == "latest" { count } else { version.parse().map_err(|_| no_version())? };
    if !(1..=count).contains(&version) {
        return Err(no_version());
    }
    Ok(Json(contents.entry(&subject, version)))
}

async fn by_id(State(registry): Shared, Path(id): Path<usize>) -> Result<Json<Value>, Failure> {
    let contents = registry.read();
    let schema = id.checked_sub(1).and_then(|index| contents.schemas.get(index)).ok_or_else(no_schema)?;
    Ok(Json(json!({ "schema": schema })))
}

async fn delete(State(registry): Shared, Path(subject): Path<String>) -> Result<Json<Vec<usize>>, Failure> {
    let mut contents = registry.read();
    let versions = (1..=contents.of_subject(&subject)?.len()).collect();
    // Ids stay: records that were written with them must stay readable.
    contents.subjects.remove(&subject);
    registry.save(&contents)?;
    Ok(Json(versions))
}

async fn default_level(State(registry): Shared) -> Json<Value> {
    Json(json!({ "compatibilityLevel": registry.read().level("") }))
}

async fn level(State(registry): Shared, Path(subject): Path<String>) -> Result<Json<Value>, Failure> {
    let contents = registry.read();
    let level = contents.levels.get(&subject).ok_or_else(|| {
        Failure(
            StatusCode::NOT_FOUND,
            40408,
            format!("Subject '{subject}' does not have subject-level compatibility configured"),
        )
    })?;
    Ok(Json(json!({ "compatibilityLevel": level })))
}

#[derive(Debug, Deserialize)]
struct Level {
    compatibility: String,
}

async fn set_default_level(registry: Shared, level: Json<Level>) -> Result<Json<Value>, Failure> {
    set_level(registry, Path(String::new()), level).await
}

async fn set_level(
    State(registry): Shared,
    Path(subject): Path<String>,
    Json(level): Json<Level>,
) -> Result<Json<Value>, Failure> {
    let base = level.compatibility.strip_suffix("_TRANSITIVE").unwrap_or(&level.compatibility);
    if !["NONE", "BACKWARD", "FORWARD", "FULL"].contains(&base) {
        return Err(Failure(
            StatusCode::UNPROCESSABLE_ENTITY,
            42203,
            format!("Invalid compatibility level {}", level.compatibility),
        ));
    }
    let mut contents = registry.read();
    contents.levels.insert(subject, level.compatibility.clone());
    registry.save(&contents)?;
    Ok(Json(json!({ "compatibility": level.compatibility })))
}

async fn compatible(
    State(registry): Shared,
    Path((subject, _)): Path<(String, String)>,
    Json(supplied): Json<Supplied>,
) -> Result<Json<Value>, Failure> {
    let schema = supplied.parse()?;
    let contents = registry.read();
    contents.of_subject(&subject)?;
    Ok(Json(json!({ "is_compatible": contents.compatible(&subject, &schema).is_ok() })))
}

async fn compatible_with_all(
    registry: Shared,
    Path(subject): Path<String>,
    supplied: Json<Supplied>,
) -> Result<Json<Value>, Failure> {
    compatible(registry, Path((subject, String::new())), supplied).await
}
