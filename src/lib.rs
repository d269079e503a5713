//! sideline watches an on-prem camera server, decides whether its hardware can still carry its cameras,
//! and tells the cloud how much it can carry, so that the cloud takes the rest.
//!
//! The modules stand in reading order, not in that of the alphabet; `tests/tidy.rs` holds who may import whom.
#![cfg_attr(rustfmt, rustfmt::skip)]

pub mod config;
pub mod domain;
pub mod clock;
pub mod supervisor;
pub mod store;
pub mod clients;
pub mod collect;
pub mod ship;
pub mod control;
pub mod status;
pub mod doctor;
pub mod agent;
pub mod cli;
