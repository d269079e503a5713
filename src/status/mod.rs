//! How we are seen and told: the socket, its client, and the text for a person on an 80-column terminal.

pub mod client;
mod connections;
pub mod orders;
pub mod page;
pub mod prometheus;
pub mod server;
pub mod text;

/// The socket's name in `paths.run`.
pub const SOCKET: &str = "status.sock";
