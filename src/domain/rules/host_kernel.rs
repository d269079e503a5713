//! Rules for the server in the kernel's words: disks, memory, processor, buses, network.

use std::time::Duration;

use super::Look;
use super::gpu::GpuMemory;
use super::host_disks::is_on;
use crate::domain::finding::{Advice, Code, Severity, Subject};
use crate::domain::findings::{Found, Observed};
use crate::domain::kernel_event::{KernelEvent, PcieSeverity};
use crate::domain::kernel_facts::KernelFact;
use crate::domain::reading::Reading;
use crate::domain::snapshot::KernelLog;
use crate::domain::timing::{Repeats, Timing};

/// Medium errors at so many times within a day are no single bad spot.
const AGAIN: usize = 3;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// All rules for the server that follow from its kernel log.
pub(super) fn observe(look: Look<'_>, log: &KernelLog, gpus: &GpuMemory, found: &mut Found) {
    for fact in &log.facts {
        let observed = observe_fact(look, log, fact, gpus, found);
        found.observed.extend(observed);
    }
}

fn observe_fact(
    look: Look<'_>,
    log: &KernelLog,
    fact: &KernelFact,
    gpus: &GpuMemory,
    found: &mut Found,
) -> Option<Observed> {
    use Severity::{Degraded, Failing};
    let seen = |code, subject, severity, advice| {
        let evidence = fact.evidence.clone();
        Observed::state(code, subject, severity, advice, evidence)
            .events(fact.count, fact.first, fact.last)
    };
    let held = |observed: Observed| observed.held(fact.count, fact.first, fact.last);
    let of_host = |code, severity, advice| Some(seen(code, Subject::Host, severity, advice));
    // What the hardware has put right is worth knowing, and worth a look when it comes often.
    let corrected = |code, subject, advice| {
        let often = Timing::window(code).count <= fact.count;
        let (severity, advice) = match often {
            true => (Degraded, advice),
            false => (Severity::Info, Advice::None),
        };
        Some(seen(code, subject, severity, advice))
    };
    match &fact.event {
        KernelEvent::OutOfMemory => of_host(Code::HostOom, Degraded, Advice::RestartApp),
        KernelEvent::DiskIo { device, gone } => {
            let subject = Subject::Disk(device.clone());
            Some(match *gone && carries_us(look, device) {
                true => held(seen(Code::HostDiskIo, subject, Failing, Advice::Replace)),
                false => seen(Code::HostDiskIo, subject, Degraded, Advice::Inspect),
            })
        }
        KernelEvent::DiskMedium { device } => {
            let subject = Subject::Disk(device.clone());
            let again = AGAIN <= fact.episodes_within(DAY, look.now.moment);
            let advice = if again {
                Advice::Replace
            } else {
                Advice::Inspect
            };
            Some(seen(Code::HostDiskIo, subject, Degraded, advice))
        }
        KernelEvent::RaidDegraded { array } => {
            let subject = Subject::Disk(array.clone());
            Some(seen(Code::HostDiskIo, subject, Degraded, Advice::Replace))
        }
        KernelEvent::FilesystemReadonly { device } => {
            let subject = Subject::Disk(device.clone());
            let given_up = seen(Code::HostFsReadonly, subject, Failing, Advice::Inspect);
            (!is_writable_again(look, device, fact)).then(|| held(given_up))
        }
        KernelEvent::MachineCheck { uncorrected: true } => {
            of_host(Code::HostMachineCheck, Failing, Advice::Inspect)
        }
        KernelEvent::MachineCheck { uncorrected: false } => {
            corrected(Code::HostMachineCheck, Subject::Host, Advice::Inspect)
        }
        KernelEvent::MemoryEcc {
            uncorrected,
            module,
        } => {
            let subject = Subject::Memory(module.clone());
            match uncorrected {
                true => Some(seen(Code::HostMemoryEcc, subject, Failing, Advice::Replace)),
                false => corrected(Code::HostMemoryEcc, subject, Advice::Replace),
            }
        }
        KernelEvent::PcieError { pci, severity } => {
            // The kernel names the device's driver first.
            let of_gpu = fact.evidence.starts_with("nvidia ");
            let subject = match (gpus.known_at(pci), of_gpu) {
                (Some(card), _) => card,
                (None, true) => gpus.at_pci(pci),
                (None, false) => Subject::Pci(pci.clone()),
            };
            let of_gpu = subject.gpu().is_some();
            match severity {
                PcieSeverity::Corrected => {
                    corrected(Code::HostPcieErrors, subject, Advice::Inspect)
                }
                PcieSeverity::NonFatal => Some(seen(
                    Code::HostPcieErrors,
                    subject,
                    Degraded,
                    Advice::Inspect,
                )),
                PcieSeverity::Fatal => {
                    let severity = if of_gpu { Failing } else { Degraded };
                    Some(seen(
                        Code::HostPcieErrors,
                        subject,
                        severity,
                        Advice::Inspect,
                    ))
                }
            }
        }
        KernelEvent::CpuThrottled => {
            let limit = Timing::window(Code::HostCpuThrottled);
            let often = limit.count <= fact.episodes_within(limit.within, look.now.moment) as u64;
            let (severity, advice) = match often {
                true => (Degraded, Advice::Inspect),
                false => (Severity::Info, Advice::None),
            };
            wake_when_fewer(look, fact, limit, found);
            of_host(Code::HostCpuThrottled, severity, advice)
        }
        KernelEvent::HungTask => of_host(Code::HostHungTask, Degraded, Advice::Inspect),
        KernelEvent::Lockup { hard: false } => {
            of_host(Code::HostHungTask, Degraded, Advice::Inspect)
        }
        KernelEvent::Oops => of_host(Code::HostHungTask, Degraded, Advice::Reboot),
        KernelEvent::Lockup { hard: true } => of_host(Code::HostHungTask, Failing, Advice::Reboot),
        KernelEvent::Panic => of_host(Code::HostHungTask, Failing, Advice::Reboot).map(held),
        KernelEvent::NicDown { nic } => nic_down(look, log, nic, fact, found),
        KernelEvent::NicTxTimeout { nic } => {
            let subject = Subject::Nic(nic.clone());
            let silent = seen(Code::HostNic, subject, Degraded, Advice::Inspect);
            let over = fact.last + look.config.judge.forget_after;
            if look.now.moment < over {
                found.wake(over);
            }
            (look.now.moment < over).then(|| held(silent).after(Duration::ZERO))
        }
        // `host.unclean_restart` is told by what is remembered of it.
        KernelEvent::FilesystemUnclean { .. }
        | KernelEvent::NicUp { .. }
        | KernelEvent::CpuThrottleEnded
        | KernelEvent::Xid { .. }
        | KernelEvent::GpuFellOff { .. }
        | KernelEvent::GpuInitFailed { .. }
        | KernelEvent::GpuFirmware { .. }
        | KernelEvent::GpuDriverLoaded => None,
    }
}

