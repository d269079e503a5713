//! The few calls that nvml-wrapper has not, or of which it drops a part.

#![expect(
    unsafe_code,
    reason = "the vendor's C functions are called as the header declares them"
)]

use std::mem;

use nvml_wrapper::error::{NvmlError, nvml_sym, nvml_try};
use nvml_wrapper::sys_exports::field_id;
use nvml_wrapper::{Device, Nvml};
use nvml_wrapper_sys::bindings::{
    nvmlFieldValue_t, nvmlMarginTemperature_t, nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT,
};

/// Why the clocks are held down. The wrapper drops the bits that it has no name for, and newer drivers have more.
///
/// # Errors
/// NVML's.
pub(super) fn throttle_reasons(nvml: &Nvml, device: &Device<'_>) -> Result<u64, NvmlError> {
    let ask = nvml_sym(
        nvml.lib()
            .nvmlDeviceGetCurrentClocksThrottleReasons
            .as_ref(),
    )?;
    let mut reasons = 0;
    // SAFETY: the handle is the library's own, and the call writes one u64.
    nvml_try(unsafe { ask(device.handle(), &raw mut reasons) })?;
    Ok(reasons)
}

/// Degrees left until the card throttles; negative beyond (NVML 12.8 and later).
///
/// # Errors
/// NVML's.
pub(super) fn margin(nvml: &Nvml, device: &Device<'_>) -> Result<i32, NvmlError> {
    let ask = nvml_sym(nvml.lib().nvmlDeviceGetMarginTemperature.as_ref())?;
    let mut margin = nvmlMarginTemperature_t {
        version: versioned::<nvmlMarginTemperature_t>(1),
        marginTemperature: 0,
    };
    // SAFETY: the handle is the library's own, and the structure states its size and version.
    nvml_try(unsafe { ask(device.handle(), &raw mut margin) })?;
    // All ones would read as a margin of -1.
    match margin.version == versioned::<nvmlMarginTemperature_t>(1) {
        true => Ok(margin.marginTemperature),
        false => Err(NvmlError::NotSupported),
    }
}

/// The margin at which the card's hardware slows it down (field 194). It is a signed 32-bit number, a type that the
/// wrapper does not know.
///
/// # Errors
/// NVML's; `NotSupported` where it comes in any other type.
pub(super) fn slowdown_margin(nvml: &Nvml, device: &Device<'_>) -> Result<i32, NvmlError> {
    let ask = nvml_sym(nvml.lib().nvmlDeviceGetFieldValues.as_ref())?;
    // SAFETY: plain C data, for which all zeroes are valid.
    let mut field: nvmlFieldValue_t = unsafe { mem::zeroed() };
    field.fieldId = field_id::NVML_FI_DEV_TEMPERATURE_SLOWDOWN_TLIMIT;
    // SAFETY: the handle is the library's own, and there is one field as is said.
    nvml_try(unsafe { ask(device.handle(), 1, &raw mut field) })?;
    nvml_try(field.nvmlReturn)?;
    if field.valueType != nvmlValueType_enum_NVML_VALUE_TYPE_SIGNED_INT {
        return Err(NvmlError::NotSupported);
    }
    // SAFETY: the type says which member of the union was written.
    Ok(unsafe { field.value.siVal })
}

/// What a structure says of itself: its size, and its version in the highest byte (`NVML_STRUCT_VERSION`).
const fn versioned<T>(version: u32) -> u32 {
    // NVML's structures are far below 16 MiB.
    mem::size_of::<T>() as u32 | version << 24
}
