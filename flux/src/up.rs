//! `flux up`: the whole pipeline on this machine.
//!
//! The stand-ins live in this process; the producer and the three sinks are child processes of the same binary, as in
//! production. State lives in one folder, and a second `up` goes on where the first stopped.

mod children;
mod screen;
mod stand_ins;

use std::{
    fs::File,
    path::Path,
    process::ExitCode,
    sync::{Arc, atomic::AtomicU64},
    time::{Duration, Instant},
};

use anyhow::Context;
use flux_generator::{assets::Assets, run::Request};
use flux_schemas::run::RunId;
use flux_service::{settings::Settings, shutdown::Shutdown};
use flux_verify::{place::Place, verdict::Verdict, verify};
use serde::{Deserialize, Serialize};

use crate::{
    cli::{RunArguments, UpArguments},
    request::{random_bits, request},
    roles::Usage,
    up::{children::Children, screen::Screen, stand_ins::StandIns},
};

/// Longest wait for the sinks after the back-fill is in Kafka.
const VERIFY_PATIENCE: Duration = Duration::from_secs(300);

/// What a second `up` needs to go on.
#[derive(Debug, Serialize, Deserialize)]
struct Remembered {
    run: RunId,
    seed: u64,
    meters: u32,
    interval_minutes: u32,
    start_ms: i64,
    days: u32,
    live: bool,
    /// What else was asked for, as flags.
    flags: Vec<String>,
    events: bool,
}

pub(crate) async fn run(settings: &Settings, arguments: &UpArguments) -> anyhow::Result<ExitCode> {
    let (trigger, mut shutdown) = Shutdown::on_signal(Duration::from_secs(60));
    let folder = &arguments.data_dir;
    let _lock = lock(folder)?;
    if arguments.fresh {
        forget(folder)?;
    }
    let started = Instant::now();
    let stand_ins = StandIns::start(folder, settings, &shutdown).await?;
    let remembered = remember(folder, arguments, flux_fleet::load(settings).await?.as_ref())?;
    let config = folder.join("flux.toml");
    std::fs::write(&config, stand_ins.config(settings)).with_context(|| format!("writing {}", config.display()))?;
    println!("state      {}", folder.display());
    stand_ins.print();
    println!("run        {}  seed {}", remembered.run, remembered.seed);
    let mut children = Children::start(folder, &config, &remembered, arguments.rate.as_deref())?;
    let screen = Screen::new(remembered.backfill_rows());
    let outcome = work(arguments, &config, &remembered, &mut children, &screen, &mut shutdown, started).await;
    screen.finish();
    if shutdown.requested() {
        println!("ending: draining producer and sinks");
    }
    children.stop().await;
    trigger.request();
    drop(stand_ins);
    outcome
}

/// Back-fill, verdict, then live until it is time to end.
async fn work(
    arguments: &UpArguments,
    config: &Path,
    remembered: &Remembered,
    children: &mut Children,
    screen: &Screen,
    shutdown: &mut Shutdown,
    started: Instant,
) -> anyhow::Result<ExitCode> {
    loop {
        tokio::select! {
            () = shutdown.wait() => return Ok(ExitCode::SUCCESS),
            event = children.next() => {
                screen.show(&event?);
            }
        }
        if children.backfill_done() {
            break;
        }
    }
    let backfilled = started.elapsed();
    let verdict = tokio::select! {
        () = shutdown.wait() => return Ok(ExitCode::SUCCESS),
        verdict = judge(config, remembered) => verdict?,
        failed = watch(children, screen) => return Err(failed),
    };
    screen.pause(|| {
        println!("\n{verdict}");
        println!(
            "back-fill in Kafka after {:.1} s, verdict after {:.1} s",
            backfilled.as_secs_f64(),
            started.elapsed().as_secs_f64()
        );
    });
    let code = if verdict.proven { ExitCode::SUCCESS } else { ExitCode::from(1) };
    if arguments.once || !verdict.proven {
        return Ok(code);
    }
    let config = config.display();
    screen.pause(|| {
        println!("live until Ctrl-C; verify again with: flux --config {config} verify --run {}", remembered.run)
    });
    let end = arguments.seconds.map(Duration::from_secs);
    tokio::select! {
        () = shutdown.wait() => Ok(code),
        () = async { match end { Some(end) => tokio::time::sleep(end).await, None => std::future::pending().await } } => Ok(code),
        failed = watch(children, screen) => Err(failed),
    }
}

/// Shows the children until one of them fails.
async fn watch(children: &mut Children, screen: &Screen) -> anyhow::Error {
    loop {
        match children.next().await {
            Ok(status) => screen.show(&status),
            Err(error) => return error,
        }
    }
}

