//! Rules for GPUs: lost, missing, hung, driver; what the rules know of the cards.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::gpu_levels::Levels;
use super::{Look, gpu_kernel, gpu_levels};
use crate::config::{Enabled, Expected};
use crate::domain::finding::{Advice, Code, Severity, Subject};
use crate::domain::findings::{Found, Observed};
use crate::domain::inventory::{Forgotten, Kind};
use crate::domain::memory::{Memory, RememberedGpu};
use crate::domain::moment::Moment;
use crate::domain::reading::Reading;
use crate::domain::snapshot::{Gpu, GpuState, Gpus, KernelLog, PciGpu, Probe};
use crate::domain::timing::Timing;

/// A process may sleep in the driver so long while a card is reset or a driver loaded.
const STUCK: Duration = Duration::from_secs(60);

/// Answers that take so many times the usual are slow, where they also take longer than `SLOW_LEAST`.
const SLOW_TIMES: f64 = 10.0;
const SLOW_LEAST: Duration = Duration::from_secs(1);

/// The usual time of an answer is the median of so many; the time of now that of the last `LATELY`: single answers are
/// slow when lasting values are read anew.
const USUALLY: usize = 16;
const LATELY: usize = 3;

/// A usual time that is better than the known one by less is no news.
const USUAL_NEWS: f64 = 0.7;

/// A card that draws more than this share of what it may does so at full power.
const FULL_POWER: f64 = 0.9;

/// Programs that let go of the cards so long ago did it for another reason.
const LET_GO: Duration = Duration::from_secs(10 * 60);

/// What the rules know of the cards beyond the latest reading.
#[derive(Debug, Clone, Default)]
pub struct GpuMemory {
    /// Cards that have been seen here, by UUID.
    pub inventory: Vec<RememberedGpu>,
    /// What they measure of themselves.
    pub levels: Levels,
    /// The quickest that a whole answer has usually been, in seconds.
    pub usual_answer_s: Option<f64>,
    /// The version of the driver that was loaded last.
    pub driver: Option<String>,
    /// When another version than the one before was loaded.
    pub driver_changed: Option<Moment>,
    /// Cards that do not answer now.
    silent: BTreeSet<String>,
    /// Cards whose driver wants them reset.
    wanted: BTreeSet<String>,
    /// When a card last came back after it had not answered, or was accepted as gone, by id, and then by PCI address
    /// too: faults before that are history.
    pub recovered: BTreeMap<String, Moment>,
    /// The latest answers' times.
    answers: VecDeque<Duration>,
    /// What the cards drew last, and may draw, in watts.
    power: BTreeMap<String, (f64, f64)>,
    /// When programs last used any of the cards.
    used: Option<Moment>,
    /// No program uses any of the cards, though all of them are well.
    unused: bool,
    /// Which reading was taken in last.
    taken_in: Option<Moment>,
}

impl GpuMemory {
    /// What an earlier life of the agent had seen.
    #[must_use]
    pub fn new(memory: &Memory) -> Self {
        GpuMemory {
            inventory: memory.inventory.clone(),
            levels: Levels::new(memory.links.clone()),
            usual_answer_s: memory.usual_answer_s,
            driver: memory.driver.clone(),
            recovered: memory.recovered.clone(),
            ..GpuMemory::default()
        }
    }

    /// Takes in which driver the kernel has loaded.
    pub fn hear(&mut self, kernel: &KernelLog) {
        if let Some(driver) = &kernel.driver
            && self.driver.as_ref() != Some(&driver.version)
        {
            let before = self.driver.replace(driver.version.clone());
            self.driver_changed = before.map(|_| driver.loaded).or(self.driver_changed);
        }
    }

