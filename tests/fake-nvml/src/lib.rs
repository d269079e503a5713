//! A `libnvidia-ml.so.1` whose cards and faults come from a file.
//!
//! The file named by `FAKE_NVML_STATE` is read at every call, so a card can heat up, fall off
//! the bus or hang while the program that watches it runs. Its fields are those of
//! `state::State`; `tests/abi/` reads each of them through nvml-wrapper. A file that is
//! torn or wrong is told once on stderr and leaves the last good state in force.
#![expect(
    unsafe_code,
    reason = "exports C functions that write through their caller's pointers"
)]
#![expect(
    non_upper_case_globals,
    reason = "constants are named as in the C header"
)]

mod codes;
mod device;
mod events;
mod gate;
mod lists;
mod presets;
mod state;
mod system;

/// The names of all calls that the state file may speak of.
fn exported() -> impl Iterator<Item = &'static str> {
    [
        system::CALLS,
        device::CALLS,
        device::TEXTS,
        lists::CALLS,
        events::CALLS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// C functions and a list of their names. Each body knows its own name and ends in an [`codes::Answer`].
macro_rules! calls {
    ($names:ident: $(fn $call:ident($($arg:ident: $type:ty),* $(,)?) as $me:ident $body:block)+) => {
        pub(crate) const $names: &[&str] = &[$(stringify!($call)),+];

        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $call($($arg: $type),*) -> nvml_wrapper_sys::bindings::nvmlReturn_t {
                let $me = stringify!($call);
                $crate::codes::returned(|| $body)
            }
        )+
    };
}
use calls;
