//! From Kafka bytes to a row.

use std::collections::HashMap;

use flux_schemas::{
    codec::Decoder,
    framing::{self, SchemaId},
    row::{Cell, Table},
    run::{RUN_HEADER, RunId},
};
use flux_service::registry::{self, Registry};
use rdkafka::{
    Message,
    message::{BorrowedMessage, Headers},
};

/// Why a schema cannot be had; the record is not at fault.
#[derive(Debug)]
pub enum Error {
    /// The registry does not answer: ask again later.
    Unavailable(registry::Error),
    /// The registry does not know the id: it is the wrong one.
    WrongRegistry(registry::Error),
}

/// Decoders by schema id.
#[derive(Debug)]
pub struct Decoders {
    table: &'static Table,
    registry: Registry,
    /// `Err`: no datum of this schema is a row of the table, and why.
    known: HashMap<SchemaId, Result<Decoder, String>>,
    runtime: tokio::runtime::Handle,
}

impl Decoders {
    /// Asks `registry` for each id once; must be used from a thread outside `runtime`'s workers.
    pub fn new(table: &'static Table, registry: Registry, runtime: tokio::runtime::Handle) -> Self {
        Self { table, registry, known: HashMap::new(), runtime }
    }

    /// Makes sure that the record's schema is known. Apart from [`Decoders::decode`], so that a registry outage is
    /// never mistaken for poison.
    ///
    /// # Errors
    /// [`Error`]: wait, or stop.
    pub fn prepare(&mut self, message: &BorrowedMessage<'_>) -> Result<(), Error> {
        let Some((id, _)) = message.payload().and_then(framing::split) else { return Ok(()) };
        if self.known.contains_key(&id) {
            return Ok(());
        }
        let schema = self.runtime.block_on(self.registry.schema(id.0)).map_err(|error| match error {
            registry::Error::Unknown { .. } => Error::WrongRegistry(error),
            other => Error::Unavailable(other),
        })?;
        let decoder = Decoder::new(self.table, &schema)
            .map_err(|error| format!("schema {} is not one of {}: {error}", id.0, self.table.name));
        self.known.insert(id, decoder);
        Ok(())
    }

    /// The run of a prepared record, and its row in `cells`. `scratch` holds what had to be resolved.
    ///
    /// # Errors
    /// Why the record is poison: its bytes are at fault.
    pub fn decode<'a>(
        &self,
        message: &'a BorrowedMessage<'_>,
        scratch: &'a mut Vec<u8>,
        cells: &mut Vec<Cell<'a>>,
    ) -> Result<RunId, String> {
        let run = run_of(message).ok_or("no run header of eight bytes")?;
        let value = message.payload().ok_or("no value")?;
        let (id, datum) = framing::split(value).ok_or("no Confluent frame: a zero byte and a schema id")?;
        let decoder = self.known.get(&id).ok_or("a schema that was not asked for")?.as_ref()?;
        decoder.decode(datum, scratch, cells).map_err(|error| error.to_string())?;
        Ok(run)
    }
}

/// The run header of a record, if it has one.
pub fn run_of(message: &BorrowedMessage<'_>) -> Option<RunId> {
    let headers = message.headers()?;
    let header = headers.iter().find(|header| header.key == RUN_HEADER)?;
    Some(RunId(u64::from_be_bytes(header.value?.try_into().ok()?)))
}
