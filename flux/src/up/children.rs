//! Producer and sinks as child processes: started, listened to, stopped.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use flux_schemas::time::Timestamp;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::mpsc,
};

use super::Remembered;
use crate::status::Status;

/// Metrics ports of the roles, when they are free. Those of events and assets run with `--events`.
const ROLES: [(&str, &[&str], u16); 10] = [
    ("produce", &["produce"], 9101),
    ("postgres", &["sink", "postgres"], 9102),
    ("s3", &["sink", "s3"], 9103),
    ("snowpipe", &["sink", "snowpipe"], 9104),
    ("postgres-events", &["sink", "postgres", "--records", "events"], 9112),
    ("s3-events", &["sink", "s3", "--records", "events"], 9113),
    ("snowpipe-events", &["sink", "snowpipe", "--records", "events"], 9114),
    ("postgres-assets", &["sink", "postgres", "--records", "assets"], 9122),
    ("s3-assets", &["sink", "s3", "--records", "assets"], 9123),
    ("snowpipe-assets", &["sink", "snowpipe", "--records", "assets"], 9124),
];
/// Of these, those that every run has.
const ALWAYS: usize = 4;
/// After SIGTERM: longest wait for a child.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

enum Event {
    Status(Box<Status>),
    Ended(&'static str, std::process::ExitStatus),
}

pub(super) struct Children {
    events: mpsc::Receiver<Event>,
    processes: Vec<(&'static str, u32)>,
    folder: std::path::PathBuf,
    produced: bool,
}

impl Children {
    pub(super) fn start(folder: &Path, config: &Path, run: &Remembered, rate: Option<&str>) -> anyhow::Result<Self> {
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs)?;
        let (sender, events) = mpsc::channel(256);
        let mut processes = Vec::new();
        for (name, words, port) in ROLES.into_iter().take(if run.events { ROLES.len() } else { ALWAYS }) {
            let log = std::fs::File::options().create(true).append(true).open(logs.join(format!("{name}.log")))?;
            let free = std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
            let listen = format!("http.listen=127.0.0.1:{}", if free { port } else { 0 });
            let mut command = Command::new(std::env::current_exe().context("finding this program")?);
            command.arg("--config").arg(config).args(["--set", &listen]).args(words);
            if name == "produce" {
                command.args(produce_arguments(run));
                command.args(rate.map(|rate| ["--rate", rate]).into_iter().flatten());
            }
            // Away from our process group: Ctrl-C comes to us, and we stop them in order.
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).process_group(0).kill_on_drop(true);
            let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
            processes.push((name, child.id().unwrap_or_default()));
            println!(
                "{name:<15} metrics http://127.0.0.1:{}/metrics",
                if free { port.to_string() } else { "(see its log)".into() }
            );
            let output = child.stdout.take().context("a pipe was asked for")?;
            tokio::spawn(listen_to(name, child, output, sender.clone()));
        }
        Ok(Self { events, processes, folder: folder.into(), produced: false })
    }

    /// The next status of any child.
    ///
    /// Fails when one ends that should go on; the last lines of its log say why.
    pub(super) async fn next(&mut self) -> anyhow::Result<Status> {
        loop {
            match self.events.recv().await {
                None => bail!("all children ended"),
                Some(Event::Status(status)) => {
                    if status.role == "produce" && status.caught_up {
                        self.produced = true;
                    }
                    return Ok(*status);
                }
                // The producer of a finite run ends when it is done.
                Some(Event::Ended("produce", status)) if status.success() => self.produced = true,
                Some(Event::Ended(name, status)) => {
                    let log = self.folder.join("logs").join(format!("{name}.log"));
                    let text = std::fs::read_to_string(&log).unwrap_or_default();
                    let mut last: Vec<&str> = text.lines().rev().take(3).collect();
                    last.reverse();
                    bail!("{name} ended with {status}; {}:\n{}", log.display(), last.join("\n"));
                }
            }
        }
    }

    /// Whether everything that was due is in Kafka.
    pub(super) fn backfill_done(&self) -> bool {
        self.produced
    }

    /// Asks all children to end, and waits for them.
    pub(super) async fn stop(&mut self) {
        for (_, process) in &self.processes {
            terminate(*process);
        }
        let all_ended = async { while self.events.recv().await.is_some() {} };
        if tokio::time::timeout(STOP_PATIENCE, all_ended).await.is_err() {
            eprintln!("flux: a child did not end in time; what was not durable is read again at the next start");
        }
    }
}

fn produce_arguments(run: &Remembered) -> Vec<String> {
    let start = Timestamp(run.start_ms).to_string();
    let mut arguments: Vec<String> = [
        "--run",
        &run.run.to_string(),
        "--seed",
        &run.seed.to_string(),
        "--meters",
        &run.meters.to_string(),
        "--days",
        &run.days.to_string(),
        "--interval",
        &run.interval_minutes.to_string(),
        "--start",
        &start,
    ]
    .map(ToString::to_string)
    .to_vec();
    arguments.extend(run.flags.iter().cloned());
    if run.live {
        arguments.push("--live".into());
    }
    arguments
}

async fn listen_to(
    name: &'static str,
    mut child: Child,
    output: tokio::process::ChildStdout,
    events: mpsc::Sender<Event>,
) {
    let mut lines = BufReader::new(output).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        if let Ok(status) = serde_json::from_str::<Status>(&line) {
            // Nobody listens any more: up is ending.
            events.send(Event::Status(Box::new(status))).await.ok();
        }
    }
    if let Ok(status) = child.wait().await {
        events.send(Event::Ended(name, status)).await.ok();
    }
}

/// SIGTERM: drain and end.
fn terminate(process: u32) {
    let sent = std::process::Command::new("kill").args(["-TERM", &process.to_string()]).stderr(Stdio::null()).status();
    if sent.is_err() {
        eprintln!("flux: cannot signal process {process}");
    }
}
