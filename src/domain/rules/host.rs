//! Rules for the server: memory, processor, network, clock; what the rules know of it.

use jiff::SignedDuration;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::gpu::GpuMemory;
use super::{Look, host_disks, host_kernel, host_parts};
use crate::domain::finding::{Advice, Code, Severity, Subject};
use crate::domain::findings::{Found, Observed};
use crate::domain::kernel_event::KernelEvent;
use crate::domain::kernel_facts::KernelFact;
use crate::domain::memory::{Machine, RESTARTS, Restart};
use crate::domain::moment::{Moment, Now};
use crate::domain::reading::Reading;
use crate::domain::rise::Rise;
use crate::domain::snapshot::{Host, KernelLog, Network};
use crate::domain::timing::Timing;

/// A clock that is off by less is as right as clocks are.
const CLOCK_INFO: SignedDuration = SignedDuration::from_secs(5);

/// A clock that is being set may jump more than once.
const CLOCK_HOLD: Duration = Duration::from_secs(10);

/// From here on it is on its way to 5 minutes, where AWS refuses signatures.
const CLOCK_DEGRADED: SignedDuration = SignedDuration::from_secs(60);

/// The whole machine waits for its disks this share of a minute.
const IO_STALL_PERCENT: f64 = 60.0;

/// The whole machine waits for memory this share of a minute.
const MEMORY_STALL_PERCENT: f64 = 20.0;

/// Memory has to be short for so long: builds and page-cache bursts are no trouble.
const FULL_HOLD: Duration = Duration::from_secs(60);

/// Disks that are plugged in later may have been pulled out elsewhere.
const AT_THE_START: Duration = Duration::from_secs(5 * 60);

/// A stall has to last so long; copies and updates stall a machine too.
const STALL_HOLD: Duration = Duration::from_secs(5 * 60);

/// A clock that nobody has kept for so long is off by no more than this, as the kernel reckons (node_exporter's mixin).
const UNKEPT_S: f64 = 16.0;

/// That nobody keeps it is told after so long: a time daemon needs its time to start.
const UNKEPT_HOLD: Duration = Duration::from_secs(10 * 60);

/// Share of bad packets from which a link is bad, and how many there have to be (node_exporter's mixin: 1 %).
const BAD_PACKETS: f64 = 0.01;
const LEAST_BAD_PACKETS: u64 = 100;

/// A link's errors are counted over so long.
const PACKETS_WINDOW: Duration = Duration::from_secs(10 * 60);

/// What the rules know of the server beyond the latest reading.
#[derive(Debug, Clone, Default)]
pub struct HostMemory {
    /// Disks, network interfaces and memory that have been seen here.
    pub machine: Machine,
    /// The restarts that nobody asked for, oldest first.
    pub restarts: Vec<Restart>,
    boot: String,
    /// Mount points that have been writable.
    writable: BTreeSet<String>,
    links: BTreeMap<String, Link>,
    flips: BTreeMap<String, Flips>,
    throttles: Rise,
    throttled: Option<Throttled>,
    /// Which reading was taken in last.
    taken_in: Option<Moment>,
}

/// The running totals of one network interface.
#[derive(Debug, Clone, Default)]
struct Link {
    carrier: Rise,
    errors: Rise,
    packets: Rise,
    /// It has had a link.
    was_up: bool,
}

/// The running totals of one memory controller.
#[derive(Debug, Clone, Default)]
struct Flips {
    corrected: Rise,
    uncorrected: Rise,
}

/// Readings in which the processor had been slowed down.
#[derive(Debug, Clone, Copy)]
struct Throttled {
    count: u64,
    first: Moment,
    last: Moment,
}

impl HostMemory {
    /// What an earlier life of the agent had seen.
    #[must_use]
    pub fn new(machine: Machine, restarts: Vec<Restart>, boot: String) -> Self {
        HostMemory {
            machine,
            restarts,
            boot,
            ..HostMemory::default()
        }
    }

