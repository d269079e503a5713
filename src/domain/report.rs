//! The one type that flows: what sideline knows and thinks, and its versioned wire form (`status --json`).

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::finding::{Code, Finding};
use super::identity::Identity;
use super::moment::Moment;
use super::snapshot::{Check, DriveHealth, Gpu, Host, Ups};

/// The wire form's version.
pub const VERSION: u32 = 1;

/// What sideline knows and thinks at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Of the wire form.
    pub version: u32,
    /// When it was judged.
    pub at: Timestamp,
    /// The last number of the node's journal that it is current as of.
    pub seq: u64,
    /// Which server.
    pub node: Node,
    /// What to think of it.
    pub verdict: VerdictReport,
    /// How much it can carry.
    pub capacity: Capacity,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// `null` until the host was read.
    pub host: Option<Host>,
    /// How its disks say they are.
    pub drives: Vec<DriveHealth>,
    /// Its UPSes.
    pub ups: Vec<Ups>,
    /// What the operator's own checks said.
    pub checks: Vec<Check>,
    /// Its GPUs.
    pub gpus: Vec<Gpu>,
    /// Its cameras.
    pub cameras: Vec<Camera>,
    /// How telling the cloud goes.
    pub outlets: Vec<Outlet>,
    /// Who it is to AWS, and whether that can be shown.
    pub identity: Identity,
    /// How moving the work goes.
    pub failover: Failover,
    /// When the parts were measured, for those who count samples.
    #[serde(skip)]
    pub measured: Measured,
}

/// Moments at which the report's parts were measured.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Measured {
    /// Of the report itself.
    pub judged: Moment,
    /// Of `host`.
    pub host: Option<Moment>,
    /// Of `gpus`.
    pub gpus: Option<Moment>,
}

/// Which server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Node {
    /// SSM managed-instance id, or what the configuration says.
    pub id: String,
    /// The site it stands at.
    pub site: String,
    /// Its name.
    pub hostname: String,
    /// sideline's version.
    pub agent: String,
    /// The kernel's boot id.
    pub boot: String,
    /// Time since the kernel started.
    pub uptime_s: Option<u64>,
    /// Checksum of the configuration in force: nodes that have the same have it in common.
    pub config: String,
    /// Version of NVIDIA's driver.
    pub driver: Option<String>,
}

/// The verdict's states, worst last but for unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing that matters is wrong.
    Healthy,
    /// Works on, worse than it should.
    Degraded,
    /// Can't carry its cameras.
    Failing,
    /// Can't be told; never taken for healthy.
    #[default]
    Unknown,
}

impl State {
    /// Exit status of the monitoring plugins' convention, and the value of the metric `Health`.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            State::Healthy => 0,
            State::Degraded => 1,
            State::Failing => 2,
            State::Unknown => 3,
        }
    }

    /// The word of the wire form.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            State::Healthy => "healthy",
            State::Degraded => "degraded",
            State::Failing => "failing",
            State::Unknown => "unknown",
        }
    }
}

/// What to think of the node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerdictReport {
    /// In a word.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// The codes of the findings that decide it.
    pub reasons: Vec<Code>,
}

/// How much the node can carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Capacity {
    /// When healthy.
    pub slots: u32,
    /// Now.
    pub available: u32,
    /// Why less than all.
    pub because: Option<Because>,
}

/// Why a node offers less than its slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Because {
    /// Its own verdict.
    Verdict,
    /// Taken out of service by hand.
    Maintenance,
    /// A rehearsal.
    Drill,
}

/// One camera, all its sources taken together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Camera {
    /// Its id.
    pub id: Arc<str>,
    /// The kind of source that decided.
    pub source: &'static str,
    /// How it does.
    pub state: CameraState,
    /// Frames a second that arrive.
    pub fps: Option<f64>,
    /// Frames a second that should.
    pub expected_fps: Option<f64>,
    /// The same, or the best that it has delivered since the agent started where nobody says.
    #[serde(skip)]
    pub usual_fps: Option<f64>,
    /// Age of the last frame known of.
    pub last_frame_age_s: Option<f64>,
    /// Since when it has been in this state.
    pub since: Timestamp,
    /// The same, for comparing.
    #[serde(skip)]
    pub changed: Moment,
    /// Why it is not up.
    pub reason: Option<CameraReason>,
}

