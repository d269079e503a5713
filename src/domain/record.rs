//! A recorded reading: what one source said at one moment, as a line of JSON that `sideline replay` takes in again.

use jiff::{SignedDuration, Timestamp};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, from_str, from_value};

use super::moment::Moment;
use super::reading::Reading;
use super::snapshot::{CameraSource, Check, Drives, Gpus, Host, KernelLog, Ups};

/// One line of a recording: `{"at":"2026-11-22T19:36:12Z","up":86400.5,"boot":"3f2b…","gpus":{…}}`.
///
/// Moments in the readings are seconds since the machine started, as `up` is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Record {
    /// When it was said.
    pub at: Timestamp,
    /// How long the machine had been running then, in seconds.
    pub up: f64,
    /// The kernel's boot id; empty where it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// What was said.
    #[serde(flatten)]
    pub said: Said,
}

impl Record {
    /// Reads a line.
    ///
    /// # Errors
    /// It is no JSON, or not of this form.
    pub fn parse(line: &str) -> serde_json::Result<Self> {
        let mut fields: Map<String, Value> = from_str(line)?;
        let mut field = |name| fields.remove(name).unwrap_or_default();
        let (at, up, boot) = (field("at"), field("up"), field("boot"));
        let (source, word) = fields
            .into_iter()
            .next()
            .ok_or_else(|| serde_json::Error::custom("no source says anything"))?;
        Ok(Record {
            at: from_value(at)?,
            up: from_value(up)?,
            boot: from_value::<Option<String>>(boot)?.unwrap_or_default(),
            said: match source.as_str() {
                "host" => Said::Host(Word::read(word)?),
                "gpus" => Said::Gpus(Word::read(word)?),
                "kernel" => Said::Kernel(Word::read(word)?),
                "drives" => Said::Drives(Word::read(word)?),
                "ups" => Said::Ups(Word::read(word)?),
                "checks" => Said::Checks(Word::read(word)?),
                "cameras" => Said::Cameras(Word::read(word)?),
                _ => return Err(serde_json::Error::custom("a source that there is not")),
            },
        })
    }

    /// When the machine had started.
    #[must_use]
    pub fn began(&self) -> Timestamp {
        let up = SignedDuration::try_from_secs_f64(self.up).unwrap_or_default();
        self.at.checked_sub(up).unwrap_or(self.at)
    }
}

/// What one source said.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Serialize)]
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

impl<T: DeserializeOwned> Word<T> {
    fn read(value: Value) -> serde_json::Result<Self> {
        if value.is_string() {
            return from_value(value).map(Word::Nothing);
        }
        match value.get("failed") {
            Some(Value::String(failed)) => Ok(Word::Failed {
                failed: failed.clone(),
            }),
            Some(_) | None => from_value(value).map(Word::Value),
        }
    }
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
