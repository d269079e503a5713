//! Kernel text → event: what the kernel means, by the words that its drivers print.
//!
//! Every way of saying something stands in a table, with its source. The words that they are found by are also what
//! `kernel_scan` looks for in a large log, so that the two can't disagree.

mod gpu;
mod machine;
mod network;
mod storage;
#[cfg(test)]
mod tests;

use std::fmt;

use serde::{Deserialize, Serialize};

use super::kernel_scan::Scanner;
pub(super) use gpu::{driver_version, names_card};

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
    /// The card's own processor does not answer, or has halted, told without an Xid.
    GpuFirmware {
        /// `0000:01:00`, where the line names it.
        pci: Option<String>,
    },
    /// NVIDIA's kernel module was loaded afresh: what it said before is history.
    GpuDriverLoaded,
    /// The kernel killed a process for want of memory; once for each process.
    OutOfMemory,
    /// A disk, its controller or its file system reports I/O errors, resets or timeouts.
    DiskIo {
        /// `nvme0n1`, `nvme0`, `sda`, `md0`, `ata1.00`, …
        device: String,
        /// The device is gone or given up, not just one bad block.
        gone: bool,
    },
    /// A disk can't read back what was written to it: the medium itself, not the way to it.
    DiskMedium {
        /// `nvme0n1`, `sda`, …
        device: String,
    },
    /// A file system was remounted read-only or shut down.
    FilesystemReadonly {
        /// The device.
        device: String,
    },
    /// A file system was not unmounted before: at the start of a machine, it went down without being told to.
    FilesystemUnclean {
        /// The device.
        device: String,
    },
    /// A software RAID works on with fewer disks than it has places.
    RaidDegraded {
        /// `md0`.
        array: String,
    },
    /// The processor or the firmware reports a hardware error.
    MachineCheck {
        /// It could not be corrected. A report that does not say counts as corrected: the machine lived to tell it.
        uncorrected: bool,
    },
    /// A memory module had a bit flip.
    MemoryEcc {
        /// It could not be corrected.
        uncorrected: bool,
        /// The module's label, or its controller, `mc0`, where it has none.
        module: String,
    },
    /// A PCIe device or the way to it reports errors. One error is told by the port and by the device, in two lines.
    PcieError {
        /// `0000:01:00`: the device, or the port where the line names no device.
        pci: String,
        /// How bad.
        severity: PcieSeverity,
    },
    /// A processor was slowed down for its temperature.
    CpuThrottled,
    /// A processor's temperature and speed are normal again.
    CpuThrottleEnded,
    /// A process has waited for minutes for something that can't be interrupted.
    HungTask,
    /// A processor did not come out of the kernel for seconds.
    Lockup {
        /// It did not even take interrupts.
        hard: bool,
    },
    /// A network interface has lost its link.
    NicDown {
        /// `eth0`.
        nic: String,
    },
    /// A network interface has its link.
    NicUp {
        /// `eth0`.
        nic: String,
    },
    /// A network interface did not send what it was given.
    NicTxTimeout {
        /// `eth0`.
        nic: String,
    },
    /// A fault inside the kernel that it survived, for the time being.
    Oops,
    /// The kernel gave up.
    Panic,
}

/// How bad a PCIe error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PcieSeverity {
    /// The hardware repeated the transfer.
    Corrected,
    /// A transfer was lost.
    NonFatal,
    /// The link can't be trusted any more.
    Fatal,
}

impl KernelEvent {
    /// Whether it tells the state of a card, which a freshly loaded driver makes history.
    #[must_use]
    pub fn is_of_gpu(&self) -> bool {
        match self {
            KernelEvent::Xid { .. }
            | KernelEvent::GpuFellOff { .. }
            | KernelEvent::GpuInitFailed { .. }
            | KernelEvent::GpuFirmware { .. } => true,
            KernelEvent::GpuDriverLoaded
            | KernelEvent::OutOfMemory
            | KernelEvent::DiskIo { .. }
            | KernelEvent::DiskMedium { .. }
            | KernelEvent::FilesystemReadonly { .. }
            | KernelEvent::FilesystemUnclean { .. }
            | KernelEvent::RaidDegraded { .. }
            | KernelEvent::MachineCheck { .. }
            | KernelEvent::MemoryEcc { .. }
            | KernelEvent::PcieError { .. }
            | KernelEvent::CpuThrottled
            | KernelEvent::CpuThrottleEnded
            | KernelEvent::HungTask
            | KernelEvent::Lockup { .. }
            | KernelEvent::NicDown { .. }
            | KernelEvent::NicUp { .. }
            | KernelEvent::NicTxTimeout { .. }
            | KernelEvent::Oops
            | KernelEvent::Panic => false,
        }
    }
}

