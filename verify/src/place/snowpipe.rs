//! The table files of the local Snowpipe emulator.

use std::{collections::BTreeMap, path::Path};

use flux_schemas::{
    layout::{
        table_files::{ChannelState, STATE_FILE, data_file, segment},
        token::{self, Token},
    },
    source::{Partition, Source},
};

use crate::{Error, tally::Tally};

fn failed(path: &Path) -> impl Fn(Box<dyn std::error::Error + Send + Sync>) -> Error + '_ {
    move |source| Error::Place { place: "snowpipe", doing: format!("reading {}", path.display()), source }
}

fn state(folder: &Path) -> Result<Option<ChannelState>, Error> {
    let path = folder.join(STATE_FILE);
    match std::fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| failed(&path)(error.into())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&path)(error.into())),
    }
}

pub(super) fn positions(root: &Path, sink: &str, topic: &Source, partitions: i32) -> Result<BTreeMap<i32, i64>, Error> {
    let mut positions = BTreeMap::new();
    for partition in 0..partitions {
        let source = Source { partition: Partition(partition), ..topic.clone() };
        let state = state(&root.join(segment(&token::channel(sink, &source))))?;
        let token = state.and_then(|state| Token::parse(&state.committed_token?));
        if let Some(token) = token.filter(|token| token.identity == source.identity()) {
            positions.insert(partition, token.next.0 as i64);
        }
    }
    Ok(positions)
}

pub(super) fn scan(root: &Path, tally: &mut Tally) -> Result<(), Error> {
    let channels = match std::fs::read_dir(root) {
        Ok(channels) => channels,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            tally.note(format!("there is no folder {}", root.display()));
            return Ok(());
        }
        Err(error) => return Err(failed(root)(error.into())),
    };
    for channel in channels {
        let folder = channel.map_err(|error| failed(root)(error.into()))?.path();
        let Some(state) = state(&folder)? else { continue };
        for number in 0..state.files {
            let path = folder.join(data_file(number));
            let file = std::fs::File::open(&path).map_err(|error| failed(&path)(error.into()))?;
            let text = zstd::decode_all(file).map_err(|error| failed(&path)(error.into()))?;
            super::s3::lines(&text, tally, || path.display().to_string());
        }
    }
    Ok(())
}
