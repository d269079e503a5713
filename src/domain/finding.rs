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

impl Severity {
    /// The word of the wire form.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Degraded => "degraded",
            Severity::Failing => "failing",
        }
    }
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

impl Advice {
    /// The word of the wire form.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Advice::None => "none",
            Advice::RestartApp => "restart_app",
            Advice::RestartTask => "restart_task",
            Advice::ResetGpu => "reset_gpu",
            Advice::Reboot => "reboot",
            Advice::PowerCycle => "power_cycle",
            Advice::Inspect => "inspect",
            Advice::Replace => "replace",
            Advice::ContactSupport => "contact_support",
        }
    }
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
    /// `gpu.hung`: a question to the driver gets no answer.
    GpuHung,
    /// `gpu.probe_crashed`: the vendor's library took the probe down.
    GpuProbeCrashed,
    /// `gpu.driver`: the driver can't be used.
    GpuDriver,
    /// `gpu.hot`: at or above the temperature at which the card protects itself.
    GpuHot,
    /// `gpu.power_brake`: the card is held down from outside: power supply or board.
    GpuPowerBrake,
    /// `gpu.hw_slowdown`: the card's own protection holds its clocks down.
    GpuHwSlowdown,
    /// `gpu.fan_stopped`: no fan turns while the card is hot.
    GpuFanStopped,
    /// `gpu.ecc_uncorrectable`: memory errors that could not be corrected.
    GpuEccUncorrectable,
    /// `gpu.ecc_rate`: corrected memory errors come fast.
    GpuEccRate,
    /// `gpu.row_remap_failed`: the card has no spare row left for a bad one.
    GpuRowRemapFailed,
    /// `gpu.row_remap_pending`: a repair of memory waits for a reset.
    GpuRowRemapPending,
    /// `gpu.retired_pages`: memory pages were taken out of use.
    GpuRetiredPages,
    /// `gpu.recovery_action`: the driver itself asks for a reset or a reboot.
    GpuRecoveryAction,
    /// `gpu.pcie_degraded`: the card's link is slower or narrower than this slot has shown.
    GpuPcieDegraded,
    /// `gpu.pcie_replays`: the card's link repeats packets.
    GpuPcieReplays,
    /// `gpu.clocks_stuck`: the clocks stay low though the card is busy.
    GpuClocksStuck,
    /// `gpu.memory_stuck`: memory in use by no program.
    GpuMemoryStuck,
    /// `gpu.slow_answers`: the driver answers much slower than it used to.
    GpuSlowAnswers,
    /// `host.disk_full`: a file system is running out of space.
    HostDiskFull,
    /// `host.disk_io`: the kernel reports I/O errors of a disk.
    HostDiskIo,
    /// `host.disk_wear`: a disk says that it wears out or fails.
    HostDiskWear,
    /// `host.disk_missing`: a disk that was here is gone.
    HostDiskMissing,
    /// `host.fs_readonly`: a file system that was writable is read-only.
    HostFsReadonly,
    /// `host.memory`: hardly any memory left.
    HostMemory,
    /// `host.memory_missing`: the server has less memory than it had.
    HostMemoryMissing,
    /// `host.oom`: the kernel killed a process for want of memory.
    HostOom,
    /// `host.memory_ecc`: the server's memory has errors.
    HostMemoryEcc,
    /// `host.machine_check`: the CPU reports a hardware error.
    HostMachineCheck,
    /// `host.cpu_throttled`: the CPU slows down to stay cool.
    HostCpuThrottled,
    /// `host.hung_task`: the kernel or a process is stuck.
    HostHungTask,
    /// `host.pcie_errors`: a PCIe link reports errors.
    HostPcieErrors,
    /// `host.clock`: the machine's clock is off, or nothing keeps it right.
    HostClock,
    /// `host.unclean_restart`: the server went down without being told to.
    HostUncleanRestart,
    /// `host.nic`: a network interface is gone, down, flapping or full of errors.
    HostNic,
    /// `host.power`: the power supply is in trouble, as a UPS tells.
    HostPower,
    /// `host.check`: a check of the operator's own says so.
    HostCheck,
    /// `camera.down`: no picture.
    CameraDown,
    /// `camera.degraded`: fewer frames than expected.
    CameraDegraded,
    /// `camera.unknown`: nobody can say how the camera does.
    CameraUnknown,
    /// `cameras.group`: many cameras went together, for one reason.
    CamerasGroup,
    /// `ingest.down`: the program that takes the cameras in is gone.
    IngestDown,
    /// `agent.credentials`: AWS can't be spoken to for want of valid credentials.
    AgentCredentials,
    /// `agent.identity`: what makes this machine a managed instance does not work.
    AgentIdentity,
    /// `agent.outbox_loss`: records that waited for an outlet were lost, or a restart would lose them.
    AgentOutboxLoss,
    /// `agent.config_rejected`: a configuration that is wrong was not taken, or taken back.
    AgentConfigRejected,
    /// `agent.kernel_log_gap`: kernel messages were lost before they were read.
    AgentKernelLogGap,
    /// `agent.ecs`: ECS can't be asked to move the work away.
    AgentEcs,
    /// `agent.drain_held`: a guard holds a drain back.
    AgentDrainHeld,
}

#[cfg(test)]
impl Finding {
    /// One that was seen once, for tests that look at nothing else of it.
    pub(super) fn seen_once(code: Code, subject: Subject, severity: Severity) -> Self {
        Finding {
            code,
            subject,
            severity,
            since: Timestamp::UNIX_EPOCH,
            last_seen: Timestamp::UNIX_EPOCH,
            count: 1,
            evidence: String::new(),
            advice: Advice::None,
        }
    }
}

