//! Reading one card through NVML: what it offers, freed of the values that mean "not known".

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, MemoryLocation, RetirementCause, TemperatureSensor,
    TemperatureThreshold,
};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id;
use nvml_wrapper::{Device, Nvml};

use super::ask::Asker;
use super::raw;
use crate::domain::snapshot::{Gpu, GpuState};

/// What hardly ever changes (names, limits, retired pages) is asked this seldom.
const LASTING: Duration = Duration::from_secs(60);

/// Fans of a card that are read.
const FANS: u32 = 16;

/// Process ids of a card that are told.
const PIDS: usize = 64;

/// What is known of a card for the next `LASTING`.
pub(super) struct Kept {
    gpu: Gpu,
    read: Instant,
}

impl Kept {
    /// The card's UUID.
    pub(super) fn id(&self) -> &str {
        &self.gpu.id
    }
}

/// Reads the card that NVML lists at `index`. `note` is told the name of each call before it is made, `named` the
/// card's UUID as soon as it is known.
///
/// A card that has fallen off the bus is `Lost` and keeps only what names it; one that can't be named
/// has no id.
pub(super) fn read(
    nvml: &Nvml,
    index: u32,
    kept: &mut Option<Kept>,
    note: fn(&'static str),
    named: fn(&str),
) -> Gpu {
    let mut ask = Asker::new(note);
    let found = ask
        .value("nvmlDeviceGetHandleByIndex", || nvml.device_by_index(index))
        .and_then(|device| {
            let id = ask.value("nvmlDeviceGetUUID", || device.uuid())?;
            Some((device, id))
        });
    let Some((device, id)) = found else {
        return ask.conclude(Gpu::default());
    };
    named(&id);
    let known = kept
        .take()
        .filter(|kept| kept.gpu.id == id && kept.read.elapsed() < LASTING);
    let known = known.unwrap_or_else(|| Kept {
        gpu: lasting(nvml, &device, id, note),
        read: Instant::now(),
    });
    let mut gpu = known.gpu.clone();
    passing(&mut gpu, nvml, &device, &mut ask);
    let gpu = ask.conclude(gpu);
    // A card that was lost half-way has told only half of what lasts.
    if gpu.state != GpuState::Lost {
        *kept = Some(known);
    }
    gpu
}

/// What hardly ever changes.
fn lasting(nvml: &Nvml, device: &Device<'_>, id: String, note: fn(&'static str)) -> Gpu {
    let mut ask = Asker::new(note);
    let mut gpu = Gpu {
        id,
        ..Gpu::default()
    };
    gpu.name = ask.text("nvmlDeviceGetName", || device.name());
    gpu.serial = ask.text("nvmlDeviceGetSerial", || device.serial());
    gpu.vbios = ask.text("nvmlDeviceGetVbiosVersion", || device.vbios_version());
    gpu.pci = ask
        .value("nvmlDeviceGetPciInfo", || device.pci_info())
        .and_then(|pci| pci_address(pci.domain, pci.bus, pci.device));
    let mut limit = |threshold| {
        ask.value("nvmlDeviceGetTemperatureThreshold", || {
            device.temperature_threshold(threshold)
        })
        .and_then(celsius)
    };
    gpu.slowdown_c = limit(TemperatureThreshold::Slowdown);
    gpu.shutdown_c = limit(TemperatureThreshold::Shutdown);
    gpu.max_operating_c = limit(TemperatureThreshold::GpuMax);
    gpu.slowdown_margin_c = ask
        .value("nvmlDeviceGetFieldValues", || {
            raw::slowdown_margin(nvml, device)
        })
        .and_then(margin);
    let mut highest = |which| {
        ask.value("nvmlDeviceGetMaxClockInfo", || device.max_clock_info(which))
            .and_then(megahertz)
    };
    gpu.clock_graphics_max_mhz = highest(Clock::Graphics);
    gpu.clock_sm_max_mhz = highest(Clock::SM);
    gpu.clock_memory_max_mhz = highest(Clock::Memory);
    gpu.clock_video_max_mhz = highest(Clock::Video);
    gpu.power_limit_w = ask
        .value("nvmlDeviceGetEnforcedPowerLimit", || {
            device.enforced_power_limit()
        })
        .and_then(watts);
    gpu.pcie_generation_max = ask
        .value("nvmlDeviceGetMaxPcieLinkGeneration", || {
            device.max_pcie_link_gen()
        })
        .and_then(pcie_generation);
    gpu.pcie_width_max = ask
        .value("nvmlDeviceGetMaxPcieLinkWidth", || {
            device.max_pcie_link_width()
        })
        .and_then(pcie_width);
    gpu.ecc_enabled = ask
        .value("nvmlDeviceGetEccMode", || device.is_ecc_enabled())
        .map(|mode| mode.currently_enabled);
    let mut retired = |cause| {
        ask.value("nvmlDeviceGetRetiredPages", || device.retired_pages(cause))
            .map(|pages| pages.len() as u64)
    };
    let single = retired(RetirementCause::MultipleSingleBitEccErrors);
    let double = retired(RetirementCause::DoubleBitEccError);
    gpu.retired_pages = single.zip(double).map(|(single, double)| single + double);
    gpu.retired_pages_pending = ask.value("nvmlDeviceGetRetiredPagesPendingStatus", || {
        device.are_pages_pending_retired()
    });
    gpu.problems = ask.problems;
    gpu
}

