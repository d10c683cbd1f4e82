//! Rows from a seed straight to files, without Kafka: a file for each UTC day.
//!
//! ```text
//! RunSpec ─▶ days ─▶ threads ─▶ DIR/dt=2026-01-31/readings.parquet
//! ```
//! A day's bytes depend on the run and the format alone, so threads and restarts change nothing. A file is written
//! under another name and renamed when it is whole: what is there is complete, and a restart goes on with what is not.
//! `DIR/run.json` says what the files are of; another run is refused, not mixed in.
//!
//! | module | holds |
//! |---|---|
//! | [`parquet`] | columns, zstd |
//! | [`text`] | CSV, NDJSON |
//! | [`avro`] | Avro object container files |
//! | [`customer`] | what customers download: Green Button, Smart Meter Texas |
//! | [`place`] | where files go: a folder, or whatever else keeps files |

mod avro;
mod customer;
mod parquet;
pub mod place;
mod text;

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
};

use flux_generator::{emission::Emit, events::Events, model::Contexts, register::Registers, run::Run};
use flux_schemas::{
    reading::Reading,
    row::{Cell, Row, Table},
    run::RunSpec,
    time::Date,
};

use crate::place::Place;

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Parquet, zstd pages, columns named as in PostgreSQL.
    Parquet,
    /// CSV with a header line, columns named as in PostgreSQL.
    Csv,
    /// One JSON object a line, gzip, keys named as in PostgreSQL.
    NdjsonGz,
    /// Avro object container, deflate; the schema of the topic.
    Avro,
    /// Green Button: ESPI interval blocks in an Atom feed.
    GreenButton,
    /// The interval CSV of Smart Meter Texas.
    SmtCsv,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 6] = [Self::Parquet, Self::Csv, Self::NdjsonGz, Self::Avro, Self::GreenButton, Self::SmtCsv];

    /// The format with this name.
    ///
    /// # Errors
    /// The names there are.
    pub fn parse(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|format| format.as_str() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::as_str);
            format!("use {}", names.join(", "))
        })
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::NdjsonGz => "ndjson.gz",
            Self::Avro => "avro",
            Self::GreenButton => "green-button",
            Self::SmtCsv => "smt-csv",
        }
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::GreenButton => "green-button.xml",
            Self::SmtCsv => "smt.csv",
            other => other.as_str(),
        }
    }

    /// Whether it is of customers' readings, and of nothing else.
    const fn is_of_customers(self) -> bool {
        matches!(self, Self::GreenButton | Self::SmtCsv)
    }
}

/// Why there are no files, or not all. What is there is whole.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The disk, or the rights on it.
    #[error("{}: {doing}; what is there stays, the same command goes on", path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// What we were doing.
        doing: &'static str,
        /// Cause.
        #[source]
        source: io::Error,
    },
    /// The Parquet library.
    #[error("{}: writing Parquet", path.display())]
    Parquet {
        /// Where.
        path: PathBuf,
        /// Cause.
        #[source]
        source: ::parquet::errors::ParquetError,
    },
    /// The folder holds another run.
    #[error("{} is of another run: its {field} is {theirs}, {ours} was asked for; use an empty folder", path.display())]
    OtherRun {
        /// The description found.
        path: PathBuf,
        /// Field of the RunSpec.
        field: String,
        /// In the folder.
        theirs: String,
        /// Asked for.
        ours: String,
    },
    /// A run without an end has no last file.
    #[error("the run has no end; give it --days")]
    OpenEnded,
}

fn file(path: &Path, doing: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::File { path: path.into(), doing, source }
}

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Files written.
    pub written: u64,
    /// Files that were there.
    pub kept: u64,
    /// Rows written.
    pub rows: u64,
    /// Bytes written.
    pub bytes: u64,
}

/// Counts that others may watch, and a request to stop.
#[derive(Debug, Default)]
pub struct Watch {
    /// Rows written, or found written.
    pub rows: AtomicU64,
    /// Set to end after the files that are being written.
    pub stop: AtomicBool,
}

/// One file of one day.
#[derive(Debug, Clone, Copy)]
struct Piece {
    day: i64,
    table: &'static Table,
}