async fn judge(config: &Path, remembered: &Remembered) -> anyhow::Result<Verdict> {
    let mut settings = Settings::new(&crate::config::keys());
    settings.file(config)?;
    let request = flux_verify::Request {
        run: remembered.run,
        at: Place::ALL.to_vec(),
        before_interval: Some(remembered.backfill_end()),
        wait: VERIFY_PATIENCE,
    };
    let places = crate::verify::places(&settings).await?;
    Ok(verify(&places, &request, &Arc::new(AtomicU64::new(0))).await?)
}

impl Remembered {
    fn backfill_rows(&self) -> u64 {
        u64::from(self.meters) * u64::from(self.days) * u64::from(1440 / self.interval_minutes)
    }

    /// First interval index after the back-fill.
    fn backfill_end(&self) -> i64 {
        let interval = i64::from(self.interval_minutes) * 60_000;
        self.start_ms / interval + i64::from(self.days) * i64::from(1440 / self.interval_minutes)
    }
}

/// The flags that make the producer ask for the same run: what a preset implies is said.
fn flags(spec: &RunArguments, demo_events: bool) -> Vec<String> {
    let mut words = spec.words();
    if spec.demo_events.is_none() {
        words.extend(["--demo-events".into(), if demo_events { "on" } else { "off" }.into()]);
    }
    words
}

/// One `up` a folder.
fn lock(folder: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(folder)
        .with_context(|| format!("--data-dir {}: cannot make the folder; choose another", folder.display()))?;
    let path = folder.join("lock");
    let file =
        File::create(&path).with_context(|| format!("{}: cannot write; choose another --data-dir", path.display()))?;
    file.try_lock().map_err(|_| {
        Usage(format!("another flux up uses {}; stop it, or choose another --data-dir", folder.display()))
    })?;
    Ok(file)
}

/// Removes everything but the lock.
fn forget(folder: &Path) -> anyhow::Result<()> {
    flux_local::postgres::remove(&folder.join("postgres"));
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_name() == Some("lock".as_ref()) {
            continue;
        }
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.with_context(|| format!("--fresh: cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// The run of this folder: the one that was begun, or a new one.
fn remember(folder: &Path, arguments: &UpArguments, assets: Option<&Assets>) -> anyhow::Result<Remembered> {
    let path = folder.join("run.json");
    let asked = |arguments: &UpArguments| -> Result<(Request, u32, bool, bool), Usage> {
        let mut spec = arguments.spec.clone();
        let default = spec.preset.is_none() && spec.meters.is_none() && spec.days.is_none() && assets.is_none();
        if default {
            spec.preset = Some("quick-demo".into());
        }
        spec.live = !arguments.once;
        let (request, explicit) = request(&spec, assets.cloned())?;
        let days = match &spec.preset {
            Some(name) => flux_generator::preset::Preset::parse(name).map_err(Usage)?.days,
            None => spec.days.unwrap_or(7),
        };
        Ok((request, days, spec.live, !default || explicit.iter().any(|name| *name != "meters")))
    };
    if let Ok(text) = std::fs::read(&path) {
        let remembered: Remembered = serde_json::from_slice(&text)
            .with_context(|| format!("{}: damaged; start over with --fresh", path.display()))?;
        let (request, days, _, given) = asked(arguments)?;
        let differs = request.meters != remembered.meters
            || days != remembered.days
            || request.interval_minutes != remembered.interval_minutes;
        if given && differs {
            return Err(Usage(format!(
                "{} holds run {} with {} meters and {} days; leave the flags out to go on with it, or add --fresh",
                folder.display(),
                remembered.run,
                remembered.meters,
                remembered.days
            ))
            .into());
        }
        if arguments.once && remembered.live {
            return Err(Usage(format!(
                "{} holds a live run; leave --once out to go on with it, or add --fresh",
                folder.display()
            ))
            .into());
        }
        return Ok(remembered);
    }
    let (request, days, live, _) = asked(arguments)?;
    // The rules of a run, before anything is started for it.
    crate::request::detached(&request)?;
    let remembered = Remembered {
        run: RunId(random_bits()),
        seed: request.seed,
        meters: request.meters,
        interval_minutes: request.interval_minutes,
        start_ms: request.start.0,
        days,
        live,
        flags: flags(&arguments.spec, request.demo_events),
        events: request.events,
    };
    std::fs::write(&path, serde_json::to_vec(&remembered)?).with_context(|| format!("writing {}", path.display()))?;
    Ok(remembered)
}
