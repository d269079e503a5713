//! `sideline fit`: may this node take new work?

use std::path::Path;
use std::process::ExitCode;

use crate::status::client;

/// Exits 0 while the node may take new work, 1 while it may not or nobody can tell.
///
/// # Errors
/// The runtime can't be built.
pub fn main(socket: &Path) -> anyhow::Result<ExitCode> {
    Ok(match super::runtime()?.block_on(client::fit(socket)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sideline: {error:#}");
            ExitCode::FAILURE
        }
    })
}
