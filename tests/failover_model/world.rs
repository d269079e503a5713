//! The nodes, and the ECS that they share.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use sideline::config::{Failover as Settings, FailoverMode};
use sideline::control::ecs::plan::{Next, Plan};
use sideline::domain::ecs::EcsView;
use sideline::domain::failover::{Cause, Failover, Kept, Order, Seen, Step};
use sideline::domain::finding::{Advice, Code, Finding, Severity, Subject};
use sideline::domain::moment::{Moment, Now};
use sideline::domain::report::{Because, Capacity, FailoverState, State};

use crate::ecs::{Asking, By, Instance, Way, place};

/// Milliseconds between two looks of a node.
pub(crate) const TICK: u64 = 500;

/// Clocks that AWS has confirmed differ from its by no more than so many milliseconds.
const CLOCKS_AGREE: i64 = 2_000;

/// After the last fault every node is back within this time: a look at half an hour at most, tries up to a few minutes
/// apart, and a probation.
const BACK_WITHIN: u64 = 45 * 60_000;

/// What a node's hardware looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Looks {
    Healthy,
    Partly,
    Failing,
    /// Dead by proof.
    Dead,
    /// Failing without a finding.
    Waiting,
    Unknown,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Looks(Looks),
    /// Of every node.
    AllLook(Looks),
    Way(Way),
    AllWays(Way),
    /// The agent is killed at this point of its next look, and is back after so many seconds.
    Kill(Point, u64),
    /// The machine goes down, and is back after so many seconds.
    Reboot(u64),
    /// The machine's clock is set by so many seconds.
    Clock(i64),
    OperatorDrains,
    OperatorActivates,
    Maintain(u64),
    Resume,
    Drill(u64),
    Configured,
    DriverChanged,
}

/// Before which step of its next look the agent is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Point {
    Deciding,
    Keeping,
    Wanting,
}

pub(crate) struct Node {
    pub(crate) failover: Failover,
    pub(crate) plan: Plan,
    pub(crate) kept: Kept,
    pub(crate) booted: u64,
    pub(crate) back_at: Option<u64>,
    pub(crate) dies: Option<(Point, u64)>,
    pub(crate) asking: Option<Asking>,
    pub(crate) looks: Looks,
    pub(crate) looks_since: u64,
    pub(crate) way: Way,
    /// Milliseconds that the machine's clock is ahead, and whether AWS has confirmed the time in this boot.
    pub(crate) ahead: i64,
    pub(crate) verified: bool,
    pub(crate) configured: Option<Moment>,
    pub(crate) driver_changed: Option<Moment>,
    pub(crate) drains: u32,
    pub(crate) activated: Option<u64>,
    pub(crate) asked: Vec<u64>,
}

pub(crate) struct World {
    /// Milliseconds since the start.
    pub(crate) now: u64,
    /// Reads are at most so many milliseconds old.
    pub(crate) stale: u64,
    pub(crate) settings: Settings,
    pub(crate) luck: fastrand::Rng,
    pub(crate) nodes: Vec<Node>,
    /// Every container instance over time.
    pub(crate) instances: Vec<Vec<Instance>>,
    story: String,
    broken: BTreeSet<String>,
}

/// What a case was made of.
impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} nodes, {:?}", self.nodes.len(), self.settings)
    }
}

impl World {
    pub(crate) fn new(nodes: usize, share: f64, hold: u64, stale: u64, luck: u64) -> Self {
        let node = |_| Node {
            failover: Failover::default(),
            plan: Plan::new(1.0),
            kept: Kept::default(),
            booted: 0,
            back_at: None,
            dies: None,
            asking: None,
            looks: Looks::Healthy,
            looks_since: 0,
            way: Way::Free,
            ahead: 0,
            verified: false,
            configured: None,
            driver_changed: None,
            drains: 0,
            activated: None,
            asked: Vec::new(),
        };
        let instance = Instance {
            since: 0,
            drained: None,
            claim: None,
            connected: true,
        };
        World {
            now: 0,
            stale,
            settings: Settings {
                mode: FailoverMode::Drain,
                hold: Duration::from_secs(hold),
                probation: Duration::from_secs(30),
                max_unfit_share: share,
                max_drains_a_day: 3,
                changes: Duration::from_secs(120),
            },
            luck: fastrand::Rng::with_seed(luck),
            nodes: (0..nodes).map(node).collect(),
            instances: vec![vec![instance]; nodes],
            story: String::new(),
            broken: BTreeSet::new(),
        }
    }

    pub(crate) fn tell(&mut self, node: usize, what: &str) {
        let seconds = self.now as f64 / 1_000.0;
        writeln!(self.story, "{seconds:8.1} s  node {node}  {what}").expect("a string takes it");
    }

