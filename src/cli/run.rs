//! `sideline run`: the agent, until a signal ends it.

use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::agent::{self, Exit, State};
use crate::domain::report::{CameraState, Report};

/// Runs the agent.
///
/// # Errors
/// The configuration is wrong, the socket can't be opened, or a part of the agent broke.
pub fn main(config: Option<&Path>) -> anyhow::Result<ExitCode> {
    let in_terminal = std::io::stderr().is_terminal() && !super::log::under_systemd();
    super::log::start(in_terminal);
    let mut config_now = super::load::load(config)?.config;
    let runtime = super::runtime()?;
    let outcome = runtime.block_on(async {
        let mut state = State::open(&config_now);
        loop {
            match agent::run(&config_now, in_terminal.then_some(show), &mut state).await? {
                Exit::Stop => return anyhow::Ok(()),
                Exit::Reload => match super::load::load(config) {
                    Ok(loaded) => {
                        tracing::info!("the configuration was read again");
                        config_now = loaded.config;
                    }
                    Err(error) => {
                        tracing::error!("the old configuration stays in force: {error:#}");
                    }
                },
            }
        }
    });
    // A thread that hangs in a system call must not hold up the end.
    runtime.shutdown_background();
    if in_terminal {
        eprintln!();
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
    let line = format!(
        "{} {} of {} slots | cpu {} mem {} | {} GPUs | {up} of {} cameras up {}",
        report.verdict.state.name().to_uppercase(),
        report.capacity.available,
        report.capacity.slots,
        percent(host.and_then(|host| host.cpu_percent)),
        percent(host.and_then(|host| host.memory_used_percent)),
        report.gpus.len(),
        report.cameras.len(),
        reasons.join(" "),
    );
    let line: String = line.chars().take(79).collect();
    // A terminal that has gone away is no reason to stop watching.
    let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
}
