//! Rules for the server: disks, memory, and what the kernel says of them.

use jiff::SignedDuration;
use std::collections::BTreeSet;

use super::Look;
use crate::domain::finding::{Advice, Code, Severity, Subject};
use crate::domain::findings::{Found, Observed};
use crate::domain::kernel_line::{KernelEvent, KernelFact};
use crate::domain::reading::Reading;
use crate::domain::snapshot::{Disk, Host};

/// A clock that is off by less is as right as clocks are.
const CLOCK_INFO: SignedDuration = SignedDuration::from_secs(5);

/// From here on it is on its way to 5 minutes, where AWS refuses signatures.
const CLOCK_DEGRADED: SignedDuration = SignedDuration::from_secs(60);

/// What the rules know of the server beyond the latest reading.
#[derive(Debug, Clone, Default)]
pub struct HostMemory {
    /// Mount points that have been writable.
    writable: BTreeSet<String>,
}

impl HostMemory {
    /// Takes in one reading.
    pub fn take_in(&mut self, host: &Host) {
        for disk in &host.disks {
            if !disk.read_only && !self.writable.contains(&disk.mount) {
                self.writable.insert(disk.mount.clone());
            }
        }
    }
}

/// All rules for the server.
pub fn observe(look: Look<'_>, memory: &HostMemory, found: &mut Found) {
    if let Some(host) = look.seen.host.value() {
        for disk in &host.disks {
            disk_full(look, disk, found);
            turned_readonly(disk, memory, found);
        }
        memory_short(look, host, found);
    }
    if let Some(kernel) = look.seen.kernel.value() {
        for fact in &kernel.facts {
            out_of_memory(fact, found);
            disk_io(look, fact, found);
            kernel_readonly(look, fact, found);
        }
    }
    kernel_log(look, found);
    clock(look, found);
}

/// `host.disk_full`.
fn disk_full(look: Look<'_>, disk: &Disk, found: &mut Found) {
    let limits = &look.config.judge;
    if disk.read_only || limits.disk_ignore.contains(&disk.mount) {
        return;
    }
    let (severity, limit) = if disk.used_percent >= limits.disk_failing_percent {
        (Severity::Failing, limits.disk_failing_percent)
    } else if disk.used_percent >= limits.disk_degraded_percent {
        (Severity::Degraded, limits.disk_degraded_percent)
    } else {
        return;
    };
    let free = bytesize::ByteSize(disk.available_bytes).display().iec();
    let evidence = format!(
        "{} is {:.1} % full ({free} free), limit {limit} %",
        disk.mount, disk.used_percent
    );
    let subject = Subject::Disk(disk.mount.clone());
    found.push(Observed::state(
        Code::HostDiskFull,
        subject,
        severity,
        Advice::Inspect,
        evidence,
    ));
}

/// `host.fs_readonly`: a file system that was writable is not any more, or gave up (`errors=remount-ro`).
fn turned_readonly(disk: &Disk, memory: &HostMemory, found: &mut Found) {
    if disk.read_only && (disk.remounts_on_error || memory.writable.contains(&disk.mount)) {
        let evidence = format!("{} on {} is mounted read-only", disk.device, disk.mount);
        let subject = Subject::Disk(disk.mount.clone());
        found.push(Observed::state(
            Code::HostFsReadonly,
            subject,
            Severity::Failing,
            Advice::Inspect,
            evidence,
        ));
    }
}

/// `host.memory`.
fn memory_short(look: Look<'_>, host: &Host, found: &mut Found) {
    let limit = look.config.judge.memory_percent;
    if let Some(used) = host.memory_used_percent.filter(|used| *used >= limit) {
        let evidence = format!("{used:.1} % of memory in use, limit {limit} %");
        found.push(Observed::state(
            Code::HostMemory,
            Subject::Host,
            Severity::Degraded,
            Advice::Inspect,
            evidence,
        ));
    }
}

/// `host.oom`.
fn out_of_memory(fact: &KernelFact, found: &mut Found) {
    if fact.event == KernelEvent::OutOfMemory {
        found.push(event(
            Code::HostOom,
            Subject::Host,
            Severity::Degraded,
            Advice::RestartApp,
            fact,
        ));
    }
}

/// `host.disk_io`: a mounted disk that is gone is failing, until the next boot.
fn disk_io(look: Look<'_>, fact: &KernelFact, found: &mut Found) {
    let KernelEvent::DiskIo { device, gone } = &fact.event else {
        return;
    };
    let carries_us = look
        .seen
        .host
        .value()
        .is_some_and(|host| host.disks.iter().any(|disk| is_on(disk, device)));
    let subject = Subject::Disk(device.clone());
    found.push(if *gone && carries_us {
        let (severity, advice) = (Severity::Failing, Advice::Replace);
        let gone = event(Code::HostDiskIo, subject, severity, advice, fact);
        gone.held(fact.count, fact.first, fact.last)
    } else {
        let (severity, advice) = (Severity::Degraded, Advice::Inspect);
        event(Code::HostDiskIo, subject, severity, advice, fact)
    });
}

