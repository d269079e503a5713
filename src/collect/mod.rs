//! How we find out: one collector a source, each publishing its latest reading; trouble is a reading too.

pub mod cameras;
pub mod checks;
pub mod drives;
pub mod gpus;
pub mod host;
pub mod identity;
pub mod kernel_log;
pub mod ups;

pub(crate) mod program;
