//! Rules for the server's disks: full, read-only, out of service, a RAID that lacks one.

use std::collections::BTreeSet;

use super::Look;
use crate::domain::finding::{Advice, Code, Severity, Subject};
use crate::domain::findings::{Found, Observed};
use crate::domain::snapshot::{Disk, Drive, Host, RaidArray};

/// All rules for disks that follow from the host's reading. `writable`: mount points that have been writable.
pub(super) fn observe(look: Look<'_>, host: &Host, writable: &BTreeSet<String>, found: &mut Found) {
    for disk in &host.disks {
        disk_full(look, disk, found);
        turned_readonly(disk, writable, found);
    }
    for drive in &host.drives {
        given_up(host, drive, found);
    }
    for array in &host.raids {
        raid_degraded(host, array, found);
    }
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
fn turned_readonly(disk: &Disk, writable: &BTreeSet<String>, found: &mut Found) {
    if disk.read_only && (disk.remounts_on_error || writable.contains(&disk.mount)) {
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

/// `host.disk_io`: the kernel has taken a disk out of service.
fn given_up(host: &Host, drive: &Drive, found: &mut Found) {
    const GONE: [&str; 4] = ["offline", "transport-offline", "dead", "deleting"];
    let Some(state) = drive.state.as_deref().filter(|state| GONE.contains(state)) else {
        return;
    };
    let carries_us = host.disks.iter().any(|disk| is_on(disk, &drive.name));
    let severity = match carries_us {
        true => Severity::Failing,
        false => Severity::Degraded,
    };
    let evidence = format!(
        "the kernel has taken {} out of service ({state})",
        drive.name
    );
    let subject = Subject::Disk(drive.name.clone());
    found.push(Observed::state(
        Code::HostDiskIo,
        subject,
        severity,
        Advice::Replace,
        evidence,
    ));
}

/// `host.disk_io`: a RAID without all its disks carries on; one that is broken does not.
fn raid_degraded(host: &Host, array: &RaidArray, found: &mut Found) {
    let missing = array.missing.unwrap_or(0);
    let broken = array.state.as_deref() == Some("broken");
    if missing == 0 && !broken {
        return;
    }
    let carries_us = host.disks.iter().any(|disk| is_on(disk, &array.name));
    let severity = match broken && carries_us {
        true => Severity::Failing,
        false => Severity::Degraded,
    };
    let name = &array.name;
    let evidence = match (broken, array.disks, array.action.as_deref()) {
        (true, _, _) => format!("{name} is broken"),
        (false, Some(disks), Some("recover" | "resync")) => {
            format!("{name} lacks {missing} of {disks} disks and is being rebuilt")
        }
        (false, Some(disks), _) => format!("{name} lacks {missing} of {disks} disks"),
        (false, None, _) => format!("{name} lacks {missing} disks"),
    };
    let subject = Subject::Disk(name.clone());
    found.push(Observed::state(
        Code::HostDiskIo,
        subject,
        severity,
        Advice::Replace,
        evidence,
    ));
}

/// Whether a mounted file system lies on a device the kernel named: itself, or a partition or namespace of it.
pub(super) fn is_on(disk: &Disk, device: &str) -> bool {
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
