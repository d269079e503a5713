//! Kernel lines → running totals: what one boot's log has said of the hardware so far.

use std::time::Duration;

use super::kernel_event::event;
use super::kernel_line::{EVIDENCE, KernelEvent, KernelFact, KernelLine, PROCESSES, Stamp};
use super::moment::{Moment, Now};
use super::snapshot::KernelLog;

/// How many kinds of event are remembered at most.
pub const FACTS: usize = 256;

/// A stamp may be so far ahead of now and still be of this boot: the kernel's log clock is not the one
/// that time is kept with.
const AHEAD: Duration = Duration::from_secs(60);

impl KernelLog {
    /// Takes one line in. Returns whether it changed what is known; lines of another boot change nothing.
    pub fn note(&mut self, line: &KernelLine<'_>, now: Now) -> bool {
        let Some((event, process)) = event(&line.text) else {
            return false;
        };
        let Some(at) = line.stamp.moment(now) else {
            return false;
        };
        if event == KernelEvent::GpuDriverLoaded {
            self.facts
                .retain(|fact| !fact.event.is_of_gpu() || at < fact.last);
        }
        match self.facts.iter_mut().find(|fact| fact.event == event) {
            Some(fact) => fact.again(at, process, &line.text),
            None => self.add(event, at, process, &line.text),
        }
        true
    }

    fn add(&mut self, event: KernelEvent, at: Moment, process: Option<u32>, text: &str) {
        if self.facts.len() >= FACTS {
            let oldest = self
                .facts
                .iter()
                .enumerate()
                .min_by_key(|(_, fact)| fact.last);
            if let Some((oldest, _)) = oldest {
                self.facts.remove(oldest);
            }
        }
        self.facts.push(KernelFact {
            event,
            count: 1,
            first: at,
            last: at,
            processes: process.into_iter().collect(),
            evidence: evidence(text),
        });
    }
}

impl KernelFact {
    fn again(&mut self, at: Moment, process: Option<u32>, text: &str) {
        self.count = self.count.saturating_add(1);
        self.first = self.first.min(at);
        if self.last <= at {
            self.last = at;
            self.evidence = evidence(text);
        }
        if let Some(process) = process
            && self.processes.len() < PROCESSES
            && !self.processes.contains(&process)
        {
            self.processes.push(process);
        }
    }
}

impl Stamp {
    /// The moment that the stamp tells, no later than now; `None` for one that does not fit this boot:
    /// wall time before the machine started, or more time since the start than has passed.
    #[must_use]
    pub fn moment(self, now: Now) -> Option<Moment> {
        let at = match self {
            Stamp::None => now.moment,
            Stamp::SinceBoot(micros) => Moment::after_boot(Duration::from_micros(micros)),
            Stamp::Wall(wall) => return Some(now.moment_at(wall)?.min(now.moment)),
        };
        (at <= now.moment + AHEAD).then_some(at.min(now.moment))
    }
}

/// What is kept of a line: no control characters, which could fool a terminal, and not too much of it.
fn evidence(text: &str) -> String {
    text.chars()
        .take(EVIDENCE)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    const XID: &str = "NVRM: Xid (PCI:0000:01:00): 79, GPU has fallen off the bus.";

    fn now(seconds: u64) -> Now {
        Now {
            moment: Moment::after_boot(Duration::from_secs(seconds)),
            wall: "2026-11-22T12:00:00Z".parse().unwrap(),
            sure: true,
        }
    }

    fn said(text: &str, stamp: Stamp) -> KernelLine<'_> {
        KernelLine {
            stamp,
            text: text.into(),
        }
    }

    #[test]
    fn stamps_of_another_boot_do_not_count() {
        let wall = |text: &str| Stamp::Wall(text.parse::<Timestamp>().unwrap());
        for (stamp, at) in [
            (Stamp::None, Some(1000)),
            (Stamp::SinceBoot(40_000_000), Some(40)),
            (Stamp::SinceBoot(1_059_000_000), Some(1000)),
            (Stamp::SinceBoot(1_061_000_000), None),
            (Stamp::SinceBoot(u64::MAX), None),
            (wall("2026-11-22T11:59:00Z"), Some(940)),
            (wall("2026-11-22T11:30:00Z"), None),
            (wall("2026-11-22T14:00:00Z"), Some(1000)),
        ] {
            let mut log = KernelLog::default();
            assert_eq!(log.note(&said(XID, stamp), now(1000)), at.is_some());
            let seen = log
                .facts
                .first()
                .map(|fact| fact.last.since_boot().as_secs());
            assert_eq!(seen, at, "{stamp:?}");
        }
    }

    #[test]
    fn events_of_one_kind_add_up() {
        let mut log = KernelLog::default();
        for pid in [7, 8, 7, 9, 10, 11, 12, 13, 14, 15] {
            let line = format!("NVRM: Xid (PCI:0000:01:00): 31, pid={pid}, name=x, Ch\u{1b}[2J");
            assert!(log.note(&said(&line, Stamp::SinceBoot(pid * 1_000_000)), now(100)));
        }
        assert!(!log.note(&said("usb 1-1: new device", Stamp::None), now(100)));
        let [fact] = &log.facts[..] else {
            panic!("one kind of event, not {}", log.facts.len());
        };
        assert_eq!((fact.count, fact.processes.len()), (10, PROCESSES));
        assert_eq!(fact.first, now(7).moment);
        assert_eq!(fact.last, now(15).moment);
        assert!(fact.evidence.ends_with("name=x, Ch [2J"));
    }

    #[test]
    fn evidence_is_cut() {
        let mut log = KernelLog::default();
        let long = format!("{XID}{}", "ä".repeat(1 << 20));
        assert!(log.note(&said(&long, Stamp::None), now(1)));
        assert_eq!(log.facts[0].evidence.chars().count(), EVIDENCE);
    }

    #[test]
    fn a_fresh_driver_forgets_the_cards_past_and_not_the_disks() {
        let mut log = KernelLog::default();
        for (second, text) in [
            (1, XID),
            (2, "I/O error, dev sda, sector 1"),
            (
                3,
                "NVRM: loading NVIDIA UNIX x86_64 Kernel Module  535.161.07",
            ),
            (
                4,
                "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x24:0xffff:1220)",
            ),
        ] {
            assert!(log.note(&said(text, Stamp::SinceBoot(second * 1_000_000)), now(10)));
        }
        let left: Vec<_> = log.facts.iter().map(|fact| fact.event.clone()).collect();
        assert_eq!(
            left,
            [
                KernelEvent::DiskIo {
                    device: "sda".into(),
                    gone: false
                },
                KernelEvent::GpuDriverLoaded,
                KernelEvent::GpuInitFailed {
                    pci: Some("0000:01:00".into())
                },
            ]
        );
    }

    #[test]
    fn the_oldest_fact_makes_room() {
        let mut log = KernelLog::default();
        for number in 0..=FACTS as u64 {
            let line = format!("NVRM: Xid (PCI:0000:01:00): {number}, x");
            log.note(&said(&line, Stamp::SinceBoot(number)), now(10));
        }
        assert_eq!(log.facts.len(), FACTS);
        assert_eq!(
            log.facts[0].last,
            Moment::after_boot(Duration::from_micros(1))
        );
    }
}