    /// Takes in what the kernel says of the start: a file system that was not unmounted tells of a restart that nobody
    /// asked for, also where the agent was not there to see the end of the boot before.
    pub fn hear(&mut self, kernel: &KernelLog, now: Now) {
        let unclean = |fact: &&KernelFact| {
            matches!(fact.event, KernelEvent::FilesystemUnclean { .. })
                && fact.first - Moment::BOOT <= AT_THE_START
        };
        let known = self
            .restarts
            .last()
            .is_some_and(|latest| latest.boot == self.boot);
        if !known && kernel.facts.iter().any(|fact| unclean(&fact)) {
            self.restarts.push(Restart {
                boot: self.boot.clone(),
                began: now.wall_at(Moment::BOOT),
                last: None,
                panic: None,
                on_battery: false,
            });
            let surplus = self.restarts.len().saturating_sub(RESTARTS);
            self.restarts.drain(..surplus);
        }
    }

    /// Takes in the reading of `at`.
    pub fn take_in(&mut self, host: &Host, at: Moment) {
        if self.taken_in.replace(at) == Some(at) {
            return;
        }
        for disk in &host.disks {
            if !disk.read_only && !self.writable.contains(&disk.mount) {
                self.writable.insert(disk.mount.clone());
            }
        }
        host_parts::remember(host, &mut self.machine);
        self.count(host, at);
    }

    fn count(&mut self, host: &Host, at: Moment) {
        let day = Timing::window(Code::HostMemoryEcc).within;
        for controller in &host.memory_controllers {
            let flips = known(&mut self.flips, &controller.name);
            flips.corrected.take_in(controller.corrected, day, at);
            flips.uncorrected.take_in(controller.uncorrected, day, at);
        }
        let flapping = Timing::window(Code::HostNic).within;
        for nic in host.networks.iter().filter(|nic| nic.physical) {
            let link = known(&mut self.links, &nic.name);
            link.was_up |= nic.up == Some(true);
            for (rise, total, window) in [
                (&mut link.carrier, nic.carrier_changes_total, flapping),
                (&mut link.errors, nic.errors_total, PACKETS_WINDOW),
                (&mut link.packets, nic.packets_total, PACKETS_WINDOW),
            ] {
                if let Some(total) = total {
                    rise.take_in(total, window, at);
                }
            }
        }
        let window = Timing::window(Code::HostCpuThrottled).within;
        if let Some(total) = host.cpu_throttles_total
            && self.throttles.take_in(total, window, at)
        {
            let before = self
                .throttled
                .filter(|throttled| at - throttled.last <= window);
            self.throttled = Some(Throttled {
                count: before.map_or(1, |throttled| throttled.count + 1),
                first: before.map_or(at, |throttled| throttled.first),
                last: at,
            });
        }
    }
}

/// What is counted under a name; a new name is copied only once.
fn known<'a, T: Default>(counted: &'a mut BTreeMap<String, T>, name: &str) -> &'a mut T {
    if !counted.contains_key(name) {
        counted.insert(name.to_owned(), T::default());
    }
    counted.get_mut(name).expect("it was just put there")
}

/// All rules for the server.
pub fn observe(look: Look<'_>, memory: &HostMemory, gpus: &GpuMemory, found: &mut Found) {
    match look.seen.host {
        Reading::Ok { value: host, .. } => {
            host_disks::observe(look, host, &memory.writable, found);
            for nic in &host.networks {
                link(nic, memory, found);
            }
            memory_short(look, host, found);
            memory_errors(host, memory, found);
            stalls(host, found);
            throttled(memory, found);
            host_parts::missing(host, &memory.machine, found);
        }
        Reading::Pending | Reading::Failed { .. } => found.unsure_of(is_level_of_host),
        Reading::Off => {}
    }
    match look.seen.kernel.value() {
        Some(log) => host_kernel::observe(look, log, gpus, found),
        None => found.unsure_of(is_of_kernel),
    }
    host_parts::wear(look, found);
    host_parts::power(look, found);
    host_parts::checks(look, found);
    kernel_log(look, found);
    clock(look, found);
    unclean_restart(memory, found);
}

