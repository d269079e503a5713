//! What this node wants of its place in the ECS cluster, and what was seen there. Both are levels, never steps.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::moment::Moment;

/// ECS has to take a claim within this time, or its stamp is a lie: others may have counted without it.
pub const TAKEN: Duration = Duration::from_secs(5);

/// A count that is to be trusted is younger than the claim's acknowledgement by this much. Of it an earlier claim may
/// take [`TAKEN`] to be acknowledged; the rest is for answers of ECS that are old, and for clocks that differ.
pub const SETTLED: Duration = Duration::from_secs(15);

/// ECS shows what it was told within this time: its answers are consistent in the end only.
pub const SHOWN: Duration = Duration::from_secs(30);

/// What the node wants of its own container instance; whoever acts on it brings ECS there, however often it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Want {
    /// Nothing, not even a look: ECS is not asked at all.
    #[default]
    Nothing,
    /// To know how it stands there.
    Look,
    /// To be back in service: ACTIVE where there is a claim, however it may look, and then without the claim.
    Stay,
    /// To have no claim, and its status left as it is.
    LetBe,
    /// To have its claim on record.
    Claim(Claim),
    /// The same, and to know how many others are out of service.
    Count(Claim),
    /// To be DRAINING, with the claim on record.
    Drain(Claim),
}

impl Want {
    /// The claim that should be on record.
    #[must_use]
    pub fn claim(&self) -> Option<&Claim> {
        match self {
            Want::Nothing | Want::Look | Want::Stay | Want::LetBe => None,
            Want::Claim(claim) | Want::Count(claim) | Want::Drain(claim) => Some(claim),
        }
    }
}

/// Says that a node wants to be, or is, out of service by its own decision. It stands in ECS as the attribute
/// [`Claim::ATTRIBUTE`] of the container instance, `gpu.xid.79@2026-11-22T19:36:12Z`, for all other nodes to count.
///
/// A container instance that is DRAINING without one was drained by somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Since when, in whole seconds: who claims earlier goes first.
    pub at: Timestamp,
    /// Why: a finding's code, or [`Claim::MAINTENANCE`].
    pub cause: String,
}

impl Claim {
    /// Name of the attribute; ECS takes letters, digits, `-`, `_`, `.` and slashes.
    pub const ATTRIBUTE: &str = "sideline.claim";

    /// The cause of a claim that a person asked for.
    pub const MAINTENANCE: &str = "maintenance";

    /// A claim of now.
    #[must_use]
    pub fn new(cause: String, now: Timestamp) -> Self {
        let whole = Timestamp::from_second(now.as_second()).unwrap_or(now);
        Claim { at: whole, cause }
    }
}

/// The attribute's value.
impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.cause, self.at)
    }
}

/// Reads an attribute's value.
impl FromStr for Claim {
    type Err = jiff::Error;

    fn from_str(value: &str) -> Result<Self, Self::Err> {
        let (cause, at) = value.rsplit_once('@').unwrap_or((value, ""));
        Ok(Claim {
            at: at.parse()?,
            cause: cause.to_owned(),
        })
    }
}

/// Where the ECS agent on this machine has registered it, as the agent itself says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Name of the cluster.
    pub cluster: String,
    /// ARN of the container instance.
    pub container_instance: String,
    /// Tasks that the agent runs here; `None` where it does not say.
    pub tasks: Option<u32>,
}

/// What was seen in ECS.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EcsView {
    /// This node's container instance; `None` until ECS has told.
    pub own: Option<Own>,
    /// The last count of the cluster.
    pub cluster: Option<Cluster>,
    /// The claim that ECS has acknowledged last, and when it did; `None` where it has none of ours.
    pub claimed: Option<(Claim, Moment)>,
    /// Why the last call failed; `None` when it did not.
    pub trouble: Option<Trouble>,
}

/// This node's container instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// When ECS said so.
    pub at: Moment,
    /// Whether tasks are placed on it.
    pub status: Status,
    /// The claim on record.
    pub claim: Option<Claim>,
    /// Tasks that run.
    pub running: u32,
    /// Tasks that are about to.
    pub pending: u32,
}

impl Own {
    /// Whether it is DRAINING with a claim, as sideline does it.
    #[must_use]
    pub fn is_drained_with_claim(&self) -> bool {
        self.status == Status::Draining && self.claim.is_some()
    }
}

/// Whether tasks are placed on a container instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// They are.
    Active,
    /// No new ones, and the services' tasks leave.
    Draining,
    /// Registering, deregistering or inactive.
    Other,
}

/// A count of the cluster's external nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// When ECS was asked for it.
    pub at: Moment,
    /// How many there are, this one among them.
    pub external: u32,
    /// The others that are out of service, or want to be.
    pub out: Vec<Out>,
}

/// Another node that is out of service, or wants to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Out {
    /// Its container instance's ARN.
    pub arn: String,
    /// It is DRAINING, or ECS hears nothing of its agent.
    pub gone: bool,
    /// Its claim.
    pub claim: Option<Claim>,
}

/// Why a call to ECS failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The kind.
    pub kind: TroubleKind,
    /// What ECS or the system said, with the name of the call where there was one.
    pub said: String,
}

/// Kinds of trouble with ECS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// No ECS agent on this machine answers, so nobody knows which container instance it is.
    NoAgent,
    /// The node's role may not do this.
    Denied,
    /// The account's calls are too many.
    Throttled,
    /// There is no way to ECS, or no credentials for it.
    Unreachable,
    /// ECS refuses for another reason.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_comes_back_as_it_was_written() {
        let now = "2026-11-22T19:36:12.410Z".parse().unwrap();
        for cause in ["gpu.xid.79", Claim::MAINTENANCE] {
            let claim = Claim::new(cause.to_owned(), now);
            let value = claim.to_string();
            assert_eq!(value, format!("{cause}@2026-11-22T19:36:12Z"));
            assert_eq!(value.parse::<Claim>().unwrap(), claim);
        }
        for wrong in ["", "gpu.lost", "gpu.lost@", "gpu.lost@soon"] {
            assert!(wrong.parse::<Claim>().is_err(), "{wrong:?}");
        }
    }
}
