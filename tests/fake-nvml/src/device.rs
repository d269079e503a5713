//! The calls that tell one thing about one card: a table of what each of them reads.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};

use nvml_wrapper_sys::bindings::*;

use crate::calls;
use crate::codes::{Answer, Code, Known, returned};
use crate::gate::{self, Card, Outs};
use crate::state::{Clocks, Ecc, Gpu, RemappedRows};

/// How long NVML says that it looked to tell the load of a video engine.
const SAMPLING_PERIOD_US: c_uint = 167_000;

macro_rules! device_calls {
    ($($call:ident($($arg:ident: $arg_type:ty),*) -> ($($out:ident: $out_type:ty),+) =
        |$card:ident| [$($value:expr),+];)+) => {
        pub(crate) const CALLS: &[&str] = &[$(stringify!($call)),+];

        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $call(
                device: nvmlDevice_t, $($arg: $arg_type,)* $($out: *mut $out_type),+
            ) -> nvmlReturn_t {
                returned(|| {
                    let $card = Card::asked(stringify!($call), device)?;
                    // SAFETY: the caller's pointers are null or good.
                    unsafe { ($($out,)+).put(($($value,)+), $card.garbage) }
                })
            }
        )+
    };
}

device_calls! {
    nvmlDeviceGetIndex() -> (index: c_uint) = |card| [card.index()];
    nvmlDeviceGetMinorNumber() -> (number: c_uint) = |card| [card.minor_number.known()?];
    nvmlDeviceGetBrand() -> (brand: nvmlBrandType_t) = |card| [card.brand.known()?];
    nvmlDeviceGetArchitecture() -> (architecture: nvmlDeviceArchitecture_t) = |card| [card.architecture.known()?];
    nvmlDeviceGetCudaComputeCapability() -> (major: c_int, minor: c_int) =
        |card| [card.compute_capability.known()?[0], card.compute_capability.known()?[1]];

    nvmlDeviceGetUtilizationRates() -> (load: nvmlUtilization_t) = |card| [utilization(&card)?];
    nvmlDeviceGetEncoderUtilization() -> (percent: c_uint, period: c_uint) =
        |card| [card.encoder.known()?, SAMPLING_PERIOD_US];
    nvmlDeviceGetDecoderUtilization() -> (percent: c_uint, period: c_uint) =
        |card| [card.decoder.known()?, SAMPLING_PERIOD_US];
    nvmlDeviceGetMemoryInfo() -> (bytes: nvmlMemory_t) = |card| [memory(&card)?];
    nvmlDeviceGetBAR1MemoryInfo() -> (bytes: nvmlBAR1Memory_t) = |card| [bar1(&card)?];

    nvmlDeviceGetTemperature(sensor: nvmlTemperatureSensors_t) -> (celsius: c_uint) =
        |card| [gpu_sensor(sensor).and(card.temperature.known())?];
    nvmlDeviceGetTemperatureThreshold(kind: nvmlTemperatureThresholds_t) -> (celsius: c_uint) =
        |card| [temperature_limit(&card, kind)?];

    nvmlDeviceGetPowerUsage() -> (milliwatts: c_uint) = |card| [card.power_mw.known()?];
    nvmlDeviceGetPowerManagementLimit() -> (milliwatts: c_uint) = |card| [card.power_limit_mw.known()?];
    nvmlDeviceGetPowerManagementDefaultLimit() -> (milliwatts: c_uint) = |card| [card.power_default_limit_mw.known()?];
    nvmlDeviceGetPowerManagementLimitConstraints() -> (min: c_uint, max: c_uint) =
        |card| [card.power_min_limit_mw.known()?, card.power_max_limit_mw.known()?];
    nvmlDeviceGetEnforcedPowerLimit() -> (milliwatts: c_uint) = |card| [card.power_enforced_limit_mw.known()?];
    nvmlDeviceGetTotalEnergyConsumption() -> (millijoules: c_ulonglong) = |card| [card.total_energy_mj.known()?];
    nvmlDeviceGetPowerSource() -> (source: nvmlPowerSource_t) = |card| [card.power_source.known()?];

    nvmlDeviceGetClockInfo(kind: nvmlClockType_t) -> (mhz: c_uint) = |card| [clock(&card.clocks, kind)?];
    nvmlDeviceGetMaxClockInfo(kind: nvmlClockType_t) -> (mhz: c_uint) = |card| [clock(&card.max_clocks, kind)?];
    nvmlDeviceGetPerformanceState() -> (pstate: nvmlPstates_t) = |card| [card.pstate.known()?];
    nvmlDeviceGetPowerState() -> (pstate: nvmlPstates_t) = |card| [card.pstate.known()?];
    nvmlDeviceGetCurrentClocksThrottleReasons() -> (bits: c_ulonglong) = |card| [card.throttle_reasons.known()?];
    nvmlDeviceGetCurrentClocksEventReasons() -> (bits: c_ulonglong) = |card| [card.throttle_reasons.known()?];
    nvmlDeviceGetSupportedClocksThrottleReasons() -> (bits: c_ulonglong) =
        |card| [card.supported_throttle_reasons.known()?];
    nvmlDeviceGetSupportedClocksEventReasons() -> (bits: c_ulonglong) =
        |card| [card.supported_throttle_reasons.known()?];

    nvmlDeviceGetNumFans() -> (count: c_uint) = |card| [fan_count(&card)?];
    nvmlDeviceGetFanSpeed() -> (percent: c_uint) = |card| [fan(&card, 0)?];
    nvmlDeviceGetFanSpeed_v2(index: c_uint) -> (percent: c_uint) = |card| [fan(&card, index)?];

    nvmlDeviceGetEccMode() -> (current: nvmlEnableState_t, pending: nvmlEnableState_t) =
        |card| [u32::from(ecc(&card)?.enabled), u32::from(ecc(&card)?.pending.unwrap_or(ecc(&card)?.enabled))];
    nvmlDeviceGetTotalEccErrors(kind: nvmlMemoryErrorType_t, since: nvmlEccCounterType_t) -> (errors: c_ulonglong) =
        |card| [ecc_errors(&card, kind, since)?];
    nvmlDeviceGetMemoryErrorCounter(
        kind: nvmlMemoryErrorType_t, since: nvmlEccCounterType_t, location: nvmlMemoryLocation_t
    ) -> (errors: c_ulonglong) = |card| [ecc_errors_at(&card, kind, since, location)?];
    nvmlDeviceGetRetiredPagesPendingStatus() -> (pending: nvmlEnableState_t) =
        |card| [u32::from(card.retired_pages.as_ref().known()?.pending)];
    nvmlDeviceGetRemappedRows() -> (corrected: c_uint, uncorrected: c_uint, pending: c_uint, failure: c_uint) =
        |card| [
            remapped(&card)?.corrected, remapped(&card)?.uncorrected,
            remapped(&card)?.pending.into(), remapped(&card)?.failure.into()
        ];

    nvmlDeviceGetCurrPcieLinkGeneration() -> (generation: c_uint) = |card| [card.pcie.as_ref().known()?.generation];
    nvmlDeviceGetMaxPcieLinkGeneration() -> (generation: c_uint) = |card| [card.pcie.as_ref().known()?.max_generation];
    nvmlDeviceGetCurrPcieLinkWidth() -> (lanes: c_uint) = |card| [card.pcie.as_ref().known()?.width];
    nvmlDeviceGetMaxPcieLinkWidth() -> (lanes: c_uint) = |card| [card.pcie.as_ref().known()?.max_width];
    nvmlDeviceGetPcieReplayCounter() -> (replays: c_uint) = |card| [card.pcie.as_ref().known()?.replays];
    nvmlDeviceGetPcieThroughput(way: nvmlPcieUtilCounter_t) -> (kilobytes: c_uint) =
        |card| [pcie_throughput(&card, way)?];

    nvmlDeviceGetPersistenceMode() -> (state: nvmlEnableState_t) = |card| [card.persistence.known()?.into()];
    nvmlDeviceGetComputeMode() -> (mode: nvmlComputeMode_t) = |card| [card.compute_mode.known()?];
    nvmlDeviceGetDisplayActive() -> (state: nvmlEnableState_t) = |card| [card.display_active.known()?.into()];
    nvmlDeviceGetDisplayMode() -> (state: nvmlEnableState_t) = |card| [card.display_connected.known()?.into()];
    nvmlDeviceGetSupportedEventTypes() -> (bits: c_ulonglong) = |card| [card.event_types.known()?];
}