    /// Takes in one reading: new cards, and those that came back.
    pub fn take_in(&mut self, gpus: &Gpus, now: Moment) {
        // A driver that does not start says nothing of a single card; but once it answers again, whatever was wrong
        // has been reset or reloaded.
        if matches!(gpus.probe, Probe::Driver { .. } | Probe::NoLibrary { .. }) {
            self.silent
                .extend(self.inventory.iter().map(|card| card.id.clone()));
            return;
        }
        if !names_cards(&gpus.probe) || gpus.cards_at == self.taken_in {
            return;
        }
        self.taken_in = gpus.cards_at;
        for card in &gpus.cards {
            match card.state {
                GpuState::Ok => self.answers(card, now),
                GpuState::Lost => {
                    self.silent.insert(card.id.clone());
                }
                // A call that hung and then came back proves no reset.
                GpuState::Hung | GpuState::Unknown => {}
            }
        }
        for card in &self.inventory {
            if !gpus.cards.iter().any(|seen| seen.id == card.id) {
                self.silent.insert(card.id.clone());
            }
        }
        self.count_programs(&gpus.cards, now);
        if let Some(took) = gpus.took {
            self.time(took);
        }
    }

    /// One card that answers.
    fn answers(&mut self, card: &Gpu, now: Moment) {
        let was_reset = match card.recovery_action {
            Some(0) => self.wanted.remove(&card.id),
            Some(_) => {
                self.wanted.insert(card.id.clone());
                false
            }
            None => false,
        };
        if self.silent.remove(&card.id) || was_reset {
            self.recovered.insert(card.id.clone(), now);
        }
        // Only a card that answers can be sure of its own name.
        self.remember(card);
        self.levels.take_in(card, now);
        if let (Some(power), Some(limit)) = (card.power_w, card.power_limit_w) {
            match self.power.get_mut(&card.id) {
                Some(known) => *known = (power, limit),
                None => {
                    self.power.insert(card.id.clone(), (power, limit));
                }
            }
        }
    }

    fn remember(&mut self, card: &Gpu) {
        let known = self.inventory.iter_mut().find(|known| known.id == card.id);
        match known {
            // Cards may change places.
            Some(known) if known.pci != card.pci && card.pci.is_some() => {
                known.pci.clone_from(&card.pci);
            }
            Some(_) => {}
            None if card.id.is_empty() => {}
            None => self.inventory.push(RememberedGpu {
                id: card.id.clone(),
                name: card.name.clone(),
                pci: card.pci.clone(),
                serial: card.serial.clone(),
            }),
        }
    }

    /// Takes `listed`, all cards of a whole reading, for all that there should be. Forgets the others, the links of
    /// slots that do not hold the same card any more, and how long answers usually take. Returns what is forgotten.
    pub fn accept(&mut self, listed: &[Gpu], now: Moment) -> Vec<Forgotten> {
        let mut forgotten = Vec::new();
        let mut same_slots = BTreeSet::new();
        for mut card in std::mem::take(&mut self.inventory) {
            if let Some(seen) = listed.iter().find(|seen| seen.id == card.id) {
                let slot = seen.pci.clone().or(card.pci.clone());
                if slot == card.pci {
                    same_slots.extend(slot.clone());
                }
                card.pci = slot;
                self.inventory.push(card);
                continue;
            }
            self.silent.remove(&card.id);
            self.wanted.remove(&card.id);
            self.power.remove(&card.id);
            // Where nothing is remembered any more, the kernel's old lines are an address's.
            self.recovered.extend(card.pci.map(|pci| (pci, now)));
            self.recovered.insert(card.id.clone(), now);
            forgotten.push(Forgotten::new(Kind::Gpu, card.id, card.name));
        }
        forgotten.extend(self.levels.keep_slots(&same_slots));
        self.usual_answer_s = None;
        self.answers.clear();
        forgotten
    }

    fn count_programs(&mut self, cards: &[Gpu], now: Moment) {
        let programs: Option<u32> = cards.iter().map(|card| card.processes).sum();
        let all_well = cards.iter().all(|card| card.state == GpuState::Ok);
        self.unused = all_well && programs == Some(0);
        if programs.is_some_and(|programs| programs > 0) {
            self.used = Some(now);
        }
    }

