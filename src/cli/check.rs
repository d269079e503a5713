//! `sideline check`: observes once and judges, without a running agent.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::agent;
use crate::status::text;

/// How to show the report.
#[derive(Debug, Args)]
pub struct Options {
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Sources that need longer to answer are reported as they are.
const PATIENCE: Duration = Duration::from_secs(8);

/// Looks once; the exit status tells the verdict.
///
/// # Errors
/// The configuration is wrong, or a collector broke.
pub fn main(options: &Options, config: Option<&Path>) -> anyhow::Result<ExitCode> {
    super::log::quiet();
    let loaded = super::load::load(config)?;
    let config = &loaded.config;
    let patience = PATIENCE.max(config.gpu.deadline + Duration::from_secs(2));
    let runtime = super::runtime()?;
    let report = runtime.block_on(agent::observe_once(config, patience))?;
    runtime.shutdown_background();
    let wire = serde_json::to_value(&*report)?;
    if options.json {
        super::print(&format!("{wire:#}\n"))?;
    } else {
        super::print(&text::draw(&wire, super::colour()))?;
    }
    Ok(super::exit_code(report.verdict.state))
}
