//! What all long-running commands share: metrics, health, the HTTP port, shutdown, and exit codes.

use std::{net::SocketAddr, time::Duration};

use axum::Router;
use flux_service::{
    health::{Health, Thresholds},
    http, kafka,
    settings::{self, Key, Secret, Settings},
    shutdown::{Shutdown, Trigger},
};

/// Keys of the HTTP port and of health.
pub(crate) const HTTP_KEYS: &[Key] = &[
    Key {
        name: "http.listen",
        default: "127.0.0.1:0",
        help: "address of /metrics, /livez and /readyz; port 0 takes any and logs it",
        secret: false,
    },
    Key {
        name: "http.token",
        default: "",
        help: "bearer token for what changes state; needed when http.listen is not loopback; prefer http.token_file",
        secret: true,
    },
    Key { name: "http.token_file", default: "", help: "file that holds the token", secret: false },
    Key {
        name: "health.buffering",
        default: "60s",
        help: "pending work without progress for this long is BUFFERING",
        secret: false,
    },
    Key { name: "health.stalled", default: "300s", help: "and for this long STALLED: not ready", secret: false },
    Key { name: "shutdown.deadline", default: "30s", help: "after SIGTERM: exit, drained or not", secret: false },
];

/// Wrong usage: exit code 2.
#[derive(Debug)]
pub(crate) struct Usage(pub(crate) String);

impl std::fmt::Display for Usage {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// 2 for what is wrong with usage or configuration, 1 for the rest.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    let configuration = |cause: &(dyn std::error::Error + 'static)| {
        cause.is::<Usage>()
            || cause.is::<settings::Error>()
            || cause.is::<flux_fleet::Error>()
            || matches!(cause.downcast_ref(), Some(flux_generator::run::Error::Field { .. }))
            || matches!(cause.downcast_ref(), Some(kafka::Error::Topic { .. }))
            || matches!(
                cause.downcast_ref(),
                Some(
                    flux_producer::Error::Contradiction { .. }
                        | flux_producer::Error::Run(_)
                        | flux_producer::Error::Kafka(kafka::Error::Topic { .. })
                )
            )
            || matches!(
                cause.downcast_ref(),
                Some(
                    flux_verify::Error::UnknownRun { .. }
                        | flux_verify::Error::Unset { .. }
                        | flux_verify::Error::Run(_)
                )
            )
    };
    if error.chain().any(configuration) { 2 } else { 1 }
}

/// A role at work.
pub(crate) struct Role {
    pub(crate) metrics: prometheus::Registry,
    pub(crate) health: Health,
    pub(crate) shutdown: Shutdown,
    /// Ends the role from within.
    pub(crate) trigger: Trigger,
}

impl Role {
    pub(crate) fn start(settings: &Settings) -> anyhow::Result<Self> {
        let thresholds = Thresholds {
            buffering: settings.duration("health.buffering")?,
            stalled: settings.duration("health.stalled")?,
        };
        let (trigger, shutdown) = Shutdown::on_signal(settings.duration("shutdown.deadline")?);
        let metrics = prometheus::Registry::new();
        let build = prometheus::IntGauge::with_opts(
            prometheus::Opts::new("flux_build_info", "Always 1; the label says which build.")
                .const_label("version", env!("CARGO_PKG_VERSION")),
        )?;
        build.set(1);
        metrics.register(Box::new(build))?;
        let started = prometheus::Gauge::new("process_start_time_seconds", "Unix time at which the process started.")?;
        started.set(crate::request::now().0 as f64 / 1000.0);
        metrics.register(Box::new(started))?;
        Ok(Self { metrics, health: Health::new(thresholds), shutdown, trigger })
    }

    /// Serves the role's port; `extra` gets the token that state-changing routes ask for.
    pub(crate) async fn serve(
        &self,
        settings: &Settings,
        extra: impl FnOnce(Option<Secret>) -> Router,
    ) -> anyhow::Result<()> {
        let listen: SocketAddr = settings.parse("http.listen", "use host:port, such as 127.0.0.1:9101")?;
        let token = settings.secret("http.token", "http.token_file")?;
        let guarded = listen.ip().is_loopback() || token.is_some();
        let routes = if guarded { extra(token) } else { Router::new() };
        if !guarded {
            tracing::warn!(%listen, "not loopback and no http.token: routes that change state are off");
        }
        let (address, _) =
            http::serve(listen, self.metrics.clone(), self.health.clone(), routes, self.shutdown.clone()).await?;
        tracing::info!(%address, "metrics and health");
        Ok(())
    }
}

/// One second between status lines.
pub(crate) const STATUS_INTERVAL: Duration = Duration::from_secs(1);
