//! Readings from a seed straight to files, without Kafka: a file for each UTC day.
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

mod parquet;
mod text;

use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
};

use flux_generator::{model::Contexts, run::Run};
use flux_schemas::{reading::Reading, run::RunSpec, time::Date};

/// How rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Parquet, zstd pages, columns named as in PostgreSQL.
    Parquet,
    /// CSV with a header line, columns named as in PostgreSQL.
    Csv,
    /// One JSON object a line, gzip, keys named as in PostgreSQL.
    NdjsonGz,
}

impl Format {
    /// The format with this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Parquet, Self::Csv, Self::NdjsonGz].into_iter().find(|format| format.as_str() == name)
    }

    /// Name and file extension.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::NdjsonGz => "ndjson.gz",
        }
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

/// Writes the files of `run` that `folder` lacks.
///
/// # Errors
/// [`Error`]; the first of any thread.
pub fn export(run: &Run, folder: &Path, format: Format, threads: usize, watch: &Watch) -> Result<Summary, Error> {
    let end = run.end_interval().ok_or(Error::OpenEnded)?;
    describe(run.spec(), folder)?;
    let day_of = |interval: i64| (interval * run.interval_ms()).div_euclid(86_400_000);
    let (next, last) = (AtomicI64::new(day_of(run.first_interval())), day_of(end - 1));
    let work = || -> Result<Summary, Error> {
        let mut summary = Summary::default();
        let mut contexts = Contexts::default();
        let mut parquet = parquet::Columns::new(run);
        loop {
            let day = next.fetch_add(1, Relaxed);
            if day > last || watch.stop.load(Relaxed) {
                return Ok(summary);
            }
            let first = (day * 86_400_000).div_euclid(run.interval_ms());
            let after = ((day + 1) * 86_400_000).div_euclid(run.interval_ms());
            let intervals = first.max(run.first_interval())..after.min(end);
            let part = folder.join(format!("dt={}", Date::from_days(day)));
            let path = part.join(format!("readings.{}", format.as_str()));
            if path.exists() {
                summary.kept += 1;
                watch.rows.fetch_add(run.rows(0..run.fleet().len(), intervals), Relaxed);
                continue;
            }
            fs::create_dir_all(&part).map_err(file(&part, "creating the folder"))?;
            let unfinished = part.join(format!(".readings.{}.unfinished", format.as_str()));
            let out = File::create(&unfinished).map_err(file(&unfinished, "creating the file"))?;
            let out = BufWriter::with_capacity(1 << 20, out);
            let rows = Rows { run, contexts: &mut contexts, intervals };
            let (written, out) = match format {
                Format::Parquet => parquet
                    .write(rows, out, &watch.rows)
                    .map_err(|source| Error::Parquet { path: unfinished.clone(), source })?,
                Format::Csv => text::csv(rows, out, &watch.rows).map_err(file(&unfinished, "writing"))?,
                Format::NdjsonGz => text::ndjson(rows, out, &watch.rows).map_err(file(&unfinished, "writing"))?,
            };
            let out = out.into_inner().map_err(|error| file(&unfinished, "writing")(error.into_error()))?;
            out.sync_all().map_err(file(&unfinished, "writing"))?;
            summary.bytes += out.metadata().map_err(file(&unfinished, "reading its size"))?.len();
            fs::rename(&unfinished, &path).map_err(file(&path, "renaming the finished file"))?;
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

/// Says in the folder what its files are of, or refuses it.
fn describe(spec: &RunSpec, folder: &Path) -> Result<(), Error> {
    let path = folder.join("run.json");
    let ours = serde_json::to_value(spec).expect("a spec is JSON");
    fs::create_dir_all(folder).map_err(file(folder, "creating the folder"))?;
    match fs::read(&path) {
        Ok(bytes) => {
            let theirs: serde_json::Value =
                serde_json::from_slice(&bytes).map_err(|error| file(&path, "reading")(error.into()))?;
            let fields = ours.as_object().expect("a spec is an object");
            match fields.iter().find(|(field, value)| theirs.get(field) != Some(value)) {
                None => Ok(()),
                Some((field, value)) => Err(Error::OtherRun {
                    theirs: theirs.get(field).unwrap_or_default().to_string(),
                    field: field.clone(),
                    ours: value.to_string(),
                    path,
                }),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = serde_json::to_string_pretty(&ours).expect("a spec is JSON");
            let unfinished = folder.join(".run.json.unfinished");
            let write = || -> io::Result<()> {
                let mut out = File::create(&unfinished)?;
                out.write_all(text.as_bytes())?;
                out.sync_all()?;
                fs::rename(&unfinished, &path)
            };
            write().map_err(file(&path, "writing"))
        }
        Err(error) => Err(file(&path, "reading")(error)),
    }
}

/// The rows of some intervals, by interval and meter.
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
    use flux_generator::{
        emission::Pattern,
        model::LoadModel,
        run::{Request, TopicOfRun},
    };
    use flux_schemas::{run::RunId, time::Timestamp};

    use super::*;

    fn run(seed: u64, pattern: Pattern) -> Run {
        let start = Timestamp::parse("2026-01-01T06:00:00Z").unwrap();
        let end = Some(Timestamp(start.0 + 3 * 86_400_000));
        let request = Request { seed, meters: 50, interval_minutes: 15, start, end, pattern, load: LoadModel::Utility };
        let topic = TopicOfRun { name: "none".into(), cluster_id: "".into(), topic_id: "".into(), partitions: 1 };
        Run::new(request.spec(RunId(seed), topic, 1).unwrap()).unwrap()
    }

    fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
        let mut days: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        days.sort();
        days.retain(|path| path.is_dir());
        let files = days.iter().flat_map(|day| fs::read_dir(day).unwrap().map(|entry| entry.unwrap().path()));
        files.map(|path| (path.strip_prefix(folder).unwrap().display().to_string(), fs::read(&path).unwrap())).collect()
    }

    #[test]
    fn threads_and_restarts_change_no_byte_and_a_file_is_whole_or_not_there() {
        for format in [Format::Parquet, Format::Csv, Format::NdjsonGz] {
            let run = run(1, Pattern::Degraded);
            let [one, two] = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
            let whole = export(&run, one.path(), format, 1, &Watch::default()).unwrap();
            assert_eq!((whole.written, whole.rows), (4, run.readings().unwrap()));

            let stopped = Watch { stop: AtomicBool::new(true), ..Watch::default() };
            assert_eq!(export(&run, two.path(), format, 1, &stopped).unwrap().written, 0);
            // As a kill leaves it: a file that is not whole under the other name, and a day that is missing.
            export(&run, two.path(), format, 3, &Watch::default()).unwrap();
            let day = two.path().join("dt=2026-01-02");
            fs::remove_file(day.join(format!("readings.{}", format.as_str()))).unwrap();
            fs::write(day.join(format!(".readings.{}.unfinished", format.as_str())), b"half").unwrap();
            let again = export(&run, two.path(), format, 2, &Watch::default()).unwrap();
            assert_eq!((again.written, again.kept), (1, 3));
            assert_eq!(contents(one.path()), contents(two.path()));
        }
    }

    #[test]
    fn another_runs_folder_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        export(&run(1, Pattern::Uniform), folder.path(), Format::Csv, 1, &Watch::default()).unwrap();
        let error = export(&run(1, Pattern::Partial), folder.path(), Format::Csv, 1, &Watch::default()).unwrap_err();
        assert!(error.to_string().contains("its pattern is \"uniform\", \"partial\" was asked for"), "{error}");
    }
}
