//! One camera server: what is true of its hardware, what its collectors would say of that, and sideline's own judge.

use std::time::Duration;

use jiff::Timestamp;

use sideline::config::{Config, Failover, FailoverMode, RuleLevel};
use sideline::domain::ecs::{EcsView, Place, Want};
use sideline::domain::judge::{Judge, Judgement, Surroundings};
use sideline::domain::kernel_line::{KernelLine, Stamp};
use sideline::domain::memory::{Memory, Restart};
use sideline::domain::moment::{Moment, Now};
use sideline::domain::reading::Reading;
use sideline::domain::report;
use sideline::domain::snapshot::{Gpu, GpuState, Gpus, KernelLog, Probe, Snapshot};

use crate::plan::{CARDS, Driver, Fault, Plan, Tuning, name};

/// From power to the first look of the agent.
pub(crate) const BOOT: Duration = Duration::from_secs(120);

/// Where the cards sit.
const PCI: [&str; CARDS] = ["0000:01:00", "0000:41:00"];

/// Wall time at which the simulation starts, since 1970: a Monday of 2026, midnight.
const START: Duration = Duration::from_secs(1_767_571_200);

/// A node has run for so long when the simulation starts.
const UPTIME: Duration = Duration::from_secs(86_400);

/// How a card is, in truth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Card {
    Sound,
    /// Off the bus, until it is replaced.
    Dead,
    /// Needs a reset.
    Stuck,
    /// Does not answer for a moment.
    Hangs,
}

/// What a node carries of its slots, and what it does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Health {
    /// Slots of cards that are broken.
    pub(crate) broken: u32,
    /// Slots of cards that do not answer for a moment.
    pub(crate) hanging: u32,
}

/// One camera server.
pub(crate) struct Node {
    cards: [(Card, u32); CARDS],
    driver: Driver,
    slots: u32,
    identity: report::Node,
    kernel: Reading<KernelLog>,
    memory: Memory,
    judge: Judge,
    /// What the judge said last.
    said: Said,
}

/// What the judge says, as far as others act on it.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Said {
    /// Slots that the node can carry.
    pub(crate) available: u32,
    /// The verdict.
    pub(crate) state: report::State,
    /// What it wants of ECS.
    pub(crate) want: Want,
    /// When it wants to look again, though nothing is new.
    pub(crate) due: Option<Duration>,
}

impl Node {
    /// A sound node whose agent has not looked yet.
    pub(crate) fn new(number: u32, plan: Plan, config: Config) -> Self {
        let identity = report::Node {
            id: name(number),
            site: format!("site-{:03}", number / plan.site),
            boot: "0".to_owned(),
            ..report::Node::default()
        };
        let now = now(Duration::ZERO);
        let memory = Memory::default();
        let mut node = Node {
            cards: [(Card::Sound, 0); CARDS],
            driver: Driver::Proven,
            slots: plan.slots,
            kernel: Reading::ok(KernelLog::default(), now.moment),
            judge: Judge::new(config, identity.clone(), &memory, now.moment),
            identity,
            memory,
            said: Said::default(),
        };
        node.load(Driver::Proven, Duration::ZERO);
        node
    }

    /// What the judge said last.
    pub(crate) fn said(&self) -> &Said {
        &self.said
    }

    /// What the hardware carries, whatever anybody thinks of it.
    pub(crate) fn health(&self) -> Health {
        let slots = |wanted: &[Card]| {
            let cards = self.cards.iter().filter(|(card, _)| wanted.contains(card));
            self.slots * cards.count() as u32 / CARDS as u32
        };
        Health {
            broken: slots(&[Card::Dead, Card::Stuck]),
            hanging: slots(&[Card::Hangs]),
        }
    }

