//! What this node remembers of its hardware, held against what is there now; and accepting a planned change.

use std::time::Duration;

use serde::Serialize;

use super::memory::{Machine, Part, RememberedGpu};
use super::moment::Moment;
use super::reading::Reading;
use super::rules::gpu::GpuMemory;
use super::snapshot::{Gpu, GpuState, Gpus, Host, Probe, Snapshot};
use crate::config::units::format_duration;
use crate::config::{Config, Expected};

/// A reading tells what is there now if it is no older than so many of its intervals.
const FRESH_INTERVALS: u32 = 3;

/// What came of accepting the hardware as it is now; the wire form of `POST /v1/inventory/accept`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Accepted {
    /// What is not remembered any more.
    pub forgotten: Vec<Forgotten>,
    /// What was not done as asked, and why: a sentence each.
    pub problems: Vec<String>,
}

/// Something that is not remembered any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Forgotten {
    /// What kind of thing.
    pub kind: Kind,
    /// What told it from others: UUID, serial number, hardware address; a link's is its PCI address.
    pub id: String,
    /// What it was, for a person; a link's is its best speed, the memory's its size.
    pub name: Option<String>,
}

impl Forgotten {
    /// A thing of this kind.
    #[must_use]
    pub fn new(kind: Kind, id: String, name: Option<String>) -> Self {
        Forgotten { kind, id, name }
    }

    fn part(kind: Kind, part: Part) -> Self {
        let model = part.model.map(|model| format!(" ({model})"));
        let name = part.name + &model.unwrap_or_default();
        Forgotten::new(kind, part.id, Some(name))
    }
}

/// Kinds of remembered things.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A card.
    Gpu,
    /// The best PCIe link of a slot.
    Link,
    /// A disk.
    Disk,
    /// A network interface.
    Nic,
    /// How much memory there was.
    Memory,
}

/// Forgets everything that is not seen now, where what is seen can be relied on.
pub fn accept(
    gpus: &mut GpuMemory,
    machine: &mut Machine,
    seen: Snapshot<'_>,
    config: &Config,
    now: Moment,
) -> Accepted {
    let mut accepted = Accepted::default();
    match listed(seen.gpus, gpus, config, now) {
        Ok(cards) => {
            accepted.forgotten.extend(gpus.accept(cards, now));
            accepted.problems.extend(too_few(cards.len(), config));
        }
        // What remembers nothing has nothing to forget.
        Err(_) if gpus.inventory.is_empty() => {}
        Err(why) => {
            let problem = format!("{why}; nothing of them was forgotten");
            accepted.problems.push(problem);
        }
    }
    match fresh(seen.host, config.host.every * FRESH_INTERVALS, now) {
        Ok(host) => accepted.forgotten.extend(accept_host(machine, host)),
        Err(why) => accepted.problems.push(format!(
            "disks, network and memory {why}; nothing of them was forgotten"
        )),
    }
    accepted
}

/// The cards that are there now, each by the name that is remembered; or why they are not known.
fn listed<'a>(
    seen: &'a Reading<Gpus>,
    memory: &GpuMemory,
    config: &Config,
    now: Moment,
) -> Result<&'a [Gpu], String> {
    let limit = config.gpu.every * FRESH_INTERVALS + config.gpu.deadline;
    let gpus = fresh(seen, limit, now).map_err(|why| format!("the GPUs {why}"))?;
    if let Some(why) = silent(&gpus.probe) {
        return Err(format!("the GPUs can't be read now ({why})"));
    }
    // The probe goes on answering for other things between two whole lists.
    if gpus.cards_at.is_none_or(|at| limit < now - at) {
        return Err("the GPUs were not read lately".to_owned());
    }
    let remembered = |id: &str| memory.inventory.iter().any(|card| card.id == id);
    let nameless = |card: &&Gpu| card.state != GpuState::Ok && !remembered(&card.id);
    if let Some(card) = gpus.cards.iter().find(nameless) {
        let slot = card.pci.as_deref().unwrap_or("an unknown slot");
        return Err(format!(
            "the card in {slot} can't say which of the GPUs it is"
        ));
    }
    Ok(&gpus.cards)
}

/// Why a probe can't say which cards are there.
fn silent(probe: &Probe) -> Option<String> {
    match probe {
        Probe::Answering => None,
        Probe::NoLibrary { why } | Probe::Driver { why } => Some(why.clone()),
        Probe::Hung { .. } => Some("NVML does not answer".to_owned()),
        Probe::Crashed { how, .. } => Some(format!("the GPU probe {how}")),
    }
}

