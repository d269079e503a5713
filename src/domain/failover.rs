//! Verdict and ECS → whether this node's work should leave it, and may. Decides; whoever acts brings ECS there.
//!
//! ```text
//! in_service ─► holding ─► draining ─► drained ─► probation ─► in_service
//!      └───────────┴──────────┴─────────┴──────────┴──► maintenance ─► in_service, or drained
//! ```
//!
//! Mode `observe` goes the same way and wants nothing of ECS.

mod guard;
mod kept;
mod orders;
mod span;
#[cfg(test)]
mod tests;
mod there;

use std::time::Duration;

use super::capacity::capacity;
use super::ecs::{Claim, EcsView, Own, Place, Status, Want};
use super::finding::{Code, Finding, Severity};
use super::moment::{Moment, Now};
use super::report::{self, Because, Capacity, DrillReport, FailoverState, State};
use crate::config::units::format_duration;
use crate::config::{Failover as Settings, FailoverMode};
use jiff::{SignedDuration, Timestamp};

pub use kept::Kept;
use kept::{Change, Drill, Maintenance};
pub use orders::Order;

/// ECS stops services' tasks, never others: who waits for those waits for ever.
const TASKS_LEAVE_WITHIN: Duration = Duration::from_secs(600);

/// A node on probation of which nothing is known for longer than this begins it anew.
const UNCLEAR_FOR: Duration = Duration::from_secs(60);

/// No tick takes more steps than there are states.
const STEPS: usize = 6;

const A_DAY: SignedDuration = SignedDuration::from_hours(24);

/// What the decision is made of.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The verdict.
    pub verdict: State,
    /// What the hardware can carry, by the verdict alone.
    pub carries: Capacity,
    /// The finding that speaks for leaving, if one does.
    pub cause: Option<Cause<'a>>,
    /// Where this node stands in ECS.
    pub place: Option<&'a Place>,
    /// What was seen in ECS.
    pub ecs: &'a EcsView,
    /// When the configuration last became other than it was.
    pub configured: Option<Moment>,
    /// When another driver was last loaded.
    pub driver_changed: Option<Moment>,
    /// `[failover]`.
    pub settings: &'a Settings,
}

/// What remains to be told: a step of the node between in service and drained, or a rehearsal's edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// From one state to another.
    State {
        /// The old one.
        was: FailoverState,
        /// The new one.
        state: FailoverState,
        /// Why, for a person.
        why: String,
        /// When it ends by itself.
        until: Option<Timestamp>,
    },
    /// A rehearsal has begun.
    DrillStarted(DrillReport),
    /// A rehearsal is over.
    DrillEnded,
}

/// Where the node stands, and why.
#[derive(Debug, Clone, Default)]
pub struct Failover {
    kept: Kept,
    /// Why no drain is allowed just now.
    held_back: Option<String>,
    /// Nothing is known since.
    unclear: Option<Moment>,
    /// The cluster has to be counted.
    counts: bool,
    want: Want,
    due: Option<Moment>,
}

/// Whether the hardware says that the work should be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// It carries at least a part.
    Here,
    /// It carries nothing, and a finding says why.
    Away,
    /// Nobody can tell.
    Unclear,
}

/// One look, as the states see it.
#[derive(Debug, Clone, Copy)]
struct Look<'a> {
    need: Need,
    /// How the node stands in ECS; `None` where that is of no matter.
    own: Option<&'a Own>,
    seen: Seen<'a>,
    now: Now,
}

/// Where to, and why.
type Move = (FailoverState, String);

/// Why a node should be drained.
#[derive(Debug, Clone, Copy)]
pub struct Cause<'a> {
    /// The finding.
    pub finding: &'a Finding,
    /// No waiting can make it better: `failover.hold` is skipped.
    pub proven: bool,
}

impl<'a> Cause<'a> {
    /// The first failing finding of those that are open. It is proven only where dead hardware alone leaves nothing to
    /// carry: a card that is gone proves nothing of one that is merely hot. Before the cards are counted (`gpus`), a
    /// card is no cause at all.
    pub fn of(
        open: impl Iterator<Item = &'a Finding> + Clone,
        slots: u32,
        gpus: Option<usize>,
    ) -> Option<Self> {
        let failing = open.filter(|finding| finding.severity == Severity::Failing);
        if gpus.is_none()
            && failing
                .clone()
                .all(|finding| finding.subject.gpu().is_some())
        {
            return None;
        }
        let dead = failing.clone().filter(|finding| is_dead(finding.code));
        let left = capacity(State::Failing, slots, gpus, dead.clone(), Some(slots));
        let proven = left.available == 0;
        let finding = failing
            .filter(|finding| is_dead(finding.code) == proven)
            .min_by_key(|finding| finding.code)?;
        Some(Cause { finding, proven })
    }
}

