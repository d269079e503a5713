//! Rules for the server's parts: what is gone, what wears out, what feeds it, what the operator checks.

use super::Look;
use crate::domain::finding::{Advice, Code, Severity, Subject};
use crate::domain::findings::{Found, Observed};
use crate::domain::memory::{Machine, PARTS, Part};
use crate::domain::reading::Reading;
use crate::domain::snapshot::{
    Check, CheckState, Drive, DriveHealth, Drives, Host, Smart, Ups, UpsPower,
};

/// A disk that has used up its maker's promise.
const WORN_PERCENT: u16 = 100;

/// One that soon will.
const WEARING_PERCENT: u16 = 90;

/// Sectors taken out of use, from which on a disk is dying rather than old.
const MANY_SECTORS: u64 = 100;

/// NVMe's critical warnings (NVM Express Base Specification, "SMART / Health Information").
const CRITICAL: [(u8, &str); 6] = [
    (0x01, "its spare blocks run out"),
    (0x02, "it is too hot or too cold"),
    (0x04, "it can't be relied on any more"),
    (0x08, "it has become read-only"),
    (0x10, "its cache's backup has failed"),
    (0x20, "its persistent memory has failed"),
];
const READ_ONLY: u8 = 0x08;

/// Takes in what is there. Returns nothing: what is gone stays remembered until it is accepted.
pub(super) fn remember(host: &Host, machine: &mut Machine) {
    for drive in host.drives.iter().filter(|drive| is_built_in(drive)) {
        let id = drive.id.as_ref().unwrap_or(&drive.name);
        add(&mut machine.drives, id, &drive.name, drive.model.as_ref());
    }
    for nic in host.networks.iter().filter(|nic| nic.physical) {
        let id = nic.mac.as_ref().unwrap_or(&nic.name);
        add(&mut machine.nics, id, &nic.name, None);
    }
    machine.memory_bytes = machine.memory_bytes.max(host.memory_total_bytes);
}

fn is_built_in(drive: &Drive) -> bool {
    !drive.removable && !drive.usb
}

fn add(parts: &mut Vec<Part>, id: &str, name: &str, model: Option<&String>) {
    let known = parts.iter().position(|part| part.id == id);
    // Names change from boot to boot.
    if known.is_some_and(|known| parts[known].name == name) {
        return;
    }
    let part = Part {
        id: id.to_owned(),
        name: name.to_owned(),
        model: model.cloned(),
    };
    match known {
        Some(known) => parts[known] = part,
        None if parts.len() < PARTS => parts.push(part),
        None => {}
    }
}

/// `host.disk_missing`, `host.nic`, `host.memory_missing`: what this node once had.
pub(super) fn missing(host: &Host, machine: &Machine, found: &mut Found) {
    let mut miss = |code, subject, evidence| {
        let (severity, advice) = (Severity::Degraded, Advice::Inspect);
        found.push(Observed::state(code, subject, severity, advice, evidence));
    };
    for part in &machine.drives {
        if !host.drives.iter().any(|drive| part.is_drive(drive)) {
            let subject = Subject::Disk(part.name.clone());
            miss(Code::HostDiskMissing, subject, gone("disk", part));
        }
    }
    for part in &machine.nics {
        if !host.networks.iter().any(|nic| part.is_nic(nic)) {
            let subject = Subject::Nic(part.name.clone());
            miss(Code::HostNic, subject, gone("network interface", part));
        }
    }
    let now = host.memory_total_bytes;
    if let Some((now, once)) = now.zip(machine.had_more_memory(now)) {
        let [now, once] = [now, once].map(|bytes| bytesize::ByteSize(bytes).display().iec());
        let evidence = format!("{now} of memory, it had {once}");
        miss(Code::HostMemoryMissing, Subject::Host, evidence);
    }
}

fn gone(what: &str, part: &Part) -> String {
    let model = part
        .model
        .as_deref()
        .map_or(String::new(), |model| format!(" ({model})"));
    format!(
        "the {what} {}{model} {} is no longer there",
        part.name, part.id
    )
}

/// `host.disk_wear`: what the disks say of themselves.
pub(super) fn wear(look: Look<'_>, found: &mut Found) {
    let Reading::Ok { value, .. } = look.seen.drives else {
        return found.unsure_of(|code| code == Code::HostDiskWear);
    };
    let Drives { drives, .. } = value;
    for drive in drives {
        let subject = Subject::Disk(drive.name.clone());
        match &drive.health {
            Some(smart) => found.observed.extend(worn(look, drive, smart, subject)),
            None => found.unsure(Code::HostDiskWear, subject),
        }
    }
}

