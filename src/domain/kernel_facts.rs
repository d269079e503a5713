//! Kernel lines → running totals: what one boot's log has said of the hardware so far.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::kernel_event::{Heard, KernelEvent, driver_version, event, names_card};
use super::kernel_line::{KernelLine, Stamp};
use super::moment::{Moment, Now};
use super::snapshot::{Driver, KernelLog};
use super::xid::says_fatal;

/// How many kinds of event are remembered at most.
pub const FACTS: usize = 256;

/// How many characters of a line are kept as evidence at most.
pub const EVIDENCE: usize = 300;

/// How many of an event's latest episodes are remembered at most.
pub const EPISODES: usize = 32;

/// Lines of one event and process that follow each other within this are one episode: one fault prints many lines.
pub const BURST: Duration = Duration::from_secs(10);

/// A stamp may be so far ahead of now and still be of this boot: the kernel's log clock is not the one
/// that time is kept with.
const AHEAD: Duration = Duration::from_secs(60);

/// The lines of one sentence are written together.
const SENTENCE: Duration = Duration::from_secs(1);

/// Running total of one kind of event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelFact {
    /// What happened, to what.
    pub event: KernelEvent,
    /// How often: a line that stands for many events counts as many.
    pub count: u64,
    /// First time.
    pub first: Moment,
    /// Latest time.
    pub last: Moment,
    /// The latest episodes, in the order in which they began, at most `EPISODES`.
    #[serde(default)]
    pub recent: Vec<Episode>,
    /// The latest line, cut to `EVIDENCE` characters. A line of the same burst that says "fatal" stays.
    pub evidence: String,
}

/// Lines of one event and process that followed each other within `BURST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// Its latest line.
    pub last: Moment,
    /// The process that the lines name.
    pub process: Option<u32>,
}

impl KernelLog {
    /// Takes one line in. Returns whether it changed what is known; lines of another boot change nothing.
    pub fn note(&mut self, line: &KernelLine<'_>, now: Now) -> bool {
        let Some(at) = line.stamp.moment(now) else {
            return false;
        };
        let Some(mut heard) = event(&line.text) else {
            if let Some(card) = names_card(&line.text) {
                self.named = Some((card, at));
            }
            return false;
        };
        if heard.event == KernelEvent::GpuDriverLoaded {
            self.driver_loaded(&line.text, at);
        }
        if let KernelEvent::GpuFellOff { pci: pci @ None } = &mut heard.event {
            let named = self.named.take();
            let of_it = |(_, then): &(String, Moment)| *then <= at && at - *then <= SENTENCE;
            *pci = named.filter(of_it).map(|(card, _)| card);
        }
        match self.facts.iter_mut().find(|fact| fact.event == heard.event) {
            Some(fact) => fact.again(&heard, at, &line.text),
            None => self.add(heard, at, &line.text),
        }
        true
    }

    /// A fresh driver makes what the old one said of the cards history.
    fn driver_loaded(&mut self, text: &str, at: Moment) {
        self.facts
            .retain(|fact| !fact.event.is_of_gpu() || at < fact.last);
        if self.driver.as_ref().is_none_or(|known| known.loaded <= at) {
            self.driver = driver_version(text).map(|version| Driver {
                version,
                loaded: at,
            });
        }
    }

    fn add(&mut self, heard: Heard, at: Moment, text: &str) {
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
            event: heard.event,
            count: heard.weight,
            first: at,
            last: at,
            recent: vec![Episode {
                last: at,
                process: heard.process,
            }],
            evidence: evidence(text),
        });
    }
}

impl KernelFact {
    /// How many bursts of it there were in the last `window`, at most `EPISODES`.
    #[must_use]
    pub fn episodes_within(&self, window: Duration, now: Moment) -> usize {
        self.recent(window, now).count()
    }

    /// When there will be fewer than `count` bursts of it in the last `window`, if no other comes.
    #[must_use]
    pub fn fewer_at(&self, count: usize, window: Duration) -> Option<Moment> {
        // Entered in the order of their times, or nearly.
        let last = self.recent.len().checked_sub(count)?;
        Some(self.recent.get(last)?.last + window + Duration::from_millis(1))
    }

    /// How many different processes named by it in the last `window`; lines without one name none.
    #[must_use]
    pub fn processes_within(&self, window: Duration, now: Moment) -> usize {
        let mut processes = Vec::with_capacity(self.recent.len());
        for process in self
            .recent(window, now)
            .filter_map(|episode| episode.process)
        {
            if !processes.contains(&process) {
                processes.push(process);
            }
        }
        processes.len()
    }

    fn recent(&self, window: Duration, now: Moment) -> impl Iterator<Item = &Episode> {
        self.recent
            .iter()
            .filter(move |episode| now - episode.last <= window)
    }

    fn again(&mut self, heard: &Heard, at: Moment, text: &str) {
        self.count = self.count.saturating_add(heard.weight);
        self.first = self.first.min(at);
        if self.last <= at {
            let hides = at - self.last <= BURST && says_fatal(&self.evidence) && !says_fatal(text);
            self.last = at;
            if !hides {
                self.evidence = evidence(text);
            }
        }
        self.episode(heard.process, at);
    }

