//! What is wrong: the codes, subjects, severities and advice that the outside knows by name.

use std::fmt;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

/// How bad a finding is for the cameras this node carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing, changes nothing.
    Info,
    /// The node works on, worse than it should.
    Degraded,
    /// The hardware can't carry its cameras.
    Failing,
}

/// What a person should do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Advice {
    /// Nothing.
    None,
    /// Restart the program that hit the fault.
    RestartApp,
    /// Recreate the container task.
    RestartTask,
    /// Reset the GPU with nothing using it.
    ResetGpu,
    /// Reboot the server.
    Reboot,
    /// Take the power away and give it back.
    PowerCycle,
    /// Look at the machine: cables, slots, power, fans, disks.
    Inspect,
    /// Replace the part.
    Replace,
    /// Ask the vendor.
    ContactSupport,
}

/// What kind of trouble: the stable names of the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Code {
    /// `gpu.xid.<N>`: the driver reported Xid N.
    GpuXid(u32),
    /// `gpu.lost`: the driver says the card is gone from the bus.
    GpuLost,
    /// `gpu.missing`: a card that should be here is not.
    GpuMissing,
    /// `gpu.hung`: the probe got no answer within its deadline.
    GpuHung,
    /// `gpu.probe_crashed`: the vendor's library took the probe down.
    GpuProbeCrashed,
    /// `gpu.driver`: the driver can't be used.
    GpuDriver,
    /// `gpu.hot`: at or above the temperature at which the card protects itself.
    GpuHot,
    /// `host.disk_full`: a file system is running out of space.
    HostDiskFull,
    /// `host.disk_io`: the kernel reports I/O errors of a disk.
    HostDiskIo,
    /// `host.fs_readonly`: a file system that was writable is read-only.
    HostFsReadonly,
    /// `host.memory`: hardly any memory left.
    HostMemory,
    /// `host.oom`: the kernel killed a process for want of memory.
    HostOom,
    /// `host.clock`: the machine's clock does not agree with AWS's.
    HostClock,
    /// `camera.down`: no picture.
    CameraDown,
    /// `camera.degraded`: fewer frames than expected.
    CameraDegraded,
    /// `camera.unknown`: nobody can say how the camera does.
    CameraUnknown,
    /// `ingest.down`: the program that takes the cameras in is gone.
    IngestDown,
    /// `agent.outbox_loss`: records that waited for an outlet were lost, or a restart would lose them.
    AgentOutboxLoss,
    /// `agent.kernel_log_gap`: kernel messages were lost before they were read.
    AgentKernelLogGap,
}

impl Code {
    /// Every code but the Xid family, in the order of the contract.
    pub const PLAIN: [Code; 18] = [
        Code::GpuLost,
        Code::GpuMissing,
        Code::GpuHung,
        Code::GpuProbeCrashed,
        Code::GpuDriver,
        Code::GpuHot,
        Code::HostDiskFull,
        Code::HostDiskIo,
        Code::HostFsReadonly,
        Code::HostMemory,
        Code::HostOom,
        Code::HostClock,
        Code::CameraDown,
        Code::CameraDegraded,
        Code::CameraUnknown,
        Code::IngestDown,
        Code::AgentOutboxLoss,
        Code::AgentKernelLogGap,
    ];
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Code::GpuXid(number) => return write!(f, "gpu.xid.{number}"),
            Code::GpuLost => "gpu.lost",
            Code::GpuMissing => "gpu.missing",
            Code::GpuHung => "gpu.hung",
            Code::GpuProbeCrashed => "gpu.probe_crashed",
            Code::GpuDriver => "gpu.driver",
            Code::GpuHot => "gpu.hot",
            Code::HostDiskFull => "host.disk_full",
            Code::HostDiskIo => "host.disk_io",
            Code::HostFsReadonly => "host.fs_readonly",
            Code::HostMemory => "host.memory",
            Code::HostOom => "host.oom",
            Code::HostClock => "host.clock",
            Code::CameraDown => "camera.down",
            Code::CameraDegraded => "camera.degraded",
            Code::CameraUnknown => "camera.unknown",
            Code::IngestDown => "ingest.down",
            Code::AgentOutboxLoss => "agent.outbox_loss",
            Code::AgentKernelLogGap => "agent.kernel_log_gap",
        })
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What the trouble is with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The server as a whole.
    Host,
    /// All GPUs of the server, when no single one can be blamed.
    Gpus,
    /// One GPU, by UUID, or by PCI address while the UUID is unknown.
    Gpu(String),
    /// One disk or file system, by device or mount point.
    Disk(String),
    /// One camera, by id.
    Camera(String),
    /// One camera source, by its name.
    Source(String),
    /// sideline itself.
    Agent,
}

impl Subject {
    /// The GPU that is to blame, if it is a single one.
    #[must_use]
    pub fn gpu(&self) -> Option<&str> {
        if let Subject::Gpu(id) = self {
            Some(id)
        } else {
            None
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Host => f.write_str("host"),
            Subject::Gpus => f.write_str("gpus"),
            Subject::Gpu(id) => write!(f, "gpu:{id}"),
            Subject::Disk(name) => write!(f, "disk:{name}"),
            Subject::Camera(id) => write!(f, "camera:{id}"),
            Subject::Source(name) => write!(f, "source:{name}"),
            Subject::Agent => f.write_str("agent"),
        }
    }
}

impl Serialize for Subject {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One thing that is wrong now.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// What kind of trouble.
    pub code: Code,
    /// What the trouble is with.
    pub subject: Subject,
    /// How bad it is.
    pub severity: Severity,
    /// When it began.
    pub since: Timestamp,
    /// When it was last seen.
    pub last_seen: Timestamp,
    /// How often it was seen: events for an event, 1 for a state.
    pub count: u64,
    /// What was seen, in the source's own words.
    pub evidence: String,
    /// What to do.
    pub advice: Advice,
}
