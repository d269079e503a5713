//! The state file: which cards exist and how they fare, read anew at every call.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use crate::codes::Code;
use crate::presets;

/// The variable that names the state file.
const STATE_FILE: &str = "FAKE_NVML_STATE";

/// The state as the file has it now, or had it when it could last be read. `None`: never.
pub(crate) fn current() -> Option<Arc<State>> {
    static LAST: Mutex<Last> = Mutex::new(Last {
        text: None,
        state: None,
    });

    // The text itself is compared: two renames within one tick of the file system's clock
    // can leave time, size and inode alike.
    let text = std::env::var_os(STATE_FILE).and_then(|path| Some((fs::read(&path).ok()?, path)));
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((text, path)) = text
        && last.text.as_ref() != Some(&text)
    {
        last.take(text, Path::new(&path));
    }
    last.state.clone()
}

struct Last {
    text: Option<Vec<u8>>,
    state: Option<Arc<State>>,
}

impl Last {
    fn take(&mut self, text: Vec<u8>, path: &Path) {
        match serde_json::from_slice(&text) {
            Ok(state) => self.state = Some(Arc::new(state)),
            Err(why) => eprintln!("fake-nvml: {}: {why}", path.display()),
        }
        self.text = Some(text);
    }
}

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct State {
    /// What nvmlInit returns.
    pub(crate) init: Code,
    pub(crate) driver_version: String,
    pub(crate) nvml_version: String,
    /// 1000 × major + 10 × minor.
    pub(crate) cuda_version: i32,
    /// Calls that block for as long as they are listed.
    pub(crate) hang: Vec<Call>,
    /// Calls that abort the process.
    pub(crate) crash: Vec<Call>,
    #[serde(deserialize_with = "presets::cards")]
    pub(crate) gpus: Vec<Gpu>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            init: Code::SUCCESS,
            driver_version: "550.90.07".into(),
            nvml_version: "12.550.90.07".into(),
            cuda_version: 12_040,
            hang: Vec::new(),
            crash: Vec::new(),
            gpus: Vec::new(),
        }
    }
}

/// One card. A value that is null is one that the card does not support.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Gpu {
    pub(crate) uuid: String,
    pub(crate) name: Option<String>,
    pub(crate) serial: Option<String>,
    pub(crate) vbios: Option<String>,
    /// As NVML writes it: `00000000:01:00.0`.
    pub(crate) pci_bus_id: String,
    pub(crate) pci_device_id: u32,
    pub(crate) pci_subsystem_id: u32,
    /// `NVML_BRAND_*`.
    pub(crate) brand: Option<u32>,
    /// `NVML_DEVICE_ARCH_*`.
    pub(crate) architecture: Option<u32>,
    pub(crate) compute_capability: Option<[i32; 2]>,
    pub(crate) minor_number: Option<u32>,

    /// Every call about this card returns `GPU_IS_LOST`.
    pub(crate) lost: bool,
    /// The card is not enumerated.
    pub(crate) missing: bool,
    /// Calls about this card that block for as long as they are listed.
    pub(crate) hang: Vec<Call>,
    /// Calls about this card that abort the process.
    pub(crate) crash: Vec<Call>,

    pub(crate) utilization: Option<Utilization>,
    /// Percent.
    pub(crate) encoder: Option<u32>,
    /// Percent.
    pub(crate) decoder: Option<u32>,
    pub(crate) memory: Option<Memory>,
    pub(crate) bar1: Option<Memory>,

    /// Degrees Celsius, as all temperatures here.
    pub(crate) temperature: Option<u32>,
    pub(crate) memory_temperature: Option<u32>,
    /// Degrees left until the card throttles.
    pub(crate) margin_temperature: Option<i32>,
    pub(crate) temperature_limits: TemperatureLimits,

    pub(crate) power_mw: Option<u32>,
    pub(crate) power_limit_mw: Option<u32>,
    pub(crate) power_default_limit_mw: Option<u32>,
    pub(crate) power_enforced_limit_mw: Option<u32>,
    pub(crate) power_min_limit_mw: Option<u32>,
    pub(crate) power_max_limit_mw: Option<u32>,
    pub(crate) total_energy_mj: Option<u64>,
    /// 0 mains, 1 battery, 2 undersized.
    pub(crate) power_source: Option<u32>,

    /// MHz.
    pub(crate) clocks: Clocks,
    /// MHz.
    pub(crate) max_clocks: Clocks,
    pub(crate) pstate: Option<u32>,
    pub(crate) throttle_reasons: Option<u64>,
    pub(crate) supported_throttle_reasons: Option<u64>,

    /// Percent for each fan.
    pub(crate) fans: Vec<u32>,
    pub(crate) fan_rpm: Option<u32>,

    pub(crate) ecc: Option<Ecc>,
    pub(crate) retired_pages: Option<RetiredPages>,
    pub(crate) remapped_rows: Option<RemappedRows>,

    pub(crate) pcie: Option<Pcie>,
    pub(crate) pcie_throughput: Option<PcieThroughput>,

    pub(crate) persistence: Option<bool>,
    /// `NVML_COMPUTEMODE_*`.
    pub(crate) compute_mode: Option<u32>,
    pub(crate) display_active: Option<bool>,
    pub(crate) display_connected: Option<bool>,

    pub(crate) processes: Option<Vec<Process>>,
    pub(crate) graphics_processes: Option<Vec<Process>>,

    /// The event types that may be registered, `nvmlEventType*`.
    pub(crate) event_types: Option<u64>,
    pub(crate) xid_events: Vec<XidEvent>,
    /// `NVML_GPU_RECOVERY_ACTION_*`, field 230.
    pub(crate) recovery_action: Option<u32>,
    /// Further values of nvmlDeviceGetFieldValues, or other ones.
    pub(crate) fields: HashMap<u32, Field>,

    /// Calls that fail for this card.
    pub(crate) errors: HashMap<Call, Code>,
    /// Calls that succeed for this card and tell nothing but ones.
    pub(crate) sentinels: Vec<Call>,
}

