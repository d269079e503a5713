//! The ECS of the model: what becomes of a call, and how old its answer is.

use std::time::Duration;

use sideline::control::ecs::plan::{Answer, Call};
use sideline::domain::ecs::{Claim, Cluster, Out, Own, Place, Status, Trouble, TroubleKind, Want};
use sideline::domain::moment::Moment;

use crate::world::{Looks, TICK, World};

/// A call takes at most so many milliseconds to arrive, and its answer as many back.
const SLOWEST: u64 = 900;

/// More calls a minute than that is a loop.
const CALLS_A_MINUTE: usize = 60;

/// What ECS does with a node's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Free,
    /// All that changes something is denied.
    NoWrites,
    Denied,
    /// Half of them do not arrive.
    Lossy,
    /// Half of the answers do not come back.
    Deaf,
    Closed,
}

/// Who has drained a container instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum By {
    Itself,
    /// On a person's order to the node.
    Order,
    /// In ECS, at this time, and nothing of the node's was there.
    Operator(u64),
    /// In ECS, while a claim of the node was on record, so that nobody can tell.
    Both,
}

/// A container instance, as it is since some time.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) since: u64,
    pub(crate) drained: Option<(By, u64)>,
    pub(crate) claim: Option<Claim>,
    pub(crate) connected: bool,
}

/// A call under way.
pub(crate) struct Asking {
    pub(crate) call: Call,
    pub(crate) asked: u64,
    pub(crate) arrives: Option<u64>,
    pub(crate) answers: u64,
    pub(crate) outcome: Option<Result<Answer, TroubleKind>>,
}

pub(crate) fn arn(node: usize) -> String {
    format!("arn:aws:ecs:eu-west-1:1:container-instance/yard/{node}")
}

pub(crate) fn place(node: usize) -> Place {
    Place {
        cluster: "yard".to_owned(),
        container_instance: arn(node),
        tasks: None,
    }
}

impl World {
    pub(crate) fn instance(&self, node: usize) -> &Instance {
        self.instances[node].last().expect("it begins somewhere")
    }

    pub(crate) fn change(&mut self, node: usize, change: impl FnOnce(&mut Instance)) {
        let mut new = self.instance(node).clone();
        change(&mut new);
        new.since = self.now;
        self.instances[node].push(new);
    }

    /// How an instance looks to a read of now: as it was a while ago.
    fn read(&mut self, node: usize) -> Instance {
        let at = self.now.saturating_sub(self.luck.u64(0..=self.stale));
        let seen = self.instances[node].iter().rfind(|one| one.since <= at);
        seen.unwrap_or(&self.instances[node][0]).clone()
    }

    pub(crate) fn ask(&mut self, node: usize, call: Call, want: &Want) {
        let now = self.now;
        self.nodes[node].asked.push(now);
        self.nodes[node].asked.retain(|at| now < at + 60_000);
        if self.nodes[node].asked.len() > CALLS_A_MINUTE {
            self.breaks(node, "calls in a loop");
        }
        let unknown = self.nodes[node].looks == Looks::Unknown
            && self.nodes[node].looks_since + 2 * TICK < now;
        let unordered = want
            .claim()
            .is_some_and(|claim| claim.cause != Claim::MAINTENANCE);
        // So soon after a drain it may be taken for an old answer.
        let undone = self.nodes[node]
            .activated
            .is_some_and(|at| now < at + 60_000);
        if call == Call::Drain
            && unknown
            && unordered
            && !undone
            && self.instance(node).drained.is_none()
        {
            self.breaks(node, "begins a drain though nothing is known");
        }
        let arrives = now + self.luck.u64(0..=SLOWEST);
        let answers = arrives + self.luck.u64(0..=SLOWEST);
        let half = self.luck.bool();
        let (arrives, outcome) = match self.nodes[node].way {
            Way::Free => (Some(arrives), None),
            Way::NoWrites if call.only_reads() => (Some(arrives), None),
            Way::NoWrites | Way::Denied => (None, Some(Err(TroubleKind::Denied))),
            Way::Lossy if half => (None, Some(Err(TroubleKind::Unreachable))),
            Way::Deaf if half => (Some(arrives), Some(Err(TroubleKind::Unreachable))),
            Way::Lossy | Way::Deaf => (Some(arrives), None),
            Way::Closed => (None, Some(Err(TroubleKind::Unreachable))),
        };
        self.nodes[node].asking = Some(Asking {
            call,
            asked: now,
            arrives,
            answers,
            outcome,
        });
    }

