//! What to ask of ECS next, by what the node wants and what was seen last; pure.

use std::mem::discriminant;
use std::time::Duration;

use crate::domain::ecs::{
    Claim, Cluster, EcsView, Own, Place, SETTLED, SHOWN, Status, Trouble, TroubleKind, Want,
};
use crate::domain::moment::Moment;

/// In service: between two looks whether an operator has drained the node.
const WHILE_IN_SERVICE: Duration = Duration::from_secs(1_800);

/// While tasks leave.
const WHILE_DRAINING: Duration = Duration::from_secs(5);

/// When there is nothing left to leave, or nothing to be done about it.
const WHILE_DRAINED: Duration = Duration::from_secs(120);

/// Between two counts of the cluster while a claim is held back, at first.
const WHILE_HELD_BACK: Duration = Duration::from_secs(30);

/// The ECS agent starts after Docker; where it has not been heard of for this long there is none.
const AGENT_STARTS: Duration = Duration::from_secs(60);

/// One thing to ask of ECS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// How the node's own container instance stands.
    Look,
    /// How many of the cluster are out of service.
    Count,
    /// To put a claim on record.
    Claim(Claim),
    /// To take it off again.
    Unclaim,
    /// To drain the container instance.
    Drain,
    /// To place tasks on it again.
    Activate,
}

impl Call {
    /// Whether it changes nothing, so that it can be broken off.
    pub fn only_reads(&self) -> bool {
        match self {
            Call::Look | Call::Count => true,
            Call::Claim(_) | Call::Unclaim | Call::Drain | Call::Activate => false,
        }
    }

    fn is_like(&self, other: &Call) -> bool {
        discriminant(self) == discriminant(other)
    }
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// This call, at once.
    Call(Call),
    /// Nothing before this moment.
    Wait(Moment),
    /// Nothing, until something else is wanted.
    Rest,
}

/// What a call has brought.
#[derive(Debug, Clone)]
pub enum Answer {
    /// How the own container instance stands.
    Own(Own),
    /// A count, and the own container instance as it was in it.
    Counted(Cluster, Own),
    /// What was asked for is done.
    Done,
}

/// Everything that it is decided by.
#[derive(Debug)]
pub struct Plan {
    want: Want,
    place: Option<Place>,
    /// What was seen.
    view: EcsView,
    /// The own container instance may be otherwise than it was seen.
    unsure: bool,
    /// The status that was set last, and when.
    set: Option<(Status, Moment)>,
    /// It was DRAINING, as it should be, and somebody has set it ACTIVE.
    undone: bool,
    /// The call that has failed, and when it may be tried again.
    failed: Option<(Call, Moment)>,
    /// Since when something is wanted and there is no place.
    lost: Option<Moment>,
    /// Between two looks in service.
    in_service: Duration,
}

impl Plan {
    /// Nothing is wanted yet. `stretch`, around 1, is this node's own, so that not all look in the same minute.
    pub fn new(stretch: f64) -> Self {
        Plan {
            want: Want::Nothing,
            place: None,
            view: EcsView::default(),
            unsure: false,
            set: None,
            undone: false,
            failed: None,
            lost: None,
            in_service: WHILE_IN_SERVICE.mul_f64(stretch),
        }
    }

    /// What was seen.
    pub fn view(&self) -> &EcsView {
        &self.view
    }

    /// Where the container instance is, as far as it is known.
    pub fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Whether something is wanted at all.
    pub fn is_wanted(&self) -> bool {
        self.want != Want::Nothing
    }

    /// Whether a call only looks how a node stands that wants nothing changed.
    pub fn is_routine(&self, call: &Call) -> bool {
        *call == Call::Look && matches!(self.want, Want::Look | Want::Stay | Want::LetBe)
    }

