//! Rules for what a card measures of itself: heat, power, fans, memory errors, its PCIe link, its clocks.

use std::collections::{BTreeMap, BTreeSet};

use super::Look;
use crate::domain::finding::{Advice, Code, Severity, Subject};
use crate::domain::findings::{Found, Observed};
use crate::domain::inventory::{Forgotten, Kind};
use crate::domain::memory::Link;
use crate::domain::moment::Moment;
use crate::domain::rise::Rise;
use crate::domain::snapshot::{Gpu, GpuState, Gpus};
use crate::domain::timing::Timing;
use crate::domain::xid;

/// Below the card's own slowdown limit, this is where heat is worth a look.
const BELOW_SLOWDOWN_C: f64 = 5.0;

/// Where a card does not tell its limit.
const HOT_C: f64 = 90.0;

/// A fan may stand still on a cool card: many stop theirs below 50 to 60 °C.
const NEEDS_A_FAN_C: f64 = 70.0;

/// `nvmlClocksEventReasonSwPowerCap`, `…HwSlowdown`, `…SwThermalSlowdown`, `…HwThermalSlowdown`,
/// `…HwPowerBrakeSlowdown` (nvml.h).
const POWER_CAP: u64 = 0x4;
const HW_SLOWDOWN: u64 = 0x8;
const SW_THERMAL: u64 = 0x20;
const HW_THERMAL: u64 = 0x40;
const POWER_BRAKE: u64 = 0x80;

/// From so many retired pages on NVIDIA takes a card back.
/// Source: https://docs.nvidia.com/deploy/dynamic-page-retirement/
const WORN_PAGES: u64 = 60;

/// Busy enough for link and clocks to be awake.
const BUSY_PERCENT: f64 = 20.0;

/// Busy enough for the clocks to be high.
const HARD_AT_WORK_PERCENT: f64 = 80.0;

/// P0 to P2: programs run. Links and clocks go down when none does.
const AWAKE: u32 = 2;

/// Clocks below this share of the highest are stuck, where nothing holds them down.
const STUCK_CLOCK: f64 = 0.4;

/// The driver itself takes less of the memory.
const STUCK_MEMORY: f64 = 0.1;

/// Replays a minute and lane that are no fault, by PCIe generation.
/// Source: DCGM modules/health/DcgmHealthWatch.cpp (72fa3fe), from the link's bit error rate.
const REPLAYS_A_LANE: [f64; 6] = [0.15, 0.3, 0.48, 0.96, 1.92, 3.84];

/// What the rules know of the cards' levels beyond the latest reading.
#[derive(Debug, Clone, Default)]
pub struct Levels {
    /// The best link that a card has shown under load, by PCI address.
    pub links: BTreeMap<String, Link>,
    counters: BTreeMap<String, Counters>,
}

#[derive(Debug, Clone, Default)]
struct Counters {
    corrected: Rise,
    replays: Rise,
}

impl Levels {
    /// Goes on with what an earlier life of the agent had seen.
    #[must_use]
    pub fn new(links: BTreeMap<String, Link>) -> Self {
        Levels {
            links,
            counters: BTreeMap::new(),
        }
    }

    /// Takes in one reading of a card that answers.
    pub fn take_in(&mut self, card: &Gpu, now: Moment) {
        let counters = self.counters.entry(card.id.clone()).or_default();
        for (total, rise, code) in [
            (
                card.ecc_corrected,
                &mut counters.corrected,
                Code::GpuEccRate,
            ),
            (
                card.pcie_replays,
                &mut counters.replays,
                Code::GpuPcieReplays,
            ),
        ] {
            if let Some(total) = total {
                rise.take_in(total, Timing::window(code).within, now);
            }
        }
        if let (Some(pci), Some(link), true) = (&card.pci, link(card), is_at_work(card)) {
            let best = self.links.entry(pci.clone()).or_insert(link);
            *best = Link {
                generation: best.generation.max(link.generation),
                width: best.width.max(link.width),
            };
        }
    }

