//! See `sideline_fuzz::TARGETS`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| sideline_fuzz::run("upsd", bytes));