    /// Trouble begins.
    pub(crate) fn begins(&mut self, fault: Fault, at: Duration) {
        match fault {
            Fault::CardDies(card) => self.dies(card, at),
            Fault::AllDie => (0..CARDS).for_each(|card| self.dies(card, at)),
            Fault::CardSticks(card) if self.cards[card].0 == Card::Sound => {
                self.cards[card].0 = Card::Stuck;
                self.xid(
                    card,
                    48,
                    "An uncorrectable double bit error (DBE) has been detected",
                    at,
                );
            }
            Fault::CardSticks(_) => {}
            Fault::CardHangs(card) => self.hangs(card),
            Fault::AllHang => (0..CARDS).for_each(|card| self.hangs(card)),
            Fault::Program(number) => {
                self.xid(0, number, "pid=4711, name=ffmpeg, a fault of its own", at);
            }
            Fault::FalseAlarm if self.driver == Driver::Bad => {
                let text = "pid=4711, name=ffmpeg, Timeout after 6s of waiting for RPC response from GPU GSP!";
                (0..CARDS).for_each(|card| self.xid(card, 119, text, at));
            }
            Fault::FalseAlarm => {}
        }
    }

    /// Trouble is over.
    pub(crate) fn ends(&mut self, fault: Fault) {
        for (index, (card, generation)) in self.cards.iter_mut().enumerate() {
            let is_it = match fault {
                Fault::CardDies(one) | Fault::CardSticks(one) | Fault::CardHangs(one) => {
                    one == index
                }
                Fault::AllDie | Fault::AllHang => true,
                Fault::Program(_) | Fault::FalseAlarm => false,
            };
            match fault {
                Fault::CardDies(_) | Fault::AllDie if is_it && *card == Card::Dead => {
                    // A new card in the old slot: the technician lets the agent forget the old one.
                    let old = uuid(&self.identity.id, index, *generation);
                    self.memory.inventory.retain(|known| known.id != old);
                    *generation += 1;
                    *card = Card::Sound;
                }
                Fault::CardHangs(_) | Fault::AllHang if is_it && *card == Card::Hangs => {
                    *card = Card::Sound;
                }
                Fault::CardDies(_)
                | Fault::AllDie
                | Fault::CardSticks(_)
                | Fault::CardHangs(_)
                | Fault::AllHang
                | Fault::Program(_)
                | Fault::FalseAlarm => {}
            }
        }
    }

    /// Another configuration.
    pub(crate) fn tuned(&mut self, config: Config, at: Duration) {
        self.judge
            .reconfigure(config, self.identity.clone(), now(at).moment);
    }

    /// A driver is loaded.
    pub(crate) fn load(&mut self, driver: Driver, at: Duration) {
        self.driver = driver;
        let version = driver.version();
        let line =
            format!("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  {version}  Release Build");
        self.hear(line, at);
    }

    /// The power is cut: what was written is all that is left.
    pub(crate) fn cut(&mut self) {
        self.judge.remember(&mut self.memory);
        for (card, _) in &mut self.cards {
            if matches!(card, Card::Stuck | Card::Hangs) {
                *card = Card::Sound;
            }
        }
    }

    /// The machine has started, and its agent is about to look.
    pub(crate) fn boots(&mut self, config: Config, at: Duration) {
        let now = now(at);
        let boot = at.as_secs().to_string();
        self.memory.restarted(Restart {
            boot: boot.clone(),
            began: now.wall,
            last: None,
            panic: None,
            on_battery: false,
        });
        self.memory.begin_boot(&boot);
        self.identity.boot = boot;
        self.kernel = Reading::ok(KernelLog::default(), now.moment);
        self.load(self.driver, at);
        self.judge = Judge::new(config, self.identity.clone(), &self.memory, now.moment);
    }

    /// One look of the judge.
    pub(crate) fn look(&mut self, view: &EcsView, at: Duration) -> &Said {
        let now = now(at);
        if let Reading::Ok { at, .. } = &mut self.kernel {
            *at = now.moment;
        }
        let gpus = self.gpus(now.moment);
        let seen = Snapshot {
            host: &Reading::Off,
            gpus: &gpus,
            kernel: &self.kernel,
            drives: &Reading::Off,
            ups: &Reading::Off,
            checks: &Reading::Off,
            cameras: &[],
        };
        let around = Surroundings {
            place: Some(Place {
                cluster: "fleet".to_owned(),
                container_instance: self.identity.id.clone(),
                tasks: view.own.as_ref().map(|own| own.running),
            }),
            ecs: view.clone(),
            ..Surroundings::default()
        };
        let Judgement { report, .. } = self.judge.judge(seen, around, now);
        let due = self.judge.due().map(time_of);
        self.said = Said {
            available: report.capacity.available,
            state: report.verdict.state,
            want: self.judge.want().clone(),
            due,
        };
        &self.said
    }

