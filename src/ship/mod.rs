//! How we tell the cloud: one outbox a destination, so that one that is stuck never holds up the other.

pub mod cloudwatch;
pub mod datum;
pub mod period;
pub mod relay;
