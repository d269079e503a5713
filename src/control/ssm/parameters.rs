//! Looks at the parameters that configure this node, again and again, and publishes what has changed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Course, spread};
use crate::clients::aws::ssm::Ssm;
use crate::clock::Clock;
use crate::domain::report::Outlet;
use crate::domain::settings::Fetched;

/// Nodes that start together, after a power cut, look for the first time within so long.
const FIRST_WITHIN: Duration = Duration::from_secs(10);

/// What the task needs.
#[derive(Debug)]
pub struct Parameters {
    /// The way to SSM.
    pub ssm: Ssm,
    /// What to look at: at most ten names.
    pub names: Vec<String>,
    /// Time between two looks, give or take a sixth.
    pub every: Duration,
    /// The time.
    pub clock: Clock,
}

/// Keeps `fetched` at what SSM holds, until it is cancelled. While SSM can't be asked it stays what it was.
///
/// # Errors
/// None: trouble with SSM is told in `outlet`.
pub async fn run(
    parameters: Parameters,
    fetched: watch::Sender<Option<Arc<Fetched>>>,
    outlet: watch::Sender<Outlet>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut course = Course::new(outlet);
    let mut pause = FIRST_WITHIN.mul_f64(fastrand::f64());
    loop {
        let asked = async {
            tokio::time::sleep(pause).await;
            parameters.ssm.parameters(&parameters.names).await
        };
        let answer = tokio::select! {
            answer = asked => answer,
            () = cancel.cancelled() => return Ok(()),
        };
        pause = match answer {
            Ok(found) => {
                course.succeeded(&parameters.clock);
                publish(&fetched, found);
                spread(parameters.every)
            }
            Err(failure) => course.failed(failure, parameters.every),
        };
    }
}

/// Wakes who waits only for news.
fn publish(fetched: &watch::Sender<Option<Arc<Fetched>>>, found: Fetched) {
    fetched.send_if_modified(|known| {
        let before = known.as_deref();
        if before.map(|before| &before.missing) != Some(&found.missing) && !found.missing.is_empty()
        {
            tracing::info!(names = ?found.missing, "SSM has no such parameters");
        }
        let is_news = before != Some(&found);
        if is_news {
            *known = Some(Arc::new(found));
        }
        is_news
    });
}