/// Writes the files of `run` that `place` lacks.
///
/// # Errors
/// [`Error`]; the first of any thread.
pub fn export(
    run: &Arc<Run>,
    place: &dyn Place,
    format: Format,
    threads: usize,
    watch: &Watch,
) -> Result<Summary, Error> {
    let end = run.end_interval().ok_or(Error::OpenEnded)?;
    describe(run.spec(), place)?;
    let day_of = |interval: i64| (interval * run.interval_ms()).div_euclid(86_400_000);
    let days = day_of(run.first_interval())..=day_of(end - 1);
    let mut pieces = Vec::new();
    for day in days.clone() {
        pieces.push(Piece { day, table: Table::readings() });
        if run.has_events() && !format.is_of_customers() {
            pieces.push(Piece { day, table: Table::events() });
        }
    }
    if run.has_events() && !format.is_of_customers() {
        pieces.push(Piece { day: *days.start(), table: Table::assets() });
    }
    let next = AtomicI64::new(0);
    let work = || -> Result<Summary, Error> {
        let mut summary = Summary::default();
        let mut worker = Worker::new(run.clone());
        loop {
            let number = next.fetch_add(1, Relaxed) as usize;
            let Some(piece) = pieces.get(number).filter(|_| !watch.stop.load(Relaxed)) else { return Ok(summary) };
            let first = (piece.day * 86_400_000).div_euclid(run.interval_ms());
            let after = ((piece.day + 1) * 86_400_000).div_euclid(run.interval_ms());
            let intervals = first.max(run.first_interval())..after.min(end);
            let key = format!("dt={}/{}.{}", Date::from_days(piece.day), piece.table.name, format.extension());
            let path = place.path(&key);
            if place.has(&key).map_err(file(&path, "looking for it"))? {
                summary.kept += 1;
                if piece.table.name == Table::readings().name {
                    watch.rows.fetch_add(run.rows(0..run.fleet().len(), intervals), Relaxed);
                }
                continue;
            }
            let unfinished = place.unfinished(&key).map_err(file(&path, "creating the folder"))?;
            let out = File::create(&unfinished).map_err(file(&unfinished, "creating the file"))?;
            let out = BufWriter::with_capacity(1 << 20, out);
            let (written, out) = worker.write(piece.table, intervals, format, out, &watch.rows, &unfinished)?;
            let out = out.into_inner().map_err(|error| file(&unfinished, "writing")(error.into_error()))?;
            out.sync_all().map_err(file(&unfinished, "writing"))?;
            summary.bytes += out.metadata().map_err(file(&unfinished, "reading its size"))?.len();
            place.keep(&unfinished, &key).map_err(file(&path, "putting the finished file there"))?;
            summary.written += 1;
            summary.rows += written;
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        let mut outcomes = workers.into_iter().map(|worker| worker.join().expect("an export thread does not panic"));
        outcomes.try_fold(Summary::default(), |sum, one| {
            let one = one?;
            Ok(Summary {
                written: sum.written + one.written,
                kept: sum.kept + one.kept,
                rows: sum.rows + one.rows,
                bytes: sum.bytes + one.bytes,
            })
        })
    })
}

/// What a thread keeps from file to file.
struct Worker {
    run: Arc<Run>,
    contexts: Contexts,
    registers: Option<Registers>,
    events: Option<Events>,
    parquet: parquet::Columns,
}

impl Worker {
    fn new(run: Arc<Run>) -> Self {
        let all = || (0..run.fleet().len()).collect::<Vec<_>>();
        Self {
            contexts: Contexts::default(),
            registers: run.is_wide().then(|| Registers::new(&run, all())),
            events: run.has_events().then(|| Events::new(run.clone(), &all())),
            parquet: parquet::Columns::new(&run),
            run,
        }
    }

