//! The calls whose answer is a list, a field, or a structure that states its own version.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong};
use std::mem;

use nvml_wrapper_sys::bindings::*;

use crate::calls;
use crate::codes::{Answer, Code, Known};
use crate::device::{ecc, ecc_errors, fan_count, gpu_sensor};
use crate::gate::{Card, Outs};
use crate::state::{Field, Gpu, Process, TypedField};
use crate::system::bus_address;

/// What NVML says where there are no instances.
const NO_INSTANCE: c_uint = c_uint::MAX;

/// When pages are said to have been retired, in µs since 1970.
const RETIRED_AT_US: c_ulonglong = 1_700_000_000_000_000;

calls! { CALLS:
    fn nvmlDeviceGetPciInfo(device: nvmlDevice_t, info: *mut nvmlPciInfo_t) as me {
        // SAFETY: the caller's pointer is null or good.
        unsafe { put_pci_info(me, device, info) }
    }
    fn nvmlDeviceGetPciInfo_v2(device: nvmlDevice_t, info: *mut nvmlPciInfo_t) as me {
        // SAFETY: the caller's pointer is null or good.
        unsafe { put_pci_info(me, device, info) }
    }
    fn nvmlDeviceGetPciInfo_v3(device: nvmlDevice_t, info: *mut nvmlPciInfo_t) as me {
        // SAFETY: the caller's pointer is null or good.
        unsafe { put_pci_info(me, device, info) }
    }

    fn nvmlDeviceGetMemoryInfo_v2(device: nvmlDevice_t, memory: *mut nvmlMemory_v2_t) as me {
        let card = Card::asked(me, device)?;
        // SAFETY: the caller's pointer is null or good.
        let asked = unsafe { versioned(memory, 2, |memory| memory.version) }?;
        let found = card.memory.as_ref().known()?;
        let answer = nvmlMemory_v2_t {
            total: found.total, reserved: found.reserved, free: found.free(), used: found.used, ..*asked
        };
        // SAFETY: the caller's pointer is good.
        unsafe { (memory,).put((answer,), card.garbage) }
    }

    fn nvmlDeviceGetTemperatureV(device: nvmlDevice_t, temperature: *mut nvmlTemperature_t) as me {
        let card = Card::asked(me, device)?;
        // SAFETY: the caller's pointer is null or good.
        let asked = unsafe { versioned(temperature, 1, |temperature| temperature.version) }?;
        gpu_sensor(asked.sensorType)?;
        let celsius = c_int::try_from(card.temperature.known()?).map_err(|_| Code::UNKNOWN)?;
        let answer = nvmlTemperature_t { temperature: celsius, ..*asked };
        // SAFETY: the caller's pointer is good.
        unsafe { (temperature,).put((answer,), card.garbage) }
    }

    fn nvmlDeviceGetMarginTemperature(device: nvmlDevice_t, margin: *mut nvmlMarginTemperature_t) as me {
        let card = Card::asked(me, device)?;
        // SAFETY: the caller's pointer is null or good.
        let asked = unsafe { versioned(margin, 1, |margin| margin.version) }?;
        let answer = nvmlMarginTemperature_t { marginTemperature: card.margin_temperature.known()?, ..*asked };
        // SAFETY: the caller's pointer is good.
        unsafe { (margin,).put((answer,), card.garbage) }
    }

    fn nvmlDeviceGetFanSpeedRPM(device: nvmlDevice_t, fan: *mut nvmlFanSpeedInfo_t) as me {
        let card = Card::asked(me, device)?;
        // SAFETY: the caller's pointer is null or good.
        let asked = unsafe { versioned(fan, 1, |fan| fan.version) }?;
        if fan_count(&card)? <= asked.fan {
            return Err(Code::INVALID_ARGUMENT);
        }
        let answer = nvmlFanSpeedInfo_t { speed: card.fan_rpm.known()?, ..*asked };
        // SAFETY: the caller's pointer is good.
        unsafe { (fan,).put((answer,), card.garbage) }
    }

    fn nvmlDeviceGetComputeRunningProcesses_v2(
        device: nvmlDevice_t, count: *mut c_uint, list: *mut nvmlProcessInfo_v2_t
    ) as me {
        let card = Card::asked(me, device)?;
        // SAFETY: the caller's list is as long as they say.
        unsafe { put_list(processes(card.processes.as_ref())?, count, list, card.garbage) }
    }
    fn nvmlDeviceGetComputeRunningProcesses_v3(
        device: nvmlDevice_t, count: *mut c_uint, list: *mut nvmlProcessInfo_v2_t
    ) as me {
        let card = Card::asked(me, device)?;
        // SAFETY: the caller's list is as long as they say.
        unsafe { put_list(processes(card.processes.as_ref())?, count, list, card.garbage) }
    }
    fn nvmlDeviceGetGraphicsRunningProcesses_v2(
        device: nvmlDevice_t, count: *mut c_uint, list: *mut nvmlProcessInfo_v2_t
    ) as me {
        let card = Card::asked(me, device)?;
        // SAFETY: the caller's list is as long as they say.
        unsafe { put_list(processes(card.graphics_processes.as_ref())?, count, list, card.garbage) }
    }
    fn nvmlDeviceGetGraphicsRunningProcesses_v3(
        device: nvmlDevice_t, count: *mut c_uint, list: *mut nvmlProcessInfo_v2_t
    ) as me {
        let card = Card::asked(me, device)?;
        // SAFETY: the caller's list is as long as they say.
        unsafe { put_list(processes(card.graphics_processes.as_ref())?, count, list, card.garbage) }
    }

    fn nvmlDeviceGetRetiredPages(
        device: nvmlDevice_t, cause: nvmlPageRetirementCause_t, count: *mut c_uint, addresses: *mut c_ulonglong
    ) as me {
        let card = Card::asked(me, device)?;
        // SAFETY: the caller's list is as long as they say.
        unsafe { put_list(retired_pages(&card, cause)?, count, addresses, card.garbage) }
    }
    fn nvmlDeviceGetRetiredPages_v2(
        device: nvmlDevice_t, cause: nvmlPageRetirementCause_t, count: *mut c_uint,
        addresses: *mut c_ulonglong, timestamps: *mut c_ulonglong
    ) as me {
        let card = Card::asked(me, device)?;
        let pages = retired_pages(&card, cause)?;
        let times = (RETIRED_AT_US..).take(pages.len()).collect();
        // SAFETY: both of the caller's lists are as long as they say.
        unsafe {
            put_list(pages, count, addresses, card.garbage)?;
            put_list(times, count, timestamps, card.garbage)
        }
    }

    fn nvmlDeviceGetFieldValues(device: nvmlDevice_t, count: c_int, values: *mut nvmlFieldValue_t) as me {
        let card = Card::asked(me, device)?;
        let count = usize::try_from(count).map_err(|_| Code::INVALID_ARGUMENT)?;
        if values.is_null() || count == 0 {
            return Err(Code::INVALID_ARGUMENT);
        }
        // SAFETY: the caller's list is as long as they say.
        for value in unsafe { std::slice::from_raw_parts_mut(values, count) } {
            fill(value, field(&card, value.fieldId), card.garbage);
        }
        Ok(())
    }
}

