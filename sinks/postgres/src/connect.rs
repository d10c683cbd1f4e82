//! Connections, and what an error of the database means for the runner.

use flux_runner::contract::Error;
use flux_service::postgres;
use tokio_postgres::{Client, error::SqlState};

use crate::settings::PostgresSettings;

/// Opens a connection with the sink's deadlines.
///
/// # Errors
/// [`Error::Unavailable`]: later. [`Error::Broken`]: the login or the TLS settings are wrong.
pub async fn connect(settings: &PostgresSettings) -> Result<Client, Error> {
    let client = settings.login.connect().await.map_err(|error| match error {
        postgres::Error::Server(error) => classify(error),
        tls @ postgres::Error::Tls { .. } => Error::broken(tls.to_string(), "correct the setting"),
    })?;
    // A frozen owner inside COPY counts as active, so the idle-in-transaction timeout alone would never end it.
    let millis = settings.write_timeout.as_millis();
    client
        .batch_execute(&format!(
            "set statement_timeout = {millis}; set idle_in_transaction_session_timeout = {millis}; set timezone = 'UTC'"
        ))
        .await
        .map_err(classify)?;
    Ok(client)
}

/// What the runner should do about a database error. Rights, names and passwords need a person; everything else may pass.
pub fn classify(error: tokio_postgres::Error) -> Error {
    let fix = match error.code() {
        Some(state) if *state == SqlState::INSUFFICIENT_PRIVILEGE => {
            "grant the sink's user TEMPORARY on the database, CREATE on the schema, and SELECT, INSERT and UPDATE on flux_positions, ami_interval_readings and ami_realtime"
        }
        Some(state)
            if *state == SqlState::INVALID_PASSWORD || *state == SqlState::INVALID_AUTHORIZATION_SPECIFICATION =>
        {
            "check user and password in postgres.url_file"
        }
        Some(state) if *state == SqlState::INVALID_CATALOG_NAME => {
            "create the database, or name another in postgres.url"
        }
        Some(state) if *state == SqlState::UNDEFINED_COLUMN || *state == SqlState::DATATYPE_MISMATCH => {
            "the tables are not those of this version: move them away, or use another schema"
        }
        _ => return Error::unavailable(error),
    };
    let what =
        error.as_db_error().map_or_else(|| error.to_string(), |error| format!("PostgreSQL: {}", error.message()));
    Error::Broken { what, fix: fix.into(), source: Some(error.into()) }
}
