//! `sideline maintenance` and `sideline drill`: out of service by hand, and a rehearsal of a failure.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::print;
use crate::config::units::parse_duration;
use crate::domain::report::State;
use crate::status::{client, text};

/// Out of service, or back.
#[derive(Debug, Subcommand)]
pub enum MaintenanceCommand {
    /// Take the node out of service
    #[command(after_help = ON)]
    On {
        /// How long; then it comes back by itself
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, default_value = "2h")]
        length: Duration,
        /// Why, for whoever looks at it
        #[arg(long, value_name = "TEXT", default_value = "by hand")]
        reason: String,
        /// How to print it
        #[command(flatten)]
        form: Form,
    },
    /// Bring the node back into service
    #[command(after_help = OFF)]
    Off {
        /// How to print it
        #[command(flatten)]
        form: Form,
    },
}

/// How a rehearsal goes.
#[derive(Debug, Args)]
pub struct DrillOptions {
    /// How long; then it ends by itself
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration, required_unless_present = "end")]
    length: Option<Duration>,
    /// Slots that the node tells the cloud meanwhile
    #[arg(long, value_name = "N", default_value_t = 0)]
    slots: u32,
    /// End the drill that goes on
    #[arg(long, conflicts_with_all = ["length", "slots"])]
    end: bool,
    #[command(flatten)]
    form: Form,
}

/// How to print what came of it.
#[derive(Debug, Clone, Copy, Args)]
pub struct Form {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Before the help of both.
pub(super) const ABOUT: &str = "\
In maintenance the node offers no slots and is not fit for new work; with failover.mode = \"drain\" its ECS container \
instance is DRAINING, too, whatever the guards say. It survives restarts and reboots. Only root and the user that the \
agent runs as may give these orders.";

const ON: &str = "\
Given again, it replaces what was ordered before.
Exit status: 0 done; 1 it may be forgotten by a restart; 3 no agent answers, or it refuses.

Examples:
  sudo sideline maintenance on --for 90m --reason 'new power supply'
  sudo sideline maintenance on --for 7d --reason 'closed for winter'";

const OFF: &str = "\
Where the hardware can't carry its work, a node that is drained stays so.
Exit status: 0 it is back; 1 it is still out of service, and says why; 3 no agent answers, or it refuses.";

/// Before the help of `drill`.
pub(super) const DRILL: &str = "\
The node tells CloudWatch and the relay that it carries so many slots, with \"drill\" as the reason, and the cloud does \
what it would do in earnest. Its own work goes on, its verdict stays as it is, and ECS is not touched. A fault that \
comes meanwhile counts as ever. What the cloud starts costs money.
Exit status: 0 done; 1 it may be forgotten by a restart; 3 no agent answers, or it refuses.

Examples:
  sudo sideline drill --for 10m              as if the whole node had failed
  sudo sideline drill --for 10m --slots 9    as if half of it had
  sudo sideline drill --end";

/// Runs `sideline maintenance …`.
///
/// # Errors
/// No agent answers, or it refuses.
pub fn main(command: MaintenanceCommand, socket: &Path) -> anyhow::Result<ExitCode> {
    let (order, form) = match command {
        MaintenanceCommand::On {
            length,
            reason,
            form,
        } => (Some((length, reason)), form),
        MaintenanceCommand::Off { form } => (None, form),
    };
    let ends = order.is_none();
    let stands = super::runtime()?.block_on(client::maintain(socket, order))?;
    let still_out = ends && stands["capacity"]["because"] == "maintenance";
    told(&stands, form, still_out)
}

/// Runs `sideline drill`.
///
/// # Errors
/// As for [`main`].
pub fn drill(options: &DrillOptions, socket: &Path) -> anyhow::Result<ExitCode> {
    // Clap has seen to it that there is a length, or that it ends.
    let length = options.length.unwrap_or_default();
    if !options.end && length < Duration::from_secs(1) {
        anyhow::bail!("--for must be 1s to 30d");
    }
    let stands = super::runtime()?.block_on(client::drill(socket, length, options.slots))?;
    told(&stands, options.form, false)
}

/// Prints how the node stands.
fn told(stands: &Value, form: Form, still_out: bool) -> anyhow::Result<ExitCode> {
    let problems = stands["problems"].as_array();
    let problems: Vec<&str> = problems
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if form.json {
        print(&format!("{stands:#}\n"))?;
    } else {
        print(&text::stands(stands))?;
        for problem in &problems {
            eprintln!("sideline: {problem}");
        }
    }
    Ok(match problems.is_empty() && !still_out {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(State::Degraded.code()),
    })
}