/// What the caller put into a structure that states its own size and version.
///
/// # Safety
/// `asked` must be null or valid for reading.
unsafe fn versioned<'a, T>(
    asked: *const T,
    version: c_uint,
    of: impl Fn(&T) -> c_uint,
) -> Answer<&'a T> {
    // SAFETY: the caller promises it.
    let asked = unsafe { asked.as_ref() }.ok_or(Code::INVALID_ARGUMENT)?;
    let right =
        c_uint::try_from(mem::size_of::<T>()).is_ok_and(|size| of(asked) == size | version << 24);
    right
        .then_some(asked)
        .ok_or(Code::ARGUMENT_VERSION_MISMATCH)
}

/// A list into the caller's. One that is too short is told the length it needs.
///
/// # Safety
/// `count` must be null or valid, and `list` null or valid for writing `count` values.
unsafe fn put_list<T: Copy>(
    found: Vec<T>,
    count: *mut c_uint,
    list: *mut T,
    garbage: bool,
) -> Answer<()> {
    // SAFETY: the caller promises it.
    let count = unsafe { count.as_mut() }.ok_or(Code::INVALID_ARGUMENT)?;
    let room = mem::replace(
        count,
        c_uint::try_from(found.len()).map_err(|_| Code::UNKNOWN)?,
    );
    if room < *count {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    if list.is_null() && !found.is_empty() {
        return Err(Code::INVALID_ARGUMENT);
    }
    for (place, value) in found.into_iter().enumerate() {
        // SAFETY: the list is there and has room for all, as was checked.
        unsafe { (list.add(place),).put((value,), garbage) }?;
    }
    Ok(())
}

fn pci_info(gpu: &Gpu) -> Answer<nvmlPciInfo_t> {
    let (domain, bus, device) = bus_address(&gpu.pci_bus_id).ok_or(Code::UNKNOWN)?;
    Ok(nvmlPciInfo_t {
        busIdLegacy: chars(&format!("{:04X}:{bus:02X}:{device:02X}.0", domain & 0xFFFF)),
        domain,
        bus,
        device,
        pciDeviceId: gpu.pci_device_id,
        pciSubSystemId: gpu.pci_subsystem_id,
        busId: chars(&gpu.pci_bus_id),
    })
}

/// A string in a C array, cut where it does not fit.
fn chars<const N: usize>(text: &str) -> [c_char; N] {
    let mut chars = [0; N];
    for (slot, byte) in chars[..N - 1].iter_mut().zip(text.bytes()) {
        *slot = c_char::from_ne_bytes([byte]);
    }
    chars
}

/// Garbage in which the strings still end.
fn pci_garbage() -> nvmlPciInfo_t {
    nvmlPciInfo_t {
        busIdLegacy: endless(),
        domain: c_uint::MAX,
        bus: c_uint::MAX,
        device: c_uint::MAX,
        pciDeviceId: c_uint::MAX,
        pciSubSystemId: c_uint::MAX,
        busId: endless(),
    }
}

fn endless<const N: usize>() -> [c_char; N] {
    let mut chars = [!0; N];
    chars[N - 1] = 0;
    chars
}

/// # Safety
/// `info` must be null or valid for writing.
unsafe fn put_pci_info(call: &str, device: nvmlDevice_t, info: *mut nvmlPciInfo_t) -> Answer<()> {
    let card = Card::asked(call, device)?;
    let answer = if card.garbage {
        pci_garbage()
    } else {
        pci_info(&card)?
    };
    // SAFETY: the caller promises it.
    unsafe { (info,).put((answer,), false) }
}

fn processes(list: Option<&Vec<Process>>) -> Answer<Vec<nvmlProcessInfo_v2_t>> {
    let told = |process: &Process| nvmlProcessInfo_v2_t {
        pid: process.pid,
        usedGpuMemory: process.used_memory.unwrap_or(c_ulonglong::MAX),
        gpuInstanceId: NO_INSTANCE,
        computeInstanceId: NO_INSTANCE,
    };
    Ok(list.known()?.iter().map(told).collect())
}

fn retired_pages(gpu: &Gpu, cause: nvmlPageRetirementCause_t) -> Answer<Vec<c_ulonglong>> {
    use nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR as DOUBLE_BIT;
    use nvmlPageRetirementCause_enum_NVML_PAGE_RETIREMENT_CAUSE_MULTIPLE_SINGLE_BIT_ECC_ERRORS as SINGLE_BIT;

    let pages = gpu.retired_pages.as_ref().known()?;
    match cause {
        SINGLE_BIT => Ok(pages.sbe.clone()),
        DOUBLE_BIT => Ok(pages.dbe.clone()),
        _ => Err(Code::INVALID_ARGUMENT),
    }
}

/// A field by its number: as the state file lists it, or what the other calls tell of the same thing.
fn field(gpu: &Gpu, id: c_uint) -> Answer<Field> {
    use field_id::*;

    if let Some(listed) = gpu.fields.get(&id) {
        return match listed {
            Field::Error(code) => Err(*code),
            Field::Unsupported(()) => Err(Code::NOT_SUPPORTED),
            Field::Unsigned(_) | Field::Signed(_) | Field::Float(_) | Field::Typed(_) => {
                Ok(listed.clone())
            }
        };
    }
    let pcie = gpu.pcie.as_ref().known();
    let rows = gpu.remapped_rows.as_ref().known();
    let pages = gpu.retired_pages.as_ref().known();
    let errors = |kind, since| ecc_errors(gpu, kind, since);
    let (corrected, uncorrected) = (0, 1);
    let (volatile, aggregate) = (0, 1);
    let value = match id {
        NVML_FI_DEV_ECC_CURRENT => ecc(gpu)?.enabled.into(),
        NVML_FI_DEV_ECC_PENDING => ecc(gpu)?.pending.unwrap_or(ecc(gpu)?.enabled).into(),
        NVML_FI_DEV_ECC_SBE_VOL_TOTAL => errors(corrected, volatile)?,
        NVML_FI_DEV_ECC_DBE_VOL_TOTAL => errors(uncorrected, volatile)?,
        NVML_FI_DEV_ECC_SBE_AGG_TOTAL => errors(corrected, aggregate)?,
        NVML_FI_DEV_ECC_DBE_AGG_TOTAL => errors(uncorrected, aggregate)?,
        NVML_FI_DEV_RETIRED_SBE => pages?.sbe.len() as u64,
        NVML_FI_DEV_RETIRED_DBE => pages?.dbe.len() as u64,
        NVML_FI_DEV_RETIRED_PENDING => pages?.pending.into(),
        NVML_FI_DEV_MEMORY_TEMP => gpu.memory_temperature.known()?.into(),
        NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION => gpu.total_energy_mj.known()?,
        NVML_FI_DEV_PCIE_REPLAY_COUNTER => pcie?.replays.into(),
        NVML_FI_DEV_PCIE_REPLAY_ROLLOVER_COUNTER => pcie?.replay_rollovers.into(),
        NVML_FI_DEV_REMAPPED_COR => rows?.corrected.into(),
        NVML_FI_DEV_REMAPPED_UNC => rows?.uncorrected.into(),
        NVML_FI_DEV_REMAPPED_PENDING => rows?.pending.into(),
        NVML_FI_DEV_REMAPPED_FAILURE => rows?.failure.into(),
        NVML_FI_DEV_GET_GPU_RECOVERY_ACTION => gpu.recovery_action.known()?.into(),
        _ => return Err(Code::NOT_SUPPORTED),
    };
    Ok(Field::Unsigned(value))
}

/// Temperature limits are distances from the throttling point, and signed even where they are 0.
fn fill(value: &mut nvmlFieldValue_t, found: Answer<Field>, garbage: bool) {
    use field_id::{
        NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT, NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT,
    };

    let signed = (NVML_FI_DEV_TEMPERATURE_SHUTDOWN_TLIMIT..=NVML_FI_DEV_TEMPERATURE_GPU_MAX_TLIMIT)
        .contains(&value.fieldId);
    let found = found.and_then(|field| match field {
        Field::Unsigned(number) => Ok(match (i32::try_from(number), u32::try_from(number)) {
            (Ok(number), _) if signed => TypedField::I32(number),
            (_, Ok(number)) => TypedField::U32(number),
            _ => TypedField::U64(number),
        }),
        Field::Signed(number) => Ok(TypedField::I32(number)),
        Field::Float(number) => Ok(TypedField::F64(number)),
        Field::Typed(number) => Ok(number),
        Field::Unsupported(()) => Err(Code::NOT_SUPPORTED),
        Field::Error(code) => Err(code),
    });
    value.timestamp = 0;
    value.latencyUsec = 0;
    value.value.ullVal = 0;
    value.nvmlReturn = found
        .as_ref()
        .map_or_else(|code| code.0, |_| Code::SUCCESS.0);
    if let Ok(number) = found {
        value.valueType = match number {
            TypedField::F64(number) => {
                value.value.dVal = number;
                nvmlValueType_enum_NVML_VALUE_TYPE_DOUBLE
            }
            TypedField::U32(number) => {
                value.value.uiVal = number;
                nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_INT
            }
            TypedField::U64(number) => {
                value.value.ullVal = number;
                nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
            }
            TypedField::I64(number) => {
                value.value.sllVal = number;
                nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_LONG_LONG
            }
            TypedField::I32(number) => {
                value.value.siVal = number;
                nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT
            }
            TypedField::U16(number) => {
                value.value.usVal = number;
                nvmlValueType_enum_NVML_VALUE_TYPE_UNSIGNED_SHORT
            }
        };
    }
    if garbage {
        value.value.ullVal = c_ulonglong::MAX;
    }
}
