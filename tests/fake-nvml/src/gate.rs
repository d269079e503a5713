//! What every call passes first: hang, crash, initialisation, and the card that its handle means.

use std::ffi::{CStr, c_char, c_uint};
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use nvml_wrapper_sys::bindings::nvmlDevice_t;

use crate::codes::{Answer, Code};
use crate::state::{self, Call, Gpu, State};

/// How soon a blocked call sees that the state file has changed.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// nvmlInit less nvmlShutdown.
pub(crate) static INITIALISED: AtomicU32 = AtomicU32::new(0);

/// The state, once `call` neither crashes nor hangs. `None`: the state file was never readable.
pub(crate) fn enter(call: &str) -> Option<Arc<State>> {
    loop {
        let state = state::current()?;
        if !stops(&state.hang, &state.crash, call) {
            return Some(state);
        }
        thread::sleep(POLL);
    }
}

/// Whether a call blocks; one that crashes does not come back from here.
fn stops(hang: &[Call], crash: &[Call], call: &str) -> bool {
    let named = |calls: &[Call]| calls.iter().any(|listed| listed.means(call));
    if named(crash) {
        std::process::abort();
    }
    named(hang)
}

/// As [`enter`], for calls that need nvmlInit first.
pub(crate) fn ask(call: &str) -> Answer<Arc<State>> {
    let state = enter(call);
    match INITIALISED.load(Ordering::SeqCst) {
        0 => Err(Code::UNINITIALIZED),
        _ => state.ok_or(Code::UNINITIALIZED),
    }
}

/// A card as it is during one call.
pub(crate) struct Card {
    state: Arc<State>,
    position: usize,
    /// The call is to tell nothing but ones.
    pub(crate) garbage: bool,
}

impl Deref for Card {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        &self.state.gpus[self.position]
    }
}

impl Card {
    /// The card of a handle, unless `call` fails for it. One that is no longer there is lost.
    pub(crate) fn asked(call: &str, device: nvmlDevice_t) -> Answer<Self> {
        Self::of(call, ask(call)?, device)
    }

    /// As [`Card::asked`], in a state already at hand.
    pub(crate) fn of(call: &str, state: Arc<State>, device: nvmlDevice_t) -> Answer<Self> {
        let uuid = uuid_of(device).ok_or(Code::INVALID_ARGUMENT)?;
        Self::found(call, state, |gpu| gpu.uuid == uuid).map_err(|code| match code {
            Code::NOT_FOUND => Code::GPU_IS_LOST,
            other => other,
        })
    }

    /// The enumerated card that `wanted` knows, unless `call` fails for it.
    pub(crate) fn found(
        call: &str,
        mut state: Arc<State>,
        wanted: impl Fn(&Gpu) -> bool,
    ) -> Answer<Self> {
        let position = loop {
            let position = state
                .gpus
                .iter()
                .position(|gpu| !gpu.missing && wanted(gpu))
                .ok_or(Code::NOT_FOUND)?;
            let gpu = &state.gpus[position];
            if !stops(&gpu.hang, &gpu.crash, call) {
                break position;
            }
            thread::sleep(POLL);
            state = state::current().ok_or(Code::UNINITIALIZED)?;
        };
        let gpu = &state.gpus[position];
        if gpu.lost {
            return Err(Code::GPU_IS_LOST);
        }
        if let Some((_, code)) = gpu.errors.iter().find(|(listed, _)| listed.means(call)) {
            return Err(*code);
        }
        let garbage = gpu.sentinels.iter().any(|listed| listed.means(call));
        Ok(Self {
            state,
            position,
            garbage,
        })
    }

    /// The card's place among those enumerated.
    pub(crate) fn index(&self) -> c_uint {
        let before = &self.state.gpus[..self.position];
        before.iter().filter(|gpu| !gpu.missing).map(|_| 1).sum()
    }

