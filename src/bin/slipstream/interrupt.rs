//! Ctrl-C: cancels what runs, and never takes the prompt away.

use std::future::{Future, pending};
use std::io;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use tokio::sync::watch;

use crate::outcome::EXIT_CANCELLED;

/// How long a script may take to notice Ctrl-C before the process ends without it: it may be in code that never
/// yields, or waiting for a full pipe.
const PATIENCE: Duration = Duration::from_secs(2);

/// Listens for Ctrl-C as long as the shell lives, so that it never ends the process by default.
pub(crate) struct Interrupt {
    presses: watch::Receiver<u64>,
    noticed: Arc<AtomicBool>,
    _listener: SpawnedTask<()>,
}

impl Interrupt {
    /// Begins to listen. In a script, what does not notice Ctrl-C in time is ended with the process.
    pub(crate) fn listen(interactive: bool) -> io::Result<Self> {
        // The handler is installed here and not in the task, which may begin late: the prompt's editor replaces
        // the handler while a line is typed, and then restores what it found.
        let mut signal = ctrl_c()?;
        let (press, presses) = watch::channel(0);
        let noticed = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&noticed);
        let listener = SpawnedTask::spawn(async move {
            while signal.recv().await.is_some() {
                seen.store(false, Ordering::Relaxed);
                press.send_modify(|count| *count += 1);
                if !interactive {
                    tokio::select! {
                        () = tokio::time::sleep(PATIENCE) => {}
                        _again = signal.recv() => {}
                    }
                    if !seen.load(Ordering::Relaxed) {
                        process::exit(i32::from(EXIT_CANCELLED));
                    }
                }
            }
        });
        Ok(Self { presses, noticed, _listener: listener })
    }

    /// Forgets what was pressed before: it was not meant for what comes now.
    pub(crate) fn forget(&mut self) {
        self.presses.mark_unchanged();
    }

    /// Runs this until it ends or Ctrl-C is pressed; then it is dropped, and the answer is `None`.
    pub(crate) async fn or<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = next(&mut self.presses) => {
                self.noticed.store(true, Ordering::Relaxed);
                None
            }
            done = work => Some(done),
        }
    }
}

/// Waits for the next press; for ever, if nobody listens any more because the runtime ends.
async fn next(presses: &mut watch::Receiver<u64>) {
    if presses.changed().await.is_err() {
        pending::<()>().await;
    }
}

#[cfg(unix)]
fn ctrl_c() -> io::Result<tokio::signal::unix::Signal> {
    tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
}

#[cfg(windows)]
fn ctrl_c() -> io::Result<tokio::signal::windows::CtrlC> {
    tokio::signal::windows::ctrl_c()
}