fn worn(look: Look<'_>, drive: &DriveHealth, smart: &Smart, subject: Subject) -> Option<Observed> {
    let bits = smart.critical_warning.unwrap_or(0);
    let mut bad: Vec<String> = CRITICAL
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, words)| (*words).to_owned())
        .collect();
    if smart.passed == Some(false) && bad.is_empty() {
        bad.push("it foretells its own failure".into());
    }
    bad.extend(
        smart
            .failing_attributes
            .iter()
            .map(|name| format!("{name} is at its limit")),
    );
    if let (Some(spare), Some(limit)) = (
        smart.available_spare_percent,
        smart.available_spare_threshold_percent,
    ) && spare < limit
        && bits & 0x01 == 0
    {
        bad.push(format!("{spare} % spare blocks left, limit {limit} %"));
    }
    if let Some(used) = smart.used_percent.filter(|used| WORN_PERCENT <= *used) {
        bad.push(format!("{used} % of its life is used up"));
    }
    if let Some(sectors) = smart.reallocated.filter(|sectors| MANY_SECTORS <= *sectors) {
        bad.push(format!("{sectors} sectors are taken out of use"));
    }
    let mut odd = Vec::new();
    for (count, what) in [
        (smart.pending, "sectors can't be read"),
        (
            smart.uncorrectable,
            "sectors could not be read in its own test",
        ),
        (smart.media_errors, "reads could not be corrected"),
    ] {
        odd.extend(
            count
                .filter(|count| *count > 0)
                .map(|count| format!("{count} {what}")),
        );
    }
    if let Some(used) = smart
        .used_percent
        .filter(|used| (WEARING_PERCENT..WORN_PERCENT).contains(used))
    {
        odd.push(format!("{used} % of its life is used up"));
    }
    let severity = if bits & READ_ONLY != 0 && is_mounted(look, &drive.name) {
        Severity::Failing
    } else if bad.is_empty() && smart.pending.unwrap_or(0) == 0 {
        Severity::Info
    } else {
        Severity::Degraded
    };
    let advice = if bad.is_empty() {
        Advice::Inspect
    } else {
        Advice::Replace
    };
    bad.append(&mut odd);
    (!bad.is_empty()).then(|| {
        let evidence = format!("{}: {}", drive.name, bad.join(", "));
        Observed::state(Code::HostDiskWear, subject, severity, advice, evidence)
    })
}

fn is_mounted(look: Look<'_>, device: &str) -> bool {
    let host = look.seen.host.value();
    host.is_some_and(|host| {
        host.disks
            .iter()
            .any(|disk| super::host_disks::is_on(disk, device))
    })
}

/// `host.power`: on battery with the time that is left; failing when the lights are about to go out, so that the work
/// leaves before.
pub(super) fn power(look: Look<'_>, found: &mut Found) {
    let Reading::Ok { value, .. } = look.seen.ups else {
        return found.unsure_of(|code| code == Code::HostPower);
    };
    for ups in value {
        let subject = Subject::Ups(ups.name.clone());
        if ups.stale {
            found.unsure(Code::HostPower, subject);
            continue;
        }
        let seen = power_of(ups);
        if let Some((severity, advice, evidence)) = seen {
            found.push(Observed::state(
                Code::HostPower,
                subject,
                severity,
                advice,
                evidence,
            ));
        }
    }
}

fn power_of(ups: &Ups) -> Option<(Severity, Advice, String)> {
    let charge = ups
        .charge_percent
        .map(|charge| format!("{charge:.0} % charge"));
    let left = ups
        .runtime_s
        .map(|left| format!("{:.0} min left", left / 60.0));
    let rest: Vec<String> = charge.into_iter().chain(left).collect();
    let rest = if rest.is_empty() {
        "it does not say how long".to_owned()
    } else {
        rest.join(", ")
    };
    Some(if ups.forced_shutdown {
        let evidence = format!("the UPS is about to switch off, {rest}");
        (Severity::Failing, Advice::Inspect, evidence)
    } else if ups.power == UpsPower::Battery && ups.low_battery {
        let evidence = format!("on battery, and the battery is nearly empty: {rest}");
        (Severity::Failing, Advice::Inspect, evidence)
    } else if ups.power == UpsPower::Battery {
        (
            Severity::Degraded,
            Advice::Inspect,
            format!("on battery: {rest}"),
        )
    } else if ups.overloaded {
        let load = ups
            .load_percent
            .map_or(String::new(), |load| format!(", {load:.0} % load"));
        (
            Severity::Degraded,
            Advice::Inspect,
            format!("the UPS carries too much{load}"),
        )
    } else if ups.replace_battery || ups.low_battery {
        let evidence = format!("the UPS's battery is worn or empty: {rest}");
        (Severity::Degraded, Advice::Replace, evidence)
    } else if ups.alarm {
        let evidence = format!("the UPS raises an alarm: {}", ups.status);
        (Severity::Degraded, Advice::Inspect, evidence)
    } else {
        return None;
    })
}

/// `host.check`: the operator's own checks, by the convention of monitoring plugins.
pub(super) fn checks(look: Look<'_>, found: &mut Found) {
    let Reading::Ok { value, .. } = look.seen.checks else {
        return found.unsure_of(|code| code == Code::HostCheck);
    };
    for check in value {
        let Check {
            name, state, text, ..
        } = check;
        let (severity, word) = match state {
            CheckState::Ok => continue,
            CheckState::Warning => (Severity::Degraded, "warning"),
            CheckState::Critical => (Severity::Failing, "critical"),
            CheckState::Unknown => (Severity::Degraded, "unknown"),
        };
        let evidence = format!("{word}: {text}");
        let (code, subject) = (Code::HostCheck, Subject::Check(name.clone()));
        found.push(Observed::state(
            code,
            subject,
            severity,
            Advice::Inspect,
            evidence,
        ));
    }
}
