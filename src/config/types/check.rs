//! `[[check]]`: the operator's own checks.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::units;

/// A check of your own: any program by the convention of monitoring plugins. Exit status 0 is ok, 1 warning, 2 critical,
/// 3 unknown, and the first line says why.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Its name: 1 to 40 of a-z, 0-9, _ and -.
    pub name: String,
    /// The program, by its whole path, and its arguments. No shell reads them.
    pub command: Vec<String>,
    /// Time between two starts; 1s to 1d. Default: 1m.
    #[serde(with = "units::duration", default = "every")]
    #[schemars(with = "String")]
    pub every: Duration,
    /// One that takes longer is killed with all that it started; 100ms to 5m, at most every. Default: 10s.
    #[serde(with = "units::duration", default = "timeout")]
    #[schemars(with = "String")]
    pub timeout: Duration,
    /// Who it runs as where the agent is root; a user of /etc/passwd. Default: nobody.
    #[serde(default = "user")]
    pub user: String,
}

fn every() -> Duration {
    Duration::from_secs(60)
}

fn timeout() -> Duration {
    Duration::from_secs(10)
}

fn user() -> String {
    "nobody".into()
}