    /// Forgets the links of all other slots, whose cards were changed on purpose. Returns what is forgotten.
    pub fn keep_slots(&mut self, slots: &BTreeSet<String>) -> Vec<Forgotten> {
        let (kept, gone) = std::mem::take(&mut self.links)
            .into_iter()
            .partition(|(pci, _)| slots.contains(pci));
        self.links = kept;
        let forget = |(pci, link): (String, Link)| {
            let name = Some(link.to_string());
            Forgotten::new(Kind::Link, pci, name)
        };
        BTreeMap::into_iter(gone).map(forget).collect()
    }
}

/// The rules for every card that was read; of one that was not, nobody can tell.
pub fn observe(look: Look<'_>, gpus: &Gpus, memory: &Levels, found: &mut Found) {
    for card in &gpus.cards {
        if card.state != GpuState::Ok {
            for code in CODES {
                found.unsure(code, Subject::Gpu(card.id.clone()));
            }
            continue;
        }
        let mut card = Card { look, card, found };
        card.hot();
        card.held_down();
        card.fan_stopped();
        card.uncorrectable();
        card.memory_repairs();
        card.recovery_action();
        card.clocks_stuck();
        card.memory_stuck();
        let link = card.card.pci.as_ref().and_then(|pci| memory.links.get(pci));
        card.pcie_degraded(link.copied());
        if let Some(counters) = memory.counters.get(&card.card.id) {
            card.corrected(&counters.corrected);
            card.replays(&counters.replays);
        }
    }
}

/// Every code that is a level of a card.
pub const CODES: [Code; 14] = [
    Code::GpuHot,
    Code::GpuPowerBrake,
    Code::GpuHwSlowdown,
    Code::GpuFanStopped,
    Code::GpuEccUncorrectable,
    Code::GpuEccRate,
    Code::GpuRowRemapFailed,
    Code::GpuRowRemapPending,
    Code::GpuRetiredPages,
    Code::GpuRecoveryAction,
    Code::GpuPcieDegraded,
    Code::GpuPcieReplays,
    Code::GpuClocksStuck,
    Code::GpuMemoryStuck,
];

fn link(card: &Gpu) -> Option<Link> {
    Some(Link {
        generation: card.pcie_generation?,
        width: card.pcie_width?,
    })
}

/// The busiest of the card's engines.
fn busy(card: &Gpu) -> Option<f64> {
    let engines = [
        card.utilization_percent,
        card.decoder_percent,
        card.encoder_percent,
    ];
    engines.into_iter().flatten().reduce(f64::max)
}

/// Link and clocks are only worth judging while the card works.
fn is_at_work(card: &Gpu) -> bool {
    card.performance_state.is_none_or(|state| state <= AWAKE)
        && busy(card).is_some_and(|busy| BUSY_PERCENT <= busy)
}

/// One card that was read, under the rules.
struct Card<'a, 'f> {
    look: Look<'a>,
    card: &'a Gpu,
    found: &'f mut Found,
}

impl Card<'_, '_> {
    fn subject(&self) -> Subject {
        Subject::Gpu(self.card.id.clone())
    }

    fn bad(&mut self, code: Code, severity: Severity, advice: Advice, evidence: String) {
        let observed = Observed::state(code, self.subject(), severity, advice, evidence);
        self.found.push(observed);
    }

    fn unsure(&mut self, code: Code) {
        self.found.unsure(code, self.subject());
    }

    /// `gpu.hot`: by degrees, or by the margin that newer cards tell.
    fn hot(&mut self) {
        let limit = self.look.config.judge.gpu_celsius.map(f64::from);
        let limit = limit.or_else(|| Some(self.card.slowdown_c? - BELOW_SLOWDOWN_C));
        let margin = self.card.margin_c.filter(|_| limit.is_none());
        let evidence = match (self.card.temperature_c, margin) {
            (_, Some(margin)) if margin <= BELOW_SLOWDOWN_C => {
                Some(format!("{margin:.0} °C left until the card slows down"))
            }
            (_, Some(_)) => None,
            (Some(temperature), None) => {
                let limit = limit.unwrap_or(HOT_C);
                (limit <= temperature)
                    .then(|| format!("{temperature:.0} °C, hot from {limit:.0} °C"))
            }
            (None, None) => return self.unsure(Code::GpuHot),
        };
        if let Some(evidence) = evidence {
            self.bad(Code::GpuHot, Severity::Degraded, Advice::Inspect, evidence);
        }
    }