/// Whether a finding proves that hardware is dead.
const fn is_dead(code: Code) -> bool {
    matches!(
        code,
        Code::GpuXid(64 | 79) | Code::GpuLost | Code::GpuRowRemapFailed
    )
}

impl Failover {
    /// Goes on where an earlier life stood.
    #[must_use]
    pub fn new(kept: Kept) -> Self {
        Failover {
            kept,
            ..Failover::default()
        }
    }

    /// What must outlive the agent.
    #[must_use]
    pub fn kept(&self) -> &Kept {
        &self.kept
    }

    /// Where the node stands, in the report's form.
    #[must_use]
    pub fn report(&self, mode: FailoverMode, place: Option<&Place>) -> report::Failover {
        let kept = &self.kept;
        report::Failover {
            mode: mode.name(),
            state: kept.state,
            cluster: place.map(|place| place.cluster.clone()),
            container_instance: place.map(|place| place.container_instance.clone()),
            since: kept.since,
            until: kept.until(),
            reason: kept.why.clone(),
            held_back: self.held_back.clone(),
            drill: kept.drilling(),
        }
    }

    /// Why a drain that should be is not allowed.
    #[must_use]
    pub fn held_back(&self) -> Option<&str> {
        self.held_back.as_deref()
    }

    /// What is wanted of ECS.
    #[must_use]
    pub fn want(&self) -> &Want {
        &self.want
    }

    /// When a look is worth while though nothing new is seen.
    #[must_use]
    pub fn due(&self) -> Option<Moment> {
        self.due
    }

    /// What the node offers, where its hardware could carry `carries`.
    #[must_use]
    pub fn offer(&self, carries: Capacity, mode: FailoverMode) -> Capacity {
        let nothing = |because| Capacity {
            available: 0,
            because: Some(because),
            ..carries
        };
        match (self.kept.state, mode) {
            (FailoverState::Maintenance, _) => nothing(Because::Maintenance),
            (FailoverState::Draining | FailoverState::Drained | FailoverState::Probation, mode)
                if mode == FailoverMode::Drain || self.is_to_come_back() =>
            {
                nothing(Because::Verdict)
            }
            _ => match &self.kept.drill {
                Some(drill) if drill.slots < carries.available || carries.because.is_none() => {
                    Capacity {
                        available: drill.slots.min(carries.available),
                        because: Some(Because::Drill),
                        ..carries
                    }
                }
                Some(_) | None => carries,
            },
        }
    }

    /// One look: the steps that were taken, in their order.
    pub fn decide(&mut self, seen: Seen<'_>, now: Now) -> Vec<Step> {
        self.kept.entered.get_or_insert(now.moment);
        self.kept.since.get_or_insert(now.wall);
        self.due = None;
        self.held_back = None;
        self.counts = false;
        let is_recent = |at: &Timestamp| now.wall.duration_since(*at).abs() < A_DAY;
        self.kept.drains.retain(is_recent);
        let mut steps = Vec::new();
        self.rehearse(now, &mut steps);
        let need = self.need(seen, now);
        for _ in 0..STEPS {
            let Some((state, why)) = self.next(need, seen, now) else {
                break;
            };
            let was = std::mem::replace(&mut self.kept.state, state);
            self.enter(why.clone(), now);
            steps.push(Step::State {
                was,
                state,
                why,
                until: self.kept.until(),
            });
        }
        self.want = self.wanted(need, seen);
        steps
    }

    fn rehearse(&mut self, now: Now, steps: &mut Vec<Step>) {
        if std::mem::take(&mut self.kept.drill_ended) {
            steps.push(Step::DrillEnded);
        }
        let over = |drill: &mut Drill| drill.span.is_over(now);
        if self.kept.drill.take_if(over).is_some() {
            steps.push(Step::DrillEnded);
        }
        let drilling = self.kept.drilling();
        if let Some((drill, report)) = self.kept.drill.as_mut().zip(drilling) {
            if !drill.told {
                drill.told = true;
                steps.push(Step::DrillStarted(report));
            }
            let end = drill.span.end();
            self.wake(end);
        }
    }

