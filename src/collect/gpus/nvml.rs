//! Reading one card through NVML: what it offers, freed of the values that mean "not known".

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{
    Clock, EccCounter, MemoryError, RetirementCause, TemperatureSensor, TemperatureThreshold,
};
use nvml_wrapper::enums::device::SampleValue;
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::structs::device::FieldId;
use nvml_wrapper::sys_exports::field_id;
use nvml_wrapper::{Device, Nvml};

use crate::domain::snapshot::{Gpu, GpuState};

/// What hardly ever changes (names, limits, retired pages) is asked this seldom.
const LASTING: Duration = Duration::from_secs(60);

/// A card tells of so many problems; the rest are counted.
const PROBLEMS: usize = 8;

/// What is known of a card for the next `LASTING`.
pub(super) struct Kept {
    gpu: Gpu,
    read: Instant,
}

/// Reads the card that NVML lists at `index`. `note` is told the name of each call before it is made.
///
/// A card that has fallen off the bus is `Lost` and keeps only what names it; one that can't be named
/// has no id.
pub(super) fn read(
    nvml: &Nvml,
    index: u32,
    kept: &mut Option<Kept>,
    note: fn(&'static str),
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
    let known = kept
        .take()
        .filter(|kept| kept.gpu.id == id && kept.read.elapsed() < LASTING);
    let known = known.unwrap_or_else(|| Kept {
        gpu: lasting(&device, id, note),
        read: Instant::now(),
    });
    let mut gpu = known.gpu.clone();
    passing(&mut gpu, &device, &mut ask);
    let gpu = ask.conclude(gpu);
    // A card that was lost half-way has told only half of what lasts.
    if gpu.state != GpuState::Lost {
        *kept = Some(known);
    }
    gpu
}

/// What hardly ever changes.
fn lasting(device: &Device<'_>, id: String, note: fn(&'static str)) -> Gpu {
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
fn passing(gpu: &mut Gpu, device: &Device<'_>, ask: &mut Asker) {
    gpu.temperature_c = ask
        .value("nvmlDeviceGetTemperature", || {
            device.temperature(TemperatureSensor::Gpu)
        })
        .and_then(celsius);
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
            device.current_throttle_reasons()
        })
        .filter(|reasons| *reasons != ThrottleReasons::all())
        .map(|reasons| reasons.bits());
    gpu.fan_percent = fastest_fan(device, ask);
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
    gpu.processes = processes(device, ask);
}