    pub(crate) fn breaks(&mut self, node: usize, what: &str) {
        self.tell(node, &format!("!!! {what}"));
        self.broken.insert(what.to_owned());
    }

    pub(crate) fn moment(&self, node: usize, at: u64) -> Moment {
        Moment::after_boot(Duration::from_millis(
            at.saturating_sub(self.nodes[node].booted),
        ))
    }

    fn now_of(&self, node: usize) -> Now {
        let Node {
            ahead, verified, ..
        } = self.nodes[node];
        let ahead = if verified && ahead.abs() > CLOCKS_AGREE {
            0
        } else {
            ahead
        };
        let wall = 1_800_000_000_000 + self.now as i64 + ahead;
        Now {
            moment: self.moment(node, self.now),
            wall: Timestamp::from_millisecond(wall).expect("in this era"),
            sure: verified,
        }
    }

    pub(crate) fn happens(&mut self, node: usize, event: Event) {
        let what = format!("{event:?}");
        self.tell(node, &what);
        let now = self.now_of(node);
        match event {
            Event::Looks(looks) => self.look_like(node, looks),
            Event::AllLook(looks) => {
                (0..self.nodes.len()).for_each(|node| self.look_like(node, looks));
            }
            Event::Way(way) => self.nodes[node].way = way,
            Event::AllWays(way) => self.nodes.iter_mut().for_each(|node| node.way = way),
            Event::Kill(point, seconds) => {
                self.nodes[node].dies = Some((point, self.now + seconds * 1_000));
            }
            Event::Reboot(seconds) => {
                self.stop(node, self.now + seconds * 1_000);
                let machine = &mut self.nodes[node];
                machine.booted = self.now + seconds * 1_000;
                machine.kept.begin_boot();
                (machine.verified, machine.configured, machine.driver_changed) =
                    (false, None, None);
                self.change(node, |one| one.connected = false);
            }
            Event::Clock(seconds) => self.nodes[node].ahead = seconds * 1_000,
            Event::OperatorDrains => {
                let at = self.now;
                let claimed = self.instance(node).claim.is_some();
                let by = if claimed { By::Both } else { By::Operator(at) };
                self.change(node, |one| {
                    one.drained = match one.drained {
                        None => Some((by, at)),
                        Some((_, since)) => Some((By::Both, since)),
                    };
                });
            }
            Event::OperatorActivates => {
                // Allowed as many more, as it was not the machine that ended the last.
                self.nodes[node].drains = self.nodes[node].drains.saturating_sub(1);
                self.nodes[node].activated = Some(self.now);
                self.change(node, |one| one.drained = None);
            }
            Event::Maintain(seconds) => self.obey(
                node,
                Order::Maintain {
                    length: Duration::from_secs(seconds),
                    reason: "new lens".to_owned(),
                },
                now,
            ),
            Event::Resume => self.obey(node, Order::Resume, now),
            Event::Drill(seconds) => self.obey(
                node,
                Order::Drill {
                    length: Duration::from_secs(seconds),
                    slots: 3,
                },
                now,
            ),
            Event::Configured => self.nodes[node].configured = Some(now.moment),
            Event::DriverChanged => self.nodes[node].driver_changed = Some(now.moment),
        }
    }

    fn look_like(&mut self, node: usize, looks: Looks) {
        (self.nodes[node].looks, self.nodes[node].looks_since) = (looks, self.now);
    }

    /// Nobody takes orders of an agent that is down.
    fn obey(&mut self, node: usize, order: Order, now: Now) {
        if self.nodes[node].back_at.is_none() {
            self.nodes[node].failover.obey(order, now);
        }
    }

    /// The agent is gone, with everything but what was kept. A call that it has sent may yet arrive.
    fn stop(&mut self, node: usize, until: u64) {
        self.nodes[node].back_at = Some(until);
        self.nodes[node].dies = None;
        if let Some(asking) = self.nodes[node].asking.take()
            && self.luck.bool()
            && asking.arrives.is_some()
        {
            self.arrive(node, &asking.call);
        }
    }

    fn tick(&mut self) {
        for node in 0..self.nodes.len() {
            if let Some(at) = self.nodes[node].back_at {
                if self.now < at {
                    continue;
                }
                self.tell(node, "the agent starts");
                let machine = &mut self.nodes[node];
                machine.back_at = None;
                machine.failover = Failover::new(machine.kept.clone());
                machine.plan = Plan::new(1.0);
                self.change(node, |one| one.connected = true);
            }
            self.one_look(node);
        }
    }

    fn dies(&mut self, node: usize, at: Point) -> bool {
        let Some((_, until)) = self.nodes[node].dies.filter(|(point, _)| *point == at) else {
            return false;
        };
        self.stop(node, until);
        true
    }

