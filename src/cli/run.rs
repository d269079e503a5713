//! `sideline run`: the agent, until a signal ends it.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::agent;
use crate::domain::report::{CameraState, Report};

/// Runs the agent.
///
/// # Errors
/// The configuration is wrong, the socket can't be opened, or a part of the agent broke.
pub fn main(config: Option<&Path>) -> anyhow::Result<ExitCode> {
    super::keep_to_oneself();
    let in_terminal = std::io::stderr().is_terminal() && !super::log::under_systemd();
    super::log::start(in_terminal);
    let load = || super::load::base(config);
    let first = load()?;
    let runtime = super::runtime()?;
    let outcome = runtime.block_on(agent::run(first, load, in_terminal.then_some(show)));
    // A thread that hangs in a system call must not hold up the end.
    runtime.shutdown_background();
    if in_terminal {
        // The last summary holds no more. A terminal that has gone away needs none.
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
    outcome?;
    Ok(ExitCode::SUCCESS)
}

/// One line at the bottom of a terminal.
fn show(report: &Report) {
    let up = report
        .cameras
        .iter()
        .filter(|camera| camera.state == CameraState::Up)
        .count();
    let percent =
        |share: Option<f64>| share.map_or_else(|| "?".to_owned(), |share| format!("{share:.0} %"));
    let host = report.host.as_ref();
    let reasons: Vec<String> = report
        .verdict
        .reasons
        .iter()
        .map(ToString::to_string)
        .collect();
    // The reasons come before what may be cut off.
    let line = format!(
        "{}{} | carries {} of {} | {} GPUs | {up} of {} cameras up | cpu {} mem {}",
        report.verdict.state.name().to_uppercase(),
        reasons
            .iter()
            .map(|code| format!(" {code}"))
            .collect::<String>(),
        report.capacity.available,
        report.capacity.slots,
        report.gpus.len(),
        report.cameras.len(),
        percent(host.and_then(|host| host.cpu_percent)),
        percent(host.and_then(|host| host.memory_used_percent)),
    );
    let line: String = line.chars().take(79).collect();
    // A terminal that has gone away is no reason to stop watching.
    let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
}
