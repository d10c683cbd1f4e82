//! Tables, and the day partitions of the history.

use flux_runner::contract::Error;
use flux_schemas::{
    layout::table::{postgres_table, postgres_type},
    row::{Column, Table},
    time::Date,
};
use tokio_postgres::Client;

use crate::connect::classify;

/// Creates what is missing, columns included; leaves what is there.
///
/// # Errors
/// [`Error::Broken`] when the user may not.
pub async fn ensure(client: &Client, table: &Table) -> Result<(), Error> {
    let name = postgres_table(table);
    let column = |column: &Column| {
        let null = if column.nullable { "" } else { " not null" };
        format!("{} {}{null}", column.lower, postgres_type(&column.kind))
    };
    let origin = ["run_id text not null", "kafka_partition int not null", "kafka_offset bigint not null"];
    let narrow: Vec<String> =
        table.columns[..table.narrow].iter().map(column).chain(origin.map(String::from)).collect();
    let later = &table.columns[table.narrow..];
    let added: Vec<String> = later.iter().map(|wide| format!("add column if not exists {}", column(wide))).collect();
    // A table that has the columns is not locked for it.
    let widen = later.last().map_or_else(String::new, |last| {
        format!(
            "do $$ begin
                 if not exists (select from information_schema.columns where table_name = '{name}'
                     and table_schema = current_schema() and column_name = '{}') then
                     alter table {name} {};
                 end if;
             end $$;",
            last.lower,
            added.join(", ")
        )
    });
    let realtime = if table.name == Table::readings().name {
        format!(
            "create table if not exists ami_realtime ({}, primary key (meter_id));
             create index if not exists ami_realtime_transformer on ami_realtime (transformer_id);
             create index if not exists ami_realtime_circuit on ami_realtime (circuit_id);",
            narrow.join(", ")
        )
    } else {
        String::new()
    };
    // Two sinks that start together would trip over each other's CREATE: one at a time.
    let statement = format!(
        "begin; select pg_advisory_xact_lock({LOCK});
         create table if not exists flux_positions (
             sink text not null, cluster_id text not null, topic text not null, partition int not null,
             topic_id text not null, next bigint, epoch bigint not null, owner_pid int,
             primary key (sink, cluster_id, topic, partition));
         create table if not exists {name} ({}) partition by range ({});
         {widen}
         {realtime}
         commit",
        narrow.join(", "),
        table.columns[1].lower
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
pub async fn ensure_days(client: &Client, table: &Table, days: &[i64]) -> Result<(), Error> {
    let parent = postgres_table(table);
    let time = table.columns[1].lower;
    for day in days {
        let (from, to) = (Date::from_days(*day), Date::from_days(day + 1));
        let name = format!("{parent}_{:04}{:02}{:02}", from.year, from.month, from.day);
        // Names come from the calendar, never from data.
        let statement = format!(
            "begin; select pg_advisory_xact_lock({LOCK});
             do $$ begin
                 if to_regclass('{name}') is null then
                     create table {name} (like {parent} including defaults,
                         constraint {name}_day check ({time} >= '{from}' and {time} < '{to}'));
                     alter table {parent} attach partition {name} for values from ('{from}') to ('{to}');
                     alter table {name} drop constraint {name}_day;
                 end if;
             end $$;
             commit"
        );
        client.batch_execute(&statement).await.map_err(classify)?;
    }
    Ok(())
}