    fn need(&mut self, seen: Seen<'_>, now: Now) -> Need {
        let need = match seen.verdict {
            State::Unknown => Need::Unclear,
            State::Healthy | State::Degraded => Need::Here,
            State::Failing if seen.carries.available > 0 => Need::Here,
            // The faults are over, and the verdict waits for proof: neither in nor out for that.
            State::Failing if seen.cause.is_none() => Need::Unclear,
            State::Failing => Need::Away,
        };
        match need {
            Need::Unclear => self.unclear = self.unclear.or(Some(now.moment)),
            Need::Here | Need::Away => {
                let since = self.unclear.take();
                if since.is_some_and(|since| now.moment - since > UNCLEAR_FOR) {
                    self.renew_probation(now);
                }
            }
        }
        if need == Need::Here {
            self.kept.overruled = false;
        }
        need
    }

    /// The step to take now, if any.
    fn next(&mut self, need: Need, seen: Seen<'_>, now: Now) -> Option<Move> {
        let own = seen.ecs.own.as_ref();
        let own = own.filter(|_| seen.settings.mode == FailoverMode::Drain);
        if self.kept.state != FailoverState::Maintenance {
            if let Some(order) = &self.kept.maintenance {
                return Some((FailoverState::Maintenance, order.reason.clone()));
            }
            if own.is_some_and(|own| self.is_drained_by_others(own)) {
                let reason = "drained in ECS, not by sideline".to_owned();
                self.kept.maintenance = Some(Maintenance {
                    reason: reason.clone(),
                    span: None,
                });
                return Some((FailoverState::Maintenance, reason));
            }
        }
        if let Some(own) = own {
            self.note(own, now);
        }
        if own.is_some_and(|own| self.is_activated_by_others(own)) {
            self.kept.overruled = need != Need::Here;
            self.kept.maintenance = None;
            return Some((
                FailoverState::InService,
                "set ACTIVE in ECS, not by sideline".to_owned(),
            ));
        }
        if let Some(own) = own.filter(|own| self.was_drained_before(own)) {
            self.kept.claim.clone_from(&own.claim);
            return Some((
                FailoverState::Draining,
                "drained before, by sideline".to_owned(),
            ));
        }
        let look = Look {
            need,
            own,
            seen,
            now,
        };
        match self.kept.state {
            FailoverState::InService => self.when_in_service(look),
            FailoverState::Holding => self.when_holding(look),
            FailoverState::Draining => self.when_draining(look),
            FailoverState::Drained => {
                (need == Need::Here).then(|| (FailoverState::Probation, verdict(seen)))
            }
            FailoverState::Probation => self.when_on_probation(look),
            FailoverState::Maintenance => self.when_in_maintenance(look),
        }
    }

    fn when_in_service(&mut self, look: Look<'_>) -> Option<Move> {
        let Look {
            need, seen, now, ..
        } = look;
        if need != Need::Away || self.kept.overruled {
            return None;
        }
        let cause = seen.cause?.finding;
        self.kept.follows = guard::follows(seen, now);
        Some((
            FailoverState::Holding,
            format!("{} of {}", cause.code, cause.subject),
        ))
    }

    fn when_holding(&mut self, look: Look<'_>) -> Option<Move> {
        let Look {
            need, seen, now, ..
        } = look;
        match need {
            Need::Unclear => return None,
            Need::Here => return Some((FailoverState::InService, verdict(seen))),
            Need::Away => {}
        }
        let Cause {
            finding: cause,
            proven,
        } = seen.cause?;
        let entered = self.kept.entered?;
        let hold = match self.kept.follows {
            // The first on whom a bad driver falls sees nobody else yet.
            Some(Change::Driver) => seen.settings.hold.max(seen.settings.changes),
            Some(Change::Configuration) | None => seen.settings.hold,
        };
        let held_until = entered + hold;
        if !proven && self.kept.follows == Some(Change::Configuration) {
            // Capacity tells the cloud all the same.
            match now.moment < held_until {
                true => self.wake(Some(held_until)),
                false => {
                    let code = cause.code;
                    self.held_back = Some(format!(
                        "{code} began right after the configuration changed"
                    ));
                }
            }
            return None;
        }
        if self.kept.claim.is_none() {
            let claims_at = entered + self.spread(proven, seen);
            if now.moment < claims_at {
                self.wake(Some(claims_at));
                return None;
            }
            self.kept.stamp(cause.code.to_string(), now);
        }
        self.renew_claim(seen, now);
        if !proven && now.moment < held_until {
            self.wake(Some(held_until));
            return None;
        }
        self.counts = true;
        match self.may_drain(proven, seen, now) {
            Ok(()) => {
                self.kept.drains.push(now.wall);
                Some((
                    FailoverState::Draining,
                    format!("{} of {}", cause.code, cause.subject),
                ))
            }
            Err(guard) => {
                self.wake(guard.due);
                self.held_back = guard.why;
                None
            }
        }
    }

