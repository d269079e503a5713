//! Every key of the configuration: its type, its default and, in its doc comment, its manual.
//!
//! The parser, the sample (`config defaults`) and the JSON schema are all derived from these types.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units;

mod check;
mod ups;

pub use check::Check;
pub use ups::Ups;

/// The whole configuration.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who this node is and how much work it carries.
    pub node: Node,
    /// Where things are kept.
    pub paths: Paths,
    /// Host health: CPU, memory, disks, network.
    pub host: Host,
    /// GPU health through NVIDIA's management library.
    pub gpu: Gpu,
    /// The kernel log, where hardware faults show first.
    pub kernel_log: KernelLog,
    /// Uninterruptible power supplies, as the daemon of Network UPS Tools (upsd) tells.
    pub ups: Ups,
    /// Checks of your own.
    pub check: Vec<Check>,
    /// Cameras, as the ingest programs tell of them.
    pub cameras: Cameras,
    /// When trouble counts, and how much.
    pub judge: Judge,
    /// How this node is known to AWS.
    pub aws: Aws,
    /// Metrics to CloudWatch.
    pub cloudwatch: CloudWatch,
    /// Status relayed to an MQTT broker upstream.
    pub relay: Relay,
    /// What waits for an uplink that is down.
    pub outbox: Outbox,
    /// Steering through SSM: parameters that hold configuration, Inventory and Compliance.
    pub ssm: Ssm,
    /// Moving the work away when the hardware fails.
    pub failover: Failover,
    /// How this node is asked.
    pub status: Status,
}

/// Who this node is and how much work it carries.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// Name of this node. Default: the SSM managed-instance id, else the host name.
    pub id: Option<String>,
    /// Name of the site the node stands at; a dimension of every metric and a level of every topic.
    pub site: String,
    /// Pieces of work (camera streams) this node can carry when healthy.
    /// Default: the number of cameras under [cameras.expect], else of GPUs, else 1.
    #[schemars(range(min = 1, max = 100_000))]
    pub slots: Option<u32>,
}

impl Default for Node {
    fn default() -> Self {
        Node {
            id: None,
            site: "default".into(),
            slots: None,
        }
    }
}

/// Where things are kept. As an ordinary user without a configuration file:
/// `$XDG_STATE_HOME/sideline` and `$XDG_RUNTIME_DIR`.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// What must survive a restart.
    pub state: PathBuf,
    /// The socket is status.sock in it.
    pub run: PathBuf,
}

impl Default for Paths {
    fn default() -> Self {
        Paths {
            state: "/var/lib/sideline".into(),
            run: "/run/sideline".into(),
        }
    }
}

/// Host health: CPU, memory, disks, network.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Host {
    /// Time between two readings; 1s to 5m.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub every: Duration,
}

impl Default for Host {
    fn default() -> Self {
        Host {
            every: Duration::from_secs(10),
        }
    }
}

/// GPU health through NVIDIA's management library (NVML).
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gpu {
    /// auto: watch GPUs where there are any; always: a missing GPU or driver is a failure; never: don't look.
    pub enabled: Enabled,
    /// Time between two readings; 1s to 5m.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub every: Duration,
    /// Path of libnvidia-ml.so.1; empty: the loader's.
    pub library: String,
    /// A probe that takes longer is hung; 100ms to 5m.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub deadline: Duration,
    /// GPUs that should be here: "remember" those seen before, or a number.
    pub expected: Expected,
}

impl Default for Gpu {
    fn default() -> Self {
        Gpu {
            enabled: Enabled::Auto,
            every: Duration::from_secs(10),
            library: String::new(),
            deadline: Duration::from_secs(5),
            expected: Expected::Remember(Remember::Remember),
        }
    }
}

/// Whether a part runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Enabled {
    /// Where what it needs is there.
    Auto,
    /// And what it needs has to be there.
    Always,
    /// Not at all.
    Never,
}

/// How many GPUs should be here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged, expecting = "\"remember\" or a number of GPUs")]
pub enum Expected {
    /// Those seen before.
    Remember(Remember),
    /// So many.
    Count(u32),
}

/// The word `remember`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Remember {
    /// Those seen before.
    Remember,
}

/// The kernel log, where hardware faults show first.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct KernelLog {
    /// /dev/kmsg, or any file or FIFO that holds a kernel log (dmesg, journalctl -k, JSON, kmsg records),
    /// followed as it grows.
    pub path: PathBuf,
}

impl Default for KernelLog {
    fn default() -> Self {
        KernelLog {
            path: "/dev/kmsg".into(),
        }
    }
}

/// Cameras, as the ingest programs tell of them.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Cameras {
    /// Programs that tell of cameras; many sources may name one camera.
    pub source: Vec<Source>,
    /// Cameras that should be here, by id, and what each should deliver.
    pub expect: BTreeMap<String, Expect>,
    /// No frames for so long is down; 1s to 1h.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub down_after: Duration,
    /// At most so many cameras a source are followed.
    #[schemars(range(min = 1, max = 100_000))]
    pub max: usize,
}

