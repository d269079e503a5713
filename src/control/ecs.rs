//! The node's own container instance: brought to where the node wants it, however often that takes, and looked at.
//!
//! What is next is decided in `plan`; here it is timed and told. No other container instance is ever touched.

mod calls;
pub mod plan;

use std::pin::Pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clients::aws::ecs::Ecs;
use crate::clients::backoff::Backoff;
use crate::clock::Clock;
use crate::domain::ecs::{EcsView, Place, Trouble, TroubleKind, Want};
use crate::domain::moment::Moment;
use crate::domain::report::{Outlet, OutletState};
use plan::{Answer, Call, Next, Plan};

/// Longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// A look that nothing hangs on waits so many times as long: behind a carrier's fault, thousands wait for the same uplink.
pub const PATIENCE: u32 = 8;

/// How far the time between two looks differs among nodes.
const SPREAD: f64 = 1.0 / 6.0;

/// How long a stop waits for a call that changes something.
const FAREWELL: Duration = Duration::from_secs(3);

/// What the task needs.
#[derive(Debug)]
pub struct EcsControl {
    /// The way to ECS.
    pub ecs: Ecs,
    /// The time.
    pub clock: Clock,
}

/// Keeps ECS at what is wanted, and `seen` at what is there, until it is cancelled. `place` is where the ECS agent has
/// registered this machine.
///
/// # Errors
/// None: trouble with ECS is told in `seen` and in `outlet`.
pub async fn run(
    control: EcsControl,
    mut wants: watch::Receiver<Want>,
    mut place: watch::Receiver<Option<Place>>,
    seen: watch::Sender<EcsView>,
    outlet: watch::Sender<Outlet>,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let mut desk = Desk::new(&control);
    let mut asking: Option<Asking> = None;
    loop {
        let now = control.clock.moment();
        let other = desk.plan.take(
            &wants.borrow_and_update(),
            place.borrow_and_update().as_ref(),
            now,
        );
        // What only looks must not hold up what has to be done; what changes something is always heard out.
        asking = asking.filter(|asking| !(other && asking.call.only_reads()));
        let mut wake = None;
        if asking.is_none() {
            match desk.plan.next(now) {
                Next::Call(call) => asking = desk.ask(call, now),
                Next::Wait(until) => wake = Some(control.clock.instant(until)),
                Next::Rest => {}
            }
        }
        desk.tell(&seen, &outlet);
        tokio::select! {
            () = cancel.cancelled() => break,
            () = changed(&mut wants) => {}
            () = changed(&mut place) => {}
            () = at(wake) => {}
            (call, asked, outcome) = answer(&mut asking) => desk.answered(call, asked, outcome),
        }
    }
    if asking
        .as_ref()
        .is_some_and(|asking| !asking.call.only_reads())
    {
        // Whether it came in time is seen after the next start.
        let _ = tokio::time::timeout(FAREWELL, answer(&mut asking)).await;
    }
    Ok(())
}

/// A call under way.
struct Asking {
    call: Call,
    asked: Moment,
    outcome: Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

type Outcome = Result<Answer, Trouble>;

/// Waits for the call under way, and takes it off; for ever where there is none.
async fn answer(asking: &mut Option<Asking>) -> (Call, Moment, Outcome) {
    let outcome = match asking {
        Some(asking) => asking.outcome.as_mut().await,
        None => std::future::pending().await,
    };
    match asking.take() {
        Some(asking) => (asking.call, asking.asked, outcome),
        None => std::future::pending().await,
    }
}

/// Waits for a new value; for ever where there will be none.
async fn changed<T>(receiver: &mut watch::Receiver<T>) {
    if receiver.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn at(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}

/// What `run` decides with.
struct Desk<'a> {
    control: &'a EcsControl,
    plan: Plan,
    backoff: Backoff,
    outlet: Outlet,
}

impl<'a> Desk<'a> {
    fn new(control: &'a EcsControl) -> Self {
        let stretch = 1.0 + SPREAD * (2.0 * fastrand::f64() - 1.0);
        Desk {
            control,
            plan: Plan::new(stretch),
            backoff: Backoff::up_to(LONGEST_PAUSE),
            outlet: Outlet::off("ecs"),
        }
    }

    fn ask(&self, call: Call, now: Moment) -> Option<Asking> {
        let place = self.plan.place()?.clone();
        let made = calls::make(self.control.ecs.clone(), place, call.clone(), now);
        Some(Asking {
            call,
            asked: now,
            outcome: Box::pin(made),
        })
    }

    fn answered(&mut self, call: Call, asked: Moment, outcome: Outcome) {
        let now = self.control.clock.now();
        match outcome {
            Ok(answer) => {
                match &call {
                    Call::Look | Call::Count => {}
                    Call::Claim(claim) => tracing::info!(%claim, "claim on record at ECS"),
                    Call::Unclaim => tracing::info!("claim taken off at ECS"),
                    Call::Drain => tracing::info!("container instance set to DRAINING"),
                    Call::Activate => tracing::info!("container instance set to ACTIVE"),
                }
                self.outlet.last_success = Some(now.wall);
                self.plan.answered(&call, answer, asked, now.moment);
                if self.plan.view().trouble.is_none() {
                    self.backoff.reset();
                }
            }
            Err(trouble) => {
                let patience = if self.plan.is_routine(&call) {
                    PATIENCE
                } else {
                    1
                };
                let until = now.moment + self.backoff.pause() * patience;
                self.plan.failed(call, trouble, until);
            }
        }
    }

    fn tell(&mut self, seen: &watch::Sender<EcsView>, outlet: &watch::Sender<Outlet>) {
        let view = self.plan.view();
        let error = view.trouble.as_ref().map(|trouble| trouble.said.clone());
        if error != self.outlet.error {
            match (&error, &self.outlet.error) {
                (Some(error), _) => tracing::warn!(error, "ECS does not do what it is asked"),
                (None, was) => tracing::info!(was, "ECS does what it is asked again"),
            }
        }
        self.outlet.state = match view.trouble.as_ref().map(|trouble| trouble.kind) {
            _ if !self.plan.is_wanted() => OutletState::Off,
            None => OutletState::Ok,
            Some(TroubleKind::NoAgent | TroubleKind::Throttled | TroubleKind::Unreachable) => {
                OutletState::Retrying
            }
            Some(TroubleKind::Denied | TroubleKind::Refused) => OutletState::Rejected,
        };
        self.outlet.error = error;
        set(seen, view);
        set(outlet, &self.outlet);
    }
}

/// Wakes who waits only for news.
fn set<T: PartialEq + Clone>(sender: &watch::Sender<T>, value: &T) {
    sender.send_if_modified(|told| {
        let is_news = told != value;
        if is_news {
            told.clone_from(value);
        }
        is_news
    });
}