    fn when_draining(&mut self, look: Look<'_>) -> Option<Move> {
        let Look {
            need,
            own,
            seen,
            now,
        } = look;
        if seen.settings.mode == FailoverMode::Observe {
            return Some((FailoverState::Drained, "only observed".to_owned()));
        }
        if self.kept.took_hold.is_none() {
            // ECS has not been told, or has refused: then there is nothing to come back from.
            return (need == Need::Here).then(|| (FailoverState::InService, verdict(seen)));
        }
        let own = own?;
        let tasks = own.running + own.pending;
        let given_up = self.kept.entered? + TASKS_LEAVE_WITHIN;
        if tasks == 0 {
            return Some((FailoverState::Drained, "no tasks are left".to_owned()));
        }
        if now.moment >= given_up {
            let why = format!("{tasks} tasks have stayed that ECS does not stop");
            return Some((FailoverState::Drained, why));
        }
        self.wake(Some(given_up));
        None
    }

    fn when_on_probation(&mut self, look: Look<'_>) -> Option<Move> {
        let Look {
            need, seen, now, ..
        } = look;
        let over = self.kept.entered? + seen.settings.probation;
        match need {
            Need::Away => {
                let code = seen.cause.map(|cause| cause.finding.code.to_string());
                return Some((FailoverState::Drained, code.unwrap_or_default()));
            }
            Need::Unclear => {
                // Once for a restart in the middle of it, and once more at its end: never is it written every tick.
                let since = self.unclear.unwrap_or(now.moment);
                if now.moment - since > UNCLEAR_FOR && self.kept.entered <= Some(since) {
                    self.renew_probation(now);
                }
                return None;
            }
            Need::Here => {}
        }
        if now.moment < over {
            self.wake(Some(over));
            return None;
        }
        let why = format!("sound for {}", format_duration(seen.settings.probation));
        Some((FailoverState::InService, why))
    }

    fn when_in_maintenance(&mut self, look: Look<'_>) -> Option<Move> {
        let Look {
            need,
            own,
            seen,
            now,
        } = look;
        let why = match &mut self.kept.maintenance {
            None => "ended by hand",
            Some(Maintenance {
                span: Some(span), ..
            }) => {
                if !span.is_over(now) {
                    let end = span.end();
                    self.wake(end);
                    return None;
                }
                "its time is over"
            }
            Some(Maintenance { span: None, .. }) => {
                // Where ECS is not looked at any more, nobody could end it.
                let goes_on = own.is_none_or(|own| own.status == Status::Draining);
                if goes_on && seen.settings.mode == FailoverMode::Drain {
                    return None;
                }
                "set ACTIVE in ECS"
            }
        };
        let by_hand = self
            .kept
            .maintenance
            .take()
            .is_none_or(|order| order.span.is_some());
        // What is drained already and should be stays so.
        let drained = by_hand && self.kept.took_hold.is_some() && need == Need::Away;
        let state = match drained {
            true => FailoverState::Drained,
            false => FailoverState::InService,
        };
        Some((state, why.to_owned()))
    }

    /// The state has changed: what belongs to it does.
    fn enter(&mut self, why: String, now: Now) {
        self.kept.entered = Some(now.moment);
        self.kept.since = Some(now.wall);
        self.unclear = None;
        self.held_back = None;
        self.kept.why = Some(why);
        match self.kept.state {
            FailoverState::InService => {
                self.kept.why = None;
                self.kept.claim = None;
                self.kept.stamped = None;
                self.kept.took_hold = None;
            }
            FailoverState::Maintenance => {
                let by_hand = self.kept.until().is_some();
                match by_hand {
                    true => self.kept.stamp(Claim::MAINTENANCE.to_owned(), now),
                    false => self.kept.claim = None,
                }
            }
            FailoverState::Holding
            | FailoverState::Draining
            | FailoverState::Drained
            | FailoverState::Probation => {}
        }
    }

    fn renew_probation(&mut self, now: Now) {
        if self.kept.state == FailoverState::Probation {
            self.kept.entered = Some(now.moment);
        }
    }

    fn wake(&mut self, at: Option<Moment>) {
        self.due = [self.due, at].into_iter().flatten().min();
    }
}

fn verdict(seen: Seen<'_>) -> String {
    format!("the verdict is {}", seen.verdict.name())
}
