//! The GPUs, seen through a child process that loads the vendor's library.
//!
//! A call that hangs or a library that crashes costs a reading, not the agent. The child is asked every
//! `gpu.every` and has `gpu.deadline` to answer; one that doesn't is killed, but never waited for: a process in
//! uninterruptible sleep can't be killed, and a second one would sleep beside it, so none is started until it
//! is gone.

mod child;
mod machine;
mod nvml;
pub mod probe;
mod wire;

use std::mem::discriminant;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::child::ProbeCommand;
use self::child::{Child, Gone};
use self::machine::Machine;
use self::wire::{Line, Missing, PATIENCE};
use crate::clock::Clock;
use crate::config;
use crate::domain::memory::RememberedGpu;
use crate::domain::moment::Moment;
use crate::domain::reading::Reading;
use crate::domain::snapshot::{Gpu, GpuState, Gpus, Probe, XidTotal};

/// How often a machine without GPUs or without their library is looked at, and the PCI bus of one with them.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// NVML may need so many deadlines to start: without a persistence daemon it wakes every card first.
const START: u32 = 6;

/// A probe that lived so long may be started again soon.
const LIVED: Duration = Duration::from_secs(60);

/// Readings that Xids ask for keep this distance.
const AFTER_XID: Duration = Duration::from_secs(1);

/// Rows of Xids that are remembered; the oldest is forgotten first.
const XIDS: usize = 256;

/// Publishes what the GPUs say until cancelled. `known` are the cards of earlier lives: one that is lost from the
/// start can't say who it is.
///
/// # Errors
/// None in use: whatever is wrong with the GPUs is in the reading.
pub async fn run(
    config: config::Gpu,
    known: Vec<RememberedGpu>,
    out: watch::Sender<Reading<Gpus>>,
    clock: Clock,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    let command = ProbeCommand::this_program(&config.library);
    run_with(config, command, known, out, clock, cancel).await
}

/// `run` with another probe.
///
/// # Errors
/// As `run`.
pub async fn run_with(
    config: config::Gpu,
    command: ProbeCommand,
    known: Vec<RememberedGpu>,
    out: watch::Sender<Reading<Gpus>>,
    clock: Clock,
    cancel: CancellationToken,
) -> anyhow::Result<()> {
    if config.enabled == config::Enabled::Never {
        out.send_replace(Reading::Off);
        cancel.cancelled().await;
        return Ok(());
    }
    let mut watch = Watch {
        config,
        command,
        machine: Machine::at("/"),
        gpus: Gpus {
            cards: known.into_iter().map(Gpu::from).collect(),
            ..Gpus::default()
        },
        looked: None,
        crashes: 0,
        backoff: backoff(),
        out,
        clock,
    };
    let mut child = None;
    cancel.run_until_cancelled(watch.run(&mut child)).await;
    if let Some(child) = child {
        child.stop().await;
    }
    Ok(())
}

/// What the agent knows of the GPUs, and how it goes on.
struct Watch {
    config: config::Gpu,
    command: ProbeCommand,
    machine: Machine,
    gpus: Gpus,
    /// When the PCI bus was last looked at.
    looked: Option<Moment>,
    crashes: u64,
    backoff: ExponentialBackoff,
    out: watch::Sender<Reading<Gpus>>,
    clock: Clock,
}

/// How the life of a probe ends.
enum Ending {
    /// It has no library to load.
    NoLibrary(String),
    /// It owes an answer since.
    Hung { since: Moment, call: Option<String> },
    /// It says what no probe says.
    Nonsense(String),
    /// It says no more.
    Silent { answered: bool },
}

impl Watch {
    /// Never returns; to be dropped at will. The probe that runs is in `slot`.
    async fn run(&mut self, slot: &mut Option<Child>) {
        loop {
            self.look_at_pci();
            if let Some(why) = self.nothing_here() {
                self.turn(Probe::NoLibrary { why });
                self.rest(LOOK_AGAIN).await;
                continue;
            }
            self.outwait_stuck_probe().await;
            let pause = match Child::start(&self.command) {
                Ok(child) => self.live(slot, child).await,
                Err(why) => {
                    self.crashed(format!("could not be started: {why}"));
                    self.longer()
                }
            };
            self.rest(pause).await;
        }
    }