macro_rules! text_calls {
    ($($call:ident = |$card:ident| $text:expr;)+) => {
        calls! { TEXTS: $(
            fn $call(device: nvmlDevice_t, text: *mut c_char, length: c_uint) as me {
                let $card = Card::asked(me, device)?;
                // SAFETY: the caller's buffer is as long as they say.
                unsafe { gate::put_text(text, length, $text, $card.garbage) }
            }
        )+ }
    };
}

text_calls! {
    nvmlDeviceGetUUID         = |card| &card.uuid;
    nvmlDeviceGetName         = |card| card.name.as_deref().known()?;
    nvmlDeviceGetSerial       = |card| card.serial.as_deref().known()?;
    nvmlDeviceGetVbiosVersion = |card| card.vbios.as_deref().known()?;
}

fn utilization(gpu: &Gpu) -> Answer<nvmlUtilization_t> {
    let utilization = gpu.utilization.as_ref().known()?;
    Ok(nvmlUtilization_t {
        gpu: utilization.gpu,
        memory: utilization.memory,
    })
}

/// The first version counts what the driver reserves as used.
fn memory(gpu: &Gpu) -> Answer<nvmlMemory_t> {
    let memory = gpu.memory.as_ref().known()?;
    Ok(nvmlMemory_t {
        total: memory.total,
        free: memory.free(),
        used: memory.used + memory.reserved,
    })
}

