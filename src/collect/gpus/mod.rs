//! The GPUs, seen through a child process that loads the vendor's library.
//!
//! A call that hangs or a library that crashes costs a reading, not the agent. The child is asked every
//! `gpu.every` and has `gpu.deadline` to answer; one that doesn't is killed, but never waited for: a process in
//! uninterruptible sleep can't be killed, and a second one would sleep beside it, so none is started until it
//! is gone.
//!
//! A hang or a crash is pinned to the card that was being read. That card is read last from then on, and seldom,
//! so that one sick card does not blind the agent for the others (`suspects`).

mod ask;
mod cards;
mod child;
mod machine;
mod nvml;
pub mod probe;
mod raw;
mod stuck;
mod suspects;
mod wire;

use std::collections::BTreeMap;
use std::mem::{discriminant, take};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use self::cards::blank;
pub use self::child::ProbeCommand;
use self::child::{Child, Gone};
use self::machine::Machine;
use self::stuck::StuckLook;
use self::suspects::Suspects;
use self::wire::{At, Line, Missing, PATIENCE};
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
        round: Round::default(),
        answered: false,
        suspects: Suspects::new(),
        looked: None,
        stuck: StuckLook::default(),
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
    round: Round,
    /// Whether the probe that runs has given a whole answer.
    answered: bool,
    suspects: Suspects,
    /// When the PCI bus was last looked at.
    looked: Option<Moment>,
    stuck: StuckLook,
    out: watch::Sender<Reading<Gpus>>,
    clock: Clock,
}

/// What the question under way has brought so far.
#[derive(Default)]
struct Round {
    /// The cards by their places in NVML's list.
    cards: BTreeMap<u32, Gpu>,
    /// When the latest of them was read.
    read: Option<Moment>,
    /// Where the probe is.
    at: At,
}

/// How the life of a probe ends.
enum Ending {
    /// It has no library to load.
    NoLibrary(String),
    /// It owes an answer since.
    Hung { since: Moment },
    /// It says what no probe says.
    Nonsense(String),
    /// It says no more.
    Silent,
}

impl Watch {
    /// Never returns; to be dropped at will. The probe that runs is in `slot`.
    async fn run(&mut self, slot: &mut Option<Child>) {
        loop {
            self.look();
            if let Some(why) = self.nothing_here() {
                self.turn(Probe::NoLibrary { why });
                self.rest(LOOK_AGAIN).await;
                continue;
            }
            self.outwait_stuck_probe().await;
            let pause = match Child::start(&self.command) {
                Ok(child) => self.live(slot, child).await,
                Err(why) => self.crashed(format!("could not be started: {why}")),
            };
            self.rest(pause).await;
        }
    }

    /// The life of one probe, to its end. Returns how long to wait before the next.
    async fn live(&mut self, slot: &mut Option<Child>, child: Child) -> Duration {
        let born = self.clock.moment();
        let child = slot.insert(child);
        self.answered = false;
        let ending = self.attend(child).await;
        if self.suspects.is_empty() && LIVED < self.clock.moment() - born {
            self.suspects.rested();
        }
        let pause = match ending {
            Ending::NoLibrary(why) => {
                self.turn(Probe::NoLibrary { why });
                LOOK_AGAIN
            }
            Ending::Hung { since } => {
                let pause = self.hung(since);
                self.bury(child).await;
                pause
            }
            Ending::Nonsense(why) => {
                let pause = self.crashed(why);
                self.bury(child).await;
                pause
            }
            Ending::Silent => {
                let gone = self.bury(child).await;
                if self.answered && gone.status == Some(probe::AFRESH) {
                    tracing::info!("the driver has changed: starting the GPU probe afresh");
                    Duration::ZERO
                } else {
                    self.crashed(gone.how)
                }
            }
        };
        self.round = Round::default();
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
                        return Ending::Hung { since };
                    }
                    let now = self.clock.moment();
                    child.ask(&self.suspects.question(patience, now)).await;
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
                Ok(Some(Line::At(at))) => {
                    // What is said after the answer is past.
                    if asked.is_some() {
                        self.round.at = at;
                    }
                }
                Ok(Some(Line::Card { place, card })) => {
                    self.round.cards.insert(place, *card);
                    self.round.read = Some(self.clock.moment());
                    self.round.at = At::default();
                }
                Ok(Some(Line::Reading { count, driver })) => {
                    self.answered(count, driver, asked.take());
                    changed = true;
                }
                Ok(Some(Line::Xid { gpu, number })) => {
                    count_xid(&mut self.gpus.xids, gpu, number, self.clock.moment());
                    next = next.min(soonest);
                    changed = true;
                }
                Ok(Some(Line::Failed { kind, why })) => match kind {
                    Missing::NoLibrary => return Ending::NoLibrary(why),
                    Missing::Driver => {
                        self.turn(Probe::Driver { why });
                        self.round = Round::default();
                        asked = None;
                    }
                },
                Ok(None) => return Ending::Silent,
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
                self.asleep(since);
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
                self.asleep(since);
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

