//! Tells SSM Compliance how the node does, when the domain says that there is something to tell.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Course;
use crate::clients::aws::ssm::Ssm;
use crate::clock::Clock;
use crate::domain::compliance::Compliance;
use crate::domain::moment::Moment;
use crate::domain::report::{Outlet, Report};

/// The time between two tries where SSM has enough of them.
const USUAL: Duration = Duration::from_secs(300);

/// What the task needs.
#[derive(Debug)]
pub struct Telling {
    /// The way to SSM.
    pub ssm: Ssm,
    /// Who is told of: the managed instance's id.
    pub instance: String,
    /// The time.
    pub clock: Clock,
}

/// Tells SSM what `reports` say, until it is cancelled. What was not told while SSM could not be reached is not told
/// later either: only how the node does then.
///
/// # Errors
/// None: trouble with SSM is told in `outlet`.
pub async fn run(
    telling: Telling,
    mut reports: watch::Receiver<Option<Arc<Report>>>,
    outlet: watch::Sender<Outlet>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let Telling {
        ssm,
        instance,
        clock,
    } = telling;
    let mut course = Course::new(outlet);
    let mut compliance = Compliance::new(&instance, clock.moment());
    loop {
        if let Some(report) = reports.borrow_and_update().as_deref() {
            compliance.take_in(report, clock.moment());
        }
        let due = compliance.due();
        if due.is_some_and(|due| due <= clock.moment()) {
            let (asked, items) = (clock.now(), compliance.items().to_vec());
            let answer = tokio::select! {
                answer = ssm.put_compliance(&instance, asked.wall, &items) => answer,
                () = cancel.cancelled() => return Ok(()),
            };
            match answer {
                Ok(()) => {
                    course.succeeded(&clock);
                    compliance.told(&items, asked.moment);
                }
                Err(failure) => {
                    let pause = course.failed(failure, USUAL);
                    compliance.failed(clock.moment() + pause);
                }
            }
            continue;
        }
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            changed = reports.changed() => if changed.is_err() {
                return Ok(());
            },
            () = at(&clock, due) => {}
        }
    }
}

async fn at(clock: &Clock, due: Option<Moment>) {
    match due {
        Some(due) => tokio::time::sleep_until(clock.instant(due)).await,
        None => std::future::pending().await,
    }
}