    /// The call under way arrives, and its answer.
    pub(crate) fn go_on(&mut self, node: usize) {
        let Some(mut asking) = self.nodes[node].asking.take() else {
            return;
        };
        if asking.arrives.is_some_and(|at| at <= self.now) {
            asking.arrives = None;
            self.arrive(node, &asking.call);
            let answer = self.answer(node, &asking.call, asking.asked);
            asking.outcome.get_or_insert(Ok(answer));
        }
        if self.now < asking.answers || asking.arrives.is_some() {
            self.nodes[node].asking = Some(asking);
            return;
        }
        let (now, asked) = (self.moment(node, self.now), self.moment(node, asking.asked));
        let machine = &mut self.nodes[node];
        match asking.outcome {
            Some(Ok(answer)) => {
                machine.verified = true;
                machine.plan.answered(&asking.call, answer, asked, now);
            }
            Some(Err(kind)) => {
                machine.verified |= kind == TroubleKind::Denied;
                let trouble = Trouble {
                    kind,
                    said: format!("{kind:?}"),
                };
                let until = now + Duration::from_secs(self.luck.u64(1..120));
                machine.plan.failed(asking.call, trouble, until);
            }
            None => unreachable!("a call has an outcome once it has arrived"),
        }
    }

    /// Changes what there is to be changed.
    pub(crate) fn arrive(&mut self, node: usize, call: &Call) {
        let now = self.now;
        if !call.only_reads() {
            self.tell(node, &format!("{call:?} arrives"));
        }
        let (drained, claim) = (
            self.instance(node).drained,
            self.instance(node).claim.clone(),
        );
        match call {
            Call::Look | Call::Count => {}
            Call::Claim(claim) => self.change(node, |one| one.claim = Some(claim.clone())),
            Call::Unclaim => self.change(node, |one| one.claim = None),
            Call::Activate => {
                if matches!(drained, Some((By::Operator(_), _))) {
                    self.breaks(node, "sets ACTIVE what an operator has drained");
                }
                self.change(node, |one| one.drained = None);
            }
            Call::Drain => {
                let by = match claim {
                    None => {
                        self.breaks(node, "drains without a claim");
                        By::Itself
                    }
                    Some(claim) if claim.cause == Claim::MAINTENANCE => By::Order,
                    Some(_) => By::Itself,
                };
                let lately = |at: u64| now < at + self.stale + 4 * SLOWEST + 4 * TICK;
                let drained = match drained {
                    None => Some((by, now)),
                    // It could not know.
                    Some((By::Operator(at), since)) if lately(at) => Some((By::Both, since)),
                    Some(drained) => Some(drained),
                };
                self.change(node, |one| one.drained = drained);
                self.hold_the_share(node);
            }
        }
    }

    fn hold_the_share(&mut self, node: usize) {
        let by_itself = |history: &&Vec<Instance>| {
            let drained = history.last().and_then(|one| one.drained);
            matches!(drained, Some((By::Itself, _)))
        };
        let out = self.instances.iter().filter(by_itself).count();
        let all = self.instances.len();
        if out as f64 / all as f64 > self.settings.max_unfit_share {
            self.breaks(
                node,
                &format!("{out} of {all} nodes have drained themselves"),
            );
        }
    }

    fn answer(&mut self, node: usize, call: &Call, asked: u64) -> Answer {
        let at = self.moment(node, asked);
        match call {
            Call::Look => Answer::Own(self.own(node, at)),
            Call::Count => {
                let mut out = Vec::new();
                for other in (0..self.nodes.len()).filter(|other| *other != node) {
                    let one = self.read(other);
                    let gone = one.drained.is_some() || !one.connected;
                    if gone || one.claim.is_some() {
                        out.push(Out {
                            arn: arn(other),
                            gone,
                            claim: one.claim,
                        });
                    }
                }
                let cluster = Cluster {
                    at,
                    external: self.nodes.len() as u32,
                    out,
                };
                Answer::Counted(cluster, self.own(node, at))
            }
            Call::Claim(_) | Call::Unclaim | Call::Drain | Call::Activate => Answer::Done,
        }
    }

    fn own(&mut self, node: usize, at: Moment) -> Own {
        let one = self.read(node);
        let left = one
            .drained
            .is_some_and(|(_, since)| since + 4_000 <= self.now);
        Own {
            at,
            status: match one.drained {
                Some(_) => Status::Draining,
                None => Status::Active,
            },
            claim: one.claim,
            running: if left { 0 } else { 2 },
            pending: 0,
        }
    }
}