    fn one_look(&mut self, node: usize) {
        self.go_on(node);
        if self.dies(node, Point::Deciding) {
            return;
        }
        self.decide(node);
        if self.dies(node, Point::Keeping) {
            return;
        }
        self.nodes[node].kept = self.nodes[node].failover.kept().clone();
        if self.dies(node, Point::Wanting) {
            return;
        }
        let moment = self.moment(node, self.now);
        let machine = &mut self.nodes[node];
        let want = machine.failover.want().clone();
        if machine.plan.take(&want, Some(&place(node)), moment) {
            machine.asking = machine.asking.take().filter(|one| !one.call.only_reads());
        }
        if machine.asking.is_none()
            && let Next::Call(call) = machine.plan.next(moment)
        {
            self.ask(node, call, &want);
        }
    }

    fn decide(&mut self, node: usize) {
        let machine = &self.nodes[node];
        let looks = machine.looks;
        let (verdict, available, code) = match looks {
            Looks::Healthy => (State::Healthy, 18, None),
            Looks::Partly => (State::Failing, 9, Some(Code::GpuLost)),
            Looks::Failing => (State::Failing, 0, Some(Code::GpuHung)),
            Looks::Dead => (State::Failing, 0, Some(Code::GpuXid(79))),
            Looks::Waiting => (State::Failing, 0, None),
            Looks::Unknown => (State::Unknown, 0, None),
        };
        let cause = code.map(|code| Finding {
            code,
            subject: Subject::Agent,
            severity: Severity::Failing,
            since: Timestamp::UNIX_EPOCH,
            last_seen: Timestamp::UNIX_EPOCH,
            count: 1,
            evidence: String::new(),
            advice: Advice::Reboot,
        });
        let now = self.now_of(node);
        let settings = self.settings.clone();
        let ecs: EcsView = machine.plan.view().clone();
        let place = place(node);
        let seen = Seen {
            verdict,
            carries: Capacity {
                slots: 18,
                available,
                because: (available < 18).then_some(Because::Verdict),
            },
            cause: cause.as_ref().map(|finding| Cause {
                finding,
                proven: looks == Looks::Dead,
            }),
            place: Some(&place),
            ecs: &ecs,
            configured: machine.configured,
            driver_changed: machine.driver_changed,
            settings: &settings,
        };
        let steps = self.nodes[node].failover.decide(seen, now);
        for step in steps {
            let Step::State {
                was, state, why, ..
            } = step
            else {
                continue;
            };
            self.tell(node, &format!("{} -> {}: {why}", was.name(), state.name()));
            if (was, state) == (FailoverState::Holding, FailoverState::Draining) {
                self.nodes[node].drains += 1;
                if cause.is_none() {
                    self.breaks(node, "drains without a cause");
                }
                if self.nodes[node].drains > settings.max_drains_a_day {
                    self.breaks(node, "drains too often");
                }
            }
        }
    }

    pub(crate) fn live(&mut self, until: u64) {
        while self.now < until && self.broken.is_empty() {
            self.now += TICK;
            self.tick();
        }
    }

    /// Every fault ends, and everybody must come back.
    pub(crate) fn end(&mut self) {
        if !self.broken.is_empty() {
            return;
        }
        self.story += "every fault ends\n";
        for node in 0..self.nodes.len() {
            self.nodes[node].way = Way::Free;
            self.nodes[node].ahead = 0;
            self.look_like(node, Looks::Healthy);
        }
        self.live(self.now + BACK_WITHIN);
        let kept: Vec<Kept> = self.nodes.iter().map(|node| node.kept.clone()).collect();
        self.live(self.now + 5 * 60_000);
        if !self.broken.is_empty() {
            return;
        }
        for (node, kept) in kept.into_iter().enumerate() {
            let (one, state) = (self.instance(node).clone(), self.nodes[node].kept.state());
            let respected = matches!(one.drained, Some((By::Operator(_) | By::Both, _)));
            if one.claim.is_some() {
                self.breaks(node, "its claim stays though it is sound");
            }
            if one.drained.is_some() && !respected {
                self.breaks(node, "it stays drained though it is sound");
            }
            if (state == FailoverState::InService) != one.drained.is_none() {
                self.breaks(node, "it takes itself for what it is not");
            }
            if self.nodes[node].kept != kept {
                self.breaks(node, "it writes to disk though nothing happens");
            }
        }
    }

    /// What broke, and the story of it.
    pub(crate) fn verdict(&self) -> Result<(), String> {
        match self.broken.is_empty() {
            true => Ok(()),
            false => Err(format!("{:?}\n{}", self.broken, self.story)),
        }
    }
}
