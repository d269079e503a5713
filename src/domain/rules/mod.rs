//! Snapshot + memory → what is wrong now; one function a rule.

pub mod agent;
pub mod camera_groups;
mod camera_view;
pub mod cameras;
pub mod gpu;
mod gpu_kernel;
pub mod gpu_levels;
pub mod host;
mod host_disks;
mod host_kernel;
mod host_parts;

use super::judge::Surroundings;
use super::moment::Now;
use super::snapshot::Snapshot;
use crate::config::Config;

/// What every rule may look at.
#[derive(Debug, Clone, Copy)]
pub struct Look<'a> {
    /// The readings.
    pub seen: Snapshot<'a>,
    /// The thresholds.
    pub config: &'a Config,
    /// What lies outside the readings.
    pub around: &'a Surroundings,
    /// Now.
    pub now: Now,
}
