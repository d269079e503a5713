//! Lines of a kernel log in any recording: what they mean is the same however they were recorded, and only the
//! kernel's own word counts.
//!
//! An input is a log: every line of it is read, and once all of it as one record, as /dev/kmsg yields them.

use std::fmt::Write as _;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use sideline::config::Config;
use sideline::domain::judge::{Judge, Surroundings};
use sideline::domain::kernel_event::{KernelEvent, event};
use sideline::domain::kernel_facts::{EPISODES, EVIDENCE, FACTS};
use sideline::domain::kernel_line::{KernelLine, Stamp, kmsg_sequence, parse_line};
use sideline::domain::kernel_scan::Scanner;
use sideline::domain::memory::Memory;
use sideline::domain::moment::{Moment, Now};
use sideline::domain::reading::Reading;
use sideline::domain::report::{Node, State};
use sideline::domain::snapshot::{KernelLog, Snapshot};

/// Lines of kernel log.
pub(super) fn run(input: &[u8]) {
    let now = Now {
        sure: true,
        moment: Moment::after_boot(Duration::from_secs(1_000_000)),
        wall: Timestamp::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
    };
    let text = String::from_utf8_lossy(input);
    let mut log = KernelLog::default();
    for raw in std::iter::once(&*text).chain(text.lines()) {
        let _ = kmsg_sequence(raw);
        forged(raw, now.wall);
        let Some(mut line) = parse_line(raw, now.wall) else {
            continue;
        };
        recorded_otherwise(&line, now.wall);
        if let Some(heard) = event(&line.text) {
            assert!(heard.weight >= 1);
            named(&heard.event);
        }
        if line.stamp.moment(now).is_none() {
            assert!(!log.note(&line, now), "{line:?} is of another boot");
            line.stamp = Stamp::None;
        }
        let is_event = event(&line.text).is_some();
        // The kernel and the journal write printable characters as they are.
        if is_event && !raw.contains('\n') && raw.contains(&*line.text) {
            let found = Scanner::shared().lines(raw.as_bytes()).next();
            assert_eq!(
                found,
                Some(raw.as_bytes()),
                "the scanner passes over an event"
            );
        }
        assert_eq!(log.note(&line, now), is_event, "{line:?}");
    }
    bounded(&log, now);
    judged(log, now);
}

/// What a program writes into /dev/kmsg or the journal is not the kernel's, whatever it says.
fn forged(text: &str, now: Timestamp) {
    let record = format!("12,7,1000000,-;{text}");
    assert_eq!(parse_line(&record, now), None);
    let entry = json!({
        "_TRANSPORT": "syslog", "SYSLOG_FACILITY": "0", "SYSLOG_IDENTIFIER": "kernel", "MESSAGE": text,
    });
    assert_eq!(parse_line(&entry.to_string(), now), None);
}

/// The text as the other recordings write it is read as the same text.
fn recorded_otherwise(line: &KernelLine<'_>, now: Timestamp) {
    let stamp = Stamp::SinceBoot(123_456_789);
    let expected = KernelLine {
        stamp,
        text: line.text.clone(),
    };
    let mut record = "4,1234,123456789,-;".to_owned();
    for byte in line.text.bytes() {
        // As the kernel does (printk.c, append_char).
        if (b' '..0x7f).contains(&byte) && byte != b'\\' {
            record.push(char::from(byte));
        } else {
            let _ = write!(record, "\\x{byte:02x}");
        }
    }
    assert_eq!(parse_line(&record, now).as_ref(), Some(&expected));

    let mut entry = json!({
        "_TRANSPORT": "kernel", "SYSLOG_FACILITY": "0", "_SOURCE_MONOTONIC_TIMESTAMP": "123456789",
    });
    for message in [json!(line.text), json!(line.text.as_bytes())] {
        entry["MESSAGE"] = message;
        let read = parse_line(&entry.to_string(), now).map(|read| read.text.into_owned());
        let expected = Some(line.text.to_string()).filter(|text| !text.is_empty());
        assert_eq!(read, expected);
    }
}

/// Names become subjects of findings: they are what they look like.
fn named(event: &KernelEvent) {
    match event {
        KernelEvent::Xid { pci, .. } => address(pci),
        KernelEvent::GpuFellOff { pci }
        | KernelEvent::GpuInitFailed { pci }
        | KernelEvent::GpuFirmware { pci } => {
            pci.as_deref().into_iter().for_each(address);
        }
        KernelEvent::PcieError { pci, .. } => address(pci),
        KernelEvent::DiskIo { device: name, .. }
        | KernelEvent::DiskMedium { device: name }
        | KernelEvent::FilesystemReadonly { device: name }
        | KernelEvent::FilesystemUnclean { device: name }
        | KernelEvent::RaidDegraded { array: name }
        | KernelEvent::MemoryEcc { module: name, .. }
        | KernelEvent::NicDown { nic: name }
        | KernelEvent::NicUp { nic: name }
        | KernelEvent::NicTxTimeout { nic: name } => {
            let plain = |c: char| c.is_ascii_graphic() && !"/+#".contains(c);
            assert!((1..=40).contains(&name.len()) && name.chars().all(plain));
        }
        KernelEvent::GpuDriverLoaded
        | KernelEvent::OutOfMemory
        | KernelEvent::MachineCheck { .. }
        | KernelEvent::CpuThrottled
        | KernelEvent::CpuThrottleEnded
        | KernelEvent::HungTask
        | KernelEvent::Lockup { .. }
        | KernelEvent::Oops
        | KernelEvent::Panic => {}
    }
}

/// `0000:01:00`, and read again it is the same.
fn address(pci: &str) {
    let line = format!("NVRM: Xid (PCI:{pci}): 79, x");
    let again = event(&line).map(|heard| heard.event);
    let pci = pci.to_owned();
    assert_eq!(again, Some(KernelEvent::Xid { pci, number: 79 }));
}

fn bounded(log: &KernelLog, now: Now) {
    assert!(log.facts.len() <= FACTS);
    for fact in &log.facts {
        assert!(fact.count >= 1 && fact.first <= fact.last && fact.last <= now.moment);
        assert!(fact.recent.len() <= EPISODES);
        assert!(fact.evidence.chars().count() <= EVIDENCE);
        assert!(!fact.evidence.contains(char::is_control));
    }
    let kept = serde_json::to_string(log).expect("totals can be written");
    let read: KernelLog = serde_json::from_str(&kept).expect("what was written can be read");
    assert_eq!(&read, log, "a restart changes what is known");
}

/// The kernel's word alone makes no healthy node.
fn judged(log: KernelLog, now: Now) {
    let memory = Memory::default();
    let mut judge = Judge::new(Config::default(), Node::default(), &memory, now.moment);
    let seen = Snapshot {
        host: &Reading::Pending,
        gpus: &Reading::Off,
        kernel: &Reading::ok(log, now.moment),
        drives: &Reading::Off,
        ups: &Reading::Off,
        checks: &Reading::Off,
        cameras: &[],
    };
    let judgement = judge.judge(seen, Surroundings::default(), now);
    assert_ne!(judgement.report.verdict.state, State::Healthy);
}