    /// The life of one probe, to its end. Returns how long to wait before the next.
    async fn live(&mut self, slot: &mut Option<Child>, child: Child) -> Duration {
        let born = self.clock.moment();
        let child = slot.insert(child);
        let ending = self.attend(child).await;
        if LIVED < self.clock.moment() - born {
            self.backoff = backoff();
        }
        let pause = match ending {
            Ending::NoLibrary(why) => {
                self.turn(Probe::NoLibrary { why });
                LOOK_AGAIN
            }
            Ending::Hung { since, call } => {
                self.hung(since, call);
                self.bury(child).await;
                self.longer()
            }
            Ending::Nonsense(why) => {
                self.crashed(why);
                self.bury(child).await;
                self.longer()
            }
            Ending::Silent { answered } => {
                let gone = self.bury(child).await;
                if answered && gone.status == Some(probe::AFRESH) {
                    tracing::info!("the driver has changed: starting the GPU probe afresh");
                    Duration::ZERO
                } else {
                    self.crashed(gone.how);
                    self.longer()
                }
            }
        };
        if let Some(child) = slot.take() {
            child.stop().await;
        }
        pause
    }

    /// Asks and listens until the probe's life ends.
    async fn attend(&mut self, child: &mut Child) -> Ending {
        let patience = PATIENCE.min(self.config.deadline / 2);
        let mut limit = self.config.deadline * START;
        let mut next = self.clock.moment();
        let mut soonest = next;
        let mut asked = None;
        let mut call = None;
        let mut answered = false;
        let mut changed = false;
        loop {
            // Xids come in storms: what has been read already is published at once.
            if changed && !child.has_line() {
                self.publish();
                changed = false;
            }
            let wake = asked.map_or(next, |asked| asked + limit);
            let line = tokio::select! {
                line = child.next_line() => line,
                () = tokio::time::sleep_until(self.clock.instant(wake)) => {
                    if let Some(since) = asked {
                        return Ending::Hung { since, call };
                    }
                    child.ask(patience).await;
                    let now = self.clock.moment();
                    asked = Some(now);
                    next = now + self.config.every;
                    soonest = now + AFTER_XID;
                    continue;
                }
            };
            match line {
                Ok(Some(Line::Hello { driver, nvml })) => {
                    tracing::info!(?driver, ?nvml, "the GPU probe has started NVML");
                    limit = self.config.deadline;
                    asked = asked.map(|_| self.clock.moment());
                }
                Ok(Some(Line::Reading { cards, driver })) => {
                    self.take(cards, driver);
                    (asked, call, answered, changed) = (None, None, true, true);
                }
                Ok(Some(Line::Xid { gpu, number })) => {
                    count_xid(&mut self.gpus.xids, gpu, number, self.clock.moment());
                    next = next.min(soonest);
                    changed = true;
                }
                Ok(Some(Line::Stuck(name))) => call = asked.map(|_| name),
                Ok(Some(Line::Failed { kind, why })) => match kind {
                    Missing::NoLibrary => return Ending::NoLibrary(why),
                    Missing::Driver => {
                        self.turn(Probe::Driver { why });
                        (asked, call) = (None, None);
                    }
                },
                Ok(None) => return Ending::Silent { answered },
                Err(why) => return Ending::Nonsense(why),
            }
        }
    }

    /// Waits until a probe that is of no more use has gone. One that doesn't go is hung.
    async fn bury(&mut self, child: &mut Child) -> Gone {
        child.kill();
        let since = self.clock.moment();
        loop {
            tokio::select! {
                gone = child.gone() => return gone,
                () = tokio::time::sleep(self.config.deadline.min(self.config.every)) => {}
            }
            if self.config.deadline <= self.clock.moment() - since {
                self.hung(since, None);
            }
        }
    }