/// What changes from one reading to the next.
fn passing(gpu: &mut Gpu, nvml: &Nvml, device: &Device<'_>, ask: &mut Asker) {
    gpu.temperature_c = ask
        .value("nvmlDeviceGetTemperature", || {
            device.temperature(TemperatureSensor::Gpu)
        })
        .and_then(celsius);
    gpu.margin_c = ask
        .value("nvmlDeviceGetMarginTemperature", || {
            raw::margin(nvml, device)
        })
        .and_then(margin);
    let load = ask.value("nvmlDeviceGetUtilizationRates", || {
        device.utilization_rates()
    });
    gpu.utilization_percent = load.as_ref().and_then(|load| percent(load.gpu));
    gpu.memory_utilization_percent = load.as_ref().and_then(|load| percent(load.memory));
    gpu.encoder_percent = ask
        .value("nvmlDeviceGetEncoderUtilization", || {
            device.encoder_utilization()
        })
        .and_then(|engine| percent(engine.utilization));
    gpu.decoder_percent = ask
        .value("nvmlDeviceGetDecoderUtilization", || {
            device.decoder_utilization()
        })
        .and_then(|engine| percent(engine.utilization));
    let memory = ask.value("nvmlDeviceGetMemoryInfo", || device.memory_info());
    gpu.memory_total_bytes = memory.as_ref().and_then(|memory| count(memory.total));
    gpu.memory_used_bytes = memory
        .as_ref()
        .and_then(|memory| count(memory.used).filter(|used| *used <= memory.total));
    gpu.power_w = ask
        .value("nvmlDeviceGetPowerUsage", || device.power_usage())
        .and_then(watts);
    let mut clock = |which| {
        ask.value("nvmlDeviceGetClockInfo", || device.clock_info(which))
            .and_then(megahertz)
    };
    gpu.clock_graphics_mhz = clock(Clock::Graphics);
    gpu.clock_sm_mhz = clock(Clock::SM);
    gpu.clock_memory_mhz = clock(Clock::Memory);
    gpu.clock_video_mhz = clock(Clock::Video);
    gpu.performance_state = ask
        .value("nvmlDeviceGetPerformanceState", || {
            device.performance_state()
        })
        .map(|state| state.as_c())
        .filter(|state| *state <= 15);
    gpu.throttle_reasons = ask
        .value("nvmlDeviceGetCurrentClocksThrottleReasons", || {
            raw::throttle_reasons(nvml, device)
        })
        .filter(|reasons| *reasons != u64::MAX);
    fans(gpu, device, ask);
    gpu.pcie_generation = ask
        .value("nvmlDeviceGetCurrPcieLinkGeneration", || {
            device.current_pcie_link_gen()
        })
        .and_then(pcie_generation);
    gpu.pcie_width = ask
        .value("nvmlDeviceGetCurrPcieLinkWidth", || {
            device.current_pcie_link_width()
        })
        .and_then(pcie_width);
    gpu.pcie_replays = ask
        .value("nvmlDeviceGetPcieReplayCounter", || {
            device.pcie_replay_counter()
        })
        .and_then(|replays| count(replays.into()));
    memory_errors(gpu, device, ask);
    processes(gpu, device, ask);
}

