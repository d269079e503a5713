//! What it means. Pure: no clock, no network, no disk, no async; trouble is data, time is an argument.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod finding;
pub mod kernel_line;
pub mod moment;
pub mod reading;
pub mod report;
pub mod snapshot;