    /// Takes in what is wanted, and where. True where what is being read is of no more use.
    pub fn take(&mut self, want: &Want, place: Option<&Place>, now: Moment) -> bool {
        let is_other = discriminant(want) != discriminant(&self.want);
        let is_elsewhere = match (&self.place, place) {
            (Some(old), Some(new)) => {
                (&old.cluster, &old.container_instance) != (&new.cluster, &new.container_instance)
            }
            (old, new) => old.is_some() != new.is_some(),
        };
        if is_elsewhere || *want == Want::Nothing {
            self.view = EcsView::default();
            self.unsure = false;
            self.set = None;
        }
        if is_other || is_elsewhere {
            self.failed = None;
        }
        let tasks = |place: &Place| place.tasks;
        if let (Some(before), Some(after)) =
            (self.place.as_ref().and_then(tasks), place.and_then(tasks))
        {
            self.unsure |= after < before;
        }
        // Who drains without having counted has not looked for long: meanwhile somebody else may have drained it.
        self.unsure |= is_other && matches!(want, Want::Drain(_)) && self.want.claim().is_none();
        self.undone &= self.want == *want;
        self.want = want.clone();
        self.place = place.cloned();
        let is_lost = self.is_wanted() && place.is_none();
        self.lost = is_lost.then(|| self.lost.unwrap_or(now));
        if self.lost.is_some_and(|since| since + AGENT_STARTS <= now) {
            self.view.trouble = Some(Trouble {
                kind: TroubleKind::NoAgent,
                said: "no ECS agent on this machine says which container instance it is".to_owned(),
            });
        }
        is_other || is_elsewhere
    }

    /// What to do next.
    pub fn next(&self, now: Moment) -> Next {
        match (self.lost, &self.failed) {
            (Some(_), _) if self.view.trouble.is_some() => Next::Rest,
            (Some(since), _) => Next::Wait(since + AGENT_STARTS),
            (None, Some((_, until))) if now < *until => Next::Wait(*until),
            (None, _) => self.decide(now),
        }
    }

    fn decide(&self, now: Moment) -> Next {
        let view = &self.view;
        let look_at = |at: Moment| {
            if at <= now {
                Next::Call(Call::Look)
            } else {
                Next::Wait(at)
            }
        };
        let own = view.own.as_ref().filter(|_| !self.unsure);
        match &self.want {
            Want::Nothing => Next::Rest,
            Want::Look => own.map_or(Next::Call(Call::Look), |own| {
                look_at(own.at + self.in_service)
            }),
            Want::LetBe => match own {
                None => Next::Call(Call::Look),
                Some(own) if own.claim.is_none() && view.claimed.is_none() => {
                    look_at(own.at + WHILE_DRAINED)
                }
                Some(_) => Next::Call(Call::Unclaim),
            },
            Want::Stay => match own {
                None => Next::Call(Call::Look),
                // Without a claim it is an operator's, who will know when it is over.
                Some(own) if own.claim.is_none() && view.claimed.is_none() => {
                    look_at(own.at + self.in_service)
                }
                // An ACTIVE that was only seen may be from before it was drained.
                Some(own)
                    if own.status == Status::Draining
                        || self.set.is_none_or(|(set, _)| set != Status::Active) =>
                {
                    Next::Call(Call::Activate)
                }
                Some(_) => Next::Call(Call::Unclaim),
            },
            Want::Claim(claim) | Want::Count(claim) => match (&view.claimed, &self.want) {
                (Some((ours, since)), Want::Count(_)) if ours == claim => {
                    self.count_at(*since, now)
                }
                // Who wants no count needs to see whether somebody else has drained it.
                (Some((ours, since)), _) if ours == claim => match own {
                    Some(own) if *since <= own.at => Next::Rest,
                    Some(_) | None => Next::Call(Call::Look),
                },
                _ => Next::Call(Call::Claim(claim.clone())),
            },
            Want::Drain(claim) => {
                let acknowledged = view.claimed.as_ref().map(|(claim, _)| claim);
                match own {
                    None => Next::Call(Call::Look),
                    // Somebody else has drained it, and that is as good as it needs to be.
                    Some(own)
                        if own.status == Status::Draining
                            && own.claim.is_none()
                            && acknowledged.is_none() =>
                    {
                        look_at(own.at + WHILE_DRAINED)
                    }
                    Some(own)
                        if own.claim.as_ref() != Some(claim) && acknowledged != Some(claim) =>
                    {
                        Next::Call(Call::Claim(claim.clone()))
                    }
                    Some(own) => match own.status {
                        // Whether that counts more is not decided here.
                        Status::Active if self.undone => look_at(own.at + WHILE_DRAINED),
                        Status::Active => Next::Call(Call::Drain),
                        Status::Draining if 0 < own.running + own.pending => {
                            look_at(own.at + WHILE_DRAINING)
                        }
                        Status::Draining | Status::Other => look_at(own.at + WHILE_DRAINED),
                    },
                }
            }
        }
    }