    /// `gpu.power_brake`, `gpu.hw_slowdown`. That heat or the power limit slow a busy card a little is normal.
    fn held_down(&mut self) {
        let Some(reasons) = self.card.throttle_reasons else {
            self.unsure(Code::GpuPowerBrake);
            return self.unsure(Code::GpuHwSlowdown);
        };
        if reasons & POWER_BRAKE != 0 {
            let evidence = format!("the board's power brake holds the clocks down ({reasons:#x})");
            let (code, advice) = (Code::GpuPowerBrake, Advice::Inspect);
            self.bad(code, Severity::Degraded, advice, evidence);
        } else if reasons & (HW_SLOWDOWN | HW_THERMAL) != 0 {
            let why = if reasons & HW_THERMAL != 0 {
                "heat"
            } else {
                "the card's own protection"
            };
            let evidence = format!("{why} holds the clocks down in hardware ({reasons:#x})");
            let (code, advice) = (Code::GpuHwSlowdown, Advice::Inspect);
            self.bad(code, Severity::Degraded, advice, evidence);
        }
    }

    /// `gpu.fan_stopped`.
    fn fan_stopped(&mut self) {
        let (Some(fan), Some(temperature)) = (self.card.fan_percent, self.card.temperature_c)
        else {
            return self.unsure(Code::GpuFanStopped);
        };
        if fan == 0.0 && NEEDS_A_FAN_C <= temperature {
            let evidence = format!("no fan turns at {temperature:.0} °C");
            let (code, advice) = (Code::GpuFanStopped, Advice::Replace);
            self.bad(code, Severity::Degraded, advice, evidence);
        }
    }

    /// `gpu.ecc_uncorrectable`: failing until a reset sets the counter back, but for errors that the driver says it
    /// has contained (Xid 94, and no 48 or 95).
    fn uncorrectable(&mut self) {
        let Some(errors) = self.card.ecc_uncorrected else {
            return self.unsure(Code::GpuEccUncorrectable);
        };
        if errors > 0 {
            let subject = self.subject();
            let xid = |number| {
                let code = Code::GpuXid(number);
                let mut seen = self.found.observed.iter();
                seen.any(|seen| seen.code == code && seen.subject == subject)
            };
            let contained = xid(94) && !xid(48) && !xid(95);
            let severity = if contained {
                Severity::Degraded
            } else {
                Severity::Failing
            };
            let evidence = format!("{errors} uncorrectable memory errors since the driver loaded");
            let code = Code::GpuEccUncorrectable;
            self.bad(code, severity, Advice::ResetGpu, evidence);
        }
    }

    /// `gpu.row_remap_failed`, `gpu.row_remap_pending`, `gpu.retired_pages`.
    fn memory_repairs(&mut self) {
        let card = self.card;
        match card.remap_failed {
            Some(true) => self.bad(
                Code::GpuRowRemapFailed,
                Severity::Failing,
                Advice::Replace,
                "a bad memory row could not be replaced".into(),
            ),
            Some(false) => {}
            None => self.unsure(Code::GpuRowRemapFailed),
        }
        match card.remap_pending {
            Some(true) => self.bad(
                Code::GpuRowRemapPending,
                Severity::Degraded,
                Advice::ResetGpu,
                "a bad memory row is replaced at the next reset".into(),
            ),
            Some(false) => {}
            None => self.unsure(Code::GpuRowRemapPending),
        }
        match (card.retired_pages, card.retired_pages_pending) {
            (Some(pages), _) if WORN_PAGES <= pages => {
                let evidence = format!("{pages} memory pages are retired, worn from {WORN_PAGES}");
                let (code, advice) = (Code::GpuRetiredPages, Advice::Replace);
                self.bad(code, Severity::Degraded, advice, evidence);
            }
            (_, Some(true)) => self.bad(
                Code::GpuRetiredPages,
                Severity::Degraded,
                Advice::Reboot,
                "memory pages are retired at the next reboot".into(),
            ),
            (None, None) => self.unsure(Code::GpuRetiredPages),
            (Some(_) | None, Some(false) | None) => {}
        }
    }

