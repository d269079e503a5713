//! Rules for GPUs: lost, missing, hung, driver, heat and Xids.

use std::collections::{BTreeMap, BTreeSet};

use super::Look;
use crate::config::{Enabled, Expected};
use crate::domain::finding::{Advice, Code, Severity, Subject};
use crate::domain::findings::{Found, Observed};
use crate::domain::kernel_line::{KernelEvent, KernelFact};
use crate::domain::memory::RememberedGpu;
use crate::domain::moment::Moment;
use crate::domain::snapshot::{Gpu, GpuState, Gpus, Probe};
use crate::domain::xid;

/// Different programs that have to hit the same application fault on one card before the card is blamed.
/// Source: NVIDIA's catalog restarts the application first and runs diagnostics on repetition.
const BLAMES_THE_CARD: usize = 3;

/// Below the card's own slowdown limit, this is where heat is worth a look.
const BELOW_SLOWDOWN_C: f64 = 5.0;

/// Where a card does not tell its limit.
const HOT_C: f64 = 90.0;

/// What the rules know of the cards beyond the latest reading.
#[derive(Debug, Clone, Default)]
pub struct GpuMemory {
    /// Cards that have been seen here, by UUID.
    pub inventory: Vec<RememberedGpu>,
    /// Cards that do not answer now.
    silent: BTreeSet<String>,
    /// When a card last came back after it had not answered: faults before that are history.
    recovered: BTreeMap<String, Moment>,
    /// Which reading was taken in last.
    taken_in: Option<Moment>,
}

impl GpuMemory {
    /// What an earlier life of the agent had seen.
    #[must_use]
    pub fn new(inventory: Vec<RememberedGpu>) -> Self {
        GpuMemory {
            inventory,
            ..GpuMemory::default()
        }
    }

    /// Takes in one reading: new cards, and those that came back. Returns whether the inventory grew.
    pub fn take_in(&mut self, gpus: &Gpus, now: Moment) -> bool {
        if gpus.probe != Probe::Answering {
            // A driver that does not start or a probe that hangs says nothing of a single card; but once it
            // answers again, whatever was wrong has been reset or reloaded.
            if matches!(gpus.probe, Probe::Driver { .. } | Probe::NoLibrary { .. }) {
                self.silent
                    .extend(self.inventory.iter().map(|card| card.id.clone()));
            }
            return false;
        }
        if gpus.cards_at == self.taken_in {
            return false;
        }
        self.taken_in = gpus.cards_at;
        let known = self.inventory.len();
        for card in &gpus.cards {
            match card.state {
                GpuState::Ok => {
                    if self.silent.remove(&card.id) {
                        self.recovered.insert(card.id.clone(), now);
                    }
                    // Only a card that answers can be sure of its own name.
                    self.remember(card);
                }
                GpuState::Lost | GpuState::Hung => {
                    self.silent.insert(card.id.clone());
                }
                GpuState::Unknown => {}
            }
        }
        for card in &self.inventory {
            if !gpus.cards.iter().any(|seen| seen.id == card.id) {
                self.silent.insert(card.id.clone());
            }
        }
        self.inventory.len() > known
    }

    fn remember(&mut self, card: &Gpu) {
        if card.id.is_empty() || self.inventory.iter().any(|known| known.id == card.id) {
            return;
        }
        self.inventory.push(RememberedGpu {
            id: card.id.clone(),
            name: card.name.clone(),
            pci: card.pci.clone(),
            serial: card.serial.clone(),
        });
    }

    /// The card at a PCI address, by UUID where one has been seen there.
    fn at_pci(&self, pci: &str) -> Subject {
        let known = self
            .inventory
            .iter()
            .find(|card| card.pci.as_deref() == Some(pci));
        Subject::Gpu(known.map_or_else(|| pci.to_owned(), |card| card.id.clone()))
    }

    /// Whether something that happened to a card until `last` is history: the card was gone and came back.
    fn is_history(&self, card: &Subject, last: Moment) -> bool {
        let recovered = card.gpu().and_then(|id| self.recovered.get(id));
        recovered.is_some_and(|recovered| *recovered > last)
    }
}

/// All rules for GPUs.
pub fn observe(look: Look<'_>, memory: &GpuMemory, found: &mut Found) {
    if let Some(gpus) = look.seen.gpus.value() {
        probe(look, gpus, memory, found);
        for card in &gpus.cards {
            lost(card, found);
            hot(look, card, found);
        }
        missing(look, gpus, memory, found);
    }
    kernel_faults(look, memory, found);
    xids(look, memory, found);
}

