//! sideline watches an on-prem camera server, decides whether its hardware can still carry its cameras,
//! and tells the cloud how much it can carry, so that the cloud takes the rest.
//!
//! The modules in reading order; each may import only those above it and, of the outer folders, only itself.

pub mod clock;
pub mod config;
pub mod domain;
