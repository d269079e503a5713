//! What the fleet is, and everything that happens to it: drawn once from a seed, the same whoever acts on it.

use std::ops::Range;
use std::time::Duration;

use fastrand::Rng;
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);
const WEEK_H: f64 = 7.0 * 24.0;

/// Cards of one node.
pub(crate) const CARDS: usize = 2;

/// How often things happen, in a week, and where the number is from. What bears no source is an assumption: old
/// servers in sheds, worse than a data center in all but the cards.
mod rates {
    /// A card dies, each. Llama 3's table of interruptions (54 days, 16,384 GPUs: 148 of GPUs and 72 of their memory)
    /// makes 9 % a year; the figures are quoted from memory.
    pub(super) const CARD_DIES: f64 = 0.09 / 52.0;
    /// A card needs a reset (Xid 48, 119), each: as often again.
    pub(super) const CARD_STICKS: f64 = 0.09 / 52.0;
    /// The board, the power supply or the driver takes both cards at once, a node.
    pub(super) const ALL_CARDS_DIE: f64 = 0.06 / 52.0;
    /// NVML does not answer for some seconds, a node.
    pub(super) const HANGS: f64 = 2.0 / 52.0;
    /// A program's fault (Xid 13, 31, 43, 68), a node.
    pub(super) const PROGRAM_FAILS: f64 = 0.5;
    /// A box loses its power, a node.
    pub(super) const BOX_CUT: f64 = 2.0 / 52.0;
    /// A shed loses its power, a site.
    pub(super) const SITE_CUT: f64 = 6.0 / 52.0;
    /// An uplink drops, a site.
    pub(super) const UPLINK_DROPS: f64 = 7.0;
    /// An operator drains a node by hand.
    pub(super) const OPERATOR: f64 = 0.005;
}

/// The fleet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// Nodes.
    pub(crate) nodes: u32,
    /// How long it is watched.
    pub(crate) lasts: Duration,
    /// How long it goes on after that, with no new trouble.
    pub(crate) settles: Duration,
    /// Where all chance comes from.
    pub(crate) seed: u64,
    /// Nodes of a site.
    pub(crate) site: u32,
    /// Nodes of an ECS cluster.
    pub(crate) cluster: u32,
    /// Slots of a node.
    pub(crate) slots: u32,
}

impl Plan {
    /// Sites.
    pub(crate) fn sites(self) -> u32 {
        self.nodes.div_ceil(self.site)
    }

    /// The nodes of one site.
    pub(crate) fn nodes_of(self, site: u32) -> Range<u32> {
        site * self.site..self.nodes.min((site + 1) * self.site)
    }

    /// The nodes of the cluster that a node belongs to.
    pub(crate) fn cluster_of(self, node: u32) -> Range<u32> {
        let first = node / self.cluster * self.cluster;
        first..self.nodes.min(first + self.cluster)
    }
}

/// A node's name.
pub(crate) fn name(node: u32) -> String {
    format!("mi-{node:017x}")
}

/// Something that happens to a node.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Event {
    /// When, since the start.
    pub(crate) at: Duration,
    /// To which.
    pub(crate) node: u32,
    /// What.
    pub(crate) what: What,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// Trouble begins.
    Begins(Fault),
    /// Trouble is over: by itself, or because a person has mended it.
    Ends(Fault),
    /// The box gets power, or loses it.
    Power(bool),
    /// There is a way to the cloud, or there is none.
    Uplink(bool),
    /// Another driver is installed and loaded.
    Driver(Driver),
    /// Another configuration arrives.
    Tuned(Tuning),
    /// An operator drains the node, or gives it back.
    Operator(bool),
}

/// Kinds of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A card has fallen off the bus (Xid 79) and has to be replaced.
    CardDies(usize),
    /// A card has to be reset (Xid 48).
    CardSticks(usize),
    /// All cards have fallen off the bus.
    AllDie,
    /// A card does not answer.
    CardHangs(usize),
    /// No card answers.
    AllHang,
    /// A program has run into its own fault: an Xid that is no card's.
    Program(u32),
    /// The driver reports a fault of both cards (Xid 119) that there is not.
    FalseAlarm,
}