impl Default for Cameras {
    fn default() -> Self {
        Cameras {
            source: Vec::new(),
            expect: BTreeMap::new(),
            down_after: Duration::from_secs(20),
            max: 4096,
        }
    }
}

/// One program that tells of cameras.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// frigate: Frigate 0.8 to 0.18; mqtt: any program that publishes JSON.
    pub kind: SourceKind,
    /// The broker: mqtt://host:1883 or mqtts://host:8883; user:password@ before the host where it asks.
    pub url: String,
    /// frigate: its mqtt.topic_prefix. Default: frigate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// mqtt: the topic; + stands for the camera's name, e.g. cameras/+/status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<String>,
    /// mqtt: where the values are in the JSON payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fields: Option<Fields>,
    /// PEM file with the authorities to trust, for mqtts. Default: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// Kinds of camera sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SourceKind {
    /// Frigate's MQTT topics.
    Frigate,
    /// JSON of any program.
    Mqtt,
}

/// JSON pointers (RFC 6901) to the values of a camera in a payload.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Fields {
    /// Up or down: a boolean, a number (0 is down) or a word (online, up, on, ok / offline, down, off, error / disabled).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// Frames a second that arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fps: Option<String>,
    /// Frames a second that should arrive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_fps: Option<String>,
    /// Time of the last frame: RFC 3339, or seconds or milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_frame: Option<String>,
}

/// What one camera should deliver.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Expect {
    /// Frames a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.1, max = 1000.0))]
    pub fps: Option<f64>,
}

/// When trouble counts, and how much.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Judge {
    /// A node that was worse has to be better for so long before it is called better; 0s to 1h.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub recover_after: Duration,
    /// An event that nothing keeps alive (an OOM kill, a program's Xid) is forgotten after so long; 1m to 7d.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub forget_after: Duration,
    /// Temperature at which a GPU is hot, 40 to 110. Default: 5 below the card's own slowdown limit, else 90.
    #[schemars(range(min = 40, max = 110))]
    pub gpu_celsius: Option<u32>,
    /// A GPU is hot after so long; 0s to 1h.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub gpu_hot_after: Duration,
    /// Disk space used at which a node is degraded.
    #[schemars(range(min = 1, max = 100))]
    pub disk_degraded_percent: f64,
    /// Disk space used at which a node is failing.
    #[schemars(range(min = 1, max = 100))]
    pub disk_failing_percent: f64,
    /// Mount points whose space is not judged: recorders fill theirs by design.
    pub disk_ignore: Vec<String>,
    /// Memory used at which a node is degraded after a minute.
    #[schemars(range(min = 1, max = 100))]
    pub memory_percent: f64,
    /// A camera that delivers less than this share of its frames is degraded.
    #[schemars(range(min = 0.01, max = 1.0))]
    pub camera_fps_ratio: f64,
    /// And is so after so long; 0s to 1h.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub camera_degraded_after: Duration,
    /// What a finding is worth, by its code: off, degraded or failing. A code that ends in * names a family.
    pub rules: BTreeMap<String, RuleLevel>,
}

impl Default for Judge {
    fn default() -> Self {
        Judge {
            recover_after: Duration::from_secs(30),
            forget_after: Duration::from_secs(600),
            gpu_celsius: None,
            gpu_hot_after: Duration::from_secs(60),
            disk_degraded_percent: 90.0,
            disk_failing_percent: 98.0,
            disk_ignore: Vec::new(),
            memory_percent: 95.0,
            camera_fps_ratio: 0.6,
            camera_degraded_after: Duration::from_secs(60),
            rules: BTreeMap::new(),
        }
    }
}

/// What a finding is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RuleLevel {
    /// Nothing: the rule is silent.
    Off,
    /// The node is degraded.
    Degraded,
    /// The node is failing.
    Failing,
}

/// How this node is known to AWS.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Aws {
    /// Region. Default: AWS_REGION, else the SSM registration's.
    pub region: String,
    /// Where the SSM agent keeps the managed-instance id and the region.
    pub registration: PathBuf,
    /// Credentials file. Default: AWS_SHARED_CREDENTIALS_FILE, else /root/.aws/credentials, which the SSM agent renews.
    pub credentials: String,
    /// Introspection address of the ECS agent; empty: don't ask.
    pub ecs_agent: String,
    /// Restart an SSM agent that sleeps while AWS can be reached, at most once an hour.
    pub restart_ssm_agent: bool,
}

impl Default for Aws {
    fn default() -> Self {
        Aws {
            region: String::new(),
            registration: "/var/lib/amazon/ssm/registration".into(),
            credentials: String::new(),
            ecs_agent: "http://127.0.0.1:51678".into(),
            restart_ssm_agent: false,
        }
    }
}