fn fastest_fan(device: &Device<'_>, ask: &mut Asker) -> Option<f64> {
    let fans = ask.value("nvmlDeviceGetNumFans", || device.num_fans())?;
    (0..fans.min(16))
        .filter_map(|fan| ask.value("nvmlDeviceGetFanSpeed", || device.fan_speed(fan)))
        .filter_map(fan_percent)
        .reduce(f64::max)
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
fn processes(device: &Device<'_>, ask: &mut Asker) -> Option<u32> {
    let compute = ask.value("nvmlDeviceGetComputeRunningProcesses", || {
        device.running_compute_processes()
    });
    let graphics = ask.value("nvmlDeviceGetGraphicsRunningProcesses", || {
        device.running_graphics_processes()
    });
    if compute.is_none() && graphics.is_none() {
        return None;
    }
    let pids: BTreeSet<u32> = [compute, graphics]
        .into_iter()
        .flatten()
        .flatten()
        .map(|process| process.pid)
        .collect();
    u32::try_from(pids.len()).ok()
}

/// Asks one call at a time and keeps what went wrong.
struct Asker {
    note: fn(&'static str),
    /// The driver says that the card has fallen off the bus: it is asked nothing more.
    lost: bool,
    problems: Vec<String>,
}

impl Asker {
    fn new(note: fn(&'static str)) -> Self {
        Asker {
            note,
            lost: false,
            problems: Vec::new(),
        }
    }

    /// The answer; `None` where the card does not offer it or the call failed.
    fn value<T>(
        &mut self,
        call: &'static str,
        answer: impl FnOnce() -> Result<T, NvmlError>,
    ) -> Option<T> {
        if self.lost {
            return None;
        }
        (self.note)(call);
        match answer() {
            Ok(value) => return Some(value),
            Err(NvmlError::GpuLost) => self.lost = true,
            Err(why) if not_offered(&why) => {}
            Err(why) => {
                let problem = format!("{call}: {why}");
                if !self.problems.contains(&problem) {
                    self.problems.push(problem);
                }
            }
        }
        None
    }

    /// As `value`; a text that says nothing is none.
    fn text(
        &mut self,
        call: &'static str,
        answer: impl FnOnce() -> Result<String, NvmlError>,
    ) -> Option<String> {
        self.value(call, answer).filter(|text| {
            let text = text.trim();
            !text.is_empty() && !["0", "N/A", "[N/A]", "[Not Supported]"].contains(&text)
        })
    }

    /// The card's state by all that was asked. Where everything that a working card tells went wrong,
    /// nobody knows how it does.
    fn conclude(self, gpu: Gpu) -> Gpu {
        if self.lost {
            return Gpu {
                id: gpu.id,
                name: gpu.name,
                pci: gpu.pci,
                serial: gpu.serial,
                vbios: gpu.vbios,
                state: GpuState::Lost,
                ..Gpu::default()
            };
        }
        let mut problems = gpu.problems;
        problems.extend(self.problems);
        let told = gpu.temperature_c.is_some()
            || gpu.utilization_percent.is_some()
            || gpu.memory_total_bytes.is_some()
            || gpu.power_w.is_some();
        let state = match gpu.id.is_empty() || (!told && !problems.is_empty()) {
            true => GpuState::Unknown,
            false => GpuState::Ok,
        };
        Gpu {
            state,
            problems: shortened(problems),
            ..gpu
        }
    }
}

fn shortened(mut problems: Vec<String>) -> Vec<String> {
    let more = problems.len().saturating_sub(PROBLEMS);
    if 0 < more {
        problems.truncate(PROBLEMS);
        problems.push(format!("and {more} more"));
    }
    problems
}

/// Errors that say "this card, this driver or our binding does not know such a thing": no trouble.
fn not_offered(why: &NvmlError) -> bool {
    matches!(
        why,
        NvmlError::NotSupported
            | NvmlError::NotFound
            | NvmlError::NoData
            | NvmlError::InvalidArg
            | NvmlError::InsufficientSize(_)
            | NvmlError::FunctionNotFound
            | NvmlError::FailedToLoadSymbol(_)
            | NvmlError::Utf8Error(_)
            | NvmlError::UnexpectedVariant(_)
            | NvmlError::IncorrectBits(_)
    )
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

    #[test]
    fn errors_make_the_state() {
        use GpuState::{Lost, Ok, Unknown};
        let named = || Gpu {
            id: "GPU-1".into(),
            pci: Some("0000:01:00".into()),
            temperature_c: Some(50.0),
            ..Gpu::default()
        };
        let silent = || Gpu {
            temperature_c: None,
            ..named()
        };
        type Error = fn() -> NvmlError;
        let gone: Error = || NvmlError::GpuLost;
        let odd: Error = || NvmlError::Unknown;
        let none: Error = || NvmlError::NotSupported;
        for (gpu, errors, state, problems) in [
            (named(), &[][..], Ok, 0),
            (named(), &[none, none], Ok, 0),
            (named(), &[odd, none, odd], Ok, 1),
            (named(), &[odd, gone], Lost, 0),
            (silent(), &[none], Ok, 0),
            (silent(), &[odd], Unknown, 1),
            (Gpu::default(), &[none], Unknown, 0),
            (Gpu::default(), &[gone], Lost, 0),
        ] {
            let mut ask = Asker::new(|_| {});
            for error in errors {
                assert_eq!(ask.value("nvmlCall", || Err::<(), _>(error())), None);
            }
            let (id, pci) = (gpu.id.clone(), gpu.pci.clone());
            let gpu = ask.conclude(gpu);
            assert_eq!((gpu.state, gpu.problems.len()), (state, problems));
            assert_eq!((gpu.id, gpu.pci), (id, pci));
        }
    }

    #[test]
    fn a_lost_card_is_asked_nothing_more() {
        let mut ask = Asker::new(|_| {});
        assert_eq!(ask.value("one", || Err::<u32, _>(NvmlError::GpuLost)), None);
        assert_eq!(ask.value("two", || Ok(1)), None);
        assert_eq!(ask.conclude(Gpu::default()).state, GpuState::Lost);
    }

    #[test]
    fn problems_are_few() {
        let problems = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
        assert_eq!(shortened(problems(PROBLEMS)).len(), PROBLEMS);
        let short = shortened(problems(PROBLEMS + 3));
        assert_eq!(short.last().map(String::as_str), Some("and 3 more"));
    }
}
