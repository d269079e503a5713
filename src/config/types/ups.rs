//! `[ups]`: power supplies that a daemon of Network UPS Tools watches.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::units;
use super::Enabled;

/// Uninterruptible power supplies, as the daemon of Network UPS Tools (upsd) tells.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ups {
    /// auto: where upsd answers; always: an upsd that does not is a failure; never: don't ask.
    pub enabled: Enabled,
    /// Host and port of upsd.
    pub address: String,
    /// Time between two readings; 1s to 5m.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub every: Duration,
}

impl Default for Ups {
    fn default() -> Self {
        Ups {
            enabled: Enabled::Auto,
            address: "127.0.0.1:3493".into(),
            every: Duration::from_secs(10),
        }
    }
}