/// In a few words, for tables and tests.
impl fmt::Display for KernelEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let card = |pci: &Option<String>| pci.clone().unwrap_or_else(|| "unnamed".to_owned());
        match self {
            KernelEvent::Xid { pci, number } => write!(f, "xid {number} {pci}"),
            KernelEvent::GpuFellOff { pci } => write!(f, "gpu fell off {}", card(pci)),
            KernelEvent::GpuInitFailed { pci } => write!(f, "gpu init failed {}", card(pci)),
            KernelEvent::GpuFirmware { pci } => write!(f, "gpu firmware {}", card(pci)),
            KernelEvent::GpuDriverLoaded => f.write_str("gpu driver loaded"),
            KernelEvent::OutOfMemory => f.write_str("out of memory"),
            KernelEvent::DiskIo { device, gone: true } => write!(f, "disk gone {device}"),
            KernelEvent::DiskIo { device, .. } => write!(f, "disk io {device}"),
            KernelEvent::DiskMedium { device } => write!(f, "disk medium {device}"),
            KernelEvent::FilesystemReadonly { device } => write!(f, "read-only {device}"),
            KernelEvent::FilesystemUnclean { device } => write!(f, "unclean {device}"),
            KernelEvent::RaidDegraded { array } => write!(f, "raid degraded {array}"),
            KernelEvent::MachineCheck { uncorrected: true } => {
                f.write_str("machine check uncorrected")
            }
            KernelEvent::MachineCheck { .. } => f.write_str("machine check"),
            KernelEvent::MemoryEcc {
                uncorrected: true,
                module,
            } => write!(f, "ecc uncorrected {module}"),
            KernelEvent::MemoryEcc { module, .. } => write!(f, "ecc corrected {module}"),
            KernelEvent::PcieError { pci, severity } => {
                let severity = match severity {
                    PcieSeverity::Corrected => "corrected",
                    PcieSeverity::NonFatal => "non-fatal",
                    PcieSeverity::Fatal => "fatal",
                };
                write!(f, "pcie {severity} {pci}")
            }
            KernelEvent::CpuThrottled => f.write_str("cpu throttled"),
            KernelEvent::CpuThrottleEnded => f.write_str("cpu throttle ended"),
            KernelEvent::HungTask => f.write_str("hung task"),
            KernelEvent::Lockup { hard: true } => f.write_str("hard lockup"),
            KernelEvent::Lockup { .. } => f.write_str("soft lockup"),
            KernelEvent::NicDown { nic } => write!(f, "nic down {nic}"),
            KernelEvent::NicUp { nic } => write!(f, "nic up {nic}"),
            KernelEvent::NicTxTimeout { nic } => write!(f, "nic tx timeout {nic}"),
            KernelEvent::Oops => f.write_str("oops"),
            KernelEvent::Panic => f.write_str("panic"),
        }
    }
}

/// What one line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heard {
    /// What happened, to what.
    pub event: KernelEvent,
    /// The process that the line names.
    pub process: Option<u32>,
    /// How many events the line stands for, at least 1.
    pub weight: u64,
}

impl From<KernelEvent> for Heard {
    fn from(event: KernelEvent) -> Self {
        Heard {
            event,
            process: None,
            weight: 1,
        }
    }
}

/// What a line says of the hardware. Lines must begin with the driver's own words: those that only quote them (the
/// name of a program, of a USB device) are no evidence.
#[must_use]
pub fn event(text: &str) -> Option<Heard> {
    Scanner::shared()
        .needles_in(text.as_bytes())
        .find_map(|needle| {
            wordings()
                .filter(|wording| wording.needle == needle)
                .filter(|wording| {
                    wording.words.is_empty()
                        || wording.words.iter().any(|words| text.contains(words))
                })
                .find_map(|wording| (wording.read)(text))
        })
}

/// The words that every line with an event holds one of, each once.
pub(super) fn needles() -> Vec<&'static str> {
    let mut needles: Vec<_> = wordings().map(|wording| wording.needle).collect();
    needles.sort_unstable();
    needles.dedup();
    needles
}

/// One way of saying something.
#[derive(Debug)]
pub struct Wording {
    /// What a large log is searched for: rare in lines that say nothing of the hardware.
    pub needle: &'static str,
    /// One of these is in the line too; none where the needle says enough.
    pub words: &'static [&'static str],
    /// Who prints it: a file of the Linux kernel, of open-gpu-kernel-modules (OG), or where the line was seen.
    pub source: &'static str,
    /// Reads the line, or refuses it.
    read: fn(&str) -> Option<Heard>,
}

/// Every wording that is understood.
pub fn wordings() -> impl Iterator<Item = &'static Wording> {
    [
        gpu::WORDINGS,
        storage::WORDINGS,
        network::WORDINGS,
        machine::WORDINGS,
    ]
    .into_iter()
    .flatten()
}

/// `PCI:00000000:01:00.0:` as `0000:01:00`.
fn pci(word: &str) -> Option<String> {
    let word = word.strip_prefix("PCI:").unwrap_or(word);
    let mut parts = word.trim_end_matches([':', ',', '.', ')']).split(':');
    let mut hex = |most: usize| {
        let part = parts.next()?;
        let is_hex = !part.is_empty() && part.len() <= most;
        u32::from_str_radix(part, 16).ok().filter(|_| is_hex)
    };
    let (domain, bus) = (hex(8)?, hex(2)?);
    let device = parts
        .next()?
        .split('.')
        .next()
        .filter(|part| part.len() == 2)?;
    let device = u8::from_str_radix(device, 16).ok()?;
    parts
        .next()
        .is_none()
        .then(|| format!("{domain:04x}:{bus:02x}:{device:02x}"))
}

/// The number that a text begins with.
fn leading_number<T: std::str::FromStr>(text: &str) -> Option<T> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

/// Names become subjects of findings, and those parts of topics: plain, and not too long.
fn plain(name: &str) -> Option<String> {
    const LONGEST: usize = 40;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.!:".contains(c);
    (!name.is_empty() && name.len() <= LONGEST && name.chars().all(is_plain))
        .then(|| name.to_owned())
}
