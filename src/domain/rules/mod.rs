//! Snapshot + memory → what is wrong now; one function a rule.

mod camera_view;
pub mod cameras;
pub mod gpu;
pub mod host;

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
    /// Now.
    pub now: Now,
}