/// How a camera does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CameraState {
    /// Delivers.
    Up,
    /// Delivers too little.
    Degraded,
    /// Delivers nothing.
    Down,
    /// Switched off.
    Disabled,
    /// On demand, not demanded.
    Idle,
    /// Can't be told.
    #[default]
    Unknown,
}

impl CameraState {
    /// The word of the wire form.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            CameraState::Up => "up",
            CameraState::Degraded => "degraded",
            CameraState::Down => "down",
            CameraState::Disabled => "disabled",
            CameraState::Idle => "idle",
            CameraState::Unknown => "unknown",
        }
    }
}

/// Why a camera is not up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CameraReason {
    /// No frames arrive.
    NoFrames,
    /// Fewer frames than expected arrive.
    LowFps,
    /// The source says that the stream is offline.
    Offline,
    /// The last word of the source is too old.
    Stale,
    /// The source has not spoken of it yet.
    NotHeard,
    /// The ingest program or its broker is gone.
    IngestDown,
}

/// State of one way of telling the cloud.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Outlet {
    /// `cloudwatch`, `relay`, `ssm` or `ecs`.
    pub name: &'static str,
    /// How it does.
    pub state: OutletState,
    /// Last time something was acknowledged.
    pub last_success: Option<Timestamp>,
    /// Records that wait.
    pub pending: u64,
    /// How long the oldest of them has waited.
    pub oldest_pending_s: u64,
    /// Records lost since the agent started.
    pub dropped: u64,
    /// What went wrong last, while it is wrong.
    pub error: Option<String>,
}

impl Outlet {
    /// An outlet that is switched off.
    #[must_use]
    pub const fn off(name: &'static str) -> Self {
        Outlet {
            name,
            state: OutletState::Off,
            last_success: None,
            pending: 0,
            oldest_pending_s: 0,
            dropped: 0,
            error: None,
        }
    }
}

/// How an outlet does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OutletState {
    /// Not configured.
    Off,
    /// Delivering, or nothing to deliver yet.
    Ok,
    /// Can't deliver now; will.
    Retrying,
    /// The receiver refuses what is sent.
    Rejected,
}

/// How moving the work goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failover {
    /// `observe` or `drain`.
    pub mode: &'static str,
    /// Where the node stands.
    pub state: FailoverState,
    /// ECS cluster, where the agent on this node says.
    pub cluster: Option<String>,
    /// ECS container instance, likewise.
    pub container_instance: Option<String>,
    /// Since when it stands there.
    pub since: Option<Timestamp>,
    /// When maintenance ends by itself.
    pub until: Option<Timestamp>,
    /// Why it stands there; `null` in service.
    pub reason: Option<String>,
    /// Why a drain that should be is not allowed.
    pub held_back: Option<String>,
    /// A rehearsal that goes on.
    pub drill: Option<DrillReport>,
}

/// A rehearsal that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct DrillReport {
    /// When it ends by itself.
    pub until: Timestamp,
    /// Slots that are offered at most.
    pub slots: u32,
}

/// Where the node stands between in service and drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailoverState {
    /// Carries its work.
    #[default]
    InService,
    /// Can't carry it; not drained yet.
    Holding,
    /// DRAINING in ECS; tasks are leaving.
    Draining,
    /// DRAINING in ECS; they have left.
    Drained,
    /// Sound again; ACTIVE in ECS only when it has stayed so.
    Probation,
    /// Taken out of service by hand.
    Maintenance,
}

impl FailoverState {
    /// The word of the wire form.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FailoverState::InService => "in_service",
            FailoverState::Holding => "holding",
            FailoverState::Draining => "draining",
            FailoverState::Drained => "drained",
            FailoverState::Probation => "probation",
            FailoverState::Maintenance => "maintenance",
        }
    }
}