impl Code {
    /// Every code but the Xid family, in the order of the contract.
    pub const PLAIN: [Code; 50] = [
        Code::GpuLost,
        Code::GpuMissing,
        Code::GpuHung,
        Code::GpuProbeCrashed,
        Code::GpuDriver,
        Code::GpuHot,
        Code::GpuPowerBrake,
        Code::GpuHwSlowdown,
        Code::GpuFanStopped,
        Code::GpuEccUncorrectable,
        Code::GpuEccRate,
        Code::GpuRowRemapFailed,
        Code::GpuRowRemapPending,
        Code::GpuRetiredPages,
        Code::GpuRecoveryAction,
        Code::GpuPcieDegraded,
        Code::GpuPcieReplays,
        Code::GpuClocksStuck,
        Code::GpuMemoryStuck,
        Code::GpuSlowAnswers,
        Code::HostDiskFull,
        Code::HostDiskIo,
        Code::HostDiskWear,
        Code::HostDiskMissing,
        Code::HostFsReadonly,
        Code::HostMemory,
        Code::HostMemoryMissing,
        Code::HostOom,
        Code::HostMemoryEcc,
        Code::HostMachineCheck,
        Code::HostCpuThrottled,
        Code::HostHungTask,
        Code::HostPcieErrors,
        Code::HostClock,
        Code::HostUncleanRestart,
        Code::HostNic,
        Code::HostPower,
        Code::HostCheck,
        Code::CameraDown,
        Code::CameraDegraded,
        Code::CameraUnknown,
        Code::CamerasGroup,
        Code::IngestDown,
        Code::AgentCredentials,
        Code::AgentIdentity,
        Code::AgentOutboxLoss,
        Code::AgentConfigRejected,
        Code::AgentKernelLogGap,
        Code::AgentEcs,
        Code::AgentDrainHeld,
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
            Code::GpuPowerBrake => "gpu.power_brake",
            Code::GpuHwSlowdown => "gpu.hw_slowdown",
            Code::GpuFanStopped => "gpu.fan_stopped",
            Code::GpuEccUncorrectable => "gpu.ecc_uncorrectable",
            Code::GpuEccRate => "gpu.ecc_rate",
            Code::GpuRowRemapFailed => "gpu.row_remap_failed",
            Code::GpuRowRemapPending => "gpu.row_remap_pending",
            Code::GpuRetiredPages => "gpu.retired_pages",
            Code::GpuRecoveryAction => "gpu.recovery_action",
            Code::GpuPcieDegraded => "gpu.pcie_degraded",
            Code::GpuPcieReplays => "gpu.pcie_replays",
            Code::GpuClocksStuck => "gpu.clocks_stuck",
            Code::GpuMemoryStuck => "gpu.memory_stuck",
            Code::GpuSlowAnswers => "gpu.slow_answers",
            Code::HostDiskFull => "host.disk_full",
            Code::HostDiskIo => "host.disk_io",
            Code::HostDiskWear => "host.disk_wear",
            Code::HostDiskMissing => "host.disk_missing",
            Code::HostFsReadonly => "host.fs_readonly",
            Code::HostMemory => "host.memory",
            Code::HostMemoryMissing => "host.memory_missing",
            Code::HostOom => "host.oom",
            Code::HostMemoryEcc => "host.memory_ecc",
            Code::HostMachineCheck => "host.machine_check",
            Code::HostCpuThrottled => "host.cpu_throttled",
            Code::HostHungTask => "host.hung_task",
            Code::HostPcieErrors => "host.pcie_errors",
            Code::HostClock => "host.clock",
            Code::HostUncleanRestart => "host.unclean_restart",
            Code::HostNic => "host.nic",
            Code::HostPower => "host.power",
            Code::HostCheck => "host.check",
            Code::CameraDown => "camera.down",
            Code::CameraDegraded => "camera.degraded",
            Code::CameraUnknown => "camera.unknown",
            Code::CamerasGroup => "cameras.group",
            Code::IngestDown => "ingest.down",
            Code::AgentCredentials => "agent.credentials",
            Code::AgentIdentity => "agent.identity",
            Code::AgentOutboxLoss => "agent.outbox_loss",
            Code::AgentConfigRejected => "agent.config_rejected",
            Code::AgentKernelLogGap => "agent.kernel_log_gap",
            Code::AgentEcs => "agent.ecs",
            Code::AgentDrainHeld => "agent.drain_held",
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
    /// All cameras that a `cameras.group` speaks of, by what they share.
    Cameras(String),
    /// One camera source, by its name.
    Source(String),
    /// One network interface, by name.
    Nic(String),
    /// A memory module or its controller, by name.
    Memory(String),
    /// A PCIe device or port, by address.
    Pci(String),
    /// One UPS, by name.
    Ups(String),
    /// One check of the operator's own, by name.
    Check(String),
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
            Subject::Cameras(name) => write!(f, "cameras:{name}"),
            Subject::Source(name) => write!(f, "source:{name}"),
            Subject::Nic(name) => write!(f, "nic:{name}"),
            Subject::Memory(name) => write!(f, "memory:{name}"),
            Subject::Pci(address) => write!(f, "pci:{address}"),
            Subject::Ups(name) => write!(f, "ups:{name}"),
            Subject::Check(name) => write!(f, "check:{name}"),
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