    /// `gpu.recovery_action` (NVML's field 230): what the driver itself wants, also for what happened before we looked.
    fn recovery_action(&mut self) {
        let Some(action) = self.card.recovery_action else {
            return self.unsure(Code::GpuRecoveryAction);
        };
        let (words, severity, advice) = xid::recovery(action);
        if severity != Severity::Info {
            let evidence = format!("the driver wants {words} (recovery action {action})");
            self.bad(Code::GpuRecoveryAction, severity, advice, evidence);
        }
    }

    /// `gpu.clocks_stuck`: hard at work and slow, though nothing that the driver names holds it down.
    fn clocks_stuck(&mut self) {
        let card = self.card;
        let clocks = card.clock_sm_mhz.zip(card.clock_sm_max_mhz);
        let (Some((clock, most)), Some(busy), Some(reasons)) =
            (clocks, card.utilization_percent, card.throttle_reasons)
        else {
            return self.unsure(Code::GpuClocksStuck);
        };
        let held_down = POWER_CAP | HW_SLOWDOWN | SW_THERMAL | HW_THERMAL | POWER_BRAKE;
        let slow = f64::from(clock) < f64::from(most) * STUCK_CLOCK;
        if HARD_AT_WORK_PERCENT <= busy && slow && reasons & held_down == 0 {
            let evidence =
                format!("{clock} of {most} MHz at {busy:.0} % load, and no reason given");
            let (code, advice) = (Code::GpuClocksStuck, Advice::ResetGpu);
            self.bad(code, Severity::Degraded, advice, evidence);
        }
    }

    /// `gpu.memory_stuck`: what a program that died has left behind. Only worth knowing: a program in another container
    /// may not be counted.
    fn memory_stuck(&mut self) {
        let card = self.card;
        let memory = card.memory_used_bytes.zip(card.memory_total_bytes);
        let (Some((used, total)), Some(programs)) = (memory, card.processes) else {
            return self.unsure(Code::GpuMemoryStuck);
        };
        if programs == 0 && total as f64 * STUCK_MEMORY <= used as f64 {
            let used = bytesize::ByteSize(used).display().iec();
            let evidence = format!("{used} in use, and no program uses the card");
            let (code, advice) = (Code::GpuMemoryStuck, Advice::ResetGpu);
            self.bad(code, Severity::Info, advice, evidence);
        }
    }

    /// `gpu.pcie_degraded`: against the best that this slot has shown, and under load only.
    fn pcie_degraded(&mut self, best: Option<Link>) {
        let (Some(now), Some(best), true) = (link(self.card), best, is_at_work(self.card)) else {
            return self.unsure(Code::GpuPcieDegraded);
        };
        if now.generation < best.generation || now.width < best.width {
            let evidence = format!("the link runs as {now}, this slot has shown {best}");
            let (code, advice) = (Code::GpuPcieDegraded, Advice::Inspect);
            self.bad(code, Severity::Degraded, advice, evidence);
        }
    }

    /// `gpu.ecc_rate`.
    fn corrected(&mut self, corrected: &Rise) {
        let limit = Timing::window(Code::GpuEccRate);
        let (errors, _) = corrected.within();
        if self.card.ecc_corrected.is_none() {
            self.unsure(Code::GpuEccRate);
        } else if limit.count <= errors {
            let evidence = format!("{errors} corrected memory errors within an hour");
            let (code, advice) = (Code::GpuEccRate, Advice::Inspect);
            self.bad(code, Severity::Degraded, advice, evidence);
        }
    }

    /// `gpu.pcie_replays`.
    fn replays(&mut self, replays: &Rise) {
        let (repeated, since) = replays.within();
        let (Some(link), Some(_)) = (link(self.card), self.card.pcie_replays) else {
            return self.unsure(Code::GpuPcieReplays);
        };
        let generation = (link.generation as usize).clamp(1, REPLAYS_A_LANE.len());
        let a_minute = REPLAYS_A_LANE[generation - 1] * f64::from(link.width);
        let minutes = since.as_secs_f64().max(60.0) / 60.0;
        if a_minute * minutes < repeated as f64 {
            let evidence = format!(
                "{repeated} PCIe replays within {minutes:.0} min, {:.0} are no fault",
                a_minute * minutes
            );
            let (code, advice) = (Code::GpuPcieReplays, Advice::Inspect);
            self.bad(code, Severity::Degraded, advice, evidence);
        }
    }
}