    fn time(&mut self, took: Duration) {
        self.answers.push_back(took);
        if self.answers.len() < USUALLY {
            return;
        }
        let median = median(self.answers.iter().copied()).as_secs_f64();
        if self
            .usual_answer_s
            .is_none_or(|usual| median < usual * USUAL_NEWS)
        {
            self.usual_answer_s = Some(median);
        }
        self.answers.pop_front();
    }

    /// The answers of now and the usual ones, where they are slow.
    fn slow(&self) -> Option<(Duration, Duration)> {
        let usual = Duration::try_from_secs_f64(self.usual_answer_s?).ok()?;
        let lately = self.answers.iter().rev().take(LATELY).copied();
        let now = (LATELY <= self.answers.len()).then(|| median(lately))?;
        (usual.mul_f64(SLOW_TIMES).max(SLOW_LEAST) < now).then_some((now, usual))
    }

    /// Cards that drew nearly all they may when they were last read, by id, with the evidence.
    #[must_use]
    pub fn at_full_power(&self) -> Vec<(String, String)> {
        let full = self
            .power
            .iter()
            .filter(|(_, (power, limit))| limit * FULL_POWER <= *power);
        full.map(|(id, (power, limit))| {
            let evidence = format!("it last drew {power:.0} of {limit:.0} W");
            (id.clone(), evidence)
        })
        .collect()
    }

    /// Whether all programs have just let go of the cards, which are well: containers that have lost their devices.
    #[must_use]
    pub fn let_go(&self, now: Moment) -> bool {
        self.unused && self.used.is_some_and(|used| now - used <= LET_GO)
    }

    /// The card at a PCI address, by UUID where one has been seen there.
    pub(super) fn at_pci(&self, pci: &str) -> Subject {
        self.known_at(pci)
            .unwrap_or_else(|| Subject::Gpu(pci.to_owned()))
    }

    /// The card at a PCI address, where one has been seen there.
    pub(super) fn known_at(&self, pci: &str) -> Option<Subject> {
        let mut cards = self.inventory.iter();
        let known = cards.find(|card| card.pci.as_deref() == Some(pci))?;
        Some(Subject::Gpu(known.id.clone()))
    }