/// Metrics to CloudWatch.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CloudWatch {
    /// auto: on when a region and credentials are found; always; never.
    pub enabled: Enabled,
    /// Namespace of the metrics.
    pub namespace: String,
    /// capacity: 2 metrics; essential: 12; full: also by GPU and by camera. `sideline config cost` tells the price.
    pub profile: Profile,
    /// 1s, 5s, 10s, 30s or a multiple of 60s; under 60s is high resolution.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub period: Duration,
    /// Extra metrics that essential may send of sick GPUs and cameras while they are sick.
    #[schemars(range(min = 0, max = 500))]
    pub detail_budget: u32,
}

impl Default for CloudWatch {
    fn default() -> Self {
        CloudWatch {
            enabled: Enabled::Auto,
            namespace: "Sideline".into(),
            profile: Profile::Essential,
            period: Duration::from_secs(60),
            detail_budget: 10,
        }
    }
}

/// How many metrics a node sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// `Capacity` and `Health`.
    Capacity,
    /// Twelve, whatever the number of GPUs and cameras.
    Essential,
    /// Those, and each GPU and camera by itself.
    Full,
}

/// Status relayed to an MQTT broker upstream.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Relay {
    /// The broker: mqtts://broker:8883; empty: off.
    pub url: String,
    /// First level of every topic.
    pub prefix: String,
    /// PEM file with the authorities to trust; empty: the system's.
    pub ca: String,
    /// PEM file with this node's certificate, for brokers that ask for one (AWS IoT Core).
    pub certificate: String,
    /// PEM file with its private key.
    pub key: String,
    /// Retain the current state at the broker.
    pub retain: bool,
    /// Allow mqtt://, which is not encrypted, to a broker on another machine.
    pub insecure: bool,
}

impl Default for Relay {
    fn default() -> Self {
        Relay {
            url: String::new(),
            prefix: "sideline".into(),
            ca: String::new(),
            certificate: String::new(),
            key: String::new(),
            retain: true,
            insecure: false,
        }
    }
}

/// What waits for an uplink that is down.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Outbox {
    /// At most so much is kept, in sideline.db in paths.state; 1MiB to 64GiB. When it is full, the oldest measurements go before any event.
    #[serde(with = "units::size")]
    #[schemars(with = "String")]
    pub max_bytes: ByteSize,
    /// And nothing older than this; CloudWatch takes nothing older than 14d.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub max_age: Duration,
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox {
            max_bytes: ByteSize::mib(256),
            max_age: Duration::from_secs(14 * 86_400),
        }
    }
}

/// Steering through SSM: parameters that hold configuration, Inventory and Compliance.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ssm {
    /// Names of SSM parameters, at most 10, e.g. ["/sideline/fleet", "/sideline/site/north"]. Each holds a part of a
    /// configuration, as in this file, and is laid over it; later ones win. One that is wrong is left out whole; new
    /// ones that the agent does not live with for 5 minutes are taken back. `sideline config show` tells what counts.
    pub parameters: Vec<String>,
    /// Time between two looks at them; 1m to 1d.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub every: Duration,
    /// Tell SSM Inventory what hardware is here.
    pub inventory: bool,
    /// Tell SSM Compliance how it does.
    pub compliance: bool,
    /// Let parameters set paths, credentials and commands, too. Only this file can set it, as it alone
    /// names the parameters and the region.
    pub allow_commands: bool,
}

impl Default for Ssm {
    fn default() -> Self {
        Ssm {
            parameters: Vec::new(),
            every: Duration::from_secs(300),
            inventory: true,
            compliance: true,
            allow_commands: false,
        }
    }
}

/// Moving the work away when the hardware fails.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Failover {
    /// observe: tell what would be done; drain: set this node's ECS container instance to DRAINING, and ACTIVE again.
    pub mode: FailoverMode,
    /// Failing this long before draining; faults that prove dead hardware skip it; 0s to 1h.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub hold: Duration,
    /// Healthy this long before coming back; 0s to 7d.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub probation: Duration,
    /// Never drain if more than this share of the cluster's external nodes would be out.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_unfit_share: f64,
    /// Never drain more often than this within a day.
    #[schemars(range(min = 1, max = 100))]
    pub max_drains_a_day: u32,
    /// Never drain for what began so soon after a change: of the configuration, unless it proves dead hardware; of the
    /// driver, where other nodes have it too; 0s to 7d.
    #[serde(with = "units::duration")]
    #[schemars(with = "String")]
    pub changes: Duration,
}

impl Default for Failover {
    fn default() -> Self {
        Failover {
            mode: FailoverMode::Observe,
            hold: Duration::from_secs(60),
            probation: Duration::from_secs(900),
            max_unfit_share: 0.5,
            max_drains_a_day: 3,
            changes: Duration::from_secs(1_800),
        }
    }
}

/// What failover may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FailoverMode {
    /// Tell, and let others act.
    Observe,
    /// Drain the ECS container instance.
    Drain,
}

impl FailoverMode {
    /// The word of the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            FailoverMode::Observe => "observe",
            FailoverMode::Drain => "drain",
        }
    }
}

/// How this node is asked.
#[derive(Debug, Clone, PartialEq, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Status {
    /// Address for Prometheus text over TCP as well, e.g. 127.0.0.1:9105; empty: off.
    pub metrics_listen: String,
}
