//! Starts the machine's own PostgreSQL in a private folder, never as root.
//!
//! `DATABASE_URL` wins; else the binaries of the machine; else a message that says what to install.

use std::{
    net::TcpListener,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{Error, state};

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub struct Postgres {
    /// Where it is.
    pub url: String,
    child: Option<Child>,
}

/// Whom to run as: PostgreSQL refuses root.
#[derive(Debug, Clone, Copy)]
struct Account {
    user: u32,
    group: u32,
}

impl Postgres {
    /// Uses `database_url` when given, else starts a server in `folder`. Blocks until it answers.
    ///
    /// # Errors
    /// [`Error::Broken`] says what to install or mend.
    pub fn start(folder: &Path, database_url: Option<&str>) -> Result<Self, Error> {
        if let Some(url) = database_url {
            return Ok(Self { url: url.into(), child: None });
        }
        let binaries = binaries().ok_or_else(|| Error::Broken {
            what: "PostgreSQL is not installed on this machine".into(),
            fix: "apt-get install postgresql, or set DATABASE_URL to a database of yours".into(),
        })?;
        let account = account();
        let data = private_folder(folder, account)?;
        if !data.join("PG_VERSION").exists() {
            run(
                &binaries.join("initdb"),
                &["--no-sync", "-A", "trust", "-U", "flux", "-E", "UTF8", "-D", &data.to_string_lossy()],
                account,
            )?;
        }
        // A server that was killed leaves its pid file behind; one that still runs on this folder must end first.
        stop(&binaries, &data, account);
        let port = free_port()?;
        let log = std::fs::File::create(folder.join("postgres.log"))
            .map_err(state::state_error(folder, "cannot write postgres.log"))?;
        let log_copy = log.try_clone().map_err(state::state_error(folder, "cannot write postgres.log"))?;
        let mut command = as_account(&binaries.join("postgres"), account);
        command
            .args(["-D", &data.to_string_lossy(), "-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args([
                "-c",
                "unix_socket_directories=",
                "-c",
                "max_connections=50",
                "-c",
                "shared_buffers=64MB",
                "-c",
                "max_wal_size=1GB",
            ])
            .stdout(Stdio::from(log))
            .stderr(Stdio::from(log_copy));
        let child = command.spawn().map_err(state::state_error(&binaries, "cannot start postgres"))?;
        let mut server = Self { url: format!("postgres://flux@127.0.0.1:{port}/postgres"), child: Some(child) };
        server.wait(&folder.join("postgres.log"), port)?;
        Ok(server)
    }

    fn wait(&mut self, log: &Path, port: u16) -> Result<(), Error> {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let ended = self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))));
            let ready = std::fs::read_to_string(log).is_ok_and(|log| log.contains("ready to accept connections"));
            if ready && std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(());
            }
            if ended || Instant::now() > deadline {
                let log = std::fs::read_to_string(log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                return Err(Error::Broken {
                    what: format!("PostgreSQL does not start: {}", last.join(" | ")),
                    fix: "see postgres.log in the data folder".into(),
                });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            interrupt(child.id());
            let deadline = Instant::now() + Duration::from_secs(10);
            while matches!(child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            // Ended already, or it gets no more time; a killed server recovers from its log.
            child.kill().ok();
            child.wait().ok();
        }
    }
}

/// SIGINT is PostgreSQL's fast shutdown.
#[expect(unsafe_code, reason = "kill(2) on a process id that we hold as an unreaped child or read from its pid file")]
fn interrupt(process: u32) {
    unsafe { libc::kill(process as libc::pid_t, libc::SIGINT) };
}

#[expect(unsafe_code, reason = "geteuid(2) cannot fail")]
fn is_root() -> bool {
    unsafe { libc::geteuid() == 0 }
}

/// Under root, `nobody`; otherwise whoever we are.
fn account() -> Option<Account> {
    is_root().then_some(Account { user: 65_534, group: 65_534 })
}

/// The folder with initdb and postgres.
fn binaries() -> Option<PathBuf> {
    let complete = |folder: &PathBuf| folder.join("initdb").is_file() && folder.join("postgres").is_file();
    let named = std::env::var_os("PG_BIN").map(PathBuf::from);
    let mut debian: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|version| version.path().join("bin"))
        .collect();
    debian.sort_unstable();
    let path = std::env::var_os("PATH").unwrap_or_default();
    named.into_iter().chain(debian.into_iter().rev()).chain(std::env::split_paths(&path)).find(complete)
}

/// Data below `folder`, owned by the account; when the account cannot reach it (a home that only root may enter), in
/// the temporary folder under a name made from the path.
fn private_folder(folder: &Path, account: Option<Account>) -> Result<PathBuf, Error> {
    state::folder(folder)?;
    let absolute = std::fs::canonicalize(folder).map_err(state::state_error(folder, "cannot resolve"))?;
    let Some(account) = account else { return Ok(absolute.join("data")) };
    let reachable = absolute.ancestors().all(|ancestor| {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(ancestor).is_ok_and(|metadata| metadata.permissions().mode() & 0o001 != 0)
    });
    let data = if reachable {
        absolute.join("data")
    } else {
        let name: String = absolute
            .to_string_lossy()
            .chars()
            .map(|letter| if letter.is_ascii_alphanumeric() { letter } else { '_' })
            .collect();
        std::env::temp_dir().join(format!("flux-postgres{name}"))
    };
    state::folder(&data)?;
    std::os::unix::fs::chown(&data, Some(account.user), Some(account.group))
        .map_err(state::state_error(&data, "cannot hand the folder to nobody"))?;
    Ok(data)
}

/// Removes what [`private_folder`] made for this folder.
pub fn remove(folder: &Path) {
    let Ok(absolute) = std::fs::canonicalize(folder) else { return };
    if let Ok(data) = private_folder(&absolute, account()) {
        // Gone already, or in use by a server that is about to fail for it.
        std::fs::remove_dir_all(data).ok();
    }
}

fn as_account(binary: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(binary);
    command.stdin(Stdio::null()).current_dir("/").process_group(0);
    if let Some(account) = account {
        command.uid(account.user).gid(account.group);
    }
    command
}

fn run(binary: &Path, arguments: &[&str], account: Option<Account>) -> Result<(), Error> {
    let output =
        as_account(binary, account).args(arguments).output().map_err(state::state_error(binary, "cannot run"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(Error::Broken {
        what: format!("{} failed: {text}", binary.display()),
        fix: "check the data folder and the disk".into(),
    })
}

/// Ends a server that a killed process of ours left on the folder.
fn stop(binaries: &Path, data: &Path, account: Option<Account>) {
    if data.join("postmaster.pid").exists() {
        // Fails when nothing runs there, which is what we want to be sure of.
        run(
            &binaries.join("pg_ctl"),
            &["stop", "-m", "immediate", "-w", "-t", "20", "-D", &data.to_string_lossy()],
            account,
        )
        .ok();
    }
}

fn free_port() -> Result<u16, Error> {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let bound = TcpListener::bind(address).and_then(|listener| listener.local_addr());
    bound.map(|bound| bound.port()).map_err(|source| Error::Listen { address, source })
}
