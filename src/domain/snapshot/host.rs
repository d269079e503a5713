//! The server itself: what sysinfo, /proc and /sys tell of it, cheap enough for every look.

use serde::{Deserialize, Serialize};

/// Host health as sysinfo, /proc and /sys tell it.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Host {
    /// Busy share of all CPUs since the last reading.
    pub cpu_percent: Option<f64>,
    /// Logical CPUs.
    pub cpu_count: Option<usize>,
    /// Times since boot that a CPU slowed itself down for heat, counted once for each logical CPU that shares the core
    /// or package; `None` where the processor does not count (all but Intel's).
    pub cpu_throttles_total: Option<u64>,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Memory in use that can't be reclaimed, of all memory.
    pub memory_used_percent: Option<f64>,
    /// All memory.
    pub memory_total_bytes: Option<u64>,
    /// Memory that programs can still get.
    pub memory_available_bytes: Option<u64>,
    /// Memory controllers that count bit errors (EDAC); none without ECC memory or its driver.
    pub memory_controllers: Vec<MemoryController>,
    /// All swap; 0 when the server has none.
    pub swap_total_bytes: Option<u64>,
    /// Swap in use.
    pub swap_used_bytes: Option<u64>,
    /// Real file systems.
    pub disks: Vec<Disk>,
    /// The disks as devices.
    pub drives: Vec<Drive>,
    /// Linux software RAID (md).
    pub raids: Vec<RaidArray>,
    /// Network interfaces that carry traffic off the machine.
    pub networks: Vec<Network>,
    /// Temperature sensors.
    pub temperatures: Vec<Temperature>,
    /// Pressure-stall information (Linux 4.20).
    pub pressure: Option<Pressure>,
    /// Whether the machine's clock follows the true time.
    pub clock: Option<ClockSync>,
    /// Time since the kernel started.
    pub uptime_s: Option<u64>,
}

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Disk {
    /// Where it is mounted.
    pub mount: String,
    /// The block device.
    pub device: String,
    /// ext4, xfs, …
    pub filesystem: String,
    /// Its size.
    pub total_bytes: u64,
    /// What an unprivileged program can still write.
    pub available_bytes: u64,
    /// Share of the space in use.
    pub used_percent: f64,
    /// Mounted read-only.
    pub read_only: bool,
    /// Mounted with `errors=remount-ro`: read-only then means that the kernel gave up on it.
    pub remounts_on_error: bool,
}

/// One disk as a device, whatever is on it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Drive {
    /// The kernel's name, which may change from boot to boot: `sda`, `nvme0n1`.
    pub name: String,
    /// What tells it from all others for ever: its world-wide name, else model and serial number.
    pub id: Option<String>,
    /// Its maker's name for it.
    pub model: Option<String>,
    /// Its serial number.
    pub serial: Option<String>,
    /// Its size.
    pub size_bytes: Option<u64>,
    /// The medium can be taken out.
    pub removable: bool,
    /// It hangs on USB.
    pub usb: bool,
    /// The kernel's word on it: `running`, `offline`, `blocked` (SCSI and SATA), `live`, `resetting`, `dead` (NVMe).
    pub state: Option<String>,
}

/// One software RAID, as /sys/block/md*/md tells: <https://docs.kernel.org/admin-guide/md.html>
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RaidArray {
    /// `md0`.
    pub name: String,
    /// `raid1`, `raid5`, …
    pub level: Option<String>,
    /// `clean`, `active`, `readonly`, `inactive`, `broken`, …
    pub state: Option<String>,
    /// What it does beside its work: `idle`, `resync`, `recover`, `check`, `repair`.
    pub action: Option<String>,
    /// Disks that it should have.
    pub disks: Option<u32>,
    /// Disks that it lacks; `None` for levels without redundancy.
    pub missing: Option<u32>,
}

/// Bit errors that one memory controller has seen since its driver loaded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryController {
    /// `mc0`.
    pub name: String,
    /// Errors that ECC put right.
    pub corrected: u64,
    /// Errors that it could not.
    pub uncorrected: u64,
}

/// One network interface; rates are over the time since the last reading.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// A device of this machine stands behind it, rather than a bridge, a bond or a VLAN.
    pub physical: bool,
    /// Its hardware address.
    pub mac: Option<String>,
    /// Link state, where the kernel tells.
    pub up: Option<bool>,
    /// What the link was negotiated to; `None` while it is down.
    pub speed_mbps: Option<u32>,
    /// How often the link came or went since boot.
    pub carrier_changes_total: Option<u64>,
    /// Received.
    pub received_bytes_per_s: Option<f64>,
    /// Sent.
    pub sent_bytes_per_s: Option<f64>,
    /// Receive and transmit errors since boot.
    pub errors_total: Option<u64>,
    /// Packets dropped both ways since boot; a busy machine drops some.
    pub dropped_total: Option<u64>,
    /// Packets both ways since boot.
    pub packets_total: Option<u64>,
}

/// One temperature sensor.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Temperature {
    /// The driver's label.
    pub label: String,
    /// Now.
    pub temperature_c: f64,
    /// The limit that the sensor itself declares.
    pub critical_c: Option<f64>,
}

/// Share of the last 60 seconds in which tasks waited for a resource.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// At least one task waited for a CPU.
    pub cpu_some_percent: Option<f64>,
    /// Every task waited for memory.
    pub memory_full_percent: Option<f64>,
    /// Every task waited for a disk.
    pub io_full_percent: Option<f64>,
}

/// What the kernel knows of its clock from whoever keeps it: adjtimex(2).
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClockSync {
    /// A time daemon keeps it (not `STA_UNSYNC`, nor `TIME_ERROR`).
    pub synchronized: bool,
    /// It is off by no more than this, as far as the daemon knows; grows by 0.5 ms a second while nobody keeps it.
    pub max_error_s: f64,
    /// It is likely off by so much.
    pub est_error_s: f64,
    /// What the kernel still has to correct; 0 under daemons that correct by themselves (chrony).
    pub offset_s: f64,
}