    fn episode(&mut self, process: Option<u32>, at: Moment) {
        let near = |episode: &&mut Episode| {
            episode.process == process && at - episode.last <= BURST && episode.last - at <= BURST
        };
        if let Some(same) = self.recent.iter_mut().rev().find(near) {
            same.last = same.last.max(at);
            return;
        }
        if self.recent.len() >= EPISODES {
            self.recent.remove(0);
        }
        self.recent.push(Episode { last: at, process });
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
#[must_use]
pub fn evidence(text: &str) -> String {
    let is_plain = |b: u8| b.is_ascii() && !b.is_ascii_control();
    if text.len() <= EVIDENCE && text.bytes().all(is_plain) {
        return text.to_owned();
    }
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
        let programs = fact.processes_within(Duration::from_secs(100), now(100).moment);
        assert_eq!((fact.count, programs), (10, 9));
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
    fn three_lines_are_one_sentence() {
        let last = "NVRM: fallen off the bus and is not responding to commands.";
        let first = "NVRM: The NVIDIA GPU 0000:05:00.0";
        // Milliseconds between the first line and the last.
        for (apart, named) in [(0, true), (900, true), (1_500, false)] {
            let mut log = KernelLog::default();
            assert!(!log.note(&said(first, Stamp::SinceBoot(1_000_000)), now(10)));
            let at = Stamp::SinceBoot(1_000_000 + apart * 1_000);
            assert!(log.note(&said(last, at), now(10)));
            assert!(
                log.note(&said(last, at), now(10)),
                "told again, without a name"
            );
            let fell_off = |pci: Option<&str>| KernelEvent::GpuFellOff {
                pci: pci.map(str::to_owned),
            };
            let seen: Vec<_> = log.facts.iter().map(|fact| fact.event.clone()).collect();
            let expected = if named {
                vec![fell_off(Some("0000:05:00")), fell_off(None)]
            } else {
                vec![fell_off(None)]
            };
            assert_eq!(seen, expected, "{apart} ms");
        }
    }

    #[test]
    fn bursts_are_one_episode_each() {
        // Seconds and processes of the lines; episodes and processes within 100 s of second 200.
        for (lines, episodes, processes) in [
            (vec![(150, 0)], 1, 0),
            (vec![(150, 7), (155, 7), (165, 7), (175, 7)], 1, 1),
            (vec![(150, 7), (161, 7)], 2, 1),
            (vec![(150, 7), (151, 8), (152, 7), (153, 8)], 2, 2),
            (vec![(150, 7), (149, 7)], 1, 1),
            (vec![(50, 7), (99, 8), (100, 9)], 1, 1),
        ] {
            let mut log = KernelLog::default();
            for (second, process) in &lines {
                let named = if *process > 0 {
                    format!("pid={process}, ")
                } else {
                    String::new()
                };
                let line = format!("NVRM: Xid (PCI:0000:01:00): 31, {named}x");
                log.note(&said(&line, Stamp::SinceBoot(second * 1_000_000)), now(200));
            }
            let window = Duration::from_secs(100);
            let fact = &log.facts[0];
            let seen = (
                fact.episodes_within(window, now(200).moment),
                fact.processes_within(window, now(200).moment),
            );
            assert_eq!(seen, (episodes, processes), "{lines:?}");
        }
    }

    #[test]
    fn episodes_are_bounded_and_lines_weighed() {
        let mut log = KernelLog::default();
        for minute in 0..100 {
            let line = said(
                "EDAC MC0: 3 CE error on DIMM_A1 (x)",
                Stamp::SinceBoot(minute * 60_000_000),
            );
            log.note(&line, now(10_000));
        }
        assert_eq!(
            (log.facts[0].count, log.facts[0].recent.len()),
            (300, EPISODES)
        );
        assert_eq!(log.facts[0].recent[EPISODES - 1].last, now(99 * 60).moment);
    }

    #[test]
    fn what_is_fatal_is_not_hidden_by_the_rest_of_its_burst() {
        let line = |how: &str| format!("NVRM: Xid (PCI:0000:01:00): 149, NETIR_LINK_EVT {how} XC0");
        for (first, second, apart, kept) in [
            ("Fatal", "Nonfatal", 1, "Fatal"),
            ("Nonfatal", "Fatal", 1, "Fatal"),
            ("Fatal", "Nonfatal", 11, "Nonfatal"),
            ("Nonfatal A", "Nonfatal B", 1, "Nonfatal B"),
        ] {
            let mut log = KernelLog::default();
            log.note(&said(&line(first), Stamp::SinceBoot(1_000_000)), now(100));
            log.note(
                &said(&line(second), Stamp::SinceBoot((1 + apart) * 1_000_000)),
                now(100),
            );
            assert_eq!(
                log.facts[0].evidence,
                line(kept),
                "{first} {second} {apart}"
            );
        }
    }

    #[test]
    fn the_drivers_version_is_kept() {
        let mut log = KernelLog::default();
        for (second, version) in [(1, "535.161.07"), (9, "580.65.06"), (5, "550.1")] {
            let line = format!("NVRM: loading NVIDIA UNIX x86_64 Kernel Module  {version}  x");
            log.note(&said(&line, Stamp::SinceBoot(second * 1_000_000)), now(10));
        }
        let expected = Driver {
            version: "580.65.06".to_owned(),
            loaded: now(9).moment,
        };
        assert_eq!(log.driver, Some(expected));
    }

    #[test]
    fn what_an_older_agent_remembered_is_still_read() {
        let kept = r#"{"position":{"kmsg":7},"gaps":1,"last_gap":null,"facts":[{"event":{"disk_io":{"device":"sda","gone":false}},
            "count":2,"first":{"secs":1,"nanos":0},"last":{"secs":2,"nanos":0},"processes":[],"evidence":"x"}]}"#;
        let log: KernelLog = serde_json::from_str(kept).unwrap();
        assert_eq!((log.facts[0].count, log.facts[0].recent.len()), (2, 0));
        assert_eq!((log.driver, log.named), (None, None));
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
