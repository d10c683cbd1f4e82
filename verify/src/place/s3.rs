//! The bronze objects, and the plans that name them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Read,
    ops::Bound,
    sync::Arc,
};

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use flux_schemas::{
    layout::{
        json::ReadBack,
        parquet::read_back,
        plan::{PLAN_PREFIX, Plan},
        table::data_prefix,
    },
    source::{Partition, Source},
};
use flux_service::s3::S3Login;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, path::Path};
use parquet::file::reader::{FileReader, SerializedFileReader};

use crate::{Error, tally::Tally};

fn failed<E: Into<Box<dyn std::error::Error + Send + Sync>>>(doing: impl ToString) -> impl Fn(E) -> Error {
    move |error| Error::Place { place: "s3", doing: doing.to_string(), source: error.into() }
}

fn open(login: &S3Login) -> Result<Arc<dyn ObjectStore>, Error> {
    login.open().map_err(failed("opening the bucket"))
}

async fn keys(store: &dyn ObjectStore, prefix: &str) -> Result<Vec<Path>, Error> {
    store
        .list(Some(&Path::from(prefix)))
        .map_ok(|object| object.location)
        .try_collect()
        .await
        .map_err(failed(format!("listing {prefix}")))
}

async fn bytes(store: &dyn ObjectStore, key: &Path) -> Result<Bytes, Error> {
    let got = store.get(key).await.map_err(failed(key))?;
    got.bytes().await.map_err(failed(key))
}

async fn plan(store: &dyn ObjectStore, key: &Path) -> Result<Plan, Error> {
    serde_json::from_slice(&bytes(store, key).await?).map_err(failed(key))
}

pub(super) async fn positions(
    login: &S3Login,
    sink: &str,
    topic: &Source,
    partitions: i32,
) -> Result<BTreeMap<i32, i64>, Error> {
    let store = open(login)?;
    let mut positions = BTreeMap::new();
    for partition in 0..partitions {
        let source = Source { partition: Partition(partition), ..topic.clone() };
        let prefix = flux_schemas::layout::plan::chain_prefix(sink, &source);
        let last = keys(&*store, &prefix).await?.into_iter().max();
        if let Some(last) = last {
            let plan = plan(&*store, &last).await?;
            // A plan counts once all its objects are there.
            let store = &store;
            let heads =
                plan.objects.iter().map(|object| async { store.head(&Path::from(object.key.as_str())).await.is_ok() });
            let complete = futures::stream::iter(heads).buffer_unordered(16).all(async |there| there).await;
            positions.insert(partition, if complete { plan.to } else { plan.from } as i64);
        }
    }
    Ok(positions)
}

pub(super) async fn scan(login: &S3Login, sink: &str, topic: &str, tally: &mut Tally) -> Result<(), Error> {
    let store = open(login)?;
    let marker = format!("ami_stream_{topic}_");
    let of_topic = |key: &Path| {
        key.filename().is_some_and(|name| {
            name.strip_prefix(&marker).is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        })
    };
    // Listed before the objects: what these plans name is there by now, or is missing. Listed again after them: an
    // object that is there by now was planned before.
    let plans_before = plan_keys(&*store, sink, topic).await?;
    let objects: BTreeSet<Path> =
        keys(&*store, &data_prefix(tally.table())).await?.into_iter().filter(of_topic).collect();
    let plans = plan_keys(&*store, sink, topic).await?;
    let (mut planned, mut due, mut at_work) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let mut read = futures::stream::iter(&plans)
        .map(|key| {
            let store = &store;
            async move { plan(&**store, key).await.map(|plan| (key, plan)) }
        })
        .buffer_unordered(16);
    while let Some((key, plan)) = read.try_next().await? {
        let objects = plan.objects.into_iter().map(|object| Path::from(object.key));
        if !plans_before.contains(key) {
            planned.extend(objects);
        } else if is_last_of_its_chain(key, &plans_before) {
            at_work.extend(objects);
        } else {
            due.extend(objects);
        }
    }
    planned.extend(due.iter().chain(&at_work).cloned());
    if let Some(fault) = some_of("objects that no plan names", objects.difference(&planned)) {
        tally.fault(fault);
    }
    if let Some(fault) = some_of("planned objects that are not there", due.difference(&objects)) {
        tally.fault(fault);
    }
    // A writer puts the objects of its last plan after the plan. Where they had to be there, their rows are missing.
    if let Some(note) = some_of("planned objects that are not there yet", at_work.difference(&objects)) {
        tally.note(note);
    }
    let mut bodies = futures::stream::iter(objects.iter().map(|key| {
        let store = &store;
        async move { bytes(&**store, key).await.map(|body| (key, body)) }
    }))
    .buffer_unordered(8);
    while let Some((key, body)) = bodies.try_next().await? {
        // One object's rows are CPU work of milliseconds; they are read where they are.
        if key.as_ref().ends_with(".parquet") { parquet(key, body, tally)? } else { ndjson(key, &body, tally)? }
    }
    Ok(())
}

async fn plan_keys(store: &dyn ObjectStore, sink: &str, topic: &str) -> Result<BTreeSet<Path>, Error> {
    Ok(keys(store, &format!("{PLAN_PREFIX}{sink}/{topic}")).await?.into_iter().collect())
}

/// Plan keys of one chain share a folder and sort by the position they start at.
fn is_last_of_its_chain(key: &Path, plans: &BTreeSet<Path>) -> bool {
    let folder = |key: &Path| key.as_ref().rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let next = plans.range((Bound::Excluded(key), Bound::Unbounded)).next();
    next.is_none_or(|next| folder(next) != folder(key))
}

fn some_of<'a>(what: &str, keys: impl Iterator<Item = &'a Path>) -> Option<String> {
    let keys: Vec<&Path> = keys.collect();
    let some: Vec<&str> = keys.iter().take(3).map(|key| key.as_ref()).collect();
    (!keys.is_empty()).then(|| format!("{} {what}: {}", keys.len(), some.join(", ")))
}

fn ndjson(key: &Path, body: &[u8], tally: &mut Tally) -> Result<(), Error> {
    let mut text = Vec::new();
    MultiGzDecoder::new(body).read_to_end(&mut text).map_err(failed(key))?;
    lines(&text, tally, || key.to_string());
    Ok(())
}

/// Counts the lines of an NDJSON text that belong to the run.
pub(super) fn lines(text: &[u8], tally: &mut Tally, origin: impl Fn() -> String) {
    let run = tally.run_id().to_string();
    for (number, line) in text.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty()) {
        let at = || format!("{} line {}", origin(), number + 1);
        match ReadBack::parse(tally.table(), line) {
            Ok(row) if row.run_id != run => {}
            Ok(row) => {
                let mut cells = Vec::new();
                row.cells(tally.width(), &mut cells);
                tally.row(&cells, at);
            }
            Err(error) => tally.unreadable(&error, at),
        }
    }
}

fn parquet(key: &Path, body: Bytes, tally: &mut Tally) -> Result<(), Error> {
    let run = tally.run_id().to_string();
    let reader = SerializedFileReader::new(body).map_err(failed(key))?;
    for (number, record) in reader.get_row_iter(None).map_err(failed(key))?.enumerate() {
        let record = record.map_err(failed(key))?;
        let at = || format!("{key} row {}", number + 1);
        let mut cells = Vec::new();
        match read_back(tally.table(), tally.width(), &record, &mut cells) {
            Some(of_run) if of_run != run => {}
            Some(_) => tally.row(&cells, at),
            None => tally.unreadable("a value that no row has", at),
        }
    }
    Ok(())
}