/// `gpu.driver`, `gpu.hung`, `gpu.probe_crashed`: the cards can't be asked.
fn probe(look: Look<'_>, gpus: &Gpus, memory: &GpuMemory, found: &mut Found) {
    let always = look.config.gpu.enabled == Enabled::Always;
    let had_cards = !memory.inventory.is_empty();
    let failing = |code, advice, evidence| {
        Observed::state(code, Subject::Gpus, Severity::Failing, advice, evidence)
    };
    match &gpus.probe {
        Probe::Answering => {}
        Probe::NoLibrary { why } => {
            if always || had_cards {
                let evidence = format!("NVML can't be loaded: {why}");
                found.push(failing(Code::GpuDriver, Advice::Inspect, evidence));
            }
        }
        Probe::Driver { why } => {
            if always || had_cards || !gpus.pci.is_empty() || !look.config.gpu.library.is_empty() {
                let evidence = format!("NVML does not start: {why}");
                found.push(failing(Code::GpuDriver, Advice::Reboot, evidence));
            }
        }
        Probe::Hung { call, .. } => {
            let call = call.as_deref().unwrap_or("NVML");
            let evidence = format!(
                "{call} did not answer within {}",
                crate::config::units::format_duration(look.config.gpu.deadline)
            );
            found.push(failing(Code::GpuHung, Advice::Reboot, evidence));
        }
        Probe::Crashed { how, count, at } => {
            let evidence = format!("the GPU probe {how}");
            let crash = failing(Code::GpuProbeCrashed, Advice::Inspect, evidence);
            found.push(crash.held(*count, *at, *at));
        }
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
    if gpus.probe != Probe::Answering {
        return;
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
                    miss(
                        Subject::Gpu(card.id.clone()),
                        format!("{name} in {pci} is no longer listed"),
                    );
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

/// `gpu.hot`.
fn hot(look: Look<'_>, card: &Gpu, found: &mut Found) {
    let Some(temperature) = card.temperature_c else {
        return;
    };
    let limit = look
        .config
        .judge
        .gpu_celsius
        .map(f64::from)
        .or_else(|| card.slowdown_c.map(|slowdown| slowdown - BELOW_SLOWDOWN_C))
        .unwrap_or(HOT_C);
    if temperature >= limit {
        let evidence = format!("{temperature:.0} °C, hot from {limit:.0} °C");
        let subject = Subject::Gpu(card.id.clone());
        found.push(Observed::state(
            Code::GpuHot,
            subject,
            Severity::Degraded,
            Advice::Inspect,
            evidence,
        ));
    }
}

/// `gpu.lost` and `gpu.driver` from kernel lines without an Xid; they hold until the card has come back.
fn kernel_faults(look: Look<'_>, memory: &GpuMemory, found: &mut Found) {
    let Some(kernel) = look.seen.kernel.value() else {
        return;
    };
    for fact in &kernel.facts {
        let (code, pci) = match &fact.event {
            KernelEvent::GpuFellOff { pci } => (Code::GpuLost, pci),
            KernelEvent::GpuInitFailed { pci } => (Code::GpuDriver, pci),
            KernelEvent::Xid { .. }
            | KernelEvent::GpuDriverLoaded
            | KernelEvent::OutOfMemory
            | KernelEvent::DiskIo { .. }
            | KernelEvent::FilesystemReadonly { .. } => continue,
        };
        let subject = pci.as_ref().map_or(Subject::Gpus, |pci| memory.at_pci(pci));
        let known_by_nvml = found
            .observed
            .iter()
            .any(|seen| seen.code == code && seen.subject == subject);
        if !known_by_nvml && !memory.is_history(&subject, fact.last) {
            found.push(
                Observed::state(
                    code,
                    subject,
                    Severity::Failing,
                    Advice::Reboot,
                    fact.evidence.clone(),
                )
                .held(fact.count, fact.first, fact.last),
            );
        }
    }
}

/// `gpu.xid.<N>`: what the kernel and NVML report, judged by NVIDIA's catalog.
fn xids(look: Look<'_>, memory: &GpuMemory, found: &mut Found) {
    let mut totals: BTreeMap<(u32, Subject), XidSeen<'_>> = BTreeMap::new();
    if let Some(kernel) = look.seen.kernel.value() {
        for fact in &kernel.facts {
            if let KernelEvent::Xid { pci, number } = &fact.event {
                totals.insert((*number, memory.at_pci(pci)), XidSeen::kernel(fact));
            }
        }
    }
    if let Some(gpus) = look.seen.gpus.value() {
        for total in &gpus.xids {
            let seen = XidSeen {
                count: total.count,
                first: total.first,
                last: total.last,
                fact: None,
            };
            totals
                .entry((total.number, Subject::Gpu(total.gpu.clone())))
                .and_modify(|both| both.merge(&seen))
                .or_insert(seen);
        }
    }
    for ((number, subject), seen) in totals {
        let evidence = seen.fact.map_or("", |fact| fact.evidence.as_str());
        let (mut severity, mut advice) = xid::judge(number, evidence);
        let persists = xid::persists(number);
        if persists && memory.is_history(&subject, seen.last) {
            continue;
        }
        let programs = seen.fact.map_or(0, |fact| fact.processes.len());
        if severity == Severity::Info && advice == Advice::RestartApp && programs >= BLAMES_THE_CARD
        {
            (severity, advice) = (Severity::Degraded, Advice::Inspect);
        }
        let evidence = if evidence.is_empty() {
            format!("NVML: Xid {number} ({})", xid::look_up(number).name)
        } else {
            evidence.to_owned()
        };
        let xid = Observed::state(Code::GpuXid(number), subject, severity, advice, evidence);
        let XidSeen {
            count, first, last, ..
        } = seen;
        found.push(match persists {
            true => xid.held(count, first, last),
            false => xid.events(count, first, last),
        });
    }
}

/// One Xid of one card, from whichever of the two sources saw it; both see the same events.
struct XidSeen<'a> {
    count: u64,
    first: Moment,
    last: Moment,
    fact: Option<&'a KernelFact>,
}

impl<'a> XidSeen<'a> {
    fn kernel(fact: &'a KernelFact) -> Self {
        XidSeen {
            count: fact.count,
            first: fact.first,
            last: fact.last,
            fact: Some(fact),
        }
    }

    fn merge(&mut self, other: &XidSeen<'_>) {
        self.count = self.count.max(other.count);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}
