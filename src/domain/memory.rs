//! What outlives the agent: a restart must neither look like a healthy node nor forget a dead card.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::failover;
use super::moment::{Moment, Verified};
use super::snapshot::{Drive, Gpu, KernelLog, Network};

/// What a node remembers across restarts of the agent and of the machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The last number given out in the node's journal.
    pub seq: u64,
    /// Connections that the relay has opened: fences a late will off a live node.
    pub session: u64,
    /// The boot that `kernel`, `recovered` and `clock` belong to.
    pub boot: String,
    /// Slots that the node offered last.
    pub available: Option<u32>,
    /// GPUs that have been seen here.
    pub inventory: Vec<RememberedGpu>,
    /// What else has been seen here.
    pub machine: Machine,
    /// The best PCIe link that each slot has shown under load, by PCI address.
    pub links: BTreeMap<String, Link>,
    /// Where the node stands between in service and drained.
    pub failover: failover::Kept,
    /// The checksum of the last configuration and version.
    pub settings: Option<u32>,
    /// When, in this boot, they last became other than they were.
    pub configured: Option<Moment>,
    /// When a card last came back, or was accepted as gone: by UUID, and by PCI address where it is gone.
    pub recovered: BTreeMap<String, Moment>,
    /// The version of NVIDIA's driver that was loaded last.
    pub driver: Option<String>,
    /// How long this node's GPUs usually take to answer, in seconds.
    pub usual_answer_s: Option<f64>,
    /// Whether the agent was told to stop, the last thing it does.
    pub stopped: bool,
    /// Whether a UPS was on battery when it was last looked at.
    pub on_battery: bool,
    /// The restarts of the machine that nobody asked for, oldest first; at most `RESTARTS`.
    pub restarts: Vec<Restart>,
    /// What the kernel had said, and how far its log was read.
    pub kernel: KernelLog,
    /// What AWS has confirmed of the time.
    pub clock: Option<Verified>,
}

impl Memory {
    /// What AWS has confirmed of the time in this boot; moments of another one mean nothing.
    #[must_use]
    pub fn clock_in(&self, boot: &str) -> Option<Verified> {
        // A boot that has no name is not known to be the same.
        self.clock.filter(|_| self.boot == boot && !boot.is_empty())
    }

    /// Another boot begins: what the kernel said before it is history, and so are that boot's moments.
    pub fn begin_boot(&mut self, boot: &str) {
        boot.clone_into(&mut self.boot);
        self.kernel = KernelLog::default();
        self.recovered.clear();
        self.configured = None;
        self.failover.begin_boot();
    }

    /// Takes in a restart that nobody asked for.
    pub fn restarted(&mut self, restart: Restart) {
        self.restarts.push(restart);
        let surplus = self.restarts.len().saturating_sub(RESTARTS);
        self.restarts.drain(..surplus);
    }

    /// Takes in what AWS has confirmed since. Returns whether that moves the time and so must be kept: on a sound
    /// machine once a boot, however often AWS answers.
    pub fn confirm(&mut self, verified: Option<Verified>) -> bool {
        let known = |now: &Verified| self.clock.is_some_and(|kept| kept.agrees(*now));
        let moved = verified.filter(|now| !known(now));
        self.clock = moved.or(self.clock);
        moved.is_some()
    }
}

/// How many restarts are remembered at most.
pub const RESTARTS: usize = 16;

/// How many disks and network interfaces are remembered at most, of each.
pub const PARTS: usize = 64;

/// A server that shows less of the memory it had than this has lost a module, not a few pages to its firmware.
const MEMORY_LEFT: f64 = 0.97;

/// The server's other hardware.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    /// Disks that are built in.
    pub drives: Vec<Part>,
    /// Network interfaces that are hardware, by name.
    pub nics: Vec<Part>,
    /// Memory, in bytes; the most that has been seen.
    pub memory_bytes: Option<u64>,
}

impl Machine {
    /// The memory that this machine once had, in bytes, where `now` is clearly less.
    #[must_use]
    pub fn had_more_memory(&self, now: Option<u64>) -> Option<u64> {
        let now = now?;
        self.memory_bytes
            .filter(|once| (now as f64) < *once as f64 * MEMORY_LEFT)
    }
}

/// A part of the server that can go missing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Part {
    /// What tells it from others: a serial number or a hardware address, else its name.
    pub id: String,
    /// The kernel's name for it when it was last seen: `nvme0n1`, `eno1`.
    pub name: String,
    /// What it is, for a person.
    pub model: Option<String>,
}

impl Part {
    /// Whether it is this disk.
    #[must_use]
    pub fn is_drive(&self, drive: &Drive) -> bool {
        drive.id.as_ref().unwrap_or(&drive.name) == &self.id
    }

    /// Whether it is this network interface.
    #[must_use]
    pub fn is_nic(&self, nic: &Network) -> bool {
        nic.mac.as_ref().unwrap_or(&nic.name) == &self.id
    }
}

/// A PCIe link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Link {
    /// Generation: 1 to 6.
    pub generation: u32,
    /// Lanes.
    pub width: u32,
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "gen {} x{}", self.generation, self.width)
    }
}

/// The machine went down without being told to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restart {
    /// The boot that followed.
    pub boot: String,
    /// When that boot began.
    pub began: Timestamp,
    /// When the agent last wrote anything before.
    pub last: Option<Timestamp>,
    /// The kernel's last words, where it panicked.
    pub panic: Option<String>,
    /// Whether a UPS was on battery when the agent last looked.
    pub on_battery: bool,
}

/// A GPU that has been seen here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RememberedGpu {
    /// UUID.
    pub id: String,
    /// Product name.
    pub name: Option<String>,
    /// PCI address, `0000:01:00`.
    pub pci: Option<String>,
    /// Board serial number.
    pub serial: Option<String>,
}

/// What is remembered of a card says nothing of how it does.
impl From<RememberedGpu> for Gpu {
    fn from(card: RememberedGpu) -> Self {
        Gpu {
            id: card.id,
            name: card.name,
            pci: card.pci,
            serial: card.serial,
            ..Gpu::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::*;
    use crate::domain::moment::Moment;

    #[test]
    fn the_time_is_remembered_within_a_boot() {
        let clock = Some(Verified {
            moment: Moment::BOOT,
            wall: Timestamp::UNIX_EPOCH,
        });
        for (kept, boot, expected) in [("a", "a", clock), ("a", "b", None), ("", "", None)] {
            let memory = Memory {
                boot: kept.to_owned(),
                clock,
                ..Memory::default()
            };
            assert_eq!(memory.clock_in(boot), expected, "{kept} {boot}");
        }
    }

    #[test]
    fn only_an_answer_that_moves_the_time_is_kept() {
        let mut memory = Memory::default();
        assert!(!memory.confirm(None));
        // Seconds since the boot, the true time then, and whether that is news.
        for (second, wall, news) in [
            (10, 1_000_010, true),
            (70, 1_000_070, false),
            (86_410, 1_086_411, false),
            (90_000, 1_090_003, true),
            (90_060, 1_090_063, false),
            (90_120, 1_086_520, true),
            (90_180, 1_086_580, false),
        ] {
            let verified = Some(Verified {
                moment: Moment::after_boot(Duration::from_secs(second)),
                wall: Timestamp::from_second(wall).unwrap(),
            });
            assert_eq!(memory.confirm(verified), news, "{second}");
            assert_eq!(memory.clock == verified, news, "{second}");
        }
        let kept = memory.clock;
        assert!(!memory.confirm(None));
        assert_eq!(memory.clock, kept);
    }
}
