//! What can be set: the types and their defaults, the parser, the checks, the manual.
//!
//! Pure: files and the environment are read outside and handed in.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod types;
pub mod units;

pub mod address;
pub mod codes;
pub mod problem;

mod check;
mod parse;
mod schema;
mod shape;

pub mod cost;
pub mod effective;
pub mod layers;
pub mod manual;
pub mod page;

pub use parse::{Parsed, decode, parse};
pub use problem::{Problem, Problems};
pub use types::*;