    /// A probe of an agent before this one may still sleep in the driver: a second would sleep beside it. One
    /// that sleeps in two looks is stuck; any sleeps for moments.
    async fn outwait_stuck_probe(&mut self) {
        let since = self.clock.moment();
        let mut before = None;
        while let Some(id) = self.machine.stuck_probe() {
            if before.replace(id) == Some(id) {
                self.hung(since, None);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Why there is no need for a probe.
    fn nothing_here(&self) -> Option<String> {
        let search = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
        let sought = self.config.enabled == config::Enabled::Always
            || !self.config.library.is_empty()
            || !self.gpus.pci.is_empty()
            || self.machine.has_library(&search);
        (!sought).then(|| "no NVIDIA GPU on the PCI bus and no libnvidia-ml.so.1".into())
    }

    fn look_at_pci(&mut self) {
        let now = self.clock.moment();
        if self.looked.is_none_or(|looked| LOOK_AGAIN <= now - looked) {
            self.gpus.pci = self.machine.pci();
            self.looked = Some(now);
        }
    }

    fn take(&mut self, cards: Vec<Gpu>, driver: Option<String>) {
        self.look_at_pci();
        self.gpus.cards = identified(cards, &self.gpus.cards, &self.gpus.pci);
        self.gpus.cards_at = Some(self.clock.moment());
        self.gpus.driver = driver;
        self.note(Probe::Answering);
    }

    fn hung(&mut self, since: Moment, call: Option<String>) {
        let (since, call) = match &self.gpus.probe {
            Probe::Hung {
                since,
                call: before,
            } => (*since, call.or_else(|| before.clone())),
            Probe::Answering
            | Probe::NoLibrary { .. }
            | Probe::Driver { .. }
            | Probe::Crashed { .. } => (since, call),
        };
        for card in &mut self.gpus.cards {
            if card.state != GpuState::Lost {
                card.state = GpuState::Hung;
            }
        }
        self.turn(Probe::Hung { since, call });
    }

    fn crashed(&mut self, how: String) {
        self.crashes += 1;
        self.turn(Probe::Crashed {
            at: self.clock.moment(),
            how,
            count: self.crashes,
        });
    }

    /// The state of the probe from now on, published.
    fn turn(&mut self, probe: Probe) {
        let first = matches!(*self.out.borrow(), Reading::Pending);
        if first || self.gpus.probe != probe {
            self.note(probe);
            self.publish();
        } else {
            self.refresh();
        }
    }

    /// The state of the probe from now on, logged where it is of another kind than before.
    fn note(&mut self, probe: Probe) {
        let before = std::mem::replace(&mut self.gpus.probe, probe);
        let probe = &self.gpus.probe;
        if discriminant(&before) == discriminant(probe) {
            return;
        }
        match probe {
            Probe::Answering => tracing::info!("the GPU probe answers again"),
            Probe::NoLibrary { why } => tracing::info!(why, "no NVIDIA library here"),
            Probe::Driver { why } => tracing::warn!(why, "NVIDIA's driver can't be used"),
            Probe::Hung { call, .. } => tracing::warn!(call, "the GPU probe does not answer"),
            Probe::Crashed { how, .. } => tracing::warn!(how, "the GPU probe died"),
        }
    }

    fn publish(&self) {
        let at = self.clock.moment();
        self.out.send_replace(Reading::ok(self.gpus.clone(), at));
    }

    /// Says that all is as it was, without waking anybody.
    fn refresh(&self) {
        let now = self.clock.moment();
        self.out.send_if_modified(|reading| {
            if let Reading::Ok { at, .. } = reading {
                *at = now;
            }
            false
        });
    }

    /// Waits, and stands by what was said last.
    async fn rest(&self, pause: Duration) {
        let until = self.clock.moment() + pause;
        while self.clock.moment() < until {
            let step = until.min(self.clock.moment() + self.config.every);
            tokio::time::sleep_until(self.clock.instant(step)).await;
            self.refresh();
        }
    }

    fn longer(&mut self) -> Duration {
        self.backoff.next().unwrap_or(LIVED)
    }
}

/// 1 s, 2 s, 4 s … 60 s.
fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default().without_max_times().build()
}

/// A card that is lost or refuses to speak can't say who it is: the card that was listed at its place tells, or
/// the one address on the bus that nobody else has.
fn identified(mut cards: Vec<Gpu>, before: &[Gpu], pci: &[String]) -> Vec<Gpu> {
    let named: Vec<String> = cards.iter().map(|card| card.id.clone()).collect();
    for (place, card) in cards.iter_mut().enumerate() {
        let known = match card.id.is_empty() {
            true => before.get(place).filter(|old| !named.contains(&old.id)),
            false => before.iter().find(|old| old.id == card.id),
        };
        if let Some(known) = known.filter(|_| card.state != GpuState::Ok) {
            card.id.clone_from(&known.id);
            card.name = card.name.take().or_else(|| known.name.clone());
            card.pci = card.pci.take().or_else(|| known.pci.clone());
            card.serial = card.serial.take().or_else(|| known.serial.clone());
            card.vbios = card.vbios.take().or_else(|| known.vbios.clone());
        }
    }
    let taken: Vec<String> = cards.iter().filter_map(|card| card.pci.clone()).collect();
    let mut free = pci.iter().filter(|address| !taken.contains(address));
    let mut nameless = cards.iter_mut().filter(|card| card.id.is_empty());
    if let (Some(address), None) = (free.next(), free.next())
        && let (Some(card), None) = (nameless.next(), nameless.next())
    {
        card.id.clone_from(address);
        card.pci = Some(address.clone());
    }
    cards
}

fn count_xid(xids: &mut Vec<XidTotal>, gpu: String, number: u32, now: Moment) {
    let known = xids
        .iter_mut()
        .find(|xid| xid.gpu == gpu && xid.number == number);
    if let Some(xid) = known {
        xid.count += 1;
        xid.last = now;
        return;
    }
    if XIDS <= xids.len() {
        let oldest = xids.iter().enumerate().min_by_key(|(_, xid)| xid.last);
        if let Some((place, _)) = oldest {
            xids.remove(place);
        }
    }
    xids.push(XidTotal {
        gpu,
        number,
        count: 1,
        first: now,
        last: now,
    });
}

#[cfg(test)]
mod tests;
