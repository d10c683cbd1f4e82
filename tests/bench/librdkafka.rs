//! librdkafka's own load generator, built from the sources that the Kafka client was built from.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use flux_service::usage;

pub(crate) struct Performance {
    program: PathBuf,
}

/// The newest file that matches, below a folder.
fn find(folder: &Path, matches: &dyn Fn(&Path) -> bool, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            find(&path, matches, found);
        } else if matches(&path) {
            found.push(path);
        }
    }
}

impl Performance {
    /// Compiles it against the library in this build's folder.
    pub(crate) fn build() -> Self {
        let profile = Path::new(env!("CARGO_BIN_EXE_flux")).parent().unwrap();
        let newest = |name: &str| {
            let mut found = Vec::new();
            find(&profile.join("build"), &|path| path.ends_with(name), &mut found);
            found.sort_by_key(|path| path.metadata().and_then(|metadata| metadata.modified()).ok());
            found.pop().unwrap_or_else(|| panic!("{name} is not below {}", profile.display()))
        };
        let source = newest("examples/rdkafka_performance.c");
        let library = newest("librdkafka.a");
        let program = profile.join("rdkafka_performance");
        let output = Command::new("cc")
            .args(["-O2", "-DENABLE_DEVEL=0", "-w", "-o"])
            .arg(&program)
            .arg(&source)
            .arg(format!("-I{}", source.parent().unwrap().join("../src").display()))
            .arg(library)
            .arg(newest("libzstd.a"))
            .args(["-lz", "-lssl", "-lcrypto", "-lpthread", "-lm", "-ldl"])
            .output()
            .expect("a C compiler is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { program }
    }

    /// Produces `count` messages with a key and a header as ours have, and values of `bytes` bytes; returns seconds and
    /// CPU seconds.
    pub(crate) fn produce(&self, brokers: &str, topic: &str, count: u64, bytes: u32) -> (f64, f64) {
        let started = Instant::now();
        let mut child = Command::new(&self.program)
            .args([
                "-P",
                "-b",
                brokers,
                "-t",
                topic,
                "-c",
                &count.to_string(),
                "-s",
                &bytes.to_string(),
                "-a",
                "-1",
                "-z",
                "lz4",
                "-q",
            ])
            .args(["-k", "MTR-TGC-0000001", "-H", "run=01234567"])
            .args(["-X", "linger.ms=20", "-X", "enable.idempotence=true", "-X", "batch.size=524288"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut cpu = 0.0f64;
        loop {
            cpu = cpu.max(usage::of(&child.id().to_string()).cpu_seconds);
            if let Some(status) = child.try_wait().unwrap() {
                assert!(status.success(), "rdkafka_performance: {status}");
                return (started.elapsed().as_secs_f64(), cpu);
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}
