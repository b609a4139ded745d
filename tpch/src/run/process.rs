//! A worker as the harness sees it: a child process that answers, fails, hangs or dies, and is never left behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::marker::PhantomData;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use datafusion::error::{DataFusionError, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::protocol::{Done, Reply, from_line, to_line};

/// How much of a worker's last words is kept.
const MAX_STDERR_BYTES: usize = 4096;

/// A running worker that answers with figures `T`; dropping it kills it.
pub(crate) struct WorkerProcess<T = Done> {
    child: Child,
    stdin: ChildStdin,
    /// Lines of its standard output; the channel ends when the output does.
    replies: mpsc::Receiver<String>,
    /// Collects the last words; taken once the worker has ended.
    stderr: Option<JoinHandle<Vec<u8>>>,
    /// How long one reply may take.
    timeout: Duration,
    answers: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> WorkerProcess<T> {
    /// Starts a worker and waits until it is ready. The inner error is the worker's, to be reported.
    pub(crate) async fn spawn(command: &mut Command, timeout: Duration) -> Result<Result<Self, String>> {
        // Ctrl-C is for the harness, which ends its workers: they are not in the terminal's process group.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(command, 0);
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| DataFusionError::Execution(format!("cannot start a worker: {e}")))?;
        let (Some(stdin), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(DataFusionError::Internal("a worker has no pipes".to_owned()));
        };
        let (sender, replies) = mpsc::channel(1);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(std::io::Result::ok) {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        let stderr = Some(std::thread::spawn(move || last_bytes(stderr)));
        let mut worker = Self { child, stdin, replies, stderr, timeout, answers: PhantomData };
        Ok(match worker.reply("did not become ready").await {
            Ok(Reply::Ready) => Ok(worker),
            Ok(Reply::Failed { message }) => Err(message),
            Ok(Reply::Done(_)) => Err("the worker answered before it was asked".to_owned()),
            Err(e) => Err(e),
        })
    }

    /// Sends a request and waits for its figures; after an error the worker is of no more use.
    pub(crate) async fn run(&mut self, request: &(impl Serialize + Sync)) -> Result<T, String> {
        let line = to_line(request)?;
        // A worker that cannot be written to is dead, and the reply tells how it died.
        if self.stdin.write_all(line.as_bytes()).and_then(|()| self.stdin.flush()).is_err() {
            return Err(self.last_words().await);
        }
        match self.reply("gave no answer").await? {
            Reply::Done(done) => Ok(done),
            Reply::Failed { message } => Err(message),
            Reply::Ready => Err("the worker started twice".to_owned()),
        }
    }

    /// Waits for a line. A worker that is too slow is killed.
    async fn reply(&mut self, too_slow: &str) -> Result<Reply<T>, String> {
        match tokio::time::timeout(self.timeout, self.replies.recv()).await {
            Ok(Some(line)) => from_line(&line),
            Ok(None) => Err(self.last_words().await),
            Err(_) => {
                self.kill();
                Err(format!("the worker {too_slow} within {} s and was killed", self.timeout.as_secs_f64()))
            }
        }
    }
}

impl<T> WorkerProcess<T> {
    /// How a worker ended whose output has ended.
    async fn last_words(&mut self) -> String {
        // The pipe may be closed before the process is gone; one that lingers is killed.
        for _ in 0..50 {
            if !matches!(self.child.try_wait(), Ok(None)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.kill();
        let status = self.child.wait().map_or_else(|e| e.to_string(), |status| status.to_string());
        let stderr = self.stderr.take().and_then(|t| t.join().ok()).unwrap_or_default();
        match String::from_utf8_lossy(&stderr).trim() {
            "" => format!("the worker ended ({status})"),
            text => format!("the worker ended ({status}): {text}"),
        }
    }

    /// Ends the process and waits for it.
    fn kill(&mut self) {
        // Fails only when the process has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl<T> Drop for WorkerProcess<T> {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Reads to the end and keeps the last bytes.
fn last_bytes(mut from: impl Read) -> Vec<u8> {
    let mut kept = vec![];
    let mut buffer = [0; 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        kept.extend_from_slice(&buffer[..read]);
        let excess = kept.len().saturating_sub(MAX_STDERR_BYTES);
        kept.drain(..excess);
    }
    kept
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::protocol::Request;
    use std::path::PathBuf;

    /// A worker played by a shell script.
    async fn worker(script: &str) -> Result<WorkerProcess, String> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        WorkerProcess::spawn(&mut command, Duration::from_millis(500)).await.unwrap()
    }

    async fn run(worker: &mut WorkerProcess) -> Result<Done, String> {
        worker.run(&Request::Run { rows: PathBuf::from("rows") }).await
    }

    #[tokio::test]
    async fn answers_are_delivered() {
        let done = r#"{"done":{"elapsed_ms":1.5,"rows":2,"peak_pool_bytes":3,"spilled_bytes":4}}"#;
        let script = format!(
            "echo '\"ready\"'; read a; echo '{done}'; read b; echo '{{\"failed\":{{\"message\":\"no\"}}}}'"
        );
        let mut worker = worker(&script).await.unwrap();
        assert_eq!(run(&mut worker).await.unwrap().rows, 2);
        assert_eq!(run(&mut worker).await.unwrap_err(), "no");
    }

    #[tokio::test]
    async fn death_is_reported_with_its_last_words() {
        let error = worker("echo overflow >&2; exit 7").await.err().unwrap();
        assert!(error.contains("exit status: 7") && error.ends_with("overflow"), "{error}");
        let mut killed = worker("echo '\"ready\"'; read a; kill -9 $$").await.unwrap();
        let error = run(&mut killed).await.unwrap_err();
        assert!(error.contains("signal: 9"), "{error}");
        let error = run(&mut killed).await.unwrap_err();
        assert!(error.contains("signal: 9"), "{error}");
    }

    #[tokio::test]
    async fn hanging_worker_is_killed() {
        let mut worker = worker("echo '\"ready\"'; read a; exec sleep 60").await.unwrap();
        let error = run(&mut worker).await.unwrap_err();
        assert_eq!(error, "the worker gave no answer within 0.5 s and was killed");
        assert!(worker.child.try_wait().unwrap().is_some(), "the worker still runs");
    }

    #[tokio::test]
    async fn nonsense_is_shown() {
        let error = worker("echo hello").await.err().unwrap();
        assert!(error.contains("unexpected line \"hello\""), "{error}");
    }

    #[tokio::test]
    async fn dropped_worker_is_gone() {
        let worker = worker("echo '\"ready\"'; exec sleep 60").await.unwrap();
        let status = PathBuf::from(format!("/proc/{}", worker.child.id()));
        assert!(status.exists());
        drop(worker);
        assert!(!status.exists());
    }

    #[test]
    fn only_the_last_words_are_kept() {
        let text: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8).collect();
        assert_eq!(last_bytes(text.as_slice()), text[10_000 - MAX_STDERR_BYTES..]);
    }
}
