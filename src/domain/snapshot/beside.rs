//! What foreign programs tell beside the host's own reading: smartctl, a UPS's daemon, the operator's own checks.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::moment::Moment;

/// How the disks say they are.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Drives {
    /// Every disk of the machine, by name, also those that say nothing.
    pub drives: Vec<DriveHealth>,
    /// Whether smartctl could be asked at all.
    pub helper: Helper,
}

/// The program that asks the disks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Helper {
    /// There was nothing to ask yet.
    #[default]
    Unknown,
    /// It runs.
    Ok,
    /// It can't be started: not installed, not allowed.
    Missing {
        /// The system's words.
        why: String,
    },
}

/// How one disk says it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DriveHealth {
    /// The kernel's name: `sda`, `nvme0n1`.
    pub name: String,
    /// As in [`Drive`](super::Drive).
    pub id: Option<String>,
    /// Its maker's name for it.
    pub model: Option<String>,
    /// What it said last; kept while it sleeps, since asking would wake it. `None` when it can't be asked.
    pub health: Option<Smart>,
    /// When it said so.
    pub read: Option<Moment>,
    /// Why there is nothing new, for a person.
    pub why: Option<String>,
}

/// A disk's own account of itself (SMART, the NVMe health log, SCSI log pages); `None` is what its kind does not tell.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Smart {
    /// The disk's own verdict: whether it will live.
    pub passed: Option<bool>,
    /// NVMe: bit 0 spare low, 1 temperature, 2 reliability degraded, 3 read-only, 4 backup failed, 5 memory region.
    pub critical_warning: Option<u8>,
    /// NVMe: spare blocks left.
    pub available_spare_percent: Option<u8>,
    /// NVMe: the spare below which it warns.
    pub available_spare_threshold_percent: Option<u8>,
    /// Share of the life that its maker promised, used up; may pass 100 (NVMe, SCSI, and ATA from smartctl 7.4).
    pub used_percent: Option<u16>,
    /// Data that it could not give back whole: NVMe media errors, SCSI uncorrected errors.
    pub media_errors: Option<u64>,
    /// ATA 5, SCSI grown defects: sectors taken out of use.
    pub reallocated: Option<u64>,
    /// ATA 197: sectors that could not be read and wait to be written.
    pub pending: Option<u64>,
    /// ATA 198: sectors that could not be read when it looked by itself.
    pub uncorrectable: Option<u64>,
    /// ATA: attributes that foretell failure and are at their threshold or below it now.
    pub failing_attributes: Vec<String>,
    /// Its temperature.
    pub temperature_c: Option<f64>,
}

/// One UPS, as NUT's daemon tells: <https://www.rfc-editor.org/rfc/rfc9271>
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ups {
    /// NUT's name for it.
    pub name: String,
    /// Maker and model.
    pub model: Option<String>,
    /// Where its power comes from.
    pub power: UpsPower,
    /// The battery is nearly empty (LB).
    pub low_battery: bool,
    /// The battery wants to be replaced (RB).
    pub replace_battery: bool,
    /// It is about to cut the power (FSD).
    pub forced_shutdown: bool,
    /// It raises an alarm of its own (ALARM).
    pub alarm: bool,
    /// More hangs on it than it can carry (OVER).
    pub overloaded: bool,
    /// `ups.status` as it stands: `OB DISCHRG LB`.
    pub status: String,
    /// The battery's charge.
    pub charge_percent: Option<f64>,
    /// How long the battery will last.
    pub runtime_s: Option<f64>,
    /// The load, of what it can carry.
    pub load_percent: Option<f64>,
    /// The daemon has lost its driver, or the driver the UPS: nothing of the rest is known then.
    pub stale: bool,
    /// The daemon's words where `stale`.
    pub why: Option<String>,
}

/// Where a UPS takes its power from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UpsPower {
    /// The line (OL).
    Line,
    /// Its battery (OB).
    Battery,
    /// It does not say.
    #[default]
    Unknown,
}

/// What one of the operator's own checks said last.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Check {
    /// Its name in the configuration.
    pub name: String,
    /// Its exit status, by the convention of monitoring plugins.
    pub state: CheckState,
    /// The first line that it printed, without performance data; else how it ended.
    pub text: String,
    /// How long it ran.
    pub took: Duration,
    /// When it ended.
    pub at: Moment,
}

/// The states of monitoring plugins: <https://www.monitoring-plugins.org/doc/guidelines.html>
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckState {
    /// Exit status 0.
    Ok,
    /// 1.
    Warning,
    /// 2.
    Critical,
    /// 3, any other, a signal, no end in time, no start.
    #[default]
    Unknown,
}