fn fans(gpu: &mut Gpu, device: &Device<'_>, ask: &mut Asker) {
    let Some(fans) = ask.value("nvmlDeviceGetNumFans", || device.num_fans()) else {
        return;
    };
    gpu.fans_percent = (0..fans.min(FANS))
        .filter_map(|fan| ask.value("nvmlDeviceGetFanSpeed", || device.fan_speed(fan)))
        .filter_map(fan_percent)
        .collect();
    gpu.fan_percent = gpu.fans_percent.iter().copied().reduce(f64::max);
    if fans > 0 {
        gpu.fan_rpm = ask
            .value("nvmlDeviceGetFanSpeedRPM", || device.fan_speed_rpm(0))
            .filter(|turns| *turns <= 100_000);
    }
}

/// ECC counters, remapped rows and the recovery that the driver asks for. NVML lists remapped rows even of
/// cards without ECC (leptonai/gpud#351), so what the card supports decides, not what the call says.
fn memory_errors(gpu: &mut Gpu, device: &Device<'_>, ask: &mut Asker) {
    let ecc = gpu.ecc_enabled == Some(true);
    if ecc {
        let mut errors = |kind, since| {
            ask.value("nvmlDeviceGetTotalEccErrors", || {
                device.total_ecc_errors(kind, since)
            })
            .and_then(count)
        };
        gpu.ecc_corrected = errors(MemoryError::Corrected, EccCounter::Volatile);
        gpu.ecc_uncorrected = errors(MemoryError::Uncorrected, EccCounter::Volatile);
        gpu.ecc_uncorrected_lifetime = errors(MemoryError::Uncorrected, EccCounter::Aggregate);
        let mut errors_in = |location| {
            ask.value("nvmlDeviceGetMemoryErrorCounter", || {
                let (kind, since) = (MemoryError::Uncorrected, EccCounter::Volatile);
                device.memory_error_counter(kind, since, location)
            })
            .and_then(count)
        };
        gpu.ecc_uncorrected_dram = errors_in(MemoryLocation::Device);
        gpu.ecc_uncorrected_sram = errors_in(MemoryLocation::SRAM);
    }
    let asked = [
        field_id::NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
        field_id::NVML_FI_DEV_REMAPPED_UNC,
        field_id::NVML_FI_DEV_REMAPPED_PENDING,
        field_id::NVML_FI_DEV_REMAPPED_FAILURE,
    ]
    .map(FieldId);
    let asked = if ecc { &asked[..] } else { &asked[..1] };
    let answered = ask.value("nvmlDeviceGetFieldValues", || {
        device.field_values_for(asked)
    });
    let mut fields = answered.into_iter().flatten().map(|field| {
        ask.value("nvmlDeviceGetFieldValues", || field?.value)
            .and_then(|value| number(&value))
    });
    let mut next = || fields.next().flatten();
    gpu.recovery_action = next().and_then(|action| u32::try_from(action).ok());
    gpu.remapped_rows = next();
    gpu.remap_pending = next().map(|pending| pending != 0);
    gpu.remap_failed = next().map(|failed| failed != 0);
}

/// Programs with a compute or graphics context; one that has both is one.
fn processes(gpu: &mut Gpu, device: &Device<'_>, ask: &mut Asker) {
    let compute = ask.value("nvmlDeviceGetComputeRunningProcesses", || {
        device.running_compute_processes()
    });
    let graphics = ask.value("nvmlDeviceGetGraphicsRunningProcesses", || {
        device.running_graphics_processes()
    });
    if compute.is_none() && graphics.is_none() {
        return;
    }
    let pids: BTreeSet<u32> = [compute, graphics]
        .into_iter()
        .flatten()
        .flatten()
        .map(|process| process.pid)
        .filter(|pid| *pid != u32::MAX)
        .collect();
    gpu.processes = u32::try_from(pids.len()).ok();
    gpu.pids = pids.into_iter().take(PIDS).collect();
}