/// Versions of NVIDIA's driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Driver {
    /// The usual one.
    Proven,
    /// One that cries wolf.
    Bad,
}

impl Driver {
    /// The version.
    pub(crate) const fn version(self) -> &'static str {
        match self {
            Driver::Proven => "570.86.15",
            Driver::Bad => "575.51.02",
        }
    }
}

/// Configurations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tuning {
    /// The usual one.
    Usual,
    /// One that calls every card too hot, and failing for that.
    TooCold,
}

/// Everything that happens, in order.
pub(crate) fn draw(plan: Plan) -> Vec<Event> {
    let mut draw = Draw {
        plan,
        rng: Rng::with_seed(plan.seed),
        events: Vec::new(),
    };
    draw.faults();
    draw.power_and_uplinks();
    draw.operators();
    draw.driver_rollout();
    draw.pushed_threshold();
    draw.regional_outage();
    draw.events.sort_by_key(|event| event.at);
    draw.events
}

struct Draw {
    plan: Plan,
    rng: Rng,
    events: Vec<Event>,
}

impl Draw {
    fn add(&mut self, at: Duration, node: u32, what: What) {
        self.events.push(Event { at, node, what });
    }

    /// When and to whom something happens that each of `of` suffers `weekly`.
    fn each(&mut self, weekly: f64, of: u32) -> Vec<(Duration, u32)> {
        let every_h = WEEK_H / (weekly * f64::from(of));
        let mut at = Duration::ZERO;
        let mut all = Vec::new();
        loop {
            at += HOUR.mul_f64(-every_h * (1.0 - self.rng.f64()).ln());
            if self.plan.lasts <= at {
                return all;
            }
            all.push((at, self.rng.u32(0..of)));
        }
    }

    /// A length between two, short ones as often as long ones by their order of magnitude.
    fn between(&mut self, least: Duration, most: Duration) -> Duration {
        let ratio = most.as_secs_f64() / least.as_secs_f64();
        least.mul_f64(ratio.powf(self.rng.f64()))
    }

    fn faults(&mut self) {
        let nodes = self.plan.nodes;
        for (at, node) in self.each(rates::CARD_DIES * CARDS as f64, nodes) {
            let card = self.rng.usize(0..CARDS);
            let replaced = self.between(4 * HOUR, 48 * HOUR);
            self.mended(at, node, Fault::CardDies(card), replaced, 10 * MINUTE);
        }
        for (at, node) in self.each(rates::CARD_STICKS * CARDS as f64, nodes) {
            let card = self.rng.usize(0..CARDS);
            let rebooted = self.between(MINUTE * 15, 4 * HOUR);
            self.mended(at, node, Fault::CardSticks(card), rebooted, 3 * MINUTE);
        }
        for (at, node) in self.each(rates::ALL_CARDS_DIE, nodes) {
            let mended = self.between(2 * HOUR, 48 * HOUR);
            self.mended(at, node, Fault::AllDie, mended, 10 * MINUTE);
        }
        for (at, node) in self.each(rates::HANGS, nodes) {
            let fault = if self.rng.bool() {
                Fault::AllHang
            } else {
                Fault::CardHangs(self.rng.usize(0..CARDS))
            };
            let over = self.between(Duration::from_secs(8), Duration::from_secs(45));
            self.add(at, node, What::Begins(fault));
            self.add(at + over, node, What::Ends(fault));
        }
        for (at, node) in self.each(rates::PROGRAM_FAILS, nodes) {
            let xid = self.rng.choice([13, 31, 43, 68]).unwrap_or(13);
            self.add(at, node, What::Begins(Fault::Program(xid)));
        }
    }

    /// A person mends it after `takes`, and switches the box off for that.
    fn mended(&mut self, at: Duration, node: u32, fault: Fault, takes: Duration, off: Duration) {
        self.add(at, node, What::Begins(fault));
        let mended = at + takes;
        self.add(mended, node, What::Power(false));
        self.add(mended + off, node, What::Ends(fault));
        self.add(mended + off, node, What::Power(true));
    }

