//! One run: the same events for every policy, in the order of their times, and nothing done while nothing changes.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use fastrand::Rng;
use sideline::config::Failover;
use sideline::domain::ecs::Want;
use sideline::domain::phase;

use crate::calls::{Calls, Family};
use crate::cloud::{self, Stack};
use crate::control::{Control, World, is_news};
use crate::ecs::{By, Ecs, TASKS_LEAVE, TASKS_RETURN};
use crate::losses::{Cause, Losses, Site, Slots};
use crate::node::{BOOT, Node, config};
use crate::plan::{Event, Plan, Tuning, What, name};

/// The period in which nodes send.
const PERIOD: Duration = Duration::from_secs(60);

/// Multiples of it, without their whole part, spread evenly.
const GOLDEN: f64 = 0.618_033_988_749_895;

/// Who asks for a look that should have been looks after so long.
const OVERDUE: Duration = Duration::from_secs(1);

/// The ECS agent on the node is asked what it runs so often.
const INTROSPECTION: Duration = Duration::from_secs(10);

/// A node that could not reach CloudWatch knocks again after at most so long, as in the agent.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// What came of a run.
pub(crate) struct Outcome {
    /// What was lost, and why.
    pub(crate) losses: Losses,
    /// Drains of nodes without a card that works.
    pub(crate) right: u32,
    /// Drains of nodes that carried something, or would again in a moment, by what they were drained for.
    pub(crate) wrong: BTreeMap<String, u32>,
    /// The largest share of a cluster that its nodes had drained at once.
    pub(crate) worst_share: f64,
    /// Looks at which a drained node said that it carries something.
    pub(crate) counted_twice: u32,
    /// Looks that asked for another one in the past.
    pub(crate) overdue: u32,
    /// Nodes that were not in service at the end.
    pub(crate) left_out: u32,
    /// Hours of cloud instances.
    pub(crate) instance_h: f64,
    /// How often a site's alarm went off.
    pub(crate) alarms: u32,
    /// Calls to AWS.
    pub(crate) calls: Calls,
    /// Looks of all judges.
    pub(crate) looks: u64,
}

