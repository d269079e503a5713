//! Where the agent's log goes: the journal under systemd, else standard error.

use std::io::{self, Write};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

/// Sets the log's level: `info`, `debug`, or `sideline=debug,rumqttc=trace`.
const VARIABLE: &str = "SIDELINE_LOG";

/// Whether systemd reads our standard error.
pub(super) fn under_systemd() -> bool {
    std::env::var_os("JOURNAL_STREAM").is_some()
}

/// Starts the log of the agent. In a terminal, lines go above the live summary.
pub(super) fn start(above_summary: bool) {
    let chosen = std::env::var(VARIABLE)
        .ok()
        .and_then(|text| text.parse::<Targets>().ok());
    let targets = chosen.unwrap_or_else(|| {
        Targets::new()
            .with_default(LevelFilter::WARN)
            .with_target("sideline", LevelFilter::INFO)
    });
    let journal = if under_systemd() {
        tracing_journald::layer().ok()
    } else {
        None
    };
    let layer = match journal {
        Some(journal) => journal.boxed(),
        None => {
            let lines = tracing_subscriber::fmt::layer()
                .with_target(false)
                .with_ansi(above_summary);
            if above_summary {
                lines.with_writer(|| Above(io::stderr())).boxed()
            } else {
                lines.with_writer(io::stderr).boxed()
            }
        }
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(targets))
        .init();
}

/// Starts a log of errors alone, for commands whose output is a report.
pub(super) fn quiet() {
    let lines = tracing_subscriber::fmt::layer()
        .with_target(false)
        .with_writer(io::stderr);
    tracing_subscriber::registry()
        .with(lines.with_filter(LevelFilter::ERROR))
        .init();
}

/// Clears the summary's line before a line of the log takes its place.
struct Above(io::Stderr);

impl Write for Above {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.write_all(b"\r\x1b[K")?;
        self.0.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
