//! What outlives the agent: a restart must neither look like a healthy node nor forget a dead card.

use serde::{Deserialize, Serialize};

use super::moment::Verified;
use super::snapshot::{Gpu, KernelLog};

/// What a node remembers across restarts of the agent and of the machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The last number given out in the node's journal.
    pub seq: u64,
    /// Connections that the relay has opened: fences a late will off a live node.
    pub session: u64,
    /// The boot that `kernel` and `clock` belong to.
    pub boot: String,
    /// Slots that the node offered last.
    pub available: Option<u32>,
    /// GPUs that have been seen here.
    pub inventory: Vec<RememberedGpu>,
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

    /// Takes in what AWS has confirmed since. Returns whether that moves the time and so must be kept: on a sound
    /// machine once a boot, however often AWS answers.
    pub fn confirm(&mut self, verified: Option<Verified>) -> bool {
        let known = |now: &Verified| self.clock.is_some_and(|kept| kept.agrees(*now));
        let moved = verified.filter(|now| !known(now));
        self.clock = moved.or(self.clock);
        moved.is_some()
    }
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
