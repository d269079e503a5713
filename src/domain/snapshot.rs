//! What was seen: the latest reading of every source, with units. `None` is "not known", never zero.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::kernel_line::KernelFact;
use super::moment::Moment;
use super::reading::Reading;

/// Everything the judge looks at in one tick.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// The server.
    pub host: &'a Reading<Host>,
    /// Its GPUs.
    pub gpus: &'a Reading<Gpus>,
    /// What the kernel has said since boot.
    pub kernel: &'a Reading<KernelLog>,
    /// One entry a camera source, in the order of the configuration.
    pub cameras: &'a [&'a Reading<CameraSource>],
}

/// Host health as sysinfo, /proc and /sys tell it.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Host {
    /// Busy share of all CPUs since the last reading.
    pub cpu_percent: Option<f64>,
    /// Logical CPUs.
    pub cpu_count: Option<usize>,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Memory in use that can't be reclaimed, of all memory.
    pub memory_used_percent: Option<f64>,
    /// All memory.
    pub memory_total_bytes: Option<u64>,
    /// Memory that programs can still get.
    pub memory_available_bytes: Option<u64>,
    /// All swap; 0 when the server has none.
    pub swap_total_bytes: Option<u64>,
    /// Swap in use.
    pub swap_used_bytes: Option<u64>,
    /// Real file systems.
    pub disks: Vec<Disk>,
    /// Network interfaces that carry traffic off the machine.
    pub networks: Vec<Network>,
    /// Temperature sensors.
    pub temperatures: Vec<Temperature>,
    /// Pressure-stall information (Linux 4.20).
    pub pressure: Option<Pressure>,
    /// Time since the kernel started.
    pub uptime_s: Option<u64>,
}

/// One mounted file system.
#[derive(Debug, Clone, PartialEq, Serialize)]
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

/// One network interface; rates are over the time since the last reading.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Network {
    /// Its name.
    pub name: String,
    /// Link state, where the kernel tells.
    pub up: Option<bool>,
    /// Received.
    pub received_bytes_per_s: Option<f64>,
    /// Sent.
    pub sent_bytes_per_s: Option<f64>,
    /// Receive and transmit errors since boot.
    pub errors_total: Option<u64>,
}

/// One temperature sensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Temperature {
    /// The driver's label.
    pub label: String,
    /// Now.
    pub temperature_c: f64,
    /// The limit that the sensor itself declares.
    pub critical_c: Option<f64>,
}

/// Share of the last 60 seconds in which tasks waited for a resource.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pressure {
    /// At least one task waited for a CPU.
    pub cpu_some_percent: Option<f64>,
    /// Every task waited for memory.
    pub memory_full_percent: Option<f64>,
    /// Every task waited for a disk.
    pub io_full_percent: Option<f64>,
}

/// What the GPU probe sees: levels and running totals.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Gpus {
    /// The latest state of the probe.
    pub probe: Probe,
    /// The cards that the last answer listed; kept while the probe is silent.
    pub cards: Vec<Gpu>,
    /// When `cards` was read.
    pub cards_at: Option<Moment>,
    /// Xids that NVML has announced since the agent started, a row each card and number.
    pub xids: Vec<XidTotal>,
    /// NVIDIA display or 3D controllers on the PCI bus (sysfs), whatever the driver says.
    pub pci: Vec<String>,
    /// The driver's version, where NVML gave one.
    pub driver: Option<String>,
}

/// How the probe of the GPUs does.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Probe {
    /// Answering within its deadline.
    #[default]
    Answering,
    /// There is no NVML library on this machine.
    NoLibrary {
        /// The loader's words.
        why: String,
    },
    /// The library is there and will not start: no driver, version mismatch.
    Driver {
        /// NVML's words.
        why: String,
    },
    /// No answer within the deadline.
    Hung {
        /// Since when the question has been open.
        since: Moment,
        /// The NVML call that did not come back, where the probe could say.
        call: Option<String>,
    },
    /// The probe died.
    Crashed {
        /// When.
        at: Moment,
        /// How: signal or exit status.
        how: String,
        /// How often since the agent started.
        count: u64,
    },
}

/// State of one card as NVML tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum GpuState {
    /// Answers.
    Ok,
    /// The driver says that it has fallen off the bus.
    Lost,
    /// The probe got no answer.
    Hung,
    /// Not known.
    #[default]
    Unknown,
}