    /// Whether something that happened to a card until `last` is history: the card was gone and came back.
    pub(super) fn is_history(&self, card: &Subject, last: Moment) -> bool {
        let recovered = card.gpu().and_then(|id| self.recovered.get(id));
        recovered.is_some_and(|recovered| *recovered > last)
    }
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<Duration> = times.collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// All rules for GPUs.
pub fn observe(look: Look<'_>, memory: &GpuMemory, found: &mut Found) {
    gpu_kernel::xids(look, memory, found);
    match look.seen.gpus {
        Reading::Ok { value: gpus, .. } => {
            probe(look, gpus, memory, found);
            for card in &gpus.cards {
                lost(card, found);
            }
            missing(look, gpus, memory, found);
            stuck(look, gpus, found);
            slow(memory, found);
            gpu_levels::observe(look, gpus, &memory.levels, found);
        }
        Reading::Pending | Reading::Failed { .. } => found.unsure_of(is_of_gpu),
        Reading::Off => {}
    }
    gpu_kernel::faults(look, memory, found);
}

/// What only a reading of the cards can end.
fn is_of_gpu(code: Code) -> bool {
    let of_probe = [
        Code::GpuLost,
        Code::GpuMissing,
        Code::GpuHung,
        Code::GpuProbeCrashed,
        Code::GpuDriver,
        Code::GpuSlowAnswers,
    ];
    of_probe.contains(&code) || gpu_levels::CODES.contains(&code)
}

/// Whether the cards are listed: the probe answers, or its trouble is one card's.
fn names_cards(probe: &Probe) -> bool {
    *probe == Probe::Answering || probe.card().is_some()
}

/// `gpu.driver`, `gpu.hung`, `gpu.probe_crashed`: cards can't be asked.
fn probe(look: Look<'_>, gpus: &Gpus, memory: &GpuMemory, found: &mut Found) {
    let always = look.config.gpu.enabled == Enabled::Always;
    let had_cards = !memory.inventory.is_empty();
    let mut driver = |advice, evidence| {
        let (code, severity) = (Code::GpuDriver, Severity::Failing);
        found.push(Observed::state(
            code,
            Subject::Gpus,
            severity,
            advice,
            evidence,
        ));
    };
    match &gpus.probe {
        Probe::NoLibrary { why } if always || had_cards => {
            driver(Advice::Inspect, format!("NVML can't be loaded: {why}"));
        }
        Probe::Driver { why }
            if always
                || had_cards
                || !gpus.pci.is_empty()
                || !look.config.gpu.library.is_empty() =>
        {
            driver(Advice::Reboot, format!("NVML does not start: {why}"));
        }
        Probe::Answering
        | Probe::NoLibrary { .. }
        | Probe::Driver { .. }
        | Probe::Hung { .. }
        | Probe::Crashed { .. } => {}
    }
    // The latest trouble is among the pinned ones, unless it is no single card's.
    let troubles = || {
        let other = (!gpus.troubles.contains(&gpus.probe)).then_some(&gpus.probe);
        gpus.troubles.iter().chain(other)
    };
    for trouble in troubles() {
        if let Probe::Hung { call, .. } = trouble {
            let call = call.as_deref().unwrap_or("NVML");
            let limit = crate::config::units::format_duration(look.config.gpu.deadline);
            found.push(Observed::state(
                Code::GpuHung,
                blamed(trouble),
                Severity::Failing,
                Advice::Reboot,
                format!("{call} did not answer within {limit}"),
            ));
        }
    }
    crashed(gpus, troubles(), found);
}

/// The card that trouble is pinned to, or all.
fn blamed(trouble: &Probe) -> Subject {
    let card = trouble.card().map(str::to_owned);
    card.map_or(Subject::Gpus, Subject::Gpu)
}

/// `gpu.probe_crashed`. A library that crashes is no proof of dead hardware, so the first times count little; and a
/// crash that belongs to no card costs the healthy ones nothing, as long as one can still be read.
fn crashed<'a>(gpus: &Gpus, troubles: impl Iterator<Item = &'a Probe>, found: &mut Found) {
    let limit = Timing::window(Code::GpuProbeCrashed).count;
    let mut crashes = Vec::new();
    for trouble in troubles {
        if let Probe::Crashed {
            how,
            count,
            call,
            at,
            ..
        } = trouble
        {
            let evidence = match call {
                Some(call) => format!("the GPU probe {how} in {call}"),
                None => format!("the GPU probe {how}"),
            };
            crashes.push((blamed(trouble), *count, *at, evidence));
        }
    }
    let total: u64 = crashes.iter().map(|(_, count, ..)| count).sum();
    let blind = !gpus.cards.iter().any(|card| card.state == GpuState::Ok);
    // One that several cards, or none, have a part in is the library's.
    let shared = crashes.len() > 1
        || crashes
            .iter()
            .any(|(subject, ..)| *subject == Subject::Gpus);
    if blind && shared && total >= limit {
        let latest = crashes.pop();
        crashes.clear();
        crashes.extend(latest.map(|(.., at, evidence)| (Subject::Gpus, total, at, evidence)));
    }
    for (subject, count, at, evidence) in crashes {
        let severity = match count >= limit && (blind || subject != Subject::Gpus) {
            true => Severity::Failing,
            false => Severity::Degraded,
        };
        let code = Code::GpuProbeCrashed;
        let crash = Observed::state(code, subject, severity, Advice::Inspect, evidence);
        found.push(crash.held(count, at, at));
    }
}

/// `gpu.lost`: NVML says `GPU_IS_LOST`.
fn lost(card: &Gpu, found: &mut Found) {
    if card.state == GpuState::Lost {
        let evidence = match &card.pci {
            Some(pci) => format!("NVML: GPU {pci} is lost"),
            None => "NVML: GPU is lost".to_owned(),
        };
        let subject = Subject::Gpu(card.id.clone());
        found.push(Observed::state(
            Code::GpuLost,
            subject,
            Severity::Failing,
            Advice::Reboot,
            evidence,
        ));
    }
}