/// What only a reading of the host can end.
fn is_level_of_host(code: Code) -> bool {
    matches!(
        code,
        Code::HostDiskFull
            | Code::HostDiskIo
            | Code::HostDiskMissing
            | Code::HostFsReadonly
            | Code::HostMemory
            | Code::HostMemoryMissing
            | Code::HostMemoryEcc
            | Code::HostCpuThrottled
            | Code::HostNic
    )
}

/// What only the kernel log can end.
fn is_of_kernel(code: Code) -> bool {
    matches!(
        code,
        Code::GpuXid(_)
            | Code::HostOom
            | Code::HostDiskIo
            | Code::HostMachineCheck
            | Code::HostMemoryEcc
            | Code::HostPcieErrors
            | Code::HostHungTask
    )
}

/// `host.nic`: a link that was there and is gone, that comes and goes, or that is full of errors.
fn link(nic: &Network, memory: &HostMemory, found: &mut Found) {
    if !nic.physical {
        return;
    }
    let Some(counted) = memory.links.get(&nic.name) else {
        return;
    };
    let limit = Timing::window(Code::HostNic);
    // Each loss is two changes: away and back.
    let losses = counted.carrier.within().0.div_ceil(2);
    let (bad, all) = (counted.errors.within().0, counted.packets.within().0);
    let evidence = if nic.up == Some(false) && counted.was_up {
        format!("{} has lost its link", nic.name)
    } else if limit.count <= losses {
        let minutes = limit.within.as_secs() / 60;
        format!(
            "{} has lost its link {losses} times within {minutes} min",
            nic.name
        )
    } else if LEAST_BAD_PACKETS <= bad && BAD_PACKETS <= bad as f64 / all.max(bad) as f64 {
        format!(
            "{}: {bad} of {all} packets were bad within 10 min",
            nic.name
        )
    } else {
        return;
    };
    let (severity, advice) = (Severity::Degraded, Advice::Inspect);
    let subject = Subject::Nic(nic.name.clone());
    found.push(Observed::state(
        Code::HostNic,
        subject,
        severity,
        advice,
        evidence,
    ));
}

/// `host.memory_ecc` by the counters of the memory controllers.
fn memory_errors(host: &Host, memory: &HostMemory, found: &mut Found) {
    let limit = Timing::window(Code::HostMemoryEcc).count;
    for controller in &host.memory_controllers {
        let Some(flips) = memory.flips.get(&controller.name) else {
            continue;
        };
        let (bad, corrected) = (flips.uncorrected.within().0, flips.corrected.within().0);
        let (severity, evidence) = if bad > 0 {
            (
                Severity::Failing,
                format!("{bad} errors within a day that could not be corrected"),
            )
        } else if limit <= corrected {
            (
                Severity::Degraded,
                format!("{corrected} corrected errors within a day"),
            )
        } else {
            continue;
        };
        let (subject, advice) = (Subject::Memory(controller.name.clone()), Advice::Replace);
        found.push(Observed::state(
            Code::HostMemoryEcc,
            subject,
            severity,
            advice,
            evidence,
        ));
    }
}

/// `host.memory` and `host.disk_io` by what all programs together wait for.
fn stalls(host: &Host, found: &mut Found) {
    let Some(pressure) = host.pressure else {
        return;
    };
    for (code, share, limit, what) in [
        (
            Code::HostMemory,
            pressure.memory_full_percent,
            MEMORY_STALL_PERCENT,
            "memory",
        ),
        (
            Code::HostDiskIo,
            pressure.io_full_percent,
            IO_STALL_PERCENT,
            "a disk",
        ),
    ] {
        if let Some(share) = share.filter(|share| limit <= *share) {
            let evidence = format!("all programs waited for {what} {share:.0} % of a minute");
            let (severity, advice) = (Severity::Degraded, Advice::Inspect);
            let stall = Observed::state(code, Subject::Host, severity, advice, evidence);
            found.push(stall.after(STALL_HOLD));
        }
    }
}