    fn write<W: Write + Send>(
        &mut self,
        table: &'static Table,
        intervals: Range<i64>,
        format: Format,
        out: W,
        watched: &AtomicU64,
        path: &Path,
    ) -> Result<(u64, W), Error> {
        let in_parquet = |source| Error::Parquet { path: path.into(), source };
        let readings = table.name == Table::readings().name;
        let width = if readings { self.run.spec().width() } else { table.columns.len() };
        let nobody = AtomicU64::new(0);
        let watched = if readings { watched } else { &nobody };
        if format == Format::Parquet && readings && self.run.is_plain() && !self.run.is_wide() {
            let run = self.run.clone();
            let rows = Rows { run: &run, contexts: &mut self.contexts, intervals };
            return self.parquet.write(rows, out, watched).map_err(in_parquet);
        }
        match format {
            Format::Parquet => {
                parquet::write(table, width, out, |each| self.each(table, intervals, each, watched)).map_err(in_parquet)
            }
            Format::Csv => text::csv(table, width, out, |each| self.each(table, intervals, each, watched))
                .map_err(file(path, "writing")),
            Format::NdjsonGz => {
                text::ndjson(out, |each| self.each(table, intervals, each, watched)).map_err(file(path, "writing"))
            }
            Format::Avro => avro::write(table, width, out, |each| self.each(table, intervals, each, watched))
                .map_err(file(path, "writing")),
            Format::GreenButton | Format::SmtCsv => {
                let run = self.run.clone();
                customer::write(&run, &mut self.contexts, intervals, format, out, watched)
                    .map_err(file(path, "writing"))
            }
        }
    }