/// As the kernel writes it, without the function: `0000:01:00`.
fn pci_address(domain: u32, bus: u32, device: u32) -> Option<String> {
    (bus <= 0xff && device <= 0x1f).then(|| format!("{domain:04x}:{bus:02x}:{device:02x}"))
}

fn percent(value: u32) -> Option<f64> {
    (value <= 100).then_some(value.into())
}

/// A fan may be asked for more than its noise limit allows, so more than 100.
fn fan_percent(value: u32) -> Option<f64> {
    (value <= 250).then_some(value.into())
}

fn celsius(value: u32) -> Option<f64> {
    (value <= 200).then_some(value.into())
}

/// Degrees between a card and one of its limits.
fn margin(value: i32) -> Option<f64> {
    (-200..=200).contains(&value).then_some(value.into())
}

fn watts(milliwatts: u32) -> Option<f64> {
    (milliwatts <= 2_000_000).then(|| f64::from(milliwatts) / 1000.0)
}

fn megahertz(value: u32) -> Option<u32> {
    (value <= 100_000).then_some(value)
}

fn pcie_generation(value: u32) -> Option<u32> {
    (1..=15).contains(&value).then_some(value)
}

fn pcie_width(value: u32) -> Option<u32> {
    (1..=32).contains(&value).then_some(value)
}

/// All ones, in either width, is no count.
fn count(value: u64) -> Option<u64> {
    (value != u64::MAX && value != u64::from(u32::MAX)).then_some(value)
}

/// The number in a field.
fn number(value: &SampleValue) -> Option<u64> {
    match *value {
        SampleValue::U32(value) => count(value.into()),
        SampleValue::U64(value) => count(value),
        SampleValue::I64(value) => u64::try_from(value).ok().and_then(count),
        // Counts and flags are never fractions.
        SampleValue::F64(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_not_known_is_none() {
        type Filter = fn(u32) -> Option<f64>;
        let mhz: Filter = |value| megahertz(value).map(f64::from);
        let generation: Filter = |value| pcie_generation(value).map(f64::from);
        let width: Filter = |value| pcie_width(value).map(f64::from);
        for (name, filter, good, bad) in [
            ("percent", percent as Filter, &[0, 100][..], &[101][..]),
            ("fan", fan_percent, &[0, 104], &[251, 65_535]),
            ("celsius", celsius, &[0, 105], &[201, 255]),
            ("mhz", mhz, &[0, 14_001], &[100_001]),
            ("generation", generation, &[1, 6], &[0, 16]),
            ("width", width, &[1, 16, 32], &[0, 33]),
        ] {
            for value in good {
                assert_eq!(filter(*value), Some(f64::from(*value)), "{name} {value}");
            }
            for value in bad.iter().chain(&[u32::MAX]) {
                assert_eq!(filter(*value), None, "{name} {value}");
            }
        }
        assert_eq!(watts(41_250), Some(41.25));
        assert_eq!(watts(2_000_001), None);
        for (value, expected) in [
            (0, Some(0)),
            (5_368_709_120, Some(5_368_709_120)),
            (u32::MAX.into(), None),
            (u64::MAX, None),
        ] {
            assert_eq!(count(value), expected);
        }
    }

    #[test]
    fn fields_come_in_any_type() {
        for (value, expected) in [
            (SampleValue::U32(3), Some(3)),
            (SampleValue::U32(u32::MAX), None),
            (SampleValue::U64(u64::MAX), None),
            (SampleValue::I64(-1), None),
            (SampleValue::I64(2), Some(2)),
            (SampleValue::F64(f64::NAN), None),
        ] {
            assert_eq!(number(&value), expected, "{value:?}");
        }
    }

    #[test]
    fn addresses_are_written_as_the_kernel_does() {
        for (place, expected) in [
            ((0, 1, 0), Some("0000:01:00")),
            ((0, 0xc1, 0x1f), Some("0000:c1:1f")),
            ((0x10000, 2, 3), Some("10000:02:03")),
            ((u32::MAX, u32::MAX, u32::MAX), None),
        ] {
            let (domain, bus, device) = place;
            assert_eq!(pci_address(domain, bus, device).as_deref(), expected);
        }
    }
}