    fn power_and_uplinks(&mut self) {
        for (at, node) in self.each(rates::BOX_CUT, self.plan.nodes) {
            let back = at + self.between(5 * MINUTE, 4 * HOUR);
            self.add(at, node, What::Power(false));
            self.add(back, node, What::Power(true));
        }
        for (at, site) in self.each(rates::SITE_CUT, self.plan.sites()) {
            let back = at + self.between(10 * MINUTE, 8 * HOUR);
            self.site(at, back, site, What::Power);
        }
        for (at, site) in self.each(rates::UPLINK_DROPS, self.plan.sites()) {
            // Nearly all are short; one of twenty is a day's work for somebody.
            let back = at
                + match self.rng.u32(0..20) {
                    0 => self.between(HOUR, 8 * HOUR),
                    _ => self.between(Duration::from_secs(10), 8 * MINUTE),
                };
            self.site(at, back, site, What::Uplink);
        }
    }

    fn site(&mut self, from: Duration, back: Duration, site: u32, what: fn(bool) -> What) {
        for node in self.plan.nodes_of(site) {
            self.add(from, node, what(false));
            self.add(back, node, what(true));
        }
    }

    fn operators(&mut self) {
        for (at, node) in self.each(rates::OPERATOR, self.plan.nodes) {
            let back = at + self.between(HOUR, 4 * HOUR);
            self.add(at, node, What::Operator(true));
            self.add(back, node, What::Operator(false));
        }
    }

    /// A driver is rolled out in rings of 1, 5 and 20 % of the nodes, and taken back when somebody has understood.
    /// On four of ten nodes it reports faults that there are not; the streams go on.
    fn driver_rollout(&mut self) {
        let ring = self.plan.lasts / 84;
        let begins = self.plan.lasts * 2 / 7;
        let back = begins + ring * 7 / 2;
        let percents = [1, 5, 20];
        let mut order: Vec<u32> = (0..self.plan.nodes).collect();
        self.rng.shuffle(&mut order);
        let mut done = 0;
        for (number, percent) in (0_u32..).zip(percents) {
            let upto = (order.len() * percent).div_ceil(100);
            for &node in &order[done..upto.max(done)] {
                let at = begins + ring * number + ring.mul_f64(0.25 * self.rng.f64());
                self.add(at, node, What::Driver(Driver::Bad));
                if self.rng.u32(0..10) < 4 {
                    let later = self.between(2 * MINUTE, 40 * MINUTE);
                    self.add(at + later, node, What::Begins(Fault::FalseAlarm));
                }
                let undone = back + ring.mul_f64(0.5 * self.rng.f64());
                self.add(undone, node, What::Ends(Fault::FalseAlarm));
                self.add(undone, node, What::Driver(Driver::Proven));
            }
            done = upto.max(done);
        }
    }

    /// A configuration with a wrong threshold reaches all nodes, each when it next looks for one (`ssm.every`); after
    /// three quarters of an hour the right one follows.
    fn pushed_threshold(&mut self) {
        let every = 5 * MINUTE;
        let begins =
            self.plan.lasts * 4 / 7 + 10 * HOUR.mul_f64(self.plan.lasts.div_duration_f64(7 * DAY));
        for node in 0..self.plan.nodes {
            let at = begins + every.mul_f64(self.rng.f64());
            self.add(at, node, What::Tuned(Tuning::TooCold));
            self.add(at + 45 * MINUTE, node, What::Tuned(Tuning::Usual));
        }
    }

    /// A carrier's fault takes one uplink in five for forty minutes; all come back at once.
    fn regional_outage(&mut self) {
        let begins = self.plan.lasts * 6 / 7;
        for site in (0..self.plan.sites()).step_by(5) {
            self.site(begins, begins + 40 * MINUTE, site, What::Uplink);
        }
    }
}