    /// Looks at what the machine shows of its GPUs without NVML, where it is time to. Returns whether that is news.
    fn look(&mut self) -> bool {
        let now = self.clock.moment();
        let mut news = false;
        if self.looked.is_none_or(|looked| LOOK_AGAIN <= now - looked) {
            self.looked = Some(now);
            let bus = self.machine.bus();
            self.gpus.pci = bus.iter().map(|gpu| gpu.pci.clone()).collect();
            news |= std::mem::replace(&mut self.gpus.bus, bus) != self.gpus.bus;
        }
        // Without an NVIDIA card no process can sleep in its driver.
        if !self.gpus.bus.is_empty()
            && let Some(stuck) = self.stuck.look(&self.machine, &self.gpus.cards, now)
        {
            news |= std::mem::replace(&mut self.gpus.stuck, stuck) != self.gpus.stuck;
        }
        news
    }

    /// Takes in that all cards that were asked for have been read.
    fn answered(&mut self, count: u32, driver: Option<String>, asked: Option<Moment>) {
        self.look();
        let undisturbed = self.suspects.is_empty();
        self.gather(Some(count));
        self.suspects.shrink(count);
        let now = self.clock.moment();
        if undisturbed {
            self.gpus.cards_at = Some(now);
            self.gpus.took = asked.map(|asked| now - asked);
        }
        self.gpus.driver = driver;
        self.answered = true;
        let trouble = self.suspects.troubles().last().cloned();
        self.note(trouble.unwrap_or(Probe::Answering));
    }

    /// Takes in what the round has told, be it whole (`count` cards are listed then) or not.
    fn gather(&mut self, count: Option<u32>) {
        let Round { cards, read, at } = take(&mut self.round);
        for place in cards.keys() {
            self.suspects.acquit(*place);
        }
        self.gpus.cards = cards::merged(cards, &at, count, &self.gpus.cards, &self.gpus.pci);
        // What a hang of no single card made of them all is over: the probe has come further.
        let known = self.gpus.cards.iter_mut().enumerate();
        for (_, card) in known.filter(|(place, _)| !self.suspects.holds(*place)) {
            if card.state == GpuState::Hung {
                card.state = GpuState::Unknown;
            }
        }
        self.gpus.cards_at = read.or(self.gpus.cards_at);
    }

    /// The probe owes an answer. Returns how long to wait before the next probe.
    fn hung(&mut self, since: Moment) -> Duration {
        let At { place, call, .. } = self.round.at.clone();
        self.gather(None);
        match place {
            Some(place) => {
                let card = self.pin(place, GpuState::Hung);
                let earlier = self.suspects.hang_at(place).cloned();
                let trouble = hang(since, call, Some(card), earlier.as_ref());
                self.suspects.accuse(place, trouble.clone());
                self.note(trouble);
                self.publish();
            }
            None => self.hung_as_a_whole(since, call),
        }
        let now = self.clock.moment();
        self.suspects.setback(place, true, now)
    }

    /// Nothing can be asked of any card.
    fn hung_as_a_whole(&mut self, since: Moment, call: Option<String>) {
        self.forget(GpuState::Hung);
        let trouble = hang(since, call, None, Some(&self.gpus.probe));
        self.turn(trouble);
    }