/// What a source has said within `limit`; or why that is not known.
fn fresh<T>(reading: &Reading<T>, limit: Duration, now: Moment) -> Result<&T, String> {
    match reading {
        Reading::Ok { value, at } if now - *at <= limit => Ok(value),
        Reading::Ok { at, .. } => {
            let age = Duration::from_secs((now - *at).as_secs());
            Err(format!("were last read {} ago", format_duration(age)))
        }
        Reading::Pending => Err("have not been read yet".to_owned()),
        Reading::Off => Err("are not read, as the configuration has it".to_owned()),
        Reading::Failed { why, .. } => Err(format!("can't be read now ({why})")),
    }
}

/// A number in the configuration is not ours to change.
fn too_few(listed: usize, config: &Config) -> Option<String> {
    match config.gpu.expected {
        Expected::Count(expected) if listed < expected as usize => Some(format!(
            "gpu.expected is {expected} and {listed} are listed; change it, or gpu.missing stays"
        )),
        Expected::Count(_) | Expected::Remember(_) => None,
    }
}

fn accept_host(machine: &mut Machine, host: &Host) -> Vec<Forgotten> {
    let mut forgotten = Vec::new();
    let is_here = |part: &mut Part| host.drives.iter().any(|drive| part.is_drive(drive));
    let gone = take_out(&mut machine.drives, is_here);
    forgotten.extend(gone.map(|part| Forgotten::part(Kind::Disk, part)));
    let is_here = |part: &mut Part| host.networks.iter().any(|nic| part.is_nic(nic));
    let gone = take_out(&mut machine.nics, is_here);
    forgotten.extend(gone.map(|part| Forgotten::part(Kind::Nic, part)));
    if let Some(once) = machine.had_more_memory(host.memory_total_bytes) {
        let once = bytesize::ByteSize(once).display().iec().to_string();
        forgotten.push(Forgotten::new(Kind::Memory, "memory".into(), Some(once)));
        machine.memory_bytes = host.memory_total_bytes;
    }
    forgotten
}

/// Takes out of `parts` those that are not to stay.
fn take_out(
    parts: &mut Vec<Part>,
    mut stays: impl FnMut(&mut Part) -> bool,
) -> impl Iterator<Item = Part> {
    let gone: Vec<Part> = parts.extract_if(.., |part| !stays(part)).collect();
    gone.into_iter()
}

/// Whether something that is remembered is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// It is.
    Here,
    /// It is not.
    Gone,
    /// Nobody can tell.
    Unknown,
}

/// What a report says of the hardware; empty where there is no report.
#[derive(Debug, Clone, Default)]
pub struct Reported {
    /// The cards.
    pub gpus: Vec<Gpu>,
    /// Subjects of the findings `gpu.missing`.
    pub missing: Vec<String>,
    /// The server, once it was read.
    pub host: Option<Host>,
}

impl Reported {
    /// Whether a card is there. The report's list begins with what is remembered, and only a whole answer of NVML's
    /// takes a card out of it.
    #[must_use]
    pub fn gpu(&self, card: &RememberedGpu) -> Presence {
        match self.gpus.iter().find(|seen| seen.id == card.id) {
            Some(seen) => match seen.state {
                // The driver still lists one that has fallen off the bus.
                GpuState::Ok | GpuState::Lost => Presence::Here,
                GpuState::Hung | GpuState::Unknown => Presence::Unknown,
            },
            None => {
                let answers = self.gpus.iter().any(|seen| seen.state == GpuState::Ok);
                let missed = self.missing.contains(&card.id);
                match answers || missed {
                    true => Presence::Gone,
                    false => Presence::Unknown,
                }
            }
        }
    }

    /// Whether a disk is there.
    #[must_use]
    pub fn drive(&self, part: &Part) -> Presence {
        self.on_host(|host| host.drives.iter().any(|drive| part.is_drive(drive)))
    }

    /// Whether a network interface is there.
    #[must_use]
    pub fn nic(&self, part: &Part) -> Presence {
        self.on_host(|host| host.networks.iter().any(|nic| part.is_nic(nic)))
    }

    /// Whether all the memory is there.
    #[must_use]
    pub fn memory(&self, machine: &Machine) -> Presence {
        let total = |host: &Host| host.memory_total_bytes;
        match self.host.as_ref().and_then(total) {
            Some(total) if machine.had_more_memory(Some(total)).is_some() => Presence::Gone,
            Some(_) => Presence::Here,
            None => Presence::Unknown,
        }
    }

    fn on_host(&self, is_there: impl FnOnce(&Host) -> bool) -> Presence {
        match self.host.as_ref().map(is_there) {
            Some(true) => Presence::Here,
            Some(false) => Presence::Gone,
            None => Presence::Unknown,
        }
    }
}

#[cfg(test)]
mod tests;