/// `host.fs_readonly` in the kernel's words, until the file system is seen writable again.
fn kernel_readonly(look: Look<'_>, fact: &KernelFact, found: &mut Found) {
    let KernelEvent::FilesystemReadonly { device } = &fact.event else {
        return;
    };
    let mounted = match look.seen.host {
        Reading::Ok { value, at } if *at > fact.last => {
            value.disks.iter().find(|disk| is_on(disk, device))
        }
        Reading::Ok { .. } | Reading::Pending | Reading::Off | Reading::Failed { .. } => None,
    };
    match mounted {
        // Seen writable since, or told of by its mount point already.
        Some(disk) if !disk.read_only || disk.remounts_on_error => {}
        Some(_) | None => {
            let (subject, severity) = (Subject::Disk(device.clone()), Severity::Failing);
            let given_up = event(
                Code::HostFsReadonly,
                subject,
                severity,
                Advice::Inspect,
                fact,
            );
            found.push(given_up.held(fact.count, fact.first, fact.last));
        }
    }
}

/// `agent.kernel_log_gap`: evidence was lost, or can't be had at all.
fn kernel_log(look: Look<'_>, found: &mut Found) {
    let gap = |severity, evidence| {
        Observed::state(
            Code::AgentKernelLogGap,
            Subject::Agent,
            severity,
            Advice::None,
            evidence,
        )
    };
    match look.seen.kernel {
        Reading::Failed { why, .. } => {
            found.push(Observed {
                advice: Advice::Inspect,
                ..gap(Severity::Degraded, why.clone())
            });
        }
        Reading::Ok { value, .. } => {
            if let Some(last) = value.last_gap {
                let evidence = format!(
                    "kernel messages were overwritten before they could be read ({}×)",
                    value.gaps
                );
                found.push(gap(Severity::Info, evidence).events(value.gaps, last, last));
            }
        }
        Reading::Pending | Reading::Off => {}
    }
}

/// `host.clock`.
fn clock(look: Look<'_>, found: &mut Found) {
    let Some(ahead) = look
        .around
        .clock_offset
        .filter(|ahead| ahead.abs() >= CLOCK_INFO)
    else {
        return;
    };
    let severity = if ahead.abs() >= CLOCK_DEGRADED {
        Severity::Degraded
    } else {
        Severity::Info
    };
    let way = if ahead.is_positive() {
        "behind"
    } else {
        "ahead of"
    };
    let evidence = format!("this machine's clock is {} {way} AWS's", in_words(ahead));
    let clock = Observed::state(
        Code::HostClock,
        Subject::Host,
        severity,
        Advice::Inspect,
        evidence,
    );
    found.push(clock);
}

/// A length of time by its two largest units, `3 h 12 min`; the sign is left to the words around it.
fn in_words(length: SignedDuration) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let seconds = length.unsigned_abs().as_secs();
    let largest = UNITS.iter().position(|(unit, _)| *unit <= seconds);
    let mut left = seconds;
    let words: Vec<String> = UNITS[largest.unwrap_or(3)..]
        .iter()
        .take(2)
        .map(|(unit, name)| {
            let count = left / unit;
            left %= unit;
            format!("{count} {name}")
        })
        .collect();
    words.join(" ")
}

fn event(
    code: Code,
    subject: Subject,
    severity: Severity,
    advice: Advice,
    fact: &KernelFact,
) -> Observed {
    Observed::state(code, subject, severity, advice, fact.evidence.clone())
        .events(fact.count, fact.first, fact.last)
}

/// Whether a mounted file system lies on a device the kernel named: itself, or a partition or namespace of it.
fn is_on(disk: &Disk, device: &str) -> bool {
    let name = disk.device.rsplit('/').next().unwrap_or(&disk.device);
    match name.strip_prefix(device) {
        Some("") => true,
        Some(rest) => {
            // sda → sda1; nvme0 → nvme0n1p2; nvme0n1 → nvme0n1p2, but never nvme0n1 → nvme0n12.
            let rest = rest.strip_prefix(['n', 'p']).unwrap_or(rest);
            let partition = device.ends_with(|last: char| last.is_ascii_alphabetic())
                || name[device.len()..].starts_with(['n', 'p']);
            partition && rest.starts_with(|first: char| first.is_ascii_digit())
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (seconds, words) in [
            (0, "0 s"),
            (7, "7 s"),
            (60, "1 min 0 s"),
            (-150, "2 min 30 s"),
            (11_549, "3 h 12 min"),
            (-31_539_600, "365 d 1 h"),
        ] {
            assert_eq!(in_words(SignedDuration::from_secs(seconds)), words);
        }
    }

    #[test]
    fn a_partition_lies_on_its_disk() {
        for (mounted, named, expected) in [
            ("/dev/sda1", "sda1", true),
            ("/dev/sda1", "sda", true),
            ("/dev/nvme0n1p2", "nvme0n1", true),
            ("/dev/nvme0n1p2", "nvme0", true),
            ("/dev/md0", "md0", true),
            ("/dev/mapper/vg-root", "dm-0", false),
            ("/dev/sdab1", "sda", false),
            ("/dev/nvme0n12", "nvme0n1", false),
            ("/dev/sdb1", "sda", false),
        ] {
            let disk = Disk {
                mount: "/".into(),
                device: mounted.into(),
                filesystem: "ext4".into(),
                total_bytes: 1,
                available_bytes: 1,
                used_percent: 0.0,
                read_only: false,
                remounts_on_error: false,
            };
            assert_eq!(is_on(&disk, named), expected, "{mounted} on {named}");
        }
    }
}
