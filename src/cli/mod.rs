//! Arguments → one subcommand. A subcommand talks and decides nothing.

pub mod check;
pub mod config;
pub mod fit;
pub mod load;
pub mod log;
pub mod run;
pub mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::domain::report::State;

/// Watches an on-prem camera server and tells the cloud how much it can carry.
#[derive(Debug, Parser)]
#[command(name = "sideline", version, propagate_version = true, max_term_width = 80, after_help = AFTER_HELP)]
pub struct Arguments {
    /// The configuration [default: /etc/sideline/sideline.toml if it exists, else built-in defaults]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// The running agent's socket [default: status.sock in paths.run]
    #[arg(long, global = true, value_name = "FILE")]
    socket: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Try it on this machine, without configuration, cloud or GPU:
  sideline check            look once and tell what is wrong
  sideline run              the agent, in the foreground; Ctrl-C ends it
  sideline status --watch   in another terminal

Exit status of status and check: 0 healthy, 1 degraded, 2 failing, 3 unknown.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the agent: watch, judge, tell the cloud (what the systemd unit starts)
    Run,
    /// Ask the running agent how the node does
    Status(status::Options),
    /// Look once and judge, without a running agent
    Check(check::Options),
    /// Exit 0 while this node may take new work, 1 while it may not
    #[command(
        after_help = "In a systemd unit:   ExecCondition=/usr/bin/sideline fit\nIn a worker script:  sideline fit || exit 75"
    )]
    Fit,
    /// Check, show and explain the configuration
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Read hardware through a vendor's library, for the agent
    #[command(subcommand, hide = true)]
    Probe(Probe),
}

#[derive(Debug, Subcommand)]
enum Probe {
    /// GPUs through NVML: a line of JSON a reading and an event
    Gpus {
        /// libnvidia-ml.so.1; empty: the loader's
        #[arg(long, default_value = "")]
        library: String,
    },
}

/// Runs the subcommand that the arguments name.
///
/// # Errors
/// What the subcommand could not do, for a person.
pub fn main() -> anyhow::Result<ExitCode> {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(usage) => {
            // Where nobody reads what is printed, nothing is lost.
            let _ = usage.print();
            // Not clap's 2: who asks for the status would take a typing error for a failing node.
            return Ok(exit_code(if usage.use_stderr() {
                State::Unknown
            } else {
                State::Healthy
            }));
        }
    };
    let config = arguments.config.as_deref();
    match arguments.command {
        Command::Run => run::main(config),
        Command::Status(options) => status::main(&options, &socket(&arguments.socket, config)?),
        Command::Check(options) => check::main(&options, config),
        Command::Fit => fit::main(&socket(&arguments.socket, config)?),
        Command::Config(command) => config::run(command, config),
        Command::Probe(Probe::Gpus { library }) => {
            crate::collect::gpus::probe::main(&library)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Where the running agent listens.
fn socket(named: &Option<PathBuf>, config: Option<&Path>) -> anyhow::Result<PathBuf> {
    match named {
        Some(socket) => Ok(socket.clone()),
        None => Ok(load::load(config)?
            .config
            .paths
            .run
            .join(crate::status::SOCKET)),
    }
}

/// The exit status of a state: the convention of monitoring plugins.
fn exit_code(state: State) -> ExitCode {
    ExitCode::from(state.code())
}

/// A runtime for one thread: the agent is small, and so are the commands that ask it.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?)
}

/// Whether standard output wants colour: a terminal, and nobody said `NO_COLOR` (no-color.org).
fn colour() -> bool {
    use std::io::IsTerminal;
    let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    std::io::stdout().is_terminal() && !refused && !dumb
}
