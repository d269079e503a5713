//! What was seen: the latest reading of every source, with units. `None` is "not known", never zero.

mod beside;
mod host;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::kernel_facts::KernelFact;
use super::moment::Moment;
use super::reading::Reading;

pub use beside::{Check, CheckState, DriveHealth, Drives, Helper, Smart, Ups, UpsPower};
pub use host::{
    ClockSync, Disk, Drive, Host, MemoryController, Network, Pressure, RaidArray, Temperature,
};

/// Everything the judge looks at in one tick.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// The server.
    pub host: &'a Reading<Host>,
    /// Its GPUs.
    pub gpus: &'a Reading<Gpus>,
    /// What the kernel has said since boot.
    pub kernel: &'a Reading<KernelLog>,
    /// How its disks say they are.
    pub drives: &'a Reading<Drives>,
    /// Its UPSes.
    pub ups: &'a Reading<Vec<Ups>>,
    /// The operator's own checks.
    pub checks: &'a Reading<Vec<Check>>,
    /// One entry a camera source, in the order of the configuration.
    pub cameras: &'a [&'a Reading<CameraSource>],
}

/// What the GPU probe sees: levels and running totals.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpus {
    /// The latest state of the probe.
    pub probe: Probe,
    /// Troubles of the probe that are pinned to one card each, until that card answers again; the latest last.
    /// Each is a `Probe::Hung` or a `Probe::Crashed` with a card; a card may have one of either.
    pub troubles: Vec<Probe>,
    /// The cards in NVML's order. One that does not answer keeps only what names it.
    pub cards: Vec<Gpu>,
    /// When a card was last read.
    pub cards_at: Option<Moment>,
    /// How long the latest whole answer took: every card was read, and none was suspected.
    pub took: Option<Duration>,
    /// Xids that NVML has announced since the agent started, a row each card and number.
    pub xids: Vec<XidTotal>,
    /// NVIDIA display or 3D controllers on the PCI bus (sysfs), whatever the driver says.
    pub pci: Vec<String>,
    /// The same controllers, with what sysfs says of each.
    pub bus: Vec<PciGpu>,
    /// Processes that sleep uninterruptibly in NVIDIA's driver.
    pub stuck: Vec<StuckProcess>,
    /// The driver's version, where NVML gave one.
    pub driver: Option<String>,
}

/// How the probe of the GPUs does.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// Answering within its deadline, with all cards.
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
        /// The card that was being read: its id in `Gpus::cards`. `None`: no single one.
        card: Option<String>,
    },
    /// The probe died.
    Crashed {
        /// When.
        at: Moment,
        /// How: signal or exit status.
        how: String,
        /// How often within ten minutes: at this card, or with no card known.
        count: u64,
        /// The card that was being read: its id in `Gpus::cards`. `None`: no single one.
        card: Option<String>,
        /// The NVML call under way, where the probe had said.
        call: Option<String>,
    },
}

impl Probe {
    /// The card that a hang or a crash is pinned to.
    #[must_use]
    pub fn card(&self) -> Option<&str> {
        match self {
            Probe::Hung { card, .. } | Probe::Crashed { card, .. } => card.as_deref(),
            Probe::Answering | Probe::NoLibrary { .. } | Probe::Driver { .. } => None,
        }
    }
}

/// One NVIDIA GPU as the PCI bus shows it (sysfs), without NVML and without the driver's word.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PciGpu {
    /// Its address as the kernel writes it, without function: `0000:01:00`.
    pub pci: String,
    /// Whether its configuration space answers: one that has fallen off the bus reads as all ones. `None` while it
    /// sleeps, as reading would wake it.
    pub answers: Option<bool>,
    /// The kernel driver that holds it: `nvidia`, `vfio-pci`, …; `None`: none does.
    pub driver: Option<String>,
    /// Link speed in use, GT/s: 2.5 (generation 1), 5, 8, 16, 32, 64.
    pub link_gts: Option<f64>,
    /// Link speed that the card can do, GT/s.
    pub link_gts_max: Option<f64>,
    /// Lanes in use.
    pub link_width: Option<u32>,
    /// Lanes that the card can do.
    pub link_width_max: Option<u32>,
}

/// A process that has slept uninterruptibly in NVIDIA's driver for two looks or more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StuckProcess {
    /// Process id.
    pub pid: u32,
    /// Its name.
    pub name: String,
    /// When it was first seen so.
    pub since: Moment,
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
    /// Degrees left until the card throttles (T.Limit); below 0 it does.
    pub margin_c: Option<f64>,
    /// The margin at which its hardware slows it down (field 194), such as -2.
    pub slowdown_margin_c: Option<f64>,
    /// Graphics clock.
    pub clock_graphics_mhz: Option<u32>,
    /// Streaming multiprocessors' clock.
    pub clock_sm_mhz: Option<u32>,
    /// Memory clock.
    pub clock_memory_mhz: Option<u32>,
    /// Video engines' clock.
    pub clock_video_mhz: Option<u32>,
    /// The highest graphics clock that the card can do.
    pub clock_graphics_max_mhz: Option<u32>,
    /// The highest clock of its streaming multiprocessors.
    pub clock_sm_max_mhz: Option<u32>,
    /// The highest memory clock.
    pub clock_memory_max_mhz: Option<u32>,
    /// The highest clock of its video engines.
    pub clock_video_max_mhz: Option<u32>,
    /// P0 (busy) to P15 (idle).
    pub performance_state: Option<u32>,
    /// Why the clocks are held down, NVML's bits (`nvmlClocksEventReasons`), also those that we have no name for:
    /// 0x4 power cap, 0x8 hardware slowdown, 0x20 and 0x40 heat (software, hardware), 0x80 power brake.
    pub throttle_reasons: Option<u64>,
    /// Highest fan's speed, share of its maximum.
    pub fan_percent: Option<f64>,
    /// Every fan's speed, share of its maximum, in NVML's order; empty where the card has none to tell of. A fan that
    /// can't be read is left out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fans_percent: Vec<f64>,
    /// Turns a minute of the first fan, as its own sensor measures them.
    pub fan_rpm: Option<u32>,
    /// ECC switched on; `None` where the card has none.
    pub ecc_enabled: Option<bool>,
    /// Corrected memory errors since the driver loaded.
    pub ecc_corrected: Option<u64>,
    /// Uncorrected memory errors since the driver loaded.
    pub ecc_uncorrected: Option<u64>,
    /// Uncorrected memory errors of the card's life.
    pub ecc_uncorrected_lifetime: Option<u64>,
    /// Uncorrected errors of its memory (DRAM) since the driver loaded.
    pub ecc_uncorrected_dram: Option<u64>,
    /// Uncorrected errors of its caches and registers (SRAM) since the driver loaded; Turing and later.
    pub ecc_uncorrected_sram: Option<u64>,
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
    /// Their process ids, at most 64, in order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pids: Vec<u32>,
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// NVIDIA's driver, as loaded last.
    pub driver: Option<Driver>,
    /// A card that the first line of a longer sentence has named, and when.
    pub named: Option<(String, Moment)>,
}

/// A load of NVIDIA's kernel module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// `535.161.07`.
    pub version: String,
    /// When.
    pub loaded: Moment,
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
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CameraSource {
    /// `frigate` or `mqtt`.
    pub kind: Kind,
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

/// The kind of a camera source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Frigate's topics.
    #[default]
    Frigate,
    /// JSON of any program.
    Mqtt,
}

impl Kind {
    /// The word of the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Frigate => "frigate",
            Kind::Mqtt => "mqtt",
        }
    }
}

/// Whether the ingest program is there.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
