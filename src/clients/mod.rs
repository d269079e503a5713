//! Connections to the outside that more than one part uses. They carry bytes; what those mean is said elsewhere.

pub mod aws;
pub mod backoff;
pub mod credentials;
pub mod mqtt;
pub mod reach;

mod https;
mod trust;
