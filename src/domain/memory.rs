//! What outlives the agent: a restart must neither look like a healthy node nor forget a dead card.

use serde::{Deserialize, Serialize};

use super::snapshot::{Gpu, KernelLog};

/// What a node remembers across restarts of the agent and of the machine.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// The last number given out in the node's journal.
    pub seq: u64,
    /// Connections that the relay has opened: fences a late will off a live node.
    pub session: u64,
    /// The boot that `kernel` belongs to.
    pub boot: String,
    /// Slots that the node offered last.
    pub available: Option<u32>,
    /// GPUs that have been seen here.
    pub inventory: Vec<RememberedGpu>,
    /// What the kernel had said, and how far its log was read.
    pub kernel: KernelLog,
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