/// `host.nic`: down until it is up again, or down too often.
fn nic_down(
    look: Look<'_>,
    log: &KernelLog,
    nic: &str,
    fact: &KernelFact,
    found: &mut Found,
) -> Option<Observed> {
    let limit = Timing::window(Code::HostNic);
    let is_up = KernelEvent::NicUp {
        nic: nic.to_owned(),
    };
    let up = log.facts.iter().find(|fact| fact.event == is_up);
    let is_down = up.is_none_or(|up| up.last < fact.last);
    let known_up = look.seen.host.value().is_some_and(|host| {
        let mut networks = host.networks.iter();
        networks.any(|network| network.name == nic && network.up == Some(true))
    });
    let losses = fact.episodes_within(limit.within, look.now.moment) as u64;
    wake_when_fewer(look, fact, limit, found);
    let evidence = if limit.count <= losses {
        let minutes = limit.within.as_secs() / 60;
        format!("{nic} has lost its link {losses} times within {minutes} min")
    } else if is_down && !known_up {
        fact.evidence.clone()
    } else {
        return None;
    };
    let (code, subject) = (Code::HostNic, Subject::Nic(nic.to_owned()));
    let (severity, advice) = (Severity::Degraded, Advice::Inspect);
    Some(Observed::state(code, subject, severity, advice, evidence))
}

/// A window that empties changes what a rule says, with no line to tell of it.
fn wake_when_fewer(look: Look<'_>, fact: &KernelFact, limit: Repeats, found: &mut Found) {
    let count = usize::try_from(limit.count).unwrap_or(usize::MAX);
    let fewer = fact.fewer_at(count, limit.within);
    if let Some(at) = fewer.filter(|at| look.now.moment < *at) {
        found.wake(at);
    }
}

/// Whether anything of ours is mounted from a device, as far as is known.
fn carries_us(look: Look<'_>, device: &str) -> bool {
    let host = look.seen.host.value();
    host.is_some_and(|host| host.disks.iter().any(|disk| is_on(disk, device)))
}

/// Whether a file system that was given up has been seen writable since, or is told of by its mount point already.
fn is_writable_again(look: Look<'_>, device: &str, fact: &KernelFact) -> bool {
    match look.seen.host {
        Reading::Ok { value, at } if *at > fact.last => {
            let mounted = value.disks.iter().find(|disk| is_on(disk, device));
            mounted.is_some_and(|disk| !disk.read_only || disk.remounts_on_error)
        }
        Reading::Ok { .. } | Reading::Pending | Reading::Off | Reading::Failed { .. } => false,
    }
}
