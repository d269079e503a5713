//! The only spawner of tasks: starts them, hears of the first that ends badly, stops them all.

use std::future::Future;
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long tasks may take to say farewell.
const FAREWELL: Duration = Duration::from_secs(5);

/// Tasks that live and die together.
#[derive(Debug, Default)]
pub struct Supervisor {
    tasks: JoinSet<anyhow::Result<()>>,
    cancel: CancellationToken,
}

impl Supervisor {
    /// The token that tells the tasks to stop.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.cancel.clone()
    }

    /// Starts a task.
    pub fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) {
        self.tasks.spawn(async move { task.await.context(name) });
    }

    /// Waits for the first task that ends badly, or that panics; tasks that end well are done.
    pub async fn failure(&mut self) -> anyhow::Error {
        loop {
            match self.tasks.join_next().await {
                Some(Ok(Ok(()))) => {}
                Some(Ok(Err(error))) => return error,
                Some(Err(crash)) => return anyhow::Error::new(crash).context("a task crashed"),
                None => std::future::pending().await,
            }
        }
    }

    /// Stops all tasks: asks, waits a little, then cuts them off.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        let farewell = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(FAREWELL, farewell).await.is_err() {
            tracing::warn!("some tasks did not stop in time");
        }
        self.tasks.abort_all();
    }
}
