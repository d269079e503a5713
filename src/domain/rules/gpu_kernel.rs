//! Rules for GPUs in the driver's words: Xids, and what it says without one.

use std::collections::BTreeMap;

use super::Look;
use super::gpu::GpuMemory;
use crate::domain::finding::{Advice, Code, Severity, Subject};
use crate::domain::findings::{Found, Observed};
use crate::domain::kernel_event::KernelEvent;
use crate::domain::kernel_facts::KernelFact;
use crate::domain::moment::Moment;
use crate::domain::xid::{self, Repeats};

/// "GPU recovery action changed".
const RECOVERY_ACTION: u32 = 154;

/// `gpu.lost`, `gpu.driver`, `gpu.hung` from kernel lines without an Xid; they hold until the card has come back.
pub(super) fn faults(look: Look<'_>, memory: &GpuMemory, found: &mut Found) {
    let Some(kernel) = look.seen.kernel.value() else {
        return;
    };
    for fact in &kernel.facts {
        let (code, pci, advice) = if let KernelEvent::GpuFellOff { pci } = &fact.event {
            (Code::GpuLost, pci, Advice::Reboot)
        } else if let KernelEvent::GpuInitFailed { pci } = &fact.event {
            (Code::GpuDriver, pci, Advice::Reboot)
        } else if let KernelEvent::GpuFirmware { pci } = &fact.event {
            (Code::GpuHung, pci, Advice::ResetGpu)
        } else {
            continue;
        };
        let subject = pci.as_ref().map_or(Subject::Gpus, |pci| memory.at_pci(pci));
        let known_by_nvml = found
            .observed
            .iter()
            .any(|seen| seen.code == code && seen.subject == subject);
        if !known_by_nvml && !memory.is_history(&subject, fact.last) {
            let (severity, evidence) = (Severity::Failing, fact.evidence.clone());
            let fault = Observed::state(code, subject, severity, advice, evidence);
            found.push(fault.held(fact.count, fact.first, fact.last));
        }
    }
}

/// `gpu.xid.<N>`: what the kernel and NVML report, judged by NVIDIA's catalog; the numbers of one card together.
pub(super) fn xids(look: Look<'_>, memory: &GpuMemory, found: &mut Found) {
    for (subject, cards) in by_card(look, memory) {
        // The driver itself says when a card needs nothing any more: that it has been reset.
        let healed = cards.get(&RECOVERY_ACTION).and_then(|seen| {
            let text = seen.fact.map_or("", |fact| fact.evidence.as_str());
            let wants_nothing = xid::judge(RECOVERY_ACTION, text).0 == Severity::Info;
            wants_nothing.then_some(seen.last)
        });
        let is_over = |seen: &XidSeen<'_>| {
            memory.is_history(&subject, seen.last) || healed.is_some_and(|at| seen.last < at)
        };
        let seen: Vec<xid::Seen<'_>> = cards
            .iter()
            .filter(|(number, seen)| !xid::persists(**number) || !is_over(seen))
            .map(|(number, seen)| {
                let text = seen.fact.map_or("", |fact| fact.evidence.as_str());
                let (severity, advice) = xid::judge(*number, text);
                let last = seen.last;
                xid::Seen {
                    number: *number,
                    text,
                    last,
                    severity,
                    advice,
                }
            })
            .collect();
        let judged = xid::combine(&seen);
        for (one, (mut severity, mut advice)) in seen.iter().zip(judged) {
            let XidSeen {
                count,
                first,
                last,
                fact,
            } = cards[&one.number];
            let programs = fact.map_or(0, |fact| {
                fact.processes_within(xid::PROGRAMS_WITHIN, look.now.moment)
            });
            if xid::look_up(one.number).repeats == Repeats::DifferentProcesses
                && xid::PROGRAMS <= programs
                && severity < xid::REPEATED.0
            {
                (severity, advice) = xid::REPEATED;
            }
            let evidence = match one.text {
                "" => format!(
                    "NVML: Xid {} ({})",
                    one.number,
                    xid::look_up(one.number).name
                ),
                text => text.to_owned(),
            };
            let code = Code::GpuXid(one.number);
            let xid = Observed::state(code, subject.clone(), severity, advice, evidence);
            found.push(match xid::persists(one.number) {
                true => xid.held(count, first, last),
                false => xid.events(count, first, last),
            });
        }
    }
}

/// Every Xid of every card, from whichever of the two sources saw it.
fn by_card<'a>(
    look: Look<'a>,
    memory: &GpuMemory,
) -> BTreeMap<Subject, BTreeMap<u32, XidSeen<'a>>> {
    let mut cards: BTreeMap<Subject, BTreeMap<u32, XidSeen<'_>>> = BTreeMap::new();
    if let Some(kernel) = look.seen.kernel.value() {
        for fact in &kernel.facts {
            if let KernelEvent::Xid { pci, number } = &fact.event {
                let card = cards.entry(memory.at_pci(pci)).or_default();
                card.insert(*number, XidSeen::kernel(fact));
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
            let card = cards.entry(Subject::Gpu(total.gpu.clone())).or_default();
            card.entry(total.number)
                .and_modify(|both| both.merge(&seen))
                .or_insert(seen);
        }
    }
    cards
}

/// One Xid of one card, from whichever of the two sources saw it; both see the same events.
#[derive(Clone, Copy)]
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