    /// The handle, the same for as long as the process lives.
    pub(crate) fn handle(&self) -> nvmlDevice_t {
        let mut handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
        let known = handles.iter().position(|uuid| *uuid == self.uuid);
        let place = known.unwrap_or_else(|| {
            handles.push(self.uuid.clone());
            handles.len() - 1
        });
        ptr::without_provenance_mut(place + 1)
    }
}

/// Number and Xid of a card's events, even of a card that is lost.
pub(crate) fn events(state: &State, device: nvmlDevice_t) -> impl Iterator<Item = (u64, u64)> {
    let uuid = uuid_of(device);
    let card = state
        .gpus
        .iter()
        .find(|gpu| uuid.as_ref() == Some(&gpu.uuid));
    card.into_iter()
        .flat_map(|gpu| &gpu.xid_events)
        .map(|event| (event.seq, event.xid))
}

/// The UUIDs of all cards that were ever given out; a handle is a place here, counted from 1.
static HANDLES: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn uuid_of(device: nvmlDevice_t) -> Option<String> {
    let handles = HANDLES.lock().unwrap_or_else(PoisonError::into_inner);
    handles.get(device.addr().checked_sub(1)?).cloned()
}

/// Where a call puts what it found: one pointer, or several.
pub(crate) trait Outs {
    type Values;

    /// # Safety
    /// Each pointer that is not null must be valid for writing.
    unsafe fn put(self, values: Self::Values, garbage: bool) -> Answer<()>;
}

macro_rules! outs {
    ($($type:ident $pointer:ident $value:ident),+) => {
        impl<$($type: Copy),+> Outs for ($(*mut $type,)+) {
            type Values = ($($type,)+);

            unsafe fn put(self, ($($value,)+): Self::Values, garbage: bool) -> Answer<()> {
                let ($($pointer,)+) = self;
                if $($pointer.is_null())||+ {
                    return Err(Code::INVALID_ARGUMENT);
                }
                // SAFETY: none is null, and the caller promises the rest.
                $(unsafe { put_one($pointer, $value, garbage) };)+
                Ok(())
            }
        }
    };
}

outs!(A a x);
outs!(A a x, B b y);
outs!(A a x, B b y, C c z, D d w);

/// # Safety
/// `out` must be valid for writing.
unsafe fn put_one<T: Copy>(out: *mut T, value: T, garbage: bool) {
    // SAFETY: the caller promises it; T is plain C data, which may hold any bits.
    unsafe {
        match garbage {
            true => ptr::write_bytes(out, 0xFF, 1),
            false => out.write(value),
        }
    }
}

/// A string with its closing NUL into a buffer of `length` bytes. Garbage is ones up to the NUL.
///
/// # Safety
/// `buffer` must be null or valid for writing `length` bytes.
pub(crate) unsafe fn put_text(
    buffer: *mut c_char,
    length: c_uint,
    text: &str,
    garbage: bool,
) -> Answer<()> {
    let room = (length as usize)
        .checked_sub(1)
        .ok_or(Code::INSUFFICIENT_SIZE)?;
    if buffer.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    if room < text.len() {
        return Err(Code::INSUFFICIENT_SIZE);
    }
    // SAFETY: the text and its NUL fit into the buffer, as was checked.
    unsafe {
        match garbage {
            true => ptr::write_bytes(buffer, 0xFF, text.len()),
            false => ptr::copy_nonoverlapping(text.as_ptr().cast(), buffer, text.len()),
        }
        buffer.add(text.len()).write(0);
    }
    Ok(())
}

/// A C string that came as an argument.
///
/// # Safety
/// `text` must be null or point to a string with a closing NUL.
pub(crate) unsafe fn text_of(text: *const c_char) -> Answer<String> {
    if text.is_null() {
        return Err(Code::INVALID_ARGUMENT);
    }
    // SAFETY: it is not null, and the caller promises the NUL.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str()
        .map(str::to_owned)
        .map_err(|_| Code::INVALID_ARGUMENT)
}
