//! What SSM has to do with this node: parameters that configure it, Compliance and Inventory that are told of it.

pub mod compliance;
pub mod inventory;
pub mod parameters;

use std::time::Duration;

use tokio::sync::watch;

use crate::clients::aws::json::{Failure, FailureKind};
use crate::clients::backoff::Backoff;
use crate::clock::Clock;
use crate::domain::report::{Outlet, OutletState};

/// The outlet's name in the report.
pub const OUTLET: &str = "ssm";

/// Longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// SSM shares 40 calls a second among all readers of an account: who is told that there are too many waits so many
/// times as long, and twice that when it is told again.
const STRETCH: u32 = 2;
const MOST_STRETCH: u32 = 8;

/// Who has never been answered waits for something, a new node for its settings: it tries sooner.
const FIRST: Duration = Duration::from_secs(30);

/// How calls to SSM go: what is told of them, and how long to wait after each.
#[derive(Debug)]
struct Course {
    outlet: Outlet,
    backoff: Backoff,
    stretch: u32,
    told: watch::Sender<Outlet>,
}

impl Course {
    fn new(told: watch::Sender<Outlet>) -> Self {
        let outlet = Outlet {
            state: OutletState::Ok,
            ..Outlet::off(OUTLET)
        };
        told.send_replace(outlet.clone());
        Course {
            outlet,
            backoff: Backoff::up_to(LONGEST_PAUSE),
            stretch: 1,
            told,
        }
    }

    /// A call has succeeded; from here on the usual pace is right.
    fn succeeded(&mut self, clock: &Clock) {
        self.backoff.reset();
        self.stretch = 1;
        if let Some(was) = self.outlet.error.take() {
            tracing::info!(was, "SSM does what it is asked again");
        }
        self.outlet.state = OutletState::Ok;
        self.outlet.last_success = Some(clock.now().wall);
        self.told.send_replace(self.outlet.clone());
    }

    /// A call has failed; returns how long to wait before the next, where `usual` is the time between two.
    fn failed(&mut self, failure: Failure, usual: Duration) -> Duration {
        let (state, pause) = match failure.kind {
            FailureKind::Unreachable | FailureKind::Credentials => {
                (OutletState::Retrying, self.backoff.pause())
            }
            FailureKind::Throttled => {
                self.stretch = (self.stretch * STRETCH).min(MOST_STRETCH);
                let usual = match self.outlet.last_success {
                    Some(_) => usual,
                    None => usual.min(FIRST),
                };
                (OutletState::Retrying, spread(usual * self.stretch))
            }
            // Only a person can change that, and need not wait for long to see that it worked.
            FailureKind::Denied | FailureKind::Refused => {
                (OutletState::Rejected, spread(usual.min(LONGEST_PAUSE)))
            }
        };
        if self.outlet.error.as_ref() != Some(&failure.said) {
            tracing::warn!(error = failure.said, "SSM does not do what it is asked");
        }
        self.outlet.state = state;
        self.outlet.error = Some(failure.said);
        self.told.send_replace(self.outlet.clone());
        pause
    }
}

/// A sixth less to a sixth more, so that nodes that started together part.
fn spread(time: Duration) -> Duration {
    time.mul_f64(1.0 + (2.0 * fastrand::f64() - 1.0) / 6.0)
}

/// Two outlets of the same name as one: the worse decides.
#[must_use]
pub fn merged(one: Outlet, other: Outlet) -> Outlet {
    let rank = |outlet: &Outlet| match outlet.state {
        OutletState::Off => 0,
        OutletState::Ok => 1,
        OutletState::Retrying => 2,
        OutletState::Rejected => 3,
    };
    let last_success = one.last_success.max(other.last_success);
    let (mut worse, better) = if rank(&one) < rank(&other) {
        (other, one)
    } else {
        (one, other)
    };
    worse.last_success = last_success;
    worse.error = match (worse.error, better.error) {
        (Some(worst), Some(too)) if worst != too => Some(format!("{worst}; {too}")),
        (error, too) => error.or(too),
    };
    worse
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outlet(state: OutletState, error: Option<&str>, at: Option<i64>) -> Outlet {
        Outlet {
            state,
            error: error.map(str::to_owned),
            last_success: at.map(|at| jiff::Timestamp::from_second(at).unwrap()),
            ..Outlet::off(OUTLET)
        }
    }

    #[test]
    fn the_worse_decides() {
        use OutletState::{Off, Ok, Rejected, Retrying};
        for (one, other, expected) in [
            (
                outlet(Off, None, None),
                outlet(Off, None, None),
                outlet(Off, None, None),
            ),
            (
                outlet(Ok, None, Some(1)),
                outlet(Off, None, None),
                outlet(Ok, None, Some(1)),
            ),
            (
                outlet(Ok, None, Some(2)),
                outlet(Retrying, Some("a"), Some(1)),
                outlet(Retrying, Some("a"), Some(2)),
            ),
            (
                outlet(Rejected, Some("b"), None),
                outlet(Retrying, Some("a"), Some(1)),
                outlet(Rejected, Some("b; a"), Some(1)),
            ),
        ] {
            assert_eq!(merged(one.clone(), other.clone()), expected);
            assert_eq!(merged(other, one), expected);
        }
    }

    #[test]
    fn too_many_calls_make_the_next_ones_rarer() {
        let usual = Duration::from_secs(300);
        let failure = |kind| Failure {
            kind,
            said: "no".to_owned(),
        };
        let mut course = Course::new(watch::Sender::new(Outlet::off(OUTLET)));
        let clock = Clock::start(None);
        // Whether a call succeeds before; what then fails; how long until the next.
        for (succeeds, kind, expected) in [
            (false, FailureKind::Throttled, 60.0),
            (false, FailureKind::Throttled, 120.0),
            (true, FailureKind::Throttled, 600.0),
            (false, FailureKind::Throttled, 1200.0),
            (false, FailureKind::Throttled, 2400.0),
            (false, FailureKind::Throttled, 2400.0),
            (true, FailureKind::Throttled, 600.0),
            (false, FailureKind::Denied, 120.0),
            // From a second on, as long again at most.
            (true, FailureKind::Unreachable, 1.5),
            (false, FailureKind::Credentials, 3.0),
        ] {
            if succeeds {
                course.succeeded(&clock);
            }
            let waited = course.failed(failure(kind), usual).as_secs_f64();
            let share = waited / expected;
            assert!((0.66..=1.34).contains(&share), "{waited} of {expected}");
        }
    }
}