    fn dies(&mut self, card: usize, at: Duration) {
        if self.cards[card].0 != Card::Dead {
            self.cards[card].0 = Card::Dead;
            self.xid(card, 79, "GPU has fallen off the bus.", at);
        }
    }

    fn hangs(&mut self, card: usize) {
        if self.cards[card].0 == Card::Sound {
            self.cards[card].0 = Card::Hangs;
        }
    }

    fn xid(&mut self, card: usize, number: u32, text: &str, at: Duration) {
        self.hear(
            format!("NVRM: Xid (PCI:{}): {number}, {text}", PCI[card]),
            at,
        );
    }

    fn hear(&mut self, text: String, at: Duration) {
        let line = KernelLine {
            stamp: Stamp::None,
            text: text.into(),
        };
        if let Reading::Ok { value, .. } = &mut self.kernel {
            value.note(&line, now(at));
        }
    }

    /// What the GPU probe would say.
    fn gpus(&self, moment: Moment) -> Reading<Gpus> {
        let listed = self.cards.iter().enumerate();
        let cards: Vec<Gpu> = listed
            .map(|(index, (card, generation))| {
                let named = Gpu {
                    id: uuid(&self.identity.id, index, *generation),
                    pci: Some(PCI[index].to_owned()),
                    ..Gpu::default()
                };
                match card {
                    Card::Sound | Card::Stuck => Gpu {
                        state: GpuState::Ok,
                        temperature_c: Some(66.0),
                        utilization_percent: Some(55.0),
                        ..named
                    },
                    Card::Dead => Gpu {
                        state: GpuState::Lost,
                        ..named
                    },
                    Card::Hangs => Gpu {
                        state: GpuState::Hung,
                        ..named
                    },
                }
            })
            .collect();
        let troubles: Vec<Probe> = cards
            .iter()
            .filter(|card| card.state == GpuState::Hung)
            .map(|card| Probe::Hung {
                since: moment,
                call: None,
                card: Some(card.id.clone()),
            })
            .collect();
        let gpus = Gpus {
            probe: troubles.last().cloned().unwrap_or_default(),
            troubles,
            cards,
            cards_at: Some(moment),
            ..Gpus::default()
        };
        Reading::ok(gpus, moment)
    }
}

/// The configuration of all nodes.
pub(crate) fn config(plan: Plan, failover: &Failover, tuning: Tuning) -> Config {
    let mut config = Config::default();
    config.node.slots = Some(plan.slots);
    config.failover = failover.clone();
    if tuning == Tuning::TooCold {
        config.judge.gpu_celsius = Some(60);
        let failing = ("gpu.hot".to_owned(), RuleLevel::Failing);
        config.judge.rules.extend([failing]);
    }
    config
}

/// sideline as it comes, told to act.
pub(crate) fn guarded() -> Failover {
    Failover {
        mode: FailoverMode::Drain,
        ..Failover::default()
    }
}

/// sideline without hold, share, limit and guard against changes.
pub(crate) fn unguarded() -> Failover {
    Failover {
        hold: Duration::ZERO,
        changes: Duration::ZERO,
        max_unfit_share: 1.0,
        max_drains_a_day: u32::MAX,
        ..guarded()
    }
}

/// Both faces of a time of the simulation.
pub(crate) fn now(at: Duration) -> Now {
    Now {
        moment: moment(at),
        wall: Timestamp::UNIX_EPOCH + START + at,
        sure: true,
    }
}

/// All machines share one time line, on which a restart is no new beginning.
pub(crate) fn moment(at: Duration) -> Moment {
    Moment::after_boot(UPTIME + at)
}

/// The time of the simulation at a moment.
pub(crate) fn time_of(moment: Moment) -> Duration {
    moment.since_boot().saturating_sub(UPTIME)
}

fn uuid(node: &str, slot: usize, generation: u32) -> String {
    format!("GPU-{node}-{slot}-{generation}")
}
