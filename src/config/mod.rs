//! What can be set: the types and their defaults, the parser, the checks, the manual.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod types;
pub mod units;

pub use types::*;
