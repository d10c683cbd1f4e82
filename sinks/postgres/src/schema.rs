//! Tables, and the day partitions of the history.

use flux_runner::contract::Error;
use flux_schemas::time::Date;
use tokio_postgres::Client;

use crate::connect::classify;

/// Creates what is missing; leaves what is there.
///
/// # Errors
/// [`Error::Broken`] when the user may not.
pub async fn ensure(client: &Client) -> Result<(), Error> {
    // Two sinks that start together would trip over each other's CREATE: one at a time.
    let statement = format!(
        "begin; select pg_advisory_xact_lock({LOCK});
         create table if not exists flux_positions (
             sink text not null, cluster_id text not null, topic text not null, partition int not null,
             topic_id text not null, next bigint, epoch bigint not null, owner_pid int,
             primary key (sink, cluster_id, topic, partition));
         create table if not exists ami_interval_readings (
             meter_id text not null, reading_timestamp timestamptz not null, usage_kwh float8 not null,
             voltage float8 not null, transformer_id text not null, circuit_id text not null,
             substation_id text not null, customer_segment text not null, service_area text not null,
             is_outage boolean not null, data_quality text not null, run_id text not null,
             kafka_partition int not null, kafka_offset bigint not null)
             partition by range (reading_timestamp);
         create table if not exists ami_realtime (
             meter_id text primary key, reading_timestamp timestamptz not null, usage_kwh float8 not null,
             voltage float8 not null, transformer_id text not null, circuit_id text not null,
             substation_id text not null, customer_segment text not null, service_area text not null,
             is_outage boolean not null, data_quality text not null, run_id text not null,
             kafka_partition int not null, kafka_offset bigint not null);
         create index if not exists ami_realtime_transformer on ami_realtime (transformer_id);
         create index if not exists ami_realtime_circuit on ami_realtime (circuit_id);
         commit"
    );
    client.batch_execute(&statement).await.map_err(classify)
}

/// Makes the session's place for the latest readings of a unit.
///
/// # Errors
/// [`Error::Broken`] when the user may not.
pub async fn ensure_latest(client: &Client) -> Result<(), Error> {
    let statement = "create temp table if not exists flux_latest (like ami_realtime) on commit delete rows";
    client.batch_execute(statement).await.map_err(classify)
}

/// Any number, the same in every sink: the advisory lock for changes of the schema.
const LOCK: i64 = 0x666c_7578;

/// Makes sure of the partitions for these days (since the Unix epoch), outside the write path: `create table partition
/// of` would lock the parent against every writer, so the table is made apart and then attached.
///
/// # Errors
/// As [`classify`].
pub async fn ensure_days(client: &Client, days: &[i64]) -> Result<(), Error> {
    for day in days {
        let (from, to) = (Date::from_days(*day), Date::from_days(day + 1));
        let name = format!("ami_interval_readings_{:04}{:02}{:02}", from.year, from.month, from.day);
        // Names come from the calendar, never from data.
        let statement = format!(
            "begin; select pg_advisory_xact_lock({LOCK});
             do $$ begin
                 if to_regclass('{name}') is null then
                     create table {name} (like ami_interval_readings including defaults,
                         constraint {name}_day check (reading_timestamp >= '{from}' and reading_timestamp < '{to}'));
                     alter table ami_interval_readings attach partition {name} for values from ('{from}') to ('{to}');
                     alter table {name} drop constraint {name}_day;
                 end if;
             end $$;
             commit"
        );
        client.batch_execute(&statement).await.map_err(classify)?;
    }
    Ok(())
}
