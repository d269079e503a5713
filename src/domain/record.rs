//! A recorded reading: what one source said at one moment, as a line of JSON that `sideline replay` takes in again.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::moment::Moment;
use super::reading::Reading;
use super::snapshot::{CameraSource, Check, Drives, Gpus, Host, KernelLog, Ups};

/// One line of a recording: `{"at":"2026-11-22T19:36:12Z","up":86400.5,"boot":"3f2b…","gpus":{…}}`.
///
/// Moments in the readings are seconds since the machine started, as `up` is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// When it was said.
    pub at: Timestamp,
    /// How long the machine had been running then, in seconds.
    pub up: f64,
    /// The kernel's boot id; empty where it is not known.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// What was said.
    #[serde(flatten)]
    pub said: Said,
}

impl Record {
    /// When the machine had started.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        let up = SignedDuration::try_from_secs_f64(self.up).unwrap_or_default();
        self.at.checked_sub(up).unwrap_or(self.at)
    }
}

/// What one source said.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    /// The server.
    Host(Word<Host>),
    /// Its GPUs.
    Gpus(Word<Gpus>),
    /// What the kernel has said since boot.
    Kernel(Word<KernelLog>),
    /// What its disks say of themselves.
    Drives(Word<Drives>),
    /// The power supplies.
    Ups(Word<Vec<Ups>>),
    /// The operator's own checks.
    Checks(Word<Vec<Check>>),
    /// One camera source; its name tells which.
    Cameras(Word<CameraSource>),
}

/// A reading as it is written: its value, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Word<T> {
    /// `{"failed":"why"}`.
    Failed {
        /// Why, for a person.
        failed: String,
    },
    /// The value itself.
    Value(T),
    /// `"off"` and `"pending"`.
    Nothing(Nothing),
}

/// Why there is neither a value nor a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Nothing {
    /// The source has not answered yet.
    Pending,
    /// It is switched off, or there is nothing to read.
    Off,
}

impl<T: Clone> Word<T> {
    /// The word for a reading.
    #[must_use]
    pub fn of(reading: &Reading<T>) -> Self {
        match reading {
            Reading::Pending => Word::Nothing(Nothing::Pending),
            Reading::Off => Word::Nothing(Nothing::Off),
            Reading::Ok { value, .. } => Word::Value(value.clone()),
            Reading::Failed { why, .. } => Word::Failed {
                failed: why.clone(),
            },
        }
    }

    /// The reading that it was, as of `at`.
    #[must_use]
    pub fn reading(self, at: Moment) -> Reading<T> {
        match self {
            Word::Nothing(Nothing::Pending) => Reading::Pending,
            Word::Nothing(Nothing::Off) => Reading::Off,
            Word::Value(value) => Reading::ok(value, at),
            Word::Failed { failed: why } => Reading::Failed { why, at },
        }
    }
}