/// The name of a call. Without its `_v2` it stands for all versions of the call, and `*` for all calls.
#[derive(Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Call(String);

impl Call {
    /// Whether this means the exported function `name`.
    pub(crate) fn means(&self, name: &str) -> bool {
        self.0 == "*" || self.0 == name || self.0 == unversioned(name)
    }
}

impl TryFrom<String> for Call {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let call = Self(name);
        match crate::exported().any(|known| call.means(known)) {
            true => Ok(call),
            false => Err(format!("fake-nvml has no call {:?}", call.0)),
        }
    }
}

fn unversioned(name: &str) -> &str {
    name.rsplit_once("_v").map_or(name, |(base, _)| base)
}

/// Percent.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Utilization {
    pub(crate) gpu: u32,
    pub(crate) memory: u32,
}

/// Bytes.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Memory {
    pub(crate) total: u64,
    pub(crate) reserved: u64,
    pub(crate) used: u64,
    free: Option<u64>,
}

impl Memory {
    /// What the file says, or what is left.
    pub(crate) fn free(&self) -> u64 {
        self.free.unwrap_or_else(|| {
            self.total
                .saturating_sub(self.reserved)
                .saturating_sub(self.used)
        })
    }
}

/// Degrees Celsius.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct TemperatureLimits {
    pub(crate) shutdown: Option<u32>,
    pub(crate) slowdown: Option<u32>,
    pub(crate) gpu_max: Option<u32>,
    pub(crate) mem_max: Option<u32>,
}

/// MHz.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Clocks {
    pub(crate) graphics: Option<u32>,
    pub(crate) sm: Option<u32>,
    pub(crate) memory: Option<u32>,
    pub(crate) video: Option<u32>,
}

/// Error correction: its mode, and errors since the driver was loaded (volatile) and since ever (aggregate).
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Ecc {
    pub(crate) enabled: bool,
    pub(crate) pending: Option<bool>,
    pub(crate) corrected_volatile: u64,
    pub(crate) uncorrected_volatile: u64,
    /// Of `uncorrected_volatile`, those in caches and registers.
    pub(crate) uncorrected_sram: u64,
    pub(crate) corrected_aggregate: u64,
    pub(crate) uncorrected_aggregate: u64,
}

impl Default for Ecc {
    fn default() -> Self {
        Self {
            enabled: true,
            pending: None,
            corrected_volatile: 0,
            uncorrected_volatile: 0,
            uncorrected_sram: 0,
            corrected_aggregate: 0,
            uncorrected_aggregate: 0,
        }
    }
}

/// Addresses of pages retired for many single bit errors and for a double bit error.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RetiredPages {
    pub(crate) sbe: Vec<u64>,
    pub(crate) dbe: Vec<u64>,
    pub(crate) pending: bool,
}

/// Memory rows replaced by spare ones.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RemappedRows {
    pub(crate) corrected: u32,
    pub(crate) uncorrected: u32,
    pub(crate) pending: bool,
    pub(crate) failure: bool,
}

/// The link to the host.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Pcie {
    #[serde(rename = "gen")]
    pub(crate) generation: u32,
    #[serde(rename = "max_gen")]
    pub(crate) max_generation: u32,
    pub(crate) width: u32,
    pub(crate) max_width: u32,
    pub(crate) replays: u32,
    pub(crate) replay_rollovers: u32,
}

/// KB/s.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PcieThroughput {
    pub(crate) tx: u32,
    pub(crate) rx: u32,
}

/// A process on the card. Its memory is null where the driver does not tell.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    #[serde(default)]
    pub(crate) used_memory: Option<u64>,
}

/// An Xid. Events are told apart, and ordered, by `seq`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct XidEvent {
    pub(crate) seq: u64,
    pub(crate) xid: u64,
}

/// A value of nvmlDeviceGetFieldValues: a number, null, the name of an error, or a number of a chosen type.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Field {
    Unsupported(()),
    Unsigned(u64),
    Signed(i32),
    Float(f64),
    Typed(TypedField),
    Error(Code),
}

/// A number in the type that `nvmlFieldValue_t` is to have.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TypedField {
    F64(f64),
    U32(u32),
    U64(u64),
    I64(i64),
    I32(i32),
    U16(u16),
}
