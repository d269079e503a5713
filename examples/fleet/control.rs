//! What the agent's control task does for one node: its own plan of calls, made against the simulated ECS.

use std::time::Duration;

use sideline::clients::backoff::Backoff;
use sideline::control::ecs::PATIENCE;
use sideline::control::ecs::plan::{Answer, Call, Next, Plan as Calling};
use sideline::domain::ecs::{EcsView, Place, Trouble, TroubleKind, Want};

use crate::calls::{Calls, Family};
use crate::ecs::{By, Ecs};
use crate::node::{moment, time_of};
use crate::plan::{Plan, name};

/// Longest pause after failures, as in the agent.
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// How far the time between two looks differs among nodes, as in the agent.
const SPREAD: f64 = 1.0 / 6.0;

/// From a question to its answer. An assumption.
const ROUND_TRIP: Duration = Duration::from_millis(200);

/// ECS lists and describes so many container instances in a call.
const PAGE: u32 = 100;

/// One node's control task.
pub(crate) struct Control {
    node: u32,
    place: Place,
    calling: Calling,
    backoff: Backoff,
    /// Until the answer to the latest call is there.
    busy: Duration,
}

/// What the task acts on.
pub(crate) struct World<'a> {
    /// The fleet.
    pub(crate) plan: Plan,
    /// ECS.
    pub(crate) ecs: &'a mut Ecs,
    /// What is called.
    pub(crate) calls: &'a mut Calls,
    /// Whether the node has a way to AWS.
    pub(crate) online: bool,
    /// Whether no card of the node can do anything before a person has mended it.
    pub(crate) needs_help: bool,
}

impl Control {
    /// A task that has asked nothing yet.
    pub(crate) fn new(node: u32, stretch: f64) -> Self {
        Control {
            node,
            place: Place {
                cluster: String::new(),
                container_instance: name(node),
                tasks: None,
            },
            calling: Calling::new(1.0 + SPREAD * (2.0 * stretch - 1.0)),
            backoff: Backoff::up_to(LONGEST_PAUSE),
            busy: Duration::ZERO,
        }
    }

    /// What it has seen.
    pub(crate) fn view(&self) -> &EcsView {
        self.calling.view()
    }

    /// Makes the call that is due, if one is. Returns when to come back.
    pub(crate) fn act(
        &mut self,
        want: &Want,
        world: &mut World<'_>,
        at: Duration,
    ) -> Option<Duration> {
        if at < self.busy {
            return Some(self.busy);
        }
        // The ECS agent's own word, for nothing, every ten seconds.
        let is_empty = world.ecs.emptied(self.node, at).is_some();
        self.place.tasks = Some(if is_empty { 0 } else { world.plan.slots });
        self.calling.take(want, Some(&self.place), moment(at));
        let call = match self.calling.next(moment(at)) {
            Next::Rest => return None,
            Next::Wait(until) => return Some(time_of(until)),
            Next::Call(call) => call,
        };
        let answered = at + ROUND_TRIP;
        match self.make(&call, world, at) {
            Ok(answer) => {
                self.calling
                    .answered(&call, answer, moment(at), moment(answered));
                if self.calling.view().trouble.is_none() {
                    self.backoff.reset();
                }
            }
            Err(trouble) => {
                let routine = self.calling.is_routine(&call);
                let patience = if routine { PATIENCE } else { 1 };
                let until = moment(answered) + self.backoff.pause() * patience;
                self.calling.failed(call, trouble, until);
            }
        }
        self.busy = answered;
        Some(answered)
    }

    fn make(&self, call: &Call, world: &mut World<'_>, at: Duration) -> Result<Answer, Trouble> {
        let (node, plan) = (self.node, world.plan);
        let mut ask = |family, count| {
            if !world.online {
                return Err(trouble(TroubleKind::Unreachable));
            }
            let taken = world.calls.many(family, count, at);
            taken
                .then_some(())
                .ok_or_else(|| trouble(TroubleKind::Throttled))
        };
        match call {
            Call::Look => {
                ask(Family::EcsRead, 1)?;
                Ok(Answer::Own(world.ecs.own(node, plan.slots, at)))
            }
            Call::Count => {
                let cluster = plan.cluster_of(node);
                // Each page is listed, and each is described.
                for _ in 0..2 * (cluster.len() as u32).div_ceil(PAGE) {
                    ask(Family::EcsRead, 1)?;
                }
                let counted = world.ecs.count(node, cluster, at);
                Ok(Answer::Counted(
                    counted,
                    world.ecs.own(node, plan.slots, at),
                ))
            }
            Call::Claim(claim) => {
                ask(Family::EcsModify, 1)?;
                world.ecs.claim(node, Some(claim.clone()), at);
                Ok(Answer::Done)
            }
            Call::Unclaim => {
                ask(Family::EcsModify, 1)?;
                world.ecs.claim(node, None, at);
                Ok(Answer::Done)
            }
            Call::Drain => {
                ask(Family::EcsModify, 1)?;
                let by = match world.ecs.drained(node) {
                    Some(by) => by,
                    None if world.needs_help => By::Sideline,
                    None => By::Mistake,
                };
                world.ecs.drain(node, Some(by), at);
                Ok(Answer::Done)
            }
            Call::Activate => {
                ask(Family::EcsModify, 1)?;
                world.ecs.drain(node, None, at);
                Ok(Answer::Done)
            }
        }
    }
}

/// Whether two views differ in what they say, not only in when it was asked.
pub(crate) fn is_news(was: &EcsView, is: &EcsView) -> bool {
    let own = |view: &EcsView| {
        let own = view.own.as_ref()?;
        let tasks = own.running + own.pending;
        Some((own.status, own.claim.clone(), tasks))
    };
    was.trouble != is.trouble
        || was.claimed != is.claimed
        || was.cluster != is.cluster
        || own(was) != own(is)
}

fn trouble(kind: TroubleKind) -> Trouble {
    Trouble {
        kind,
        said: format!("{kind:?}"),
    }
}
