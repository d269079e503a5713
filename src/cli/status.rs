//! `sideline status`: asks the running agent.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use crate::domain::report::State;
use crate::status::{client, text};

/// How to show the status.
#[derive(Debug, Args)]
pub struct Options {
    /// Print the report as JSON; with --watch one report a line
    #[arg(long)]
    json: bool,
    /// Go on showing it as it changes, until Ctrl-C
    #[arg(long)]
    watch: bool,
}

/// Shows the running agent's report; the exit status tells the verdict.
///
/// # Errors
/// None that is worth another exit status than 3: no agent is "unknown".
pub fn main(options: &Options, socket: &Path) -> anyhow::Result<ExitCode> {
    let asked = super::runtime()?.block_on(async {
        if options.watch {
            client::watch(socket, |report| show(report, options))
                .await
                .map(|()| State::Unknown.code())
        } else {
            let report = client::report(socket).await?;
            show(&report, options)?;
            Ok(code(&report))
        }
    });
    Ok(match asked {
        Ok(code) => ExitCode::from(code),
        // `status | head` is no error.
        Err(error)
            if error
                .downcast_ref::<io::Error>()
                .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe) =>
        {
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sideline: {error:#}");
            super::exit_code(State::Unknown)
        }
    })
}

fn show(report: &Value, options: &Options) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    match (options.json, options.watch) {
        (true, true) => writeln!(out, "{report}")?,
        (true, false) => writeln!(out, "{report:#}")?,
        (false, watch) => {
            let text = text::draw(report, super::colour());
            match rows().filter(|_| watch) {
                // Home, then clear what is below: no flicker. The verdict stands first and must not scroll off.
                Some(rows) => {
                    let lines: Vec<&str> = text.lines().take(rows.saturating_sub(1)).collect();
                    writeln!(out, "\x1b[H\x1b[J{}", lines.join("\n"))?;
                }
                None => write!(out, "{text}")?,
            }
        }
    }
    out.flush()?;
    Ok(())
}

/// Lines of the terminal, if there is one.
fn rows() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_row)).filter(|rows| *rows > 0)
}

fn code(report: &Value) -> u8 {
    let state = &report["verdict"]["state"];
    [State::Healthy, State::Degraded, State::Failing]
        .into_iter()
        .find(|known| state == known.name())
        .unwrap_or_default()
        .code()
}
