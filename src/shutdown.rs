//! SIGTERM and SIGINT, as something that can be waited for; and the end that nobody asked for.

use std::{panic, process};

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
            process::exit(1);
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

/// Ends the process with the first panic of any thread or task, once it has been told of. One of
/// them alone would die without a word, and the others look alive: who starts the process again
/// has to see that it ended.
pub fn end_with_any_panic() {
    let tell = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        tell(info);
        process::abort();
    }));
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::os::unix::process::ExitStatusExt;
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    const SIGABRT: i32 = 6;
    const VICTIM: &str = "WALRELAY_TEST_PANICS";

    #[test]
    fn e4_a_panic_in_any_task_ends_the_process() {
        if env::var_os(VICTIM).is_some() {
            end_with_any_panic();
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.spawn(async { panic!("a task is done for") });
            return runtime.block_on(async { tokio::time::sleep(Duration::from_secs(60)).await });
        }
        // This test once more, in a process of its own.
        let mut victim = Command::new(env::current_exe().unwrap());
        let name = "shutdown::tests::e4_a_panic_in_any_task_ends_the_process";
        victim.args(["--exact", "--nocapture", name]);
        let ended = victim.env(VICTIM, "1").output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.signal(), Some(SIGABRT), "{told}");
        assert!(told.contains("a task is done for"), "{told}");
        assert!(include_str!("main.rs").contains("{\n    end_with_any_panic();\n"));
    }
}