/// `host.cpu_throttled` by the processor's own counters.
fn throttled(memory: &HostMemory, found: &mut Found) {
    let Some(Throttled { count, first, last }) = memory.throttled else {
        return;
    };
    let limit = Timing::window(Code::HostCpuThrottled).count;
    let (severity, advice) = match limit <= count {
        true => (Severity::Degraded, Advice::Inspect),
        false => (Severity::Info, Advice::None),
    };
    let evidence = format!("the processor was slowed down for its heat in {count} readings");
    let (code, subject) = (Code::HostCpuThrottled, Subject::Host);
    let throttled = Observed::state(code, subject, severity, advice, evidence);
    found.push(throttled.events(count, first, last));
}

/// `host.unclean_restart`: this boot began without anybody having asked for it.
fn unclean_restart(memory: &HostMemory, found: &mut Found) {
    let Some(latest) = memory
        .restarts
        .last()
        .filter(|latest| latest.boot == memory.boot)
    else {
        return;
    };
    let window = Timing::window(Code::HostUncleanRestart);
    let near = memory.restarts.iter().filter(|restart| {
        let before = latest.began.duration_since(restart.began);
        before.unsigned_abs() <= window.within
    });
    let count = near.count() as u64;
    let away = latest.last.map_or_else(
        || "nobody knows for how long".to_owned(),
        |last| {
            format!(
                "{} after the last sign of life",
                in_words(latest.began.duration_since(last))
            )
        },
    );
    let (severity, why) = match (&latest.panic, latest.on_battery) {
        (Some(panic), _) => (
            Severity::Degraded,
            format!("the kernel had panicked: {panic}"),
        ),
        (None, true) => (
            Severity::Info,
            "the UPS was on battery: its power ran out".to_owned(),
        ),
        (None, false) => (
            Severity::Info,
            "no panic is on record: power, a reset, or a freeze".to_owned(),
        ),
    };
    let often = window.count <= count;
    let severity = if often { Severity::Degraded } else { severity };
    let again = match count {
        1 => String::new(),
        count => format!("; {count} times within a day"),
    };
    let evidence = format!("the server started again, {away}; {why}{again}");
    let advice = match severity {
        Severity::Info => Advice::None,
        Severity::Degraded | Severity::Failing => Advice::Inspect,
    };
    let (code, subject) = (Code::HostUncleanRestart, Subject::Host);
    let restart = Observed::state(code, subject, severity, advice, evidence);
    found.push(restart.events(count, Moment::BOOT, Moment::BOOT));
}

/// `host.memory`.
fn memory_short(look: Look<'_>, host: &Host, found: &mut Found) {
    let limit = look.config.judge.memory_percent;
    if let Some(used) = host.memory_used_percent.filter(|used| *used >= limit) {
        let evidence = format!("{used:.1} % of memory in use, limit {limit} %");
        let full = Observed::state(
            Code::HostMemory,
            Subject::Host,
            Severity::Degraded,
            Advice::Inspect,
            evidence,
        );
        found.push(full.after(FULL_HOLD));
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

/// `host.clock`: off by AWS's time, or kept by nobody where AWS has not said that it is right.
fn clock(look: Look<'_>, found: &mut Found) {
    let seen = |severity, evidence| {
        let (code, subject, advice) = (Code::HostClock, Subject::Host, Advice::Inspect);
        Observed::state(code, subject, severity, advice, evidence)
    };
    let offset = look.around.clock_offset;
    if let Some(ahead) = offset.filter(|ahead| CLOCK_INFO <= ahead.abs()) {
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
        found.push(seen(severity, evidence).after(CLOCK_HOLD));
    } else if offset.is_none()
        && let Some(clock) = look.seen.host.value().and_then(|host| host.clock)
        && !clock.synchronized
        && UNKEPT_S <= clock.max_error_s
    {
        let evidence = "nobody keeps this machine's clock right (NTP)".to_owned();
        found.push(seen(Severity::Info, evidence).after(UNKEPT_HOLD));
    }
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
}