    /// At once, again when everybody must have seen the claim, and then now and then.
    fn count_at(&self, claimed: Moment, now: Moment) -> Next {
        let counted = self.view.cluster.as_ref().map(|cluster| cluster.at);
        let settled = claimed + SETTLED;
        let at = match counted.filter(|at| claimed <= *at) {
            None => now,
            Some(at) if at < settled => settled,
            // Who is held back for long asks ever more seldom.
            Some(at) => at + (at - settled).clamp(WHILE_HELD_BACK, WHILE_IN_SERVICE),
        };
        if at <= now {
            Next::Call(Call::Count)
        } else {
            Next::Wait(at)
        }
    }

    /// Takes in what a call has brought that was made at `asked`.
    pub fn answered(&mut self, call: &Call, answer: Answer, asked: Moment, now: Moment) {
        match answer {
            Answer::Own(own) => self.see(own, asked),
            Answer::Counted(cluster, own) => {
                self.view.cluster = Some(cluster);
                self.see(own, asked);
            }
            Answer::Done => self.done(call, now),
        }
        let again =
            |failed: &Call| matches!(self.decide(now), Next::Call(call) if call.is_like(failed));
        let fails_still = self
            .failed
            .as_ref()
            .is_some_and(|(failed, _)| again(failed));
        if call.only_reads() && fails_still {
            return;
        }
        self.failed = None;
        self.view.trouble = None;
    }

    fn see(&mut self, mut own: Own, asked: Moment) {
        // What was just set may not be seen yet; what is otherwise later, somebody has changed.
        let is_fresh = |since: Moment| asked < since + SHOWN;
        if let Some((status, since)) = self.set
            && is_fresh(since)
        {
            own.status = status;
        }
        match &self.view.claimed {
            Some((claim, since)) if own.claim.is_none() && is_fresh(*since) => {
                own.claim = Some(claim.clone());
            }
            Some(_) if own.claim.is_none() => self.view.claimed = None,
            Some(_) | None => {}
        }
        let was = self.view.own.as_ref().map(|own| own.status);
        self.undone |= matches!(self.want, Want::Drain(_))
            && (was, own.status) == (Some(Status::Draining), Status::Active);
        self.view.own = Some(own);
        self.unsure = false;
    }

    fn done(&mut self, call: &Call, now: Moment) {
        match call {
            Call::Look | Call::Count => {}
            Call::Claim(claim) => {
                self.view.claimed = Some((claim.clone(), now));
                self.know(|own| own.claim = Some(claim.clone()));
            }
            Call::Unclaim => {
                self.view.claimed = None;
                self.know(|own| own.claim = None);
            }
            Call::Drain => {
                self.set = Some((Status::Draining, now));
                self.know(|own| own.status = Status::Draining);
                // Its tasks were counted before: only a look tells how many are to leave.
                self.unsure = true;
            }
            Call::Activate => {
                self.set = Some((Status::Active, now));
                self.know(|own| own.status = Status::Active);
            }
        }
    }

    fn know(&mut self, change: impl FnOnce(&mut Own)) {
        if let Some(own) = &mut self.view.own {
            change(own);
        }
    }

    /// Takes in that a call has failed, and when it may be tried again.
    pub fn failed(&mut self, call: Call, trouble: Trouble, until: Moment) {
        // It may have arrived all the same; and until the next try somebody else may have changed something.
        self.unsure |= !call.only_reads();
        self.view.trouble = Some(trouble);
        self.failed = Some((call, until));
    }
}

#[cfg(test)]
mod tests;