fn bar1(gpu: &Gpu) -> Answer<nvmlBAR1Memory_t> {
    let bar1 = gpu.bar1.as_ref().known()?;
    Ok(nvmlBAR1Memory_t {
        bar1Total: bar1.total,
        bar1Free: bar1.free(),
        bar1Used: bar1.used,
    })
}

/// There is but one sensor.
pub(crate) fn gpu_sensor(sensor: nvmlTemperatureSensors_t) -> Answer<()> {
    match sensor {
        nvmlTemperatureSensors_enum_NVML_TEMPERATURE_GPU => Ok(()),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

fn temperature_limit(gpu: &Gpu, kind: nvmlTemperatureThresholds_t) -> Answer<c_uint> {
    let limits = &gpu.temperature_limits;
    match kind {
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SHUTDOWN => {
            limits.shutdown.known()
        }
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_SLOWDOWN => {
            limits.slowdown.known()
        }
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_MEM_MAX => limits.mem_max.known(),
        nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_GPU_MAX => limits.gpu_max.known(),
        other if other < nvmlTemperatureThresholds_enum_NVML_TEMPERATURE_THRESHOLD_COUNT => {
            Err(Code::NOT_SUPPORTED)
        }
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

fn clock(clocks: &Clocks, kind: nvmlClockType_t) -> Answer<c_uint> {
    match kind {
        nvmlClockType_enum_NVML_CLOCK_GRAPHICS => clocks.graphics.known(),
        nvmlClockType_enum_NVML_CLOCK_SM => clocks.sm.known(),
        nvmlClockType_enum_NVML_CLOCK_MEM => clocks.memory.known(),
        nvmlClockType_enum_NVML_CLOCK_VIDEO => clocks.video.known(),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

pub(crate) fn fan_count(gpu: &Gpu) -> Answer<c_uint> {
    match gpu.fans.len() {
        0 => Err(Code::NOT_SUPPORTED),
        count => c_uint::try_from(count).map_err(|_| Code::UNKNOWN),
    }
}

fn fan(gpu: &Gpu, index: c_uint) -> Answer<c_uint> {
    fan_count(gpu)?;
    gpu.fans
        .get(index as usize)
        .copied()
        .ok_or(Code::INVALID_ARGUMENT)
}

pub(crate) fn ecc(gpu: &Gpu) -> Answer<&Ecc> {
    gpu.ecc.as_ref().known()
}

/// Errors are counted only while the mode is on.
pub(crate) fn ecc_errors(
    gpu: &Gpu,
    kind: nvmlMemoryErrorType_t,
    since: nvmlEccCounterType_t,
) -> Answer<u64> {
    use nvmlEccCounterType_enum_NVML_AGGREGATE_ECC as AGGREGATE;
    use nvmlEccCounterType_enum_NVML_VOLATILE_ECC as VOLATILE;
    use nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_CORRECTED as CORRECTED;
    use nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED as UNCORRECTED;

    let ecc = ecc(gpu)?;
    if !ecc.enabled {
        return Err(Code::NOT_SUPPORTED);
    }
    match (kind, since) {
        (CORRECTED, VOLATILE) => Ok(ecc.corrected_volatile),
        (CORRECTED, AGGREGATE) => Ok(ecc.corrected_aggregate),
        (UNCORRECTED, VOLATILE) => Ok(ecc.uncorrected_volatile),
        (UNCORRECTED, AGGREGATE) => Ok(ecc.uncorrected_aggregate),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

/// Errors are in the card's memory, but for the uncorrected ones that the file puts into its caches.
fn ecc_errors_at(
    gpu: &Gpu,
    kind: nvmlMemoryErrorType_t,
    since: nvmlEccCounterType_t,
    location: nvmlMemoryLocation_t,
) -> Answer<u64> {
    use nvmlEccCounterType_enum_NVML_VOLATILE_ECC as VOLATILE;
    use nvmlMemoryErrorType_enum_NVML_MEMORY_ERROR_TYPE_UNCORRECTED as UNCORRECTED;

    let errors = ecc_errors(gpu, kind, since)?;
    let sram = match (kind, since) {
        (UNCORRECTED, VOLATILE) => ecc(gpu)?.uncorrected_sram,
        _ => 0,
    };
    match location {
        nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_DEVICE_MEMORY => {
            Ok(errors.saturating_sub(sram))
        }
        nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_SRAM => Ok(sram),
        other if other < nvmlMemoryLocation_enum_NVML_MEMORY_LOCATION_COUNT => Ok(0),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

/// Asks nothing about ECC: the driver too lists rows of cards that have none.
fn remapped(gpu: &Gpu) -> Answer<&RemappedRows> {
    gpu.remapped_rows.as_ref().known()
}

fn pcie_throughput(gpu: &Gpu, way: nvmlPcieUtilCounter_t) -> Answer<c_uint> {
    let throughput = gpu.pcie_throughput.as_ref().known()?;
    match way {
        nvmlPcieUtilCounter_enum_NVML_PCIE_UTIL_TX_BYTES => Ok(throughput.tx),
        nvmlPcieUtilCounter_enum_NVML_PCIE_UTIL_RX_BYTES => Ok(throughput.rx),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}
