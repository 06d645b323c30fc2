//! SIGTERM and SIGINT, as something that can be waited for.

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The request to end, once it has come.
#[derive(Clone, Debug)]
pub struct Shutdown {
    requested: watch::Receiver<bool>,
}

impl Shutdown {
    /// Listens for the signals. A second one ends the process at once.
    pub fn on_signals() -> std::io::Result<Shutdown> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let (request, requested) = watch::channel(false);
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!("{name}: letting records in flight settle, then ending");
            request.send_replace(true);
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!(
                "a second signal: ending at once; nothing is lost, some may be repeated"
            );
            std::process::exit(1);
        });
        Ok(Shutdown { requested })
    }

    /// Waits for the request.
    pub async fn requested(&mut self) {
        // An error means that the listener is gone, which only the end of the process does.
        let _ = self.requested.wait_for(|requested| *requested).await;
    }

    /// Whether it has come.
    pub fn is_requested(&self) -> bool {
        *self.requested.borrow()
    }
}