/// Lets everything happen. Where `failover` is none nobody acts: no sideline, no cloud.
pub(crate) fn run(
    plan: Plan,
    stack: Stack,
    events: &[Event],
    failover: Option<Failover>,
) -> Outcome {
    // Also of what has dice of its own, such as the pauses after failures.
    fastrand::seed(plan.seed);
    let mut run = Run::new(plan, stack, failover);
    let mut events = events.iter().peekable();
    let end = plan.lasts + plan.settles;
    if run.acts {
        for node in 0..plan.nodes {
            run.starts(node);
        }
    }
    loop {
        let happens = events.peek().map(|event| event.at);
        let due = run.queue.peek().map(|Reverse((at, ..))| *at);
        let Some(at) = happens.into_iter().chain(due).min().filter(|at| *at < end) else {
            break;
        };
        if happens == Some(at)
            && let Some(event) = events.next()
        {
            run.happens(*event);
        } else if let Some(Reverse((at, _, next))) = run.queue.pop() {
            run.next(next, at);
        }
    }
    run.outcome(end)
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Next {
    /// A judge looks.
    Look(u32),
    /// A control task acts.
    Act(u32),
    /// A machine has started.
    Boot(u32),
    /// A node reaches CloudWatch again.
    Reconnect(u32),
    /// A node's tasks have left, or are back.
    Recount(u32),
    /// A site's alarm is evaluated, for a minute.
    Evaluate(u32, u64),
    /// A site's tasks in the cloud may carry.
    Ready(u32),
    /// A site's instances may go.
    Shrink(u32),
}

/// A node with all that surrounds it.
struct Server {
    node: Node,
    control: Control,
    tuning: Tuning,
    /// When in the minute it sends.
    phase: Duration,
    power_cuts: u32,
    uplink_cuts: u32,
    offline_since: Duration,
    running: bool,
    /// CloudWatch hears of it.
    heard: bool,
    tasks_from: Duration,
    boots: Option<Duration>,
    looks: Option<Duration>,
    acts: Option<Duration>,
    missing: Slots,
    /// What a datum sent from then on says; the latest last.
    said: VecDeque<(Duration, Option<u32>)>,
}

struct Run {
    plan: Plan,
    stack: Stack,
    acts: bool,
    failover: Failover,
    rng: Rng,
    servers: Vec<Server>,
    ecs: Ecs,
    calls: Calls,
    sites: Vec<(Site, cloud::Site)>,
    /// Sites whose alarm is worth evaluating.
    watched: Vec<bool>,
    losses: Losses,
    queue: BinaryHeap<Reverse<(Duration, u64, Next)>>,
    queued: u64,
    right: u32,
    wrong: BTreeMap<String, u32>,
    worst_share: f64,
    counted_twice: u32,
    overdue: u32,
    looks: u64,
}

impl Run {
    fn new(plan: Plan, stack: Stack, failover: Option<Failover>) -> Self {
        let acts = failover.is_some();
        let failover = failover.unwrap_or_default();
        let mut rng = Rng::with_seed(plan.seed ^ 1);
        let server = |number: u32| Server {
            node: Node::new(number, plan, config(plan, &failover, Tuning::Usual)),
            control: Control::new(number, rng.f64()),
            tuning: Tuning::Usual,
            phase: phase::of(&name(number), PERIOD),
            power_cuts: 0,
            uplink_cuts: 0,
            offline_since: Duration::ZERO,
            running: true,
            heard: false,
            tasks_from: Duration::ZERO,
            boots: None,
            looks: None,
            acts: None,
            missing: Slots::default(),
            said: VecDeque::new(),
        };
        Run {
            servers: (0..plan.nodes).map(server).collect(),
            plan,
            stack,
            acts,
            failover,
            rng,
            ecs: Ecs::new(plan.nodes),
            calls: Calls::new(plan.lasts),
            sites: vec![<(Site, cloud::Site)>::default(); plan.sites() as usize],
            watched: vec![false; plan.sites() as usize],
            losses: Losses::new(plan.lasts),
            queue: BinaryHeap::new(),
            queued: 0,
            right: 0,
            wrong: BTreeMap::new(),
            worst_share: 0.0,
            counted_twice: 0,
            overdue: 0,
            looks: 0,
        }
    }

    /// The node has run for long: its agent has looked, and last looked at ECS some time in the half hour before.
    fn starts(&mut self, number: u32) {
        let server = self.server(number);
        let view = server.control.view().clone();
        server.node.look(&view, Duration::ZERO);
        let looked = Duration::from_secs(1_800).mul_f64(self.rng.f64());
        self.hears(number, true, Duration::ZERO);
        self.acts_at(number, looked);
    }

    fn server(&mut self, number: u32) -> &mut Server {
        &mut self.servers[number as usize]
    }

    fn push(&mut self, at: Duration, next: Next) {
        self.queued += 1;
        self.queue.push(Reverse((at, self.queued, next)));
    }

    fn looks_at(&mut self, number: u32, at: Duration) {
        self.server(number).looks = Some(at);
        self.push(at, Next::Look(number));
    }

    /// The control task acts at the latest then.
    fn acts_at(&mut self, number: u32, at: Duration) {
        let server = self.server(number);
        if server.acts.is_none_or(|acts| at < acts) {
            server.acts = Some(at);
            self.push(at, Next::Act(number));
        }
    }

    fn happens(&mut self, event: Event) {
        let Event { at, node, what } = event;
        match what {
            What::Begins(fault) => self.server(node).node.begins(fault, at),
            What::Ends(fault) => self.server(node).node.ends(fault),
            What::Power(on) => self.power(node, on, at),
            What::Uplink(up) => self.uplink(node, up, at),
            What::Driver(driver) => self.server(node).node.load(driver, at),
            What::Tuned(tuning) => {
                let config = config(self.plan, &self.failover, tuning);
                let server = self.server(node);
                server.tuning = tuning;
                server.node.tuned(config, at);
            }
            What::Operator(drains) => self.operator(node, drains, at),
        }
        self.recount(node, at);
        if self.acts && self.server(node).running {
            self.looks_at(node, at);
        }
    }

    fn next(&mut self, next: Next, at: Duration) {
        match next {
            Next::Look(node) if self.server(node).looks == Some(at) => self.look(node, at),
            Next::Act(node) if self.server(node).acts == Some(at) => self.act(node, at),
            Next::Boot(node) if self.server(node).boots == Some(at) => self.boot(node, at),
            Next::Look(_) | Next::Act(_) | Next::Boot(_) => {}
            Next::Reconnect(node) => {
                let server = self.server(node);
                if server.running && server.uplink_cuts == 0 && !server.heard {
                    // The backlog, in one large request.
                    self.calls.call(Family::Metrics, at);
                    self.hears(node, true, at);
                }
            }
            Next::Recount(node) => self.recount(node, at),
            Next::Evaluate(site, minute) => self.evaluate(site, minute, at),
            Next::Ready(site) => self.carries(site, at),
            Next::Shrink(site) => self.sites[site as usize].1.shrink(at),
        }
    }

    fn power(&mut self, number: u32, on: bool, at: Duration) {
        let server = self.server(number);
        if on {
            server.power_cuts -= 1;
            if server.power_cuts == 0 {
                server.boots = Some(at + BOOT);
                self.push(at + BOOT, Next::Boot(number));
            }
            return;
        }
        server.power_cuts += 1;
        if server.power_cuts > 1 {
            return;
        }
        server.running = false;
        (server.boots, server.looks, server.acts) = (None, None, None);
        server.node.cut();
        self.ecs.connect(number, false);
        self.hears(number, false, at);
    }

    fn boot(&mut self, number: u32, at: Duration) {
        let tuning = self.server(number).tuning;
        let config = config(self.plan, &self.failover, tuning);
        let stretch = self.rng.f64();
        let server = self.server(number);
        server.boots = None;
        server.running = true;
        server.tasks_from = at + TASKS_RETURN;
        server.node.boots(config, at);
        server.control = Control::new(number, stretch);
        let online = server.uplink_cuts == 0;
        self.ecs.connect(number, online);
        self.push(at + TASKS_RETURN, Next::Recount(number));
        if self.acts {
            self.hears(number, online, at);
            self.looks_at(number, at);
        }
    }

    fn uplink(&mut self, number: u32, up: bool, at: Duration) {
        let acts = self.acts;
        let server = self.server(number);
        if up {
            server.uplink_cuts -= 1;
            if server.uplink_cuts == 0 && server.running && acts {
                let pause = LONGEST_PAUSE.min(at - server.offline_since);
                let knocks = at + pause.mul_f64(self.rng.f64());
                self.ecs.connect(number, true);
                self.push(knocks, Next::Reconnect(number));
            }
            return;
        }
        server.uplink_cuts += 1;
        if server.uplink_cuts == 1 {
            server.offline_since = at;
            self.ecs.connect(number, false);
            self.hears(number, false, at);
        }
    }

    fn operator(&mut self, number: u32, drains: bool, at: Duration) {
        match self.ecs.drained(number) {
            None if drains => self.ecs.drain(number, Some(By::Operator), at),
            Some(By::Operator) if !drains => self.ecs.drain(number, None, at),
            None | Some(_) => return,
        }
        self.emptied_or_filled(number, at);
    }

    /// A node was drained, or is not any more: its tasks follow, and the ECS agent tells of them.
    fn emptied_or_filled(&mut self, number: u32, at: Duration) {
        for later in [TASKS_LEAVE, TASKS_RETURN] {
            self.push(at + later, Next::Recount(number));
        }
        if self.acts {
            let told = INTROSPECTION.mul_f64(self.rng.f64());
            self.acts_at(number, at + TASKS_LEAVE + told);
        }
    }

    /// One look of a node's judge.
    fn look(&mut self, number: u32, at: Duration) {
        self.looks += 1;
        let server = &mut self.servers[number as usize];
        server.looks = None;
        let was = server.node.said().clone();
        let view = server.control.view().clone();
        let is = server.node.look(&view, at).clone();
        let drains = matches!(is.want, Want::Drain(_));
        if drains && 0 < is.available {
            self.counted_twice += 1;
        }
        if was.state != is.state && server.heard {
            // A change of health is sent at once.
            self.calls.call(Family::Metrics, at);
        }
        if was.available != is.available && server.heard {
            self.says(number, Some(is.available), at);
        }
        if let Some(due) = is.due {
            // Who is due in the past would look for ever.
            self.overdue += u32::from(due <= at);
            let next = if due <= at { at + OVERDUE } else { due };
            self.looks_at(number, next);
        }
        if was.want != is.want {
            self.acts_at(number, at);
        }
    }

    /// One step of a node's control task.
    fn act(&mut self, number: u32, at: Duration) {
        let server = &mut self.servers[number as usize];
        server.acts = None;
        if !server.running {
            return;
        }
        let mut world = World {
            plan: self.plan,
            ecs: &mut self.ecs,
            calls: &mut self.calls,
            online: server.uplink_cuts == 0,
            needs_help: server.node.health().broken == self.plan.slots,
        };
        let was = (server.control.view().clone(), world.ecs.drained(number));
        let again = server.control.act(&server.node.said().want, &mut world, at);
        let is_other = is_news(&was.0, server.control.view());
        if let Some(again) = again {
            self.acts_at(number, again.max(at + Duration::from_millis(1)));
        }
        let drained = self.ecs.drained(number);
        if was.1 != drained {
            if let Some(by) = drained {
                self.count_drain(number, by);
            }
            self.emptied_or_filled(number, at);
        }
        if is_other {
            self.looks_at(number, at);
        }
    }

    fn count_drain(&mut self, number: u32, by: By) {
        match by {
            By::Operator => return,
            By::Sideline => self.right += 1,
            By::Mistake => {
                let cause = self.ecs.claim_of(number).map(|claim| claim.cause.clone());
                *self.wrong.entry(cause.unwrap_or_default()).or_default() += 1;
            }
        }
        let cluster = self.plan.cluster_of(number);
        let size = cluster.len() as f64;
        let by_sideline =
            |node: &u32| matches!(self.ecs.drained(*node), Some(By::Sideline | By::Mistake));
        let share = cluster.filter(by_sideline).count() as f64 / size;
        self.worst_share = self.worst_share.max(share);
    }

    /// CloudWatch begins or ends to hear of a node.
    fn hears(&mut self, number: u32, heard: bool, at: Duration) {
        if !self.acts {
            return;
        }
        let server = self.server(number);
        if server.heard != heard {
            server.heard = heard;
            let (phase, says) = (server.phase, server.node.said().available);
            self.calls.rhythm(phase, heard, at);
            self.says(number, heard.then_some(says), at);
        }
    }

    fn says(&mut self, number: u32, slots: Option<u32>, at: Duration) {
        let server = self.server(number);
        server.said.push_back((at, slots));
        while server
            .said
            .get(1)
            .is_some_and(|(later, _)| *later + 4 * PERIOD < at)
        {
            server.said.pop_front();
        }
        let site = number / self.plan.site;
        if !at.is_zero() && !std::mem::replace(&mut self.watched[site as usize], true) {
            self.evaluates(site, at.as_secs() / PERIOD.as_secs());
        }
    }

    /// CloudWatch evaluates each alarm at its own second of the minute. That is an assumption.
    fn evaluates(&mut self, site: u32, minute: u64) {
        let ends = Duration::from_secs((minute + 1) * PERIOD.as_secs());
        let offset = PERIOD.mul_f64(f64::from(site) * GOLDEN % 1.0);
        self.push(
            ends + cloud::EVALUATED_AFTER + offset,
            Next::Evaluate(site, minute),
        );
    }

    fn evaluate(&mut self, site: u32, minute: u64, at: Duration) {
        let begins = Duration::from_secs(minute * PERIOD.as_secs());
        let full = self.plan.slots;
        let (mut sum, mut all_well) = (0, true);
        for number in self.plan.nodes_of(site) {
            let server = &self.servers[number as usize];
            let sent = begins + server.phase;
            let datum = server.said.iter().rev().find(|(from, _)| *from <= sent);
            sum += datum.and_then(|(_, slots)| *slots).unwrap_or(0);
            all_well &= server
                .said
                .back()
                .is_some_and(|(_, slots)| *slots == Some(full));
        }
        let stack = self.stack_of(site);
        let cloud = &mut self.sites[site as usize].1;
        let scaled = cloud.minute(stack, sum, at);
        let rests = all_well && cloud.rests();
        if let Some(scaled) = scaled {
            self.calls.call(Family::Service, at);
            for ready in scaled.ready {
                self.push(ready, Next::Ready(site));
            }
            self.push(at + cloud::INSTANCE_LEAVES, Next::Shrink(site));
            self.carries(site, at);
        }
        self.watched[site as usize] = !rests;
        if !rests {
            self.evaluates(site, minute + 1);
        }
    }

    fn stack_of(&self, site: u32) -> Stack {
        let nodes = self.plan.nodes_of(site).len() as u32;
        Stack {
            required: nodes * self.plan.slots,
            ..self.stack
        }
    }

    fn carries(&mut self, site: u32, at: Duration) {
        let stack = self.stack_of(site);
        let (losses, cloud) = &mut self.sites[site as usize];
        self.losses.cloud(losses, cloud.carries(stack, at), at);
    }

    /// What a node does not carry now, and why.
    fn recount(&mut self, number: u32, at: Duration) {
        let server = &mut self.servers[number as usize];
        let mut missing = Slots::default();
        let slots = self.plan.slots;
        if !server.running || at < server.tasks_from {
            missing[Cause::Power as usize] = slots;
        } else {
            let health = server.node.health();
            missing[Cause::Hardware as usize] = health.broken;
            missing[Cause::Hang as usize] = health.hanging;
            let cause = match self.ecs.emptied(number, at) {
                None => None,
                Some(By::Operator) => Some(Cause::Operator),
                Some(By::Sideline) => Some(Cause::Drain),
                Some(By::Mistake) => Some(Cause::WrongDrain),
            };
            if let Some(cause) = cause {
                missing[cause as usize] = slots - health.broken - health.hanging;
            }
        }
        let was = std::mem::replace(&mut server.missing, missing);
        if was != missing {
            let site = &mut self.sites[(number / self.plan.site) as usize].0;
            self.losses.node(site, was, missing, at);
        }
    }

    fn outcome(mut self, end: Duration) -> Outcome {
        self.calls.write(end);
        let (mut instance_h, mut alarms, mut left_out) = (0.0, 0, 0);
        for (site, cloud) in &mut self.sites {
            self.losses.write(site, end);
            cloud.bill(end);
            instance_h += cloud.instance_h;
            alarms += cloud.alarms;
        }
        for (number, server) in (0..).zip(&self.servers) {
            let is_out = self.ecs.drained(number).is_some()
                || self.ecs.claim_of(number).is_some()
                || server.node.said().available < self.plan.slots;
            left_out += u32::from(is_out && self.acts);
        }
        Outcome {
            losses: self.losses,
            right: self.right,
            wrong: self.wrong,
            worst_share: self.worst_share,
            counted_twice: self.counted_twice,
            overdue: self.overdue,
            left_out,
            instance_h,
            alarms,
            calls: self.calls,
            looks: self.looks,
        }
    }
}