    /// Calls `each` with every row of a table, and returns how many there were. Readings are filed under their own day,
    /// whenever they arrive; events under the day of their arrival.
    fn each<E>(
        &mut self,
        table: &'static Table,
        intervals: Range<i64>,
        each: &mut dyn FnMut(&Row<'_>) -> Result<(), E>,
        watched: &AtomicU64,
    ) -> Result<u64, E> {
        let run = self.run.clone();
        let mut rows = 0;
        let mut hand = |cells: &[Cell<'_>]| {
            rows += 1;
            watched.fetch_add(1, Relaxed);
            each(&Row { table, cells })
        };
        match table.name {
            "events" => {
                let (Some(source), mut here) = (&mut self.events, Vec::new()) else { return Ok(0) };
                for bucket in intervals {
                    source.of_bucket(bucket, &mut self.contexts, &mut here);
                    for event in &here {
                        let mut cells = Vec::new();
                        event.cells(run.fleet(), &mut cells);
                        hand(&cells)?;
                    }
                }
            }
            "assets" => {
                for index in 0..run.assets() {
                    let mut cells = Vec::new();
                    run.asset_cells(index, &mut cells);
                    hand(&cells)?;
                }
            }
            _ => {
                let mut emits: Vec<Emit> = Vec::new();
                for interval in intervals {
                    for meter in 0..run.fleet().len() {
                        emits.clear();
                        run.variants(meter, interval, &mut self.contexts, |emit| emits.push(emit));
                        for emit in &emits {
                            match &mut self.registers {
                                None => hand(&run.reading_of(*emit, &mut self.contexts).cells())?,
                                Some(registers) => {
                                    let mut cells = Vec::new();
                                    run.reading_cells(*emit, &mut self.contexts, registers, &mut cells);
                                    hand(&cells)?;
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(rows)
    }
}

/// Says in the folder what its files are of, or refuses it.
fn describe(spec: &RunSpec, place: &dyn Place) -> Result<(), Error> {
    let key = "run.json";
    let path = place.path(key);
    let ours = serde_json::to_value(spec).expect("a spec is JSON");
    if let Some(bytes) = place.read(key).map_err(file(&path, "reading"))? {
        let theirs: serde_json::Value =
            serde_json::from_slice(&bytes).map_err(|error| file(&path, "reading")(error.into()))?;
        let fields = ours.as_object().expect("a spec is an object");
        return match fields.iter().find(|(field, value)| theirs.get(field) != Some(value)) {
            None => Ok(()),
            Some((field, value)) => Err(Error::OtherRun {
                theirs: theirs.get(field).unwrap_or_default().to_string(),
                field: field.clone(),
                ours: value.to_string(),
                path,
            }),
        };
    }
    let text = serde_json::to_string_pretty(&ours).expect("a spec is JSON");
    let write = || -> io::Result<()> {
        let unfinished = place.unfinished(key)?;
        let mut out = File::create(&unfinished)?;
        out.write_all(text.as_bytes())?;
        out.sync_all()?;
        place.keep(&unfinished, key)
    };
    write().map_err(file(&path, "writing"))
}

/// The narrow rows of some intervals of a plain run, by interval and meter.
struct Rows<'a> {
    run: &'a Run,
    contexts: &'a mut Contexts,
    intervals: Range<i64>,
}

impl Rows<'_> {
    /// Calls `each` with every row that is emitted.
    fn each<E>(&mut self, mut each: impl FnMut(u32, &Reading<'_>) -> Result<(), E>) -> Result<u64, E> {
        let mut rows = 0;
        for interval in self.intervals.clone() {
            let context = self.contexts.get(self.run.model(), interval);
            for meter in (0..self.run.fleet().len()).filter(|meter| self.run.reports(*meter, interval)) {
                each(meter, &self.run.reading(meter, context))?;
                rows += 1;
            }
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use flux_generator::{
        emission::Pattern,
        model::LoadModel,
        run::{Request, TopicsOfRun},
    };
    use flux_schemas::{run::RunId, time::Timestamp};

    use super::*;
    use crate::place::Folder;

    fn request(seed: u64, pattern: Pattern) -> Request {
        let start = Timestamp::parse("2026-01-01T06:00:00Z").unwrap();
        let end = Some(Timestamp(start.0 + 3 * 86_400_000));
        Request { pattern, load: LoadModel::Utility, ..Request::new(seed, 50, start, end) }
    }

    fn run_of(request: &Request) -> Arc<Run> {
        let spec = request.spec(RunId(request.seed), TopicsOfRun::none(), 1).unwrap();
        Arc::new(Run::new(spec, None).unwrap())
    }

    fn run(seed: u64, pattern: Pattern) -> Arc<Run> {
        run_of(&request(seed, pattern))
    }

    fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let mut days: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        days.sort();
        days.retain(|path| path.is_dir());
        let files = days.iter().flat_map(|day| fs::read_dir(day).unwrap().map(|entry| entry.unwrap().path()));
        files.map(|path| (path.strip_prefix(folder).unwrap().display().to_string(), fs::read(&path).unwrap())).collect()
    }

    /// As plain as can be, and everything at once.
    fn requests() -> [Request; 2] {
        let plain = request(1, Pattern::Degraded);
        let all = Request { wide: true, events: true, backfill: true, duplicates: true, ..plain.clone() };
        [plain, all]
    }

    #[test]
    fn threads_and_restarts_change_no_byte_and_a_file_is_whole_or_not_there() {
        for (format, request) in Format::ALL.into_iter().flat_map(|format| requests().map(|request| (format, request)))
        {
            let run = run_of(&request);
            let [one, two] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let whole = export(&run, &Folder(one.path().into()), format, 1, &Watch::default()).unwrap();
            assert!(whole.written >= 4);
            if run.is_plain() {
                assert_eq!(whole.rows, run.readings().unwrap());
            }

            let stopped = Watch { stop: AtomicBool::new(true), ..Watch::default() };
            assert_eq!(export(&run, &Folder(two.path().into()), format, 1, &stopped).unwrap().written, 0);
            // As a kill leaves it: a file that is not whole under the other name, and a day that is missing.
            export(&run, &Folder(two.path().into()), format, 3, &Watch::default()).unwrap();
            let day = two.path().join("dt=2026-01-02");
            fs::remove_file(day.join(format!("readings.{}", format.extension()))).unwrap();
            fs::write(day.join(format!(".readings.{}.unfinished", format.extension())), b"half").unwrap();
            let again = export(&run, &Folder(two.path().into()), format, 2, &Watch::default()).unwrap();
            assert_eq!((again.written, again.kept), (1, whole.written - 1));
            assert_eq!(contents(one.path()), contents(two.path()));
        }
    }

    #[test]
    fn another_runs_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        export(&run(1, Pattern::Uniform), &Folder(folder.path().into()), Format::Csv, 1, &Watch::default()).unwrap();
        let error = export(&run(1, Pattern::Partial), &Folder(folder.path().into()), Format::Csv, 1, &Watch::default())
            .unwrap_err();
        assert!(error.to_string().contains("its pattern is \"uniform\", \"partial\" was asked for"), "{error}");
    }
}
