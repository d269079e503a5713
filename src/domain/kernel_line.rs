//! Kernel text → event: what one line of the kernel log means, in any of the forms it is recorded in.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::moment::Moment;

/// One line of a kernel log, freed of its recording's decoration.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelLine<'a> {
    /// When it was written, where the recording says.
    pub stamp: Stamp,
    /// The message.
    pub text: std::borrow::Cow<'a, str>,
}

/// When a line was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stamp {
    /// Not recorded.
    None,
    /// Microseconds since boot.
    SinceBoot(u64),
    /// Wall time.
    Wall(Timestamp),
}

/// Something the kernel said that bears on the hardware.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KernelEvent {
    /// NVIDIA's driver reports Xid `number` of the card at `pci`.
    Xid {
        /// `0000:01:00`.
        pci: String,
        /// The Xid.
        number: u32,
    },
    /// "GPU has fallen off the bus" without an Xid.
    GpuFellOff {
        /// `0000:01:00`, where the line names it.
        pci: Option<String>,
    },
    /// The driver could not start the card (`RmInitAdapter failed!`).
    GpuInitFailed {
        /// `0000:01:00`, where the line names it.
        pci: Option<String>,
    },
    /// NVIDIA's kernel module was loaded afresh: what it said before is history.
    GpuDriverLoaded,
    /// The kernel killed a process for want of memory.
    OutOfMemory,
    /// A disk or its controller reports I/O errors.
    DiskIo {
        /// `nvme0n1`, `sda`, `dm-0`, …
        device: String,
        /// The device is gone or given up, not just one bad block.
        gone: bool,
    },
    /// A file system was remounted read-only or shut down.
    FilesystemReadonly {
        /// The device.
        device: String,
    },
}

/// Running total of one kind of event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KernelFact {
    /// What happened, to what.
    pub event: KernelEvent,
    /// How often.
    pub count: u64,
    /// First time.
    pub first: Moment,
    /// Latest time.
    pub last: Moment,
    /// Different processes named in the lines, at most `PROCESSES`: repetition across processes blames the card.
    pub processes: Vec<u32>,
    /// The latest line, cut to `EVIDENCE` characters.
    pub evidence: String,
}
