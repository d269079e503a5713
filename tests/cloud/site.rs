//! fakecloud, and in it a site as its operator makes it: two processes, both ended when this is dropped.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// No start and no answer takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// The site's half in the cloud.
pub(crate) struct Site {
    requests: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _operator: Child,
    _cloud: Child,
    _folder: TempDir,
}

impl Site {
    /// Starts a cloud with nothing in it, and its operator.
    pub(crate) async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (cloud, url) = fakecloud(folder.path()).await;
        let mut operator = Command::new(built("target/venv/bin/python"))
            .arg(built("tests/cloud/site.py"))
            .arg(&url)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("python starts");
        let answers = operator.stdout.take().expect("it is piped");
        Site {
            requests: operator.stdin.take().expect("it is piped"),
            answers: BufReader::new(answers).lines(),
            _operator: operator,
            _cloud: cloud,
            _folder: folder,
        }
    }

    /// What a method of `site.py` answers.
    ///
    /// # Panics
    /// Where it fails; why stands on standard error.
    pub(crate) async fn ask<T: DeserializeOwned>(&mut self, request: &Value) -> T {
        let exchange = async {
            let line = format!("{request}\n");
            self.requests.write_all(line.as_bytes()).await?;
            self.answers.next_line().await
        };
        let answer = tokio::time::timeout(PATIENCE, exchange).await;
        let answer = answer.unwrap_or_else(|_| panic!("no answer to {request}"));
        let answer = answer.ok().flatten();
        let answer = answer.unwrap_or_else(|| panic!("site.py ended at {request}"));
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{request}: {error}: {answer}"))
    }
}

/// The cloud, and its address.
async fn fakecloud(folder: &Path) -> (Child, String) {
    let mut cloud = Command::new(built("target/tools/bin/fakecloud"))
        // It would listen on every interface.
        .args(["--addr", &format!("{}:0", Ipv4Addr::LOCALHOST)])
        .args(["--region", "eu-west-1", "--iam", "strict", "--verify-sigv4"])
        .args(["--log-level", "error"])
        .env_clear()
        .env("HOME", folder)
        .env("TMPDIR", folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("fakecloud starts");
    let log = cloud.stdout.take().expect("it is piped");
    let port = tokio::time::timeout(PATIENCE, port_of(log)).await;
    let port = port.expect("fakecloud starts in time");
    (cloud, format!("http://{}:{port}", Ipv4Addr::LOCALHOST))
}

/// Its first line says where it listens; the rest is read away, so that it never waits for us.
async fn port_of(log: impl AsyncRead + Unpin + Send + 'static) -> u16 {
    let mut lines = BufReader::new(log).lines();
    while let Some(line) = lines.next_line().await.expect("a log is text") {
        if let Some(port) = line.strip_prefix("FAKECLOUD_PORT=") {
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return port.parse().expect("a number");
        }
    }
    panic!("fakecloud ended before it listened");
}

/// A file that `tests/run cloud` makes, or that is the project's own.
fn built(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    assert!(
        path.exists(),
        "{} is missing: `tests/run cloud` installs what this needs",
        path.display()
    );
    path
}
