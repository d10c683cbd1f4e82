//! Ending on purpose: SIGTERM or Ctrl-C asks once, work drains, and a deadline ends the wait.

use std::time::Duration;

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

/// The other side of [`Shutdown`]: asks for it.
#[derive(Debug, Clone)]
pub struct Trigger(watch::Sender<bool>);

/// Whether the process was asked to end. Cheap to clone; usable from threads and tasks.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Receiver<bool>);

impl Trigger {
    /// Asks.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}

impl Shutdown {
    /// A shutdown that only its trigger asks for.
    pub fn manual() -> (Trigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (Trigger(sender), Self(receiver))
    }

    /// A shutdown that SIGTERM and SIGINT ask for. A process that has not ended `deadline` later exits with 1; a second
    /// signal exits at once.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn on_signal(deadline: Duration) -> (Trigger, Self) {
        let (trigger, shutdown) = Self::manual();
        let asked = trigger.clone();
        tokio::spawn(async move {
            let mut terminate = signal(SignalKind::terminate()).expect("signal handlers install");
            let mut interrupt = signal(SignalKind::interrupt()).expect("signal handlers install");
            let mut next = async || {
                tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
            };
            next().await;
            tracing::info!(deadline_s = deadline.as_secs(), "asked to end: draining");
            asked.request();
            tokio::select! { () = next() => {}, () = tokio::time::sleep(deadline) => {} }
            tracing::error!(
                "ended before the drain was complete; what was not durable is read again at the next start"
            );
            std::process::exit(1);
        });
        (trigger, shutdown)
    }

    /// Whether it was asked for.
    pub fn requested(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns when it is asked for.
    pub async fn wait(&mut self) {
        // The trigger is gone only when nobody can ask any more: then there is nothing to wait for.
        if self.0.wait_for(|asked| *asked).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}