/// One GPU as NVML tells it; also a line of the probe. A value that the card does not offer is `None`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpu {
    /// UUID.
    pub id: String,
    /// Product name.
    pub name: Option<String>,
    /// PCI address as the kernel writes it, without function: `0000:01:00`.
    pub pci: Option<String>,
    /// Whether it answers.
    pub state: GpuState,
    /// Core temperature.
    pub temperature_c: Option<f64>,
    /// Share of time in which a kernel ran.
    pub utilization_percent: Option<f64>,
    /// Memory in use.
    pub memory_used_bytes: Option<u64>,
    /// All memory.
    pub memory_total_bytes: Option<u64>,
    /// Power drawn.
    pub power_w: Option<f64>,
    /// Power limit in force.
    pub power_limit_w: Option<f64>,
    /// Share of time in which memory was read or written.
    pub memory_utilization_percent: Option<f64>,
    /// NVENC.
    pub encoder_percent: Option<f64>,
    /// NVDEC.
    pub decoder_percent: Option<f64>,
    /// The card slows itself down here.
    pub slowdown_c: Option<f64>,
    /// The card switches itself off here.
    pub shutdown_c: Option<f64>,
    /// Highest operating temperature.
    pub max_operating_c: Option<f64>,
    /// Graphics clock.
    pub clock_graphics_mhz: Option<u32>,
    /// Streaming multiprocessors' clock.
    pub clock_sm_mhz: Option<u32>,
    /// Memory clock.
    pub clock_memory_mhz: Option<u32>,
    /// Video engines' clock.
    pub clock_video_mhz: Option<u32>,
    /// P0 (busy) to P15 (idle).
    pub performance_state: Option<u32>,
    /// Why the clocks are held down, NVML's bits (`nvmlClocksEventReasons`).
    pub throttle_reasons: Option<u64>,
    /// Highest fan's speed, share of its maximum.
    pub fan_percent: Option<f64>,
    /// ECC switched on; `None` where the card has none.
    pub ecc_enabled: Option<bool>,
    /// Corrected memory errors since the driver loaded.
    pub ecc_corrected: Option<u64>,
    /// Uncorrected memory errors since the driver loaded.
    pub ecc_uncorrected: Option<u64>,
    /// Uncorrected memory errors of the card's life.
    pub ecc_uncorrected_lifetime: Option<u64>,
    /// Pages retired for single- and double-bit errors.
    pub retired_pages: Option<u64>,
    /// Pages that the next reboot will retire.
    pub retired_pages_pending: Option<bool>,
    /// Rows remapped for uncorrectable errors.
    pub remapped_rows: Option<u64>,
    /// A remap waits for a reset.
    pub remap_pending: Option<bool>,
    /// A remap failed.
    pub remap_failed: Option<bool>,
    /// PCIe generation in use.
    pub pcie_generation: Option<u32>,
    /// PCIe generation that card and slot can do.
    pub pcie_generation_max: Option<u32>,
    /// PCIe lanes in use.
    pub pcie_width: Option<u32>,
    /// PCIe lanes that card and slot can do.
    pub pcie_width_max: Option<u32>,
    /// PCIe replays since the driver loaded.
    pub pcie_replays: Option<u64>,
    /// NVML's recovery action (field 230), where supported: 0 none.
    pub recovery_action: Option<u32>,
    /// Programs that use the card.
    pub processes: Option<u32>,
    /// Board serial number.
    pub serial: Option<String>,
    /// Firmware.
    pub vbios: Option<String>,
    /// Driver.
    pub driver: Option<String>,
    /// What could not be read though the card should offer it: the call and NVML's words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

/// Xids of one number on one card, as NVML's event set announced them.
#[derive(Debug, Clone, PartialEq)]
pub struct XidTotal {
    /// The card's UUID.
    pub gpu: String,
    /// The Xid.
    pub number: u32,
    /// How many.
    pub count: u64,
    /// The first.
    pub first: Moment,
    /// The latest.
    pub last: Moment,
}

/// What the kernel has said since boot, as running totals. It is kept across restarts of the agent.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct KernelLog {
    /// How far the log has been read, so that a restart goes on there.
    pub position: Option<Position>,
    /// One row a kind of event and subject; bounded, oldest forgotten first.
    pub facts: Vec<KernelFact>,
    /// How often records were overwritten before they could be read.
    pub gaps: u64,
    /// When that last happened.
    pub last_gap: Option<Moment>,
}

/// How far a kernel log has been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// Sequence number of the next record of /dev/kmsg.
    Kmsg(u64),
    /// The next byte of a file.
    File {
        /// Device number.
        dev: u64,
        /// Inode.
        inode: u64,
        /// Byte offset.
        offset: u64,
    },
}

/// What one camera source says.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CameraSource {
    /// `frigate` or `mqtt`.
    pub kind: &'static str,
    /// What tells it from the others: the kind, and its prefix or topic. Never a password.
    pub name: String,
    /// Whether the ingest program itself is there.
    pub ingest: Ingest,
    /// Its cameras, by id.
    pub cameras: BTreeMap<String, CameraSeen>,
    /// Messages that could not be understood, since the agent started.
    pub malformed: u64,
    /// Cameras that were not taken in because `cameras.max` was reached.
    pub over_limit: u64,
}

/// Whether the ingest program is there.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Ingest {
    /// Not heard of yet.
    #[default]
    Unknown,
    /// It says so, or its data comes in.
    Online,
    /// It says that it is gone, or its broker can't be reached.
    Offline {
        /// In whose words.
        why: String,
        /// Since when.
        since: Moment,
    },
}

/// What one source says of one camera.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CameraSeen {
    /// Frames a second that arrive.
    pub fps: Option<f64>,
    /// Frames a second that the source expects.
    pub expected_fps: Option<f64>,
    /// Switched on by its operator.
    pub enabled: Option<bool>,
    /// What the source says of the stream in so many words, and when.
    pub status: Option<(StreamStatus, Moment)>,
    /// When measurements (`fps`) last arrived.
    pub measured: Option<Moment>,
    /// How often measurements arrive: the longest spacing seen lately; `None` before the second.
    pub every: Option<Duration>,
    /// The last frame that the source knows of.
    pub last_frame: Option<Timestamp>,
    /// When the source first spoke of the camera.
    pub first_heard: Moment,
}

/// Whether a name can be a camera's id: one level of an MQTT topic that a terminal, a metric and a log can show.
#[must_use]
pub fn is_valid_camera_id(name: &str) -> bool {
    const LONGEST: usize = 128;
    let is_bad = |c: char| c.is_control() || matches!(c, '/' | '+' | '#');
    !name.is_empty() && !name.contains(is_bad) && name.chars().count() <= LONGEST
}

/// What a source says of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamStatus {
    /// Frames arrive.
    Online,
    /// No frames arrive.
    Offline,
    /// Switched off by its operator.
    Disabled,
    /// Opened only on demand, and nobody asks for it.
    Idle,
}