    /// The probe sleeps uninterruptibly, so no card is asked any more: where the trouble is one card's, the others
    /// are not known.
    fn asleep(&mut self, since: Moment) {
        let mut news = self.look();
        if self.gpus.probe.card().is_none() {
            self.hung_as_a_whole(since, None);
            return self.tell(news);
        }
        let suspects = &self.suspects;
        for (place, card) in self.gpus.cards.iter_mut().enumerate() {
            if !suspects.holds(place) && card.state == GpuState::Ok {
                blank(card, GpuState::Unknown);
                news = true;
            }
        }
        self.tell(news);
    }

    /// The probe died. Returns how long to wait before the next.
    fn crashed(&mut self, how: String) -> Duration {
        let At { place, call, .. } = self.round.at.clone();
        self.gather(None);
        let at = self.clock.moment();
        let count = self.suspects.crashed(place, at);
        let pause = self.suspects.setback(place, 1 < count, at);
        let card = place.map(|place| {
            // A card that hung and has not answered since hangs still.
            let state = match self.suspects.hang_at(place) {
                Some(_) => GpuState::Hung,
                None => GpuState::Unknown,
            };
            self.pin(place, state)
        });
        let trouble = Probe::Crashed {
            at,
            how,
            count,
            card,
            call,
        };
        if let Some(place) = place {
            self.suspects.accuse(place, trouble.clone());
        } else if !self.answered || self.config.every < pause {
            // What was read before is known until it should have been read again.
            self.forget(GpuState::Unknown);
        }
        self.turn(trouble);
        pause
    }

    /// Blames the card at a place; returns its id.
    fn pin(&mut self, place: u32, state: GpuState) -> String {
        let Some(card) = self.gpus.cards.get_mut(place as usize) else {
            return String::new();
        };
        // A card that was lost and now hangs is lost all the same.
        if card.state != GpuState::Lost {
            blank(card, state);
        }
        card.id.clone()
    }

    /// Nothing is known of the cards any more, but that some are lost.
    fn forget(&mut self, state: GpuState) {
        let known = self.gpus.cards.iter_mut();
        for card in known.filter(|card| card.state != GpuState::Lost) {
            blank(card, state);
        }
    }

    /// The state of the probe from now on, published.
    fn turn(&mut self, probe: Probe) {
        if matches!(probe, Probe::NoLibrary { .. } | Probe::Driver { .. }) {
            self.forget(GpuState::Unknown);
        }
        let first = matches!(*self.out.borrow(), Reading::Pending);
        let news = first || self.gpus.probe != probe;
        self.note(probe);
        self.tell(news);
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
            Probe::Hung { call, card, .. } => {
                tracing::warn!(call, card, "the GPU probe does not answer");
            }
            Probe::Crashed {
                how, call, card, ..
            } => tracing::warn!(how, call, card, "the GPU probe died"),
        }
    }

    fn publish(&mut self) {
        let at = self.clock.moment();
        self.gpus.troubles = self.suspects.troubles().cloned().collect();
        self.out.send_replace(Reading::ok(self.gpus.clone(), at));
    }

    fn tell(&mut self, news: bool) {
        match news {
            true => self.publish(),
            false => self.refresh(),
        }
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
    async fn rest(&mut self, pause: Duration) {
        let until = self.clock.moment() + pause;
        while self.clock.moment() < until {
            let step = until.min(self.clock.moment() + self.config.every);
            tokio::time::sleep_until(self.clock.instant(step)).await;
            let news = self.look();
            self.tell(news);
        }
    }
}

/// A hang goes on from when it was first seen, with the call that was last named.
fn hang(
    since: Moment,
    call: Option<String>,
    card: Option<String>,
    earlier: Option<&Probe>,
) -> Probe {
    if let Some(Probe::Hung {
        since,
        call: named,
        card: same,
    }) = earlier
        && *same == card
    {
        let call = call.or_else(|| named.clone());
        let since = *since;
        return Probe::Hung { since, call, card };
    }
    Probe::Hung { since, call, card }
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
