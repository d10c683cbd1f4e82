//! Servers, processes, settings: one Apache Kafka and one PostgreSQL a test run, everything else a test.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        LazyLock, OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use flux_local::{
    broker,
    postgres::Postgres,
    registry, s3,
    snowflake::{self, Snowflake, SnowflakeSettings},
};
use flux_service::shutdown::{Shutdown, Trigger};
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) const BUCKET: &str = "flux-bronze";

/// Which Kafka a body runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Broker {
    Apache,
    Local,
}

/// Waits for a condition, with a bound.
pub(crate) fn eventually(what: &str, patience: Duration, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Where the workspace is.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// A server that lives as long as the test run: started by a thread that never ends, killed with the process.
fn immortal<T: Send + 'static>(start: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        sender.send(start()).unwrap();
        loop {
            std::thread::park();
        }
    });
    receiver.recv().expect("the server starts")
}

/// Dies with the thread that spawns it, however the test run ends.
#[expect(unsafe_code, reason = "prctl(2) between fork and exec is async-signal-safe and touches no memory of ours")]
fn dies_with_parent(command: &mut Command) -> &mut Command {
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        })
    }
}

/// Bootstrap address of Apache Kafka, started on first use.
pub(crate) fn apache_kafka() -> &'static str {
    static KAFKA: OnceLock<String> = OnceLock::new();
    KAFKA.get_or_init(|| immortal(start_kafka))
}

#[expect(clippy::zombie_processes, reason = "it lives as long as the test run, and dies with it")]
fn start_kafka() -> String {
    let jars = std::env::var_os("FLUX_KAFKA_JARS").map_or_else(|| root().join(".deps/kafka/lib"), PathBuf::from);
    assert!(
        jars.is_dir(),
        "{}: Apache Kafka is not there; `make test` fetches it, or: make .deps/kafka",
        jars.display()
    );
    let folder = tempfile::tempdir().unwrap().keep();
    let (port, controller) = (free_port(), free_port());
    let properties = folder.join("server.properties");
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n\
         controller.listener.names=CONTROLLER\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT\n\
         log.dirs={}\noffsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\ntransaction.state.log.num.partitions=4\n\
         share.coordinator.state.topic.replication.factor=1\nshare.coordinator.state.topic.min.isr=1\n\
         group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n\
         transaction.abort.timed.out.transaction.cleanup.interval.ms=1000\n",
        folder.join("data").display()
    );
    std::fs::write(&properties, text).unwrap();
    let java = |class: &str| {
        let mut command = Command::new("java");
        command.args(["-Xmx640m", "-cp", &format!("{}/*", jars.display()), class]);
        command
    };
    let output = java("kafka.tools.StorageTool")
        .args(["format", "-t", "RWM0La37QWmiEp3bP_iXNw", "-c"])
        .arg(&properties)
        .output()
        .expect("java runs");
    assert!(output.status.success(), "formatting: {}", String::from_utf8_lossy(&output.stderr));
    let log = std::fs::File::create(folder.join("kafka.log")).unwrap();
    let mut command = java("kafka.Kafka");
    command.arg(&properties).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    dies_with_parent(&mut command).spawn().expect("java runs");
    eventually("Kafka listens", Duration::from_secs(60), || TcpStream::connect(("127.0.0.1", port)).is_ok());
    format!("127.0.0.1:{port}")
}

/// URL of a PostgreSQL server without a database name, started on first use.
#[expect(clippy::zombie_processes, reason = "the watcher outlives the test run on purpose")]
fn postgres_server() -> &'static str {
    static SERVER: LazyLock<String> = LazyLock::new(|| {
        immortal(|| {
            let folder = tempfile::tempdir().unwrap().keep();
            let server = Postgres::start(&folder, None).expect("PostgreSQL starts");
            let url = server.url.trim_end_matches("/postgres").to_string();
            // It runs apart from us: this watches over it and ends it when the test run is over.
            let pid = std::process::id();
            let mut watcher = Command::new("sh");
            watcher.args([
                "-c",
                &format!(
                    "while kill -0 {pid} 2>/dev/null; do sleep 1; done; pkill -INT -f -- '-D {}'",
                    folder.display()
                ),
            ]);
            watcher.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap();
            std::mem::forget(server);
            url
        })
    });
    &SERVER
}