/// `gpu.missing`: fewer cards than there should be.
fn missing(look: Look<'_>, gpus: &Gpus, memory: &GpuMemory, found: &mut Found) {
    if !names_cards(&gpus.probe) {
        return found.unsure_of(|code| code == Code::GpuMissing);
    }
    let mut miss = |subject, evidence| {
        found.push(Observed::state(
            Code::GpuMissing,
            subject,
            Severity::Failing,
            Advice::Inspect,
            evidence,
        ));
    };
    match look.config.gpu.expected {
        Expected::Remember(_) => {
            for card in &memory.inventory {
                if !gpus.cards.iter().any(|seen| seen.id == card.id) {
                    let name = card.name.as_deref().unwrap_or("GPU");
                    let pci = card.pci.as_deref().unwrap_or("an unknown slot");
                    let bus = on_the_bus(gpus, card.pci.as_deref());
                    let subject = Subject::Gpu(card.id.clone());
                    miss(subject, format!("{name} in {pci} is no longer listed{bus}"));
                }
            }
            if look.config.gpu.enabled == Enabled::Always
                && gpus.cards.is_empty()
                && memory.inventory.is_empty()
            {
                miss(Subject::Gpus, "NVML lists no GPU".to_owned());
            }
        }
        Expected::Count(expected) => {
            let listed = gpus.cards.len();
            if listed < expected as usize {
                miss(
                    Subject::Gpus,
                    format!("{listed} of {expected} expected GPUs are listed"),
                );
            }
        }
    }
}

/// What the PCI bus shows where a card should be.
fn on_the_bus(gpus: &Gpus, pci: Option<&str>) -> String {
    let Some(pci) = pci else {
        return String::new();
    };
    let there = gpus.bus.iter().find(|there| there.pci == pci);
    match there {
        Some(PciGpu {
            answers: Some(false),
            ..
        }) => "; it is on the PCI bus and does not answer there".to_owned(),
        Some(PciGpu { driver: None, .. }) => {
            "; it is on the PCI bus, and no driver holds it".to_owned()
        }
        Some(PciGpu {
            driver: Some(driver),
            ..
        }) => format!("; it is on the PCI bus, held by {driver}"),
        None if gpus.bus.is_empty() => String::new(),
        None => "; the PCI bus does not show it either".to_owned(),
    }
}

/// `gpu.hung`: programs sleep in the driver and can't be killed, though the driver answers us.
fn stuck(look: Look<'_>, gpus: &Gpus, found: &mut Found) {
    let stuck: Vec<String> = gpus
        .stuck
        .iter()
        .filter(|process| STUCK <= look.now.moment - process.since)
        .map(|process| format!("{} ({})", process.name, process.pid))
        .collect();
    if !stuck.is_empty() {
        let evidence = format!(
            "sleeping in NVIDIA's driver for more than a minute: {}",
            stuck.join(", ")
        );
        let (code, severity, advice) = (Code::GpuHung, Severity::Degraded, Advice::Reboot);
        found.push(Observed::state(
            code,
            Subject::Gpus,
            severity,
            advice,
            evidence,
        ));
    }
}

/// `gpu.slow_answers`: the driver is busy with something else, often with a card that is about to go.
fn slow(memory: &GpuMemory, found: &mut Found) {
    if let Some((now, usual)) = memory.slow() {
        let evidence = format!(
            "NVML takes {:.1} s to answer, usually {:.0} ms",
            now.as_secs_f64(),
            usual.as_secs_f64() * 1000.0
        );
        let (code, severity, advice) = (Code::GpuSlowAnswers, Severity::Degraded, Advice::Inspect);
        found.push(Observed::state(
            code,
            Subject::Gpus,
            severity,
            advice,
            evidence,
        ));
    }
}
