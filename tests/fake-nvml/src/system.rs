//! The calls about the library as a whole, and those that find a card.

use std::ffi::{c_char, c_int, c_uint};
use std::sync::atomic::Ordering;

use nvml_wrapper_sys::bindings::{nvmlDevice_t, nvmlReturn_t};

use crate::calls;
use crate::codes::{Answer, Code};
use crate::gate::{self, Card, INITIALISED, Outs};

calls! { CALLS:
    fn nvmlInit_v2() as me { init(me) }
    fn nvmlInit() as me { init(me) }
    fn nvmlInitWithFlags(_flags: c_uint) as me { init(me) }

    fn nvmlShutdown() as me {
        gate::enter(me);
        INITIALISED
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |users| users.checked_sub(1))
            .map(drop)
            .map_err(|_| Code::UNINITIALIZED)
    }

    fn nvmlSystemGetDriverVersion(version: *mut c_char, length: c_uint) as me {
        // SAFETY: the caller's buffer is as long as they say.
        unsafe { gate::put_text(version, length, &gate::ask(me)?.driver_version, false) }
    }
    fn nvmlSystemGetNVMLVersion(version: *mut c_char, length: c_uint) as me {
        // SAFETY: the caller's buffer is as long as they say.
        unsafe { gate::put_text(version, length, &gate::ask(me)?.nvml_version, false) }
    }
    fn nvmlSystemGetCudaDriverVersion(version: *mut c_int) as me {
        // SAFETY: the caller's pointer is null or good.
        unsafe { (version,).put((gate::ask(me)?.cuda_version,), false) }
    }
    fn nvmlSystemGetCudaDriverVersion_v2(version: *mut c_int) as me {
        // SAFETY: the caller's pointer is null or good.
        unsafe { (version,).put((gate::ask(me)?.cuda_version,), false) }
    }

    fn nvmlDeviceGetCount(count: *mut c_uint) as me {
        // SAFETY: the caller's pointer is null or good.
        unsafe { (count,).put((enumerated(me)?,), false) }
    }
    fn nvmlDeviceGetCount_v2(count: *mut c_uint) as me {
        // SAFETY: the caller's pointer is null or good.
        unsafe { (count,).put((enumerated(me)?,), false) }
    }

    fn nvmlDeviceGetHandleByIndex(index: c_uint, device: *mut nvmlDevice_t) as me {
        // SAFETY: the caller's pointer is null or good.
        unsafe { (device,).put((by_index(me, index)?,), false) }
    }
    fn nvmlDeviceGetHandleByIndex_v2(index: c_uint, device: *mut nvmlDevice_t) as me {
        // SAFETY: the caller's pointer is null or good.
        unsafe { (device,).put((by_index(me, index)?,), false) }
    }

    fn nvmlDeviceGetHandleByUUID(uuid: *const c_char, device: *mut nvmlDevice_t) as me {
        let state = gate::ask(me)?;
        // SAFETY: the caller's string is null or closed by a NUL.
        let uuid = unsafe { gate::text_of(uuid) }?;
        let card = Card::found(me, state, |gpu| gpu.uuid == uuid)?;
        // SAFETY: the caller's pointer is null or good.
        unsafe { (device,).put((card.handle(),), false) }
    }

    fn nvmlDeviceGetHandleByPciBusId(bus_id: *const c_char, device: *mut nvmlDevice_t) as me {
        // SAFETY: the caller's pointers are null or good.
        unsafe { (device,).put((by_bus_id(me, bus_id)?,), false) }
    }
    fn nvmlDeviceGetHandleByPciBusId_v2(bus_id: *const c_char, device: *mut nvmlDevice_t) as me {
        // SAFETY: the caller's pointers are null or good.
        unsafe { (device,).put((by_bus_id(me, bus_id)?,), false) }
    }
}

/// Needs no initialisation, and neither hangs nor crashes.
#[unsafe(no_mangle)]
extern "C" fn nvmlErrorString(result: nvmlReturn_t) -> *const c_char {
    Code(result).text().as_ptr()
}

fn init(call: &str) -> Answer<()> {
    match gate::enter(call).ok_or(Code::DRIVER_NOT_LOADED)?.init {
        Code::SUCCESS => {
            INITIALISED.fetch_add(1, Ordering::SeqCst);
            Ok(())
        }
        refused => Err(refused),
    }
}

fn enumerated(call: &str) -> Answer<c_uint> {
    let state = gate::ask(call)?;
    Ok(state
        .gpus
        .iter()
        .filter(|gpu| !gpu.missing)
        .map(|_| 1)
        .sum())
}

fn by_index(call: &str, index: c_uint) -> Answer<nvmlDevice_t> {
    let state = gate::ask(call)?;
    let mut enumerated = state.gpus.iter().filter(|gpu| !gpu.missing);
    let uuid = enumerated
        .nth(index as usize)
        .ok_or(Code::INVALID_ARGUMENT)?
        .uuid
        .clone();
    Ok(Card::found(call, state, |gpu| gpu.uuid == uuid)?.handle())
}

/// # Safety
/// `bus_id` must be null or point to a string with a closing NUL.
unsafe fn by_bus_id(call: &str, bus_id: *const c_char) -> Answer<nvmlDevice_t> {
    let state = gate::ask(call)?;
    // SAFETY: the caller promises the NUL.
    let address = bus_address(&unsafe { gate::text_of(bus_id) }?).ok_or(Code::INVALID_ARGUMENT)?;
    Ok(Card::found(call, state, |gpu| {
        bus_address(&gpu.pci_bus_id) == Some(address)
    })?
    .handle())
}

/// Domain, bus and device of `00000000:01:00.0`, in which the domain may be short or left out.
pub(crate) fn bus_address(bus_id: &str) -> Option<(u32, u32, u32)> {
    let hex = |digits: &str| u32::from_str_radix(digits, 16).ok();
    let mut parts = bus_id.rsplit(':');
    let device = hex(parts.next()?.split('.').next()?)?;
    let bus = hex(parts.next()?)?;
    let domain = parts.next().map_or(Some(0), hex)?;
    parts.next().is_none().then_some((domain, bus, device))
}