/// A database of its own.
pub(crate) fn database(runtime: &Runtime) -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let server = postgres_server();
    let create = async {
        let (client, connection) =
            tokio_postgres::connect(&format!("{server}/postgres"), tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(&format!("create database {name}")).await.unwrap();
    };
    runtime.block_on(create);
    format!("{server}/{name}")
}

pub(crate) fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

/// Everything one test needs, and where it is.
pub(crate) struct Stack {
    pub(crate) runtime: Runtime,
    pub(crate) folder: TempDir,
    pub(crate) brokers: String,
    pub(crate) registry: String,
    pub(crate) database: String,
    pub(crate) s3: String,
    pub(crate) snowflake: Snowflake,
    pub(crate) prefix: String,
    config: PathBuf,
    _trigger: Trigger,
}

impl Stack {
    pub(crate) fn new(broker: Broker) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        install_tls();
        let prefix = format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let runtime = Runtime::new().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (trigger, shutdown) = Shutdown::manual();
        let path = |name: &str| folder.path().join(name);
        let brokers = match broker {
            Broker::Apache => apache_kafka().to_string(),
            Broker::Local => {
                runtime.block_on(broker::serve(loopback(), &path("broker"), shutdown.clone())).unwrap().to_string()
            }
        };
        let registry = runtime.block_on(registry::serve(loopback(), &path("registry"), shutdown.clone())).unwrap();
        let s3 = runtime.block_on(s3::serve(loopback(), &path("s3"), BUCKET, shutdown.clone())).unwrap();
        let emulator = SnowflakeSettings {
            folder: path("snowflake"),
            commit_delay: Duration::from_millis(300),
            acknowledge_repeats: true,
        };
        let snowflake = runtime.block_on(snowflake::serve(loopback(), emulator, shutdown)).unwrap();
        let database = database(&runtime);
        let config = path("flux.toml");
        let stack = Self {
            runtime,
            brokers,
            registry: format!("http://{registry}"),
            database,
            s3: format!("http://{s3}"),
            snowflake,
            prefix,
            config,
            folder,
            _trigger: trigger,
        };
        stack.write_config();
        stack
    }

    fn write_config(&self) {
        let text = format!(
            "kafka.brokers = '{}'\nkafka.readings_topic = '{prefix}.readings'\nkafka.runs_topic = '{prefix}.runs'\n\
             kafka.events_topic = '{prefix}.events'\nkafka.assets_topic = '{prefix}.assets'\n\
             registry.url = '{}'\nregistry.cache = '{}'\npostgres.url = '{}'\n\
             s3.endpoint = '{}'\ns3.access_key_id = '{}'\ns3.secret_access_key = '{}'\ns3.bucket = '{BUCKET}'\n\
             sink.name = '{prefix}'\nsink.linger = '300ms'\nsink.session_timeout = '6s'\nsink.drain = '10s'\n\
             producer.transaction_timeout = '6s'\n\
             snowpipe.url = '{}'\nsnowpipe.account = '{}'\nsnowpipe.user = '{}'\nsnowpipe.private_key_file = '{}'\n\
             snowpipe.ca = '{}'\nsnowpipe.files = '{}'\nsnowpipe.poll_interval = '200ms'\n",
            self.brokers,
            self.registry,
            self.folder.path().join("registry-cache").display(),
            self.database,
            self.s3,
            s3::ACCESS_KEY,
            s3::SECRET_KEY,
            self.snowflake.url,
            snowflake::ACCOUNT,
            snowflake::USER,
            self.snowflake.private_key.display(),
            self.snowflake.ca.display(),
            self.tables().display(),
            prefix = self.prefix,
        );
        std::fs::write(&self.config, text).unwrap();
    }

    /// Folder of the pipe's table files.
    pub(crate) fn tables(&self) -> PathBuf {
        self.snowflake.tables.join("FLUX/PUBLIC/AMI_STREAMING_READINGS-STREAMING")
    }

    pub(crate) fn topic(&self) -> String {
        format!("{}.readings", self.prefix)
    }

    /// The binary with this test's settings, and nothing of the environment's.
    pub(crate) fn flux(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flux"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.arg("--config").arg(&self.config).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs it to its end; panics with its words unless the exit code is the expected one.
    pub(crate) fn run(&self, code: i32, arguments: &[&str]) -> Output {
        let output = self.flux(arguments).output().unwrap();
        assert_eq!(
            output.status.code(),
            Some(code),
            "flux {}\n{}\n{}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        output
    }

    /// Starts a role in the background.
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        let mut process = self.start_program(&mut self.flux(arguments));
        process.name = arguments.join(" ");
        process
    }

    /// Starts any program in the background; its words go to a file.
    pub(crate) fn start_program(&self, command: &mut Command) -> Process {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let log = self.folder.path().join(format!("process-{}.log", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let file = std::fs::File::create(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(file).spawn().unwrap();
        Process { child, log, name: format!("{command:?}") }
    }

    pub(crate) fn sinks(&self) -> Vec<Process> {
        ["postgres", "s3", "snowpipe"].iter().map(|kind| self.start(&["sink", kind])).collect()
    }

    /// The verdict, whatever it is.
    pub(crate) fn verdict(&self, run: &str, at: &str, wait: u32) -> Value {
        let output =
            self.flux(&["verify", "--run", run, "--at", at, "--wait", &wait.to_string(), "--json"]).output().unwrap();
        let verdict: Value = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| panic!("no verdict: {}", String::from_utf8_lossy(&output.stderr)));
        assert_eq!(output.status.code(), Some(i32::from(verdict["proven"] != true)), "{verdict:#}");
        verdict
    }

    /// Asserts that every place has every row once.
    pub(crate) fn assert_proven(&self, run: &str, expected: u64) {
        let verdict = self.verdict(run, "all", 90);
        assert_eq!(verdict["proven"], true, "{verdict:#}");
        let places = verdict["places"].as_array().unwrap();
        assert_eq!(places.len(), 4);
        for place in places {
            assert_eq!((&place["expected"], &place["found"]), (&expected.into(), &expected.into()), "{place:#}");
        }
    }

    /// The first column of every row, as text.
    pub(crate) fn rows(&self, statement: &str) -> Vec<String> {
        let (statement, url) = (statement.to_string(), self.database.clone());
        self.runtime.block_on(async move {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            client.query(&statement, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
        })
    }

    /// Runs SQL in this test's database; returns the first column of the first row, if it is a number.
    pub(crate) fn sql(&self, statement: &str) -> i64 {
        let statement = statement.to_string();
        let url = self.database.clone();
        self.runtime.block_on(async move {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            tokio::spawn(connection);
            if statement.starts_with("select") {
                return client.query_one(&statement, &[]).await.unwrap().get(0);
            }
            client.execute(&statement, &[]).await.unwrap() as i64
        })
    }
}

/// Provides cryptography to the clients of this process, as the binary does for its own.
pub(crate) fn install_tls() {
    static ONCE: OnceLock<()> = OnceLock::new();
    // Installed already by another test of this process: as good.
    ONCE.get_or_init(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// A running role; killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) log: PathBuf,
    pub(crate) name: String,
}

impl Process {
    #[expect(unsafe_code, reason = "kill(2) on a child that has not been waited for")]
    pub(crate) fn signal(&self, signal: i32) {
        unsafe { libc::kill(self.child.id() as libc::pid_t, signal) };
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit code, once it has ended; -1 for a signal.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().unwrap().map(|status| status.code().unwrap_or(-1))
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self, patience: Duration) -> i32 {
        let mut code = None;
        eventually(&format!("{} ends", self.name), patience, || {
            code = self.ended();
            code.is_some()
        });
        code.unwrap()
    }

    pub(crate) fn words(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(libc::SIGCONT);
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
