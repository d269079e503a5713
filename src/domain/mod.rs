//! What it means. Pure: no clock, no network, no disk, no async; trouble is data, time is an argument.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod assets;
pub mod capacity;
pub mod compliance;
pub mod correlate;
pub mod ecs;
pub mod explain;
pub mod failover;
pub mod finding;
pub mod findings;
pub mod identity;
pub mod inventory;
pub mod judge;
pub mod kernel_event;
pub mod kernel_facts;
pub mod kernel_line;
pub mod kernel_scan;
pub mod memory;
pub mod moment;
pub mod outbox;
pub mod phase;
pub mod reading;
pub mod record;
pub mod replay;
pub mod report;
pub mod rise;
pub mod rules;
pub mod settings;
pub mod snapshot;
pub mod timing;
pub mod verdict;
pub mod xid;