/// A step of the node's journal: the relay's `event`s.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Wire version.
    pub v: u32,
    /// When.
    pub ts: Timestamp,
    /// Its number: one more than the one before it, across restarts.
    pub seq: u64,
    /// The boot it happened in.
    pub boot: String,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum EventKind {
    /// A finding opened.
    FindingOpened {
        /// The finding.
        #[serde(flatten)]
        finding: Finding,
    },
    /// A finding closed.
    FindingClosed {
        /// The finding as it last was.
        #[serde(flatten)]
        finding: Finding,
    },
    /// The verdict or the capacity changed.
    Verdict {
        /// The new state.
        state: State,
        /// The old one.
        was: State,
        /// The codes that decide it.
        reasons: Vec<Code>,
        /// When healthy.
        slots: u32,
        /// Now.
        available: u32,
    },
    /// A camera changed its state.
    Camera {
        /// Which.
        cam: String,
        /// The new state.
        state: CameraState,
        /// The old one.
        was: CameraState,
        /// Why.
        reason: Option<CameraReason>,
    },
    /// A step of moving the work away and back, or an edge of a rehearsal.
    Failover {
        /// `state`, `drill started` or `drill ended`.
        what: &'static str,
        /// `observe`: nothing was done in ECS.
        mode: &'static str,
        /// Where the node stands.
        state: FailoverState,
        /// Where it stood before.
        was: FailoverState,
        /// Why.
        reason: Option<String>,
        /// When maintenance or a rehearsal ends by itself.
        until: Option<Timestamp>,
        /// Slots that a rehearsal offers.
        slots: Option<u32>,
    },
    /// The agent started or stopped, or was told to do something.
    Agent {
        /// `started`, `stopped`, `inventory accepted` or `ssm agent restarted`.
        what: &'static str,
        /// Its version.
        agent: String,
    },
}

/// For the agent's own log.
impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventKind::FindingOpened { finding } => {
                write!(
                    f,
                    "{} of {} opened: {}",
                    finding.code, finding.subject, finding.evidence
                )
            }
            EventKind::FindingClosed { finding } => {
                write!(f, "{} of {} closed", finding.code, finding.subject)
            }
            EventKind::Verdict {
                state,
                was,
                slots,
                available,
                ..
            } => {
                write!(
                    f,
                    "{} (was {}), carries {available} of {slots} slots",
                    state.name(),
                    was.name()
                )
            }
            EventKind::Camera {
                cam, state, was, ..
            } => {
                write!(f, "camera {cam} is {} (was {})", state.name(), was.name())
            }
            EventKind::Failover {
                what: "state",
                mode,
                state,
                was,
                reason,
                ..
            } => {
                let (state, was) = (state.name(), was.name());
                write!(f, "failover ({mode}): {was} to {state}")?;
                reason.iter().try_for_each(|why| write!(f, ": {why}"))
            }
            EventKind::Failover {
                what, slots, until, ..
            } => {
                write!(f, "{what}")?;
                slots
                    .iter()
                    .try_for_each(|slots| write!(f, ": {slots} slots"))?;
                until
                    .iter()
                    .try_for_each(|until| write!(f, " until {until}"))
            }
            EventKind::Agent { what, agent } => write!(f, "agent {agent} {what}"),
        }
    }
}

/// One of a node of which no more is known, for tests.
#[cfg(test)]
pub(super) fn test_report(state: State, findings: Vec<Finding>) -> Report {
    Report {
        version: VERSION,
        at: Timestamp::UNIX_EPOCH,
        seq: 0,
        node: Node::default(),
        verdict: VerdictReport {
            state,
            since: Timestamp::UNIX_EPOCH,
            reasons: Vec::new(),
        },
        capacity: Capacity::default(),
        findings,
        host: None,
        drives: Vec::new(),
        ups: Vec::new(),
        checks: Vec::new(),
        gpus: Vec::new(),
        cameras: Vec::new(),
        outlets: Vec::new(),
        identity: Identity::default(),
        failover: Failover {
            mode: "observe",
            state: FailoverState::InService,
            cluster: None,
            container_instance: None,
            since: None,
            until: None,
            reason: None,
            held_back: None,
            drill: None,
        },
        measured: Measured::default(),
    }
}
